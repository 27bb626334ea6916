//! Scenarios of requests to a language model whose prompts begin alike, and what a run of one comes to.

use std::sync::Arc;
use std::time::Duration;

use super::batch::BatchSpec;
use super::chance::Chance;
use super::prompts::{Prompt, PromptShape};
use super::report::Report;
use super::scenario::{Scenario, ServerSpec};

/// Nodes of a fleet: with them the trace keeps a fleet without any cache at about 0.8.
const NODES: usize = 8;

/// Deviation of the logarithm of a node's speed, as in the other scenarios of unlike backends.
const UNLIKE: f64 = 0.3;

/// Blocks that a node caches: 1.3 million tokens of a 70B model at 320 kB each are 400 of the 640 GB
/// of eight A100.
const CACHE_BLOCKS: usize = 2_500;

/// Requests that a node serves at once (vLLM's `max_num_seqs` is 256; with prompts like these the
/// memory is full much sooner), and tokens that it reads in a step (vLLM's `max_num_batched_tokens`).
const AT_ONCE: usize = 64;
const CHUNK: u32 = 2_048;

/// How long a run is, and what of it is measured: by then caches are warm.
const SECONDS: f64 = 900.0;
const WARM: f64 = 240.0;

/// A scenario's name and what is asked in it.
#[derive(Clone, Copy, Debug)]
pub struct LlmEntry {
    /// Name on the command line.
    pub name: &'static str,
    /// In a few words.
    pub about: &'static str,
    /// What is asked.
    pub shape: PromptShape,
}

/// All of them.
pub const LLM: [LlmEntry; 3] = [
    LlmEntry {
        name: "llm-prefix",
        about: "long texts that are asked about again (Mooncake's shape), unlike nodes",
        shape: PromptShape::MOONCAKE,
    },
    LlmEntry {
        name: "llm-common",
        about: "the same, and all long prompts of three applications begin with 4,096 common tokens",
        shape: PromptShape { applications: 3, common_blocks: 8, ..PromptShape::MOONCAKE },
    },
    LlmEntry {
        name: "llm-alone",
        about: "no text is asked about twice: nothing is to be gained",
        shape: PromptShape { repeated: 0.0, ..PromptShape::MOONCAKE },
    },
];

impl LlmEntry {
    /// The scenario under a seed.
    pub fn scenario(&self, seed: u64) -> Scenario {
        scenario(self.shape.draw(SECONDS, !seed), seed)
    }
}

