//! The guard before real clients: who is let in, and who is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gateway_tests::command;
use gateway_tests::config::GatewayConfig;
use gateway_tests::node::wait_for;
use gateway_tests::testbed::{GatewayNode, Testbed};
use rustix::process::Signal;

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Addresses of the test bed's client: its own, and further ones that are reached by way of that.
const CLIENT: &str = "10.10.0.2";
const SECOND: &str = "10.13.0.3";
const THIRD: &str = "10.13.0.4";

/// A guarded VIP, with lists in files and a token for changes.
struct Site {
    testbed: Testbed,
    deny: PathBuf,
    token: PathBuf,
    vip: SocketAddr,
}

impl Site {
    /// `layer` is the VIP's; its deny list says this.
    fn or_skip(layer: &'static str, denied: &str) -> Option<(Site, GatewayConfig)> {
        let testbed = Testbed::or_skip(1)?;
        for addr in [SECOND, THIRD] {
            testbed.client().ip(&format!("address add {addr}/32 dev lo")).unwrap();
        }
        testbed.gateway().ip(&format!("route add 10.13.0.0/24 via {CLIENT}")).unwrap();
        let file = |name: &str, text: &str| {
            let path = testbed.folder().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let deny = file("deny.txt", denied);
        let token = file("token", "a token of these tests\n");
        let vip = match layer {
            "l7" => testbed.l7_vip(1).unwrap(),
            _ => testbed.l4_vip(1),
        };
        let members = vec![testbed.backend_at(1, 8080)];
        let mut config = GatewayConfig::one_pool(vip, layer, "equal", members);
        let state = testbed.folder().join("state");
        config.vips[0].lines = "guard = true".to_owned();
        config.gateway_lines = format!("admin_token_file = {token:?}\nstate = {state:?}");
        config.pools[0].sections += &format!("[guard]\ndeny_file = {deny:?}\n");
        Some((Site { testbed, deny, token, vip }, config))
    }

    /// Whether a request from this address of the client's is answered.
    fn is_served(&self, from: &str) -> bool {
        let url = format!("http://{}/", self.vip);
        let arguments = ["--interface", from, "--connect-timeout", "2", "--fail", &url];
        self.testbed.curl(&arguments).unwrap().status.success()
    }

    #[track_caller]
    fn serves(&self, served: &[&str], refused: &[&str]) {
        for from in served {
            assert!(self.is_served(from), "{from} is refused");
        }
        for from in refused {
            assert!(!self.is_served(from), "{from} is served");
        }
    }

    /// `gateway guard`, with these words.
    fn guard(&self, words: &str) -> anyhow::Result<String> {
        let mut arguments: Vec<&str> = ["guard"].into_iter().chain(words.split(' ')).collect();
        let token = self.token.display().to_string();
        if !words.ends_with("list") {
            arguments.extend(["--token-file", &token]);
        }
        command::output(&mut self.testbed.gateway_command(&arguments)?)
    }
}

/// Packets that the guard dropped because of its lists.
fn denied(gateway: &GatewayNode<'_>) -> u64 {
    let metrics = gateway.get("/metrics").unwrap();
    let start = "gateway_packets_total{verdict=\"drop_denied\"} ";
    let told = metrics.lines().find_map(|line| line.strip_prefix(start));
    told.unwrap_or_else(|| panic!("no drop_denied in {metrics}")).parse().unwrap()
}

#[test]
fn who_is_denied_cannot_connect_while_others_can() {
    for layer in ["l4", "l7"] {
        let Some((site, config)) = Site::or_skip(layer, "10.13.0.3 # a nuisance\n") else { return };
        let _backends = site.testbed.start_backends(&[2]).unwrap();
        let gateway = site.testbed.start_gateway(&config).unwrap();
        site.serves(&[CLIENT, THIRD], &[SECOND]);
        wait_for("the drops to be told", PATIENCE, || Ok((denied(&gateway) > 0).then_some(())))
            .unwrap();
        let metrics = gateway.get("/metrics").unwrap();
        let count = "gateway_guard_prefixes{list=\"deny\",origin=\"file\"} 1";
        assert!(metrics.contains(count), "{metrics}");
    }
}

#[test]
fn lists_change_at_run_time_and_outlive_the_daemon() {
    let Some((site, config)) = Site::or_skip("l4", "10.0.0.0/8\n") else { return };
    let _backends = site.testbed.start_backends(&[2]).unwrap();
    let mut gateway = site.testbed.start_gateway(&config).unwrap();
    site.serves(&[], &[CLIENT, SECOND]);

    let told = site.guard("allow add 10.10.0.2 10.13.0.4").unwrap();
    assert_eq!(told, "allow: 2 added, 0 removed; 2 on it now\n");
    site.serves(&[CLIENT, THIRD], &[SECOND]);
    let told = site.guard("allow list").unwrap();
    assert!(told.contains("10.13.0.4/32") && told.contains("guarded: web"), "{told}");
    site.guard("allow remove 10.13.0.4").unwrap();
    site.serves(&[CLIENT], &[SECOND, THIRD]);
    let error = site.guard("deny remove 10.0.0.0/8").unwrap_err().to_string();
    assert!(error.contains("deny.txt"), "{error}");

    // While no daemon runs, and by the next one.
    gateway.kill().unwrap();
    site.serves(&[CLIENT], &[SECOND]);
    let mut gateway = site.testbed.restart_gateway().unwrap();
    site.serves(&[CLIENT], &[SECOND]);

    site.guard("deny add 10.13.0.4").unwrap();
    std::fs::write(&site.deny, "10.13.0.3\n").unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    wait_for("the file to be read again", PATIENCE, || {
        Ok(site.guard("deny list")?.contains("1 added, 1 by").then_some(()))
    })
    .unwrap();
    site.guard("allow remove 10.10.0.2").unwrap();
    site.serves(&[CLIENT], &[SECOND, THIRD]);

    std::fs::write(&site.deny, "10.10.0.2\n10.10.0\n").unwrap();
    gateway.node().signal(Signal::HUP).unwrap();
    wait_for("the file to be refused", PATIENCE, || {
        let metrics = gateway.get("/metrics")?;
        Ok(metrics.contains("gateway_config_reload_success 0").then_some(()))
    })
    .unwrap();
    site.serves(&[CLIENT], &[SECOND, THIRD]);
}
