//! Every mistake that an operator makes is shown in its place; what is right is read rightly.

use std::time::Duration;

use gateway_core::admission::{AdmissionSpec, PathRule, Priority, RefusedWith};
use gateway_core::fleet::{
    Admission, AffinitySpec, Algorithm, HttpSpec, LlmSpec, Mode, PolicySpec, ProbeKind, ProbeSpec,
    Protocol, WeightMode,
};
use gateway_core::fleet::{AutoscaleSpec, RateSpec};
use gateway_core::recovery::RecoverySpec;
use gateway_core::target::{Command, HttpUrl, Webhook};
use proptest::prelude::{prop_assert, proptest};
use rustix::thread::CapabilitySet;

use super::*;

/// The default that is shipped.
const SHIPPED: &str = include_str!("../../../config/gateway.toml");

const FIVE_LINES: &str = r#"[[vip]]
address = "127.0.0.1:8080"
[[pool]]
name = "web"
backend = ["127.0.0.1:9001", "127.0.0.1:9002"]
"#;

/// An L4 configuration to which each case adds its mistake.
const L4: &str = r#"[gateway]
interfaces = ["eth0"]
[[vip]]
address = "10.0.0.100:80"
[[pool]]
name = "web"
backend = ["10.1.0.1:80"]
"#;

