//! The pages over a real socket, with the loop over the heap behind them.

use std::path::Path;

use gateway_core::affinity::Affinity;
use gateway_core::engine::EngineOptions;
use gateway_core::fleet::{Fleet, Layer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

mod openapi;

use super::*;
use crate::config;
use crate::control::{Control, Gauges, HeapPlane, Plane, Surroundings};
use crate::telemetry::Telemetry;

/// The served pages.
struct Site {
    addr: SocketAddr,
    stopping: watch::Sender<bool>,
    /// Runs as long as it lives.
    control: Control,
    /// Is there as long as it lives.
    token: tempfile::NamedTempFile,
    rows: Arc<dyn Rows>,
}

/// What changes ask for.
const TOKEN: &str = "a token of these tests";

/// An answer as it came.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// The words of an error.
    fn error(&self) -> String {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        body["error"].as_str().unwrap().to_owned()
    }
}

fn fleet() -> Fleet {
    let text = "[[vip]]\nname = \"site\"\naddress = \"127.0.0.1:80\"\n[[pool]]\nname = \"web\"\n\
                [[pool.backend]]\nname = \"a\"\naddress = \"127.0.0.1:81\"\n\
                [[pool.backend]]\nname = \"b\"\naddress = \"127.0.0.1:82\"\n\
                [pool.recovery]\nreset_connections = true\n";
    let checked = config::check(Path::new("test"), text, &[]);
    let mut fleet = checked.unwrap_or_else(|mistakes| panic!("{mistakes}")).fleet().clone();
    // Without interfaces no configuration may say so.
    fleet.vips[0].guard = true;
    fleet
}

fn guard() -> crate::guard::Keeper {
    let tries = Box::new(crate::guard::NoTries);
    crate::guard::Keeper::start(tries, Default::default(), &Default::default()).unwrap()
}

async fn site() -> Site {
    site_of(fleet(), &Arc::default()).await
}

/// With this fleet, and what prompts went where.
async fn site_of(fleet: Fleet, prefixes: &Arc<PrefixTable>) -> Site {
    let (telemetry, observations) = Telemetry::new();
    let engine = EngineOptions { weights_age_max: Duration::ZERO, seed: 7 };
    let options = control::Options { tick: Duration::from_millis(10), engine };
    let metrics = control::Metrics::default();
    let plane = Box::new(HeapPlane::default());
    let rows = plane.rows();
    let live = Arc::clone(&rows);
    let around = Surroundings { history: 1 << 20, ..Surroundings::default() };
    let control =
        Control::resume(fleet, options, plane, observations, metrics.clone(), around).unwrap();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let published = Arc::clone(control.handle().published());
    registry.register_collector(Box::new(Gauges::new(published, telemetry)));
    let (stopping, is_stopping) = watch::channel(false);
    let privileges = Privileges { dropped: true, capabilities: vec!["CAP_BPF".to_owned()] };
    let attachment = Attachment { interface: "eth0".to_owned(), mode: "native".to_owned() };
    let models = Keeper::start(None, control.handle(), crate::models::Metrics::default());
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), TOKEN).unwrap();
    let pages = Pages {
        rows,
        models: models.await,
        control: control.handle(),
        registry,
        place: Place { attachments: vec![attachment], privileges },
        guard: guard(),
        keeps_state: false,
        recent: Arc::default(),
        prefixes: Arc::clone(prefixes),
        token_file: Some(token.path().to_owned()),
        stopping: is_stopping,
    };
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, pages));
    Site { addr, stopping, control, token, rows: live }
}

async fn ask(addr: SocketAddr, method: &str, path: &str) -> Answer {
    send(addr, &format!("{method} {path} HTTP/1.1\r\n"), "").await
}

async fn send(addr: SocketAddr, head: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{head}Host: x\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl Site {
    async fn ask(&self, method: &str, path: &str) -> Answer {
        ask(self.addr, method, path).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).await
    }

    /// With a body, and the token or another one.
    async fn post(&self, path: &str, body: &serde_json::Value, token: &str) -> Answer {
        let body = body.to_string();
        let head = format!(
            "Content-Type: application/json\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {}\r\n",
            body.len()
        );
        send(self.addr, &format!("POST {path} HTTP/1.1\r\n{head}"), &body).await
    }
}

