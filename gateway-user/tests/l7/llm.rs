//! Requests to language models: their bodies are looked into, and pass as they came.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gateway_core::affinity::Affinity;
use gateway_core::classes::{Profile, RequestFacts};
use gateway_core::fleet::{AffinitySpec, HttpSpec, LlmSpec};
use gateway_core::observation::{RequestOutcome, Seen};
use http::Response;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::backend::{Backend, full, read_head, refusing_addr, write};
use crate::client::Client;
use crate::gateway::{Gateway, Setup, weight};
use crate::soon;

/// Bodies that backends have got.
type Got = Arc<Mutex<Vec<Vec<u8>>>>;

/// A backend that keeps the bodies that it gets.
async fn keeper() -> (Backend, Got) {
    let got = Got::default();
    let kept = Arc::clone(&got);
    let backend = Backend::http(move |request| {
        let kept = Arc::clone(&kept);
        async move {
            let body = request.into_body().collect().await;
            let body = body.expect("a whole body").to_bytes().to_vec();
            kept.lock().expect("no panic").push(body);
            Response::new(full("ok"))
        }
    })
    .await;
    (backend, got)
}

/// A gateway that reads bodies, up to so many bytes.
fn reading(body_max: usize, wait_max: Duration) -> Setup {
    let llm = LlmSpec { read_bodies: true, body_max, wait_max, ..LlmSpec::default() };
    Setup { http: HttpSpec { llm, ..HttpSpec::default() }, ..Setup::default() }
}

const LONG: Duration = Duration::from_secs(60);

fn chat(words: usize) -> String {
    let content = "word ".repeat(words);
    format!(
        r#"{{"model":"large","stream":true,"max_tokens":64,"messages":[{{"content":"{content}"}}]}}"#
    )
}

/// A request with this body, sent to `path`.
fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// The profile of the next request that the gateway reports.
async fn profile(gateway: &mut Gateway) -> Profile {
    match gateway.next_seen().await {
        (_, Seen::Request { profile, outcome: RequestOutcome::Answered, .. }) => profile,
        other => panic!("no answered request: {other:?}"),
    }
}

