//! `[pool.admission]`: which requests are refused first when it is too much.

use std::time::Duration;

use gateway_core::admission::{AdmissionSpec, PathRule, Priority, RefusedWith};
use toml::Spanned;

use super::mistake::Mistake;
use super::pool::{Unique, read_header};
use super::section::{Item, Section};

/// Rules of one pool: each is looked at for each request.
const RULES_MAX: usize = 64;

const WORDS: [(&str, Priority); 4] = [
    ("critical", Priority::Critical),
    ("high", Priority::High),
    ("normal", Priority::Normal),
    ("low", Priority::Low),
];

/// Reads it; its being there switches admission on, unless it says otherwise.
pub(super) fn read(mut section: Section<'_, '_>) -> Option<AdmissionSpec> {
    let default = AdmissionSpec::default();
    let is_on = section.get_or("enabled", true);
    let otherwise = section.word("otherwise", &WORDS);
    let status = section.get::<u32>("status");
    let spec = AdmissionSpec {
        header: read_header(&mut section, "header"),
        rules: read_rules(&mut section),
        otherwise: otherwise.map_or(default.otherwise, Spanned::into_inner),
        share_max: section.within("share_max", default.share_max, 0.01..=1.0),
        wait_max: section.within(
            "wait_max",
            default.wait_max,
            Duration::from_millis(1)..=Duration::from_secs(600),
        ),
        refused_with: status.map_or(default.refused_with, |status| read_status(&section, &status)),
    };
    section.finish();
    is_on.then_some(spec)
}

fn read_status(section: &Section<'_, '_>, status: &Spanned<u32>) -> RefusedWith {
    match status.get_ref() {
        503 => RefusedWith::ServiceUnavailable,
        429 => RefusedWith::TooManyRequests,
        other => {
            section.mistake(
                Mistake::at(status.span(), format!("`{}` is {other}", section.name("status")))
                    .label("must be 503 or 429")
                    .help("503 says that the service is short, 429 that the client asks too much"),
            );
            RefusedWith::ServiceUnavailable
        }
    }
}

fn read_rules(section: &mut Section<'_, '_>) -> Vec<PathRule> {
    let items = section.items("rule");
    if items.len() > RULES_MAX {
        let title = format!("`{}` has {} rules", section.name("rule"), items.len());
        section
            .mistake(Mistake::at(section.span(), title).label(format!("at most {RULES_MAX} fit")));
    }
    let mut prefixes = Unique::new("path");
    let mut rules = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Item::Table(rule) => rules.extend(read_rule(section, rule, &mut prefixes)),
            Item::Other(value) => section.unexpected(
                "rule",
                value,
                "a table: `{ path = \"/batch\", priority = \"low\" }`",
            ),
        }
    }
    rules
}

fn read_rule(
    section: &Section<'_, '_>,
    mut rule: Section<'_, '_>,
    prefixes: &mut Unique<String>,
) -> Option<PathRule> {
    let path = rule.require::<String>("path", "path = \"/batch\"");
    if !rule.has("priority") {
        rule.missing("priority", "priority = \"low\"");
    }
    let priority = rule.word("priority", &WORDS);
    if let Some(path) = &path {
        if !path.get_ref().starts_with('/') {
            let title = format!("`{}` cannot be {:?}", rule.name("path"), path.get_ref());
            rule.mistake(
                Mistake::at(path.span(), title)
                    .label("no path begins so")
                    .help("begin with a slash, as in \"/batch\""),
            );
        }
        prefixes.claim(section, path.span(), path.get_ref());
    }
    rule.finish();
    Some(PathRule { prefix: path?.into_inner(), priority: priority?.into_inner() })
}
