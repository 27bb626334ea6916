//! A language model as a gateway sees it: it reads prompts one after another, need not read again what
//! it has read before, and then streams its answer token by token. The head of an answer is sent at
//! once, as servers of models do, and says nothing of when the first token comes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};

use crate::site::{AnyBody, status};

/// Prompts whose reading is remembered.
const KNOWN_MAX: usize = 64;

/// Bytes that a cache remembers together: some sixteen tokens, as vLLM's.
const BLOCK: usize = 64;

/// Tokens of an answer, unless `max_tokens` says otherwise, and at most.
const TOKENS: u64 = 16;
const TOKENS_MAX: u64 = 10_000;

/// One server's model.
pub(crate) struct Model {
    /// To read a thousand bytes of a prompt.
    read_time: Duration,
    /// From one token to the next.
    token_time: Duration,
    reader: Semaphore,
    known: Mutex<VecDeque<Vec<u8>>>,
}

impl Model {
    pub(crate) fn new(read_time: Duration, token_time: Duration) -> Model {
        Model { read_time, token_time, reader: Semaphore::new(1), known: Mutex::default() }
    }

    /// Answers `POST /v1/chat/completions` by a stream of events, everything `slower` times as slow.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        slower: f64,
    ) -> Response<AnyBody> {
        let body = request.into_body().collect().await.map(|body| body.to_bytes());
        let asked: Option<Value> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
        let Some(asked) = asked else {
            return status(StatusCode::BAD_REQUEST, "a body of JSON, such as {\"messages\": []}\n");
        };
        let tokens = asked["max_tokens"].as_u64().unwrap_or(TOKENS).min(TOKENS_MAX);
        let prompt = prompt(&asked);
        let cached = self.cached(&prompt);
        let (events, body) = mpsc::channel(1);
        tokio::spawn(self.stream(prompt, tokens, slower, events));
        let mut response = Response::new(Events(body).boxed());
        let headers = response.headers_mut();
        headers
            .insert("content-type", hyper::header::HeaderValue::from_static("text/event-stream"));
        headers.insert("x-cached", cached.into());
        response
    }

    /// Reads what it must of a prompt and writes the answer, as long as somebody listens.
    async fn stream(
        self: Arc<Self>,
        prompt: Vec<u8>,
        tokens: u64,
        slower: f64,
        events: mpsc::Sender<Bytes>,
    ) {
        {
            // The semaphore is never closed.
            let _reads = self.reader.acquire().await;
            let unknown = prompt.len() - self.cached(&prompt);
            tokio::time::sleep(self.read_time.mul_f64(slower * unknown as f64 / 1e3)).await;
            self.remember(prompt);
        }
        for _ in 0..tokens {
            let event = "data: {\"choices\":[{\"delta\":{\"content\":\"word \"}}]}\n\n";
            if events.send(Bytes::from_static(event.as_bytes())).await.is_err() {
                return;
            }
            tokio::time::sleep(self.token_time.mul_f64(slower)).await;
        }
        // Nobody may be left to hear it.
        let _ = events.send(Bytes::from_static(b"data: [DONE]\n\n")).await;
    }

    /// Bytes of a prompt's beginning that it has read before.
    fn cached(&self, prompt: &[u8]) -> usize {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = |other: &Vec<u8>| prompt.iter().zip(other).take_while(|(a, b)| a == b).count();
        known.iter().map(shared).max().unwrap_or(0) / BLOCK * BLOCK
    }

    fn remember(&self, prompt: Vec<u8>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.truncate(KNOWN_MAX - 1);
        known.push_front(prompt);
    }
}

/// The text of a prompt: its messages', one after another.
fn prompt(asked: &Value) -> Vec<u8> {
    let messages = asked["messages"].as_array().into_iter().flatten();
    let texts = messages.filter_map(|message| message["content"].as_str());
    texts.collect::<Vec<_>>().join("\n").into_bytes()
}

/// Events as they are written.
struct Events(mpsc::Receiver<Bytes>);

impl Body for Events {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_is_known_by_whole_blocks() {
        let model = Model::new(Duration::ZERO, Duration::ZERO);
        let text = vec![b'a'; 1_000];
        assert_eq!(model.cached(&text), 0);
        model.remember(text.clone());
        assert_eq!(model.cached(&text), 960);
        let mut other = text.clone();
        other[200] = b'b';
        assert_eq!(model.cached(&other), 192);
        (0..KNOWN_MAX).for_each(|_| model.remember(vec![b'c'; 64]));
        assert_eq!(model.cached(&text), 0, "it is long ago");
    }

    #[test]
    fn a_prompt_is_all_that_its_messages_say() {
        let asked =
            serde_json::json!({ "messages": [{ "content": "rules" }, { "content": "why" }] });
        assert_eq!(prompt(&asked), b"rules\nwhy");
        assert!(prompt(&serde_json::json!({})).is_empty());
    }
}
