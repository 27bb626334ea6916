//! What reading the body of a request to a language model costs:
//! `cargo run --release -p gateway-user --example prompt`.
//!
//! Bodies are chats of several lengths, whole and cut off; what is timed is all that the proxy does
//! with the bytes once they are there: reading the JSON, counting characters, hashing blocks.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gateway_user::l7::prompt::{self, Reading};

/// Lengths of the prompt, characters.
const PROMPTS: [usize; 4] = [200, 4_000, 60_000, 250_000];

/// How long each case is repeated.
const REPEAT: Duration = Duration::from_millis(500);

fn main() {
    println!("{:<28} {:>10} {:>10} {:>8}", "body", "bytes", "us", "MB/s");
    for chars in PROMPTS {
        let body = chat(chars);
        case(&format!("{chars} characters"), body.as_bytes(), true);
    }
    let body = chat(PROMPTS[3]);
    case("half of the longest", &body.as_bytes()[..body.len() / 2], false);
}

/// A chat of ten turns with line breaks and quotes that JSON escapes.
fn chat(chars: usize) -> String {
    let line = "She said \"go on\", and the café’s rules went on for pages.\n";
    let turn: String = line.chars().cycle().take(chars / 10).collect();
    let turns: Vec<_> = (0..10)
        .map(|nth| serde_json::json!({"role": if nth % 2 == 0 { "user" } else { "assistant" }, "content": turn}))
        .collect();
    let body =
        serde_json::json!({"model": "m", "stream": true, "max_tokens": 64, "messages": turns});
    body.to_string()
}

fn case(name: &str, body: &[u8], whole: bool) {
    let started = Instant::now();
    let mut rounds = 0u32;
    while started.elapsed() < REPEAT {
        let reading = prompt::read(black_box(body), whole);
        assert!(matches!(black_box(reading), Reading::Whole(_) | Reading::Cut(_)));
        rounds += 1;
    }
    let each = started.elapsed() / rounds;
    let speed = body.len() as f64 / each.as_secs_f64() / 1e6;
    println!("{name:<28} {:>10} {:>10.1} {speed:>8.0}", body.len(), each.as_secs_f64() * 1e6);
}
