//! The two guards of a request: [`Attempt`], one try at one backend, and [`Journey`], the request
//! as its client sees it. Whatever ends them, the client's going away included, each is counted
//! exactly once and the backend's count of requests in flight goes down again.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_core::classes::Profile;
use gateway_core::load::surplus_of;
use gateway_core::observation::{
    BackendRow, LoadReport, Observation, RequestClient, RequestOutcome, Seen,
};
use gateway_core::snapshot::Demand;
use http::{HeaderValue, Response, StatusCode};

use super::body::ResponseBody;
use super::metrics::{AbortedBy, StatusClass, TryOutcome};
use super::reply::Fault;
use super::view::{BackendSeries, VipView};
use super::worker::Worker;
use crate::clock;

/// What is thought of a request before a backend has seen it.
#[derive(Clone, Copy)]
pub(super) struct Thought {
    pub(super) demand: Demand,
    pub(super) profile: Profile,
    /// Who asks.
    pub(super) client: IpAddr,
    /// Length of its body, where it is announced.
    pub(super) body_bytes: u64,
    /// It asks a language model, by its pool's word.
    pub(super) is_llm: bool,
}

/// One try at a backend, in flight until it is finished or dropped.
pub(super) struct Attempt {
    worker: Rc<Worker>,
    series: Rc<BackendSeries>,
    backend: BackendRow,
    thought: Thought,
    /// Requests in flight at the backend when it began, itself included.
    among: u32,
    started: KtimeNs,
    first_byte_after: Option<Duration>,
    /// The response is streamed, and its first event is not there yet.
    awaits_token: bool,
    /// Nothing of an answer is there: no head, or of a streamed one no event.
    awaits_answer: bool,
    report: Option<LoadReport>,
    /// Bytes of the response's body so far.
    bytes_out: u64,
    finished: bool,
}

impl Attempt {
    pub(super) fn begin(
        worker: &Rc<Worker>,
        series: Rc<BackendSeries>,
        backend: BackendRow,
        thought: Thought,
    ) -> Attempt {
        worker.rows.begin(backend.row);
        worker.rows.shift_surplus(backend.row, surplus_of(thought.demand.cost));
        worker.rows.shift_awaiting(backend.row, 1);
        Attempt {
            worker: Rc::clone(worker),
            series,
            backend,
            thought,
            among: u32::try_from(worker.rows.in_flight(backend.row)).unwrap_or(u32::MAX).max(1),
            started: clock::now(),
            first_byte_after: None,
            awaits_token: false,
            awaits_answer: true,
            report: None,
            bytes_out: 0,
            finished: false,
        }
    }

    /// The response's head is there; `streams`: its body is a stream of events.
    pub(super) fn head_received(&mut self, report: Option<LoadReport>, streams: bool) {
        self.first_byte_after = Some(clock::now().since(self.started));
        self.awaits_token = streams && self.thought.is_llm;
        self.report = report;
        if !self.awaits_token {
            self.is_answered();
        }
    }

    /// It waits for its backend no more.
    fn is_answered(&mut self) {
        if std::mem::take(&mut self.awaits_answer) {
            self.worker.rows.shift_awaiting(self.backend.row, -1);
        }
    }

    /// Some of the response's body is there.
    pub(super) fn body_received(&mut self, data: &[u8]) {
        self.bytes_out += data.len() as u64;
        if self.awaits_token && has_event(data) {
            let after = clock::now().since(self.started);
            self.awaits_token = false;
            self.first_byte_after = Some(after);
            self.series.first_tokens().observe(after);
            self.is_answered();
        }
    }

    /// The backend that is tried.
    pub(super) fn series(&self) -> &Rc<BackendSeries> {
        &self.series
    }

    /// The thread that tries it.
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// No connection came about.
    pub(super) fn connect_failed(mut self) {
        let (now, class) = (clock::now(), self.thought.demand.class);
        self.end(now, TryOutcome::ConnectFailed, Seen::ConnectFailed { class });
    }

    /// It ended like this.
    pub(super) fn finish(mut self, outcome: RequestOutcome) {
        self.end_request(outcome);
    }

    /// The gateway gave it up with all that its backend was at. That is the gateway's doing, and no
    /// evidence against the backend.
    pub(super) fn reset(mut self) {
        self.end_counted(RequestOutcome::Abandoned, TryOutcome::Reset);
    }

