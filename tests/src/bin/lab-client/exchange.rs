//! One request and its answer, over a new connection or a kept one.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use gateway_tests::report::failure;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, body::Incoming, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::Mode;

type Sender = SendRequest<Empty<Bytes>>;

/// Sends requests over connections of its own.
pub(crate) struct Exchange {
    target: SocketAddr,
    mode: Mode,
    /// Kept connections; the one used last is used next.
    idle: Mutex<Vec<Sender>>,
}

impl Exchange {
    pub(crate) fn new(target: SocketAddr, mode: Mode) -> Exchange {
        Exchange { target, mode, idle: Mutex::default() }
    }

    /// One request; the name of the backend that answered it, or the kind of failure.
    pub(crate) async fn run(&self, path: &str, deadline: Instant) -> Result<String, String> {
        match timeout_at(deadline, self.exchange(path)).await {
            Ok(result) => result,
            Err(_) => Err(failure::TIMEOUT.to_owned()),
        }
    }

    async fn exchange(&self, path: &str) -> Result<String, String> {
        let (response, sender) = self.send(self.request(path)?).await?;
        let status = response.status();
        let backend = response.headers().get("x-backend").and_then(|name| name.to_str().ok());
        let backend = backend.unwrap_or("unknown").to_owned();
        response.into_body().collect().await.map_err(|error| kind_of(&error))?;
        if self.mode == Mode::KeepAlive {
            self.idle().push(sender);
        }
        if !status.is_success() {
            return Err(format!("status_{}", status.as_u16()));
        }
        Ok(backend)
    }

    /// Sends the request over a kept connection if one still stands, else over a new one.
    async fn send(
        &self,
        mut request: Request<Empty<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), String> {
        loop {
            // Bound apart, so that the lock is not held while the request is under way.
            let kept = self.idle().pop();
            let Some(mut kept) = kept else { break };
            match kept.try_send_request(request).await {
                Ok(response) => return Ok((response, kept)),
                // The server closed it while it was idle: the request was not sent.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(kind_of(error.error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await.map_err(|error| kind_of(&error))?;
        Ok((response, sender))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self) -> Result<Sender, String> {
        let stream = TcpStream::connect(self.target).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => failure::REFUSED.to_owned(),
            _ => failure::CONNECT.to_owned(),
        })?;
        stream.set_nodelay(true).map_err(|_| failure::CONNECT.to_owned())?;
        let made = handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| kind_of(&error))?;
        // It ends, and closes, when the sender is dropped; its errors reach the request too.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, path: &str) -> Result<Request<Empty<Bytes>>, String> {
        Request::get(path)
            .header(header::HOST, self.target.to_string())
            .body(Empty::new())
            .map_err(|error| error.to_string())
    }
}

/// The [`failure`] that an error of hyper stands for.
fn kind_of(error: &hyper::Error) -> String {
    let reset = error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(
        |source| {
            matches!(source.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
        },
    );
    let kind = match error {
        _ if reset => failure::RESET,
        _ if error.is_parse() => failure::MALFORMED,
        _ => failure::CLOSED,
    };
    kind.to_owned()
}
