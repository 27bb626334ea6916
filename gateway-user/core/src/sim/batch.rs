//! A backend that serves a language model: continuous batching, prompts read in chunks, and a cache
//! of what prompts began with.
//!
//! Time goes by in steps, as in vLLM and Sarathi-Serve (Agrawal et al., OSDI 2024). In a step every
//! request that has its prompt read writes one token, and beside them a chunk of the prompts that are
//! not read yet is read, first come, first served. What a request's prompt shares with one that was
//! read before, and is still in the cache, need not be read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::prompts::{BLOCK_TOKENS, Prompt};
use super::server::Job;
use super::shapes::{DECODE_PER_TOKEN, PREFILL_PER_TOKEN};
use super::tries::TryId;

/// How such a backend serves.
#[derive(Clone, Debug)]
pub struct BatchSpec {
    /// What is asked, by a request's number.
    pub prompts: Arc<[Prompt]>,
    /// Requests at once; more wait.
    pub at_once: usize,
    /// Tokens of prompts that are read in a step at most.
    pub chunk: u32,
    /// Blocks that the cache holds.
    pub cache_blocks: usize,
}

/// What each further request adds to a step: reading its keys and values. With sixty requests a step
/// takes 2.5 times as long as with one, as in "Splitwise" (Patel et al., ISCA 2024), figure 5b.
const DECODE_PER_REQUEST: f64 = 0.5e-3;

/// What came of a step.
#[derive(Debug, Default)]
pub(super) struct Stepped {
    /// Tries that wrote their first token.
    pub(super) first: Vec<TryId>,
    /// Tries that wrote their last, and how long after their first.
    pub(super) done: Vec<(TryId, Duration)>,
}

/// A backend's requests and cache.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    spec: BatchSpec,
    waiting: VecDeque<Job>,
    running: Vec<Running>,
    cache: BlockCache,
    /// A step is under way.
    steps: bool,
    /// Tokens of all prompts, and of those that the cache had.
    pub(super) tokens: [u64; 2],
    /// Seconds in steps.
    pub(super) busy: f64,
}

#[derive(Clone, Debug)]
struct Running {
    id: TryId,
    prompt: usize,
    /// Tokens of its prompt that are not read.
    unread: u32,
    /// Of these, read in the step under way.
    reading: u32,
    /// Tokens that are not written.
    unwritten: u32,
    first_at: Option<KtimeNs>,
}

impl Batch {
    pub(super) fn new(spec: BatchSpec) -> Batch {
        let cache = BlockCache { room: spec.cache_blocks, ..BlockCache::default() };
        let (waiting, running) = (VecDeque::new(), Vec::new());
        Batch { spec, waiting, running, cache, steps: false, tokens: [0; 2], busy: 0.0 }
    }

    pub(super) fn push(&mut self, job: Job) {
        self.waiting.push_back(job);
    }

    /// Requests waiting and running.
    pub(super) fn rif(&self) -> usize {
        self.waiting.len() + self.running.len()
    }

    /// Share of the requests at once that there are.
    pub(super) fn busy_share(&self) -> f64 {
        self.running.len() as f64 / self.spec.at_once as f64
    }

    /// Everything under way, and the cache, is lost.
    pub(super) fn clear(&mut self) {
        *self = Batch { tokens: self.tokens, busy: self.busy, ..Batch::new(self.spec.clone()) };
    }

    /// Begins a step, unless one is under way or there is nothing to do; how long it takes at speed
    /// one. `waits` says whether a try is still wanted.
    pub(super) fn begin(&mut self, waits: impl Fn(TryId) -> bool) -> Option<f64> {
        if self.steps {
            return None;
        }
        self.running.retain(|running| waits(running.id));
        while self.running.len() < self.spec.at_once
            && let Some(job) = self.waiting.pop_front()
        {
            if waits(job.id) {
                self.admit(&job);
            }
        }
        if self.running.is_empty() {
            return None;
        }
        let mut chunk = self.spec.chunk;
        for running in &mut self.running {
            running.reading = running.unread.min(chunk);
            chunk -= running.reading;
        }
        let read = f64::from(self.spec.chunk - chunk);
        let writing = self.running.iter().filter(|running| running.unread == 0).count();
        let seconds = match writing {
            0 => 0.0,
            _ => DECODE_PER_TOKEN + (writing - 1) as f64 * DECODE_PER_REQUEST,
        };
        self.steps = true;
        Some(seconds + read * PREFILL_PER_TOKEN)
    }

