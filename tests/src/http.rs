//! A small HTTP/1.1 client for the admin pages and the faults: one blocking request, one answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::Namespace;

/// How long a connection and each read may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(header, _)| header == name)?;
        Some(value)
    }

    /// The body, if the status is a 2xx.
    ///
    /// # Errors
    /// Any other status: the error quotes the body.
    pub fn success(self) -> Result<String> {
        if !(200..300).contains(&self.status) {
            bail!("status {}: {}", self.status, self.body.trim());
        }
        Ok(self.body)
    }
}

/// `GET path` at `addr` from inside `namespace`.
///
/// # Errors
/// No connection, or no HTTP in answer.
pub fn get(namespace: &Namespace, addr: SocketAddr, path: &str) -> Result<Answer> {
    exchange(namespace, addr, "GET", path, "")
}

/// `POST path` with a JSON body at `addr` from inside `namespace`.
///
/// # Errors
/// As [`get`].
pub fn post(namespace: &Namespace, addr: SocketAddr, path: &str, json: &str) -> Result<Answer> {
    exchange(namespace, addr, "POST", path, json)
}

fn exchange(
    namespace: &Namespace,
    addr: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    namespace
        .run(|| send(addr, &request))?
        .with_context(|| format!("{method} http://{addr}{path} in {}", namespace.name()))
}

fn send(addr: SocketAddr, request: &str) -> Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&String::from_utf8_lossy(&bytes))
}

fn parse(text: &str) -> Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").context("an answer without an end of head")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
        .collect();
    let answer = Answer { status: status.parse()?, headers, body: body.to_owned() };
    match answer.header("transfer-encoding") {
        Some("chunked") => Ok(Answer { body: unchunk(body)?, ..answer }),
        _ => Ok(answer),
    }
}

/// Joins the chunks of a body (RFC 9112, section 7.1).
fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.split(';').next().unwrap_or(size).trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(after.get(..size).context("a chunk was cut short")?);
        rest = after.get(size + 2..).context("a chunk was cut short")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart() {
        let answer = parse("HTTP/1.1 503 Busy\r\nX-Backend: b1\r\n\r\nlater").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (503, "later"));
        assert_eq!(answer.header("x-backend"), Some("b1"));
        assert!(answer.success().unwrap_err().to_string().contains("later"));
    }

    #[test]
    fn chunks_are_joined() {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    4\r\nWiki\r\n6;x=y\r\npedia \r\n0\r\n\r\n";
        assert_eq!(parse(text).unwrap().body, "Wikipedia ");
    }

    #[test]
    fn garbage_is_no_answer() {
        for text in ["", "garbage", "HTTP/1.1\r\n\r\n", "HTTP/1.1 two\r\n\r\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
