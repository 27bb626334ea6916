//! What was seen of a backend, whoever saw it: the one input of the loop.

use std::net::IpAddr;
use std::time::Duration;

use gateway_common::clock::KtimeNs;

use crate::classes::Profile;
use crate::fleet::Layer;

/// A backend's row in the data plane's tables, and the generation that tells a reused row apart.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct BackendRow {
    /// Row in `BACKENDS`, `WEIGHTS` and `LIVE`.
    pub row: u32,
    /// Generation; an observation of an older one is dropped.
    pub generation: u32,
}

/// One thing seen, with its time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// When, on the kernel's clock.
    pub at: KtimeNs,
    /// Of which backend.
    pub backend: BackendRow,
    /// What.
    pub seen: Seen,
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// L4: a SYN was answered.
    Connected {
        /// From SYN to SYN-ACK.
        after: Duration,
    },
    /// A connection was refused, timed out or found no route.
    ConnectFailed {
        /// Class that it was drawn for.
        class: u8,
    },
    /// L4: the head of an HTTP/1 response to a request that was seen to begin; of anything else, the
    /// first payload of the backend after the first of the client.
    FirstResponse {
        /// From request to response, or from payload to payload.
        after: Duration,
        /// Class of the flow.
        class: u8,
        /// The response's status; `None` if it is no HTTP/1 in plain text.
        status: Option<u16>,
    },
    /// L4: both sides closed.
    Closed {
        /// From SYN to the second FIN.
        after: Duration,
        /// IP bytes to the backend.
        bytes_in: u64,
        /// IP bytes from the backend.
        bytes_out: u64,
    },
    /// L4: an established flow was reset by the backend.
    ResetByBackend {
        /// From SYN to RST.
        after: Duration,
        /// Class of the flow.
        class: u8,
    },
    /// L4: the client reset it. No fault of the backend by itself.
    ResetByClient {
        /// From SYN to RST.
        after: Duration,
    },
    /// L7: one try of a request ended.
    Request {
        /// How.
        outcome: RequestOutcome,
        /// From the request's start at the proxy to the response's head; of an answer that a language
        /// model streams, to its first event, since its head may come long before any token.
        first_byte_after: Duration,
        /// To the last byte of the response.
        after: Duration,
        /// Class whose weights it was drawn by: the request's own, or the control group's.
        class: u8,
        /// What it is known by.
        profile: Profile,
        /// Requests that the backend had in flight when it began, itself included.
        among: u32,
        /// What the backend reported of itself (ORCA), if it did.
        report: Option<LoadReport>,
        /// Who asked; `None`: nobody says.
        client: Option<RequestClient>,
    },
    /// L4: what some of one client's connections came to. It says nothing of the backend.
    Client(ClientWork),
    /// An active probe ended.
    Probe {
        /// Whether it succeeded.
        healthy: bool,
        /// How long it took.
        after: Duration,
    },
}

/// Who asked a request of the proxy, and how much went either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestClient {
    /// Its address.
    pub addr: IpAddr,
    /// Length of the request's body, where it was announced.
    pub bytes_in: u64,
    /// Bytes of the response's body so far.
    pub bytes_out: u64,
}

/// What a client had done by a backend: at the proxy one request, in the packet path the connections
/// that ended since the last walk through the flow table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientWork {
    /// Who.
    pub addr: IpAddr,
    /// Which path saw it.
    pub layer: Layer,
    /// Requests or connections.
    pub count: u32,
    /// Of these, how many failed or were cut off.
    pub failed: u32,
    /// What they took, all together.
    pub took: Duration,
    /// Mean of the logarithm of what each took, s.
    pub log_took: f64,
    /// How much is believed of that as what they cost, `0..=1`: among many a request has waited for
    /// others.
    pub trust: f64,
    /// Bytes that they sent.
    pub bytes_in: u64,
    /// Bytes that they were sent.
    pub bytes_out: u64,
}

impl Seen {
    /// What a client had done by the backend, if this says so. One that went away had nothing.
    pub fn client_work(&self) -> Option<ClientWork> {
        let (outcome, after, among, client) = match *self {
            Seen::Client(work) => return Some(work),
            Seen::Request { outcome, after, among, client: Some(client), .. } => {
                (outcome, after, among, client)
            }
            _ => return None,
        };
        let failed = match outcome {
            RequestOutcome::Answered => 0,
            RequestOutcome::ServerError | RequestOutcome::Broken | RequestOutcome::TimedOut => 1,
            RequestOutcome::Abandoned => return None,
        };
        let RequestClient { addr, bytes_in, bytes_out } = client;
        Some(ClientWork {
            addr,
            layer: Layer::L7,
            count: 1,
            failed,
            took: after,
            log_took: after.as_secs_f64().max(1e-6).ln(),
            trust: 1.0 / f64::from(among.max(1)),
            bytes_in,
            bytes_out,
        })
    }
}

impl ClientWork {
    /// With more of the same client's by the same backend.
    pub fn add(&mut self, more: &ClientWork) {
        let (own, other) = (f64::from(self.count), f64::from(more.count));
        let mean = |a: f64, b: f64| (own * a + other * b) / (own + other).max(1.0);
        self.log_took = mean(self.log_took, more.log_took);
        self.trust = mean(self.trust, more.trust);
        self.count = self.count.saturating_add(more.count);
        self.failed = self.failed.saturating_add(more.failed);
        self.took = self.took.saturating_add(more.took);
        self.bytes_in = self.bytes_in.saturating_add(more.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(more.bytes_out);
    }
}

/// Whether a status says that the backend failed: 500 and above (RFC 9110, section 15: what is above
/// 599 is to be treated as 5xx).
pub fn is_server_error(status: Option<u16>) -> bool {
    status.is_some_and(|status| status >= 500)
}

/// How one try of an L7 request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// A response with status under 500.
    Answered,
    /// A response with status 500 to 599.
    ServerError,
    /// Reset, closed or unintelligible before the response was complete.
    Broken,
    /// No response within the timeout.
    TimedOut,
    /// The client went away; says nothing of the backend.
    Abandoned,
}

/// A backend's word on its own load: ORCA's `endpoint-load-metrics`
/// (xDS `xds/data/orca/v3/orca_load_report.proto`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// `application_utilization` if given, else `cpu_utilization`; 1 is full, more is overload.
    pub utilization: f64,
    /// Requests a second by the backend's own count.
    pub requests_per_second: Option<f64>,
    /// Errors a second by the backend's own count.
    pub errors_per_second: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(outcome: RequestOutcome, among: u32) -> Option<ClientWork> {
        let after = Duration::from_secs(1);
        let addr = IpAddr::from([192, 0, 2, 1]);
        let seen = Seen::Request {
            outcome,
            first_byte_after: after,
            after,
            class: 0,
            profile: Profile::default(),
            among,
            report: None,
            client: Some(RequestClient { addr, bytes_in: 10, bytes_out: 100 }),
        };
        seen.client_work()
    }

    #[test]
    fn a_request_tells_of_its_client_unless_that_went_away() {
        let work = request(RequestOutcome::Answered, 4).unwrap();
        assert_eq!((work.layer, work.count, work.failed), (Layer::L7, 1, 0));
        assert_eq!((work.bytes_in, work.bytes_out), (10, 100));
        assert_eq!((work.trust, work.log_took), (0.25, 0.0));
        assert_eq!(request(RequestOutcome::TimedOut, 1).map(|work| work.failed), Some(1));
        assert_eq!(request(RequestOutcome::Abandoned, 1), None);
        assert!(request(RequestOutcome::Answered, 0).unwrap().trust.is_finite());
    }
}
