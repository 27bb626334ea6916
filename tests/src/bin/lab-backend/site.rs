//! What a server answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gateway_tests::fault::Fault;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::model::Model;
use crate::work::Work;

/// Pieces that a stream sends a second.
const STREAM_PIECES_PER_SECOND: u64 = 20;

/// Largest cost of a request: some tens of seconds at a worker.
const COST_MAX: f64 = 1_000.0;

/// Any body of an answer.
pub(crate) type AnyBody = BoxBody<Bytes, hyper::Error>;

/// One server's content and its workers.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) body: Bytes,
    pub(crate) orca: bool,
    pub(crate) fault: watch::Receiver<Fault>,
    pub(crate) work: Work,
    pub(crate) model: Arc<Model>,
}

impl Site {
    /// The answer to one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<AnyBody> {
        let mut response = match request.uri().path() {
            "/healthz" => Response::new(whole(Bytes::from_static(b"ok\n"))),
            "/stream" => stream(request.uri().query().unwrap_or_default()),
            "/echo" => Response::new(request.into_body().boxed()),
            "/v1/chat/completions" => {
                let fault = *self.fault.borrow();
                let slower = if let Fault::Slow { factor } = fault { factor } else { 1.0 };
                Arc::clone(&self.model).answer(request, slower).await
            }
            _ => match cost(request.uri().query().unwrap_or_default()) {
                Some(cost) => self.work(cost).await,
                None => status(StatusCode::BAD_REQUEST, "?cost=C: from 0 to 1000\n"),
            },
        };
        self.sign(&mut response);
        response
    }

    /// Whether a request's connection shall be reset instead of an answer.
    pub(crate) fn severs(&self, request: &Request<Incoming>) -> bool {
        let Fault::Sever { share } = *self.fault.borrow() else { return false };
        request.uri().path() != "/healthz" && self.work.chance(share)
    }

    /// An answer that takes a worker's time, `cost` times as much as others.
    async fn work(&self, cost: f64) -> Response<AnyBody> {
        let fault = *self.fault.borrow();
        if let Fault::Grey { share } = fault
            && self.work.chance(share)
        {
            return status(StatusCode::SERVICE_UNAVAILABLE, "out of order\n");
        }
        self.work.serve(fault, cost).await;
        if let Fault::Delay { ms, sigma } = fault {
            tokio::time::sleep(self.work.delay(ms, sigma)).await;
        }
        Response::new(whole(self.body.clone()))
    }

    fn sign(&self, response: &mut Response<AnyBody>) {
        let headers = response.headers_mut();
        // A name that is no header value is simply not told.
        if let Ok(name) = HeaderValue::from_str(&self.name) {
            headers.insert("x-backend", name);
        }
        let report = format!(
            "TEXT cpu_utilization={:.3},rps_fractional={:.1}",
            self.work.utilization(),
            self.work.requests_per_second()
        );
        if self.orca
            && let Ok(report) = HeaderValue::from_str(&report)
        {
            headers.insert("endpoint-load-metrics", report);
        }
    }
}

fn whole(bytes: impl Into<Bytes>) -> AnyBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

pub(crate) fn status(status: StatusCode, text: &'static str) -> Response<AnyBody> {
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    response
}

/// The value of a key of a query.
fn value<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

/// `cost=C`, 1 without; `None`: it is no cost.
fn cost(query: &str) -> Option<f64> {
    let Some(cost) = value(query, "cost") else { return Some(1.0) };
    cost.parse().ok().filter(|cost| (0.0..=COST_MAX).contains(cost))
}

/// `bytes=N&rate=R`: N bytes at R bytes a second.
fn stream(query: &str) -> Response<AnyBody> {
    let number = |key: &str| value(query, key)?.parse::<u64>().ok();
    match (number("bytes"), number("rate")) {
        (Some(bytes), Some(rate)) => Response::new(Stream::new(bytes, rate).boxed()),
        _ => status(StatusCode::BAD_REQUEST, "/stream?bytes=N&rate=BYTES_A_SECOND\n"),
    }
}

/// A body that takes its time.
struct Stream {
    left: u64,
    piece: Bytes,
    pace: Interval,
}

impl Stream {
    fn new(bytes: u64, rate: u64) -> Stream {
        let mut pace = interval(Duration::from_secs(1) / STREAM_PIECES_PER_SECOND as u32);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let piece = (rate / STREAM_PIECES_PER_SECOND).clamp(1, 1 << 20) as usize;
        Stream { left: bytes, piece: vec![b'x'; piece].into(), pace }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        std::task::ready!(self.pace.poll_tick(context));
        let length = self.left.min(self.piece.len() as u64);
        self.left -= length;
        let piece = self.piece.slice(..length as usize);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
