//! How much is refused: decided once a tick, from what the backends can do and what is asked of them.
//!
//! Refusing has to be right on both sides. Of a pool whose backends are not full nothing is refused,
//! however much a forecast says; what the backends are thought to be able to do is at least what
//! they are answering right now; and the requests themselves must show it, by taking longer than they
//! usually do, since an estimate that is too low must not turn anybody away.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::valve::Counted;
use super::{AdmissionSpec, Cause, Priority, Valve};

/// How busy admitted requests may keep the backends: what is left works queues off.
const BUSY_ADMITTED: f64 = 0.95;

/// Below this busy share the load is no reason.
const BUSY_MIN: f64 = 0.9;

/// So many times what the backends can do must be wanted to be too much: what is asked for and what is
/// answered differ by what is on its way.
const EXCESS_MIN: f64 = 1.05;

/// Requests take so many times as long as usual when backends are overloaded.
const SLOWER_MIN: f64 = 1.5;

/// What requests usually take rises by a half of the way in this time while backends are not busy, and
/// falls at once.
const USUAL_HALF_LIFE: Duration = Duration::from_secs(300);

/// A forecast counts for so much more than what is asked for now, at most.
const FORECAST_MAX: f64 = 1.1;

/// What waits too long is to be worked off within this time.
const WORKED_OFF_IN: f64 = 1.0;

/// So long there must be a reason until anything is refused, and none until all come in again.
const BEGIN_AFTER: Duration = Duration::from_millis(500);
const END_AFTER: Duration = Duration::from_secs(2);

/// There is no reason any more below this part of what may be admitted and of the wait.
const CALM: f64 = 0.9;
const CALM_WAIT: f64 = 0.5;

/// The refused share falls by this much a second, so that what is let in again does not come at once.
const FALL: f64 = 0.2;

/// Half of what was seen of rates and busyness is forgotten after this long.
const HALF_LIFE: Duration = Duration::from_millis(500);

/// When a refused client may come back, at least; and how much longer the larger the refused share is.
const RETRY_AFTER_MIN: f64 = 1.0;
const RETRY_AFTER_MORE: f64 = 8.0;

const COUNT: usize = Priority::ALL.len();

/// What a pool is under this tick. Rates in requests a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Strain {
    /// What the backends that carry the pool can do; `None`: it is not known.
    pub(crate) capacity: Option<f64>,
    /// What they answered since the last tick.
    pub(crate) answered: f64,
    /// What is forecast at most for the next seconds.
    pub(crate) forecast: Option<f64>,
    /// Their busy share, `0..=1`; `None`: it is not known.
    pub(crate) busy: Option<f64>,
    /// Requests that wait at them for a worker.
    pub(crate) waiting: f64,
    /// What requests take on average, s.
    pub(crate) latency: Option<f64>,
}

/// A pool's gate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    counted: Counted,
    turned_away: u64,
    /// Of each priority, a second.
    asked: [f64; COUNT],
    answered: f64,
    busy: f64,
    /// What requests take where backends are not busy, s.
    usual: Option<f64>,
    /// The share of all that is to be refused; 0: the gate is open.
    share: f64,
    cause: Option<Cause>,
    /// How long there has been a reason (while open) or none (while not).
    turning: Duration,
    state: Option<AdmissionState>,
}

/// What a pool's gate does, for people.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdmissionState {
    /// Why requests are refused; `None`: all come in.
    pub cause: Option<Cause>,
    /// Requests a second that ask to come in, the most important first.
    pub asked: [f64; COUNT],
    /// The share of each that is refused.
    pub refused: [f64; COUNT],
    /// What may come in, requests a second.
    pub admissible: f64,
    /// How long what waits at the backends will take them, s.
    pub wait: f64,
    /// How busy they are, `0..=1`.
    pub busy: f64,
}