    /// The step that was begun is over.
    pub(super) fn end(&mut self, now: KtimeNs) -> Stepped {
        self.steps = false;
        let mut stepped = Stepped::default();
        for running in &mut self.running {
            running.unread -= running.reading;
            if running.unread > 0 {
                continue;
            }
            // The step that reads the last of a prompt writes the first token, too.
            running.unwritten -= 1;
            if running.first_at.is_none() {
                running.first_at = Some(now);
                stepped.first.push(running.id);
                self.cache.put(&self.spec.prompts[running.prompt].blocks);
            }
        }
        self.running.retain(|running| {
            let is_done = running.unwritten == 0;
            if is_done {
                let since = running.first_at.map_or(Duration::ZERO, |at| now.since(at));
                stepped.done.push((running.id, since));
            }
            !is_done
        });
        stepped
    }

    fn admit(&mut self, job: &Job) {
        let at = job.request.prompt as usize;
        let prompt = &self.spec.prompts[at];
        let known = self.cache.known(&prompt.blocks) as u32 * BLOCK_TOKENS;
        // The last token is always computed, since the first of the answer comes of it.
        let known = known.min(prompt.tokens - 1);
        self.tokens[0] += u64::from(prompt.tokens);
        self.tokens[1] += u64::from(known);
        let unread = prompt.tokens - known;
        let unwritten = prompt.answer.max(1);
        let id = job.id;
        self.running.push(Running {
            id,
            prompt: at,
            unread,
            reading: 0,
            unwritten,
            first_at: None,
        });
    }
}

/// Blocks by when they were last used; those unused for longest give way.
#[derive(Clone, Debug, Default)]
struct BlockCache {
    room: usize,
    turn: u64,
    used: HashMap<u64, u64>,
    oldest: BTreeMap<u64, u64>,
}

impl BlockCache {
    /// Blocks of a prompt's beginning that are there.
    fn known(&mut self, blocks: &[u64]) -> usize {
        let known = blocks.iter().take_while(|block| self.used.contains_key(block)).count();
        self.use_all(&blocks[..known]);
        known
    }

    fn put(&mut self, blocks: &[u64]) {
        self.use_all(blocks);
        while self.used.len() > self.room
            && let Some((_, block)) = self.oldest.pop_first()
        {
            self.used.remove(&block);
        }
    }

