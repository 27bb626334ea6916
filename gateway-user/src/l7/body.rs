//! Bodies on their way through, frame by frame: nothing is gathered, and a side that reads slowly
//! slows the other down. The wrappers count bytes, notice the end, and give up on one that stalls.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use gateway_core::observation::RequestOutcome;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;

use super::attempt::{Attempt, Journey};
use super::metrics::AbortedBy;
use super::peek::ClientBody;
use super::stall::Stall;
use super::upstream::Conn;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// Its sender sent nothing for the idle timeout.
    #[error("no byte of the body arrived within the idle timeout")]
    Stalled,
    /// Its sender is a backend that was found faulty.
    #[error("the connection to a faulty backend was closed")]
    Reset,
    /// Its sender went away, or sent what is not HTTP.
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
}

/// How far a request's body has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Upload {
    /// Still being sent.
    Sending,
    /// Handed over completely.
    Sent(Instant),
    /// The client stopped sending it.
    Stalled,
    /// The client went away or sent garbage.
    Broken,
}

/// The body of a request to a backend.
pub(super) enum RequestBody {
    /// There is none, so the request can be sent again.
    Empty,
    /// The client's.
    Streamed(Streamed),
}

/// A request body that comes from the client as the backend takes it.
pub(super) struct Streamed {
    client: ClientBody,
    upload: Rc<Cell<Upload>>,
    bytes: Counter,
    stall: Stall,
}

impl Streamed {
    pub(super) fn new(
        client: ClientBody,
        upload: Rc<Cell<Upload>>,
        bytes: Counter,
        idle_timeout: Duration,
    ) -> Streamed {
        Streamed { client, upload, bytes, stall: Stall::new(idle_timeout) }
    }

    /// Takes the client's body out again, for a request that was never sent.
    pub(super) fn into_client(self) -> ClientBody {
        self.client
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.client).poll_frame(cx) else {
            ready!(self.stall.poll_stalled(cx));
            self.upload.set(Upload::Stalled);
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        self.stall.moved();
        match frame {
            Some(Ok(frame)) => {
                self.bytes.inc_by(data_len(&frame));
                if is_last(&frame, &self.client) {
                    self.upload.set(Upload::Sent(Instant::now()));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                self.upload.set(Upload::Broken);
                Poll::Ready(Some(Err(BodyError::Broken(error))))
            }
            None => {
                self.upload.set(Upload::Sent(Instant::now()));
                Poll::Ready(None)
            }
        }
    }
}

fn data_len(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

/// Whether hyper asks for no other frame: after trailers, and when it knows that all has come.
fn is_last(frame: &Frame<Bytes>, body: &impl Body) -> bool {
    frame.is_trailers() || body.is_end_stream()
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Streamed(body) => body.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Streamed(body) => body.client.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Streamed(body) => body.client.size_hint(),
        }
    }
}

/// The body of a response to a client.
#[expect(clippy::large_enum_variant, reason = "nearly all are relayed, and hyper boxes its body")]
pub(super) enum ResponseBody {
    /// Made by the gateway.
    Made(Full<Bytes>),
    /// A backend's.
    Relayed(Relayed),
}

/// A backend's response body. It holds the guards of its request, and the connection that goes
/// back to the pool when the body has ended.
pub(super) struct Relayed {
    backend: Incoming,
    bytes: Counter,
    stall: Stall,
    open: Option<Exchange>,
}

/// What a response's body finishes when it ends.
pub(super) struct Exchange {
    /// Of this try.
    pub(super) attempt: Attempt,
    /// Of this request.
    pub(super) journey: Journey,
    /// Over this connection.
    pub(super) conn: Conn,
    /// With this status.
    pub(super) status: StatusCode,
}

impl Exchange {
    fn complete(self) {
        let Exchange { attempt, journey, conn, status } = self;
        journey.complete(attempt.series());
        conn.release(attempt.worker());
        attempt.finish(outcome_of(status));
    }

    /// Breaks off; dropping the connection closes it.
    fn abort(self, by: AbortedBy) {
        self.journey.abort(by);
        match by {
            AbortedBy::Client => self.attempt.finish(RequestOutcome::Abandoned),
            AbortedBy::Backend => self.attempt.finish(RequestOutcome::Broken),
            AbortedBy::IdleTimeout => self.attempt.finish(RequestOutcome::TimedOut),
            AbortedBy::Reset => self.attempt.reset(),
        }
    }
}

/// What a complete response says of the backend.
pub(super) fn outcome_of(status: StatusCode) -> RequestOutcome {
    if status.is_server_error() { RequestOutcome::ServerError } else { RequestOutcome::Answered }
}

impl Relayed {
    pub(super) fn new(
        backend: Incoming,
        bytes: Counter,
        idle_timeout: Duration,
        exchange: Exchange,
    ) -> Relayed {
        let stall = Stall::new(idle_timeout);
        let mut relayed = Relayed { backend, bytes, stall, open: Some(exchange) };
        // hyper does not ask for a frame when it knows that there is none.
        if relayed.backend.is_end_stream() {
            relayed.complete();
        }
        relayed
    }

    fn complete(&mut self) {
        if let Some(exchange) = self.open.take() {
            exchange.complete();
        }
    }

    fn abort(&mut self, by: AbortedBy) {
        if let Some(exchange) = self.open.take() {
            exchange.abort(by);
        }
    }

    /// Whether the connection was closed under it: hyper may show that as an end like any other.
    fn was_reset(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.conn.was_reset())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.backend).poll_frame(cx) else {
            ready!(self.stall.poll_stalled(cx));
            self.abort(AbortedBy::IdleTimeout);
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        };
        self.stall.moved();
        match frame {
            Some(Ok(frame)) => {
                self.bytes.inc_by(data_len(&frame));
                if let (Some(data), Some(open)) = (frame.data_ref(), &mut self.open) {
                    open.attempt.body_received(data);
                }
                if is_last(&frame, &self.backend) {
                    self.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            None | Some(Err(_)) if self.was_reset() => {
                self.abort(AbortedBy::Reset);
                Poll::Ready(Some(Err(BodyError::Reset)))
            }
            Some(Err(error)) => {
                self.abort(AbortedBy::Backend);
                Poll::Ready(Some(Err(BodyError::Broken(error))))
            }
            None => {
                self.complete();
                Poll::Ready(None)
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            ResponseBody::Made(body) => {
                Pin::new(body).poll_frame(cx).map_err(|never| match never {})
            }
            ResponseBody::Relayed(body) => body.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Made(body) => body.is_end_stream(),
            ResponseBody::Relayed(body) => body.backend.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Made(body) => body.size_hint(),
            ResponseBody::Relayed(body) => body.backend.size_hint(),
        }
    }
}
