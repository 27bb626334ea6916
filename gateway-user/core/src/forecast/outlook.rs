//! One pool's forecasts: of its whole load and of each backend's, kept in step with the clock.

use std::time::Duration;

use gateway_common::clock::KtimeNs;
use serde::{Deserialize, Serialize};

use super::bands::{Bands, HORIZONS, Source};
use super::forecaster::{Forecaster, OUTPUTS};
use super::series::{MODEL_PACE, QUICK_PACE, SavedSeries, Scored, Series};
use crate::ladder::{Seat, Stage, Task};
use crate::observation::BackendRow;
use crate::timing::Spent;

/// A pause of the loop from which nobody knows what belongs to which step: a few ticks at their
/// slowest. Steps that it falls into are dropped.
const GAP_MAX: Duration = Duration::from_secs(5);

/// Horizons before those of the minutes: the quick one.
const QUICK: usize = QUICK_PACE.ahead.len();

/// Outcomes that a mean remembers: a day of minutes.
const REMEMBERED: f64 = 1440.0;

const _: () = assert!(QUICK + MODEL_PACE.ahead.len() == HORIZONS.len());

/// What is expected of a pool: what its policy looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// All backends together.
    pub pool: Bands,
    /// Each, in the pool's order; empty before the first turn.
    pub backends: Vec<Bands>,
}

/// What is forecast of a pool or backend, by whom, and how well that went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What counts now.
    pub bands: Bands,
    /// What the model says, whether it counts or not.
    pub model: Bands,
    /// What the EWMA says.
    pub substitute: Bands,
    /// How both did, in the order of [`HORIZONS`].
    pub horizons: Vec<HorizonReport>,
}

/// How forecasts of one horizon came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HorizonReport {
    /// Name of the horizon.
    pub horizon: String,
    /// Forecasts whose future has come.
    pub substitute: Score,
    /// The same of the model.
    pub model: Score,
}

/// How one of them did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Mean pinball loss over the quantiles, relative to the long average of the rate.
    pub loss: f64,
    /// Share that stayed under the high quantile; 0.9 is right.
    pub covered: f64,
    /// Outcomes.
    pub scored: u32,
}

impl Score {
    fn learn(&mut self, loss: f64, covered: bool) {
        self.scored = self.scored.saturating_add(1);
        let gain = 1.0 / f64::from(self.scored).min(REMEMBERED);
        self.loss += gain * (loss - self.loss);
        self.covered += gain * (f64::from(u8::from(covered)) - self.covered);
    }
}

/// What is kept of one series at both paces, for a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedMember {
    quick: SavedSeries,
    minute: SavedSeries,
    /// The model's.
    state: Vec<f32>,
    substitute: Vec<Score>,
    model: Vec<Score>,
}

/// The model that is asked, if any, and what takes its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) model: Option<&'a dyn Forecaster>,
    pub(crate) spent: &'a Spent<'a>,
}

/// Whose (`None`: the pool's), and requests a second; `None`: it was not there all the time.
pub(crate) type Rate = (Option<BackendRow>, Option<f64>);

/// A pool's series. The first is the pool's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forecasts {
    ticked_at: Option<KtimeNs>,
    quick_since: KtimeNs,
    minute_since: KtimeNs,
    members: Vec<Member>,
    /// They go on from a file, and nothing was counted yet.
    is_restored: bool,
    /// The model answered for the pool at the last step.
    answered: bool,
}

/// One series at both paces.
#[derive(Clone, Debug)]
struct Member {
    /// `None`: the pool.
    row: Option<BackendRow>,
    quick: Series,
    minute: Series,
    /// Requests of the step so far; `None`: it was not there when the step began.
    quick_count: Option<u64>,
    minute_count: Option<u64>,
    /// The model's.
    state: Vec<f32>,
    substitute: [Score; HORIZONS.len()],
    model: [Score; HORIZONS.len()],
}

