//! What may be done about opinions: health, ejection, and weights within bounds.
//!
//! An opinion, a model's or a rule's, never becomes a weight directly. Here it is held against the
//! operator's bounds: how much of a pool may be ejected, how far a weight may move in one tick, how
//! small and how large it may be. Every bound that bites is named in the decision.

mod bounds;
mod course;
mod ejection;
mod swings;

use gateway_common::clock::KtimeNs;

pub(crate) use course::Course;
pub(crate) use ejection::is_within_budget;
pub(crate) use swings::{Damping, Swing, swings};

use crate::decision::{Bound, Health, Reason, WeightSource};
use crate::evidence::Evidence;
use crate::fleet::{Admission, BackendSpec, PolicySpec, WeightMode};
use crate::headroom::Room;
use crate::ladder::Verdict;
use crate::predictor::Fault;
use course::Signals;
use ejection::Denial;

/// What the policy is told of one backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// Takes no new flows, as its operator wants.
    pub draining: bool,
    /// Its operator wants that, and it waits, as the others would not hold what may come.
    pub drain_waits: bool,
    /// Configured capacity; positive.
    pub capacity: f64,
    /// The weight that an earlier daemon had come to, if one did; positive.
    pub adopted: Option<f64>,
    /// The opinions that count.
    pub verdict: Verdict,
    /// The active probe is down.
    pub probe_down: bool,
    /// Finished lately; in probation: since it began.
    pub finished: u32,
    /// Failed of these.
    pub failed: u32,
}

impl Case {
    /// A backend as configured, seen and judged.
    pub(crate) fn new(
        spec: &BackendSpec,
        drain_waits: bool,
        adopted: Option<f64>,
        evidence: &Evidence,
        verdict: Verdict,
    ) -> Case {
        Case {
            draining: spec.admission == Admission::Draining && !drain_waits,
            drain_waits,
            capacity: spec.capacity,
            adopted,
            verdict,
            probe_down: evidence.probe_down,
            finished: evidence.finished,
            failed: evidence.failed,
        }
    }

    /// The fault factor of its weight: what a model suspects counts against it before it is
    /// confirmed. What a rule sees is in the speed already, by the requests that failed.
    fn soundness(&self) -> f64 {
        match self.verdict.fault {
            Some(Fault { probability, reason: Reason::ModelFault }) => {
                (1.0 - probability).max(0.01)
            }
            _ => 1.0,
        }
    }
}

/// What the policy decides about one backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Who decided about its weight.
    pub source: WeightSource,
    /// Health from now on.
    pub health: Health,
    /// Weight before, relative to the mean of the backends that carry the pool.
    pub weight_before: f64,
    /// What was asked for.
    pub weight_wanted: f64,
    /// Weight from now on; 0 takes no new flow.
    pub weight_after: f64,
    /// Bounds that bit.
    pub bounds: Vec<Bound>,
    /// Why.
    pub reason: Reason,
    /// Its evidence starts anew: it is on trial.
    pub restart: bool,
}

impl Outcome {
    /// Names the halving of the steps where a step was what kept it.
    pub(crate) fn damped(&mut self) {
        let is_step = |bound| matches!(bound, &Bound::StepUp | &Bound::StepDown | &Bound::MoveMax);
        if self.bounds.iter().any(is_step) {
            self.bounds.push(Bound::Damped);
        }
    }
}

/// How a backend's weight comes about this tick.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// Takes no new flow.
    Cut,
    /// Carries the pool; the weights of these have a mean of one.
    Full,
    /// Takes this share of what it would get: until it has shown itself, or what the rest cannot
    /// take from one that should be cut.
    Ramp(f64),
    /// Takes this weight: on trial, or too much of the pool is ejected already.
    Trickle(f64),
}

/// What all backends of a pool share in a tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment<'a> {
    /// Now.
    pub now: KtimeNs,
    /// Spreads the ends of ejections.
    pub chance: u64,
    /// What they can do and what may come; `None`: it is not known.
    pub room: Option<&'a Room>,
}

/// One pool's decisions of one tick.
///
/// `cases`, `courses` and `weights` are parallel, one for each backend. Courses and weights are
/// moved on.
pub(crate) fn decide(
    spec: &PolicySpec,
    mode: WeightMode,
    moment: &Moment<'_>,
    cases: &[Case],
    courses: &mut [Course],
    weights: &mut [f64],
) -> Vec<Outcome> {
    let now = moment.now;
    let mut bounds: Vec<Vec<Bound>> = vec![Vec::new(); cases.len()];
    let failed_usual = failed_usual(cases, courses);
    let eases = eases(spec, moment, cases, courses);
    let steps: Vec<_> = cases
        .iter()
        .zip(courses.iter_mut())
        .zip(&eases)
        .map(|((case, course), ease)| {
            course.advance(now, &Signals::of(case, failed_usual, *ease), spec)
        })
        .collect();
    let denied = ejection::grant(spec, moment, cases, &steps, courses);
    let panic = ejection::is_panic(spec, cases, courses, &denied);
    let mut roles: Vec<Role> = Vec::with_capacity(cases.len());
    for (index, (case, course)) in cases.iter().zip(courses.iter_mut()).enumerate() {
        if let Some(denial) = &denied[index] {
            let (role, bound) = kept(denial, case, course, now, spec);
            bounds[index].push(bound);
            roles.push(role);
            continue;
        }
        if panic && course.health() == Health::Down && !case.draining {
            bounds[index].push(Bound::Panic);
            roles.push(Role::Full);
        } else {
            roles.push(role(course, now, spec));
        }
        if let Role::Ramp(_) = roles[index] {
            bounds[index].push(Bound::SlowStart);
            if eases[index] > 0.0 && spec.slow_start_max > spec.slow_start {
                bounds[index].push(Bound::Eased);
            }
        }
        if case.drain_waits {
            bounds[index].push(Bound::DrainWaits);
        }
    }
    carry(&mut roles);

    let sources: Vec<WeightSource> = cases.iter().map(|case| source(mode, case)).collect();
    let adopted_scale = adopted_scale(cases);
    let asked: Vec<f64> = cases.iter().map(|case| asked(mode, case, adopted_scale)).collect();
    let movement = bounds::Movement { spec, mode, roles: &roles, asked: &asked };
    let moved = movement.apply(weights, &mut bounds);

    (0..cases.len())
        .map(|index| {
            let (before, after) = (moved.before[index], moved.after[index]);
            weights[index] = after;
            Outcome {
                source: sources[index],
                health: courses[index].health(),
                weight_before: before,
                weight_wanted: moved.wanted[index],
                weight_after: after,
                bounds: std::mem::take(&mut bounds[index]),
                reason: denied[index].map(|denial| denial.reason).unwrap_or_else(|| {
                    reason(&cases[index], &courses[index], mode, sources[index], before, after)
                }),
                restart: steps[index].restart,
            }
        })
        .collect()
}

