//! What the real daemon does about backends that it cuts: a real program, a real webhook, real
//! connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::QUICK;
use crate::support::{
    Backend, DEADLINE, Daemon, Load, config, eventually, free_addr, output, said,
};

/// A program of the operator's, which finds its folder in `$1`.
fn program(folder: &Path, text: &str) -> String {
    let path = folder.join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it is written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    format!("command = [{:?}, {:?}]\n", path.display().to_string(), folder.display().to_string())
}

/// A server that takes what is posted to it.
fn receiver() -> (SocketAddr, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("its address");
    let posted: Arc<Mutex<Vec<Value>>> = Arc::default();
    let heard = Arc::clone(&posted);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut text, mut bytes) = (String::new(), [0; 4096]);
            // A JSON object, and nothing behind it.
            while !text.ends_with('}') {
                let read = stream.read(&mut bytes).expect("a request");
                assert!(read > 0, "it ended within {text}");
                text += std::str::from_utf8(&bytes[..read]).expect("ASCII");
            }
            let (_, body) = text.split_once("\r\n\r\n").expect("head and body");
            heard.lock().expect("the list").push(serde_json::from_str(body).expect("JSON"));
            write!(stream, "HTTP/1.1 204 No Content\r\n\r\n").expect("it is answered");
        }
    });
    (addr, posted)
}

/// A daemon before two backends, of which the first is to be cut, that does what `recovery` says.
fn daemon(first: SocketAddr, second: SocketAddr, recovery: &str) -> Daemon {
    let (vip, admin) = (free_addr(), free_addr());
    let text = config(vip, admin, &[("sick", first), ("well", second)])
        // So long that nothing but a reset ends a request that hangs.
        + "[pool.http]\nresponse_timeout = \"1h\"\n[pool.policy]\nejection_base = \"500ms\"\n"
        + "[pool.recovery]\n"
        + recovery;
    Daemon::with(vip, admin, &text)
}

