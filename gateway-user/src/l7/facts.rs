//! What the proxy knows of a request when it chooses a backend, in the core's words.
//!
//! It is read from the head alone, so nothing waits for a body, except where the pool says that
//! bodies of requests to language models are to be read ([`look`]).

use gateway_core::classes::RequestFacts;
use gateway_core::fleet::{AffinitySpec, LlmSpec};
use http::Method;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::request::Parts;

use super::metrics::BodyResult;
use super::peek::ClientBody;
use super::prompt::{self, BodyFacts, Reading};
use super::view::VipView;

/// Of a request as its client sent it; whose it is says the header of this name, if there is one.
pub(super) fn of<'a>(
    head: &'a Parts,
    body: &'a BodyFacts,
    tenant_header: Option<&str>,
) -> RequestFacts<'a> {
    RequestFacts {
        method: head.method.as_str(),
        path: head.uri.path(),
        tenant: tenant_header.and_then(|name| text(&head.headers, name)),
        body_bytes: text(&head.headers, CONTENT_LENGTH.as_str()).and_then(|l| l.parse().ok()),
        model: body.model.as_deref(),
        stream: body.stream,
        prompt_chars: body.prompt_chars,
        tokens_max: body.tokens_max,
        prefix: &body.prefix,
    }
}

/// What the body of a request to a language model says, so far as it is to be read and can be.
/// Whatever it says, it is passed on as it is.
pub(super) async fn look(head: &Parts, body: &mut ClientBody, vip: &VipView) -> BodyFacts {
    let llm = &vip.http.llm;
    if !is_plain_json(&head.headers) {
        vip.body_read(BodyResult::NotJson);
        return BodyFacts::default();
    }
    let (bytes, whole) = body.look_ahead(llm.body_max, llm.wait_max).await;
    let (result, facts) = match prompt::read(&bytes, whole) {
        Reading::Whole(facts) => (BodyResult::Whole, facts),
        Reading::Cut(facts) => (BodyResult::Cut, facts),
        Reading::Malformed => (BodyResult::Malformed, BodyFacts::default()),
    };
    vip.body_read(result);
    facts
}

/// What the affinity of its pool's requests knows a request by: its session's name, if a header says
/// it, or what its prompt begins with.
pub(super) fn key(head: &Parts, said: &BodyFacts, affinity: &AffinitySpec) -> Vec<u64> {
    let session = affinity.header.as_deref().and_then(|name| text(&head.headers, name));
    affinity.key(session, &said.prefix)
}

/// Whether a request is one to a language model whose body is to be read, by its pool's word.
pub(super) fn is_asked(head: &Parts, llm: &LlmSpec) -> bool {
    llm.read_bodies
        && head.method == Method::POST
        && llm.paths.iter().any(|path| path == head.uri.path())
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    let json = |kind: &str| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    };
    // Without a word on it, it is what the path says.
    !headers.contains_key(CONTENT_ENCODING) && text(headers, CONTENT_TYPE.as_str()).is_none_or(json)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method("POST").uri("/v1/chat?x=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_head_says_what_is_asked_how_much_and_for_whom() {
        let head = head(&[("content-length", "120"), ("x-tenant", "blue")]);
        let body = BodyFacts::default();
        let facts = of(&head, &body, Some("x-tenant"));
        assert_eq!((facts.method, facts.path), ("POST", "/v1/chat"));
        assert_eq!((facts.body_bytes, facts.tenant), (Some(120), Some("blue")));
        assert_eq!(of(&head, &body, None).tenant, None, "nobody said which header it is");
    }

    #[test]
    fn what_a_head_does_not_say_or_says_badly_is_not_known() {
        let head = head(&[("content-length", "many")]);
        let body = BodyFacts::default();
        let facts = of(&head, &body, Some("x-tenant"));
        assert_eq!((facts.body_bytes, facts.tenant), (None, None));
    }

    #[test]
    fn only_bodies_that_are_asked_for_are_read() {
        let head = |method: &str, path: &str| {
            let request = http::Request::builder().method(method).uri(path);
            request.body(()).unwrap().into_parts().0
        };
        let llm = LlmSpec { read_bodies: true, ..LlmSpec::default() };
        assert!(is_asked(&head("POST", "/v1/messages?beta=1"), &llm));
        assert!(!is_asked(&head("GET", "/v1/messages"), &llm));
        assert!(!is_asked(&head("POST", "/v1/models"), &llm));
        assert!(!is_asked(&head("POST", "/v1/messages"), &LlmSpec::default()), "off by default");
    }

    #[test]
    fn a_session_comes_before_a_prompt_and_neither_counts_where_nobody_asked() {
        let head = head(&[("x-session", "s1")]);
        let said = BodyFacts { prefix: vec![1, 2], ..BodyFacts::default() };
        let key = |by_prefix, header: Option<&str>| {
            let header = header.map(str::to_owned);
            let affinity = AffinitySpec { by_prefix, header, ..AffinitySpec::default() };
            super::key(&head, &said, &affinity)
        };
        assert_eq!(key(false, None), [0; 0]);
        assert_eq!(key(true, None), [1, 2]);
        assert_eq!(key(true, Some("x-session")), [gateway_core::prefix::name("s1")]);
        assert_eq!(key(true, Some("x-other")), [1, 2]);
    }

    #[test]
    fn what_is_packed_or_of_another_kind_is_not_read() {
        let is_json = |headers: &[(&str, &str)]| is_plain_json(&head(headers).headers);
        assert!(is_json(&[]));
        assert!(is_json(&[("content-type", "Application/JSON; charset=utf-8")]));
        assert!(!is_json(&[("content-type", "multipart/form-data; boundary=x")]));
        assert!(!is_json(&[("content-type", "application/json"), ("content-encoding", "gzip")]));
    }
}
