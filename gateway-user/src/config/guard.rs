//! The `[guard]` table, and the files that it names: lists of prefixes, one a line.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gateway_common::limits::GUARD_PREFIXES_MAX;
use ipnet::IpNet;
use toml::Spanned;

use super::gateway::GatewaySpec;
use super::mistake::{Log, Mistake};
use super::section::Section;
use super::vip::VipDraft;
use crate::net;

/// Mistakes of one file that are shown; who has more has named the wrong file.
const MISTAKES_MAX: usize = 10;

/// What the guard goes by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GuardSpec {
    /// Who may not send to guarded VIPs.
    pub deny: Option<PrefixFile>,
    /// Who may, even so.
    pub allow: Option<PrefixFile>,
    /// Whether new flows take no line of a confirmed one.
    pub keep_confirmed: bool,
}

/// A list of prefixes.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixFile {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub prefixes: Arc<BTreeSet<IpNet>>,
}

/// The table as read.
#[derive(Debug, Default)]
pub(super) struct GuardDraft {
    deny: Option<Spanned<PathBuf>>,
    allow: Option<Spanned<PathBuf>>,
    keep_confirmed: Option<Spanned<bool>>,
}

/// Reads `[guard]`, if there is one.
pub(super) fn read(section: Option<Section<'_, '_>>) -> GuardDraft {
    let Some(mut section) = section else { return GuardDraft::default() };
    let draft = GuardDraft {
        deny: section.get("deny_file"),
        allow: section.get("allow_file"),
        keep_confirmed: section.get("keep_confirmed"),
    };
    section.finish();
    draft
}

/// A list that no VIP asks for would be a false hope.
pub(super) fn check_used(log: &Log, gateway: &GatewaySpec, guard: &GuardDraft, vips: &[VipDraft]) {
    if let Some(keep) = guard.keep_confirmed.as_ref().filter(|keep| *keep.get_ref())
        && gateway.interfaces.is_empty()
    {
        log.add(
            Mistake::at(keep.span(), "`guard.keep_confirmed` keeps nothing without an interface")
                .label("only XDP tracks flows")
                .help("add `interfaces = [\"eth0\"]` to `[gateway]`, or leave it out"),
        );
    }
    if vips.iter().any(|vip| vip.spec.as_ref().is_none_or(|spec| spec.guard)) {
        return;
    }
    for (key, file) in [("deny_file", &guard.deny), ("allow_file", &guard.allow)] {
        let Some(file) = file else { continue };
        log.add(
            Mistake::at(file.span(), format!("`guard.{key}` is for nothing"))
                .label("no VIP is guarded")
                .help("add `guard = true` to the `[[vip]]` that it is to guard"),
        );
    }
}

/// Reads the files.
pub(super) fn settle(log: &Log, draft: GuardDraft) -> GuardSpec {
    let file = |key: &str, path: Option<Spanned<PathBuf>>| {
        let path = path?;
        let span = path.span();
        match read_file(path.get_ref()) {
            Ok(prefixes) => {
                let prefixes = Arc::new(prefixes);
                Some(PrefixFile { path: path.into_inner(), prefixes })
            }
            Err(mistakes) => {
                for label in mistakes {
                    let title = format!("`guard.{key}` is no list of prefixes");
                    log.add(Mistake::at(span.clone(), title).label(label));
                }
                None
            }
        }
    };
    GuardSpec {
        deny: file("deny_file", draft.deny),
        allow: file("allow_file", draft.allow),
        keep_confirmed: draft.keep_confirmed.is_some_and(Spanned::into_inner),
    }
}

/// The prefixes of a file, or what is wrong with it.
fn read_file(path: &Path) -> Result<BTreeSet<IpNet>, Vec<String>> {
    let name = path.display();
    match File::open(path).map(|file| parse(BufReader::new(file))) {
        Ok(Ok(prefixes)) if prefixes.len() > GUARD_PREFIXES_MAX as usize => {
            let count = prefixes.len();
            Err(vec![format!("{name} has {count} prefixes; at most {GUARD_PREFIXES_MAX} fit")])
        }
        Ok(Ok(prefixes)) => Ok(prefixes),
        Ok(Err(mistakes)) => {
            Err(mistakes.into_iter().map(|mistake| format!("{name}:{mistake}")).collect())
        }
        Err(error) => Err(vec![format!("{name} cannot be read: {error}")]),
    }
}

/// Prefixes, one a line; what follows a `#` is a comment. Mistakes begin with the number of their line.
fn parse(text: impl BufRead) -> Result<BTreeSet<IpNet>, Vec<String>> {
    let (mut prefixes, mut mistakes) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        match line.map_err(|error| unreadable(&error)).and_then(|line| read_line(&line)) {
            Ok(prefix) => prefixes.extend(prefix),
            Err(mistake) => mistakes.push(format!("{number}: {mistake}")),
        }
        if mistakes.len() == MISTAKES_MAX {
            mistakes.push(format!("{number}: there may be more after this line"));
            break;
        }
    }
    // Sorted at once, which takes half the time of one by one.
    if mistakes.is_empty() { Ok(prefixes.into_iter().collect()) } else { Err(mistakes) }
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

fn read_line(line: &str) -> Result<Option<IpNet>, String> {
    let prefix = line.split('#').next().unwrap_or_default().trim();
    if prefix.is_empty() { Ok(None) } else { net::prefix(prefix).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_have_comments_and_empty_lines() {
        let text = "# a list\n\n2001:db8::/32\n 10.0.0.0/8 \n192.0.2.7 # one host\r\n10.0.0.0/8\n";
        let prefixes: Vec<String> =
            parse(text.as_bytes()).unwrap().iter().map(IpNet::to_string).collect();
        assert_eq!(prefixes, ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]);
        assert!(parse(&b""[..]).unwrap().is_empty());
    }

    #[test]
    fn every_wrong_line_is_told_by_its_number() {
        let mistakes = parse(&b"10.0.0.0/8\nten\n\n10.0.0.1/8\n\xff\n"[..]).unwrap_err();
        assert_eq!(mistakes.len(), 3);
        assert!(mistakes[0].starts_with("2: \"ten\" is no prefix"), "{}", mistakes[0]);
        assert!(mistakes[1].starts_with("4: ") && mistakes[1].contains("\"10.0.0.0/8\""));
        assert!(mistakes[2].starts_with("5: cannot be read"), "{}", mistakes[2]);
    }

    #[test]
    fn a_file_that_is_no_list_is_given_up_early() {
        let mistakes = parse("x\n".repeat(1_000).as_bytes()).unwrap_err();
        assert_eq!(mistakes.len(), MISTAKES_MAX + 1);
    }
}