/// The failed share of the backends that are neither cut nor on trial.
fn failed_usual(cases: &[Case], courses: &[Course]) -> f64 {
    let (mut finished, mut failed) = (0u64, 0u64);
    for (case, course) in cases.iter().zip(courses) {
        if matches!(course.health(), Health::Healthy | Health::SlowStart) {
            finished += u64::from(case.finished);
            failed += u64::from(case.failed);
        }
    }
    if finished == 0 { 0.0 } else { failed as f64 / finished as f64 }
}

/// How one goes on that should have been cut and was not.
fn kept(
    denial: &Denial,
    case: &Case,
    course: &mut Course,
    now: KtimeNs,
    spec: &PolicySpec,
) -> (Role, Bound) {
    match denial.share {
        Some(share) => (Role::Ramp(share), Bound::Headroom),
        None => (Role::Trickle(course.floor(now, case.finished, spec)), Bound::EjectionMax),
    }
}

/// For each backend, how well those in full health hold what may come without it: see [`Signals`].
fn eases(spec: &PolicySpec, moment: &Moment<'_>, cases: &[Case], courses: &[Course]) -> Vec<f64> {
    let Some(room) = moment.room else { return vec![0.0; cases.len()] };
    let is_full = |at: usize| !cases[at].draining && courses[at].health() == Health::Healthy;
    let spare = room.spare(spec.busy_max, is_full);
    room.abilities.iter().map(|ability| (spare / ability).clamp(0.0, 1.0)).collect()
}

fn role(course: &Course, now: KtimeNs, spec: &PolicySpec) -> Role {
    match course.health() {
        Health::Ejected | Health::Down | Health::Draining => Role::Cut,
        Health::Healthy => Role::Full,
        Health::SlowStart => Role::Ramp(course.ramp()),
        Health::Probation => Role::Trickle(course.trickle(now, spec)),
    }
}

/// Somebody has to carry the pool: if no backend is in full health, those that are on their way
/// there do, and else those on trial.
fn carry(roles: &mut [Role]) {
    if roles.contains(&Role::Full) {
        return;
    }
    let ramping = roles.iter().any(|role| matches!(role, Role::Ramp(_)));
    for role in roles {
        match role {
            Role::Ramp(_) => *role = Role::Full,
            Role::Trickle(_) if !ramping => *role = Role::Full,
            Role::Trickle(_) | Role::Cut | Role::Full => {}
        }
    }
}

fn source(mode: WeightMode, case: &Case) -> WeightSource {
    match mode {
        WeightMode::Learned => case.verdict.source,
        WeightMode::Static => WeightSource::Static,
        WeightMode::Equal => WeightSource::Equal,
        WeightMode::Manual => WeightSource::Manual,
    }
}

/// The weight that whoever decides asks for, on a scale of its own.
fn asked(mode: WeightMode, case: &Case, adopted_scale: f64) -> f64 {
    let unseen = || case.adopted.map_or(case.capacity, |weight| weight * adopted_scale);
    match mode {
        WeightMode::Learned => case.verdict.speed.unwrap_or_else(unseen) * case.soundness(),
        WeightMode::Static => case.capacity,
        WeightMode::Equal | WeightMode::Manual => 1.0,
    }
}

/// From adopted weights to the speeds of now: by those backends of which both are known. One where
/// there is none, and nothing to be compared with.
fn adopted_scale(cases: &[Case]) -> f64 {
    let both = |case: &Case| case.verdict.speed.zip(case.adopted);
    let (speeds, weights) = cases
        .iter()
        .filter_map(both)
        .fold((0.0, 0.0), |(speeds, weights), (speed, weight)| (speeds + speed, weights + weight));
    if weights > 0.0 { speeds / weights } else { 1.0 }
}

fn reason(
    case: &Case,
    course: &Course,
    mode: WeightMode,
    source: WeightSource,
    before: f64,
    after: f64,
) -> Reason {
    if course.health() != Health::Healthy {
        return course.reason();
    }
    if mode != WeightMode::Learned {
        return Reason::Configured;
    }
    match source {
        WeightSource::Static if case.adopted.is_some() => Reason::Adopted,
        WeightSource::Static if after == before => Reason::TooFewSamples,
        _ if after > before => Reason::Faster,
        _ if after < before => Reason::Slower,
        _ => Reason::Steady,
    }
}

#[cfg(test)]
mod tests;
