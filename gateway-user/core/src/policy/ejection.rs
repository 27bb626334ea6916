//! Who may be cut: never more of a pool than its budget, never the last backend, and when most of
//! a pool seems sick, rather the sign of sickness is doubted.

use gateway_common::clock::KtimeNs;

use super::course::Step;
use super::{Case, Course, Moment};
use crate::decision::{Health, Reason};
use crate::fleet::PolicySpec;
use crate::predictor::Fault;

/// Why one should have been cut and was not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Denial {
    /// What speaks against it.
    pub(super) reason: Reason,
    /// It goes on taking this share of what it would get, as the rest could not take that too.
    /// `None`: no more of the pool may be cut, whatever the rest can do.
    pub(super) share: Option<f64>,
}

/// Cuts those that the budget allows, the surest faults first. For each backend, why it should
/// have been cut and was not.
///
/// The budget is a share of the pool, and within it what the rest can take over of the load that
/// may come. What a hard rule is certain of needs none of the latter: a backend that does not serve
/// takes nothing from the others.
pub(super) fn grant(
    spec: &PolicySpec,
    moment: &Moment<'_>,
    cases: &[Case],
    steps: &[Step],
    courses: &mut [Course],
) -> Vec<Option<Denial>> {
    let mut denied = vec![None; cases.len()];
    let mut wanted: Vec<(usize, Fault)> = steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| step.eject.map(|fault| (index, fault)))
        .collect();
    wanted.sort_by(|(_, a), (_, b)| b.probability.total_cmp(&a.probability));
    for (index, fault) in wanted {
        if fault.reason != Reason::ModelFault {
            make_room(spec, moment.now, cases, courses, index);
        }
        let share = overflow(spec, moment, cases, courses, index, &denied);
        if !is_affordable(spec, cases, courses, index) {
            denied[index] = Some(Denial { reason: fault.reason, share: None });
        } else if let Some(share) = share.filter(|share| *share > 0.0 && !fault.is_certain()) {
            denied[index] = Some(Denial { reason: fault.reason, share: Some(share) });
        } else {
            courses[index].eject(moment.now, fault.reason, spec, moment.chance ^ index as u64);
        }
    }
    denied
}

/// The share of what backend `index` takes that the others could not take too, `0..=1`. `None`: it is
/// not known what they can do.
fn overflow(
    spec: &PolicySpec,
    moment: &Moment<'_>,
    cases: &[Case],
    courses: &[Course],
    index: usize,
    denied: &[Option<Denial>],
) -> Option<f64> {
    let room = moment.room?;
    let ability = *room.abilities.get(index)?;
    let carries = |at: usize| !cases[at].draining && courses[at].carries();
    let gone = |at: usize| match denied[at] {
        Some(Denial { share, .. }) => (1.0 - share.unwrap_or(0.0)) * room.abilities[at],
        None => 0.0,
    };
    let lost: f64 = (0..cases.len()).filter(|at| carries(*at)).map(gone).sum();
    let spare = room.spare(spec.busy_max, carries) - lost;
    Some((1.0 - spare / ability).clamp(0.0, 1.0))
}

/// A model's suspicion gives way to what a rule saw: whom it cut goes on trial, so that a wrong
/// model cannot use up the budget.
fn make_room(
    spec: &PolicySpec,
    now: KtimeNs,
    cases: &[Case],
    courses: &mut [Course],
    index: usize,
) {
    while !is_affordable(spec, cases, courses, index) {
        let suspected = |course: &Course| {
            course.health() == Health::Ejected && course.reason() == Reason::ModelFault
        };
        let Some(at) = courses.iter().position(suspected) else { return };
        courses[at].release(now);
    }
}

fn is_affordable(spec: &PolicySpec, cases: &[Case], courses: &[Course], index: usize) -> bool {
    let all = cases.iter().zip(courses).enumerate().filter(|(_, (case, _))| !case.draining);
    is_within_budget(
        spec,
        all.map(|(at, (case, course))| (case.capacity, at == index || course.health().is_cut())),
    )
}

/// Whether so much of a pool may be cut at once: capacities of the backends that do not drain, each
/// with whether it is cut.
pub(crate) fn is_within_budget(
    spec: &PolicySpec,
    backends: impl Iterator<Item = (f64, bool)>,
) -> bool {
    let (mut total, mut cut, mut left) = (0.0, 0.0, 0);
    for (capacity, is_cut) in backends {
        total += capacity;
        if is_cut {
            cut += capacity;
        } else {
            left += 1;
        }
    }
    // Rounding must not turn "half" into "a little more than half".
    left > 0 && cut <= spec.ejection_max * total * (1.0 + 1e-9)
}

/// Whether so little is healthy that the probes are doubted. Ejections stay: they have a budget of
/// their own. Who should have been cut and was `denied` it is not healthy.
pub(super) fn is_panic(
    spec: &PolicySpec,
    cases: &[Case],
    courses: &[Course],
    denied: &[Option<Denial>],
) -> bool {
    let (mut total, mut healthy, mut down) = (0.0, 0.0, false);
    for ((case, course), denied) in cases.iter().zip(courses).zip(denied) {
        if case.draining {
            continue;
        }
        total += case.capacity;
        if !course.health().is_cut() && denied.is_none() {
            healthy += case.capacity;
        }
        down |= course.health() == Health::Down;
    }
    down && (healthy == 0.0 || healthy < spec.panic_threshold * total * (1.0 - 1e-9))
}