/// A fleet of unlike nodes under a seed that is asked these prompts, whose times are before the end.
pub fn scenario(prompts: Vec<Prompt>, seed: u64) -> Scenario {
    let mut chance = Chance::new(seed);
    let server = |_| ServerSpec {
        workers: 1,
        service: Duration::from_secs(1),
        speed: (UNLIKE * chance.normal()).exp(),
        ..ServerSpec::default()
    };
    let servers = (0..NODES).map(server).collect();
    let last = prompts.last().map_or(SECONDS, |prompt| prompt.at);
    let batch = BatchSpec {
        prompts: Arc::from(prompts),
        at_once: AT_ONCE,
        chunk: CHUNK,
        cache_blocks: CACHE_BLOCKS,
    };
    Scenario {
        seed,
        servers,
        batch: Some(batch),
        duration: Duration::from_secs_f64(last.ceil()),
        measured_from: Duration::from_secs_f64(WARM),
        timeout: Duration::from_secs(120),
        objective: Duration::from_secs(10),
        ..Scenario::default()
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LlmMeasures {
    /// Median and 99th percentile of the time to the first token, s.
    pub first_token: [f64; 2],
    /// 99th percentile of the time to the last, s.
    pub whole_p99: f64,
    /// Share of the prompts' tokens that caches had.
    pub cached: f64,
    /// Seconds in which the busiest node did anything, over the mean of all.
    pub imbalance: f64,
    /// Share that failed.
    pub failed: f64,
    /// Requests measured.
    pub requests: usize,
}

impl LlmMeasures {
    /// Of a run. `None` if nothing was asked. A request that failed counts as one that took as long as
    /// its client would have waited.
    pub fn of(scenario: &Scenario, report: &Report) -> Option<LlmMeasures> {
        let to = scenario.duration.saturating_sub(scenario.timeout.min(scenario.duration / 4));
        let range = scenario.measured_from..to;
        let asked = || report.answers.iter().filter(|answer| range.contains(&answer.at));
        let failed = asked().filter(|answer| !answer.good).count();
        let seconds = |took: Duration, good: bool| match good {
            true => took.as_secs_f64(),
            false => took.max(scenario.timeout).as_secs_f64(),
        };
        let sorted = |of: &dyn Fn(&super::Answer) -> f64| {
            let mut all: Vec<f64> = asked().map(of).collect();
            all.sort_unstable_by(f64::total_cmp);
            all
        };
        let first = sorted(&|answer| seconds(answer.first_byte, answer.good));
        let whole = sorted(&|answer| seconds(answer.latency, answer.good));
        let last = first.len().checked_sub(1)?;
        let at = |all: &[f64], quantile: f64| all[(quantile * last as f64).round() as usize];
        let sum = |of: fn(&super::Served) -> f64| report.served.iter().map(of).sum::<f64>();
        let busiest = report.served.iter().map(|served| served.busy).fold(0.0, f64::max);
        Some(LlmMeasures {
            first_token: [at(&first, 0.5), at(&first, 0.99)],
            whole_p99: at(&whole, 0.99),
            cached: sum(|served| served.cached as f64)
                / sum(|served| served.tokens as f64).max(1.0),
            imbalance: busiest * report.served.len() as f64 / sum(|served| served.busy).max(1e-9),
            failed: failed as f64 / first.len() as f64,
            requests: first.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Balancing, Ejection, Path, Rule, Signal, World};
    use super::*;
    use crate::fleet::AffinitySpec;

    /// The means of some short runs.
    fn means(entry: &LlmEntry, balancing: Balancing, by_prefix: bool, signal: Signal) -> [f64; 3] {
        const SEEDS: u64 = 2;
        let runs = (1..=SEEDS).map(|seed| {
            let affinity = AffinitySpec { by_prefix, ..AffinitySpec::default() };
            let prompts = entry.shape.draw(250.0, !seed);
            let measured_from = Duration::from_secs(100);
            let scenario = Scenario { affinity, signal, measured_from, ..scenario(prompts, seed) };
            let (report, _) = World::with(scenario.clone(), balancing).unwrap().run().unwrap();
            LlmMeasures::of(&scenario, &report).unwrap()
        });
        let sum = runs.fold([0.0; 3], |sum, run| {
            [sum[0] + run.first_token[0], sum[1] + run.cached, sum[2] + run.whole_p99]
        });
        sum.map(|sum| sum / SEEDS as f64)
    }

    const OURS: Balancing = Balancing::Gateway(Path::L7);

    #[test]
    fn affinity_hits_caches_and_answers_sooner() {
        let least = Balancing::Other(Rule::LeastRequest, Ejection::None);
        let [first, cached, whole] = means(&LLM[0], OURS, true, Signal::AsShipped);
        let [least_first, least_cached, least_whole] =
            means(&LLM[0], least, false, Signal::AsShipped);
        assert!(cached > 2.0 * least_cached, "{cached} {least_cached}");
        assert!(first < 0.7 * least_first, "{first} {least_first}");
        assert!(whole < least_whole, "{whole} {least_whole}");
    }

    #[test]
    fn affinity_changes_nothing_where_no_prompt_comes_twice() {
        let run = |by_prefix| means(&LLM[2], OURS, by_prefix, Signal::AsShipped);
        assert_eq!(run(true), run(false));
    }

    #[test]
    fn weights_are_better_left_alone_than_moved_by_the_latency_of_prompts() {
        let first = |signal| means(&LLM[0], OURS, false, signal)[0];
        let shipped = first(Signal::AsShipped);
        let moved = first(Signal::FirstToken);
        assert!(shipped < 0.9 * moved, "{shipped} {moved}");
    }
}
