//! What sends the models that decide back to shadow: the control group does better, or weights swing.

use super::backend::BackendLoop;
use super::{PoolLoop, TickContext};
use crate::fleet::PoolSpec;
use crate::ladder::Barrier;
use crate::notice::{Notice, What};
use crate::policy;

impl PoolLoop {
    /// Sends the models that decide back to shadow if the control group does better without them.
    pub(super) fn compare_groups(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        notices: &mut Vec<Notice>,
    ) {
        let decides = self.control_share > 0 && self.decides(context.now);
        let Some(harm) = self.canary.tick(context.now, decides) else { return };
        for task in self.learning.demote(Barrier::ControlBetter, context.now) {
            let what = What::Demoted { task, why: Barrier::ControlBetter, harm: Some(harm) };
            notices.push(Notice { pool: spec.name.clone(), what });
        }
    }

    /// Sends the models that decide back to shadow if weights swing, or halves the steps.
    pub(super) fn calm(
        &mut self,
        context: &TickContext<'_>,
        spec: &PoolSpec,
        notices: &mut Vec<Notice>,
    ) {
        let swings = policy::swings(self.backends.iter().map(|backend| backend.swing().swings()));
        if swings {
            self.backends.iter_mut().for_each(BackendLoop::forget_swings);
        }
        let mut notice = |what| notices.push(Notice { pool: spec.name.clone(), what });
        if swings && self.decides(context.now) {
            for task in self.learning.demote(Barrier::Oscillating, context.now) {
                notice(What::Demoted { task, why: Barrier::Oscillating, harm: None });
            }
            return;
        }
        match self.damping.tick(context.now, swings) {
            Some(true) => notice(What::Damped),
            Some(false) => notice(What::Calmed),
            None => {}
        }
    }
}
