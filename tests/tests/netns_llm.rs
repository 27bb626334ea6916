//! A language model behind the proxy: its prompts go where they were read before, while there is room,
//! and how slow it is says its first token.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Child, Stdio};
use std::time::Duration;

use gateway_tests::config::GatewayConfig;
use gateway_tests::http::{self, Answer};
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{ADMIN, BackendOptions, GatewayNode, Testbed};
use serde_json::{Value, json};

/// How long to wait for what takes the gateway a few ticks: much longer than it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a backend takes to read a thousand bytes of a prompt, unless told otherwise.
const READ_TIME: Duration = Duration::from_millis(20);

const PATH: &str = "/v1/chat/completions";

/// An equal pool of language models, whose prompts go where their beginnings went.
fn start_gateway(testbed: &Testbed, backends: usize) -> GatewayNode<'_> {
    let vip = testbed.l7_vip(1).unwrap();
    let members = (1..=backends).map(|number| testbed.backend_at(number, 8080)).collect();
    let mut config = GatewayConfig::one_pool(vip, "l7", "equal", members);
    config.pools[0].lines = "affinity = \"prefix\"".to_owned();
    config.pools[0].sections.push_str("[pool.llm]\nread_bodies = true\n");
    testbed.start_gateway(&config).unwrap()
}

/// A conversation of so many kilobytes about a subject, and one more question.
fn texts(subject: &str, kilobytes: usize, question: &str) -> [String; 2] {
    let before: String = format!("{subject} ").repeat((kilobytes << 10) / (subject.len() + 1) + 1);
    [before, question.to_owned()]
}

fn body([before, question]: &[String; 2], tokens: u64) -> String {
    let messages = [before, question].map(|text| json!({ "role": "user", "content": text }));
    json!({ "model": "m", "stream": true, "max_tokens": tokens, "messages": messages }).to_string()
}

fn ask(testbed: &Testbed, texts: &[String; 2], tokens: u64) -> Answer {
    let answer =
        http::post(testbed.client(), testbed.l4_vip(1), PATH, &body(texts, tokens)).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "all of it came: {}", answer.body);
    answer
}

/// A prompt whose answer nobody waits for here.
fn ask_aside(testbed: &Testbed, texts: &[String; 2], tokens: u64) -> Child {
    let mut curl = testbed.client().command("curl").unwrap();
    curl.args(["--silent", "--fail", "--output", "/dev/null", "--data", &body(texts, tokens)]);
    curl.args(["--header", "content-type: application/json"]);
    curl.arg(format!("http://{}{PATH}", testbed.l4_vip(1)));
    curl.stdin(Stdio::null()).spawn().unwrap()
}

fn backend(answer: &Answer) -> String {
    answer.header("x-backend").unwrap().to_owned()
}

fn cached(answer: &Answer) -> usize {
    answer.header("x-cached").unwrap().parse().unwrap()
}

/// What `POST /v1/route` says of a prompt.
fn route(testbed: &Testbed, texts: &[String; 2]) -> Value {
    let asked = json!({ "pool": "web", "model": "m", "prompt": texts }).to_string();
    let answer = http::post(testbed.gateway(), ADMIN, "/v1/route", &asked).unwrap();
    serde_json::from_str(&answer.success().unwrap()).unwrap()
}

/// The value of a line of the metrics, 0 if there is none.
fn metric(gateway: &GatewayNode<'_>, line: &str) -> f64 {
    let text = gateway.get("/metrics").unwrap();
    let value = text.lines().find_map(|known| known.strip_prefix(line)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

fn placed(gateway: &GatewayNode<'_>, result: &str) -> f64 {
    let labels = format!("{{vip=\"web\",pool=\"web\",result=\"{result}\"}}");
    metric(gateway, &format!("gateway_affinity_requests_total{labels}"))
}

#[test]
fn a_conversation_stays_where_it_was_read_until_too_much_is_under_way_there() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let _backends = testbed.start_backends(&[2, 2, 2]).unwrap();
    let gateway = start_gateway(&testbed, 3);
    let talk = |question: &str| texts("about load", 8, question);
    let first = ask(&testbed, &talk("first"), 2);
    let favourite = backend(&first);
    assert_eq!(cached(&first), 0);
    for question in ["second", "third", "fourth"] {
        let next = ask(&testbed, &talk(question), 2);
        assert_eq!(backend(&next), favourite, "{question}");
        assert!(cached(&next) >= 8 << 10, "its cache was hit: {}", cached(&next));
    }
    assert_eq!((placed(&gateway, "new"), placed(&gateway, "kept")), (1.0, 3.0));
    let told = route(&testbed, &talk("fifth"));
    assert_eq!(
        (&told["affinity"]["result"], &told["backend"]),
        (&"kept".into(), &told["affinity"]["favourite"])
    );
    assert_eq!(told["backend"], favourite.as_str(), "{told}");

    // One that is answered for long: a half more than a third of two is one.
    let mut long = ask_aside(&testbed, &talk("long"), 4_000);
    let is_full = || {
        let told = route(&testbed, &talk("sixth"));
        Ok((told["affinity"]["result"] == "full").then_some(told))
    };
    let told = wait_for("a favourite that is busy", PATIENCE, is_full).unwrap();
    assert_eq!(told["affinity"]["favourite"], favourite.as_str(), "{told}");
    let moved = ask(&testbed, &talk("sixth"), 2);
    assert_ne!(backend(&moved), favourite, "it is busy");
    assert_eq!(cached(&moved), 0, "and nobody else has read it");
    assert_eq!(placed(&gateway, "full"), 1.0);
    // From now on it is known where it went.
    let stays = ask(&testbed, &talk("seventh"), 2);
    assert_eq!(backend(&stays), backend(&moved));
    assert!(cached(&stays) >= 8 << 10, "{}", cached(&stays));
    long.kill().unwrap();
    long.wait().unwrap();
}

#[test]
fn how_slow_a_model_is_says_its_first_token_and_neither_head_nor_end() {
    let Some(testbed) = Testbed::or_skip(1) else { return };
    let options = BackendOptions::default();
    let _backend = testbed.start_backend(1, &options).unwrap();
    let gateway = start_gateway(&testbed, 1);
    const ASKED: u32 = 8;
    for number in 0..ASKED {
        // About as long as the prompts that times are scaled to, and none begins as another.
        ask(&testbed, &texts(&format!("subject {number}"), 4, "why"), 100);
    }
    let first = READ_TIME.as_secs_f64() * 4.0;
    let labels = "{vip=\"web\",pool=\"web\",backend=\"b1\"}";
    let of = |what: &str| {
        metric(&gateway, &format!("gen_ai_server_time_to_first_token_seconds_{what}{labels}"))
    };
    assert_eq!(of("count"), f64::from(ASKED));
    let mean = of("sum") / f64::from(ASKED);
    assert!((first..4.0 * first).contains(&mean), "{mean} s to the first token");
    let latency = || Ok(gateway.backend_state("b1")?["inputs"]["latency_p50"].as_f64());
    let latency = wait_for("a latency", PATIENCE, latency).unwrap();
    // A hundred tokens take half a second more, and a head takes next to nothing.
    assert!((0.8 * first..4.0 * first).contains(&latency), "{latency} s");
}
