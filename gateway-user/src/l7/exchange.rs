//! One request over one connection: sent, and its response's head awaited or its loss explained.

use std::cell::Cell;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use gateway_core::observation::RequestOutcome;
use http::{Request, Response, request};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::attempt::Attempt;
use super::body::{RequestBody, Streamed, Upload};
use super::head;
use super::peek::ClientBody;
use super::reply::Fault;
use super::upstream::Conn;
use super::view::VipView;

/// A client's request, kept until it is clear that it need not be sent again.
pub(super) struct Outgoing {
    head: request::Parts,
    /// Gone once a backend may have had some of it.
    body: Option<ClientBody>,
    /// Without a body that would be gone after the first time.
    bodiless: bool,
    /// Whether it may be sent again although a backend may have seen it.
    pub(super) replayable: bool,
}

impl Outgoing {
    pub(super) fn new(head: request::Parts, body: ClientBody) -> Outgoing {
        let bodiless = body.is_end_stream();
        let replayable = bodiless && head::is_idempotent(&head.method);
        Outgoing { head, body: Some(body), bodiless, replayable }
    }

    /// The request to send, and how its body fares if it has one.
    fn request(&mut self, vip: &VipView) -> (Request<RequestBody>, Option<Rc<Cell<Upload>>>) {
        let (body, upload) = match self.body.take_if(|_| !self.bodiless) {
            None => (RequestBody::Empty, None),
            Some(client) => {
                let upload = Rc::new(Cell::new(Upload::Sending));
                let bytes = vip.request_bytes.clone();
                let body = Streamed::new(client, Rc::clone(&upload), bytes, vip.http.idle_timeout);
                (RequestBody::Streamed(body), Some(upload))
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.headers_mut() = self.head.headers.clone();
        (request, upload)
    }

    /// Whether nothing of it was sent, so that it may be sent elsewhere whatever it asks.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_some()
    }

    /// Takes back what hyper never sent.
    fn take_back(&mut self, request: Request<RequestBody>) {
        if let RequestBody::Streamed(body) = request.into_body() {
            self.body = Some(body.into_client());
        }
    }
}

/// Sends the request over a connection and waits for the response's head.
pub(super) async fn exchange(
    conn: &mut Conn,
    outgoing: &mut Outgoing,
    vip: &VipView,
) -> Result<Response<Incoming>, Lost> {
    let (request, upload) = outgoing.request(vip);
    let read_before = conn.bytes_read.get();
    let wait = vip.http.response_timeout;
    let mut error = match wait_for_head(conn, request, upload.as_deref(), wait).await {
        Some(Ok(response)) => return Ok(response),
        Some(Err(error)) => error,
        None => return Err(Lost::of(Fault::ResponseTimeout)),
    };
    let unsent = error.take_message().map(|request| outgoing.take_back(request)).is_some();
    if conn.was_reset() {
        return Err(Lost::of(Fault::BackendReset));
    }
    let fault = fault_of(&error.into_error(), upload.map(|upload| upload.get()));
    let silent = conn.bytes_read.get() == read_before;
    Err(Lost { fault, unsent, silent })
}

/// Sends a request and waits for the head of its response; `None` if none came in time. The time
/// runs from the request's last byte, since a client may take long to send its body.
async fn wait_for_head(
    conn: &mut Conn,
    request: Request<RequestBody>,
    upload: Option<&Cell<Upload>>,
    wait: Duration,
) -> Option<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> {
    let mut response = pin!(conn.sender.try_send_request(request));
    let mut due = Instant::now() + wait;
    loop {
        if let Ok(response) = timeout_at(due, &mut response).await {
            return Some(response);
        }
        let now = Instant::now();
        due = match upload.map(Cell::get) {
            None => return None,
            Some(Upload::Sent(at)) if at + wait <= now => return None,
            Some(Upload::Sent(at)) => at + wait,
            // While the body is on its way, its own idle timeout watches; when it has broken off,
            // hyper is about to say so.
            Some(Upload::Sending | Upload::Stalled | Upload::Broken) => now + wait,
        };
    }
}

/// A request that got no response.
pub(super) struct Lost {
    fault: Fault,
    /// No byte of the request was sent.
    unsent: bool,
    /// No byte came back.
    silent: bool,
}

impl Lost {
    fn of(fault: Fault) -> Lost {
        Lost { fault, unsent: false, silent: false }
    }

    /// Whether this looks like a connection that the backend closed while it was idle, and the
    /// request may be sent again.
    pub(super) fn raced(&self, outgoing: &Outgoing) -> bool {
        let closed = self.silent && self.fault == Fault::ConnectionTerminated;
        self.unsent || (closed && outgoing.replayable)
    }

    pub(super) fn finish(self, attempt: Attempt) -> Fault {
        match self.fault {
            Fault::BackendReset => attempt.reset(),
            Fault::ResponseTimeout | Fault::WriteTimeout => {
                attempt.finish(RequestOutcome::TimedOut)
            }
            Fault::ClientTimeout | Fault::ClientBody => attempt.finish(RequestOutcome::Abandoned),
            _ => attempt.finish(RequestOutcome::Broken),
        }
        self.fault
    }
}

/// Whose fault it is that no response came.
fn fault_of(error: &hyper::Error, upload: Option<Upload>) -> Fault {
    match upload {
        Some(Upload::Stalled) => Fault::ClientTimeout,
        Some(Upload::Broken) => Fault::ClientBody,
        _ if error.is_parse() => Fault::ProtocolError,
        _ if is_timeout(error) => Fault::WriteTimeout,
        _ => Fault::ConnectionTerminated,
    }
}

/// Whether [`Watched`](super::stall::Watched) gave up on a peer that takes no bytes.
fn is_timeout(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(cause) = source {
        if cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            return true;
        }
        source = cause.source();
    }
    false
}
