//! `gateway guard`: who may not send to guarded VIPs, who may whatever else is said, and how much.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use gateway_common::guard::List;
use gateway_core::challenge::ChallengeMode;

use super::{AdminArgs, client, say};
use crate::admin::{
    Guard, GuardChallenge, GuardChallengeChange, GuardChange, GuardChanged, GuardKeep,
    GuardKeepChange, GuardLimit, GuardLimitChange, GuardList,
};

#[derive(Debug, Args)]
pub(super) struct GuardArgs {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
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
    /// Say what each source may begin at a VIP, and send it, from now on and over a restart.
    Limit(LimitArgs),
    /// Show what sources may send to the VIPs that are guarded.
    Limits(AdminArgs),
    /// Say when a VIP asks sources of SYNs to prove that they are there, from now on and over a restart.
    Challenge(ChallengeArgs),
    /// Show when VIPs ask sources of SYNs to prove that they are there, and how many do not.
    Challenges(AdminArgs),
    /// Say whether new flows take no place of a confirmed one, from now on and over a restart.
    KeepConfirmed(KeepArgs),
}

#[derive(Debug, Args)]
struct KeepArgs {
    /// `on`, `off`, or `release` for what the configuration says; shows it unless given.
    #[arg(value_name = "WHETHER", value_parser = ["on", "off", "release"])]
    whether: Option<String>,
    /// File that the admin token lies in (`gateway.admin_token_file`).
    #[arg(long, value_name = "FILE", env = "GATEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Args)]
struct ChallengeArgs {
    /// Name of the VIP.
    vip: String,
    /// `off`, `auto` (while it is under a flood) or `always`.
    #[arg(long, required_unless_present = "release", value_parser = challenge_mode)]
    mode: Option<ChallengeMode>,
    /// New connections a second that stay unconfirmed, from which on it is a flood; as configured unless given.
    #[arg(long, value_name = "N", requires = "mode")]
    flood_per_second: Option<u32>,
    /// What the configuration says.
    #[arg(long, conflicts_with_all = ["mode", "flood_per_second"])]
    release: bool,
    /// File that the admin token lies in (`gateway.admin_token_file`).
    #[arg(long, value_name = "FILE", env = "GATEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
}

fn challenge_mode(word: &str) -> Result<ChallengeMode, String> {
    let found = ChallengeMode::ALL.into_iter().find(|mode| mode.as_str() == word);
    found.ok_or_else(|| "it is none of off, auto and always".to_owned())
}

#[derive(Debug, Args)]
struct LimitArgs {
    /// Name of the VIP.
    vip: String,
    /// Connections, and flows of datagrams, a second.
    #[arg(long, value_name = "N")]
    new_per_second: Option<f64>,
    /// At once, after a rest; a second's worth unless given.
    #[arg(long, value_name = "N", requires = "new_per_second")]
    new_burst: Option<u32>,
    /// Packets a second.
    #[arg(long, value_name = "N")]
    packets_per_second: Option<f64>,
    /// At once, after a rest; a second's worth unless given.
    #[arg(long, value_name = "N", requires = "packets_per_second")]
    packets_burst: Option<u32>,
    /// Bits of an address that make a source; 32 unless given, of IPv6 64.
    #[arg(long, value_name = "BITS")]
    source_prefix: Option<u32>,
    /// No limit, whatever the configuration says.
    #[arg(long, conflicts_with_all = ["new_per_second", "packets_per_second"])]
    off: bool,
    /// What the configuration says.
    #[arg(long, conflicts_with_all = ["off", "new_per_second", "packets_per_second"])]
    release: bool,
    /// File that the admin token lies in (`gateway.admin_token_file`).
    #[arg(long, value_name = "FILE", env = "GATEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    admin: AdminArgs,
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
    /// As 192.0.2.0/24, 192.0.2.7, or 2001:db8::/32.
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
    let (list, what) = match args.part {
        Part::Deny { what } => (List::Deny, what),
        Part::Allow { what } => (List::Allow, what),
        Part::Limit(args) => return limit(&args),
        Part::Limits(admin) => return show_limits(&admin),
        Part::Challenge(args) => return challenge(&args),
        Part::Challenges(admin) => return show_challenges(&admin),
        Part::KeepConfirmed(args) => return keep(&args),
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
    let changed: GuardChanged = client::parse(admin, &body)?;
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

fn limit(args: &LimitArgs) -> anyhow::Result<()> {
    let admin = args.admin.admin;
    let asked = GuardLimitChange {
        vip: args.vip.clone(),
        new_per_second: args.new_per_second,
        new_burst: args.new_burst,
        packets_per_second: args.packets_per_second,
        packets_burst: args.packets_burst,
        source_prefix: args.source_prefix,
        off: args.off,
        release: args.release,
    };
    let body = client::post(admin, "/v1/guard/limit", &asked, args.token_file.as_deref())?;
    if args.admin.json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let limit: GuardLimit = client::parse(admin, &body)?;
    say(&limit_words(&limit))
}

fn show_limits(args: &AdminArgs) -> anyhow::Result<()> {
    let guard = ask(args)?;
    if args.json {
        return say(&format!("{}\n", serde_json::to_string(&guard.limits)?));
    }
    if guard.limits.is_empty() {
        return say("no VIP is guarded\n");
    }
    say(&guard.limits.iter().map(limit_words).collect::<String>())
}

fn limit_words(limit: &GuardLimit) -> String {
    let rate = |per_second: Option<f64>, burst: Option<u32>, what: &str| {
        let (per_second, burst) = per_second.zip(burst)?;
        Some(format!("{per_second} {what} a second, {burst} at once"))
    };
    let rates = [
        rate(limit.new_per_second, limit.new_burst, "new flows"),
        rate(limit.packets_per_second, limit.packets_burst, "packets"),
    ];
    let rates: Vec<String> = rates.into_iter().flatten().collect();
    let words = match limit.source_prefix {
        Some(bits) => format!("each /{bits} {}", rates.join("; ")),
        None => "no limit".to_owned(),
    };
    let by = if limit.ordered { "ordered at run time" } else { "as configured" };
    format!("{}: {words} ({by})\n", limit.vip)
}

fn challenge(args: &ChallengeArgs) -> anyhow::Result<()> {
    let admin = args.admin.admin;
    let asked = GuardChallengeChange {
        vip: args.vip.clone(),
        mode: args.mode,
        flood_per_second: args.flood_per_second,
    };
    let body = client::post(admin, "/v1/guard/challenge", &asked, args.token_file.as_deref())?;
    if args.admin.json {
        return say(&format!("{}\n", String::from_utf8_lossy(&body)));
    }
    let challenge: GuardChallenge = client::parse(admin, &body)?;
    say(&challenge_words(&challenge))
}

fn show_challenges(args: &AdminArgs) -> anyhow::Result<()> {
    let guard = ask(args)?;
    if args.json {
        return say(&format!("{}\n", serde_json::to_string(&guard.challenges)?));
    }
    if guard.challenges.is_empty() {
        return say("no L4 VIP of TCP is guarded\n");
    }
    say(&guard.challenges.iter().map(challenge_words).collect::<String>())
}

fn challenge_words(of: &GuardChallenge) -> String {
    let when = match of.mode {
        ChallengeMode::Auto => {
            format!("auto, from {} unconfirmed a second on", of.flood_per_second)
        }
        mode => mode.as_str().to_owned(),
    };
    let by = if of.ordered { "ordered at run time" } else { "as configured" };
    let asks = if of.asks { "asks sources" } else { "asks nobody" };
    format!(
        "{}: {asks}, {:.0} unconfirmed a second; {when} ({by})\n",
        of.vip, of.unconfirmed_per_second
    )
}

fn keep(args: &KeepArgs) -> anyhow::Result<()> {
    let admin = args.admin.admin;
    let keep = match args.whether.as_deref() {
        None => ask(&args.admin)?.keep,
        Some(word) => {
            let keep_confirmed = (word != "release").then_some(word == "on");
            let asked = GuardKeepChange { keep_confirmed };
            let body = client::post(admin, "/v1/guard/keep", &asked, args.token_file.as_deref())?;
            client::parse(admin, &body)?
        }
    };
    if args.admin.json {
        return say(&format!("{}\n", serde_json::to_string(&keep)?));
    }
    say(keep_words(&keep))
}

fn keep_words(keep: &GuardKeep) -> &'static str {
    match (keep.keep_confirmed, keep.ordered) {
        (true, true) => "confirmed flows keep their places (ordered at run time)\n",
        (true, false) => "confirmed flows keep their places (as configured)\n",
        (false, true) => "a new flow may take any place (ordered at run time)\n",
        (false, false) => "a new flow may take any place (as configured)\n",
    }
}

fn ask(args: &AdminArgs) -> anyhow::Result<Guard> {
    let body = client::get(args.admin, "/v1/guard")?;
    client::parse(args.admin, &body)
}

fn show(list: List, args: &AdminArgs) -> anyhow::Result<()> {
    let guard = ask(args)?;
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

    #[test]
    fn when_a_vip_asks_is_told_in_words() {
        let mut of = GuardChallenge {
            vip: "web".to_owned(),
            mode: ChallengeMode::Auto,
            flood_per_second: 1_000,
            ordered: false,
            asks: true,
            unconfirmed_per_second: 9_000.4,
        };
        let words = "web: asks sources, 9000 unconfirmed a second; auto, from 1000 unconfirmed a second \
                     on (as configured)\n";
        assert_eq!(challenge_words(&of), words);
        of = GuardChallenge { mode: ChallengeMode::Off, asks: false, ordered: true, ..of };
        let words = "web: asks nobody, 9000 unconfirmed a second; off (ordered at run time)\n";
        assert_eq!(challenge_words(&of), words);
    }

    #[test]
    fn a_limit_is_told_in_words() {
        let mut limit = GuardLimit {
            vip: "web".to_owned(),
            new_per_second: Some(2.5),
            new_burst: Some(3),
            packets_per_second: None,
            packets_burst: None,
            source_prefix: Some(24),
            ordered: true,
        };
        let words = "web: each /24 2.5 new flows a second, 3 at once (ordered at run time)\n";
        assert_eq!(limit_words(&limit), words);
        limit = GuardLimit { source_prefix: None, ordered: false, ..limit };
        assert_eq!(limit_words(&limit), "web: no limit (as configured)\n");
    }
}
