//! What the real daemon saw, written down, learnt from, and taken into use by it again.

use std::fs;
use std::path::Path;

use gateway_core::fault::{Forest, ForestSpec};
use gateway_core::features::fault::{FEATURES, schema};
use gateway_inference::artefact::digest;
use gateway_inference::fault::{MODEL, Recipe, Sample, export, samples, train};
use gateway_inference::history::{manifest, windows};
use gateway_inference::registry::Registry;

use crate::models::{change, does};
use crate::support::{Backend, Daemon, Load, eventually, output, said};
use crate::{QUICK, SLOW};

/// A few small trees, which teach nobody much but are a model: of so few windows a leaf has one.
fn small_forest(samples: &[Sample]) -> Forest {
    let recipe = Recipe { trees: 3, drawn: 50, depth: 4, leaf: 1.0, ..Recipe::default() };
    let spec = ForestSpec {
        version: "fault-of-a-test".to_owned(),
        schema: schema(),
        suspicious_from: 0.5,
        calibration: vec![[0.0, 0.001], [0.5, 0.5], [0.9, 0.9]],
        familiar: FEATURES.iter().map(|feature| feature.range).collect(),
        trees: train(samples, &recipe).expect("windows of both kinds"),
    };
    Forest::new(spec).expect("a forest")
}

/// Puts a forest into a folder with golden cases of some windows, and the digest of what was scored.
fn put(folder: &Path, forest: &Forest, samples: &[Sample]) {
    let inputs: Vec<_> = samples.iter().take(8).map(|sample| sample.vector).collect();
    export(folder, forest, &inputs).expect("it is written");
    let model = fs::read(folder.join(MODEL)).expect("it is there");
    let scores = serde_json::json!({ "sha256": digest(&model) });
    fs::write(folder.join("metrics.json"), scores.to_string()).expect("it is written");
}

#[test]
fn history_is_exported_learnt_from_and_the_forest_taken_into_use() {
    let (quick, slow) = (Backend::start("quick", QUICK), Backend::start("slow", SLOW));
    let daemon = Daemon::start(&[("quick", quick.addr), ("slow", slow.addr)]);
    let load = Load::start(daemon.vip, 4);
    let (admin, folder) = (daemon.admin.to_string(), tempfile::tempdir().expect("a folder"));
    let mut exported = folder.path().join("none");
    // Windows have to lie in what is said of them as a whole, so that it takes some seconds.
    let learnt = eventually("windows of both kinds are exported", || {
        does(&daemon, &["label", "slow", "faulty", "--from", "-1m"], "in the history");
        does(&daemon, &["label", "quick", "healthy", "--from", "-1m"], "in the history");
        exported = tempfile::tempdir_in(folder.path()).expect("a folder").keep();
        let done =
            output(&["history", "export", &exported.display().to_string(), "--admin", &admin]);
        assert!(done.status.success() && said(&done).contains("POOL"), "{}", said(&done));
        let learnt = samples(&windows(&exported).expect("a history"));
        let of = |faulty| learnt.iter().filter(|sample| sample.faulty == Some(faulty)).count();
        (of(true).min(of(false)) >= 5).then_some(learnt)
    });
    load.stop();
    let said_of_it = manifest(&exported).expect("a manifest");
    assert_eq!((said_of_it.pools.len(), said_of_it.source.admin.as_str()), (1, admin.as_str()));
    let counts = &said_of_it.pools[0];
    assert!(counts.faulty >= 5 && counts.well >= 5 && counts.windows > 10, "{counts:?}");
    assert!(learnt.iter().all(|sample| sample.backend.contains("/web/")), "{learnt:?}");
    let again = output(&["history", "export", &exported.display().to_string(), "--admin", &admin]);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("a history is there already"), "{}", said(&again));

    let model = folder.path().join("model");
    put(&model, &small_forest(&learnt), &learnt);
    let versions = folder.path().join("versions");
    let loaded = Registry::new(Some(&versions)).load(&model).expect("it stands the check");
    assert!(loaded.1.starts_with("fault-of-a-test-"), "{loaded:?}");
    does(&daemon, &["models", "load", &model.display().to_string()], "has to prove itself");
}

#[test]
fn without_memory_for_it_no_history_is_kept() {
    let backend = Backend::start("a", QUICK);
    let (vip, admin) = (crate::support::free_addr(), crate::support::free_addr());
    let text = crate::support::config(vip, admin, &[("a", backend.addr)]);
    let text = text.replacen("[gateway]\n", "[gateway]\nhistory = \"0B\"\n", 1);
    let daemon = Daemon::with(vip, admin, &text);
    crate::support::get(vip, "/").expect("an answer");
    let (admin, folder) = (admin.to_string(), tempfile::tempdir().expect("a folder"));
    let done =
        output(&["history", "export", &folder.path().display().to_string(), "--admin", &admin]);
    assert!(said(&done).contains("no windows yet; `gateway.history`"), "{}", said(&done));
    let unknown = change(&daemon, &["label", "nobody", "healthy"]);
    assert_eq!(unknown.status.code(), Some(1));
}