impl Member {
    fn new(row: Option<BackendRow>) -> Member {
        Member {
            row,
            quick: Series::new(&QUICK_PACE),
            minute: Series::new(&MODEL_PACE),
            quick_count: None,
            minute_count: None,
            state: Vec::new(),
            substitute: [Score::default(); HORIZONS.len()],
            model: [Score::default(); HORIZONS.len()],
        }
    }

    fn save(&self) -> SavedMember {
        SavedMember {
            quick: self.quick.save(),
            minute: self.minute.save(),
            state: self.state.clone(),
            substitute: self.substitute.to_vec(),
            model: self.model.to_vec(),
        }
    }

    /// `None`: it makes no sense.
    fn restore(row: Option<BackendRow>, saved: &SavedMember, away: Duration) -> Option<Member> {
        let scores = |saved: &[Score]| -> Option<[Score; HORIZONS.len()]> {
            saved.try_into().ok().filter(|all: &[Score; HORIZONS.len()]| {
                all.iter().all(|score| score.loss.is_finite() && score.covered.is_finite())
            })
        };
        // A state that a step is missing from is of another series.
        let is_fresh = away <= MODEL_PACE.step && saved.state.iter().all(|n| n.is_finite());
        Some(Member {
            quick: Series::restore(&QUICK_PACE, &saved.quick, away)?,
            minute: Series::restore(&MODEL_PACE, &saved.minute, away)?,
            state: if is_fresh { saved.state.clone() } else { Vec::new() },
            substitute: scores(&saved.substitute)?,
            model: scores(&saved.model)?,
            ..Member::new(row)
        })
    }

    fn note(&mut self, scored: &[Scored], first: usize) {
        for scored in scored {
            let at = first + scored.horizon;
            let covered = scored.came <= scored.rule.high;
            self.substitute[at].learn(scored.loss(&scored.rule), covered);
            if let Some(model) = &scored.model {
                self.model[at].learn(scored.loss(model), scored.came <= model.high);
            }
        }
    }

    fn bands(&self, minutes: Source) -> Bands {
        let mut bands = Bands::default();
        let quick = self.quick.issued().and_then(|said| said.band(0, Source::Substitute));
        bands.by_horizon[0] = quick;
        for horizon in 0..MODEL_PACE.ahead.len() {
            let said = self.minute.issued();
            bands.by_horizon[QUICK + horizon] = said.and_then(|said| said.band(horizon, minutes));
        }
        bands
    }

    /// The model's, and where it has none the EWMA's.
    fn best(&self, by_model: bool) -> Bands {
        let rule = self.bands(Source::Substitute);
        if !by_model {
            return rule;
        }
        let mut bands = self.bands(Source::Model);
        for (band, rule) in bands.by_horizon.iter_mut().zip(rule.by_horizon) {
            *band = band.or(rule);
        }
        bands
    }
}

impl Forecasts {
    /// What finished of each backend since the last turn, in the pool's order, and what was refused
    /// before any had it: that is load of the pool's, too. The rates of the minute that ended with
    /// this turn, if one did.
    pub(crate) fn tick(
        &mut self,
        now: KtimeNs,
        finished: &[(BackendRow, u64)],
        refused: u64,
        asking: Asking<'_>,
        seat: &mut Seat,
    ) -> Option<Vec<Rate>> {
        self.align(finished);
        let before = self.ticked_at.replace(now);
        if std::mem::take(&mut self.is_restored) {
            self.begin(now);
            return None;
        }
        if before.is_none_or(|before| now < before || now.since(before) > GAP_MAX) {
            self.interrupt(now);
            return None;
        }
        self.count(finished, refused);
        if now.since(self.quick_since) >= QUICK_PACE.step {
            self.step_quick(now);
        }
        let mut rates = None;
        if now.since(self.minute_since) >= MODEL_PACE.step {
            rates = Some(self.step_minute(now, seat));
            self.answered = match asking.model.filter(|_| seat.stage() != Stage::Off) {
                Some(model) => asking.spent.take(Task::Forecast, || self.ask(model, seat)),
                None => self.leave_out(),
            };
        }
        if self.answered {
            seat.answered(now);
        }
        rates
    }

