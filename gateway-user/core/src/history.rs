//! The decisions of the last ticks, in bounded memory, for whoever asks later.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::decision::Decision;

/// Ticks kept: about four minutes at the default rate.
pub const TICKS_MAX: usize = 1_000;

/// Decisions kept over all ticks: about 10 MB. The last tick is kept however large it is.
pub const DECISIONS_MAX: usize = 20_000;

/// A ring of ticks.
#[derive(Clone, Debug, Default)]
pub struct History {
    ticks: VecDeque<Arc<[Decision]>>,
    decisions: usize,
}

impl History {
    /// Keeps one more tick, and forgets the oldest beyond the limits.
    pub fn push(&mut self, decisions: Arc<[Decision]>) {
        self.decisions += decisions.len();
        self.ticks.push_back(decisions);
        while self.ticks.len() > 1
            && (self.ticks.len() > TICKS_MAX || self.decisions > DECISIONS_MAX)
        {
            if let Some(oldest) = self.ticks.pop_front() {
                self.decisions -= oldest.len();
            }
        }
    }

    /// Decisions of ticks after `since`, oldest first, of one backend or of all. A backend is
    /// named `backend` or, where several pools have one of that name, `pool/backend`.
    pub fn decisions<'a>(
        &'a self,
        since: u64,
        backend: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Decision> {
        let asked = move |decision: &&Decision| {
            decision.tick > since && backend.is_none_or(|name| is_named(decision, name))
        };
        self.ticks.iter().flat_map(|tick| tick.iter()).filter(asked)
    }
}

fn is_named(decision: &Decision, name: &str) -> bool {
    decision.backend == name
        || name
            .split_once('/')
            .is_some_and(|(pool, backend)| decision.pool == pool && decision.backend == backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Answer, Health, Inputs, Reason, WeightSource};
    use crate::observation::BackendRow;

    fn tick(tick: u64, backends: usize) -> Arc<[Decision]> {
        (0..backends)
            .map(|backend| Decision {
                tick,
                at_ns: tick,
                pool: "web".into(),
                backend: format!("b{backend}"),
                row: BackendRow { row: backend as u32, generation: 1 },
                inputs: Inputs::default(),
                source: WeightSource::Static,
                health: Health::Healthy,
                weight_before: 1.0,
                weight_wanted: 1.0,
                weight_after: 1.0,
                written: [0; 8],
                bounds: Vec::new(),
                reason: Reason::Steady,
                contributions: Vec::new(),
                answers: Answer::nobody(),
                control: None,
                shaped: None,
            })
            .collect()
    }

    #[test]
    fn a_backend_is_found_by_its_name_with_or_without_its_pool() {
        let mut history = History::default();
        (1..=3).for_each(|number| history.push(tick(number, 2)));
        assert_eq!(history.decisions(0, Some("b1")).count(), 3);
        assert_eq!(history.decisions(0, Some("web/b1")).count(), 3);
        assert_eq!(history.decisions(0, Some("api/b1")).count(), 0);
        assert_eq!(history.decisions(2, None).count(), 2);
    }

    #[test]
    fn old_ticks_are_forgotten_by_number_and_by_size() {
        let mut history = History::default();
        (1..=TICKS_MAX as u64 + 5).for_each(|number| history.push(tick(number, 1)));
        assert_eq!(history.decisions(0, None).next().map(|d| d.tick), Some(6));
        (1..=3).for_each(|number| history.push(tick(number, DECISIONS_MAX - 1)));
        assert_eq!(history.decisions(0, None).count(), DECISIONS_MAX - 1);
    }
}
