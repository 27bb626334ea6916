//! A request's journey: checked, sent to the least loaded backend by XDP's weights, to another one if
//! the first cannot be blamed on the request, and its response passed on as it comes.
//!
//! What is tried again, once:
//! - what never left the gateway (the connection failed, or a reused one turned out closed), with
//!   any method;
//! - an idempotent request without a body whose backend closed, reset or garbled the connection
//!   before a response, or answered 502 or 503, or was found faulty so that its connections were closed
//!   under it (`[pool.recovery]`).
//!
//! A response timeout and a 504 are not tried again: such a request has had its time, is likely to
//! be slow everywhere, and twice the work is what an overloaded pool needs least.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use gateway_core::affinity::{Affinity, Key};
use gateway_core::observation::{LoadReport, RequestOutcome};
use gateway_core::snapshot::BackendSnapshot;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};

use super::attempt::{Attempt, Journey, Thought};
use super::body::{Exchange, Relayed, ResponseBody, outcome_of};
use super::exchange::{Outgoing, exchange};
use super::facts;
use super::head::{self, Client};
use super::metrics::{CheckoutSource, ReportResult, RetryReason};
use super::note::Note;
use super::orca;
use super::peek::ClientBody;
use super::prompt::BodyFacts;
use super::reply::Fault;
use super::upstream::{self, Conn, ConnectError};
use super::view::{BackendSeries, View, VipView};
use super::worker::Worker;

/// Answers one request that came in on the VIP at `vip_addr`.
pub(super) async fn serve(
    worker: Rc<Worker>,
    vip_addr: SocketAddr,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (mut head, body) = request.into_parts();
    let request_id = head::request_id(&head.headers, &worker.random_bytes());
    let view = worker.view();
    let Some(vip) = view.vip(vip_addr) else {
        return Ok(Fault::NoVip.reply(&request_id));
    };
    let journey = Journey::begin(&worker, vip);
    if let Err(refusal) = head::check_request(&head) {
        return Ok(journey.fail(Fault::Refused(refusal), &request_id));
    }
    if let Err(fault) = admit(&worker, &view, vip, &head) {
        return Ok(journey.fail(fault, &request_id));
    }
    let mut body = ClientBody::new(body);
    let is_llm = facts::is_asked(&head, &vip.http.llm);
    let said = match is_llm {
        true => facts::look(&head, &mut body, vip).await,
        false => BodyFacts::default(),
    };
    let facts = facts::of(&head, &said, vip.http.tenant_header.as_deref());
    let key = facts::key(&head, &said, &vip.http.affinity);
    let thought = Thought { is_llm, ..worker.think(&view, vip.pool, client.ip, &facts) };
    head::to_backend(&mut head, &client, &request_id);
    let mut outgoing = Outgoing::new(head, body);
    let note = Note::begin(&worker, vip, thought.demand, &request_id);
    let route =
        Route { worker: &worker, view: &view, vip, thought, key: &key, note: note.as_ref() };
    let response = match route.answer(&mut outgoing).await {
        Ok(answer) => answer.pass_on(journey, vip, &request_id),
        Err(fault) => journey.fail(fault, &request_id),
    };
    if let Some(note) = note {
        note.answered(response.status().as_u16());
    }
    Ok(response)
}

/// Whether a request comes in, or others matter more and it is too much.
fn admit(worker: &Worker, view: &View, vip: &VipView, head: &Parts) -> Result<(), Fault> {
    let Some(admission) = &vip.admission else { return Ok(()) };
    let named = admission.header.as_deref().and_then(|name| head.headers.get(name)?.to_str().ok());
    worker.admit(view, vip.pool, head.uri.path(), named).map_err(|(priority, refused)| {
        worker.metrics.refused(&vip.name, &vip.pool_name, priority, refused.cause).inc();
        Fault::TooMuch { with: admission.refused_with, retry_after: refused.retry_after.as_secs() }
    })
}

