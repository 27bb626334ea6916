//! Models of the real daemon, under load: taken into use, refused, promoted, rolled back, labelled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use gateway_core::classes::Profile;
use gateway_inference::artefact::digest;
use gateway_inference::{classes, history};

use crate::support::{Backend, Daemon, Load, eventually, get, output, said};
use crate::{QUICK, SLOW};

/// The forest that ships.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fault")
}

/// A command that changes something, with the token.
pub(crate) fn change(daemon: &Daemon, arguments: &[&str]) -> Output {
    let (admin, token) = (daemon.admin.to_string(), daemon.token_path().display().to_string());
    output(&[arguments, &["--admin", &admin, "--token-file", &token]].concat())
}

#[track_caller]
pub(crate) fn does(daemon: &Daemon, arguments: &[&str], says: &str) {
    let done = change(daemon, arguments);
    assert!(done.status.success() && said(&done).contains(says), "{}", said(&done));
}

/// The version that is in use, by the metrics.
fn in_use(daemon: &Daemon) -> Option<String> {
    let page = get(daemon.admin, "/metrics").ok()?.body;
    let line = page.lines().find(|line| line.starts_with("gateway_model_info{task=\"fault\""))?;
    Some(line.split('"').nth(3)?.to_owned())
}

#[test]
fn models_are_loaded_and_rolled_back_and_bad_files_leave_traffic_and_model_alone() {
    let backend = Backend::start("a", QUICK);
    let daemon = Daemon::start(&[("a", backend.addr)]);
    let load = Load::start(daemon.vip, 2);
    let built_in = in_use(&daemon).expect("a model is built in");

    let folder = shipped().canonicalize().expect("it ships").display().to_string();
    does(&daemon, &["models", "load", &folder], "has to prove itself");
    let admin = daemon.admin.to_string();
    let listed = said(&output(&["models", "list", "--admin", &admin]));
    assert!(listed.contains("built-in") && listed.contains("in use before"), "{listed}");
    does(&daemon, &["models", "rollback", "fault"], "back to built-in");
    let nothing = change(&daemon, &["models", "rollback", "fault"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(said(&nothing).contains("no other version before"), "{}", said(&nothing));

    // Half of a model, named as the one to use: no signal, the folder is watched.
    let bad = daemon.models_path().join("fault/bad");
    fs::create_dir_all(&bad).expect("a folder");
    let whole = fs::read(shipped().join("forest.json")).expect("it ships");
    fs::write(bad.join("forest.json"), &whole[..whole.len() / 2]).expect("it is cut");
    for file in ["features.json", "golden.json", "metrics.json"] {
        fs::copy(shipped().join(file), bad.join(file)).expect("it is copied");
    }
    fs::write(daemon.models_path().join("fault/current"), "bad\n").expect("it is named");
    let failures = "gateway_model_load_failures_total{task=\"fault\",reason=\"damaged\"}";
    eventually("the refusal is counted", || daemon.metric(failures).filter(|count| *count >= 1.0));
    let log = daemon.log();
    assert!(log.contains("model refused; the one in use stays"), "{log}");
    assert!(log.contains("not the model that was scored"), "{log}");
    assert_eq!(in_use(&daemon).as_ref(), Some(&built_in));
    let refused = change(&daemon, &["models", "load", &bad.display().to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("cargo xtask model evaluate"), "{}", said(&refused));
    assert!(daemon.log().contains("an operator asked for it"), "{}", daemon.log());

    let (good, failed) = load.stop();
    assert!(good > 0);
    assert_eq!(failed, 0, "of {} requests", good + failed);
}

#[test]
fn a_stage_is_set_by_command_and_shows_in_list_and_metrics() {
    let backend = Backend::start("a", QUICK);
    let daemon = Daemon::start(&[("a", backend.addr)]);
    let stage = |stage: &str| {
        let labels = format!("{{pool=\"web\",task=\"fault\",stage=\"{stage}\"}}");
        daemon.metric(&format!("gateway_model_stage{labels}"))
    };
    assert_eq!(stage("shadow"), Some(1.0));
    let asked = "gateway_model_inference_seconds_count{model=\"fault\"}";
    eventually("asking it takes time", || daemon.metric(asked).filter(|count| *count >= 1.0));
    assert_eq!(daemon.metric("gateway_model_rests_total{model=\"fault\"}"), Some(0.0));
    does(&daemon, &["models", "promote", "fault", "--stage", "on"], "fault: on in web");
    eventually("the metric follows", || (stage("on") == Some(1.0)).then_some(()));
    let barrier = "gateway_model_barrier{pool=\"web\",task=\"fault\",barrier=\"unproven\"}";
    eventually("what keeps it from deciding is told", || {
        (daemon.metric(barrier)? == 1.0).then_some(())
    });
    does(&daemon, &["models", "shadow", "fault", "--pool", "web"], "fault: shadow in web");
    eventually("the metric follows", || (stage("shadow") == Some(1.0)).then_some(()));
    let unknown = change(&daemon, &["models", "promote", "fault", "--pool", "nowhere"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("there is no pool \"nowhere\""), "{}", said(&unknown));

    // Without the token, nothing.
    let admin = daemon.admin.to_string();
    let refused = output(&["models", "promote", "fault", "--admin", &admin]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("Authorization: Bearer"), "{}", said(&refused));
    let json = output(&["models", "list", "--json", "--admin", &admin]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let is_fault = |seat: &&serde_json::Value| seat["task"] == "fault";
    let seats = json["seats"].as_array().expect("seats");
    assert_eq!(seats.iter().find(is_fault).expect("its seat")["stage"], "shadow");
}

#[test]
fn the_operators_word_labels_windows() {
    let (quick, slow) = (Backend::start("quick", QUICK), Backend::start("slow", SLOW));
    let daemon = Daemon::start(&[("quick", quick.addr), ("slow", slow.addr)]);
    let load = Load::start(daemon.vip, 4);
    eventually("windows are labelled", || {
        let done = change(&daemon, &["label", "slow", "faulty", "--from", "-1m"]);
        assert!(done.status.success(), "{}", said(&done));
        (!said(&done).contains(": 0 windows")).then_some(())
    });
    // The contrary about the same windows: taken as said, and told.
    does(&daemon, &["label", "slow", "healthy", "--from", "-1m"], "slow");
    let log = daemon.log();
    assert!(log.contains("windows had the contrary label; the operator's word stands"), "{log}");
    let unknown = change(&daemon, &["label", "nobody", "healthy"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("there is no backend \"nobody\""), "{}", said(&unknown));
    let backwards = change(&daemon, &["label", "slow", "faulty", "--from", "now", "--to", "-10s"]);
    assert_eq!(backwards.status.code(), Some(1));
    assert_eq!(change(&daemon, &["label", "slow", "strange"]).status.code(), Some(2));
    load.stop();
}

#[test]
fn classes_are_made_of_what_is_asked_and_go_on_after_a_restart() {
    let backend = Backend::start("a", QUICK);
    let mut daemon = Daemon::start(&[("a", backend.addr)]);
    let load = Load::start(daemon.vip, 2);
    let fits = "gateway_model_inference_seconds_count{model=\"classes\"}";
    eventually("classes are made", || daemon.metric(fits).filter(|count| *count >= 1.0));
    let scored = "gateway_model_scored{pool=\"web\",task=\"classes\"}";
    eventually("they are judged", || daemon.metric(scored).filter(|count| *count >= 1.0));
    load.stop();
    daemon.restart();
    assert!(daemon.metric(scored).expect("the seat") >= 1.0, "{}", daemon.log());
}

#[test]
fn a_daemon_begins_with_classes_that_were_learnt_from_its_history() {
    let backend = Backend::start("a", QUICK);
    let mut daemon = Daemon::start(&[("a", backend.addr)]);
    let load = Load::start(daemon.vip, 2);
    let fits = "gateway_model_inference_seconds_count{model=\"classes\"}";
    eventually("requests have profiles", || daemon.metric(fits).filter(|count| *count >= 1.0));
    load.stop();
    let (admin, folder) = (daemon.admin.to_string(), tempfile::tempdir().expect("a folder"));
    let exported = folder.path().join("history").display().to_string();
    let done = output(&["history", "export", &exported, "--admin", &admin]);
    assert!(done.status.success(), "{}", said(&done));
    let rows = history::profiles(Path::new(&exported)).expect("profiles");
    let view = classes::learn(&rows, 1).expect("classes");
    let model = folder.path().join("model");
    classes::export(&model, "of-a-test", &view, &[Profile::default()]).expect("it is written");
    let digest = digest(&fs::read(model.join(classes::MODEL)).expect("it is there"));
    fs::write(model.join("metrics.json"), format!("{{\"sha256\":\"{digest}\"}}")).expect("scores");
    does(&daemon, &["models", "load", &model.display().to_string()], "has to prove itself");

    // Another daemon, which nothing was asked of and nothing was saved for, has classes at once.
    let answered = "gateway_model_answer_age_seconds{pool=\"web\",task=\"classes\"}";
    daemon.signal(rustix::process::Signal::TERM);
    assert!(daemon.wait().success());
    fs::remove_file(daemon.state_path()).expect("the state was saved");
    daemon.start_again();
    eventually("its classes answer", || daemon.metric(answered));
    does(&daemon, &["models", "rollback", "classes"], "back to built-in");
    fs::write(model.join(classes::MODEL), "{}").expect("it is spoilt");
    let refused = change(&daemon, &["models", "load", &model.display().to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("not the model that was scored"), "{}", said(&refused));
}
