use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use gateway_core::target::{Command, HttpUrl, Webhook};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::*;

/// How long a condition may take to come true. Far more than it needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A pause between tries that a test can wait for.
const SOON: Duration = Duration::from_millis(5);

/// A server that answers its connections with these, in turn, and then with the last for good. An
/// empty one: it hangs. Keeps the requests.
async fn receiver(answers: Vec<&'static str>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let requests: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&requests);
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        let mut last = "";
        while let Ok((mut stream, _)) = listener.accept().await {
            last = answers.next().unwrap_or(last);
            let (answer, heard) = (last, Arc::clone(&heard));
            tokio::spawn(async move {
                let request = read_request(&mut stream).await;
                heard.lock().unwrap().push(request);
                if answer.is_empty() {
                    let _ = stream.read_to_end(&mut Vec::new()).await;
                }
                let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
            });
        }
    });
    (addr, requests)
}

/// Head and body, by its length.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text.into_owned();
            }
        }
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the request ended within: {text}");
        bytes.extend_from_slice(&chunk[..read]);
    }
}

fn webhook(addr: SocketAddr, timeout: Duration) -> Target {
    let url = HttpUrl::parse(&format!("http://{addr}/hook?token=t")).unwrap();
    Target::Webhook(Webhook { url, timeout })
}

fn message(target: Target, replaces: Option<&str>, body: &'static str) -> Message {
    let replaces = replaces.map(str::to_owned);
    Message {
        about: "test",
        replaces,
        target,
        body: Bytes::from_static(body.as_bytes()),
        environment: vec![("GATEWAY_TEST", "a b".to_owned())],
        hearer: None,
    }
}

/// A script that is run with its path as the only argument.
fn script(dir: &tempfile::TempDir, text: &str, timeout: Duration) -> Target {
    let program = dir.path().join("script");
    std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    Target::Command(Command { program, args: vec![dir.path().display().to_string()], timeout })
}

/// Delivers one with short pauses; what became of it.
async fn outcome(message: Message, tries_max: u32) -> (u64, u64) {
    let metrics = Metrics::default();
    deliver(&message, &metrics, tries_max, SOON).await;
    let kind = kind(&message.target);
    let count = |outcome| metrics.counted("test", kind, outcome);
    (count(Outcome::delivered), count(Outcome::failed))
}

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_webhook_is_posted_as_json() {
    let (addr, requests) = receiver(vec!["204 No Content"]).await;
    let told = message(webhook(addr, PATIENCE), None, r#"{"wanted":3}"#);
    assert_eq!(outcome(told, 1).await, (1, 0));
    let requests = requests.lock().unwrap();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert!(request.starts_with("POST /hook?token=t HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {addr}\r\n")), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"wanted\":3}"), "{request}");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
    let check = async |answers, tries_max, expected, requests_expected| {
        let (addr, requests) = receiver(answers).await;
        let told = message(webhook(addr, Duration::from_millis(200)), None, "{}");
        assert_eq!(outcome(told, tries_max).await, expected);
        assert_eq!(requests.lock().unwrap().len(), requests_expected);
    };
    check(vec!["503 Busy", "429 Slow", "200 OK"], 3, (1, 0), 3).await;
    check(vec!["503 Busy", "503 Busy", "200 OK"], 2, (0, 1), 2).await;
    check(vec!["404 Not Found", "200 OK"], 3, (0, 1), 1).await;
    check(vec!["307 Elsewhere", "200 OK"], 3, (0, 1), 1).await;
    check(vec!["", "200 OK"], 2, (1, 0), 2).await;
}

#[tokio::test]
async fn nobody_there_is_tried_again_until_somebody_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    assert_eq!(outcome(message(webhook(addr, PATIENCE), None, "{}"), 3).await, (0, 1));
}

