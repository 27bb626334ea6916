//! What the XDP program reports of flows, as observations.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use gateway_common::clock::KtimeNs;
use gateway_common::layout::{FlowEvent, event_kind};
use gateway_core::observation::{BackendRow, Observation, Seen};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::DataplaneError;
use super::logs::ProgramLog;
use crate::telemetry::Telemetry;

/// Events read in a row before other tasks get a turn: about a millisecond's worth.
const TURN: usize = 4_096;

/// The ring buffer of flow events, and the program's log.
pub struct EventRing {
    pub(super) events: RingBuf<MapData>,
    pub(super) log: Option<ProgramLog>,
}

/// Reads events into `telemetry`, and the program's log into tracing, until `shutdown` is ready.
/// Events that nobody reads in time are lost, and forwarding does not wait for them.
///
/// Those of an earlier daemon's time come first; they have their own times, and rows' generations
/// keep them from being taken for another backend's.
///
/// # Errors
///
/// If the ring cannot be watched, which is so outside a tokio runtime with I/O.
pub async fn run(
    events: EventRing,
    telemetry: Telemetry,
    shutdown: impl Future<Output = ()>,
) -> Result<(), DataplaneError> {
    tokio::select! {
        ended = read(events.events, telemetry) => ended,
        ended = relay(events.log) => ended,
        () = shutdown => Ok(()),
    }
    .map_err(|source| DataplaneError::Events { source })
}

async fn read(ring: RingBuf<MapData>, telemetry: Telemetry) -> io::Result<()> {
    let mut ring = watch(ring)?;
    loop {
        let mut ready = ring.readable_mut().await?;
        if drain(ready.get_inner_mut(), &telemetry) {
            ready.clear_ready();
        } else {
            tokio::task::yield_now().await;
        }
    }
}

async fn relay(log: Option<ProgramLog>) -> io::Result<()> {
    let Some(log) = log else { return std::future::pending().await };
    let mut log = watch(log)?;
    loop {
        let mut ready = log.readable_mut().await?;
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

fn watch<R: AsRawFd>(ring: R) -> io::Result<AsyncFd<R>> {
    // SAFETY: both kinds of ring own their map's descriptor, always name that one, and close it
    // when they are dropped, which is with the `AsyncFd`; nobody puts another ring in its place.
    unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(io::Error::from)
}

/// Reports at most [`TURN`] events; `true` if the ring is empty now.
fn drain(ring: &mut RingBuf<MapData>, telemetry: &Telemetry) -> bool {
    for _ in 0..TURN {
        let Some(record) = ring.next() else { return true };
        match bytemuck::try_pod_read_unaligned(&record).ok().as_ref().and_then(observation) {
            Some(observation) => telemetry.report(observation),
            None => tracing::debug!(bytes = record.len(), "an event of no known kind"),
        }
    }
    false
}

/// What an event tells of its backend; `None` for a kind that this daemon does not know.
fn observation(event: &FlowEvent) -> Option<Observation> {
    let after = Duration::from_nanos(event.elapsed_ns);
    let seen = match event.kind {
        event_kind::CONNECTED => Seen::Connected { after },
        event_kind::REFUSED => Seen::ConnectFailed { class: event.class },
        event_kind::RESPONDED => {
            let status = (event.status != 0).then_some(event.status);
            Seen::FirstResponse { after, class: event.class, status }
        }
        event_kind::CLOSED => {
            Seen::Closed { after, bytes_in: event.bytes_in, bytes_out: event.bytes_out }
        }
        event_kind::RESET_BY_CLIENT => Seen::ResetByClient { after },
        event_kind::RESET_BY_BACKEND => Seen::ResetByBackend { after, class: event.class },
        _ => return None,
    };
    let backend = BackendRow { row: event.backend, generation: event.generation };
    Some(Observation { at: KtimeNs(event.at_ns), backend, seen })
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn event(kind: u8) -> FlowEvent {
        FlowEvent {
            at_ns: 9,
            elapsed_ns: 1_500,
            bytes_in: 100,
            bytes_out: 200,
            backend: 3,
            generation: 2,
            kind,
            class: 1,
            status: 503,
            ..FlowEvent::zeroed()
        }
    }

    #[test]
    fn every_kind_of_event_becomes_its_observation() {
        let after = Duration::from_nanos(1_500);
        for (kind, seen) in [
            (event_kind::CONNECTED, Seen::Connected { after }),
            (event_kind::REFUSED, Seen::ConnectFailed { class: 1 }),
            (event_kind::RESPONDED, Seen::FirstResponse { after, class: 1, status: Some(503) }),
            (event_kind::CLOSED, Seen::Closed { after, bytes_in: 100, bytes_out: 200 }),
            (event_kind::RESET_BY_CLIENT, Seen::ResetByClient { after }),
            (event_kind::RESET_BY_BACKEND, Seen::ResetByBackend { after, class: 1 }),
        ] {
            let backend = BackendRow { row: 3, generation: 2 };
            let expected = Observation { at: KtimeNs(9), backend, seen };
            assert_eq!(observation(&event(kind)), Some(expected));
        }
    }

    #[test]
    fn an_event_of_an_unknown_kind_is_no_observation() {
        assert_eq!(observation(&event(0)), None);
        assert_eq!(observation(&event(200)), None);
    }
}
