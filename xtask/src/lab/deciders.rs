//! Who decided in the learned pools of a lab: by task the model or its substitute, and where the
//! weights came from.

use std::collections::BTreeMap;
use std::fmt;

use gateway_core::state::State;
use serde::Serialize;

/// Counts of looks.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Deciders {
    /// Pools that count.
    #[serde(skip)]
    pools: Vec<String>,
    /// Task → who → pools so found.
    tasks: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// Where weights came from → backends so found.
    sources: BTreeMap<&'static str, u64>,
}

impl Deciders {
    /// Of these pools.
    pub(crate) fn of(pools: Vec<String>) -> Deciders {
        Deciders { pools, ..Deciders::default() }
    }

    /// Looks at all of them.
    pub(crate) fn look(&mut self, state: &State) {
        for pool in state.pools.iter().filter(|pool| self.pools.contains(&pool.name)) {
            for model in &pool.models {
                let who = model.barrier.map_or("model".to_owned(), |barrier| {
                    format!("substitute ({})", barrier.as_str())
                });
                *self.tasks.entry(model.task.as_str()).or_default().entry(who).or_default() += 1;
            }
            for backend in &pool.backends {
                *self.sources.entry(backend.source.as_str()).or_default() += 1;
            }
        }
    }

    /// Adds what another one counted.
    pub(crate) fn merge(&mut self, other: &Deciders) {
        for (task, counts) in &other.tasks {
            let own = self.tasks.entry(task).or_default();
            counts.iter().for_each(|(who, n)| *own.entry(who.clone()).or_default() += n);
        }
        other.sources.iter().for_each(|(who, n)| *self.sources.entry(who).or_default() += n);
    }
}

impl fmt::Display for Deciders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "decided:")?;
        for (task, counts) in &self.tasks {
            let counts: Vec<_> = counts.iter().map(|(who, n)| (who.as_str(), *n)).collect();
            write!(f, " {task} {};", shares(&counts))?;
        }
        let sources: Vec<_> = self.sources.iter().map(|(who, n)| (*who, *n)).collect();
        write!(f, " weights {}", shares(&sources))
    }
}

fn shares(counts: &[(&str, u64)]) -> String {
    let all: u64 = counts.iter().map(|(_, n)| n).sum();
    let share = |&(who, n): &(&str, u64)| format!("{who} {:.0}%", 100.0 * n as f64 / all as f64);
    counts.iter().map(share).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_all_looks() {
        assert_eq!(shares(&[("model", 3), ("substitute", 1)]), "model 75%, substitute 25%");
    }
}
