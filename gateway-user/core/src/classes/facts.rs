//! What is known of a request before a backend has seen it, and the name that it is known by.

use gateway_common::hash::mix;

/// Segments of a path that tell profiles apart; what comes after them does not.
pub const SEGMENTS_MAX: usize = 8;

/// A segment in which an identifier stands.
const HOLE: &str = "{}";

/// Length from which hexadecimal digits alone are a hash, and no word.
const HASH_LENGTH_MIN: usize = 8;

/// Length from which letters and digits mixed are a token, and no word.
const TOKEN_LENGTH_MIN: usize = 20;

/// What is known of a request when a backend is chosen for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path; a query is ignored.
    pub path: &'a str,
    /// Whose it is, where a header says so.
    pub tenant: Option<&'a str>,
    /// The language model that is asked, where the body says so.
    pub model: Option<&'a str>,
    /// The response is wanted piece by piece.
    pub stream: bool,
    /// Length of the body, where it is announced.
    pub body_bytes: Option<u64>,
    /// Characters of the prompt's text, where the body says it. Not tokens: the gateway has no
    /// tokenizer.
    pub prompt_chars: Option<u32>,
    /// Tokens of the answer at most.
    pub tokens_max: Option<u32>,
    /// What the prompt begins with ([`crate::prefix::blocks`]). No part of the profile.
    pub prefix: &'a [u64],
}

impl RequestFacts<'_> {
    /// The profile's name as a number: requests that look alike have the same. Never zero, which is
    /// nobody's.
    pub fn id(&self) -> u64 {
        let mut hash = text(1, self.method);
        for segment in segments(self.path) {
            hash = text(hash, segment);
        }
        hash = text(hash, self.tenant.unwrap_or_default());
        hash = text(hash, self.model.unwrap_or_default());
        let size = self.prompt_chars.map(u64::from).or(self.body_bytes);
        mix(hash ^ (u64::from(self.stream) << 32) ^ size_bucket(size)).max(1)
    }
}

/// A path with its identifiers taken out: `/users/17/orders` and `/users/18/orders` are alike.
pub fn template(path: &str) -> String {
    let segments: Vec<&str> = segments(path).collect();
    format!("/{}", segments.join("/"))
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let segments = path.split('/').filter(|segment| !segment.is_empty()).take(SEGMENTS_MAX);
    segments.map(|segment| if is_identifier(segment) { HOLE } else { segment })
}

/// Whether a segment names one of many: a number, a UUID, a hash, a token.
fn is_identifier(segment: &str) -> bool {
    let (mut digits, mut hex, mut other) = (0, 0, 0);
    for byte in segment.bytes() {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'a'..=b'f' | b'A'..=b'F' => hex += 1,
            b'-' | b'_' => {}
            _ => other += 1,
        }
    }
    let letters = hex + other;
    let is_number = digits > letters;
    let is_hash = digits > 0 && other == 0 && digits + hex >= HASH_LENGTH_MIN;
    let is_token = digits > 1 && segment.len() >= TOKEN_LENGTH_MIN;
    is_number || is_hash || is_token
}

/// Sizes within a factor of four are alike; zero: not known.
fn size_bucket(size: Option<u64>) -> u64 {
    size.map_or(0, |size| 1 + u64::from((size + 1).ilog2() / 2))
}

fn text(hash: u64, text: &str) -> u64 {
    let word = |hash: u64, bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        mix(hash.rotate_left(5) ^ u64::from_le_bytes(word))
    };
    // The length as well, so that a boundary cannot move unnoticed.
    text.as_bytes().chunks(8).fold(mix(hash ^ text.len() as u64), word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(path: &str) -> u64 {
        RequestFacts { method: "GET", path, ..RequestFacts::default() }.id()
    }

    #[test]
    fn identifiers_in_a_path_are_holes() {
        let check = |path: &str, expected: &str| assert_eq!(template(path), expected, "{path}");
        check("/users/17/orders", "/users/{}/orders");
        check("/o/550e8400-e29b-41d4-a716-446655440000", "/o/{}");
        check("/blob/deadbeef01", "/blob/{}");
        check("/t/sk_live_4eC39HqLyjWDarjtT1zdp7dc?x=1", "/t/{}");
        check("/2024-05-01/report", "/{}/report");
        check("", "/");
    }

    #[test]
    fn words_and_versions_are_no_identifiers() {
        for path in ["/v1/chat/completions", "/api/v2beta/facade", "/feedface", "/s3/http2"] {
            assert_eq!(template(path), path);
        }
    }

    #[test]
    fn a_path_counts_up_to_its_eighth_segment() {
        assert_eq!(id("/a/b/c/d/e/f/g/h/i"), id("/a/b/c/d/e/f/g/h/j"));
        assert_ne!(id("/a/b/c/d/e/f/g/h"), id("/a/b/c/d/e/f/g/j"));
    }

    #[test]
    fn requests_that_look_alike_share_a_profile() {
        assert_eq!(id("/users/17?a=1"), id("/users/4711"));
        assert_ne!(id("/users"), id("/orders"));
        assert_ne!(id("/ab/c"), id("/a/bc"));
    }

    #[test]
    fn whose_it_is_what_for_and_how_large_tell_profiles_apart() {
        let plain = RequestFacts { method: "POST", path: "/v1/chat", ..RequestFacts::default() };
        let others = [
            RequestFacts { method: "PUT", ..plain },
            RequestFacts { tenant: Some("a"), ..plain },
            RequestFacts { model: Some("a"), ..plain },
            RequestFacts { stream: true, ..plain },
            RequestFacts { body_bytes: Some(100), ..plain },
            RequestFacts { body_bytes: Some(10_000), ..plain },
        ];
        let mut ids: Vec<u64> = others.iter().chain([&plain]).map(RequestFacts::id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 7);
        let sized = |bytes| RequestFacts { body_bytes: Some(bytes), ..plain }.id();
        assert_eq!(sized(70_000), sized(90_000), "sizes within a factor of four are alike");
    }
}
