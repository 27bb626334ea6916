//! Admission in the real daemon: more is asked than a backend can serve, by clients of two priorities.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::{Backend, Client, Daemon, config, eventually, free_addr, output, said};

/// What a request takes at the backend, which serves one at once: two hundred a second.
const SERVICE: Duration = Duration::from_millis(5);

/// What a client that is refused waits until it asks again: sooner than it is told to.
const IMPATIENCE: Duration = Duration::from_millis(20);

/// What became of a client's requests.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    answered: u32,
    refused: u32,
    /// Anything else.
    failed: u32,
    slowest: Duration,
}

/// Clients that ask for a path until they are told to stop, with the header that names a priority.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Counts>>,
}

impl Clients {
    fn start(daemon: &Daemon, count: usize, path: &'static str) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let vip = daemon.vip;
        let ask = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut counts = Counts::default();
                let mut client = Client::connect(vip).expect("the VIP listens");
                while !stop.load(Ordering::Relaxed) {
                    let asked = Instant::now();
                    let answer = client.get(path).expect("an answer");
                    match answer.status {
                        200 => {
                            counts.answered += 1;
                            counts.slowest = counts.slowest.max(asked.elapsed());
                        }
                        503 => {
                            let after = answer.header("retry-after").expect("when to come back");
                            assert!(after.parse::<u32>().expect("seconds") >= 1, "{after}");
                            let status = answer.header("proxy-status").expect("why");
                            assert!(status.contains("destination_unavailable"), "{status}");
                            counts.refused += 1;
                            std::thread::sleep(IMPATIENCE);
                        }
                        _ => counts.failed += 1,
                    }
                }
                counts
            })
        };
        Clients { threads: (0..count).map(ask).collect(), stop }
    }

    fn stop(self) -> Counts {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Counts::default();
        for thread in self.threads {
            let counts = thread.join().expect("a client");
            all.answered += counts.answered;
            all.refused += counts.refused;
            all.failed += counts.failed;
            all.slowest = all.slowest.max(counts.slowest);
        }
        all
    }
}

#[test]
fn of_too_much_the_least_important_is_refused_and_all_come_in_again() {
    let worker = Mutex::new(());
    let backend = Backend::after("a", move || {
        let _only = worker.lock();
        std::thread::sleep(SERVICE);
    });
    let (vip, admin) = (free_addr(), free_addr());
    let text = config(vip, admin, &[("a", backend.addr)])
        + "[pool.admission]\nwait_max = \"20ms\"\nshare_max = 0.95\n\
           rule = [{ path = \"/batch\", priority = \"low\" }]\n";
    let daemon = Daemon::with(vip, admin, &text);

    // What it serves at once is learnt from requests that wait for each other, and what they usually
    // take from such that do not.
    let few = Clients::start(&daemon, 2, "/");
    eventually("what the backend can do is known", || {
        daemon.state()["pools"][0]["headroom"]["capacity"].as_f64()
    });
    let calm = few.stop();
    assert_eq!((calm.refused, calm.failed), (0, 0), "{calm:?}");

    let (important, batch) =
        (Clients::start(&daemon, 2, "/"), Clients::start(&daemon, 24, "/batch/7"));
    let refused = |cause: &str| {
        let labels = format!("vip=\"site\",pool=\"web\",priority=\"low\",cause=\"{cause}\"");
        daemon.metric(&format!("gateway_http_refused_total{{{labels}}}")).unwrap_or(0.0)
    };
    eventually("batches are refused", || (refused("queue") + refused("load") > 50.0).then_some(()));
    let admin = admin.to_string();
    eventually("it is explained", || {
        let text = said(&output(&["explain", "a", "--admin", &admin]));
        (text.contains("admission: refuses ") && text.contains("% of low, since")).then_some(())
    });
    let share = daemon.metric("gateway_admission_refused_share{pool=\"web\",priority=\"low\"}");
    assert!(share.expect("the share is shown") > 0.0);
    let (important, batch) = (important.stop(), batch.stop());
    assert_eq!((important.refused, important.failed), (0, 0), "{important:?}");
    assert!(important.answered > 0, "{important:?}");
    assert!(batch.refused > 50 && batch.failed == 0, "{batch:?}");
    assert!(daemon.log().contains("the least important requests are refused"), "{}", daemon.log());

    eventually("all come in again", || {
        let state = daemon.state();
        (state["pools"][0]["admission"]["cause"].is_null()).then_some(())
    });
    eventually("a batch comes in", || {
        (Client::connect(vip).ok()?.get("/batch/8").ok()?.status == 200).then_some(())
    });
}