    /// What is expected: by the model where it may decide (`by_model`) and has spoken, else by the
    /// EWMA.
    pub(crate) fn outlook(&self, by_model: bool) -> Outlook {
        let Some((pool, backends)) = self.members.split_first() else {
            return Outlook::default();
        };
        let backends = backends.iter().map(|member| member.best(by_model)).collect();
        Outlook { pool: pool.best(by_model), backends }
    }

    /// Of the pool (`None`) or a backend. `None`: it was not looked at yet.
    pub(crate) fn report(&self, backend: Option<usize>, by_model: bool) -> Option<Report> {
        let member = self.members.get(backend.map_or(0, |backend| backend + 1))?;
        let horizons = HORIZONS.iter().enumerate().map(|(at, horizon)| HorizonReport {
            horizon: horizon.name.to_owned(),
            substitute: member.substitute[at],
            model: member.model[at],
        });
        let mut model = member.bands(Source::Model);
        model.by_horizon[..QUICK].fill(None);
        Some(Report {
            bands: member.best(by_model),
            model,
            substitute: member.bands(Source::Substitute),
            horizons: horizons.collect(),
        })
    }

    /// Another model speaks from now on.
    pub(crate) fn forget_model(&mut self) {
        self.answered = false;
        for member in &mut self.members {
            member.minute.forget_model();
            member.state.clear();
            member.model = [Score::default(); HORIZONS.len()];
        }
    }

    fn count(&mut self, finished: &[(BackendRow, u64)], refused: u64) {
        let all = refused + finished.iter().map(|(_, count)| count).sum::<u64>();
        let counts = std::iter::once(all).chain(finished.iter().map(|(_, count)| *count));
        for (member, count) in self.members.iter_mut().zip(counts) {
            member.quick_count = member.quick_count.map(|sum| sum + count);
            member.minute_count = member.minute_count.map(|sum| sum + count);
        }
    }

    fn step_quick(&mut self, now: KtimeNs) {
        let seconds = now.since(self.quick_since).as_secs_f64();
        self.quick_since = now;
        for member in &mut self.members {
            if let Some(count) = member.quick_count.replace(0) {
                let scored = member.quick.step(count as f64 / seconds);
                member.note(&scored, 0);
            }
        }
    }

    fn step_minute(&mut self, now: KtimeNs, seat: &mut Seat) -> Vec<Rate> {
        let seconds = now.since(self.minute_since).as_secs_f64();
        self.minute_since = now;
        let mut backends = [Mean::default(); MODEL_PACE.ahead.len()];
        let mut rates = Vec::with_capacity(self.members.len());
        for member in &mut self.members {
            let rate = member.minute_count.replace(0).map(|count| count as f64 / seconds);
            rates.push((member.row, rate));
            let Some(rate) = rate else { continue };
            let scored = member.minute.step(rate);
            member.note(&scored, QUICK);
            for scored in &scored {
                let Some(model) = &scored.model else { continue };
                let losses = (scored.loss(model), scored.loss(&scored.rule));
                match member.row {
                    None => seat.score(losses.0, losses.1),
                    Some(_) => backends[scored.horizon].add(losses),
                }
            }
        }
        // Backends count as one, so that a large pool's score is still one of many minutes.
        for (loss, rule) in backends.iter().filter_map(Mean::value) {
            seat.score(loss, rule);
        }
        rates
    }