#[tokio::test]
async fn metrics_name_every_backend_and_verdict() {
    let site = site().await;
    let page = site.get("/metrics").await;
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: application/openmetrics-text"), "{}", page.head);
    for series in [
        "gateway_backend_weight{pool=\"web\",backend=\"a\"} 1.0",
        "gateway_backend_share_wanted{pool=\"web\",backend=\"b\"} 0.5",
        "gateway_backend_health{pool=\"web\",backend=\"a\",health=\"healthy\"} 1.0",
        "gateway_packets_total{verdict=\"forward_in\"} 0",
        "gateway_observations_dropped_total 0",
        "gateway_flows 0.0",
    ] {
        assert!(page.body.contains(&format!("{series}\n")), "no {series} in\n{}", page.body);
    }
    assert!(page.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn health_and_readiness_are_apart() {
    let site = site().await;
    assert_eq!(site.get("/healthz").await.status, 200);
    assert_eq!(site.get("/readyz").await.status, 200);
    site.stopping.send(true).unwrap();
    assert_eq!(site.get("/healthz").await.status, 200);
    let unready = site.get("/readyz").await;
    assert_eq!(unready.status, 503);
    assert_eq!(unready.error(), "the daemon is stopping");
}

#[tokio::test]
async fn a_loop_that_turns_no_more_ends_readiness() {
    let Site { addr, stopping: _stopping, control, token: _token, rows: _rows } = site().await;
    control.stop().await;
    let unready = async {
        loop {
            let answer = ask(addr, "GET", "/readyz").await;
            if answer.status == 503 {
                return answer.error();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let why = tokio::time::timeout(Duration::from_secs(30), unready).await.expect("it ends");
    assert!(why.starts_with("the decision loop last turned "), "{why}");
}

#[tokio::test]
async fn the_state_has_attachments_and_backends() {
    let site = site().await;
    let answer = site.get("/v1/state").await;
    let status: Status = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(status.place.attachments[0].interface, "eth0");
    assert_eq!(status.place.privileges.capabilities, ["CAP_BPF"]);
    assert_eq!(status.state.vips[0].name, "site");
    let names: Vec<&str> =
        status.state.pools[0].backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[tokio::test]
async fn decisions_are_found_by_backend_and_bounded() {
    let site = site().await;
    let decisions = async |query: &str| {
        let answer = site.get(&format!("/v1/decisions{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str::<Decisions>(&answer.body).unwrap().decisions
    };
    let of_a = decisions("?backend=a&limit=1").await;
    assert_eq!(of_a.len(), 1);
    assert_eq!(of_a[0].backend, "a");
    assert_eq!(decisions("?backend=web%2Fb&limit=1").await[0].backend, "b");
    let since = of_a[0].tick;
    assert!(decisions(&format!("?since={since}")).await.iter().all(|d| d.tick > since));
}

#[tokio::test]
async fn wrong_questions_are_answered_in_words() {
    let site = site().await;
    let unknown = site.get("/v1/decisions?backend=nobody").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.error().contains("there is no backend \"nobody\""));
    let bad = site.get("/v1/decisions?limit=many").await;
    assert_eq!(bad.status, 400);
    assert!(bad.error().contains("limit"));
    let mistyped = site.get("/v1/decisions?bakend=a").await;
    assert_eq!(mistyped.status, 400);
    assert!(mistyped.error().contains("bakend"));
    let page = site.get("/nothing").await;
    assert_eq!(page.status, 404);
    assert!(page.error().contains("/v1/state"));
    let post = site.ask("POST", "/v1/state").await;
    assert_eq!(post.status, 405);
    assert!(post.error().contains("GET"));
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let site = site().await;
    let error = bind(site.addr).unwrap_err();
    assert!(error.to_string().contains(&site.addr.to_string()), "{error}");
}

#[tokio::test]
async fn a_route_names_the_backend_and_all_that_it_was_weighed_against() {
    let site = site().await;
    let asked = serde_json::json!({ "vip": "site", "hash": 7 });
    let answer = site.post("/v1/route", &asked, "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let routed: Routed = serde_json::from_str(&answer.body).unwrap();
    let backend = routed.backend.expect("somebody takes it");
    assert!(["a", "b"].contains(&&*backend) && routed.candidates.len() == 2);
    assert!(routed.candidates.iter().all(|candidate| candidate.takes));
    assert!(
        routed.candidates.iter().all(|candidate| candidate.load.is_some_and(|load| load > 0.0))
    );
    let again = site.post("/v1/route", &asked, "").await;
    let again: Routed = serde_json::from_str(&again.body).unwrap();
    assert_eq!(again.backend, Some(backend), "the same number draws the same");
    assert!(again.client.is_none(), "none was named");
    let unknown = site.post("/v1/route", &serde_json::json!({ "pool": "nowhere" }), "").await;
    assert_eq!(unknown.status, 404);
    let mistyped = site.post("/v1/route", &serde_json::json!({ "pol": "web" }), "").await;
    assert_eq!(mistyped.status, 400);
}

#[tokio::test]
async fn a_client_is_asked_for_alone_or_with_a_request() {
    let site = site().await;
    let asked = serde_json::json!({ "client": "192.0.2.1" });
    let routed: Routed =
        serde_json::from_str(&site.post("/v1/route", &asked, "").await.body).unwrap();
    let client = routed.client.expect("it was named");
    assert_eq!((client.class, client.known, client.decides), (0, false, false));
    let answer = site.get("/v1/client?addr=192.0.2.1").await;
    let known: gateway_core::clients::ClientState = serde_json::from_str(&answer.body).unwrap();
    assert!(known.words().contains("nothing is known of it"), "{}", known.words());
    for wrong in ["/v1/client", "/v1/client?addr=x", "/v1/client?addr=192.0.2.1&b=1"] {
        assert_eq!(site.get(wrong).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_client_that_the_operator_put_into_a_class_is_drawn_by_it_at_l4_alone() {
    for (layer, decides) in [(Layer::L4, true), (Layer::L7, false)] {
        let mut fleet = fleet();
        fleet.client_classes = vec![("192.0.2.0".parse().unwrap(), 24, 5)];
        fleet.vips[0].layer = layer;
        let site = site_of(fleet, &Arc::default()).await;
        let routed = async |client: &str| {
            let asked = serde_json::json!({ "client": client });
            let answer = site.post("/v1/route", &asked, "").await;
            serde_json::from_str::<Routed>(&answer.body).unwrap()
        };
        let own = routed("192.0.2.1").await;
        assert_eq!(own.client.expect("it was named").decides, decides);
        assert_eq!(own.class, if decides { 5 } else { 0 });
        let other = routed("198.51.100.1").await;
        assert_eq!((other.class, other.client.unwrap().decides), (0, false));
    }
}

/// A prompt of so many kilobytes, and where it would go.
async fn prompt(site: &Site, kilobytes: usize) -> Routed {
    let text = "x".repeat(kilobytes << 10);
    let asked = serde_json::json!({ "model": "m", "prompt": [text], "hash": 7 });
    let answer = site.post("/v1/route", &asked, "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_prompt_is_told_its_favourite_and_why_it_goes_there_or_not() {
    let mut fleet = fleet();
    fleet.pools[0].http.affinity.by_prefix = true;
    let prefixes = Arc::new(PrefixTable::default());
    let site = site_of(fleet, &prefixes).await;
    let near = async |kilobytes| prompt(&site, kilobytes).await.affinity.expect("it is on");
    assert_eq!(near(0).await.result, Affinity::None);
    assert_eq!(near(2).await.result, Affinity::New);
    let backend = |index: usize| {
        let snapshot = site.control.handle().published().snapshot().load_full();
        snapshot.pools[0].backends[index].row.row
    };
    let known = gateway_core::prefix::blocks("m", "x".repeat(2 << 10).as_bytes());
    for (index, name) in [(0, "a"), (1, "b")] {
        prefixes.note(&known, backend(index));
        let routed = prompt(&site, 3).await;
        let near = routed.affinity.expect("it is on");
        assert_eq!((near.result, near.favourite.as_deref()), (Affinity::Kept, Some(name)));
        assert_eq!(routed.backend.as_deref(), Some(name), "whatever is drawn");
        assert!(routed.why.contains("same beginning"), "{}", routed.why);
    }
    // The second is the favourite, and has all that is under way.
    (0..5).for_each(|_| site.rows.begin(backend(1)));
    let routed = prompt(&site, 3).await;
    let near = routed.affinity.expect("it is on");
    assert_eq!((near.result, near.in_flight, near.in_flight_max), (Affinity::Full, 5, 5));
    assert_eq!((near.favourite.as_deref(), routed.backend.as_deref()), (Some("b"), Some("a")));
    assert!(near.why.contains("5 in flight"), "{}", near.why);
}

#[tokio::test]
async fn where_no_request_has_a_favourite_none_is_shown() {
    assert!(prompt(&site().await, 2).await.affinity.is_none());
}

#[tokio::test]
async fn a_recovery_shows_what_would_be_done_and_acts_only_with_the_token() {
    let site = site().await;
    let looks = serde_json::json!({ "backend": "a" });
    let answer = site.post("/v1/recover", &looks, "").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let recovery: Recovery = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((recovery.advice, recovery.acted), (Advice::Nothing, false));

    let acts = serde_json::json!({ "backend": "a", "act": true });
    assert_eq!(site.post("/v1/recover", &acts, "a wrong token for this").await.status, 401);
    let answer = site.post("/v1/recover", &acts, TOKEN).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let ejected = async {
        loop {
            let state = site.control.handle().published().state();
            let backend = &state.pools[0].backends[0];
            if backend.health == gateway_core::decision::Health::Ejected {
                return backend.reason.as_str();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(30), ejected).await.expect("it is");
    assert_eq!(reason, "operator");
    let unknown = site.post("/v1/recover", &serde_json::json!({ "backend": "c" }), "").await;
    assert_eq!(unknown.status, 404);
}

#[tokio::test]
async fn a_forecast_has_every_horizon_and_who_says_it() {
    let site = site().await;
    let forecast = async {
        loop {
            let answer = site.get("/v1/forecast?pool=web&backend=a").await;
            if answer.status == 200 {
                return serde_json::from_str::<Forecast>(&answer.body).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let forecast = tokio::time::timeout(Duration::from_secs(30), forecast).await.expect("one");
    let names: Vec<&str> = forecast.horizons.iter().map(|ahead| &*ahead.horizon).collect();
    assert_eq!(names, ["10s", "1m", "5m", "15m"]);
    assert_eq!(site.get("/v1/forecast?pool=nowhere").await.status, 404);
    assert_eq!(site.get("/v1/forecast?pool=web&backend=c").await.status, 404);
    assert_eq!(site.get("/v1/forecast").await.status, 400);
}

#[tokio::test]
async fn history_comes_part_by_part_and_of_no_pool_that_is_not_there() {
    let site = site().await;
    let part = async |query: &str| {
        let answer = site.get(&format!("/v1/history?pool=web{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str::<HistoryPart>(&answer.body).unwrap()
    };
    let first = part("").await;
    let names: Vec<&str> = first.page.windows.iter().map(|w| w.backend.as_str()).collect();
    assert_eq!(names[..2], ["a", "b"]);
    assert!(first.load.is_some() && first.profiles.is_some());
    let later = part(&format!("&after={}", u64::MAX)).await;
    assert!(later.page.windows.is_empty() && later.load.is_none() && later.profiles.is_none());
    let unknown = site.get("/v1/history?pool=nowhere").await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.error().contains("there is no pool \"nowhere\""));
}

/// Each reading is three seconds after the one before: whatever is asked takes so long.
#[derive(Debug, Default)]
struct Slow(std::sync::atomic::AtomicU64);

impl gateway_core::timing::Stopwatch for Slow {
    fn read(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(3, std::sync::atomic::Ordering::Relaxed))
    }
}

#[tokio::test]
async fn a_model_that_takes_too_long_rests_and_the_pages_say_so() {
    let site = site().await;
    let on = serde_json::json!({ "task": "fault", "stage": "on" });
    assert_eq!(site.post("/v1/models/stage", &on, TOKEN).await.status, 200);
    let slow = Arc::new(Slow::default());
    let handle = site.control.handle();
    handle.ask(|engine| engine.time_models(slow, Duration::from_millis(10))).await.unwrap();
    let rests = async {
        let barrier = "gateway_model_barrier{pool=\"web\",task=\"fault\",barrier=\"slow\"} 1.0\n";
        loop {
            let page = site.get("/metrics").await.body;
            if page.contains(barrier) {
                return page;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let page = tokio::time::timeout(Duration::from_secs(30), rests).await.expect("it rests");
    for line in [
        "gateway_model_rests_total{model=\"fault\"} 1",
        "gateway_model_inference_seconds_bucket{le=\"+Inf\",model=\"fault\"}",
    ] {
        assert!(page.contains(line), "no {line} in\n{page}");
    }
    let status: Status = serde_json::from_str(&site.get("/v1/state").await.body).unwrap();
    let decisions = site.get("/v1/decisions?limit=2").await.body;
    let decisions: Decisions = serde_json::from_str(&decisions).unwrap();
    let text = gateway_core::explain::explain(&decisions.decisions, status.state.pools.first());
    assert!(text.contains("its answers take too much of a turn"), "{text}");
    assert!(text.contains("the last took 3000.0 ms"), "{text}");
}