#[tokio::test]
async fn a_command_reads_the_message_and_no_other_environment() {
    let dir = tempfile::tempdir().unwrap();
    let target = script(&dir, r#"cat > "$1/said"; env > "$1/env"; pwd >> "$1/env""#, PATIENCE);
    assert_eq!(outcome(message(target, None, r#"{"a":1}"#), 3).await, (1, 0));
    assert_eq!(std::fs::read_to_string(dir.path().join("said")).unwrap(), r#"{"a":1}"#);
    let env = std::fs::read_to_string(dir.path().join("env")).unwrap();
    assert!(env.contains(PATH_LINE) && !env.contains("CARGO"), "{env}");
    assert!(env.contains("GATEWAY_TEST=a b\n"), "{env}");
}

const PATH_LINE: &str = "PATH=/usr/local/sbin";

#[tokio::test]
async fn a_command_that_failed_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let target = script(&dir, r#"echo run >> "$1/runs"; exit 3"#, PATIENCE);
    assert_eq!(outcome(message(target, None, "{}"), 3).await, (0, 1));
    assert_eq!(std::fs::read_to_string(dir.path().join("runs")).unwrap(), "run\n");
    let none = Command { program: "/nowhere".into(), args: Vec::new(), timeout: PATIENCE };
    assert_eq!(outcome(message(Target::Command(none), None, "{}"), 3).await, (0, 1));
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_what_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"sleep 1000 & echo $! > "$1/pid"; wait"#;
    let target = script(&dir, text, Duration::from_millis(300));
    assert_eq!(outcome(message(target, None, "{}"), 3).await, (0, 1));
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    let status = format!("/proc/{}/stat", pid.trim());
    // Gone, or dead and not yet reaped by whoever inherited it.
    let is_gone = || std::fs::read_to_string(&status).map_or(true, |stat| stat.contains(") Z "));
    until("the end of the command's child", is_gone).await;
}

/// Delivers one; how it ended, as whoever asked to hear of it does.
async fn ended(target: Target) -> Ended {
    let (notifier, deliveries) = new();
    let running = tokio::spawn(deliveries.run(std::future::pending()));
    let (hear, heard) = oneshot::channel();
    let hearer = Hearer(Box::new(move |ended| drop(hear.send(ended))));
    notifier.tell(Message { hearer: Some(hearer), ..message(target, None, "{}") });
    let ended = timeout(PATIENCE, heard).await.unwrap().unwrap();
    running.abort();
    ended
}

#[tokio::test]
async fn whoever_asked_hears_how_it_ended_and_what_a_command_said() {
    let dir = tempfile::tempdir().unwrap();
    let check = async |target, how, said: &str| {
        let ended = ended(target).await;
        assert_eq!((ended.how, ended.said.as_str()), (how, said));
    };
    let done = script(&dir, "echo restarted; echo twice >&2", PATIENCE);
    check(done, How::Delivered, "restarted twice").await;
    let failed = script(&dir, "echo no such unit >&2; exit 5", PATIENCE);
    let said = "it ended with exit status: 5; it said: no such unit";
    check(failed, How::Failed, said).await;
    let late = script(&dir, "echo begun; sleep 1000", Duration::from_millis(300));
    check(late, How::Late, "it still ran after 300ms and was killed; it said: begun").await;
    let (addr, _) = receiver(vec!["200 OK"]).await;
    check(webhook(addr, PATIENCE), How::Delivered, "").await;
    let (addr, _) = receiver(vec!["404 Not Found"]).await;
    let said = "it answered 404 Not Found, where 2xx is taken as heard";
    check(webhook(addr, PATIENCE), How::Failed, said).await;
}

#[tokio::test]
async fn a_flood_of_words_is_read_dropped_and_no_reason_to_wait() {
    let dir = tempfile::tempdir().unwrap();
    let many = script(&dir, "head -c 1000000 /dev/zero | tr '\\0' x", PATIENCE);
    let Ended { how, said } = ended(many).await;
    assert_eq!((how, said.len()), (How::Delivered, 1024));
    let endless = script(&dir, "yes", Duration::from_millis(300));
    assert_eq!(ended(endless).await.how, How::Late);
}

#[tokio::test]
async fn what_a_command_leaves_running_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"sleep 1000 & echo $! > "$1/pid"; echo left"#;
    let Ended { how, said } = ended(script(&dir, text, PATIENCE)).await;
    assert_eq!((how, said.as_str()), (How::Delivered, "left"));
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_target_that_hangs_holds_up_no_other_and_gives_way_to_newer_news() {
    let (stuck, stuck_heard) = receiver(vec!["", "200 OK"]).await;
    let (addr, heard) = receiver(vec!["200 OK"]).await;
    let (notifier, deliveries) = new();
    let (end, ended) = oneshot::channel::<()>();
    let running = tokio::spawn(deliveries.run(async { drop(ended.await) }));
    notifier.tell(message(webhook(stuck, PATIENCE * 10), Some("web"), "1"));
    until("the first request", || stuck_heard.lock().unwrap().len() == 1).await;
    notifier.tell(message(webhook(addr, PATIENCE), Some("shop"), "2"));
    until("the other's request", || heard.lock().unwrap().len() == 1).await;
    notifier.tell(message(webhook(stuck, PATIENCE), Some("web"), "3"));
    until("the newer", || stuck_heard.lock().unwrap().len() == 2).await;
    let count = |outcome| notifier.metrics.counted("test", "webhook", outcome);
    until("their delivery", || count(Outcome::delivered) == 2).await;
    assert_eq!(count(Outcome::replaced), 1);
    assert!(stuck_heard.lock().unwrap()[1].ends_with("\r\n\r\n3"));
    drop(end);
    timeout(PATIENCE, running).await.unwrap().unwrap();
}

#[tokio::test]
async fn telling_never_waits_and_what_is_too_much_is_counted() {
    let (notifier, _deliveries) = new();
    let (addr, _) = receiver(vec!["200 OK"]).await;
    (0..WAITING_MAX + 3).for_each(|_| notifier.tell(message(webhook(addr, SOON), None, "{}")));
    assert_eq!(notifier.metrics.counted("test", "webhook", Outcome::dropped), 3);
    let (notifier, _deliveries) = new();
    let body = Bytes::from(vec![b'1'; MESSAGE_BYTES_MAX + 1]);
    notifier.tell(Message { body, ..message(webhook(addr, SOON), None, "") });
    assert_eq!(notifier.metrics.counted("test", "webhook", Outcome::dropped), 1);
    let (hear, heard) = oneshot::channel();
    let hearer = Some(Hearer(Box::new(move |ended| drop(hear.send(ended)))));
    let body = Bytes::from(vec![b'1'; MESSAGE_BYTES_MAX + 1]);
    notifier.tell(Message { body, hearer, ..message(webhook(addr, SOON), None, "") });
    assert_eq!(heard.await.unwrap().how, How::Dropped);
}
