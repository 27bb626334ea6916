//! Where the operator wants to hear of something: a URL that it is posted to, or a program that is
//! run with it. Checked when the configuration is read, so that telling needs no further check.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// Where something is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// It is posted there, as JSON.
    Webhook(Webhook),
    /// This is run, with JSON on its standard input.
    Command(Command),
}

/// A URL that is posted to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// Where.
    pub url: HttpUrl,
    /// How long one try may take, from the look-up of the name to the end of the answer.
    pub timeout: Duration,
}

/// A program that is run, with the daemon's rights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Its file; an absolute path.
    pub program: PathBuf,
    /// What it is called with. No shell reads them.
    pub args: Vec<String>,
    /// How long it may run; then it is killed, with all that it began.
    pub timeout: Duration,
}

/// A URL of plain HTTP. Shown and serialized without path and query, which may hold a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// Name or address, and the port where it is given: as the `Host` header has it.
    authority: String,
    /// Name or address; without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Path and query; begins with a slash.
    path: String,
}

/// Why a text is no URL that can be posted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// `https`.
    #[error(
        "https is not spoken; name an http address on a network that is trusted, such as that of a \
         relay on this host"
    )]
    Tls,
    /// Neither.
    #[error("it must begin with \"http://\"")]
    Scheme,
    /// It has a user or password.
    #[error("a user or password cannot be sent; put a token into the path or query")]
    User,
    /// No host, or one with letters that no host has.
    #[error("after \"http://\" comes a name or an address")]
    Host,
    /// Behind the colon is no port.
    #[error("the port is a number from 1 to 65535")]
    Port,
    /// A space, a control character, a letter beyond ASCII, or a fragment.
    #[error("path and query are plain ASCII without spaces and without `#`")]
    Path,
}

/// The port where none is given (RFC 9110, section 4.2.1).
const HTTP_PORT: u16 = 80;

impl HttpUrl {
    /// Reads `http://host[:port][/path][?query]`.
    ///
    /// # Errors
    /// It is none, or needs what this gateway does not speak.
    pub fn parse(text: &str) -> Result<HttpUrl, UrlError> {
        if text.starts_with("https://") {
            return Err(UrlError::Tls);
        }
        let rest = text.strip_prefix("http://").ok_or(UrlError::Scheme)?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::User);
        }
        let (host, port) = split_port(authority)?;
        if path.chars().any(|c| !c.is_ascii_graphic() || c == '#') {
            return Err(UrlError::Path);
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(HttpUrl {
            authority: authority.to_owned(),
            host: host.to_owned(),
            port,
            path: format!("{slash}{path}"),
        })
    }

    /// What the `Host` header says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Name or address to connect to.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query. Not to be logged.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Host and port of an authority.
fn split_port(authority: &str) -> Result<(&str, u16), UrlError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(UrlError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| UrlError::Host)?;
            (host, port)
        }
        None => {
            let end = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at(end);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            if host.is_empty() || !host.chars().all(is_plain) {
                return Err(UrlError::Host);
            }
            (host, port)
        }
    };
    if port.is_empty() {
        return Ok((host, HTTP_PORT));
    }
    let digits = port.strip_prefix(':').ok_or(UrlError::Host)?;
    let is_number = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if is_number && port > 0 => Ok((host, port)),
        _ => Err(UrlError::Port),
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = if self.path == "/" { "/" } else { "/…" };
        write!(f, "http://{}{rest}", self.authority)
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpUrl({self})")
    }
}

impl Serialize for HttpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Webhook(webhook) => webhook.url.fmt(f),
            Target::Command(command) => command.program.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_as_a_client_needs_it() {
        let check = |text: &str, authority: &str, host: &str, port: u16, path: &str| {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!((url.authority(), url.host()), (authority, host), "{text}");
            assert_eq!((url.port(), url.path()), (port, path), "{text}");
        };
        check("http://scaler", "scaler", "scaler", 80, "/");
        check("http://10.0.0.9:8080/a?b=c", "10.0.0.9:8080", "10.0.0.9", 8080, "/a?b=c");
        check("http://scaler?b", "scaler", "scaler", 80, "/?b");
        check("http://[::1]:81/x", "[::1]:81", "::1", 81, "/x");
        check("http://[::1]", "[::1]", "::1", 80, "/");
    }

    #[test]
    fn what_cannot_be_posted_to_says_why() {
        let check = |text, error| assert_eq!(HttpUrl::parse(text), Err(error), "{text}");
        check("https://scaler", UrlError::Tls);
        check("scaler:80", UrlError::Scheme);
        check("http://", UrlError::Host);
        check("http:///path", UrlError::Host);
        check("http://a b/", UrlError::Host);
        check("http://[::1/", UrlError::Host);
        check("http://[scaler]/", UrlError::Host);
        check("http://[::1]x/", UrlError::Host);
        check("http://me:secret@scaler/", UrlError::User);
        check("http://scaler:/", UrlError::Port);
        check("http://scaler:0/", UrlError::Port);
        check("http://scaler:65536/", UrlError::Port);
        check("http://scaler:+1/", UrlError::Port);
        check("http://scaler/a\r\nx: y", UrlError::Path);
        check("http://scaler/a#b", UrlError::Path);
    }

    #[test]
    fn the_path_is_shown_to_nobody() {
        let url = HttpUrl::parse("http://scaler:80/hook/secret?token=secret").unwrap();
        for shown in [format!("{url}"), format!("{url:?}"), serde_json::to_string(&url).unwrap()] {
            assert!(shown.contains("scaler:80") && !shown.contains("secret"), "{shown}");
        }
    }
}
