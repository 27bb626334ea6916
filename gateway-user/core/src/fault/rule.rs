//! What the rule says of windows that it was not asked about: those of recordings of others, and those
//! that somebody makes up.
//!
//! A window does not hold all that the rule looks at live: failures in a row are not in it, and what
//! it calls the last second and the last minute is all the same window. So live, the rule may know
//! more.

use std::time::Duration;

use super::FaultWindow;
use crate::evidence::Evidence;
use crate::fleet::PolicySpec;
use crate::predictor::{PoolView, Substitute};

/// Time between two ticks, which the rule's word on faults does not depend on.
const TICK: Duration = Duration::from_millis(250);

/// The rule's probability of a fault for each of a pool's backends, by their windows alone.
pub fn rule(windows: &[FaultWindow]) -> Vec<f64> {
    let backends: Vec<Evidence> = windows.iter().map(evidence).collect();
    let view = PoolView { backends: &backends, elapsed: TICK };
    let opinions = Substitute::new(&PolicySpec::default()).opinions(&view);
    opinions.iter().map(|opinion| opinion.fault.map_or(0.0, |fault| fault.probability)).collect()
}

fn evidence(window: &FaultWindow) -> Evidence {
    let (finished, failed) = (window.finished(), window.failed());
    // What is longer than time itself, or no number, comes from outside.
    let silent_for = Duration::try_from_secs_f32(window.silent.max(0.0)).unwrap_or(Duration::MAX);
    Evidence {
        finished,
        failed,
        long_finished: finished,
        long_failed: failed,
        recent_finished: finished,
        recent_failed: failed,
        latency_p50: window.latency_p50.map(f64::from),
        silent_for,
        capacity: 1.0,
        serving: window.serving,
        ..Evidence::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(failed: u32, silent: f32) -> FaultWindow {
        FaultWindow {
            seconds: 5.0,
            answered: 100 - failed,
            server_errors: failed,
            latency_p50: Some(0.01),
            silent,
            serving: true,
            ..FaultWindow::default()
        }
    }

    #[test]
    fn windows_alone_show_failures_and_silence() {
        let said = rule(&[window(50, 0.0), window(0, 30.0), window(0, 0.0)]);
        assert!(said[0] > 0.5 && said[1] == 1.0 && said[2] == 0.0, "{said:?}");
    }

    #[test]
    fn a_silence_beyond_all_measure_is_a_silence_and_one_that_is_no_number_is_none() {
        for endless in [f32::MAX, f32::INFINITY] {
            assert_eq!(rule(&[window(0, endless), window(0, 0.0)]), [1.0, 0.0]);
        }
        for none in [f32::NAN, -1.0, f32::NEG_INFINITY] {
            assert_eq!(rule(&[window(0, none), window(0, 0.0)]), [0.0, 0.0]);
        }
    }
}
