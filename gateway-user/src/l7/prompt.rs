//! What the body of a request to a language model says, read as JSON that may break off anywhere:
//! OpenAI's `/v1/chat/completions` and `/v1/completions`, and Anthropic's `/v1/messages`.
//!
//! What is unknown or of an unexpected kind is stepped over: the backend judges requests, the gateway
//! only wants to know what they are like.

use std::fmt;

use gateway_core::prefix;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Longest name of a model that is remembered, bytes.
const MODEL_BYTES_MAX: usize = 128;

/// What a body says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyFacts {
    /// The model that is asked.
    pub model: Option<String>,
    /// The answer is wanted piece by piece.
    pub stream: bool,
    /// Characters of the prompt's text, so far as it was read; images and tools are not counted.
    pub prompt_chars: Option<u32>,
    /// Tokens of the answer at most.
    pub tokens_max: Option<u32>,
    /// What the prompt begins with ([`prefix::blocks`]).
    pub prefix: Vec<u64>,
}

/// What became of reading a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All of it was read.
    Whole(BodyFacts),
    /// It goes on after what was read.
    Cut(BodyFacts),
    /// It is no JSON.
    Malformed,
}

/// Reads a body, or its beginning where `whole` is false.
pub fn read(body: &[u8], whole: bool) -> Reading {
    let mut draft = Draft::default();
    match if whole { draft.read(body) } else { draft.read_cut(body) } {
        Ok(()) if whole => Reading::Whole(draft.facts()),
        Ok(()) => Reading::Cut(draft.facts()),
        Err(error) if !whole && error.is_eof() => Reading::Cut(draft.facts()),
        Err(_) => Reading::Malformed,
    }
}

/// Whether a body breaks off within a text.
fn is_within_text(body: &[u8]) -> bool {
    let (mut within, mut escaped) = (false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = within,
            b'"' => within = !within,
            _ => {}
        }
    }
    within
}

/// The text in which a body breaks off closed, so that it can still be read.
fn mended(body: &[u8]) -> Vec<u8> {
    let mut mended = without_half_escape(without_half_character(body)).to_vec();
    mended.push(b'"');
    mended
}

/// Without the beginning of a character at the end.
fn without_half_character(text: &[u8]) -> &[u8] {
    let begins = |byte: &u8| *byte & 0b1100_0000 != 0b1000_0000;
    let Some(last) = text.iter().rposition(begins) else { return text };
    if std::str::from_utf8(&text[last..]).is_ok() { text } else { &text[..last] }
}

