//! Peak EWMA as in Finagle (`finagle-core`, `loadbalancer/PeakEwma.scala` and
//! `exp/…/p2c/PeakEwma`): of two at random, the one with the lower product of requests in flight
//! and a moving average of latency that jumps to every peak at once and decays slowly.

use std::time::Duration;

use gateway_common::clock::KtimeNs;

use super::competitor::{Choice, Picker};
use super::{Ask, Ended};

/// Finagle's default decay time.
const DECAY: Duration = Duration::from_secs(10);

/// Load of a node with requests in flight and no latency yet: half of the largest double.
const PENALTY: f64 = f64::MAX / 2.0;

pub(super) struct PeakEwma {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    stamp: KtimeNs,
    /// s.
    cost: f64,
}

impl Node {
    fn observe(&mut self, now: KtimeNs, seconds: f64) {
        let keep = (-now.since(self.stamp).as_secs_f64() / DECAY.as_secs_f64()).exp();
        self.cost =
            if seconds > self.cost { seconds } else { self.cost * keep + seconds * (1.0 - keep) };
        self.stamp = now;
    }

    fn load(&mut self, now: KtimeNs, pending: u32) -> f64 {
        // What is not seen decays, as Finagle has it.
        self.observe(now, 0.0);
        if self.cost == 0.0 && pending != 0 {
            PENALTY + f64::from(pending)
        } else {
            self.cost * f64::from(pending + 1)
        }
    }
}

impl PeakEwma {
    pub(super) fn new(count: usize) -> PeakEwma {
        PeakEwma { nodes: vec![Node::default(); count] }
    }
}

impl Picker for PeakEwma {
    fn pick(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) -> usize {
        let (first, second) = choice.two(ask.hash);
        let mut load = |server: usize| self.nodes[server].load(ask.now, choice.in_flight[server]);
        if load(second) < load(first) { second } else { first }
    }

    fn end(&mut self, ended: &Ended) {
        self.nodes[ended.server].observe(ended.now, ended.after.as_secs_f64());
    }
}
