//! Who may change something: whoever knows the token that lies in a file of the operator's.
//!
//! The pages are on loopback, where every process of the host can reach them, a browser's too. So
//! what changes state asks for `Authorization: Bearer` and the file's contents. The file is read at
//! each such request, which are rare, so that a new token needs no restart.

use std::path::Path;

use axum::http::{HeaderMap, StatusCode, header};

use super::error::AdminError;

/// A token shorter than this can be guessed.
const BYTES_MIN: usize = 16;

/// Whether a request may change something.
///
/// # Errors
/// It may not; the answer says why, and nothing of the token.
pub(super) fn check(file: Option<&Path>, headers: &HeaderMap) -> Result<(), AdminError> {
    let Some(file) = file else {
        let why = "nothing can be changed over this address: set `gateway.admin_token_file`";
        return Err(AdminError::new(StatusCode::FORBIDDEN, why));
    };
    let token = std::fs::read_to_string(file).map_err(|error| {
        let why = format!("the token cannot be read from {}: {error}", file.display());
        AdminError::new(StatusCode::FORBIDDEN, why)
    })?;
    let token = token.trim();
    if token.len() < BYTES_MIN {
        let why = format!("the token in {} has under {BYTES_MIN} characters", file.display());
        return Err(AdminError::new(StatusCode::FORBIDDEN, why));
    }
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match given {
        Some(given) if is_same(given.trim().as_bytes(), token.as_bytes()) => Ok(()),
        Some(_) => Err(AdminError::new(StatusCode::UNAUTHORIZED, "this is not the token")),
        None => {
            let why = "this changes something: send `Authorization: Bearer` and the token of \
                       `gateway.admin_token_file`";
            Err(AdminError::new(StatusCode::UNAUTHORIZED, why))
        }
    }
}

/// Takes as long for a wrong token as for a right one.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differing = given.iter().zip(token).fold(0, |differing, (a, b)| differing | (a ^ b));
    given.len() == token.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::response::IntoResponse;

    use super::*;

    /// The status of a change with this header, where this token lies in the file.
    fn status(token: Option<&str>, given: Option<&str>) -> u16 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        if let Some(token) = token {
            std::fs::write(&file, token).unwrap();
        }
        let mut headers = HeaderMap::new();
        if let Some(given) = given {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_str(given).unwrap());
        }
        match check(Some(&file), &headers) {
            Ok(()) => 200,
            Err(error) => error.into_response().status().as_u16(),
        }
    }

    #[test]
    fn only_the_token_opens() {
        let token = Some("correct horse battery staple\n");
        assert_eq!(status(token, Some("Bearer correct horse battery staple")), 200);
        for given in
            ["Bearer correct horse battery stapl", "Bearer ", "correct horse battery staple"]
        {
            assert_eq!(status(token, Some(given)), 401, "{given}");
        }
        assert_eq!(status(token, None), 401);
    }

    #[test]
    fn without_a_token_worth_the_name_nothing_opens() {
        assert_eq!(status(None, Some("Bearer x")), 403);
        assert_eq!(status(Some("\n"), Some("Bearer ")), 403);
        assert_eq!(status(Some("short"), Some("Bearer short")), 403);
        assert!(check(None, &HeaderMap::new()).is_err());
    }
}
