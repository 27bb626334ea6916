//! Who may be cut: never more of a pool than its budget, never the last backend, and when most of
//! a pool seems sick, rather the sign of sickness is doubted.

use gateway_common::clock::KtimeNs;

use super::course::Step;
use super::{Case, Course};
use crate::decision::{Health, Reason};
use crate::fleet::PolicySpec;
use crate::predictor::Fault;

/// Cuts those that the budget allows, the surest faults first. For each backend, why it should
/// have been cut and was not.
pub(super) fn grant(
    spec: &PolicySpec,
    now: KtimeNs,
    chance: u64,
    cases: &[Case],
    steps: &[Step],
    courses: &mut [Course],
) -> Vec<Option<Reason>> {
    let mut denied = vec![None; cases.len()];
    let mut wanted: Vec<(usize, Fault)> = steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| step.eject.map(|fault| (index, fault)))
        .collect();
    wanted.sort_by(|(_, a), (_, b)| b.probability.total_cmp(&a.probability));
    for (index, fault) in wanted {
        if fault.reason != Reason::ModelFault {
            make_room(spec, now, cases, courses, index);
        }
        if is_affordable(spec, cases, courses, index) {
            courses[index].eject(now, fault.reason, spec, chance ^ index as u64);
        } else {
            denied[index] = Some(fault.reason);
        }
    }
    denied
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
    let (mut total, mut cut, mut left) = (0.0, 0.0, 0);
    for (at, (case, course)) in cases.iter().zip(courses).enumerate() {
        if case.draining {
            continue;
        }
        total += case.capacity;
        if at == index || course.health().is_cut() {
            cut += case.capacity;
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
    denied: &[Option<Reason>],
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