/// Where a request goes.
struct Route<'a> {
    worker: &'a Rc<Worker>,
    view: &'a View,
    vip: &'a VipView,
    thought: Thought,
    /// What its affinity goes by.
    key: Key<'a>,
    /// Where it is noted, if it is.
    note: Option<&'a Note>,
}

impl Route<'_> {
    /// The response of the first backend, or of another one if that failed.
    async fn answer(&self, outgoing: &mut Outgoing) -> Result<Answer, Fault> {
        let (pool, demand) = (self.vip.pool, self.thought.demand);
        let picked = self.worker.pick(self.view, pool, demand, self.key);
        let (mut backend, mut affinity) = picked.ok_or(Fault::NoBackend)?;
        self.vip.placed(affinity);
        let mut retries_left = self.vip.http.retries;
        loop {
            if let Some(note) = self.note {
                note.chose(self.view, pool, &backend, affinity);
            }
            let ended = self.try_backend(outgoing, &backend).await;
            let reason = retry_reason(&ended, outgoing).filter(|_| retries_left > 0);
            // Without another backend the first one's answer is better than none.
            let Some((reason, other)) = reason.and_then(|reason| {
                let tried = backend.row;
                let other = self.worker.pick_other(self.view, pool, demand, self.key, tried)?;
                Some((reason, other))
            }) else {
                return ended;
            };
            if let Ok(answer) = ended {
                answer.give_up();
            }
            self.count_retry(reason, &backend, &other);
            (backend, affinity) = (other, Affinity::None);
            retries_left -= 1;
        }
    }

    fn count_retry(&self, reason: RetryReason, first: &BackendSnapshot, second: &BackendSnapshot) {
        let (vip, pool) = (&self.vip.name, &self.vip.pool_name);
        self.worker.metrics.retries(vip, pool, reason).inc();
        let (first, second, reason) = (first.addr, second.addr, reason.as_str());
        tracing::trace!(vip = &**vip, %first, %second, reason, "request tried again");
    }

    /// One try at one backend, over a connection that may turn out to be closed already.
    async fn try_backend(
        &self,
        outgoing: &mut Outgoing,
        backend: &BackendSnapshot,
    ) -> Result<Answer, Fault> {
        // A pick is of the pool that the view was made from, so it is there.
        let series = self.view.series(self.vip, backend.row).ok_or(Fault::NoBackend)?;
        let attempt = Attempt::begin(self.worker, Rc::clone(&series), backend.row, self.thought);
        let (attempt, mut conn) = match self.worker.pool.take(backend.row, &series) {
            Some(conn) => (attempt, conn),
            None => self.connect(attempt, backend, CheckoutSource::New).await?,
        };
        match exchange(&mut conn, outgoing, self.vip).await {
            Ok(response) => self.receive(attempt, conn, response),
            Err(lost) if conn.reused && lost.raced(outgoing) => {
                // The backend closed the connection for having been idle just as the request was
                // on its way: that is how keep-alive ends, and no failure of the backend.
                let source = CheckoutSource::Replayed;
                let (attempt, mut conn) = self.connect(attempt, backend, source).await?;
                match exchange(&mut conn, outgoing, self.vip).await {
                    Ok(response) => self.receive(attempt, conn, response),
                    Err(lost) => Err(lost.finish(attempt)),
                }
            }
            Err(lost) => Err(lost.finish(attempt)),
        }
    }

    async fn connect(
        &self,
        attempt: Attempt,
        backend: &BackendSnapshot,
        source: CheckoutSource,
    ) -> Result<(Attempt, Conn), Fault> {
        let series = Rc::clone(attempt.series());
        let connected =
            upstream::connect(self.worker, self.vip, &series, backend.row, backend.addr).await;
        match connected {
            Ok(conn) => {
                series.checked_out(source);
                Ok((attempt, conn))
            }
            Err(error) => {
                let fault = error.fault();
                log_connect_error(self.vip, &series, &error);
                match fault {
                    // Our own lack says nothing of the backend.
                    Fault::NoResources => attempt.finish(RequestOutcome::Abandoned),
                    Fault::BackendReset => attempt.reset(),
                    _ => attempt.connect_failed(),
                }
                Err(fault)
            }
        }
    }

    /// Takes the backend's response head apart.
    fn receive(
        &self,
        mut attempt: Attempt,
        conn: Conn,
        mut response: Response<Incoming>,
    ) -> Result<Answer, Fault> {
        let report = self.take_report(response.headers_mut(), attempt.series());
        let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let streams = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
        attempt.head_received(report, streams);
        // We asked for no upgrade, and cannot undo another coding than `chunked`.
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switching || !head::only_chunked(response.headers()) {
            attempt.finish(RequestOutcome::Broken);
            return Err(Fault::ProtocolError);
        }
        Ok(Answer { response, attempt, conn })
    }

    /// The backend's word on its load, which is not for the client.
    fn take_report(&self, headers: &mut HeaderMap, series: &BackendSeries) -> Option<LoadReport> {
        headers.remove(orca::HEADER_BINARY);
        let value = headers.remove(orca::HEADER)?;
        let parsed = orca::parse(value.as_bytes());
        let result = if parsed.is_ok() { ReportResult::Read } else { ReportResult::Malformed };
        self.worker.metrics.load_reports(series.labels(), result).inc();
        parsed
            .inspect_err(|error| {
                tracing::debug!(backend = series.name(), reason = %error, "load report ignored");
            })
            .ok()
    }
}

