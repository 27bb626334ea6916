//! Mistakes in a configuration, all of them, each shown in its place.

use std::cell::RefCell;
use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::source::{Sources, Span};

/// One mistake: where, what, and what to try.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    span: Span,
    title: String,
    label: Option<String>,
    beside: Option<(Span, String)>,
    help: Option<String>,
}

impl Mistake {
    /// A mistake at `span`; `title` names the key and says what is wrong with it.
    pub(super) fn at(span: Span, title: impl Into<String>) -> Mistake {
        Mistake { span, title: title.into(), label: None, beside: None, help: None }
    }

    /// Words under the caret.
    pub(super) fn label(self, label: impl Into<String>) -> Mistake {
        Mistake { label: Some(label.into()), ..self }
    }

    /// Another place that this one contradicts.
    pub(super) fn beside(self, span: Span, label: impl Into<String>) -> Mistake {
        Mistake { beside: Some((span, label.into())), ..self }
    }

    /// What to try.
    pub(super) fn help(self, help: impl Into<String>) -> Mistake {
        Mistake { help: Some(help.into()), ..self }
    }

    fn line(&self, sources: &Sources) -> String {
        let place = sources.place(&self.span).unwrap_or_default();
        let label = self.label.as_ref().map(|label| format!(": {label}")).unwrap_or_default();
        let help = self.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        format!("{place}: {}{label}{help}", self.title)
    }

    fn group<'a>(&'a self, sources: &'a Sources) -> Group<'a> {
        let mut group = Group::with_title(Level::ERROR.primary_title(&*self.title));
        if let Some((part, span)) = sources.locate(&self.span) {
            let mut snippet = Snippet::source(&*part.text)
                .path(&*part.name)
                .annotation(AnnotationKind::Primary.span(span).label(self.label.as_deref()));
            if let Some((beside, label)) = &self.beside
                && let Some((other, span)) = sources.locate(beside)
                && std::ptr::eq(other, part)
            {
                snippet =
                    snippet.annotation(AnnotationKind::Context.span(span).label(label.as_str()));
            }
            group = group.element(snippet);
        }
        match &self.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }
}

/// Where mistakes are collected while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Log(RefCell<Vec<Mistake>>);

impl Log {
    /// Adds a mistake.
    pub(super) fn add(&self, mistake: Mistake) {
        self.0.borrow_mut().push(mistake);
    }

    /// What was collected.
    pub(super) fn into_vec(self) -> Vec<Mistake> {
        self.0.into_inner()
    }
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Clone, Debug)]
pub struct Mistakes {
    sources: Sources,
    list: Vec<Mistake>,
}

impl Mistakes {
    pub(super) fn new(sources: &Sources, mut list: Vec<Mistake>) -> Mistakes {
        list.sort_by_key(|mistake| mistake.span.start);
        Mistakes { sources: sources.clone(), list }
    }

    /// How many; at least one.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// One line for each mistake, with its place: for a log.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|mistake| mistake.line(&self.sources))
    }

    /// All mistakes with file, line, column, the line itself and a caret, coloured if `styled`.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let each = self.list.iter().map(|mistake| renderer.render(&[mistake.group(&self.sources)]));
        each.collect::<Vec<_>>().join("\n\n")
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Mistakes {}
