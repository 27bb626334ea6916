//! The body of a client's request, of which the beginning may have been looked at before a backend
//! was chosen. It reaches the backend byte for byte as it came.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

/// A client's body: what was looked at, then the rest.
pub(super) struct ClientBody {
    held: VecDeque<Frame<Bytes>>,
    held_bytes: usize,
    /// How it broke off while it was looked at; told after what came before.
    broken: Option<hyper::Error>,
    rest: Incoming,
}

impl ClientBody {
    pub(super) fn new(rest: Incoming) -> ClientBody {
        ClientBody { held: VecDeque::new(), held_bytes: 0, broken: None, rest }
    }

    /// Looks ahead until the body ends, `bytes_max` have come or `wait_max` is over. A body that is
    /// announced to be longer is not waited for at all: of it counts what is already there.
    ///
    /// What came, and whether that is all.
    pub(super) async fn look_ahead(
        &mut self,
        bytes_max: usize,
        wait_max: Duration,
    ) -> (Bytes, bool) {
        let is_longer = self.rest.size_hint().lower() > bytes_max as u64;
        let due = Instant::now() + if is_longer { Duration::ZERO } else { wait_max };
        let mut ended = false;
        while !ended && self.broken.is_none() && self.held_bytes < bytes_max {
            if self.rest.is_end_stream() {
                ended = true;
                break;
            }
            let next = poll_fn(|cx| Pin::new(&mut self.rest).poll_frame(cx));
            match timeout_at(due, next).await {
                Ok(Some(Ok(frame))) => {
                    ended = frame.is_trailers();
                    self.held_bytes += frame.data_ref().map_or(0, Bytes::len);
                    self.held.push_back(frame);
                }
                Ok(Some(Err(error))) => self.broken = Some(error),
                Ok(None) => ended = true,
                Err(_) => break,
            }
        }
        let ended = ended || self.rest.is_end_stream();
        (self.held(bytes_max), ended && self.broken.is_none() && self.held_bytes <= bytes_max)
    }

    /// What is held, at most so much of it, in one piece.
    fn held(&self, bytes_max: usize) -> Bytes {
        let mut pieces = self.held.iter().filter_map(Frame::data_ref);
        let whole = match (pieces.next(), pieces.next()) {
            (None, _) => Bytes::new(),
            (Some(only), None) => only.clone(),
            _ => {
                let mut whole = BytesMut::with_capacity(self.held_bytes);
                self.held.iter().filter_map(Frame::data_ref).for_each(|p| whole.extend(p));
                whole.freeze()
            }
        };
        whole.slice(..whole.len().min(bytes_max))
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        if let Some(frame) = this.held.pop_front() {
            this.held_bytes -= frame.data_ref().map_or(0, Bytes::len);
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = this.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        Pin::new(&mut this.rest).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.broken.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, held) = (self.rest.size_hint(), self.held_bytes as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}