fn checked(text: &str) -> Checked {
    check(Path::new("gateway.toml"), text, &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn mistakes(text: &str) -> Mistakes {
    check(Path::new("gateway.toml"), text, &[]).expect_err("the text has a mistake")
}

/// The text has this one mistake, whose title and help contain the given words.
#[track_caller]
fn has_one(text: &str, place: &str, words: &[&str]) {
    let shown = mistakes(text).to_string();
    assert_eq!(shown.matches("error:").count(), 1, "{shown}");
    assert!(shown.contains(&format!("gateway.toml:{place}\n")), "not at {place}:\n{shown}");
    for word in words {
        assert!(shown.contains(word), "no {word:?} in\n{shown}");
    }
}

#[test]
fn five_lines_are_enough_to_begin() {
    let fleet = checked(FIVE_LINES).fleet;
    assert_eq!(fleet.vips[0].layer, Layer::L7, "without an interface the proxy serves it");
    assert_eq!(fleet.vips[0].name, "127.0.0.1:8080");
    let pool = &fleet.pools[0];
    assert_eq!((pool.algorithm, pool.weights), (Algorithm::P2c, WeightMode::Learned));
    assert_eq!(pool.backends[1].name, "127.0.0.1:9002");
    assert_eq!(pool.backends[1].capacity, 1.0);
    assert_eq!(pool.probe, None);
}

#[test]
fn the_shipped_default_has_no_mistake() {
    let checked = checked(SHIPPED);
    assert_eq!(checked.gateway, self::checked(FIVE_LINES).gateway, "it shows the defaults");
    assert_eq!(checked.fleet.pools[0].policy, PolicySpec::default());
    assert_eq!(checked.fleet.pools[0].http, HttpSpec::default());
}

#[test]
fn every_key_that_the_shipped_default_shows_is_one_with_that_default() {
    // What is commented out is switched on; only prose stays a comment.
    let is_key = |line: &str| {
        let key = line.strip_prefix("# ").and_then(|line| line.split_once(" = "));
        key.is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            || ["# [[client_class]]", "# [pool.autoscale]", "# [pool.recovery]"].contains(&line)
    };
    let uncomment = |line: &str| match line {
        // The host and the rest of the file decide these; of the last there is none by default.
        line if [
            "nat_address",
            "proxy_threads",
            "tenant_header",
            "header =",
            "rule =",
            "affinity_h",
            "port = 8081",
            "new_per_second",
            "new_burst",
            "packets_per_second",
            "packets_burst",
            "source_prefix",
            "keep_confirmed",
            "_file = \"/etc/gateway/deny",
            "_file = \"/etc/gateway/allow",
        ]
        .iter()
        .any(|k| line.contains(k)) =>
        {
            line.to_owned()
        }
        line if is_key(line) => line["# ".len()..].to_owned(),
        line => line.to_owned(),
    };
    let text = SHIPPED.lines().map(uncomment).collect::<Vec<_>>().join("\n");
    let (shown, shipped) = (checked(&text), checked(SHIPPED));
    assert_eq!(shown.gateway.interfaces, ["eth0"]);
    assert_eq!(shown.fleet.client_classes, [("10.0.0.0".parse().unwrap(), 8, 1)]);
    let mut pools = shown.fleet.pools.clone();
    let told = "[pool.autoscale]\nwebhook = \"http://127.0.0.1:8000/scale\"";
    let told = checked(&format!("{FIVE_LINES}\n{told}")).fleet.pools.remove(0).autoscale;
    assert_eq!(pools[0].autoscale.take(), told);
    let acts = "[pool.recovery]\nwebhook = \"http://127.0.0.1:8000/recover\"\n\
                command = [\"/usr/local/bin/restart-backend\"]";
    let acts = checked(&format!("{FIVE_LINES}\n{acts}")).fleet.pools.remove(0).recovery;
    assert_eq!(pools[0].recovery.take(), acts);
    assert_eq!(pools, shipped.fleet.pools);
    assert_eq!(shown.gateway.state, Some("/var/lib/gateway/state".into()));
    assert_eq!(shown.gateway.models, Some("/var/lib/gateway/models".into()));
    assert_eq!(shown.gateway.admin_token_file, Some("/etc/gateway/admin-token".into()));
    let gateway = GatewaySpec {
        interfaces: Vec::new(),
        admin_token_file: None,
        state: None,
        models: None,
        ..shown.gateway
    };
    assert_eq!(gateway, shipped.gateway);
}

/// Every key, each with a value that is not the default.
const EVERY_KEY: &str = r#"
[gateway]
interfaces = ["eth0", "eth1"]
xdp_mode = "native"
admin = "127.0.0.2:9901"
admin_token_file = "/etc/gateway/other"
tick = "100ms"
flows_max = 4096
nat_ports = "20000-29999"
pin_dir = "/sys/fs/bpf/other"
state = "/var/lib/gateway/other"
models = "/var/lib/gateway/other-models"
history = "1MiB"
weights_age_max = "0s"
proxy_threads = 3
drain_timeout = "5s"
drop_privileges = false
keep_capabilities = ["CAP_KILL", "CAP_DAC_OVERRIDE"]
[[vip]]
name = "site"
address = "10.0.0.100:443"
protocol = "udp"
layer = "l4"
pool = "site"
[[pool]]
name = "spare"
backend = ["10.1.0.9:80"]
[[pool]]
name = "site"
algorithm = "maglev"
weights = "equal"
retry_refused = false
reset_lost = true
affinity = "prefix"
affinity_header = "X-Session"
affinity_load_max = 1.1
[[pool.backend]]
name = "one"
address = "10.1.0.1:80"
capacity = 2
admission = "draining"
nat_address = "10.1.0.254"
[pool.probe]
path = "/healthz"
interval = "2s"
timeout = "1s"
rise = 1
fall = 5
port = 8081
[pool.policy]
weight_min = 0.1
slow_start = "0s"
[pool.http]
retries = 0
connect_timeout = "250ms"
tenant_header = "X-Tenant"
[pool.llm]
read_bodies = true
paths = ["/ask"]
body_max = "1MiB"
wait_max = "20ms"
[pool.admission]
header = "X-Priority"
rule = [{ path = "/batch", priority = "low" }]
otherwise = "high"
share_max = 0.9
wait_max = "1s"
status = 429
[pool.autoscale]
webhook = "http://scaler:8000/scale?token=t"
timeout = "1s"
step = 3
interval = "5m"
[pool.recovery]
webhook = "http://oncall:8000/cut"
command = ["/usr/local/bin/restart", "--now", "a b"]
timeout = "2s"
per_hour = 2
cool_down = "1h"
[[client_class]]
prefix = "192.0.2.0/24"
class = 6
"#;

#[test]
fn every_key_is_read() {
    let config = checked(EVERY_KEY);
    let gateway = GatewaySpec {
        interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
        xdp_mode: XdpMode::Native,
        admin: "127.0.0.2:9901".parse().unwrap(),
        admin_allow_remote: false,
        admin_token_file: Some("/etc/gateway/other".into()),
        tick: Duration::from_millis(100),
        flows_max: 4_096,
        nat_ports: 20_000..=29_999,
        pin_dir: "/sys/fs/bpf/other".into(),
        state: Some("/var/lib/gateway/other".into()),
        models: Some("/var/lib/gateway/other-models".into()),
        history: 1 << 20,
        weights_age_max: Duration::ZERO,
        proxy_threads: 3,
        drain_timeout: Duration::from_secs(5),
        drop_privileges: false,
        keep_capabilities: CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE,
    };
    assert_eq!(config.gateway, gateway);
    let vip = &config.fleet.vips[0];
    assert_eq!((vip.name.as_str(), vip.layer, vip.pool), ("site", Layer::L4, 1));
    assert_eq!(vip.protocol, Protocol::Udp);
    let pool = &config.fleet.pools[1];
    assert_eq!((pool.algorithm, pool.weights), (Algorithm::Maglev, WeightMode::Equal));
    assert!(!pool.retry_refused);
    assert!(pool.reset_lost);
    let backend = &pool.backends[0];
    assert_eq!((backend.capacity, backend.admission), (2.0, Admission::Draining));
    assert_eq!(backend.nat_addr.to_string(), "10.1.0.254");
    let probe = ProbeSpec {
        kind: ProbeKind::Http { path: "/healthz".to_owned() },
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 5,
        port: Some(8_081),
    };
    assert_eq!(pool.probe, Some(probe));
    assert_eq!(pool.policy.weight_min, 0.1);
    assert_eq!(pool.policy.slow_start, Duration::ZERO);
    assert_eq!((pool.http.retries, pool.http.connect_timeout), (0, Duration::from_millis(250)));
    assert_eq!(pool.http.tenant_header.as_deref(), Some("x-tenant"));
    let llm = LlmSpec {
        read_bodies: true,
        paths: vec!["/ask".to_owned()],
        body_max: 1 << 20,
        wait_max: Duration::from_millis(20),
    };
    assert_eq!(pool.http.llm, llm);
    let admission = AdmissionSpec {
        header: Some("x-priority".to_owned()),
        rules: vec![PathRule { prefix: "/batch".to_owned(), priority: Priority::Low }],
        otherwise: Priority::High,
        share_max: 0.9,
        wait_max: Duration::from_secs(1),
        refused_with: RefusedWith::TooManyRequests,
    };
    assert_eq!(pool.admission, Some(admission));
    let url = HttpUrl::parse("http://scaler:8000/scale?token=t").unwrap();
    let autoscale = AutoscaleSpec {
        webhook: Webhook { url, timeout: Duration::from_secs(1) },
        step: 3,
        interval: Duration::from_secs(300),
    };
    assert_eq!(pool.autoscale, Some(autoscale));
    let timeout = Duration::from_secs(2);
    let url = HttpUrl::parse("http://oncall:8000/cut").unwrap();
    let args = vec!["--now".to_owned(), "a b".to_owned()];
    let recovery = RecoverySpec {
        webhook: Some(Webhook { url, timeout }),
        command: Some(Command { program: "/usr/local/bin/restart".into(), args, timeout }),
        reset_connections: false,
        per_hour: 2,
        cool_down: Duration::from_secs(3_600),
    };
    assert_eq!(pool.recovery, Some(recovery));
    assert_eq!(config.fleet.pools[0].recovery, None, "nothing is done unless it is asked for");
    assert_eq!(config.fleet.pools[0].admission, None, "nothing is refused unless it is asked for");
    let header = Some("x-session".to_owned());
    assert_eq!(pool.http.affinity, AffinitySpec { by_prefix: true, header, load_max: 1.1 });
    assert_eq!(config.fleet.client_classes, [("192.0.2.0".parse().unwrap(), 24, 6)]);
}

#[test]
fn what_the_shipped_default_shows_of_admission_is_its_default() {
    let text = SHIPPED.replace("enabled = false", "enabled = true");
    assert_eq!(checked(&text).fleet.pools[0].admission, Some(AdmissionSpec::default()));
}

#[test]
fn a_webhook_that_nobody_can_post_to_is_a_mistake() {
    let webhook = |lines: &str| format!("{FIVE_LINES}\n[pool.autoscale]\n{lines}\n");
    has_one(&webhook("step = 2"), "7:1", &["`pool.autoscale.webhook` is missing"]);
    has_one(&webhook("webhook = \"https://s/\""), "8:11", &["https is not spoken", "a relay"]);
    has_one(&webhook("webhook = \"scaler\""), "8:11", &["it must begin with \"http://\""]);
}

#[test]
fn recovery_that_cannot_be_is_a_mistake() {
    let recovery = |lines: &str| format!("{FIVE_LINES}\n[pool.recovery]\n{lines}\n");
    let resets = checked(&recovery("reset_connections = true")).fleet.pools.remove(0).recovery;
    let resets = resets.expect("it is there");
    assert!(resets.reset_connections && resets.command.is_none() && resets.webhook.is_none());

    has_one(&recovery("per_hour = 2"), "7:1", &["does nothing", "add `webhook`, `command`"]);
    has_one(&recovery("webhook = \"https://s/\""), "8:11", &["https is not spoken"]);
    for command in ["\"/bin/restart\"", "[]", "[\"restart\"]", "[\"/r\", 1]"] {
        has_one(
            &recovery(&format!("command = {command}")),
            "8:11",
            &["`pool.recovery.command` cannot be ", "a list of a program's absolute path and"],
        );
    }
    let per_hour = recovery("reset_connections = true\nper_hour = 0");
    has_one(&per_hour, "9:12", &["must be from 1 to 1000"]);
    let cool_down = recovery("reset_connections = true\ncool_down = \"0s\"");
    has_one(&cool_down, "9:13", &["must be from 1s to 1day"]);
}

#[test]
fn recovery_that_would_never_act_is_a_mistake() {
    let resets = format!("{L4}[pool.recovery]\nreset_connections = true\n");
    let words = ["only L4 VIPs use the pool", "`layer = \"l7\"`"];
    has_one(&resets, "9:21", &words);
    let both = format!("{resets}[[vip]]\naddress = \"10.0.0.100:81\"\nlayer = \"l7\"\n");
    assert!(checked(&both).fleet.pools[0].recovery.is_some(), "the proxy's are reset");
    let manual = format!("{L4}weights = \"manual\"\n[pool.recovery]\ncommand = [\"/r\"]\n");
    has_one(&manual, "9:1", &["a manual pool has no recovery actions"]);
}

#[test]
fn a_program_that_cannot_be_run_is_found_before_it_is_needed() {
    let settled = |program: &str| {
        let lines = format!("[pool.recovery]\ncommand = [{program:?}]\n");
        checked(&format!("{FIVE_LINES}{lines}")).settle()
    };
    assert!(settled("/bin/sh").is_ok());
    for program in ["/nowhere", "/", "/etc/passwd"] {
        let shown = settled(program).unwrap_err().to_string();
        assert!(shown.contains(&format!("{program} cannot be run")), "{shown}");
        assert!(shown.contains("gateway.toml:7:11"), "{shown}");
    }
}

#[test]
fn priorities_that_nobody_can_have_are_mistakes() {
    let admission = |lines: &str| format!("{FIVE_LINES}\n[pool.admission]\n{lines}\n");
    has_one(&admission("status = 500"), "8:10", &["must be 503 or 429"]);
    has_one(&admission("otherwise = \"lwo\""), "8:13", &["did you mean \"low\"?"]);
    has_one(&admission("header = \"x y\""), "8:10", &["not the name of a header"]);
    let path = "rule = [{ path = \"batch\", priority = \"low\" }]";
    has_one(&admission(path), "8:18", &["begin with a slash"]);
    let twice =
        "rule = [{ path = \"/a\", priority = \"low\" }, { path = \"/a\", priority = \"high\" }]";
    has_one(&admission(twice), "8:53", &["claimed twice"]);
    has_one(
        &admission("rule = [{ path = \"/a\" }]"),
        "8:9",
        &["`pool.admission.rule.priority` is missing"],
    );
}

#[test]
fn all_mistakes_are_shown_at_once_each_in_its_place() {
    let shown = mistakes(
        r#"[gateway]
tikc = "250ms"
admin = 9900
nat_ports = "30000-20000"

[[vip]]
name = "web"
address = "10.0.0.100:80"
layer = "l7"
pool = "wbe"

[[pool]]
name = "web"
algorithm = "p2x"
"#,
    );
    assert_eq!(shown.count(), 6);
    assert_eq!(
        shown.to_string(),
        r#"error: `gateway.tikc` is not a known key
 --> gateway.toml:2:1
  |
2 | tikc = "250ms"
  | ^^^^ unknown
  |
  = help: did you mean `tick`?

error: `gateway.admin` cannot be a whole number
 --> gateway.toml:3:9
  |
3 | admin = 9900
  |         ^^^^ expected an address and port such as "10.0.0.1:80" or "[2001:db8::1]:80"

error: `gateway.nat_ports` is 30000-20000
 --> gateway.toml:4:13
  |
4 | nat_ports = "30000-20000"
  |             ^^^^^^^^^^^^^ 30000 is above 20000
  |
  = help: leave it out for the default, "10000-32767"

error: there is no pool "wbe"
  --> gateway.toml:10:8
   |
10 | pool = "wbe"
   |        ^^^^^ unknown pool
   |
   = help: did you mean "web"?

error: pool "web" has no backend
  --> gateway.toml:12:1
   |
12 | [[pool]]
   | ^^^^^^^^ nobody would serve it
   |
   = help: add `[[pool.backend]]` with an address, or `backend = ["10.0.0.1:80"]`

error: `pool.algorithm` does not know "p2x"
  --> gateway.toml:14:13
   |
14 | algorithm = "p2x"
   |             ^^^^^ not a known word
   |
   = help: did you mean "p2c"? Known are "p2c", "maglev""#
    );
}

#[test]
fn a_vip_claimed_twice_shows_both_places() {
    let shown = mistakes(&format!("{FIVE_LINES}[[vip]]\naddress = \"127.0.0.1:8080\"\n"));
    assert_eq!(
        shown.to_string(),
        r#"error: VIP address 127.0.0.1:8080 is claimed twice
 --> gateway.toml:7:11
  |
2 | address = "127.0.0.1:8080"
  |           ---------------- first claimed here
...
7 | address = "127.0.0.1:8080"
  |           ^^^^^^^^^^^^^^^^ claimed again
  |
  = help: each must be unique"#
    );
}

#[test]
fn text_that_is_not_toml_is_shown_where_it_stops_being_so() {
    let shown = mistakes("tick = \nadmin = = 1\n").to_string();
    assert!(shown.contains("error: not TOML: "), "{shown}");
    assert!(shown.contains("gateway.toml:1:8"), "{shown}");
    assert!(shown.contains("gateway.toml:2:9"), "both mistakes at once: {shown}");
}

#[test]
fn an_empty_file_says_what_a_configuration_needs() {
    let shown = mistakes("").to_string();
    assert!(shown.contains("there is no VIP") && shown.contains("add `[[vip]]`"), "{shown}");
    assert!(shown.contains("there is no pool") && shown.contains("add `[[pool]]`"), "{shown}");
}

#[test]
fn a_table_where_a_list_belongs_is_told_how_to_be_one() {
    let text = FIVE_LINES.replace("[[vip]]", "[vip]");
    has_one(&text, "1:1", &["`vip` is not a list", "write `[[vip]]`"]);
}

#[test]
fn names_and_addresses_are_claimed_once() {
    let twice = FIVE_LINES.replace("127.0.0.1:9002", "127.0.0.1:9001");
    let shown = mistakes(&twice).to_string();
    assert!(shown.contains("backend address 127.0.0.1:9001 is claimed twice"), "{shown}");
    let pools = format!("{FIVE_LINES}[[pool]]\nname = \"web\"\nbackend = [\"127.0.0.1:1\"]\n")
        .replace("8080\"\n", "8080\"\npool = \"web\"\n");
    has_one(&pools, "8:8", &["pool name web is claimed twice"]);
    let interfaces = L4.replace("[\"eth0\"]", "[\"eth0\", \"eth0\"]");
    has_one(&interfaces, "2:23", &["interface \"eth0\" is named twice"]);
}

#[test]
fn names_are_fit_for_labels_and_queries() {
    let named = |name: &str| FIVE_LINES.replace("name = \"web\"", &format!("name = {name}"));
    has_one(&named("\"a/b\""), "4:8", &["`pool.name` cannot be \"a/b\"", "letters, digits"]);
    has_one(&named("\"\""), "4:8", &["expected a name"]);
    has_one(&named("\"a\\nb\""), "4:8", &["expected a name"]);
    has_one(&named(&format!("{:?}", "x".repeat(65))), "4:8", &["up to 64"]);
    checked(&named("\"web-1_a.b:80\""));
}

#[test]
fn a_pool_without_backends_is_a_mistake() {
    let none = FIVE_LINES.replace("backend = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n", "");
    has_one(&none, "3:1", &["pool \"web\" has no backend"]);
    let empty = FIVE_LINES.replace("\"127.0.0.1:9001\", \"127.0.0.1:9002\"", "");
    has_one(&empty, "3:1", &["has an empty list of backends"]);
}

#[test]
fn numbers_outside_their_bounds_are_mistakes() {
    let backend = |line: &str| {
        format!(
            "{}[[pool.backend]]\naddress = \"127.0.0.1:9001\"\n{line}\n",
            FIVE_LINES.replace("backend = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n", "")
        )
    };
    has_one(&backend("capacity = 0"), "7:12", &["`pool.backend.capacity` is 0"]);
    has_one(&backend("capacity = -1.5"), "7:12", &["must be from 0.01 to 100"]);
    has_one(&backend("capacity = nan"), "7:12", &["cannot be a number", "expected a number"]);
    let policy = |line: &str| format!("{FIVE_LINES}[pool.policy]\n{line}\n");
    has_one(&policy("weight_min = 5"), "7:14", &["must be from 0.001 to 1"]);
    has_one(&policy("weight_max = 0.5"), "7:14", &["must be from 1 to 4"]);
    has_one(&policy("failures_in_a_row = 0"), "7:21", &["must be from 1 to 1000"]);
    let http = format!("{FIVE_LINES}[pool.http]\nretries = 2\n");
    has_one(&http, "7:11", &["`pool.http.retries` is 2", "must be from 0 to 1"]);
    let http = format!("{FIVE_LINES}[pool.http]\ntenant_header = \"x tenant\"\n");
    has_one(&http, "7:17", &["`pool.http.tenant_header` is", "not the name of a header"]);
    let llm = |line: &str| format!("{FIVE_LINES}[pool.llm]\n{line}\n");
    has_one(&llm("body_max = \"64\""), "7:12", &["body_max` cannot be", "a size such as"]);
    let large = llm("body_max = \"1GiB\"");
    has_one(&large, "7:12", &["is 1GiB", "must be from 1KiB to 16MiB", "the default, 256KiB"]);
    let affinity = format!("{FIVE_LINES}affinity = \"prefix\"\n");
    has_one(&affinity, "6:12", &["no body is read", "`read_bodies = true`"]);
    has_one(&llm("paths = [\"v1\"]"), "7:10", &["cannot have \"v1\"", "begin with a slash"]);
    let tick = L4.replace("[gateway]", "[gateway]\ntick = \"1ms\"");
    has_one(&tick, "2:8", &["`gateway.tick` is 1ms", "must be from 10ms to 10s"]);
}

#[test]
fn capacities_that_draws_cannot_follow_are_a_mistake() {
    let pool = |capacity: f64, light: usize, weights: &str| {
        let mut text =
            FIVE_LINES.replace("backend = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n", "");
        text += &format!("weights = \"{weights}\"\n");
        text += &format!("[[pool.backend]]\naddress = \"127.0.0.1:9000\"\ncapacity = {capacity}\n");
        let light = (1..=light).map(|n| format!("[[pool.backend]]\naddress = \"127.0.0.1:{n}\"\n"));
        text + &light.collect::<String>()
    };
    let words = ["`pool.backend.capacity` of \"127.0.0.1:9000\" is 100", "must be at most 5.02"];
    has_one(&pool(100.0, 19, "static"), "8:12", &words);
    has_one(&pool(100.0, 63, "learned"), "8:12", &["beside these 63", "several ports"]);
    checked(&pool(100.0, 63, "equal"));
    checked(&pool(4.9, 19, "learned"));
    checked(&pool(100.0, 6, "learned"));
}

#[test]
fn times_that_contradict_each_other_are_mistakes() {
    let probe = |lines: &str| format!("{FIVE_LINES}[pool.probe]\n{lines}\n");
    has_one(
        &probe("interval = \"1s\"\ntimeout = \"2s\""),
        "8:11",
        &["at most the interval, 1s", "one probe must end before the next begins"],
    );
    let age = L4.replace("[gateway]", "[gateway]\ntick = \"1s\"\nweights_age_max = \"2s\"");
    has_one(&age, "3:19", &["at least 4s"]);
}

#[test]
fn a_probe_that_contradicts_itself_is_a_mistake() {
    let probe = |lines: &str| format!("{FIVE_LINES}[pool.probe]\n{lines}\n");
    has_one(&probe("kind = \"tcp\"\npath = \"/x\""), "8:8", &["means nothing to a TCP probe"]);
    has_one(&probe("path = \"healthz\""), "7:8", &["not a path and query"]);
    has_one(&probe("path = \"/a b\""), "7:8", &["not a path and query"]);
}

#[test]
fn tcp_and_udp_may_share_an_address_and_udp_is_for_l4_alone() {
    let vip = |protocol: &str, layer: &str| {
        format!(
            "[[vip]]\naddress = \"10.0.0.100:53\"\nprotocol = {protocol:?}\nlayer = {layer:?}\n"
        )
    };
    let text = |vips: &str| {
        let pool = "[[pool]]\nname = \"dns\"\nbackend = [\"10.1.0.10:53\"]\n";
        format!("[gateway]\ninterfaces = [\"eth0\"]\n{vips}{pool}")
    };
    let both = text(&(vip("tcp", "l4") + &vip("udp", "l4")));
    let config = checked(&both);
    let names: Vec<&str> = config.fleet.vips.iter().map(|vip| vip.name.as_str()).collect();
    assert_eq!(names, ["10.0.0.100:53", "10.0.0.100:53/udp"]);
    let protocols = config.fleet.vips.iter().map(|vip| vip.protocol);
    assert!(protocols.eq([Protocol::Tcp, Protocol::Udp]));

    let twice = mistakes(&text(&(vip("udp", "l4") + &vip("udp", "l4")))).to_string();
    assert!(twice.contains("VIP address of UDP 10.0.0.100:53 is claimed twice"), "{twice}");
    let proxied = mistakes(&text(&vip("udp", "l7"))).to_string();
    assert!(proxied.contains("an L7 VIP cannot be UDP"), "{proxied}");
}

#[test]
fn a_probe_may_ask_at_a_port_of_its_own() {
    let probe = |port: &str| format!("{FIVE_LINES}[pool.probe]\nport = {port}\n");
    let config = checked(&probe("8081"));
    assert_eq!(config.fleet.pools[0].probe.as_ref().unwrap().port, Some(8_081));
    for port in ["0", "65536"] {
        let shown = mistakes(&probe(port)).to_string();
        assert!(shown.contains(&format!("`pool.probe.port` cannot be {port}")), "{shown}");
    }
}

#[test]
fn addresses_that_nobody_can_have_are_mistakes() {
    let vip = |addr: &str| FIVE_LINES.replace("127.0.0.1:8080", addr);
    has_one(&vip("127.0.0.1:0"), "2:11", &["port 0 cannot be connected to"]);
    has_one(&vip("224.0.0.1:80"), "2:11", &["the address of one host"]);
    has_one(&vip("127.0.0.1"), "2:11", &["expected an address and port"]);
    has_one(&vip("2001:db8::1:80"), "2:11", &["or \"[2001:db8::1]:80\""]);
    has_one(&vip("[ff02::1]:80"), "2:11", &["the address of one host"]);
    has_one(&vip("[fe80::1]:80"), "2:11", &["on one link only", "fd00::/8"]);
    has_one(&vip("[2001:db8::1%2]:80"), "2:11", &["on one link only"]);
    has_one(&vip("[::ffff:127.0.0.1]:80"), "2:11", &["in an IPv6 one", "write \"127.0.0.1:80\""]);
    has_one(&vip("127.0.0.1:9900"), "2:11", &["taken by `gateway.admin`"]);
    has_one(&vip("127.0.0.1:9001"), "5:12", &["requests would go round in a circle"]);
    let backend = |addr: &str| FIVE_LINES.replace("127.0.0.1:9002", addr);
    has_one(&backend("127.0.0.1:0"), "5:30", &["port 0 cannot be connected to"]);
    has_one(&backend("0.0.0.0:80"), "5:30", &["0.0.0.0 is nobody's address"]);
    has_one(&backend("255.255.255.255:80"), "5:30", &["a broadcast address"]);
    has_one(&backend("[::]:80"), "5:30", &[":: is nobody's address"]);
    has_one(&backend("[::ffff:10.0.0.1]:80"), "5:30", &["write \"10.0.0.1:80\""]);
    has_one(&backend("nonsense"), "5:30", &["`pool.backend` cannot be \"nonsense\""]);
}

#[test]
fn the_proxy_has_both_families_on_both_sides() {
    let mixed = FIVE_LINES.replace("127.0.0.1:8080", "[2001:DB8:0:0::100]:443");
    let config = checked(&mixed.replace("127.0.0.1:9002", "[fd00::2]:9002"));
    assert_eq!(config.fleet.vips[0].name, "[2001:db8::100]:443");
    let names: Vec<_> = config.fleet.pools[0].backends.iter().map(|one| &one.name).collect();
    assert_eq!(names, ["127.0.0.1:9001", "[fd00::2]:9002"]);
    let any = |addr: &str| format!("[[vip]]\naddress = \"{addr}:80\"\n");
    let both = format!("{}{}{FIVE_LINES}", any("0.0.0.0"), any("[::]"));
    assert_eq!(checked(&both).fleet.vips.len(), 3);
    let twice = format!("{}{}{FIVE_LINES}", any("[::1]"), any("[0::1]"));
    has_one(&twice, "4:11", &["VIP address [::1]:80 is claimed twice"]);
}

#[test]
fn an_l4_vip_and_its_backends_are_of_one_family() {
    let ipv6 = L4.replace("10.0.0.100:80", "[2001:db8::100]:80");
    let ipv6 = ipv6.replace("10.1.0.1:80", "[2001:db8::1]:80");
    let config = checked(&ipv6);
    assert_eq!((config.fleet.vips[0].layer, config.routes.len()), (Layer::L4, 1));
    let unspecified: std::net::IpAddr = "::".parse().unwrap();
    assert_eq!(config.fleet.pools[0].backends[0].nat_addr, unspecified, "the host says");
    let vip = L4.replace("10.0.0.100:80", "[2001:db8::100]:80");
    let words =
        ["10.1.0.1:80 is IPv4, but L4 VIP", "of one family", "`layer = \"l7\"` for the VIP"];
    has_one(&vip, "7:12", &words);
    let backend = L4.replace("10.1.0.1:80", "[2001:db8::1]:80");
    has_one(&backend, "7:12", &["[2001:db8::1]:80 is IPv6, but L4 VIP", "of one family"]);

    let direct =
        |text: &str, mode: &str| text.replace("[[pool]]", &format!("[[pool]]\nmode = \"{mode}\""));
    assert_eq!(checked(&direct(&ipv6, "dsr-l2")).fleet.pools[0].mode, Mode::DsrL2);
    for text in [&ipv6, &vip, &backend] {
        for (mode, wanted) in [("dsr-ipip", Mode::DsrIpip), ("dsr-gue", Mode::DsrGue)] {
            assert_eq!(checked(&direct(text, mode)).fleet.pools[0].mode, wanted);
        }
    }
    has_one(&direct(&vip, "dsr-l2"), "8:12", &["in mode \"dsr-l2\"", "mode = \"dsr-ipip\""]);
    has_one(&ipv6.replace("[2001:db8::100]", "[::]"), "4:11", &["`layer = \"l7\"` only"]);
    has_one(&ipv6.replace("[2001:db8::1]", "[::1]"), "7:12", &["is loopback, but VIP"]);
}

#[test]
fn client_prefixes_are_of_either_family() {
    let class =
        |prefix: &str| format!("{FIVE_LINES}[[client_class]]\nprefix = \"{prefix}\"\nclass = 1\n");
    let classes = checked(&class("2001:DB8::/32")).fleet.client_classes;
    assert_eq!(classes, [("2001:db8::".parse().unwrap(), 32, 1)]);
    has_one(&class("2001:db8::1/32"), "7:10", &["beyond its 32 bits", "\"2001:db8::/32\""]);
}

#[test]
fn an_own_address_is_of_its_backends_family() {
    let text = |nat: &str| {
        let table =
            format!("[[pool.backend]]\naddress = \"[fd00::2]:80\"\nnat_address = \"{nat}\"\n");
        FIVE_LINES.replace("backend = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n", &table)
    };
    assert_eq!(
        checked(&text("fd00::1")).fleet.pools[0].backends[0].nat_addr,
        "fd00::1".parse::<std::net::IpAddr>().unwrap()
    );
    has_one(&text("10.0.0.1"), "7:15", &["of another family than the backend"]);
    has_one(&text("fe80::1"), "7:15", &["must be an own address"]);
}

#[test]
fn an_l4_vip_needs_what_xdp_needs() {
    let no_interface = L4
        .replace("interfaces = [\"eth0\"]", "")
        .replace("10.0.0.100:80\"", "10.0.0.100:80\"\nlayer = \"l4\"");
    has_one(&no_interface, "5:9", &["is L4, but there is no interface"]);
    has_one(&L4.replace("10.0.0.100", "0.0.0.0"), "4:11", &["`layer = \"l7\"` only"]);
    has_one(&L4.replace("10.0.0.100", "127.0.0.1"), "4:11", &["never reach XDP"]);
    has_one(&L4.replace("10.1.0.1:80", "127.0.0.1:80"), "7:12", &["is loopback, but VIP"]);
    let name = L4.replace("\"eth0\"", "\"a-name-that-is-too-long\"");
    has_one(&name, "2:15", &["expected names of interfaces"]);
}

#[test]
fn a_capability_is_named_as_its_manual_names_it() {
    for wrong in ["\"KILL\"", "\"cap_kill\"", "\"CAP_EVERYTHING\"", "\"CAP_KILL|CAP_BPF\"", "5"] {
        let text = format!("[gateway]\nkeep_capabilities = [\"CAP_KILL\", {wrong}]\n{FIVE_LINES}");
        has_one(&text, "2:34", &["expected names of capabilities"]);
    }
}

#[test]
fn manual_weights_need_a_map_to_write_them_to() {
    let text = FIVE_LINES.replace("name = \"web\"", "name = \"web\"\nweights = \"manual\"");
    has_one(&text, "5:11", &["is manual, but there is no interface"]);
}

#[test]
fn a_vip_names_its_pool_where_there_are_several() {
    let text = format!("{FIVE_LINES}[[pool]]\nname = \"b\"\nbackend = [\"127.0.0.1:1\"]\n");
    has_one(&text, "1:1", &["`vip.pool` is missing", "add `pool = \"web\"`"]);
}

#[test]
fn an_admin_address_that_others_reach_must_be_allowed() {
    let remote = format!("[gateway]\nadmin = \"0.0.0.0:9900\"\n{FIVE_LINES}");
    has_one(&remote, "2:9", &["which is not loopback", "admin_allow_remote = true"]);
    let allowed = remote.replace("[gateway]\n", "[gateway]\nadmin_allow_remote = true\n");
    assert_eq!(checked(&allowed).gateway.admin, "0.0.0.0:9900".parse().unwrap());
}

#[test]
fn nat_ports_leave_room_and_stay_unprivileged() {
    let ports =
        |range: &str| L4.replace("[gateway]", &format!("[gateway]\nnat_ports = \"{range}\""));
    has_one(&ports("80-9999"), "2:13", &["ports under 1024 are privileged"]);
    has_one(&ports("20000-20009"), "2:13", &["only 10 ports"]);
    has_one(&ports("20000-99999"), "2:13", &["expected a range of ports"]);
}

#[test]
fn client_prefixes_are_exact_and_classes_exist() {
    let class = |lines: &str| format!("{FIVE_LINES}[[client_class]]\n{lines}\n");
    has_one(
        &class("prefix = \"10.1.2.3/8\"\nclass = 1"),
        "7:10",
        &["bits set beyond its 8 bits", "write \"10.0.0.0/8\""],
    );
    has_one(&class("prefix = \"10.0.0.0/8\"\nclass = 8"), "8:9", &["must be from 0 to 6"]);
    has_one(
        &class("prefix = \"10.0.0.0/8\"\nclass = 7"),
        "8:9",
        &["must be from 0 to 6", "class 7 is the control group's"],
    );
    has_one(&class("prefix = \"10.0.0.0/40\"\nclass = 1"), "7:10", &["expected a prefix"]);
    has_one(&class("prefix = \"10.0.0.0/8\""), "6:1", &["`client_class.class` is missing"]);
}

#[test]
fn what_does_not_fit_the_tables_is_a_mistake() {
    let backends = (0..700).map(|n| format!("\"10.0.{}.{}:80\"", n / 250, n % 250 + 1));
    let list = backends.collect::<Vec<_>>().join(", ");
    let text = FIVE_LINES.replace("\"127.0.0.1:9001\", \"127.0.0.1:9002\"", &list);
    has_one(&text, "3:1", &["has 700 backends", "at most 640 fit"]);
    let vips = (0..260).map(|n| format!("[[vip]]\naddress = \"127.0.0.1:{}\"\n", 10_000 + n));
    let text = FIVE_LINES.to_owned() + &vips.collect::<String>();
    has_one(&text, "1:1", &["there are 261 VIPs", "room for 256"]);
}

#[test]
fn an_override_wins_and_its_mistakes_are_its_own() {
    let with = |text: &str| check(Path::new("gateway.toml"), L4, &[text.to_owned()]);
    let gateway = with("gateway.interfaces = [\"eth7\"]").unwrap().gateway;
    assert_eq!(gateway.interfaces, ["eth7"]);
    let shown = with("gateway.tikc = \"1s\"").unwrap_err().to_string();
    assert!(shown.contains("--> --set:1:9\n"), "{shown}");
    assert!(with("nonsense").unwrap_err().to_string().contains("--> --set:1:"), "not TOML");
}

#[test]
fn settling_asks_the_host_for_interfaces_and_routes() {
    let missing = L4.replace("eth0", "no-such-if0");
    let shown = checked(&missing).settle().unwrap_err().to_string();
    assert!(shown.contains("there is no interface \"no-such-if0\""), "{shown}");
    assert!(shown.contains("gateway.toml:2:15"), "{shown}");
    let config = checked(FIVE_LINES).settle().unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert_eq!(config.fleet.pools[0].backends.len(), 2);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let origin = Origin { path: "/nonexistent/gateway.toml".into(), overrides: Vec::new() };
    let error = origin.load().unwrap_err();
    assert!(error.to_string().contains("/nonexistent/gateway.toml"), "{error}");
}

#[test]
fn a_text_that_ends_anywhere_is_right_or_shown() {
    for (end, _) in EVERY_KEY.char_indices() {
        if let Err(mistakes) = check(Path::new("cut"), &EVERY_KEY[..end], &[]) {
            let (shown, lines) = (mistakes.to_string(), mistakes.lines().count());
            assert!(shown.contains("--> cut:"), "cut at {end}: {shown}");
            assert_eq!(lines, mistakes.count());
        }
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(
        at in 0..EVERY_KEY.len(),
        len in 0..40_usize,
        instead in "\\PC{0,20}|[\\[\\]={}\"\\n\\t.#, a-z0-9é-]{0,30}",
    ) {
        let mut bytes = EVERY_KEY.as_bytes().to_vec();
        let end = (at + len).min(bytes.len());
        bytes.splice(at..end, instead.bytes());
        let text = String::from_utf8_lossy(&bytes);
        if let Err(mistakes) = check(Path::new("changed"), &text, &[instead]) {
            prop_assert!(mistakes.count() > 0);
            prop_assert!(mistakes.to_string().contains("error: "));
        }
    }
}

#[test]
fn each_mode_has_a_word() {
    for mode in Mode::ALL {
        let pool = format!("mode = {:?}\nname = \"web\"", mode.as_str());
        let fleet = checked(&L4.replace("name = \"web\"", &pool)).fleet;
        assert_eq!(fleet.pools[0].mode, mode);
        assert_eq!(fleet.pools[0].retry_refused, mode == Mode::Nat, "{mode:?}");
    }
    assert_eq!(checked(L4).fleet.pools[0].mode, Mode::Nat);
    has_one(&L4.replace("name =", "mode = \"dsr\"\nname ="), "6:8", &["dsr-ipip"]);
}

#[test]
fn a_backend_that_gets_packets_as_they_are_serves_the_vips_port() {
    let text = L4.replace("10.1.0.1:80", "10.1.0.1:8080");
    assert_eq!(checked(&text).fleet.pools.len(), 1, "nat rewrites ports");
    let text = text.replace("name =", "mode = \"dsr-l2\"\nname =");
    has_one(&text, "8:12", &["8080", "port 80", "\"10.1.0.1:80\"", "mode = \"nat\""]);
    // The proxy connects by itself, to any port.
    let text = text.replace("address =", "layer = \"l7\"\naddress =");
    assert_eq!(checked(&text).fleet.pools[0].mode, Mode::DsrL2);
}

/// [`L4`] with this VIP, over this backend.
fn wide(vip: &str, backend: &str) -> String {
    L4.replace("10.0.0.100:80", vip).replace("10.1.0.1:80", backend)
}

#[test]
fn a_vip_may_have_many_ports_and_addresses() {
    for (address, shown) in [
        ("10.0.0.100:*", "10.0.0.100:*"),
        ("10.0.0.100:8000-8100", "10.0.0.100:8000-8100"),
        ("10.0.0.0/24:443", "10.0.0.0/24:443"),
        ("10.0.0.100/32:443", "10.0.0.100:443"),
    ] {
        let fleet = checked(&wide(address, "10.1.0.1")).fleet;
        assert_eq!((fleet.vips[0].addr.to_string(), &*fleet.vips[0].name), (shown.into(), shown));
    }
    let fleet = checked(&wide("[2001:db8::/64]:*", "[fd00::1]:*")).fleet;
    assert_eq!(fleet.vips[0].name, "[2001:db8::/64]:*");
    assert_eq!(
        (&*fleet.pools[0].backends[0].name, fleet.pools[0].backends[0].keeps_port()),
        ("fd00::1", true)
    );

    let refused = |vip: &str, words: &[&str]| has_one(&wide(vip, "10.1.0.1"), "4:11", words);
    refused("10.0.0.7/24:443", &["beyond its 24 bits", "10.0.0.0/24"]);
    refused("10.0.0.7:90-80", &["ports 90-80 are no range"]);
    refused("10.0.0.7:http", &["a range of ports (\"10.0.0.1:8000-8100\")"]);
    refused("0.0.0.0/0:443", &["the host's own", "8 bits or more"]);
    refused("224.0.0.0/8:443", &["the address of one host"]);
    refused("127.0.0.0/8:*", &["packets to loopback never reach XDP"]);
    has_one(&wide("[2000::/3]:443", "[fd00::1]:80"), "4:11", &["16 bits or more"]);
    has_one(&wide("[fe80::/64]:443", "[fd00::1]:80"), "4:11", &["on one link only"]);
}

#[test]
fn the_proxy_has_one_address_one_port_and_backends_with_ports() {
    let layer = |vip: &str| format!("{vip}\"\nlayer = \"l7");
    for vip in ["10.0.0.100:*", "10.0.0.100:80-90", "10.0.0.0/24:80"] {
        let text = wide(&layer(vip), "10.1.0.1:80");
        has_one(
            &text,
            "4:11",
            &["the proxy listens at one address and one port", "layer = \"l4\""],
        );
    }
    let text = wide(&layer("10.0.0.100:80"), "10.1.0.1");
    has_one(
        &text,
        "8:12",
        &["backend 10.1.0.1 has no port", "VIP \"10.0.0.100:80\" is L7", "\"10.1.0.1:80\""],
    );
}

#[test]
fn vips_that_nobody_could_tell_apart_are_mistakes() {
    let both = |first: &str, second: &str| {
        let more = format!("[[vip]]\naddress = \"{second}\"\n[[pool]]");
        wide(first, "10.1.0.1").replace("[[pool]]", &more)
    };
    for (first, second) in [
        ("10.0.0.100:*", "10.0.0.100:80"),
        ("10.0.0.100:*", "10.0.0.100:80-90"),
        ("10.0.0.100:80-90", "10.0.0.100:85"),
        ("10.0.0.100:80-90", "10.0.0.100:91-99"),
        ("10.0.0.100:80-90", "10.0.0.0/24:85-95"),
        ("10.0.0.0/24:*", "10.0.0.0/16:*"),
    ] {
        assert_eq!(checked(&both(first, second)).fleet.vips.len(), 2, "{first} {second}");
    }
    let shown = mistakes(&both("10.0.0.0/24:80-90", "10.0.0.0/24:85-95")).to_string();
    for words in [
        "ports of VIP 10.0.0.0/24:85-95 are those of 10.0.0.0/24:80-90",
        "^^^^^ nobody could say",
        "--- the other range",
    ] {
        assert!(shown.contains(words), "no {words:?} in\n{shown}");
    }
    for vip in ["10.0.0.0/24:443", "10.0.0.100:*", "10.0.0.100:80-90"] {
        let shown = mistakes(&both(vip, vip)).to_string();
        assert!(shown.contains(&format!("VIP address {vip} is claimed twice")), "{shown}");
    }
    let udp = both("10.0.0.0/24:80-90", "10.0.0.0/24:85-95\"\nprotocol = \"udp");
    assert_eq!(checked(&udp).fleet.vips.len(), 2);
}

#[test]
fn ranges_in_prefixes_within_prefixes_must_fit() {
    // Of each range a dozen blocks, and each prefix has those of all around it.
    let vip = |n: u32| {
        let (len, first) = (32 + n % 96, 2 + n * 260);
        format!("[[vip]]\naddress = \"[2001:db8::/{len}]:{first}-{}\"\n", first + 255)
    };
    let text = |count: u32| {
        let vips: String = (0..count).map(vip).collect();
        let text = L4.replace("10.1.0.1:80", "fd00::1");
        text.replace("[[vip]]\naddress = \"10.0.0.100:80\"\n", &vips)
    };
    assert_eq!(checked(&text(20)).fleet.vips.len(), 20);
    let shown = mistakes(&text(150)).to_string();
    assert_eq!(shown.matches("error:").count(), 1, "{shown}");
    assert!(shown.contains("one gateway has room for 65536"), "{shown}");
}

#[test]
fn a_backend_without_a_port_is_asked_at_the_clients() {
    let pool = |text: &str| checked(text).fleet.pools[0].clone();
    for backend in ["10.1.0.1", "10.1.0.1:*"] {
        let pool = pool(&wide("10.0.0.100:*", backend));
        assert!(pool.backends[0].keeps_port() && !pool.retry_refused, "all would refuse alike");
    }
    let retrying =
        wide("10.0.0.100:*", "10.1.0.1").replace("name =", "retry_refused = true\nname =");
    assert!(pool(&retrying).retry_refused);
    assert!(
        pool(&wide("10.0.0.100:80", "10.1.0.1")).backends[0].keeps_port(),
        "a VIP of one port, too"
    );

    let probed = wide("10.0.0.100:*", "10.1.0.1") + "[pool.probe]\n";
    has_one(
        &probed,
        "8:1",
        &["no port to ask at", "whichever port the client asked for", "port = 8081"],
    );
    assert!(checked(&(probed + "port = 8081\n")).fleet.pools[0].probe.is_some());

    let direct = |vip: &str, backend: &str| {
        wide(vip, backend).replace("name =", "mode = \"dsr-l2\"\nname =")
    };
    assert_eq!(pool(&direct("10.0.0.0/24:*", "10.1.0.1")).mode, Mode::DsrL2);
    let words = ["serves port 80", "port 80-90", "write \"10.1.0.1\"", "mode = \"nat\""];
    has_one(&direct("10.0.0.100:80-90", "10.1.0.1:80"), "8:12", &words);
    for backend in ["10.1.0.1", "10.1.0.1:443"] {
        has_one(&wide("10.1.0.0/24:443", backend), "7:12", &["round in a circle"]);
    }
    assert_eq!(pool(&wide("10.1.0.0/24:443", "10.1.0.1:8443")).backends.len(), 1);
}

#[test]
fn a_vip_that_has_the_hosts_own_address_is_doubted() {
    let text = |vip: &str| {
        let backend = "[[pool.backend]]\naddress = \"192.0.2.9:80\"\nnat_address = \"192.0.2.1\"\n";
        let pool = format!("[[pool]]\nname = \"web\"\n{backend}");
        format!("[gateway]\ninterfaces = [\"lo\"]\n[[vip]]\naddress = \"{vip}\"\n{pool}")
    };
    let doubts = |vip: &str| checked(&text(vip)).settle().unwrap().doubts.join("\n");
    let doubted = doubts("192.0.2.1:*");
    assert!(
        doubted.contains("gateway.toml:4:11") && doubted.contains("has 192.0.2.1"),
        "{doubted}"
    );
    for vip in ["192.0.2.1:80", "192.0.2.1:1-1023", "192.0.2.0/28:443", "198.51.100.0/24:*"] {
        assert_eq!(doubts(vip), "", "{vip}");
    }
}

#[test]
fn refusals_that_nobody_sees_cannot_be_kept_from_clients() {
    let text = L4.replace("name =", "mode = \"dsr-gue\"\nretry_refused = true\nname =");
    has_one(&text, "7:17", &["retry_refused", "dsr-gue", "mode = \"nat\""]);
    let text = text.replace("true", "false");
    assert!(!checked(&text).fleet.pools[0].retry_refused);
}

/// An L4 configuration whose VIP is guarded.
fn guarded(vip: &str, guard: &str) -> String {
    L4.replacen("[[pool]]", &format!("{vip}\n[[pool]]"), 1) + guard
}

#[test]
fn a_vip_is_guarded_where_it_says_so() {
    assert!(!checked(L4).fleet.vips[0].guard);
    assert!(checked(&guarded("guard = true", "")).fleet.vips[0].guard);
    has_one(&guarded("guard = 1", ""), "5:9", &["vip.guard", "true or false"]);
    let alone = FIVE_LINES.replacen("[[pool]]", "guard = true\n[[pool]]", 1);
    has_one(&alone, "3:9", &["vip.guard", "interfaces"]);
}

#[test]
fn a_list_that_no_vip_asks_for_is_a_mistake() {
    let list = "[guard]\ndeny_file = \"/etc/gateway/deny\"\n";
    checked(&guarded("guard = true", list));
    has_one(&guarded("", list), "10:13", &["guard.deny_file", "no VIP is guarded"]);
    let typo = guarded("guard = true", "[guard]\ndeny_files = \"/etc/gateway/deny\"\n");
    has_one(&typo, "10:1", &["guard.deny_files", "did you mean `deny_file`"]);
    let short = guarded("guard = true", "[guard]\nallow_file = \"allow\"\n");
    has_one(&short, "10:14", &["guard.allow_file", "an absolute path"]);
}

#[test]
fn confirmed_flows_are_kept_where_there_are_flows() {
    let keep = "[guard]\nkeep_confirmed = true\n";
    checked(&format!("{L4}{keep}"));
    has_one(&format!("{FIVE_LINES}{keep}"), "7:18", &["guard.keep_confirmed", "interfaces"]);
}

#[test]
fn lists_are_read_when_the_host_is_asked_and_their_mistakes_shown_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deny");
    let guard = format!("[guard]\ndeny_file = {file:?}\n");
    let text = guarded("guard = true", &guard).replace("\"eth0\"", "\"lo\"");
    let settled = || {
        let outcome = checked(&text).settle();
        outcome.map_err(|mistakes| mistakes.lines().collect::<Vec<_>>().join("\n"))
    };
    let error = settled().unwrap_err();
    assert!(error.contains("deny cannot be read: No such file"), "{error}");
    std::fs::write(&file, "10.0.0.0/8\n\n10.0.0.1/8 # not so\n").unwrap();
    let error = settled().unwrap_err();
    assert!(error.contains("deny:3: 10.0.0.1/8 has bits set beyond its 8"), "{error}");
}

#[test]
fn a_vip_asks_sources_to_prove_themselves_where_its_connections_are_packets() {
    use gateway_core::fleet::{ChallengeMode, ChallengeSpec};
    let of = |lines: &str| checked(&guarded(lines, "")).fleet.vips[0].challenge;
    assert_eq!(of(""), ChallengeSpec::default());
    let auto = ChallengeSpec { mode: ChallengeMode::Auto, ..ChallengeSpec::default() };
    assert_eq!(of("guard = true\nsyn_challenge = \"auto\""), auto);
    let always = of("guard = true\nsyn_challenge = \"always\"\nsyn_flood_per_second = 5");
    assert_eq!((always.mode, always.flood_per_second), (ChallengeMode::Always, 5));
    let wrong = |lines: &str, at, parts: &[&str]| has_one(&guarded(lines, ""), at, parts);
    wrong("syn_challenge = \"auto\"", "5:17", &["vip.syn_challenge", "guard = true"]);
    wrong("guard = true\nsyn_challenge = \"on\"", "6:17", &["\"off\", \"auto\", \"always\""]);
    wrong("guard = true\nsyn_flood_per_second = 0", "6:24", &["from 1 to 100000000"]);
    let proxied = "guard = true\nlayer = \"l7\"\nsyn_challenge = \"auto\"";
    wrong(proxied, "7:17", &["vip.syn_challenge", "net.ipv4.tcp_syncookies"]);
}

#[test]
fn limits_of_sources_are_read_and_bursts_are_a_seconds_worth() {
    let with = |lines: &str| guarded(&format!("guard = true\n[vip.limit]\n{lines}"), "");
    let limit = |lines: &str| checked(&with(lines)).fleet.vips[0].limit.unwrap();
    assert_eq!(checked(&guarded("guard = true", "")).fleet.vips[0].limit, None);
    let read = limit("new_per_second = 2.5");
    assert_eq!(read.new.unwrap(), RateSpec { per_second: 2.5, burst: 3 });
    assert_eq!((read.packets, read.source_prefix), (None, None));
    let read = limit("packets_per_second = 9000\npackets_burst = 5\nsource_prefix = 24");
    assert_eq!(read.packets.unwrap(), RateSpec { per_second: 9_000.0, burst: 5 });
    assert_eq!((read.new, read.source_prefix), (None, Some(24)));

    has_one(&with(""), "6:1", &["vip.limit.new_per_second", "missing"]);
    has_one(&with("new_per_second = 0"), "7:18", &["0 a second is not from 0.001"]);
    has_one(&with("new_per_second = 1\nnew_burst = 0"), "8:13", &["vip.limit.new_burst"]);
    has_one(&with("new_per_second = 0.001\nnew_burst = 999"), "8:13", &["more than a day"]);
    has_one(&with("packets_per_second = 1\nnew_burst = 9"), "8:13", &["new_per_second = 100"]);
    has_one(&with("new_per_second = 1\nsource_prefix = 33"), "8:17", &["from 1 to 32"]);
    let ipv6 = |bits| {
        let limit =
            format!("guard = true\n[vip.limit]\nnew_per_second = 1\nsource_prefix = {bits}");
        let text = guarded(&limit, "").replacen("10.0.0.100:80", "[2001:db8::100]:80", 1);
        text.replacen("10.1.0.1:80", "[2001:db8::a]:80", 1)
    };
    assert_eq!(checked(&ipv6(48)).fleet.vips[0].limit.unwrap().source_prefix, Some(48));
    has_one(&ipv6(129), "8:17", &["from 1 to 128", "64"]);
    let bare = guarded("[vip.limit]\nnew_per_second = 1", "");
    has_one(&bare, "5:1", &["vip.limit", "guard = true"]);
}
