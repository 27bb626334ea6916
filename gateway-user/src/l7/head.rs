//! What the proxy does to heads: what stays on one hop is taken off, what the other side should
//! know is put on.
//!
//! Framing is hyper's: it refuses a request with contradicting lengths or a transfer coding that
//! does not end in `chunked`, lets `Transfer-Encoding` win over `Content-Length` and drops the
//! latter (RFC 9112 §6.3), and writes its own framing on the next hop. This module takes the
//! received framing headers off so that nothing of them survives to be read differently there, and
//! refuses the codings that hyper accepts but does not decode.

use std::net::{IpAddr, SocketAddr};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{
    CONNECTION, CONTENT_LENGTH, Entry, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::request;
use http::uri::{Authority, Uri};
use http::{Method, Version};

/// Request id, kept over every hop and in logs.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// The gateway in `Via`: what it received was HTTP/1.1 (or 1.0, which hyper speaks as such).
const VIA_GATEWAY: HeaderValue = HeaderValue::from_static("1.1 gateway");

/// Longest request id that is kept from a client; a UUID has 36 characters, a W3C trace id 32.
const REQUEST_ID_MAX: usize = 128;

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// CONNECT, or an upgrade to another protocol.
    Upgrade,
    /// A transfer coding besides `chunked`.
    TransferCoding,
    /// No `Host`, or more than one.
    Host,
}

/// Refuses what this proxy cannot pass on truthfully.
pub(super) fn check_request(head: &request::Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT || wants_upgrade(&head.headers) {
        return Err(Refusal::Upgrade);
    }
    if !only_chunked(&head.headers) {
        return Err(Refusal::TransferCoding);
    }
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(Refusal::Host),
        // RFC 9112 §3.2: every HTTP/1.1 request has one.
        (None, None) if head.version == Version::HTTP_11 => Err(Refusal::Host),
        _ => Ok(()),
    }
}

/// Whether a protocol is asked for that the client needs. An offer of HTTP/2 (`h2c`) may be
/// ignored (RFC 9110 §7.8), and clients that make it with every first request expect that.
fn wants_upgrade(headers: &HeaderMap) -> bool {
    let mut offers =
        headers.get_all(UPGRADE).iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
    offers.any(|offer| !offer.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

/// Whether the body is framed by `chunked` alone or by no transfer coding at all. hyper would hand
/// on `gzip, chunked` with only the chunks taken off.
pub(super) fn only_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// What a connection knows of its client.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Its address.
    pub(super) ip: IpAddr,
    /// The same for `X-Forwarded-For`: without brackets, as other proxies write it and backends read
    /// it. (Those are of `Forwarded`, RFC 7239, which this proxy does not write.)
    addr: HeaderValue,
    /// The VIP that it connected to, where it sent no `Host`.
    vip: HeaderValue,
}

impl Client {
    pub(super) fn new(client: IpAddr, vip: SocketAddr) -> Client {
        let vip = match (vip.port(), vip.ip()) {
            (80, IpAddr::V4(ip)) => ip.to_string(),
            // RFC 3986, section 3.2.2.
            (80, IpAddr::V6(ip)) => format!("[{ip}]"),
            _ => vip.to_string(),
        };
        Client { ip: client, addr: header_value(&client.to_string()), vip: header_value(&vip) }
    }
}

/// A value of digits, letters and punctuation that we made ourselves.
fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Makes a checked request of a client one to a backend.
pub(super) fn to_backend(head: &mut request::Parts, client: &Client, request_id: &HeaderValue) {
    let wants_trailers = wants_trailers(&head.headers);
    strip_hop_by_hop(&mut head.headers);
    if wants_trailers {
        // RFC 9110 §10.1.4: `TE` is itself of one hop and must be named by `Connection`.
        head.headers.insert(TE, HeaderValue::from_static("trailers"));
        head.headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    to_origin_form(head);
    let headers = &mut head.headers;
    let host = headers.entry(HOST).or_insert_with(|| client.vip.clone()).clone();
    // There is no list of trusted hops, and only the last entry of a list that grows can be
    // trusted at all, so the lists are appended to and the single values are set.
    append_forwarded_for(headers, &client.addr);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    headers.insert(X_FORWARDED_HOST, host);
    headers.insert(X_REQUEST_ID, request_id.clone());
    headers.append(VIA, VIA_GATEWAY);
    head.version = Version::HTTP_11;
}

/// Makes a backend's response one to the client.
pub(super) fn to_client(headers: &mut HeaderMap, request_id: &HeaderValue) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.3: the coding wins, and the length must not be passed on.
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    headers.insert(X_REQUEST_ID, request_id.clone());
    headers.append(VIA, VIA_GATEWAY);
}

/// Takes off what is meant for one hop only: the fields that `Connection` names, and those that
/// RFC 9110 §7.6.1 lists because they may be there unnamed.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        for name in connection_options(headers) {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION, &TE, &TRANSFER_ENCODING, &UPGRADE] {
        headers.remove(name);
    }
}

