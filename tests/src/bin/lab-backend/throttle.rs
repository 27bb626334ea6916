//! A limit of CPU time, as it is felt: the process stands still for a part of every period.

use std::convert::Infallible;
use std::thread;

use gateway_tests::fault::{Fault, THROTTLE_PERIOD};

use crate::control::Switches;

/// Throttles the process while one of its servers is told to be, for ever.
pub(crate) async fn run(switches: Switches) -> Infallible {
    loop {
        let share = switches.iter().filter_map(|(_, switch)| match *switch.borrow() {
            Fault::Throttle { share } => Some(share),
            _ => None,
        });
        let share = share.fold(1.0, f64::min);
        tokio::time::sleep(THROTTLE_PERIOD.mul_f64(share)).await;
        // On purpose in the only thread: nothing of the process runs meanwhile.
        thread::sleep(THROTTLE_PERIOD.mul_f64(1.0 - share));
    }
}