    /// The later a block stands in its prompt the sooner it may go: without those before it, it is of
    /// no use.
    fn use_all(&mut self, blocks: &[u64]) {
        for block in blocks.iter().rev() {
            self.turn += 1;
            if let Some(before) = self.used.insert(*block, self.turn) {
                self.oldest.remove(&before);
            }
            self.oldest.insert(self.turn, *block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::traffic::{Request, Work};
    use super::super::tries::{Tries, Try};
    use super::*;

    fn prompt(blocks: &[u64], tokens: u32, answer: u32) -> Prompt {
        Prompt { at: 0.0, blocks: blocks.into(), tokens, answer }
    }

    fn batch(prompts: Vec<Prompt>, cache_blocks: usize) -> Batch {
        Batch::new(BatchSpec { prompts: prompts.into(), at_once: 8, chunk: 1000, cache_blocks })
    }

    fn ask(batch: &mut Batch, tries: &mut Tries, prompt: u32) -> TryId {
        let work = Work { head: 1.0, whole: 1.0 };
        let request = Request { at: 0.0, class: 0, profile: 0, prompt, work, luck: 1 };
        let started = KtimeNs(0);
        let id = tries.add(Try { request, turn: 0, front: 0, server: 0, started, rif: 0 });
        batch.push(Job { id, request, turn: 0 });
        id
    }

    /// Tries and the second at which they came so far.
    type Reached = Vec<(TryId, f64)>;

    /// Steps until all are done: at which second each wrote its first token and its last.
    fn run(batch: &mut Batch) -> (Reached, Reached) {
        let (mut now, mut first, mut done) = (0.0, Vec::new(), Vec::new());
        while let Some(seconds) = batch.begin(|_| true) {
            now += seconds;
            let stepped = batch.end(KtimeNs((now * 1e9) as u64));
            first.extend(stepped.first.into_iter().map(|id| (id, now)));
            done.extend(stepped.done.into_iter().map(|(id, _)| (id, now)));
        }
        (first, done)
    }

    #[test]
    fn a_prompt_takes_what_its_tokens_take_and_one_that_was_read_hardly_anything() {
        let mut tries = Tries::default();
        let mut batch = batch(vec![prompt(&[1, 2, 3], 1536, 1)], 100);
        ask(&mut batch, &mut tries, 0);
        let (first, _) = run(&mut batch);
        assert!((first[0].1 - 1536.0 * PREFILL_PER_TOKEN).abs() < 1e-9, "{first:?}");
        ask(&mut batch, &mut tries, 0);
        let (first, _) = run(&mut batch);
        assert!((first[0].1 - PREFILL_PER_TOKEN).abs() < 1e-9, "one token: {first:?}");
        assert_eq!(batch.tokens, [3072, 1535]);
    }

    #[test]
    fn a_long_prompt_slows_down_what_is_written_beside_it() {
        let alone = {
            let mut tries = Tries::default();
            let mut batch = batch(vec![prompt(&[1], 10, 20)], 100);
            ask(&mut batch, &mut tries, 0);
            run(&mut batch).1[0].1
        };
        let mut tries = Tries::default();
        let mut batch = batch(vec![prompt(&[1], 10, 20), prompt(&[2], 5000, 1)], 100);
        let writes = ask(&mut batch, &mut tries, 0);
        ask(&mut batch, &mut tries, 1);
        let (_, done) = run(&mut batch);
        let beside = done.iter().find(|(id, _)| *id == writes).unwrap().1;
        assert!((beside - alone - 5000.0 * PREFILL_PER_TOKEN).abs() < 0.01, "{alone} {beside}");
    }

    #[test]
    fn requests_that_write_together_take_little_longer_than_one() {
        let took = |count: u32| {
            let mut tries = Tries::default();
            let mut batch = batch(vec![prompt(&[1], 1, 101)], 100);
            for _ in 0..count {
                ask(&mut batch, &mut tries, 0);
            }
            run(&mut batch).1.last().unwrap().1
        };
        assert!((took(1) - 100.0 * DECODE_PER_TOKEN).abs() < 1e-3);
        assert!(took(8) < 1.3 * took(1), "{} {}", took(1), took(8));
        assert!(took(9) > 1.9 * took(1), "the ninth waits for a place");
    }

    #[test]
    fn the_cache_forgets_what_was_unused_for_longest_from_the_end() {
        let mut cache = BlockCache { room: 4, ..BlockCache::default() };
        cache.put(&[1, 2, 3]);
        cache.put(&[7]);
        assert_eq!(cache.known(&[1, 2, 3]), 3);
        cache.put(&[8, 9]);
        assert_eq!(cache.known(&[7]), 0);
        assert_eq!(cache.known(&[1, 2, 3]), 2, "the last block went first");
    }

    #[test]
    fn a_try_that_nobody_waits_for_takes_no_time() {
        let mut tries = Tries::default();
        let mut batch = batch(vec![prompt(&[1], 5000, 100)], 100);
        ask(&mut batch, &mut tries, 0);
        assert!(batch.begin(|_| false).is_none());
        assert_eq!(batch.rif(), 0);
    }
}