impl AdmissionState {
    /// In words, for a person on call.
    pub fn words(&self) -> String {
        let AdmissionState { cause, asked, refused, admissible, wait, busy } = self;
        let (all, wait, busy) = (asked.iter().sum::<f64>(), 1e3 * wait, 1e2 * busy);
        let under = format!(
            "{all:.0} requests a second ask to come in, {admissible:.0} may; the backends are busy \
             for {busy:.0}%, and what waits there takes them {wait:.0} ms"
        );
        let Some(cause) = cause else {
            return format!("refuses nothing ({under})");
        };
        let shares = Priority::ALL.iter().zip(refused).filter(|(_, share)| **share > 0.0);
        let shares: Vec<String> = shares
            .map(|(priority, share)| format!("{:.0}% of {}", 1e2 * share, priority.as_str()))
            .collect();
        let why = match cause {
            Cause::Load => "more is asked, or forecast, than the backends can do",
            Cause::Queue => "what waits at the backends takes them too long",
        };
        let shares = if shares.is_empty() { "nothing yet".to_owned() } else { shares.join(", ") };
        format!("refuses {shares}, since {why} ({under})")
    }
}

/// What a tick did to a gate that people should hear of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Turned {
    /// Requests are refused from now on.
    Closed(Cause),
    /// All come in again.
    Opened,
}

impl Gate {
    /// One tick: counts what asked, and sets the valve. What that changed.
    pub(crate) fn tick(
        &mut self,
        spec: &AdmissionSpec,
        valve: &Valve,
        strain: &Strain,
        elapsed: Duration,
    ) -> Option<Turned> {
        self.count(valve, strain, elapsed);
        let asked: f64 = self.asked.iter().sum();
        let can = strain.capacity.unwrap_or(0.0).max(self.answered);
        let wait = if can > 0.0 { strain.waiting / can } else { 0.0 };
        let wait_max = spec.wait_max.as_secs_f64();
        let backlog = (wait - CALM_WAIT * wait_max).max(0.0) * can / WORKED_OFF_IN;
        let admissible = (BUSY_ADMITTED * can - backlog).max(0.0);
        let forecast = strain.forecast.filter(|_| self.busy >= BUSY_MIN).unwrap_or(0.0);
        let wanted = asked.max(forecast.min(FORECAST_MAX * asked));
        let cause = if !self.is_slow(strain) {
            None
        } else if wait > wait_max {
            Some(Cause::Queue)
        } else if strain.capacity.is_some()
            && self.busy >= BUSY_MIN
            && (asked > EXCESS_MIN * can
                || (wanted > EXCESS_MIN * can && wait > CALM_WAIT * wait_max))
        {
            Some(Cause::Load)
        } else {
            None
        };
        let is_calm = wanted < CALM * admissible && wait < CALM_WAIT * wait_max;
        let turned = self.turn(cause, is_calm, elapsed);
        self.follow(spec, wanted, admissible, elapsed);
        let refused = by_priority(self.share * asked, &self.asked);
        let retry_after = RETRY_AFTER_MIN + RETRY_AFTER_MORE * self.share;
        let shown = self.cause.unwrap_or(Cause::Load);
        valve.set(&refused, shown, Duration::from_secs_f64(retry_after));
        let (asked, busy) = (self.asked, self.busy);
        let cause = self.cause;
        self.state = Some(AdmissionState { cause, asked, refused, admissible, wait, busy });
        turned
    }

    /// Lets all in: admission is not configured any more.
    pub(crate) fn open(&mut self, valve: &Valve) {
        if self.state.is_some() {
            let (counted, usual) = (self.counted, self.usual);
            *self = Gate { counted, usual, ..Gate::default() };
            valve.set(&[0.0; COUNT], Cause::Load, Duration::ZERO);
        }
    }

    /// What it does; `None`: nothing, or it is not configured.
    pub(crate) fn state(&self) -> Option<AdmissionState> {
        self.state
    }

