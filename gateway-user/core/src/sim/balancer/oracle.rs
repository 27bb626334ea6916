//! Who knows everything.

use super::Ask;
use super::competitor::{Choice, Picker};

/// The backend that will be done first, of those that are not sick.
pub(super) struct Oracle;

impl Picker for Oracle {
    fn pick(&mut self, ask: &Ask<'_>, choice: &Choice<'_>) -> usize {
        let done_after = |server: usize| {
            let server = &ask.servers[server];
            let sick = server.fault.is_sick();
            let seconds = server.foresee(ask.now, ask.request, ask.turn);
            if sick { f64::MAX } else { seconds }
        };
        let first = choice
            .eligible
            .iter()
            .map(|server| (done_after(*server), *server))
            .min_by(|a, b| a.0.total_cmp(&b.0));
        first.map_or(choice.eligible[0], |(_, server)| server)
    }
}
