//! Asks the running daemon over its admin address.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// The daemon answers from memory; longer means that it does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer: every decision that a loop keeps is under 20 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The body of `GET path`, if the daemon answers with 200.
pub(super) fn get(admin: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let request = Request::get(path).body(Full::default());
    ask(admin, path, request.with_context(|| format!("{path:?} cannot be asked for"))?)
}

/// The body of the answer to `POST path` with JSON and the token in a file, if that is 200.
pub(super) fn post(
    admin: SocketAddr,
    path: &str,
    body: &impl Serialize,
    token_file: Option<&Path>,
) -> anyhow::Result<Bytes> {
    let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
    if let Some(file) = token_file {
        let token = std::fs::read_to_string(file)
            .with_context(|| format!("the token cannot be read from {}", file.display()))?;
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let request = request.body(Full::from(serde_json::to_vec(body)?));
    ask(admin, path, request.with_context(|| format!("{path:?} cannot be asked"))?)
}

/// What such a body says.
pub(super) fn parse<T: DeserializeOwned>(admin: SocketAddr, body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).with_context(|| format!("{admin} answered something unknown"))
}

fn ask(admin: SocketAddr, path: &str, request: Request<Full<Bytes>>) -> anyhow::Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        tokio::time::timeout(ANSWER_TIMEOUT, send(admin, path, request))
            .await
            .with_context(|| format!("{admin} did not answer within {ANSWER_TIMEOUT:?}"))?
    })
}

async fn send(
    admin: SocketAddr,
    path: &str,
    mut request: Request<Full<Bytes>>,
) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(admin).await.with_context(|| {
        format!("no daemon answers at {admin}; is it running, with this `admin` address?")
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .with_context(|| format!("{admin} does not speak HTTP"))?;
    let host = HeaderValue::try_from(admin.to_string()).context("no host")?;
    request.headers_mut().insert(header::HOST, host);
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
