//! Classes of requests and of clients, made beside the loop: a turn hands out what is due, and a later
//! one takes in what was made of it.

use std::time::{Duration, Instant};

use gateway_core::classes::Fit;
use gateway_core::clients::ClientFit;
use gateway_core::engine::Engine;
use gateway_core::ladder::Task;
use tokio::task::JoinSet;

use super::inference::Inference;

/// What is being made, and how long it took.
#[derive(Debug, Default)]
pub(super) struct Fits(JoinSet<(Made, Duration)>);

/// What was made.
#[derive(Debug)]
enum Made {
    Requests(Fit),
    Clients(ClientFit),
}

impl Fits {
    /// Takes in what is ready.
    pub(super) fn take_in(&mut self, engine: &mut Engine, inference: &Inference) {
        while let Some(made) = self.0.try_join_next() {
            match made {
                Ok((Made::Requests(fit), took)) => {
                    inference.took(Task::Classes, took);
                    engine.fitted(fit);
                }
                Ok((Made::Clients(fit), took)) => {
                    inference.took(Task::Clients, took);
                    engine.clients_fitted(fit);
                }
                // The core asks again by itself.
                Err(error) => tracing::error!(%error, "making classes failed"),
            }
        }
    }

    /// Begins what is due, on threads that neither traffic nor the loop waits for.
    pub(super) fn begin(&mut self, engine: &mut Engine) {
        for job in engine.fit_jobs() {
            self.make(move || Made::Requests(job.run()));
        }
        if let Some(job) = engine.client_fit_job() {
            self.make(move || Made::Clients(job.run()));
        }
    }

    fn make(&mut self, make: impl FnOnce() -> Made + Send + 'static) {
        self.0.spawn_blocking(move || {
            let begun = Instant::now();
            (make(), begun.elapsed())
        });
    }
}
