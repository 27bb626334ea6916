//! The responses that the gateway makes itself: every one says what happened in `Proxy-Status`
//! (RFC 9209) and in a small JSON body, and nothing of the machines behind it.

use bytes::Bytes;
use gateway_core::admission::RefusedWith;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;

use super::body::ResponseBody;
use super::head::{self, Refusal};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// After how many seconds a client may ask again when no backend takes requests: about the time
/// that a backend takes to be probed healthy again.
const RETRY_AFTER_NO_BACKEND: HeaderValue = HeaderValue::from_static("1");

/// Why the gateway answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No backend of the pool takes new requests.
    NoBackend,
    /// The VIP was removed while its connection stayed.
    NoVip,
    /// The backend refused the connection.
    ConnectionRefused,
    /// There is no way to the backend.
    Unroutable,
    /// The connection to the backend did not come about in time.
    ConnectionTimeout,
    /// The gateway itself has no socket, port or memory left for a connection.
    NoResources,
    /// The backend closed or reset the connection instead of answering.
    ConnectionTerminated,
    /// The gateway closed its connections to the backend, which was found faulty.
    BackendReset,
    /// The backend read no more of the request.
    WriteTimeout,
    /// The backend did not answer in time.
    ResponseTimeout,
    /// What the backend answered is not HTTP.
    ProtocolError,
    /// The client stopped sending its request.
    ClientTimeout,
    /// The client's request body was not valid or not complete.
    ClientBody,
    /// The request asks for what this proxy does not do.
    Refused(Refusal),
    /// More is asked than the backends can serve, and others matter more.
    TooMuch {
        /// What the client is told.
        with: RefusedWith,
        /// When it may ask again, s.
        retry_after: u64,
    },
}

impl Fault {
    /// The status, RFC 9209's error type, and the sentence for people.
    const fn describe(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Fault::NoBackend => (
                S::SERVICE_UNAVAILABLE,
                "destination_unavailable",
                "no backend takes requests now; try again later",
            ),
            Fault::NoVip => (
                S::SERVICE_UNAVAILABLE,
                "destination_not_found",
                "this service is not configured here any more",
            ),
            Fault::ConnectionRefused => {
                (S::BAD_GATEWAY, "connection_refused", "the backend refused the connection")
            }
            Fault::Unroutable => {
                (S::BAD_GATEWAY, "destination_ip_unroutable", "the backend could not be reached")
            }
            Fault::ConnectionTimeout => (
                S::GATEWAY_TIMEOUT,
                "connection_timeout",
                "the backend did not accept a connection in time",
            ),
            Fault::NoResources => (
                S::SERVICE_UNAVAILABLE,
                "proxy_internal_error",
                "the gateway cannot open more connections now",
            ),
            Fault::ConnectionTerminated => (
                S::BAD_GATEWAY,
                "connection_terminated",
                "the backend closed the connection without answering",
            ),
            Fault::BackendReset => (
                S::BAD_GATEWAY,
                "connection_terminated",
                "the backend was found faulty before it answered, and its connections were closed",
            ),
            Fault::WriteTimeout => (
                S::GATEWAY_TIMEOUT,
                "connection_write_timeout",
                "the backend stopped reading the request",
            ),
            Fault::ResponseTimeout => {
                (S::GATEWAY_TIMEOUT, "http_response_timeout", "the backend did not answer in time")
            }
            Fault::ProtocolError => (
                S::BAD_GATEWAY,
                "http_protocol_error",
                "the backend's answer is not valid HTTP/1.1",
            ),
            Fault::ClientTimeout => {
                (S::REQUEST_TIMEOUT, "http_request_error", "the request's body stopped arriving")
            }
            Fault::ClientBody => {
                (S::BAD_REQUEST, "http_request_error", "the request's body is not valid")
            }
            Fault::TooMuch { with: RefusedWith::ServiceUnavailable, .. } => (
                S::SERVICE_UNAVAILABLE,
                "destination_unavailable",
                "more is asked than can be served now; try again later",
            ),
            Fault::TooMuch { with: RefusedWith::TooManyRequests, .. } => (
                S::TOO_MANY_REQUESTS,
                "http_request_denied",
                "more is asked than can be served now; try again later",
            ),
            Fault::Refused(Refusal::Upgrade) => (
                S::NOT_IMPLEMENTED,
                "http_request_error",
                "CONNECT and upgrades to other protocols are not supported",
            ),
            Fault::Refused(Refusal::TransferCoding) => (
                S::NOT_IMPLEMENTED,
                "http_request_error",
                "of the transfer codings only `chunked` is supported",
            ),
            Fault::Refused(Refusal::Host) => (
                S::BAD_REQUEST,
                "http_request_error",
                "an HTTP/1.1 request has exactly one Host header",
            ),
        }
    }

    /// The status that the client gets.
    pub(super) const fn status(self) -> StatusCode {
        self.describe().0
    }

    /// The error type of RFC 9209 §2.3, which is also the label in metrics.
    pub(super) const fn error_type(self) -> &'static str {
        self.describe().1
    }

    /// The response to the client.
    pub(super) fn reply(self, request_id: &HeaderValue) -> Response<ResponseBody> {
        let (status, error, message) = self.describe();
        // A request id that is kept is of characters that JSON does not escape.
        let id = request_id.to_str().unwrap_or_default();
        let body = format!(
            "{{\"error\":\"{error}\",\"message\":\"{message}\",\"request_id\":\"{id}\"}}\n"
        );
        let mut response = Response::new(ResponseBody::Made(Full::new(Bytes::from(body))));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let proxy_status = HeaderValue::try_from(format!("gateway; error={error}"));
        headers.extend(proxy_status.ok().map(|value| (PROXY_STATUS, value)));
        headers.insert(head::X_REQUEST_ID, request_id.clone());
        if matches!(self, Fault::NoBackend | Fault::NoVip | Fault::NoResources) {
            headers.insert(RETRY_AFTER, RETRY_AFTER_NO_BACKEND);
        }
        if let Fault::TooMuch { retry_after, .. } = self {
            // In seconds (RFC 9110, section 10.2.3).
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_reply_says_what_happened_to_machines_and_people() {
        let response = Fault::NoBackend.reply(&HeaderValue::from_static("id-1"));
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["proxy-status"], "gateway; error=destination_unavailable");
        assert_eq!(response.headers()["retry-after"], "1");
        let body = response.into_body().collect().await.expect("our own body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["error"], "destination_unavailable");
        assert_eq!(body["request_id"], "id-1");
    }

    #[test]
    fn who_is_refused_hears_with_what_and_when_to_come_back() {
        let check = |with, status: u16, error: &str| {
            let fault = Fault::TooMuch { with, retry_after: 7 };
            let response = fault.reply(&HeaderValue::from_static("id"));
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["retry-after"], "7");
            assert_eq!(response.headers()["proxy-status"], format!("gateway; error={error}"));
        };
        check(RefusedWith::ServiceUnavailable, 503, "destination_unavailable");
        check(RefusedWith::TooManyRequests, 429, "http_request_denied");
    }

    #[test]
    fn only_a_lack_that_passes_invites_another_try() {
        for fault in [Fault::ConnectionRefused, Fault::ResponseTimeout, Fault::ProtocolError] {
            assert!(
                !fault.reply(&HeaderValue::from_static("id")).headers().contains_key("retry-after")
            );
        }
    }
}