fn read_as(gateway: &Gateway, result: &str) -> u64 {
    gateway.metric(&format!(r#"gateway_llm_bodies_total{{vip="vip0",result="{result}"}}"#))
}

#[tokio::test]
async fn what_a_body_says_is_known_and_the_body_passes_as_it_came() {
    let (backend, got) = keeper().await;
    let mut gateway = Gateway::with(reading(256 * 1024, LONG), &[backend.addr]);
    let body = chat(1_000);
    let reply = Client::connect(gateway.vip).await.request(&post("/v1/messages", &body)).await;
    assert_eq!(reply.status, 200);
    let facts = RequestFacts {
        method: "POST",
        path: "/v1/messages",
        model: Some("large"),
        stream: true,
        body_bytes: Some(body.len() as u64),
        prompt_chars: Some(5_000),
        tokens_max: Some(64),
        ..RequestFacts::default()
    };
    assert_eq!(profile(&mut gateway).await, Profile::of(&facts));
    assert_eq!(*got.lock().unwrap(), [body.into_bytes()]);
    assert_eq!(read_as(&gateway, "whole"), 1);
}

#[tokio::test]
async fn nothing_is_read_where_nobody_asked_for_it() {
    let (backend, _) = keeper().await;
    let body = chat(10);
    let facts = |path| RequestFacts {
        method: "POST",
        path,
        body_bytes: Some(body.len() as u64),
        ..RequestFacts::default()
    };
    for (setup, path) in [(Setup::default(), "/v1/messages"), (reading(4096, LONG), "/v1/models")] {
        let mut gateway = Gateway::with(setup, &[backend.addr]);
        let reply = Client::connect(gateway.vip).await.request(&post(path, &body)).await;
        assert_eq!(reply.status, 200);
        assert_eq!(profile(&mut gateway).await, Profile::of(&facts(path)));
        assert!(!gateway.metrics().contains("gateway_llm_bodies_total{"));
    }
}

#[tokio::test]
async fn what_is_no_json_passes_without_facts_and_is_counted() {
    let (backend, got) = keeper().await;
    let mut gateway = Gateway::with(reading(4096, LONG), &[backend.addr]);
    let body = "{\"model\": \"large\", oops";
    let reply = Client::connect(gateway.vip).await.request(&post("/v1/completions", body)).await;
    assert_eq!(reply.status, 200);
    let facts = RequestFacts {
        method: "POST",
        path: "/v1/completions",
        body_bytes: Some(body.len() as u64),
        ..RequestFacts::default()
    };
    assert_eq!(profile(&mut gateway).await, Profile::of(&facts));
    assert_eq!(*got.lock().unwrap(), [body.as_bytes()]);
    assert_eq!(read_as(&gateway, "malformed"), 1);
}

#[tokio::test]
async fn a_longer_body_is_on_its_way_before_all_of_it_has_come() {
    let (backend, got) = keeper().await;
    let gateway = Gateway::with(reading(4096, LONG), &[backend.addr]);
    let body = chat(2_000);
    let mut client = Client::connect(gateway.vip).await;
    let request = post("/v1/messages", &body);
    let (first, rest) = request.split_at(600);
    client.send(first.as_bytes()).await;
    // The backend is asked although most of the body is not there.
    crate::eventually("a connection to the backend", || backend.connections() == 1).await;
    client.send(rest.as_bytes()).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(*got.lock().unwrap(), [body.into_bytes()]);
    assert_eq!(read_as(&gateway, "cut"), 1);
}

#[tokio::test]
async fn a_body_of_unknown_length_is_read_up_to_the_limit_and_passes() {
    let (backend, got) = keeper().await;
    let mut gateway = Gateway::with(reading(4096, LONG), &[backend.addr]);
    let body = chat(2_000);
    let mut client = Client::connect(gateway.vip).await;
    client
        .send(b"POST /v1/messages HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for piece in body.as_bytes().chunks(1000) {
        client.send(format!("{:x}\r\n", piece.len()).as_bytes()).await;
        client.send(piece).await;
        client.send(b"\r\n").await;
    }
    client.send(b"0\r\n\r\n").await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(*got.lock().unwrap(), [body.into_bytes()]);
    let seen = profile(&mut gateway).await;
    let facts = RequestFacts { method: "POST", path: "/v1/messages", ..RequestFacts::default() };
    assert_ne!(seen.id, facts.id(), "its model was read");
    assert_eq!(read_as(&gateway, "cut"), 1);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_beyond_the_limit() {
    let (backend, got) = keeper().await;
    let gateway = Gateway::with(reading(64 * 1024, Duration::from_millis(20)), &[backend.addr]);
    let body = chat(100);
    let request = post("/v1/messages", &body);
    let mut client = Client::connect(gateway.vip).await;
    client.send(&request.as_bytes()[..120]).await;
    crate::eventually("a connection to the backend", || backend.connections() == 1).await;
    client.send(&request.as_bytes()[120..]).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(*got.lock().unwrap(), [body.into_bytes()]);
    assert_eq!(read_as(&gateway, "cut"), 1);
}

#[tokio::test]
async fn a_request_that_was_looked_into_is_still_tried_elsewhere() {
    let (backend, got) = keeper().await;
    let setup = reading(64 * 1024, LONG);
    let gateway = Gateway::with(setup, &[refusing_addr().await, backend.addr]);
    gateway.prefer_first();
    let body = chat(100);
    let reply = Client::connect(gateway.vip).await.request(&post("/v1/messages", &body)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(*got.lock().unwrap(), [body.into_bytes()]);
    assert!(gateway.metrics().contains(r#"reason="connect_failed"} 1"#));
}

#[tokio::test]
async fn a_client_that_breaks_off_while_its_body_is_read_leaves_nothing_behind() {
    let backend = Backend::raw(|mut stream, _| async move {
        let head = read_head(&mut stream).await;
        if !head.is_empty() {
            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = Gateway::with(reading(64 * 1024, LONG), &[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(&post("/v1/messages", &chat(100)).as_bytes()[..200]).await;
    drop(client);
    let aborted = r#"gateway_http_aborts_total{vip="vip0",by="client"}"#;
    let failed = "gateway_http_errors_total{";
    crate::eventually("the request is given up", || {
        gateway.metric(aborted) == 1 || gateway.metrics().contains(failed)
    })
    .await;
    soon("nothing in flight", gateway.assert_idle()).await;
}

/// A backend that answers with a head at once, an event when told, and the end when told again.
async fn streaming(kind: &'static str, first: &'static str) -> (Backend, mpsc::Sender<()>) {
    let (go_on, may_go_on) = mpsc::channel::<()>(1);
    let may_go_on = Arc::new(tokio::sync::Mutex::new(may_go_on));
    let backend = Backend::raw(move |mut stream, _| {
        let may_go_on = Arc::clone(&may_go_on);
        async move {
            read_head(&mut stream).await;
            let head = format!("content-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n");
            write(&mut stream, &format!("HTTP/1.1 200 OK\r\n{head}")).await;
            for text in [first, "data: token\n\n", "data: [DONE]\n\n"] {
                write(&mut stream, &format!("{:x}\r\n{text}\r\n", text.len())).await;
                may_go_on.lock().await.recv().await;
            }
            write(&mut stream, "0\r\n\r\n").await;
        }
    })
    .await;
    (backend, go_on)
}

/// Until the first byte and until the last, as the gateway saw a streamed answer whose first event
/// came `pause` after its head and whose end `pause` after that.
async fn times(setup: Setup, kind: &'static str, pause: Duration) -> (Duration, Duration, u64) {
    let (backend, go_on) = streaming(kind, ": wait\n\n").await;
    let mut gateway = Gateway::with(setup, &[backend.addr]);
    let mut client = Client::connect(gateway.vip).await;
    client.send(post("/v1/messages", &chat(10)).as_bytes()).await;
    soon("the head", client.head()).await.expect("a head");
    for expected in [": wait\n\n", "data: token\n\n", "data: [DONE]\n\n"] {
        let chunk = soon("a chunk", client.chunk()).await.expect("a chunk");
        assert_eq!(chunk, expected);
        tokio::time::sleep(pause).await;
        go_on.send(()).await.expect("the backend waits");
    }
    let seen = gateway.next_seen().await.1;
    let Seen::Request { first_byte_after, after, .. } = seen else { panic!("{seen:?}") };
    let labels = r#"{vip="vip0",pool="pool",backend="b0"}"#;
    let counted = format!("gen_ai_server_time_to_first_token_seconds_count{labels}");
    (first_byte_after, after, gateway.metric(&counted))
}

#[tokio::test]
async fn a_streamed_answer_is_as_slow_as_its_first_event() {
    let pause = Duration::from_millis(150);
    let (first, whole, counted) = times(reading(4096, LONG), "text/event-stream", pause).await;
    assert!(first >= pause, "neither its head nor a comment is a token: {first:?}");
    assert!(first + 2 * pause <= whole, "what comes after is the answer's length: {first:?}");
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn of_what_is_no_stream_of_a_language_model_the_head_counts() {
    let pause = Duration::from_millis(150);
    for (setup, kind) in
        [(Setup::default(), "text/event-stream"), (reading(4096, LONG), "text/plain")]
    {
        let (first, whole, counted) = times(setup, kind, pause).await;
        assert!(first + 3 * pause <= whole, "{kind}: {first:?} of {whole:?}");
        assert_eq!(counted, 0);
    }
}

/// A gateway in front of three backends that sends requests where others like them went.
async fn affine(header: Option<&str>) -> (Gateway, Vec<(Backend, Got)>) {
    let backends = [keeper().await, keeper().await, keeper().await];
    let mut setup = reading(64 * 1024, LONG);
    let header = header.map(str::to_owned);
    setup.http.affinity = AffinitySpec { by_prefix: true, header, ..AffinitySpec::default() };
    let addrs: Vec<_> = backends.iter().map(|(backend, _)| backend.addr).collect();
    (Gateway::with(setup, &addrs), backends.into())
}

/// How many requests each backend got.
fn got(backends: &[(Backend, Got)]) -> Vec<usize> {
    backends.iter().map(|(_, got)| got.lock().expect("no panic").len()).collect()
}

fn placed(gateway: &Gateway, result: &str) -> u64 {
    let labels = format!(r#"{{vip="vip0",pool="pool",result="{result}"}}"#);
    gateway.metric(&format!("gateway_affinity_requests_total{labels}"))
}

#[tokio::test]
async fn prompts_that_begin_alike_go_to_one_backend() {
    let (gateway, backends) = affine(None).await;
    for turn in 0..10 {
        // A conversation: each prompt is the one before and some more.
        let request = post("/v1/messages", &chat(500 + 100 * turn));
        assert_eq!(Client::connect(gateway.vip).await.request(&request).await.status, 200);
        gateway.assert_idle().await;
    }
    let mut got = got(&backends);
    got.sort_unstable();
    assert_eq!(got, [0, 0, 10]);
    assert_eq!((placed(&gateway, "new"), placed(&gateway, "kept")), (1, 9));
    let noted = gateway.proxy.recent().find(None).expect("noted");
    assert_eq!(noted.choices[0].affinity, Affinity::Kept);
}

#[tokio::test]
async fn a_session_goes_to_one_backend_whatever_it_says() {
    let (gateway, backends) = affine(Some("x-session")).await;
    for turn in 0..10 {
        let request = format!("GET /{turn} HTTP/1.1\r\nhost: test\r\nx-session: blue\r\n\r\n");
        assert_eq!(Client::connect(gateway.vip).await.request(&request).await.status, 200);
        gateway.assert_idle().await;
    }
    let mut got = got(&backends);
    got.sort_unstable();
    assert_eq!(got, [0, 0, 10]);
}

#[tokio::test]
async fn a_favourite_that_is_cut_gives_its_prompts_away_and_they_stay_there() {
    let (gateway, backends) = affine(None).await;
    let ask = || async {
        let request = post("/v1/messages", &chat(500));
        assert_eq!(Client::connect(gateway.vip).await.request(&request).await.status, 200);
        gateway.assert_idle().await;
    };
    ask().await;
    let favourite = got(&backends).iter().position(|got| *got == 1).expect("one got it");
    gateway.rows.set_weights(favourite as u32, weight(0));
    for _ in 0..5 {
        ask().await;
    }
    let mut got = got(&backends);
    assert_eq!(got.remove(favourite), 1);
    got.sort_unstable();
    assert_eq!(got, [0, 5]);
    assert_eq!((placed(&gateway, "away"), placed(&gateway, "kept")), (1, 4));
}
