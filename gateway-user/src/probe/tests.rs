use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway_core::fleet::{
    Admission, Algorithm, BackendSpec, CanarySpec, Fleet, HttpSpec, Mode, PolicySpec, PoolSpec,
    ProbeKind, WeightMode,
};
use gateway_core::ladder::Stages;
use gateway_core::snapshot::{BackendSnapshot, PoolSnapshot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::*;

/// How long a condition may take to come true. Far more than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn http(timeout: Duration) -> ProbeSpec {
    let kind = ProbeKind::Http { path: "/healthz".to_owned() };
    ProbeSpec { kind, interval: Duration::from_millis(20), timeout, rise: 2, fall: 3, port: None }
}

fn tcp() -> ProbeSpec {
    ProbeSpec { kind: ProbeKind::Tcp, ..http(PATIENCE) }
}

/// A server that runs a script on every connection.
async fn server<F, R>(script: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    server_at("127.0.0.1:0", script).await
}

/// The same, at an address.
async fn server_at<F, R>(addr: &str, script: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream));
        }
    });
    addr
}

async fn answers(text: &'static str) -> SocketAddr {
    server(move |mut stream| async move {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(text.as_bytes()).await;
    })
    .await
}

async fn hangs() -> SocketAddr {
    server(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

async fn refuses() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

fn snapshot(addrs: &[SocketAddr], generation: u32, probe: Option<ProbeSpec>) -> Snapshot {
    let backends = addrs.iter().enumerate().map(|(index, &addr)| BackendSpec {
        name: format!("b{index}"),
        addr,
        nat_addr: Ipv4Addr::LOCALHOST.into(),
        capacity: 1.0,
        admission: Admission::Accepting,
    });
    let pool = PoolSpec {
        name: "pool".to_owned(),
        algorithm: Algorithm::Maglev,
        weights: WeightMode::Equal,
        mode: Mode::Nat,
        retry_refused: false,
        reset_lost: false,
        backends: backends.collect(),
        probe,
        policy: PolicySpec::default(),
        http: HttpSpec::default(),
        admission: None,
        autoscale: None,
        recovery: None,
        models: Stages::default(),
        canary: CanarySpec::default(),
    };
    let placed = addrs.iter().enumerate().map(|(row, &addr)| BackendSnapshot {
        row: BackendRow { row: row as u32, generation },
        addr,
    });
    Snapshot {
        fleet: Arc::new(Fleet { vips: vec![], pools: vec![pool], client_classes: vec![] }),
        pools: vec![PoolSnapshot {
            index: 0,
            slots: Arc::new([]),
            control_share: 0,
            classes: Arc::default(),
            valve: None,
            fallback: 0,
            backends: placed.collect(),
        }],
        by_row: (0..addrs.len()).map(|row| (row as u32, (0, row))).collect(),
        weights_age_max_ns: 0,
    }
}

/// A running prober, its snapshot and what it reports.
struct Lab {
    snapshot: Arc<ArcSwap<Snapshot>>,
    reports: mpsc::Receiver<Observation>,
    stop: Option<oneshot::Sender<()>>,
    running: tokio::task::JoinHandle<()>,
}

impl Lab {
    fn start(snapshot: Snapshot, at_once_max: usize) -> Lab {
        let snapshot = Arc::new(ArcSwap::from_pointee(snapshot));
        let (telemetry, reports) = Telemetry::new();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let probing = run_with(Arc::clone(&snapshot), telemetry, shutdown, at_once_max);
        Lab { snapshot, reports, stop: Some(stop), running: tokio::spawn(probing) }
    }

    async fn next(&mut self) -> (BackendRow, bool) {
        let report = timeout(PATIENCE, self.reports.recv()).await.expect("a report");
        let report = report.expect("the prober runs");
        match report.seen {
            Seen::Probe { healthy, .. } => (report.backend, healthy),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_of_2xx_or_3xx_is_healthy_and_nothing_else() {
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let spec = http(PATIENCE);
    let check = async |text, expected| {
        assert_eq!(ask::ask(answers(text).await, &spec).await, expected, "{text}")
    };
    check(ok, ask::Answer::Good).await;
    check("HTTP/1.1 204 No Content\r\n\r\n", ask::Answer::Good).await;
    check("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", ask::Answer::Good)
        .await;
    check("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", ask::Answer::Good).await;
    check("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", ask::Answer::Bad).await;
    check("HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", ask::Answer::Bad).await;
    check("220 mail.example ESMTP\r\n", ask::Answer::Bad).await;
    check("", ask::Answer::Bad).await;
    assert_eq!(ask::ask(refuses().await, &spec).await, ask::Answer::Bad);
}

#[tokio::test]
async fn a_backend_that_hangs_is_bad_after_the_timeout_and_its_connection_closed() {
    let (closed, mut was_closed) = mpsc::unbounded_channel();
    let addr = server(move |mut stream| {
        let closed = closed.clone();
        async move {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            let _ = closed.send(());
        }
    })
    .await;
    let start = Instant::now();
    let limit = Duration::from_millis(50);
    assert_eq!(ask::ask(addr, &http(limit)).await, ask::Answer::Bad);
    assert!(start.elapsed() >= limit);
    timeout(PATIENCE, was_closed.recv()).await.expect("the connection is closed");
}

#[tokio::test]
async fn a_tcp_probe_wants_a_connection_and_no_more() {
    assert_eq!(ask::ask(hangs().await, &tcp()).await, ask::Answer::Good);
    assert_eq!(ask::ask(refuses().await, &tcp()).await, ask::Answer::Bad);
}

#[tokio::test]
async fn an_ipv6_backend_is_asked_by_its_name_in_brackets() {
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let addr = server_at("[::1]:0", move |mut stream| {
        let asked = asked.clone();
        async move {
            let mut request = vec![0; 1024];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let _ = asked.send(String::from_utf8_lossy(&request[..read]).to_lowercase());
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    assert_eq!(ask::ask(addr, &http(PATIENCE)).await, ask::Answer::Good);
    let request = was_asked.recv().await.unwrap();
    assert!(request.contains(&format!("host: [::1]:{}\r\n", addr.port())), "{request}");
    let elsewhere = ProbeSpec { port: Some(1), ..tcp() };
    assert_eq!(asked_at(addr, &elsewhere), "[::1]:1".parse().unwrap());
}

#[tokio::test]
async fn every_backend_is_reported_again_and_again() {
    let (good, bad) = (hangs().await, refuses().await);
    let mut lab = Lab::start(snapshot(&[good, bad], 1, Some(tcp())), AT_ONCE_MAX);
    let mut counts = [0, 0];
    while counts.iter().any(|&count| count < 3) {
        let (backend, healthy) = lab.next().await;
        assert_eq!(healthy, backend.row == 0);
        counts[backend.row as usize] += 1;
    }
}

#[tokio::test]
async fn probes_follow_the_snapshot() {
    let (old, new) = (hangs().await, refuses().await);
    let mut lab = Lab::start(snapshot(&[old], 1, Some(tcp())), AT_ONCE_MAX);
    assert_eq!(lab.next().await, (BackendRow { row: 0, generation: 1 }, true));
    lab.snapshot.store(Arc::new(snapshot(&[new], 2, Some(tcp()))));
    let replaced = (BackendRow { row: 0, generation: 2 }, false);
    let deadline = Instant::now() + PATIENCE;
    while lab.next().await != replaced {
        assert!(Instant::now() < deadline, "the new backend is never probed");
    }
    for _ in 0..5 {
        assert_eq!(lab.next().await, replaced, "the old backend is probed no more");
    }
}

#[tokio::test]
async fn a_pool_without_a_probe_and_a_stopped_prober_report_nothing() {
    let backend = hangs().await;
    let mut lab = Lab::start(snapshot(&[backend], 1, Some(tcp())), AT_ONCE_MAX);
    lab.next().await;
    lab.stop.take().unwrap().send(()).unwrap();
    timeout(PATIENCE, lab.running).await.expect("it stops").unwrap();
    // With the last task the last sender is gone, so the channel ends.
    let ended = async { while lab.reports.recv().await.is_some() {} };
    timeout(PATIENCE, ended).await.expect("its tasks stop with it");
    assert!(targets(&snapshot(&[backend], 1, None)).is_empty());
}

#[tokio::test]
async fn only_so_many_probes_are_under_way_at_once() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&now), Arc::clone(&most));
    let addr = server(move |mut stream| {
        let (now, most) = counted.clone();
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 1024]).await;
            // Counted down before the answer ends the probe.
            now.fetch_sub(1, Ordering::SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let mut lab = Lab::start(snapshot(&[addr; 32], 1, Some(http(PATIENCE))), 2);
    for _ in 0..200 {
        assert!(lab.next().await.1);
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[test]
fn intervals_are_jittered_within_bounds() {
    let mut rng = SmallRng::seed_from_u64(1);
    let interval = Duration::from_secs(10);
    let drawn: Vec<_> = (0..100).map(|_| jittered(interval, &mut rng)).collect();
    assert!(drawn.iter().all(|&d| d >= interval.mul_f64(0.9) && d <= interval.mul_f64(1.1)));
    assert!(drawn.iter().max() > drawn.iter().min());
}