/// Without what may be the beginning of an escape at the end: the longest is a pair of surrogates,
/// `\ud83d\ude00`.
fn without_half_escape(text: &[u8]) -> &[u8] {
    const ESCAPE: usize = 6;
    let cut = |text: &[u8]| -> usize {
        let from = text.len().saturating_sub(ESCAPE);
        let Some(last) = text[from..].iter().rposition(|byte| *byte == b'\\') else {
            return text.len();
        };
        // Of several in a row, who knows which escapes which.
        text[..from + last].iter().rposition(|byte| *byte != b'\\').map_or(0, |before| before + 1)
    };
    let text = &text[..cut(text)];
    // The first half of a pair goes with its second.
    match text.split_at_checked(text.len().saturating_sub(ESCAPE)) {
        Some((before, [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', ..])) => {
            before
        }
        _ => text,
    }
}

/// Whose words a text is: what the operator says comes before what is talked about, wherever it
/// stands in the body.
#[derive(Clone, Copy)]
enum Voice {
    System,
    Others,
}

/// Where in a body something stands.
#[derive(Clone, Copy)]
enum Place {
    Top,
    Model,
    Stream,
    TokensMax,
    Messages,
    Message,
    Content(Voice),
    Elsewhere,
}

impl Place {
    /// What stands under a key.
    fn under(self, key: &str) -> Place {
        match (self, key) {
            (Place::Top, "model") => Place::Model,
            (Place::Top, "stream") => Place::Stream,
            (Place::Top, "max_tokens" | "max_completion_tokens") => Place::TokensMax,
            (Place::Top, "messages") => Place::Messages,
            (Place::Top, "prompt") => Place::Content(Voice::Others),
            (Place::Top, "system") => Place::Content(Voice::System),
            (Place::Message, "content") => Place::Content(Voice::Others),
            (Place::Content(voice), "text" | "content") => Place::Content(voice),
            _ => Place::Elsewhere,
        }
    }

    /// What stands in a list.
    fn within(self) -> Place {
        match self {
            Place::Messages => Place::Message,
            Place::Content(voice) => Place::Content(voice),
            _ => Place::Elsewhere,
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Draft {
    model: Option<String>,
    stream: bool,
    tokens_max: Option<u32>,
    chars: Option<u64>,
    /// The beginning of what the operator says, and of the rest.
    text: [Vec<u8>; 2],
}

impl Draft {
    fn read(&mut self, body: &[u8]) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_slice(body);
        Walk { draft: self, place: Place::Top }.deserialize(&mut json)?;
        json.end()
    }

    fn read_cut(&mut self, body: &[u8]) -> serde_json::Result<()> {
        let mended = is_within_text(body).then(|| mended(body));
        let mut json = serde_json::Deserializer::from_slice(mended.as_deref().unwrap_or(body));
        Walk { draft: self, place: Place::Top }.deserialize(&mut json)
    }

    fn say(&mut self, voice: Voice, said: &str) {
        *self.chars.get_or_insert(0) += said.chars().count() as u64;
        prefix::append(&mut self.text[voice as usize], said);
    }

    fn facts(self) -> BodyFacts {
        let [mut text, others] = self.text;
        text.extend_from_slice(&others);
        BodyFacts {
            prefix: prefix::blocks(self.model.as_deref().unwrap_or_default(), &text),
            model: self.model,
            stream: self.stream,
            prompt_chars: self.chars.map(|chars| u32::try_from(chars).unwrap_or(u32::MAX)),
            tokens_max: self.tokens_max,
        }
    }
}

/// Reads a key: what stands under it.
struct Key(Place);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Place;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Place, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Place;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Place, E> {
        Ok(self.0.under(key))
    }
}

/// Reads what stands at a place into the draft.
struct Walk<'d> {
    draft: &'d mut Draft,
    place: Place,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.place {
            Place::Elsewhere => from.deserialize_ignored_any(IgnoredAny).map(drop),
            _ => from.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(Key(self.place))? {
            map.next_value_seed(Walk { draft: self.draft, place })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let place = self.place.within();
        while list.next_element_seed(Walk { draft: self.draft, place })?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        match self.place {
            Place::Model if text.len() <= MODEL_BYTES_MAX => {
                self.draft.model = Some(text.to_owned());
            }
            Place::Content(voice) => self.draft.say(voice, text),
            _ => {}
        }
        Ok(())
    }

    fn visit_bool<E>(self, is: bool) -> Result<(), E> {
        if let Place::Stream = self.place {
            self.draft.stream = is;
        }
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        if let Place::TokensMax = self.place {
            self.draft.tokens_max = Some(u32::try_from(number).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(body: &str) -> BodyFacts {
        match read(body.as_bytes(), true) {
            Reading::Whole(facts) => facts,
            other => panic!("{body}: {other:?}"),
        }
    }

    fn chat(system: &str, user: &str) -> String {
        let messages = serde_json::json!([
            {"role": "system", "content": system},
            {"role": "user", "content": [{"type": "text", "text": user}]},
        ]);
        serde_json::json!({"messages": messages, "model": "large"}).to_string()
    }

    #[test]
    fn the_three_kinds_of_bodies_say_the_same() {
        let bodies = [
            r#"{"model":"large","stream":true,"max_tokens":64,
                "messages":[{"role":"user","content":"Grüße"}]}"#,
            r#"{"prompt":"Grüße","max_tokens":64,"stream":true,"model":"large"}"#,
            r#"{"model":"large","max_tokens":64,"stream":true,
                "messages":[{"role":"user","content":[{"type":"text","text":"Grüße"}]}]}"#,
        ];
        for body in bodies {
            let facts = whole(body);
            assert_eq!(facts.model.as_deref(), Some("large"), "{body}");
            assert_eq!((facts.prompt_chars, facts.tokens_max), (Some(5), Some(64)), "{body}");
            assert!(facts.stream, "{body}");
        }
    }

    #[test]
    fn what_the_operator_says_comes_first_wherever_it_stands() {
        let (system, user) = ("s".repeat(2048), "u".repeat(2048));
        let messages = format!(r#""messages":[{{"role":"user","content":"{user}"}}]"#);
        let before = whole(&format!(r#"{{"system":"{system}",{messages}}}"#));
        let after = whole(&format!(r#"{{{messages},"system":[{{"text":"{system}"}}]}}"#));
        assert_eq!(before.prefix, after.prefix);
        assert_eq!(before.prompt_chars, Some(4096));
    }

    #[test]
    fn conversations_share_the_blocks_that_they_begin_with() {
        let system = "rules ".repeat(700);
        let [one, other] = ["why", "how"].map(|user| whole(&chat(&system, &user.repeat(2000))));
        let shared = system.len() / prefix::BLOCK_BYTES;
        assert_eq!(one.prefix[..shared], other.prefix[..shared]);
        assert_ne!(one.prefix[shared], other.prefix[shared]);
    }

    #[test]
    fn what_is_of_another_kind_is_stepped_over() {
        let facts = whole(
            r#"{"model":5,"stream":"yes","max_tokens":-1,"prompt":[[1,2],[3]],"n":1.5,
                "messages":{"content":"no list"},"tools":[{"text":"no prompt"}],"stop":null}"#,
        );
        assert_eq!(facts, BodyFacts { prompt_chars: None, ..BodyFacts::default() });
    }

    #[test]
    fn text_that_breaks_off_counts_as_far_as_it_came() {
        let body = chat("", &"x".repeat(5000));
        let Reading::Cut(facts) = read(&body.as_bytes()[..3000], false) else { panic!("not cut") };
        assert_eq!(facts.prefix.len(), 2);
        assert!(facts.prompt_chars.is_some_and(|chars| (2800..3000).contains(&chars)));
        assert_eq!(facts.model, None, "it comes later");
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for body in ["", "{", "{\"model\":}", "{} {}", "[1,]", "model=large", "{\"a\":\"\u{1}\"}"] {
            assert_eq!(read(body.as_bytes(), true), Reading::Malformed, "{body}");
        }
        assert_eq!(read(b"{\"model\"; ", false), Reading::Malformed);
        assert_eq!(read(b"{\"prompt\":\"\xff\xff\xff\xff\"}", true), Reading::Malformed);
    }

    #[test]
    fn nested_without_end_is_malformed_and_no_overflow() {
        assert_eq!(read("[".repeat(100_000).as_bytes(), true), Reading::Malformed);
    }

    proptest! {
        #[test]
        fn a_body_may_break_off_anywhere(system in "(\\PC|\\\\|\"|😀){0,40}", cut in 0usize..400) {
            // Escaped as some clients do, surrogates included.
            let escaped: String = system.encode_utf16().map(|u| format!("\\u{u:04x}")).collect();
            for text in [serde_json::to_string(&system).unwrap(), format!("\"{escaped}\"")] {
                let body = format!("{{\"prompt\":{text},\"model\":\"m\"}}");
                let cut = cut.min(body.len());
                let reading = read(&body.as_bytes()[..cut], false);
                prop_assert!(matches!(reading, Reading::Cut(_)), "{body} at {cut}: {reading:?}");
            }
        }

        #[test]
        fn no_bytes_do_harm(body: Vec<u8>, whole: bool) {
            let _ = read(&body, whole);
        }
    }
}