    /// Requests that did not come in since the tick before.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away
    }

    fn count(&mut self, valve: &Valve, strain: &Strain, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let before = std::mem::replace(&mut self.counted, valve.counted());
        let away = |counted: &Counted| counted.turned_away.iter().sum::<u64>();
        self.turned_away = away(&self.counted).saturating_sub(away(&before));
        if seconds <= 0.0 {
            return;
        }
        let keep = 0.5f64.powf(seconds / HALF_LIFE.as_secs_f64());
        let follow = |average: &mut f64, now: f64| *average = keep * *average + (1.0 - keep) * now;
        for (at, asked) in self.asked.iter_mut().enumerate() {
            let came = self.counted.asked[at].saturating_sub(before.asked[at]);
            follow(asked, came as f64 / seconds);
        }
        follow(&mut self.answered, strain.answered);
        follow(&mut self.busy, strain.busy.unwrap_or(0.0));
        if let Some(latency) = strain.latency {
            self.learn_usual(latency, seconds);
        }
    }

    /// Whether requests take longer than usual.
    fn is_slow(&self, strain: &Strain) -> bool {
        let both = strain.latency.zip(self.usual);
        both.is_some_and(|(latency, usual)| latency > SLOWER_MIN * usual)
    }

    fn learn_usual(&mut self, latency: f64, seconds: f64) {
        let usual = *self.usual.get_or_insert(latency);
        let keep = 0.5f64.powf(seconds / USUAL_HALF_LIFE.as_secs_f64());
        if latency < usual {
            self.usual = Some(latency);
        } else if self.cause.is_none() && self.busy < BUSY_MIN {
            self.usual = Some(keep * usual + (1.0 - keep) * latency);
        }
    }

    /// What requests usually take, s: what is to be kept of it.
    pub(crate) fn save(&self) -> Option<f64> {
        self.usual
    }

    /// Goes on from there.
    pub(crate) fn restore(&mut self, usual: Option<f64>) {
        self.usual = usual.filter(|usual| usual.is_finite() && *usual > 0.0);
    }

    /// Opens or closes, with hysteresis.
    fn turn(&mut self, cause: Option<Cause>, is_calm: bool, elapsed: Duration) -> Option<Turned> {
        let was_open = self.cause.is_none();
        let turns = if was_open { cause.is_some() } else { is_calm };
        self.turning = if turns { self.turning + elapsed } else { Duration::ZERO };
        match (was_open, cause) {
            (true, Some(cause)) if self.turning >= BEGIN_AFTER => {
                (self.cause, self.turning) = (Some(cause), Duration::ZERO);
                Some(Turned::Closed(cause))
            }
            (false, _) if self.turning >= END_AFTER => {
                (self.cause, self.turning, self.share) = (None, Duration::ZERO, 0.0);
                Some(Turned::Opened)
            }
            (false, Some(cause)) => {
                self.cause = Some(cause);
                None
            }
            _ => None,
        }
    }

    /// Moves the refused share: up at once, down slowly.
    fn follow(&mut self, spec: &AdmissionSpec, wanted: f64, admissible: f64, elapsed: Duration) {
        if self.cause.is_none() {
            self.share = 0.0;
            return;
        }
        let needed = if wanted > 0.0 { (wanted - admissible) / wanted } else { 0.0 };
        let floor = self.share - FALL * elapsed.as_secs_f64();
        self.share = needed.max(floor).clamp(0.0, spec.share_max);
    }
}

/// What is refused of each priority so that `rate` of all that `asked` is: the least important first.
fn by_priority(rate: f64, asked: &[f64; COUNT]) -> [f64; COUNT] {
    let mut left = rate;
    let mut refused = [0.0; COUNT];
    for priority in Priority::ALL.into_iter().rev() {
        let at = priority as usize;
        if priority != Priority::Critical && asked[at] > 0.0 {
            let taken = left.min(asked[at]);
            refused[at] = taken / asked[at];
            left -= taken;
        }
    }
    refused
}

#[cfg(test)]
mod tests;