    fn end_request(&mut self, outcome: RequestOutcome) {
        let counted = match outcome {
            RequestOutcome::Answered => TryOutcome::Answered,
            RequestOutcome::ServerError => TryOutcome::ServerError,
            RequestOutcome::Broken => TryOutcome::Broken,
            RequestOutcome::TimedOut => TryOutcome::TimedOut,
            RequestOutcome::Abandoned => TryOutcome::Abandoned,
        };
        self.end_counted(outcome, counted);
    }

    fn end_counted(&mut self, outcome: RequestOutcome, counted: TryOutcome) {
        let now = clock::now();
        let after = now.since(self.started);
        let seen = Seen::Request {
            outcome,
            first_byte_after: self.first_byte_after.unwrap_or(after),
            after,
            class: self.thought.demand.class,
            profile: self.thought.profile,
            among: self.among,
            report: self.report,
            client: Some(RequestClient {
                addr: self.thought.client,
                bytes_in: self.thought.body_bytes,
                bytes_out: self.bytes_out,
            }),
        };
        self.end(now, counted, seen);
    }

    fn end(&mut self, at: KtimeNs, counted: TryOutcome, seen: Seen) {
        self.finished = true;
        self.is_answered();
        let row = self.backend.row;
        self.worker.rows.end(row);
        self.worker.rows.shift_surplus(row, -surplus_of(self.thought.demand.cost));
        self.series.tried(counted);
        self.worker.telemetry.report(Observation { at, backend: self.backend, seen });
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Nobody finished it, so the client is no longer there to be answered.
        if !self.finished {
            self.end_request(RequestOutcome::Abandoned);
        }
    }
}

/// Whether there is data in a piece of a stream of events, rather than comments that keep the
/// connection open (HTML standard, "Server-sent events"). Anthropic's events of the kind `ping` have
/// data, too, which says nothing.
fn has_event(stream: &[u8]) -> bool {
    const PING: &[u8] = b"\"ping\"";
    let mut lines = stream.split(|byte| *byte == b'\n' || *byte == b'\r');
    lines.any(|line| line.starts_with(b"data:") && !line.windows(PING.len()).any(|w| w == PING))
}

/// A client's request, from its head to the last byte of its response.
pub(super) struct Journey {
    worker: Rc<Worker>,
    vip: Rc<VipView>,
    started: KtimeNs,
    finished: bool,
}

impl Journey {
    pub(super) fn begin(worker: &Rc<Worker>, vip: &Rc<VipView>) -> Journey {
        Journey {
            worker: Rc::clone(worker),
            vip: Rc::clone(vip),
            started: clock::now(),
            finished: false,
        }
    }

    /// The head of a backend's response goes to the client.
    pub(super) fn answered(&self, series: &BackendSeries, status: StatusCode) {
        series.answered(StatusClass::of(status));
    }

    /// The last byte of a backend's response went to the client.
    pub(super) fn complete(mut self, series: &BackendSeries) {
        self.finished = true;
        series.durations().observe(clock::now().since(self.started));
    }

    /// The gateway answers itself.
    pub(super) fn fail(mut self, fault: Fault, request_id: &HeaderValue) -> Response<ResponseBody> {
        self.finished = true;
        let unserved = &self.vip.unserved;
        unserved.answered(StatusClass::of(fault.status()));
        unserved.durations().observe(clock::now().since(self.started));
        self.worker.metrics.errors(&self.vip.name, fault.error_type()).inc();
        fault.reply(request_id)
    }

    /// The response breaks off.
    pub(super) fn abort(mut self, by: AbortedBy) {
        self.count_abort(by);
    }

    fn count_abort(&mut self, by: AbortedBy) {
        self.finished = true;
        self.worker.metrics.aborts(&self.vip.name, by).inc();
    }
}

impl Drop for Journey {
    fn drop(&mut self) {
        if !self.finished {
            self.count_abort(AbortedBy::Client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_with_data_and_not_with_what_keeps_a_connection_open() {
        assert!(has_event(b"event: message_start\ndata: {\"type\": \"message_start\"}\n\n"));
        assert!(has_event(b": wait\r\ndata:x\r\n"));
        assert!(!has_event(b": keep-alive\n\n"));
        assert!(!has_event(b"event: ping\ndata: {\"type\": \"ping\"}\n\n"));
        assert!(!has_event(b"event: message_start\n"));
    }
}