fn log_connect_error(vip: &VipView, series: &BackendSeries, error: &ConnectError) {
    let (vip, backend) = (&*vip.name, series.name());
    match error {
        ConnectError::TimedOut => tracing::debug!(vip, backend, "connect timed out"),
        ConnectError::Reset => tracing::debug!(vip, backend, "connection reset before it stood"),
        ConnectError::Failed(error) => tracing::debug!(vip, backend, %error, "connect failed"),
    }
}

/// Why, if at all, this try's end is no end of the request.
fn retry_reason(ended: &Result<Answer, Fault>, outgoing: &Outgoing) -> Option<RetryReason> {
    let (reason, may_retry) = match ended {
        Err(Fault::ConnectionRefused | Fault::Unroutable) => {
            (RetryReason::ConnectFailed, outgoing.is_whole())
        }
        Err(Fault::ConnectionTimeout) => (RetryReason::ConnectTimeout, outgoing.is_whole()),
        Err(Fault::ConnectionTerminated | Fault::ProtocolError) => {
            (RetryReason::BrokenBeforeResponse, outgoing.replayable)
        }
        Err(Fault::BackendReset) => (RetryReason::Reset, outgoing.replayable),
        Err(_) => return None,
        Ok(answer) => match answer.response.status() {
            StatusCode::BAD_GATEWAY => (RetryReason::BadGateway, outgoing.replayable),
            StatusCode::SERVICE_UNAVAILABLE => {
                (RetryReason::ServiceUnavailable, outgoing.replayable)
            }
            _ => return None,
        },
    };
    may_retry.then_some(reason)
}

/// A backend's response, with what must be finished when its body ends.
struct Answer {
    response: Response<Incoming>,
    attempt: Attempt,
    conn: Conn,
}

impl Answer {
    /// Passes it on to the client.
    fn pass_on(
        self,
        journey: Journey,
        vip: &VipView,
        request_id: &HeaderValue,
    ) -> Response<ResponseBody> {
        let Answer { response, attempt, conn } = self;
        let (mut head, body) = response.into_parts();
        head::to_client(&mut head.headers, request_id);
        head.version = Version::HTTP_11;
        journey.answered(attempt.series(), head.status);
        let exchange = Exchange { attempt, journey, conn, status: head.status };
        let bytes = vip.response_bytes.clone();
        let body = Relayed::new(body, bytes, vip.http.idle_timeout, exchange);
        Response::from_parts(head, ResponseBody::Relayed(body))
    }

    /// Another backend is asked instead. The failure counts for this one all the same.
    fn give_up(self) {
        if self.response.body().is_end_stream() {
            self.conn.release(self.attempt.worker());
        }
        self.attempt.finish(outcome_of(self.response.status()));
    }
}
