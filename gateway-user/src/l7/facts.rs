//! What the proxy knows of a request when it chooses a backend, in the core's words.
//!
//! Everything here is read from the head, so nothing waits for a body. What only a body says (a
//! model's name, its tokens) belongs here as well, once somebody reads bodies.

use gateway_core::classes::RequestFacts;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::request::Parts;

/// Of a request as its client sent it; whose it is says the header of this name, if there is one.
pub(super) fn of<'a>(head: &'a Parts, tenant_header: Option<&str>) -> RequestFacts<'a> {
    RequestFacts {
        method: head.method.as_str(),
        path: head.uri.path(),
        tenant: tenant_header.and_then(|name| text(&head.headers, name)),
        body_bytes: text(&head.headers, CONTENT_LENGTH.as_str()).and_then(|l| l.parse().ok()),
        ..RequestFacts::default()
    }
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
        let facts = of(&head, Some("x-tenant"));
        assert_eq!((facts.method, facts.path), ("POST", "/v1/chat"));
        assert_eq!((facts.body_bytes, facts.tenant), (Some(120), Some("blue")));
        assert_eq!(of(&head, None).tenant, None, "nobody said which header it is");
    }

    #[test]
    fn what_a_head_does_not_say_or_says_badly_is_not_known() {
        let head = head(&[("content-length", "many")]);
        let facts = of(&head, Some("x-tenant"));
        assert_eq!((facts.body_bytes, facts.tenant), (None, None));
    }
}
