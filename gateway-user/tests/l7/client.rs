//! A client that sends exactly what the test says, and reads responses byte by byte.

use std::net::SocketAddr;

use tokio::io::AsyncBufReadExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::soon;

/// A connection to the proxy.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    /// The values of a header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        header(&self.head, name)
    }
}

/// The values of a header in a head, in order.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let named = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim()).collect()
}

/// One `GET` on a connection of its own.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> Reply {
    Client::connect(addr).await.request(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")).await
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Client {
        let stream = soon("a connection to the proxy", TcpStream::connect(addr)).await;
        Client { stream: BufReader::new(stream.expect("the proxy listens")) }
    }

    /// Sends text and reads a response.
    pub(crate) async fn request(&mut self, text: &str) -> Reply {
        self.send(text.as_bytes()).await;
        self.reply().await
    }

    /// Sends bytes; a proxy that has closed is seen when its answer is read.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let sent = soon("the proxy reads", self.stream.get_mut().write_all(bytes)).await;
        drop(sent);
    }

    /// Reads a whole response.
    pub(crate) async fn reply(&mut self) -> Reply {
        soon("a response", self.try_reply()).await.expect("a whole response")
    }

    /// Reads a response, or the text that there was before the connection ended.
    pub(crate) async fn try_reply(&mut self) -> Result<Reply, String> {
        let head = self.head().await?;
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        let body = if let Some(length) = header(&head, "content-length").first() {
            let length = length.parse().expect("a length");
            self.exactly(length).await?
        } else if header(&head, "transfer-encoding") == ["chunked"] {
            self.chunks().await?
        } else {
            self.rest().await
        };
        Ok(Reply { status, head, body })
    }

    /// Reads a response that has a length but no body, as one to HEAD.
    pub(crate) async fn bodiless_reply(&mut self) -> String {
        soon("a head", self.head()).await.expect("a head")
    }

    /// Reads a response's head.
    pub(crate) async fn head(&mut self) -> Result<String, String> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match self.stream.read_line(&mut head).await {
                Ok(1..) => {}
                _ => return Err(head),
            }
        }
        Ok(head)
    }

    /// Reads this many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> Result<String, String> {
        let mut body = vec![0; length];
        match self.stream.read_exact(&mut body).await {
            Ok(_) => Ok(String::from_utf8(body).expect("text")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Reads one chunk; empty at the end.
    pub(crate) async fn chunk(&mut self) -> Result<String, String> {
        let mut size = String::new();
        let read = self.stream.read_line(&mut size).await;
        read.map_err(|error| error.to_string())?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| format!("chunk {size:?}"))?;
        let chunk = self.exactly(size).await?;
        self.exactly(2).await?;
        Ok(chunk)
    }

    async fn chunks(&mut self) -> Result<String, String> {
        let mut body = String::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body += &chunk;
        }
    }

    /// Reads until the proxy closes.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let _ = soon("the proxy closes", self.stream.read_to_end(&mut rest)).await;
        String::from_utf8_lossy(&rest).into_owned()
    }
}