/// What `POST /v1/recover` answers.
fn recover(daemon: &Daemon, act: bool) -> Value {
    let body = json!({ "backend": "sick", "act": act }).to_string();
    let token = std::fs::read_to_string(daemon.token_path()).expect("the token");
    let mut stream = TcpStream::connect(daemon.admin).expect("the admin address answers");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    write!(
        stream,
        "POST /v1/recover HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    assert!(head.contains(" 200 "), "{answer}");
    serde_json::from_str(body).expect("JSON")
}

/// So many actions came to this.
fn counted(daemon: &Daemon, action: &str, result: &str) -> Option<f64> {
    daemon.metric(&format!(
        "gateway_recovery_actions_total{{pool=\"web\",action=\"{action}\",result=\"{result}\"}}"
    ))
}

fn explained(daemon: &Daemon) -> String {
    said(&output(&["explain", "sick", "--admin", &daemon.admin.to_string()]))
}

#[test]
fn a_backend_that_hangs_is_cut_and_all_is_done_that_is_configured() {
    let folder = tempfile::tempdir().expect("a folder");
    let (receiver, posted) = receiver();
    let gate = Arc::new(Mutex::new(()));
    let shut = Arc::clone(&gate);
    let sick = Backend::after("sick", move || {
        drop(shut.lock());
        std::thread::sleep(QUICK);
    });
    let well = Backend::start("well", QUICK);
    let text = "env | grep GATEWAY_ | sort > $1/env; cat > $1/stdin; echo restarted";
    let recovery = format!(
        "webhook = \"http://{receiver}/cut\"\n{}reset_connections = true\n",
        program(folder.path(), text)
    );
    let daemon = daemon(sick.addr, well.addr, &recovery);
    let planned = recover(&daemon, false)["actions"].clone();
    let would =
        |action: &str| json!({ "action": action, "denied": null, "why": "it would be run" });
    let all = ["reset_connections", "webhook", "command"];
    assert_eq!(planned, json!(all.map(would)));

    let load = Load::start(daemon.vip, 2);
    eventually("both serve", || (sick.served() > 20 && well.served() > 20).then_some(()));
    let closed = gate.lock().expect("the gate");
    // The last sign of life is some turns old, and more comes: that piles up at it.
    let turn = || daemon.state()["tick"].as_u64().expect("a number");
    let closed_at = turn();
    eventually("some turns", || (turn() > closed_at + 4).then_some(()));
    let more = Load::start(daemon.vip, 16);
    for action in all {
        eventually(action, || (counted(&daemon, action, "done")? == 1.0).then_some(()));
    }
    // What hung there was answered by the other.
    let retries = "gateway_http_retries_total{vip=\"site\",pool=\"web\",reason=\"reset\"}";
    assert!(daemon.metric(retries).expect("a retry") >= 1.0);

    let env = std::fs::read_to_string(folder.path().join("env")).expect("the program ran");
    let address = format!("GATEWAY_ADDRESS={}", sick.addr);
    let known = ["GATEWAY_BACKEND=sick", "GATEWAY_POOL=web", "GATEWAY_PROBABILITY=1.000", &address];
    assert!(known.iter().all(|line| env.lines().any(|found| found == *line)), "{env}");
    assert!(env.contains("GATEWAY_REASON=silent\nGATEWAY_TIME=2"), "{env}");
    let stdin = std::fs::read_to_string(folder.path().join("stdin")).expect("it read");
    let told = posted.lock().expect("the list").clone();
    let [told] = &told[..] else { panic!("told once: {told:?}") };
    assert_eq!(*told, serde_json::from_str::<Value>(&stdin).expect("JSON"));
    assert_eq!(told["about"], "recovery");
    assert_eq!((&told["pool"], &told["backend"]), (&json!("web"), &json!("sick")));
    assert_eq!((&told["reason"], &told["probability"]), (&json!("silent"), &json!(1.0)));
    assert_eq!(told["address"], json!(sick.addr.to_string()));

    // It still hangs when it is on trial: cut again, and left alone for as long as it cools down.
    eventually("the next cut's actions are denied", || {
        (counted(&daemon, "command", "denied_cool_down")? >= 1.0).then_some(())
    });
    assert_eq!(counted(&daemon, "command", "done"), Some(1.0));
    let text = explained(&daemon);
    assert!(text.contains("cut for silent, command was run: done (restarted)"), "{text}");
    assert!(text.contains("cut for silent, webhook was not run: "), "{text}");
    let log = daemon.log();
    let lines = |words: [&str; 2]| {
        log.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    let begins = "recovery action begins";
    assert_eq!(lines([begins, "\"action\":\"command\""]), 1, "{log}");
    assert_eq!(lines(["recovery action ended", "\"said\":\"restarted\""]), 1, "{log}");
    assert!(lines(["recovery action denied", "\"denied\":\"cool_down\""]) >= 3, "{log}");

    drop(closed);
    for (good, bad) in [load.stop(), more.stop()] {
        assert_eq!(bad, 0, "of {} requests", good + bad);
    }
}

#[test]
fn a_program_that_hangs_is_killed_at_its_limit_and_an_operators_word_is_acted_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let (sick, well) = (Backend::start("sick", QUICK), Backend::start("well", QUICK));
    let program = program(folder.path(), "echo $$ > $1/pid; echo begun; sleep 1000");
    let daemon = daemon(sick.addr, well.addr, &format!("{program}timeout = \"300ms\"\n"));
    let answer = recover(&daemon, true);
    assert_eq!(answer["acted"], json!(true));
    assert_eq!(answer["actions"][0]["denied"], json!(null), "{answer}");
    eventually("it is given up", || {
        (counted(&daemon, "command", "timed_out")? == 1.0).then_some(())
    });
    let pid = std::fs::read_to_string(folder.path().join("pid")).expect("it ran");
    let status = format!("/proc/{}/stat", pid.trim());
    eventually("it is gone", || {
        let stat = std::fs::read_to_string(&status);
        stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
    });
    let why = "it still ran after 300ms and was killed; it said: begun";
    assert!(daemon.log().contains(why), "{}", daemon.log());
    assert!(explained(&daemon).contains(why), "{}", explained(&daemon));
    let state = daemon.state();
    let deed = &state["pools"][0]["backends"][0]["recovery"][0];
    assert_eq!((&deed["action"], &deed["reason"]), (&json!("command"), &json!("operator")));
    assert_eq!(deed["end"]["result"], "timed_out");
}
