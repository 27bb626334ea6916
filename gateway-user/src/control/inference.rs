//! What models' answers take, on the machine's clock: measured for the core, which judges it, counted,
//! and told when it changes who decides.

use std::time::{Duration, Instant};

use gateway_core::ladder::Task;
use gateway_core::timing::{Asked, Became, REST, Stopwatch};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From the 10 µs of a forest and two backends, past all that a turn has room for, to far too long.
const BUCKETS: [f64; 12] =
    [0.000_01, 0.000_025, 0.000_1, 0.000_25, 0.001, 0.002_5, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0];

/// Time since it was made.
#[derive(Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Clock {
        Clock(Instant::now())
    }
}

impl Stopwatch for Clock {
    fn read(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Counts what models take. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Inference {
    seconds: Family<ModelLabels, Histogram>,
    rests: Family<ModelLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: &'static str,
}

impl ModelLabels {
    fn of(task: Task) -> ModelLabels {
        ModelLabels { model: task.as_str() }
    }
}

impl Default for Inference {
    fn default() -> Inference {
        Inference {
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            rests: Family::default(),
        }
    }
}

impl Inference {
    /// Registers everything under its full name.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "gateway_model_inference_seconds",
            "What asking a model took: of a turn, all pools together; of classes, one fit, which no \
             turn waits for",
            self.seconds.clone(),
        );
        registry.register(
            "gateway_model_rests",
            "Times that a model was taken off since its answers took too much of a turn",
            self.rests.clone(),
        );
        // Who never rested should say so.
        for task in [Task::Forecast, Task::Fault] {
            let _ = self.rests.get_or_create(&ModelLabels::of(task));
        }
    }

    /// A model took so long.
    pub(super) fn took(&self, task: Task, took: Duration) {
        self.seconds.get_or_create(&ModelLabels::of(task)).observe(took.as_secs_f64());
    }

    /// Counts what a turn asked, and logs what became of it.
    pub(super) fn asked(&self, all: &[Asked]) {
        for Asked { task, took, room, became } in all {
            self.took(*task, *took);
            let task_name = task.as_str();
            match became {
                None => {}
                Some(Became::TooSlow) => {
                    self.rests.get_or_create(&ModelLabels::of(*task)).inc();
                    tracing::warn!(
                        task = task_name,
                        ?took,
                        ?room,
                        rests_for = ?REST,
                        "model takes too much of a turn; its substitute decides while it rests"
                    );
                }
                Some(Became::InTime) => {
                    tracing::info!(task = task_name, ?took, ?room, "model is in time again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_models_take_and_that_one_rests_is_on_the_page() {
        let (inference, mut registry) = (Inference::default(), Registry::default());
        inference.register(&mut registry);
        let asked = |ms, became| Asked {
            task: Task::Fault,
            took: Duration::from_millis(ms),
            room: Duration::from_millis(50),
            became,
        };
        inference.asked(&[asked(2, None)]);
        inference.asked(&[asked(70, Some(Became::TooSlow))]);
        inference.asked(&[asked(2, Some(Became::InTime))]);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "gateway_model_inference_seconds_count{model=\"fault\"} 3",
            "gateway_model_inference_seconds_bucket{le=\"0.0025\",model=\"fault\"} 2",
            "gateway_model_rests_total{model=\"fault\"} 1",
            "gateway_model_rests_total{model=\"forecast\"} 0",
        ] {
            assert!(text.contains(&format!("{line}\n")), "no {line} in\n{text}");
        }
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let clock = Clock::start();
        let first = clock.read();
        assert!(clock.read() >= first);
    }
}
