//! `gateway guard`: who may not send to guarded VIPs, and who may whatever else is said.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use gateway_common::guard::List;

use super::{AdminArgs, client, say};
use crate::admin::{Guard, GuardChange, GuardChanged, GuardList};

#[derive(Debug, Args)]
pub(super) struct GuardArgs {
    #[command(subcommand)]
    list: ListArgs,
}

#[derive(Debug, Subcommand)]
enum ListArgs {
    /// Sources whose packets to guarded VIPs are dropped.
    Deny {
        #[command(subcommand)]
        what: What,
    },
    /// Sources that the guard lets through, whatever else it would do.
    Allow {
        #[command(subcommand)]
        what: What,
    },
}

#[derive(Debug, Subcommand)]
enum What {
    /// Put prefixes, or addresses, on the list, from now on and over a restart.
    Add(ChangeArgs),
    /// Take prefixes off the list that were added to it at run time.
    Remove(ChangeArgs),
    /// Show what was added to the list at run time, and its file.
    List(AdminArgs),
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// As 192.0.2.0/24, or 192.0.2.7.
    #[arg(required = true, value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// File that the admin token lies in (`gateway.admin_token_file`).
    #[arg(long, value_name = "FILE", env = "GATEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Asks the daemon, and says what it shows or did.
pub(super) fn run(args: GuardArgs) -> anyhow::Result<()> {
    let (list, what) = match args.list {
        ListArgs::Deny { what } => (List::Deny, what),
        ListArgs::Allow { what } => (List::Allow, what),
    };
    let name = list.as_str().to_owned();
    match what {
        What::Add(change) => {
            let add = change.prefixes.clone();
            post(&change, &GuardChange { list: name, add, ..GuardChange::default() })
        }
        What::Remove(change) => {
            let remove = change.prefixes.clone();
            post(&change, &GuardChange { list: name, remove, ..GuardChange::default() })
        }
        What::List(admin) => show(list, &admin),
    }
}

fn post(change: &ChangeArgs, asked: &GuardChange) -> anyhow::Result<()> {
    let admin = change.admin.admin;
    let body = client::post(admin, "/v1/guard", asked, change.token_file.as_deref())?;
    if change.admin.json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let changed: GuardChanged = serde_json::from_slice(&body)
        .with_context(|| format!("{admin} answered something unknown"))?;
    say(&words(&changed))
}

fn words(changed: &GuardChanged) -> String {
    let GuardChanged { list, added, removed, prefixes, guarded, kept } = changed;
    let mut text = format!("{list}: {added} added, {removed} removed; {prefixes} on it now\n");
    if guarded.is_empty() {
        text +=
            "no VIP is guarded, so that is for nothing: `guard = true` in `[[vip]]` guards one\n";
    }
    if !kept {
        text += "it is lost when the daemon ends: set `gateway.state` to keep it\n";
    }
    text
}

fn show(list: List, args: &AdminArgs) -> anyhow::Result<()> {
    let body = client::get(args.admin, "/v1/guard")?;
    let guard: Guard = serde_json::from_slice(&body)
        .with_context(|| format!("{} answered something unknown", args.admin))?;
    let found = guard.lists.iter().find(|of| of.list == list.as_str());
    let found = found.with_context(|| format!("{} tells of no such list", args.admin))?;
    if args.json {
        return say(&format!("{}\n", serde_json::to_string(found)?));
    }
    say(&render(found, &guard.guarded))
}

fn render(list: &GuardList, guarded: &[String]) -> String {
    let mut text = String::new();
    for prefix in &list.added {
        text += &format!("  {prefix}\n");
    }
    let file = match &list.file {
        Some(path) => format!("{} by {}", list.listed, path.display()),
        None => "no file".to_owned(),
    };
    let vips = if guarded.is_empty() { "no VIP is guarded".to_owned() } else { guarded.join(", ") };
    text + &format!("{}: {} added, {file}; guarded: {vips}\n", list.list, list.added.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_changes_a_list_hears_what_it_is_good_for() {
        let mut changed = GuardChanged {
            list: "deny".to_owned(),
            added: 2,
            removed: 0,
            prefixes: 7,
            guarded: vec!["web".to_owned()],
            kept: true,
        };
        assert_eq!(words(&changed), "deny: 2 added, 0 removed; 7 on it now\n");
        changed.guarded.clear();
        changed.kept = false;
        let text = words(&changed);
        assert!(text.contains("no VIP is guarded") && text.contains("gateway.state"), "{text}");
    }

    #[test]
    fn a_list_is_shown_with_its_file_counted() {
        let list = GuardList {
            list: "deny".to_owned(),
            file: Some("/etc/gateway/deny".into()),
            listed: 1_000_000,
            added: vec!["192.0.2.0/24".to_owned()],
        };
        assert_eq!(
            render(&list, &["web".to_owned()]),
            "  192.0.2.0/24\ndeny: 1 added, 1000000 by /etc/gateway/deny; guarded: web\n"
        );
    }
}
