//! Asks the running daemon over its admin address.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The daemon answers from memory; longer means that it does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer: every decision that a loop keeps is under 20 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The body of `GET path`, if the daemon answers with 200.
pub(super) fn get(admin: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        tokio::time::timeout(ANSWER_TIMEOUT, request(admin, path))
            .await
            .with_context(|| format!("{admin} did not answer within {ANSWER_TIMEOUT:?}"))?
    })
}

async fn request(admin: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(admin).await.with_context(|| {
        format!("no daemon answers at {admin}; is it running, with this `admin` address?")
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .with_context(|| format!("{admin} does not speak HTTP"))?;
    let request = Request::get(path)
        .header(header::HOST, admin.to_string())
        .body(Empty::<Bytes>::new())
        .with_context(|| format!("{path:?} cannot be asked for"))?;
    let asking = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        anyhow::Ok((status, body.map_err(|error| anyhow!(error))?.to_bytes()))
    };
    let driving = async {
        // How the connection ends is the answer's business.
        let _ = connection.await;
        std::future::pending::<()>().await
    };
    let answer = tokio::select! {
        answer = asking => answer,
        () = driving => bail!("{admin} went away"),
    };
    let (status, body) = answer.with_context(|| format!("{admin} did not answer {path}"))?;
    if !status.is_success() {
        bail!("{}", refusal(status, &body));
    }
    Ok(body)
}

/// The daemon's own words, where it has some.
fn refusal(status: http::StatusCode, body: &[u8]) -> String {
    let object: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let words = object.as_ref().and_then(|object| object.get("error")?.as_str());
    words.map_or_else(|| format!("the daemon answered {status}"), str::to_owned)
}
