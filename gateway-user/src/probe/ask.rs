//! Asking one backend once.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use gateway_core::fleet::{ProbeKind, ProbeSpec};
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net::is_own_lack;

/// Bytes of an answer's body that are read before the connection is closed, so that a backend
/// with an ordinary health page does not see its connection reset.
const BODY_READ_MAX: usize = 64 * 1024;

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// As a healthy backend answers.
    Good,
    /// Otherwise, or not in time.
    Bad,
    /// The gateway could not ask.
    CouldNotAsk,
}

impl Answer {
    /// Whether the backend is healthy, if that could be found out.
    pub(super) fn healthy(self) -> Option<bool> {
        match self {
            Answer::Good => Some(true),
            Answer::Bad => Some(false),
            Answer::CouldNotAsk => None,
        }
    }
}

/// Why a probe failed, for the log.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("no connection: {0}")]
    Connect(io::Error),
    #[error("no valid HTTP/1.1 answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("status {0}, where 2xx or 3xx is healthy")]
    Status(StatusCode),
    #[error("the path is not one that a request can ask for: {0}")]
    Path(#[from] http::Error),
}

/// Asks a backend once, within the probe's timeout.
pub(super) async fn ask(addr: SocketAddr, spec: &ProbeSpec) -> Answer {
    match timeout(spec.timeout, try_ask(addr, &spec.kind)).await {
        Ok(Ok(())) => Answer::Good,
        Ok(Err(ProbeError::Connect(error))) if is_own_lack(&error) => Answer::CouldNotAsk,
        Ok(Err(error)) => {
            tracing::debug!(backend = %addr, %error, "probe failed");
            Answer::Bad
        }
        Err(_) => {
            tracing::debug!(backend = %addr, timeout = ?spec.timeout, "probe timed out");
            Answer::Bad
        }
    }
}

async fn try_ask(addr: SocketAddr, kind: &ProbeKind) -> Result<(), ProbeError> {
    let stream = TcpStream::connect(addr).await.map_err(ProbeError::Connect)?;
    match kind {
        ProbeKind::Tcp => Ok(()),
        ProbeKind::Http { path } => ask_http(stream, addr, path).await,
    }
}

async fn ask_http(stream: TcpStream, addr: SocketAddr, path: &str) -> Result<(), ProbeError> {
    let request = Request::get(path)
        .header(HOST, addr.to_string())
        .header(USER_AGENT, concat!("gateway-probe/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            drain(response.into_body()).await;
            Ok(())
        } else {
            Err(ProbeError::Status(status))
        }
    };
    // Both on this task, so that giving up on the probe closes the connection.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answered = exchange.as_mut() => answered,
        _ = connection => exchange.await,
    }
}

/// Reads the rest of an answer. Its head has said what there is to know, so how this ends does not
/// matter.
async fn drain(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > BODY_READ_MAX {
            return;
        }
    }
}
