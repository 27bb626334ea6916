//! The guard before real clients: who is let in, and who is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gateway_tests::command;
use gateway_tests::config::GatewayConfig;
use gateway_tests::flood;
use gateway_tests::load::{LoadOptions, Mode};
use gateway_tests::node::wait_for;
use gateway_tests::testbed::Testbed;
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
        if !words.ends_with(" list") {
            arguments.extend(["--token-file", &token]);
        }
        command::output(&mut self.testbed.gateway_command(&arguments)?)
    }
}

#[test]
fn who_is_denied_cannot_connect_while_others_can() {
    for layer in ["l4", "l7"] {
        let Some((site, config)) = Site::or_skip(layer, "10.13.0.3 # a nuisance\n") else { return };
        let _backends = site.testbed.start_backends(&[2]).unwrap();
        let gateway = site.testbed.start_gateway(&config).unwrap();
        site.serves(&[CLIENT, THIRD], &[SECOND]);
        wait_for("the drops to be told", PATIENCE, || {
            Ok((gateway.packets("drop_denied")? > 0).then_some(()))
        })
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

    let told = site.guard("keep-confirmed on").unwrap();
    assert_eq!(told, "confirmed flows keep their places (ordered at run time)\n");

    // While no daemon runs, and by the next one.
    gateway.kill().unwrap();
    site.serves(&[CLIENT], &[SECOND]);
    let mut gateway = site.testbed.restart_gateway().unwrap();
    site.serves(&[CLIENT], &[SECOND]);
    assert!(site.guard("keep-confirmed").unwrap().contains("ordered at run time"));
    let told = site.guard("keep-confirmed release").unwrap();
    assert_eq!(told, "a new flow may take any place (as configured)\n");

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

/// How long an attempt at a connection may take, so that no SYN of it is sent again.
const ATTEMPT: Duration = Duration::from_millis(200);

impl Site {
    /// What `gateway trace` says of a SYN from this client.
    fn trace(&self, client: &str) -> anyhow::Result<String> {
        let (vip, config) = (self.vip.to_string(), self.testbed.config_path());
        let arguments = ["trace", client, &vip, "--config", &config.display().to_string()];
        command::output(&mut self.testbed.gateway_command(&arguments)?)
    }

    /// Attempts at connections for so long, one after the other: how many were made, and how many
    /// seconds it was.
    fn connect_for(&self, span: Duration) -> (u32, f64) {
        let attempts = || {
            let (begun, mut made) = (Instant::now(), 0);
            while begun.elapsed() < span {
                made += u32::from(TcpStream::connect_timeout(&self.vip, ATTEMPT).is_ok());
            }
            (made, begun.elapsed().as_secs_f64())
        };
        self.testbed.client().run(attempts).unwrap()
    }
}

#[test]
fn a_source_gets_its_burst_and_its_rate_of_connections_and_no_more() {
    let Some((site, mut config)) = Site::or_skip("l4", "") else { return };
    config.vips[0].lines += "\n[vip.limit]\nnew_per_second = 0.2\nnew_burst = 10";
    let _backends = site.testbed.start_backends(&[2]).unwrap();
    let mut gateway = site.testbed.start_gateway(&config).unwrap();
    let (made, seconds) = site.connect_for(Duration::from_secs(5));
    // A token is gone, too, that an attempt took which ended before it was answered, as those may that
    // come before the backend's link address is known.
    let most = 10.0 + seconds * 0.2;
    assert!((most - 5.0..=most + 0.5).contains(&f64::from(made)), "{made} in {seconds} s");
    assert!(site.is_served(SECOND), "another source has a bucket of its own");
    wait_for("the drops to be told", PATIENCE, || {
        let metrics = gateway.get("/metrics")?;
        let none = "gateway_packets_total{verdict=\"drop_rate_new\"} 0";
        Ok((!metrics.contains(none)).then_some(()))
    })
    .unwrap();
    wait_for("the trace to tell the limit", PATIENCE, || {
        // Until the next token comes, which on a very busy machine may be before the trace begins.
        site.connect_for(Duration::from_millis(500));
        let told = site.trace(&format!("{CLIENT}:999"))?;
        Ok(told.contains("drop_rate_new: dropped: its source begins more flows").then_some(()))
    })
    .unwrap();

    let told = site.guard("limit web --new-per-second 1 --new-burst 200").unwrap();
    assert_eq!(told, "web: each /32 1 new flows a second, 200 at once (ordered at run time)\n");
    wait_for("the order to be in force", PATIENCE, || {
        Ok((site.connect_for(Duration::from_secs(1)).0 > 20).then_some(()))
    })
    .unwrap();
    site.guard("limit web --off").unwrap();
    gateway.stop(Signal::TERM).unwrap();
    let _gateway = site.testbed.restart_gateway().unwrap();
    let (made, seconds) = site.connect_for(Duration::from_secs(2));
    assert!(f64::from(made) > 50.0 * seconds, "{made} in {seconds} s without a limit");
}

/// SYNs of a flood.
const FLOOD: u32 = 60_000;
/// Connections that rest through the flood.
const RESTING: usize = 20;

/// Connections from the client that asked once and were answered.
fn rest(testbed: &Testbed, vip: SocketAddr) -> Vec<TcpStream> {
    let connect = || (0..RESTING).map(|_| TcpStream::connect_timeout(&vip, PATIENCE).unwrap());
    let mut resting: Vec<TcpStream> = testbed.client().run(|| connect().collect()).unwrap();
    assert_eq!(answered(&mut resting), RESTING);
    resting
}

/// How many of these answer a request.
fn answered(resting: &mut [TcpStream]) -> usize {
    let ask = |stream: &mut TcpStream| -> std::io::Result<bool> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")?;
        let mut part = [0; 4_096];
        let len = stream.read(&mut part)?;
        Ok(part[..len].starts_with(b"HTTP/1.1 200"))
    };
    resting.iter_mut().filter_map(|stream| ask(stream).ok()).filter(|is_ok| *is_ok).count()
}

#[test]
fn a_flood_of_syns_takes_nothing_from_who_connects_and_who_is_connected() {
    let Some(testbed) = Testbed::or_skip(2) else { return };
    flood::route(&testbed).unwrap();
    for number in [1, 2] {
        // A backend that keeps thousands of the flood half open answers no SYN from their ports, of which
        // there are few here; one that keeps few goes over to SYN cookies.
        testbed.backend(number).sysctl("net/core/somaxconn", "64").unwrap();
    }
    let _backends = testbed.start_backends(&[2, 2]).unwrap();
    let vip = testbed.l4_vip(1);
    let members = (1..=2).map(|number| testbed.backend_at(number, 8080)).collect();
    let mut config = GatewayConfig::one_pool(vip, "l4", "equal", members);
    // A fifteenth of the flood, and fewer ports than it has SYNs.
    config.gateway_lines = "flows_max = 4096\nnat_ports = \"10000-14095\"".to_owned();
    config.pools[0].sections += "[guard]\nkeep_confirmed = true\n";
    let gateway = testbed.start_gateway(&config).unwrap();
    let mut resting = rest(&testbed, vip);

    let options =
        |mode| LoadOptions { timeout: Duration::from_secs(2), ..LoadOptions::new(vip, mode, 50.0) };
    let connecting = testbed.load("connecting", &options(Mode::Connection)).unwrap();
    let connected = testbed.load("connected", &options(Mode::KeepAlive)).unwrap();
    connecting.wait_for_answers(50, PATIENCE).unwrap();
    flood::send(&testbed, vip, FLOOD).unwrap();
    for load in [connecting, connected] {
        let tally = load.stop().unwrap().total_without(&[]);
        let failed: u64 = tally.failed.values().sum();
        eprintln!("{} answered, {failed} failed: {:?}", tally.answered, tally.failed);
        assert!(tally.answered >= 19 * failed, "less than 95%: {tally:?}");
    }
    assert_eq!(answered(&mut resting), RESTING);
    let metrics = gateway.get("/metrics").unwrap();
    let forwarded = metrics.lines().find(|line| line.contains("verdict=\"forward_in\"")).unwrap();
    let forwarded: u64 = forwarded.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(forwarded > u64::from(FLOOD) / 2, "the flood was none: {forwarded}");
}
