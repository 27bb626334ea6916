//! What a prompt begins with, as a chain of hashes: two prompts that share their first blocks share
//! the first hashes, and a backend that has read one prompt need not read the shared part again.
//!
//! The gateway counts bytes of text, not tokens: it has no tokenizer, and a backend's cache works by
//! blocks of its own anyway. A block that is not full has no hash.

use gateway_common::hash::mix;

/// Text in a block, bytes: some 250 tokens of English. vLLM caches blocks of 16 tokens, Mooncake of
/// 512 (Qin et al., FAST 2025); finer ones would be more hashes for the same choice of a backend.
pub const BLOCK_BYTES: usize = 1024;

/// Blocks of a prompt that are told apart: what comes after them does not count.
pub const BLOCKS_MAX: usize = 64;

/// Text of a prompt that is looked at for its blocks, bytes.
pub const TEXT_MAX: usize = BLOCK_BYTES * BLOCKS_MAX;

/// Puts one of a prompt's texts, so far as it is looked at, after those before it, and apart from the
/// next. What the operator says comes first: it is what prompts have in common.
pub fn append(text: &mut Vec<u8>, said: &str) {
    let room = TEXT_MAX.saturating_sub(text.len());
    text.extend_from_slice(&said.as_bytes()[..said.len().min(room)]);
    if room > said.len() {
        text.push(0);
    }
}

/// The hashes of a prompt's full blocks. Each stands for all of the prompt up to its block's end, and
/// for `model`, since a cache is of one model.
pub fn blocks(model: &str, text: &[u8]) -> Vec<u64> {
    let mut hash = words(0, model.as_bytes());
    let chain = |block| {
        hash = words(hash, block);
        hash
    };
    text.chunks_exact(BLOCK_BYTES).take(BLOCKS_MAX).map(chain).collect()
}

/// The hash of a name, such as a session's.
pub fn name(text: &str) -> u64 {
    words(1, text.as_bytes())
}

fn words(hash: u64, bytes: &[u8]) -> u64 {
    let word = |hash: u64, bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        mix(hash.rotate_left(5) ^ u64::from_le_bytes(word))
    };
    bytes.chunks(8).fold(mix(hash ^ bytes.len() as u64), word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_hashes_as_far_as_they_begin_alike() {
        let mut text = vec![b'a'; 5 * BLOCK_BYTES + 7];
        let first = blocks("m", &text);
        assert_eq!(first.len(), 5, "the last block is not full");
        text[3 * BLOCK_BYTES] = b'b';
        let second = blocks("m", &text);
        assert_eq!(first[..3], second[..3]);
        assert!(first[3] != second[3] && first[4] != second[4], "each stands for all before it");
    }

    #[test]
    fn a_cache_is_of_one_model() {
        let text = [b'a'; BLOCK_BYTES];
        assert_ne!(blocks("small", &text), blocks("large", &text));
    }

    #[test]
    fn a_long_prompt_counts_up_to_its_last_block() {
        assert_eq!(blocks("m", &vec![b'a'; 2 * TEXT_MAX]).len(), BLOCKS_MAX);
        assert!(blocks("m", b"short").is_empty());
    }
}
