//! Posting to a webhook, once.

use bytes::Bytes;
use gateway_core::target::Webhook;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Failure;

#[derive(Debug, thiserror::Error)]
enum WebhookError {
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    #[error("no valid HTTP/1.1 answer")]
    Http(#[from] hyper::Error),
    #[error("no request can be made of the URL")]
    Request(#[from] http::Error),
    #[error("it answered {0}, where 2xx is taken as heard")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    Late(std::time::Duration),
}

/// Posts `body`; its receiver has heard it when it answers 2xx in time.
pub(super) async fn post(webhook: &Webhook, body: Bytes) -> Result<(), Failure> {
    let outcome = timeout(webhook.timeout, try_post(webhook, body)).await;
    match outcome.unwrap_or(Err(WebhookError::Late(webhook.timeout))) {
        Ok(()) => Ok(()),
        Err(error) => Err(Failure {
            may_pass: may_pass(&error),
            is_late: matches!(error, WebhookError::Late(_)),
            error: error.into(),
        }),
    }
}

/// Whether the same request may be taken later: not what is wrong with it or its URL. A redirect is
/// of the latter kind.
fn may_pass(error: &WebhookError) -> bool {
    match error {
        WebhookError::Connect(_) | WebhookError::Http(_) | WebhookError::Late(_) => true,
        WebhookError::Request(_) => false,
        WebhookError::Status(status) => {
            let busy = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
            status.is_server_error() || busy.contains(status)
        }
    }
}

async fn try_post(webhook: &Webhook, body: Bytes) -> Result<(), WebhookError> {
    let url = &webhook.url;
    let request = Request::post(url.path())
        .header(HOST, url.authority())
        .header(USER_AGENT, concat!("gateway/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(body))?;
    let stream =
        TcpStream::connect((url.host(), url.port())).await.map_err(WebhookError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Both on this task, so that giving up closes the connection. What the answer says besides its
    // status is of no interest.
    let mut answered = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        response = answered.as_mut() => response?,
        _ = connection => answered.await?,
    };
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(WebhookError::Status(status)) }
}
