//! Reads one TOML table, key by key, and knows in the end which keys nobody asked for.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::{Log, Mistake};
use super::source::Span;
use super::value::{Name, Value};

/// A table that is being read.
pub(super) struct Section<'t, 'i> {
    log: &'t Log,
    /// Keys from the top, as in `pool.probe`; empty at the top.
    path: String,
    span: Span,
    table: &'t DeTable<'i>,
    known: Vec<&'static str>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// The whole document.
    pub(super) fn top(table: &'t Spanned<DeTable<'i>>, log: &'t Log) -> Section<'t, 'i> {
        let span = table.span().start..table.span().start;
        Section { log, path: String::new(), span, table: table.get_ref(), known: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// `key` with the path to it.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Adds a mistake.
    pub(super) fn mistake(&self, mistake: Mistake) {
        self.log.add(mistake);
    }

    fn entry(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// Whether the key is there, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the key's value is, if the key is there.
    pub(super) fn span_of(&self, key: &str) -> Option<Span> {
        self.table.get(key).map(Spanned::span)
    }

    /// The key's value; `None` if it is absent, or wrong and noted.
    pub(super) fn get<T: Value>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        let entry = self.entry(key)?;
        let value = T::from_toml(entry.get_ref());
        if value.is_none() {
            self.unexpected(key, entry, T::EXPECTED);
        }
        value.map(|value| Spanned::new(entry.span(), value))
    }

    /// The name under `key`; `None` if it is absent, or wrong and noted.
    pub(super) fn name_at(&mut self, key: &'static str) -> Option<Spanned<String>> {
        self.get::<Name>(key).map(|name| Spanned::new(name.span(), name.into_inner().0))
    }

    /// The key's value, or `default`.
    pub(super) fn get_or<T: Value>(&mut self, key: &'static str, default: T) -> T {
        self.get(key).map_or(default, Spanned::into_inner)
    }

    /// The key's value, or `default`; values outside `bounds` are mistakes.
    pub(super) fn within<T>(
        &mut self,
        key: &'static str,
        default: T,
        bounds: RangeInclusive<T>,
    ) -> T
    where
        T: Value + PartialOrd,
    {
        let Some(found) = self.get::<T>(key) else { return default };
        let span = found.span();
        let value = found.into_inner();
        if bounds.contains(&value) {
            return value;
        }
        let (min, max) = (bounds.start().show(), bounds.end().show());
        self.mistake(
            Mistake::at(span, format!("`{}` is {}", self.name(key), value.show()))
                .label(format!("must be from {min} to {max}"))
                .help(format!("leave it out for the default, {}", default.show())),
        );
        default
    }

    /// The key's value; its absence is a mistake. `example` shows how to write it.
    pub(super) fn require<T: Value>(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Spanned<T>> {
        if !self.has(key) {
            self.known.push(key);
            self.missing(key, example);
            return None;
        }
        self.get(key)
    }

    /// Notes that a required key is absent.
    pub(super) fn missing(&self, key: &str, example: &str) {
        self.mistake(
            Mistake::at(self.span(), format!("`{}` is missing", self.name(key)))
                .label("needed here")
                .help(format!("add `{example}`")),
        );
    }

    /// One of `words`; an unknown one is a mistake that names the nearest.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<Spanned<T>> {
        let entry = self.entry(key)?;
        let known = words.iter().map(|(word, _)| *word);
        let list = known.clone().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let Some(text) = entry.get_ref().as_str() else {
            self.unexpected(key, entry, &format!("one of {list}"));
            return None;
        };
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let help = match nearest(text, known) {
                Some(near) => format!("did you mean \"{near}\"? Known are {list}"),
                None => format!("known are {list}"),
            };
            self.mistake(
                Mistake::at(entry.span(), format!("`{}` does not know {text:?}", self.name(key)))
                    .label("not a known word")
                    .help(help),
            );
        }
        found.map(|(_, value)| Spanned::new(entry.span(), *value))
    }

    /// A table below this one, if it is there.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Section<'t, 'i>> {
        let entry = self.entry(key)?;
        let below = self.below(key, entry);
        if below.is_none() {
            let expected = format!("a table: `[{}]`", self.name(key));
            self.unexpected(key, entry, &expected);
        }
        below
    }

    /// The items of a list below this table; none if it is absent, or wrong and noted.
    pub(super) fn items(&mut self, key: &'static str) -> Vec<Item<'t, 'i>> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let Some(array) = entry.get_ref().as_array() else {
            let name = self.name(key);
            // `[vip]` for `[[vip]]` is the mistake that people make.
            self.mistake(
                Mistake::at(entry.span(), format!("`{name}` is not a list"))
                    .label(format!("found {}", article(entry.get_ref())))
                    .help(format!("write `[[{name}]]`, once for each")),
            );
            return Vec::new();
        };
        array.iter().map(|item| self.item(key, item)).collect()
    }

    /// The items of a list of plain values; none if it is absent, or wrong and noted.
    pub(super) fn items_of(
        &mut self,
        key: &'static str,
        expected: &str,
    ) -> Vec<&'t Spanned<DeValue<'i>>> {
        let Some(entry) = self.entry(key) else { return Vec::new() };
        let Some(array) = entry.get_ref().as_array() else {
            self.unexpected(key, entry, expected);
            return Vec::new();
        };
        array.iter().collect()
    }

    fn item(&self, key: &str, item: &'t Spanned<DeValue<'i>>) -> Item<'t, 'i> {
        match self.below(key, item) {
            Some(section) => Item::Table(section),
            None => Item::Other(item),
        }
    }

    fn below(&self, key: &str, entry: &'t Spanned<DeValue<'i>>) -> Option<Section<'t, 'i>> {
        let table = entry.get_ref().as_table()?;
        let path = self.name(key);
        Some(Section { log: self.log, path, span: entry.span(), table, known: Vec::new() })
    }

    /// Notes that a value is of the wrong kind.
    pub(super) fn unexpected(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) {
        let title = match value.get_ref().as_str() {
            Some(text) => format!("`{}` cannot be {text:?}", self.name(key)),
            None => format!("`{}` cannot be {}", self.name(key), article(value.get_ref())),
        };
        self.mistake(Mistake::at(value.span(), title).label(format!("expected {expected}")));
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            if self.known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let help = match nearest(key.get_ref(), self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", self.known.join(", ")),
            };
            let title = format!("`{}` is not a known key", self.name(key.get_ref()));
            self.mistake(Mistake::at(key.span(), title).label("unknown").help(help));
        }
    }
}

/// One item of a list.
pub(super) enum Item<'t, 'i> {
    /// A table.
    Table(Section<'t, 'i>),
    /// Anything else.
    Other(&'t Spanned<DeValue<'i>>),
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    // Half of the letters right: "wbe" is "web", but "x" is nothing.
    const SIMILARITY_MIN: f64 = 0.5;
    known
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

fn article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