/// The fields that `Connection` names, apart from those that no sender may name: without `Host` or
/// `Content-Length` the message would be another one.
fn connection_options(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter();
    let options = values.flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    options
        .map(<[u8]>::trim_ascii)
        .filter(|option| {
            // By far the most common options, which are no fields.
            !option.eq_ignore_ascii_case(b"keep-alive") && !option.eq_ignore_ascii_case(b"close")
        })
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect()
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let mut codings =
        headers.get_all(TE).iter().flat_map(|value| value.as_bytes().split(|&b| b == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// An absolute target, as sent to a forward proxy, names the host itself and overrules `Host`
/// (RFC 9112 §3.2.2); backends get the usual path and query.
fn to_origin_form(head: &mut request::Parts) {
    let Some(authority) = head.uri.authority() else { return };
    let host = host_and_port(authority);
    if let Ok(host) = HeaderValue::from_str(host) {
        head.headers.insert(HOST, host);
    }
    let path = head.uri.path_and_query().cloned();
    head.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// An authority without its user information.
fn host_and_port(authority: &Authority) -> &str {
    authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host)
}

/// Appends to the list in one line, since many backends read one line only.
fn append_forwarded_for(headers: &mut HeaderMap, client: &HeaderValue) {
    let Entry::Occupied(mut known) = headers.entry(X_FORWARDED_FOR) else {
        headers.insert(X_FORWARDED_FOR, client.clone());
        return;
    };
    let mut list = Vec::with_capacity(64);
    for hop in known.iter() {
        list.extend_from_slice(hop.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(client.as_bytes());
    // Values that came in as headers, a comma and an address are a header value again.
    known.insert(HeaderValue::from_bytes(&list).unwrap_or_else(|_| client.clone()));
}

/// The request's id: the client's own if it is one that logs can take, else a new UUIDv7, whose
/// order is that of time.
pub(super) fn request_id(headers: &HeaderMap, random: &[u8; 10]) -> HeaderValue {
    match headers.get(X_REQUEST_ID) {
        Some(id) if is_sane(id.as_bytes()) => id.clone(),
        _ => {
            // Before 1970 the clock is wrong and the order does not matter.
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
            let id = uuid::Builder::from_unix_timestamp_millis(millis, random).into_uuid();
            header_value(id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
        }
    }
}

fn is_sane(id: &[u8]) -> bool {
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=REQUEST_ID_MAX).contains(&id.len()) && id.iter().all(sane)
}

/// Whether sending it twice does what sending it once does (RFC 9110 §9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().uri("/path?query");
        for &(name, value) in lines {
            request = request.header(name, value);
        }
        request.body(()).expect("a valid request").into_parts().0
    }

    fn sent(lines: &[(&str, &str)]) -> HeaderMap {
        let mut head = head(lines);
        let client = client("192.0.2.1", "198.51.100.1:8080");
        to_backend(&mut head, &client, &HeaderValue::from_static("id"));
        head.headers
    }

    fn client(ip: &str, vip: &str) -> Client {
        Client::new(ip.parse().expect("an address"), vip.parse().expect("an address"))
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|value| value.to_str().expect("ASCII")).collect()
    }

    #[test]
    fn what_connection_names_stays_on_this_hop() {
        let sent = sent(&[
            ("host", "h"),
            ("connection", "close, X-One"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        ]);
        let mut names: Vec<_> = sent.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "host",
                "via",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-proto",
                "x-request-id",
                "x-three"
            ]
        );
    }

    #[test]
    fn connection_cannot_take_the_host_or_what_we_add() {
        let sent = sent(&[("host", "h"), ("connection", "host, x-forwarded-for, x-request-id")]);
        assert_eq!(all(&sent, "host"), ["h"]);
        assert_eq!(all(&sent, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(all(&sent, "x-request-id"), ["id"]);
    }

    #[test]
    fn trailers_are_asked_for_hop_by_hop() {
        let sent = sent(&[("host", "h"), ("te", "gzip;q=0.5, Trailers"), ("connection", "te")]);
        assert_eq!(all(&sent, "te"), ["trailers"]);
        assert_eq!(all(&sent, "connection"), ["te"]);
    }

    #[test]
    fn forwarded_for_grows_and_the_rest_is_ours() {
        let sent = sent(&[
            ("host", "shop.example"),
            ("x-forwarded-for", "203.0.113.9, 10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "forged"),
            ("via", "1.1 outer"),
        ]);
        assert_eq!(all(&sent, "x-forwarded-for"), ["203.0.113.9, 10.0.0.1, 10.0.0.2, 192.0.2.1"]);
        assert_eq!(all(&sent, "x-forwarded-proto"), ["http"]);
        assert_eq!(all(&sent, "x-forwarded-host"), ["shop.example"]);
        assert_eq!(all(&sent, "via"), ["1.1 outer", "1.1 gateway"]);
    }

    #[test]
    fn an_absolute_target_becomes_a_path_and_overrules_host() {
        let mut head = head(&[("host", "other")]);
        head.uri = Uri::from_static("http://user@shop.example:81/a?b");
        let client = client("127.0.0.1", "127.0.0.1:80");
        to_backend(&mut head, &client, &HeaderValue::from_static("id"));
        assert_eq!(head.uri, "/a?b");
        assert_eq!(all(&head.headers, "host"), ["shop.example:81"]);
    }

    #[test]
    fn a_request_of_http_1_0_without_host_gets_the_vips() {
        for (vip, host) in [
            ("198.51.100.1:8080", "198.51.100.1:8080"),
            ("198.51.100.1:80", "198.51.100.1"),
            ("[2001:DB8:0::1]:8080", "[2001:db8::1]:8080"),
            ("[2001:db8::1]:80", "[2001:db8::1]"),
        ] {
            let mut head = head(&[]);
            head.version = Version::HTTP_10;
            assert_eq!(check_request(&head), Ok(()));
            to_backend(&mut head, &client("::1", vip), &HeaderValue::from_static("id"));
            assert_eq!(all(&head.headers, "host"), [host], "{vip}");
        }
    }

    #[test]
    fn an_ipv6_client_is_forwarded_for_without_brackets() {
        let mut head = head(&[("host", "h"), ("x-forwarded-for", "203.0.113.9")]);
        let client = client("2001:db8:0:0:0::7", "[2001:db8::1]:80");
        to_backend(&mut head, &client, &HeaderValue::from_static("id"));
        assert_eq!(all(&head.headers, "x-forwarded-for"), ["203.0.113.9, 2001:db8::7"]);
    }

    #[test]
    fn what_cannot_be_passed_on_is_refused() {
        let check =
            |lines: &[(&str, &str)], expected| assert_eq!(check_request(&head(lines)), expected);
        check(&[("host", "h")], Ok(()));
        check(&[("host", "h"), ("upgrade", "h2c")], Ok(()));
        check(&[("host", "h"), ("upgrade", "websocket")], Err(Refusal::Upgrade));
        check(&[("host", "h"), ("upgrade", "h2c, websocket")], Err(Refusal::Upgrade));
        check(&[("host", "h"), ("transfer-encoding", "Chunked")], Ok(()));
        check(
            &[("host", "h"), ("transfer-encoding", "gzip, chunked")],
            Err(Refusal::TransferCoding),
        );
        check(
            &[("host", "h"), ("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")],
            Err(Refusal::TransferCoding),
        );
        check(&[], Err(Refusal::Host));
        check(&[("host", "a"), ("host", "b")], Err(Refusal::Host));
    }

    #[test]
    fn a_response_with_both_framings_keeps_neither() {
        let mut headers =
            head(&[("transfer-encoding", "chunked"), ("content-length", "5")]).headers;
        to_client(&mut headers, &HeaderValue::from_static("id"));
        assert!(!headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(TRANSFER_ENCODING));
        let mut headers = head(&[("content-length", "5")]).headers;
        to_client(&mut headers, &HeaderValue::from_static("id"));
        assert_eq!(all(&headers, "content-length"), ["5"]);
    }

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        let id = |lines: &[(&str, &str)]| request_id(&head(lines).headers, &[7; 10]);
        assert_eq!(id(&[("x-request-id", "abc-123_.:/+=")]), "abc-123_.:/+=");
        for bad in ["", "two words", "quote\"", &"x".repeat(129)] {
            let made = id(&[("x-request-id", bad)]);
            let made = uuid::Uuid::parse_str(made.to_str().expect("ASCII")).expect("a UUID");
            assert_eq!(made.get_version_num(), 7);
        }
    }
}
