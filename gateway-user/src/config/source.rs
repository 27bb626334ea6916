//! The texts that a configuration is read from, and where in them a byte lies.
//!
//! The file and each `--set` are one long text to everything else: a [`Span`] counts bytes over
//! all of them, so a mistake in any of them is shown in its own place.

use std::ops::Range;

/// Bytes of the joined texts.
pub(super) type Span = Range<usize>;

/// The file, then each `--set` in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    parts: Vec<Part>,
}

/// One text and where it begins among all.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// What a reader calls it: the file's path, or `--set`.
    pub(super) name: String,
    /// The text itself.
    pub(super) text: String,
    start: usize,
}

impl Sources {
    /// Adds a text after those that are there.
    pub(super) fn push(&mut self, name: impl Into<String>, text: impl Into<String>) {
        // One byte between two texts, so that the end of one is not the start of the next.
        let start = self.parts.last().map_or(0, |last| last.start + last.text.len() + 1);
        self.parts.push(Part { name: name.into(), text: text.into(), start });
    }

    /// Each text, with spaces before it so that a parser counts its bytes as [`Span`]s do.
    pub(super) fn padded(&self) -> Vec<String> {
        self.parts.iter().map(|part| " ".repeat(part.start) + &part.text).collect()
    }

    /// The text that a span begins in, and the span within it.
    pub(super) fn locate(&self, span: &Span) -> Option<(&Part, Span)> {
        let part = self.parts.iter().rev().find(|part| part.start <= span.start)?;
        let within = |byte: usize| byte.saturating_sub(part.start).min(part.text.len());
        Some((part, within(span.start)..within(span.end)))
    }

    /// `file:line:column` of a span's begin, both from 1, columns in characters.
    pub(super) fn place(&self, span: &Span) -> Option<String> {
        let (part, within) = self.locate(span)?;
        let before = part.text.get(..within.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Some(format!("{}:{line}:{column}", part.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_found_in_the_text_that_it_begins_in() {
        let mut sources = Sources::default();
        sources.push("file", "a = 1\n");
        sources.push("--set", "b = 2");
        let padded = sources.padded();
        let start = padded[1].find('b').unwrap();
        let (part, within) = sources.locate(&(start..start + 5)).unwrap();
        assert_eq!(&part.text[within], "b = 2");
        assert_eq!(sources.place(&(start..start + 5)).unwrap(), "--set:1:1");
        assert_eq!(sources.place(&(4..5)).unwrap(), "file:1:5");
    }
}
