//! Prompts over time, and what they share: a generator fitted to a measured trace.
//!
//! The trace is `synthetic_trace` of Mooncake (Qin et al., "Mooncake: Trading more storage for less
//! computation", FAST 2025): 3,993 requests in 1,022 s, each with the ids of its prompt's blocks of 512
//! tokens. Most of what is shared is shared within a session: somebody asks again about the same long
//! text. [`PromptShape::MOONCAKE`] was read off it.

use std::sync::Arc;

use gateway_common::hash::mix;

use super::chance::Chance;

/// Tokens of the longest answer: of the trace, one in a hundred is longer than 769.
const ANSWER_MAX: f64 = 800.0;

/// Tokens of a block.
pub const BLOCK_TOKENS: u32 = 512;

/// A request to a language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// When it is made, s from the start.
    pub at: f64,
    /// Its prompt's blocks, the last of which may not be full: equal ones stand for equal beginnings.
    pub blocks: Arc<[u64]>,
    /// Tokens of its prompt; at least one.
    pub tokens: u32,
    /// Tokens of its answer.
    pub answer: u32,
}

/// What a generator draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PromptShape {
    /// Requests a second.
    pub rate: f64,
    /// Of what begins, the share that is one short prompt.
    pub short: f64,
    /// Mean and deviation of the logarithm of such a prompt's tokens.
    pub short_tokens: [f64; 2],
    /// The same of a long text.
    pub text_tokens: [f64; 2],
    /// Tokens of the longest prompt.
    pub tokens_max: f64,
    /// What is asked about a text, each time anew, as a share of its tokens.
    pub question: f64,
    /// Share of the long texts that are asked about more than once.
    pub repeated: f64,
    /// Mean number of requests about such a text.
    pub turns: f64,
    /// Mean time between two of them, s.
    pub pause: f64,
    /// Mean and deviation of the logarithm of an answer's tokens.
    pub answer: [f64; 2],
    /// Applications, each with words of its own that all of its prompts begin with; 0: none.
    pub applications: u64,
    /// Blocks of these words.
    pub common_blocks: u64,
}

impl PromptShape {
    /// Mooncake's `synthetic_trace`: of 3,993 requests in 1,022 s 1,074 are alone and shorter than a
    /// block; 1,137 begin with a text of their own, of which 408 are asked about 5.37 times on average,
    /// 105 s apart; the median request shares 97% of its blocks with the first of its text.
    pub const MOONCAKE: PromptShape = PromptShape {
        rate: 3.907,
        short: 0.486,
        short_tokens: [4.0, 0.95],
        text_tokens: [9.23, 1.4],
        tokens_max: 66_000.0,
        question: 0.03,
        repeated: 0.359,
        turns: 5.37,
        pause: 105.0,
        answer: [3.92, 1.77],
        applications: 0,
        common_blocks: 0,
    };

    /// Prompts of so many seconds under a seed, in the order of their time.
    pub fn draw(&self, seconds: f64, seed: u64) -> Vec<Prompt> {
        let mut chance = Chance::new(seed);
        let mut prompts = Vec::new();
        let of_text = 1.0 - self.repeated + self.repeated * self.turns;
        let each = self.short + (1.0 - self.short) * of_text;
        // What began before is still going on.
        let mut at = -4.0 * self.turns * self.pause;
        while at < seconds {
            at += chance.exponential() * each / self.rate;
            self.begin(at, &mut chance, &mut prompts);
        }
        prompts.retain(|prompt| (0.0..seconds).contains(&prompt.at));
        prompts.sort_by(|a, b| a.at.total_cmp(&b.at));
        prompts
    }

    fn begin(&self, mut at: f64, chance: &mut Chance, prompts: &mut Vec<Prompt>) {
        let log_normal = |chance: &mut Chance, [mean, deviation]: [f64; 2]| {
            (mean + deviation * chance.normal()).exp()
        };
        let is_short = chance.unit() < self.short;
        let of = if is_short { self.short_tokens } else { self.text_tokens };
        let text = Text {
            name: chance.bits(),
            tokens: log_normal(chance, of).min(self.tokens_max),
            application: (self.applications > 0).then(|| chance.bits() % self.applications),
        };
        let is_repeated = !is_short && chance.unit() < self.repeated;
        let mut turn = 0;
        loop {
            let answer = log_normal(chance, self.answer).clamp(1.0, ANSWER_MAX) as u32;
            prompts.push(self.prompt(at, &text, chance.bits(), answer));
            turn += 1;
            // At least two about a text that is asked about again.
            let goes_on = turn == 1 || chance.unit() > 1.0 / (self.turns - 1.0);
            if !is_repeated || !goes_on {
                return;
            }
            at += chance.exponential() * self.pause;
        }
    }

    fn prompt(&self, at: f64, text: &Text, question: u64, answer: u32) -> Prompt {
        let common = text.application.map_or(0, |_| self.common_blocks);
        let tokens = text.tokens + common as f64 * f64::from(BLOCK_TOKENS);
        let shared = (tokens * (1.0 - self.question)) as u64 / u64::from(BLOCK_TOKENS);
        let block = |nth: u64| match text.application {
            Some(application) if nth < common => mix(mix(!application) ^ nth),
            _ if nth < shared => mix(text.name ^ mix(nth)),
            _ => mix(question ^ mix(nth)),
        };
        let tokens = tokens.max(1.0) as u32;
        let blocks = (0..u64::from(tokens.div_ceil(BLOCK_TOKENS))).map(block).collect();
        Prompt { at, blocks, tokens, answer }
    }
}

/// What a session's prompts begin with.
struct Text {
    name: u64,
    tokens: f64,
    application: Option<u64>,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Share of the blocks that some earlier prompt had.
    fn shared(prompts: &[Prompt]) -> f64 {
        let (mut seen, mut known, mut all) = (HashSet::new(), 0, 0);
        for prompt in prompts {
            known += prompt.blocks.iter().take_while(|block| seen.contains(*block)).count();
            all += prompt.blocks.len();
            seen.extend(prompt.blocks.iter().copied());
        }
        known as f64 / all as f64
    }

    #[test]
    fn what_is_drawn_looks_like_the_trace() {
        let prompts = PromptShape::MOONCAKE.draw(10_000.0, 1);
        let mean =
            |of: fn(&Prompt) -> f64| prompts.iter().map(of).sum::<f64>() / prompts.len() as f64;
        let within = |value: f64, wanted: f64, what: &str| {
            assert!((value / wanted - 1.0).abs() < 0.15, "{what}: {value}, in the trace {wanted}");
        };
        within(prompts.len() as f64 / 10_000.0, 3.907, "requests a second");
        within(mean(|prompt| f64::from(prompt.tokens)), 15_325.0, "tokens of a prompt");
        within(mean(|prompt| f64::from(prompt.answer)), 149.0, "tokens of an answer");
        within(shared(&prompts), 0.640, "share of the blocks that were there before");
    }

    #[test]
    fn applications_share_what_their_prompts_begin_with_and_no_more() {
        let shape = PromptShape { applications: 3, common_blocks: 8, ..PromptShape::MOONCAKE };
        let prompts = shape.draw(500.0, 1);
        let firsts = |nth: usize| -> HashSet<u64> {
            prompts.iter().filter_map(|prompt| prompt.blocks.get(nth)).copied().collect()
        };
        assert_eq!((firsts(0).len(), firsts(7).len()), (3, 3));
        assert!(firsts(9).len() > 100);
    }
}
