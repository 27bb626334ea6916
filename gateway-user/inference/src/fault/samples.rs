//! From labelled windows to vectors, by the function that serves.

use std::collections::BTreeMap;

use gateway_core::fault::{FaultWindow, LabelledWindow, rule};
use gateway_core::features::fault::{Past, Vector, vectors};

/// A pause counts for this many windows at most, as it does live.
const PASSED_MAX: f32 = 24.0;

/// One window of one backend, ready to be learnt from or judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Fleet, pool and backend, as one name.
    pub backend: String,
    /// End of the window, s.
    pub at: f64,
    /// Length of the window, s.
    pub seconds: f32,
    /// Time since the last window of this pool, s.
    pub passed: f64,
    /// What the forest looks at.
    pub vector: Vector,
    /// Whether it was faulty; `None`: neither way.
    pub faulty: Option<bool>,
    /// Since when.
    pub fault_since: Option<f64>,
    /// What was wrong; empty: nothing.
    pub fault: String,
    /// The rule's probability.
    pub rule: f32,
}

/// All windows that say something of a backend that takes part.
pub fn samples(windows: &[LabelledWindow]) -> Vec<Sample> {
    let mut pools: BTreeMap<(&str, &str), Vec<&LabelledWindow>> = BTreeMap::new();
    for window in windows {
        pools.entry((&window.fleet, &window.pool)).or_default().push(window);
    }
    pools.values().flat_map(|windows| pool(windows)).collect()
}

fn pool(windows: &[&LabelledWindow]) -> Vec<Sample> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for window in windows {
        let next = places.len();
        places.entry(&window.backend).or_insert(next);
    }
    let length = windows.iter().map(|w| w.window.seconds).fold(0.0, f32::max).max(1e-3);
    let mut pasts = vec![Past::default(); places.len()];
    let mut samples = Vec::new();
    let mut last: Option<f64> = None;
    for moment in windows.chunk_by(|a, b| a.at == b.at) {
        let at = moment[0].at;
        let passed = last.map_or(f64::from(length), |last| at - last);
        last = Some(at);
        let mut seen = vec![FaultWindow::default(); places.len()];
        for window in moment {
            seen[places[window.backend.as_str()]] = window.window;
        }
        let steps = (passed as f32 / length).clamp(0.0, PASSED_MAX);
        let vectors = vectors(&mut pasts, &seen, steps);
        let rule = rule(&seen);
        for window in moment {
            let place = places[window.backend.as_str()];
            let Some(vector) = vectors[place].filter(|_| window.window.serving) else { continue };
            samples.push(Sample {
                backend: format!("{}/{}/{}", window.fleet, window.pool, window.backend),
                at,
                seconds: window.window.seconds,
                passed,
                vector,
                faulty: window.faulty,
                fault_since: window.fault_since,
                fault: window.fault.clone(),
                rule: window.rule.unwrap_or(rule[place] as f32),
            });
        }
    }
    samples
}