    /// Asks the model about all series. Whether it answered for the pool.
    fn ask(&mut self, model: &dyn Forecaster, seat: &mut Seat) -> bool {
        let spec = model.spec();
        let asked: Vec<(usize, _)> = self
            .members
            .iter()
            .enumerate()
            .filter_map(|(at, member)| Some((at, member.minute.vector()?)))
            .collect();
        let mut states = Vec::with_capacity(asked.len() * spec.state);
        for (at, _) in &asked {
            self.members[*at].state.resize(spec.state, 0.0);
            states.extend_from_slice(&self.members[*at].state);
        }
        let inputs: Vec<_> = asked.iter().map(|(_, vector)| *vector).collect();
        let answer = model.step(&inputs, &mut states);
        let outputs = answer.ok().filter(|outputs| outputs.len() == asked.len() * OUTPUTS);
        let mut answered = false;
        for (nth, (at, vector)) in asked.iter().enumerate() {
            let member = &mut self.members[*at];
            let state = &states[nth * spec.state..(nth + 1) * spec.state];
            let output = outputs.as_deref().map(|all| &all[nth * OUTPUTS..(nth + 1) * OUTPUTS]);
            let sound = state.iter().all(|number| number.is_finite())
                && output.is_some_and(|output| member.minute.hear(output));
            // A state that led to nonsense leads to more of it.
            if sound {
                member.state.copy_from_slice(state)
            } else {
                member.state.fill(0.0)
            }
            answered |= sound && member.row.is_none();
            if member.row.is_none() {
                seat.familiar(spec.is_familiar(vector));
            }
        }
        answered
    }

    /// No model is asked at this step, so that its states are of another series at the next.
    fn leave_out(&mut self) -> bool {
        self.members.iter_mut().for_each(|member| member.state.fill(0.0));
        false
    }

    /// What is to be kept of the pool's series (`None`) or a backend's.
    pub(crate) fn save(&self, row: Option<BackendRow>) -> Option<SavedMember> {
        self.members.iter().find(|member| member.row == row).map(Member::save)
    }

    /// Goes on, for a pool of these backends, from what was saved so long ago. How many of the series
    /// did: what makes no sense begins anew.
    pub(crate) fn restore(
        &mut self,
        rows: &[BackendRow],
        saved: &[(Option<BackendRow>, SavedMember)],
        away: Duration,
    ) -> usize {
        let member = |(row, saved): &(_, _)| Member::restore(*row, saved, away);
        self.members = saved.iter().filter_map(member).collect();
        let restored = self.members.len();
        self.is_restored = restored > 0;
        let nothing: Vec<_> = rows.iter().map(|row| (*row, 0)).collect();
        self.align(&nothing);
        restored
    }

    /// What was not watched belongs to no step.
    fn interrupt(&mut self, now: KtimeNs) {
        self.answered = false;
        for member in &mut self.members {
            member.quick.interrupt();
            member.minute.interrupt();
            member.state.fill(0.0);
        }
        self.begin(now);
    }

    /// Steps begin now.
    fn begin(&mut self, now: KtimeNs) {
        (self.quick_since, self.minute_since) = (now, now);
        for member in &mut self.members {
            (member.quick_count, member.minute_count) = (Some(0), Some(0));
        }
    }

    /// Backends that stay keep their series, whatever their place in the pool is now.
    fn align(&mut self, finished: &[(BackendRow, u64)]) {
        let rows = || std::iter::once(None).chain(finished.iter().map(|(row, _)| Some(*row)));
        if self.members.len() == finished.len() + 1
            && rows().zip(&self.members).all(|(row, member)| row == member.row)
        {
            return;
        }
        let mut before = std::mem::take(&mut self.members);
        let kept = |row| match before.iter().position(|member| member.row == row) {
            Some(at) => before.swap_remove(at),
            None => Member::new(row),
        };
        self.members = rows().map(kept).collect();
    }
}

/// A mean of losses, the model's and the EWMA's.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    sums: (f64, f64),
    count: f64,
}

impl Mean {
    fn add(&mut self, (model, rule): (f64, f64)) {
        self.sums = (self.sums.0 + model, self.sums.1 + rule);
        self.count += 1.0;
    }

    fn value(&self) -> Option<(f64, f64)> {
        (self.count > 0.0).then(|| (self.sums.0 / self.count, self.sums.1 / self.count))
    }
}

#[cfg(test)]
mod tests;
