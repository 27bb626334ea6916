//! Bad model files of every kind: each is refused with its reason, and the model before stays.

use std::fs;

use gateway_core::fault::{ForestSpec, Node};
use gateway_core::features::fault::{FEATURES, schema};

use super::*;

/// A folder of models, and one to load from.
struct Bench {
    models: tempfile::TempDir,
    other: tempfile::TempDir,
    registry: Registry,
}

fn bench() -> Bench {
    let (models, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut registry = Registry::new(Some(models.path()));
    assert!(!registry.look().is_empty(), "what is built in is taken");
    Bench { models, other, registry }
}

/// A forest of one split, whose leaf says this share.
fn spec(version: &str, share: f32) -> ForestSpec {
    let leaf = |share| Node { feature: 0, threshold: 0.0, low: 0, high: 0, share };
    let root = Node { feature: 3, threshold: 0.5, low: 1, high: 2, share: 0.5 };
    ForestSpec {
        version: version.to_owned(),
        schema: schema(),
        suspicious_from: 0.5,
        calibration: vec![[0.0, 0.001], [0.5, 0.7]],
        familiar: FEATURES.iter().map(|feature| feature.range).collect(),
        trees: vec![vec![root, leaf(0.1), leaf(share)]],
    }
}

/// Writes a model's folder as `train` and `evaluate` do.
fn write(folder: &Path, spec: ForestSpec) {
    let forest = Forest::new(spec).unwrap();
    fault::export(folder, &forest, &[[0.0; FEATURES.len()]]).unwrap();
    score(folder);
}

/// Writes scores of the model that is there now.
fn score(folder: &Path) {
    let digest = crate::artefact::digest(&fs::read(folder.join(fault::MODEL)).unwrap());
    fs::write(folder.join(METRICS), format!("{{\"sha256\":\"{digest}\"}}")).unwrap();
}

impl Bench {
    fn id(&self) -> String {
        self.registry.models().version(Task::Fault).unwrap().to_owned()
    }

    /// Lets `version` be in use as a person would.
    fn name(&self, version: &str) {
        fs::create_dir_all(self.models.path().join("fault")).unwrap();
        fs::write(self.models.path().join("fault/current"), version).unwrap();
    }

    /// The refusal of what lies on the shelf now, and its reason.
    fn refusal(&mut self) -> (String, &'static str) {
        let before = self.id();
        let changes = self.registry.look();
        let [Change::Refused { error, .. }] = &changes[..] else { panic!("{changes:?}") };
        let source = std::error::Error::source(error).map(ToString::to_string);
        assert_eq!(self.id(), before, "the old model stays");
        assert!(self.registry.look().is_empty(), "told once");
        (format!("{error}: {}", source.unwrap_or_default()), error.as_str())
    }
}

#[test]
fn without_a_folder_the_models_that_are_built_in_are_in_use() {
    let mut registry = Registry::new(None);
    assert_eq!(registry.models().version(Task::Fault), None);
    registry.look();
    let models = registry.models();
    assert!(models.version(Task::Fault).unwrap().starts_with("fault-"));
    assert!(registry.look().is_empty());
    let error = registry.load(Path::new("models/fault")).unwrap_err();
    assert!(error.to_string().contains("set `gateway.models`"), "{error}");
    let listed = registry.list().unwrap();
    assert!(listed.iter().any(|l| l.task == Task::Fault && l.version == BUILT_IN && l.in_use));
}

#[test]
fn what_is_loaded_is_in_use_and_one_command_goes_back() {
    let mut bench = bench();
    let built_in = bench.id();
    write(bench.other.path(), spec("first", 0.9));
    let (task, first) = bench.registry.load(bench.other.path()).unwrap();
    assert_eq!((task, bench.id()), (Task::Fault, first.clone()));
    assert!(first.starts_with("first-"), "{first}");
    write(bench.other.path(), spec("second", 0.8));
    let (_, second) = bench.registry.load(bench.other.path()).unwrap();
    assert_eq!(bench.id(), second);
    assert!(bench.registry.look().is_empty(), "it is known already");

    assert_eq!(bench.registry.roll_back(Task::Fault).unwrap(), first);
    assert_eq!(bench.id(), first);
    assert_eq!(bench.registry.roll_back(Task::Fault).unwrap(), BUILT_IN);
    assert_eq!(bench.id(), built_in);
    let error = bench.registry.roll_back(Task::Fault).unwrap_err();
    assert!(error.to_string().contains("no other version before"), "{error}");
}

/// What happened to the forest alone: a first look takes in all that is built in.
fn of_fault(mut changes: Vec<Change>) -> Vec<Change> {
    changes.retain(|change| match change {
        Change::Loaded { task, .. } | Change::Refused { task, .. } => *task == Task::Fault,
    });
    changes
}

#[test]
fn loading_a_version_again_repairs_what_was_damaged_on_the_shelf() {
    let mut bench = bench();
    write(bench.other.path(), spec("mine", 0.9));
    let (_, mine) = bench.registry.load(bench.other.path()).unwrap();
    fs::write(bench.models.path().join("fault").join(&mine).join(fault::MODEL), "{").unwrap();
    assert_eq!(bench.refusal().1, "damaged");
    bench.registry.load(bench.other.path()).unwrap();
    let mut registry = Registry::new(Some(bench.models.path()));
    let refused = registry.look().iter().any(|change| matches!(change, Change::Refused { .. }));
    assert!(!refused, "a new daemon finds it whole");
    assert_eq!(registry.models().version(Task::Fault), Some(&*mine));
}

#[test]
fn a_model_whose_name_leads_out_of_the_folder_is_refused_and_nothing_written() {
    let mut bench = bench();
    let before = bench.id();
    for name in ["../out", "/tmp/out", "two words", ".hidden"] {
        write(bench.other.path(), spec(name, 0.9));
        let error = bench.registry.load(bench.other.path()).unwrap_err();
        assert!(error.to_string().contains("calls itself"), "{error}");
    }
    assert_eq!(bench.id(), before);
    assert_eq!(fs::read_dir(bench.models.path()).unwrap().count(), 0);
}

#[test]
fn a_new_daemon_goes_on_with_the_version_that_was_in_use() {
    let mut bench = bench();
    write(bench.other.path(), spec("kept", 0.9));
    let (_, kept) = bench.registry.load(bench.other.path()).unwrap();
    let mut registry = Registry::new(Some(bench.models.path()));
    let changes = of_fault(registry.look());
    assert!(matches!(&changes[..], [Change::Loaded { id, .. }] if *id == kept), "{changes:?}");
    assert_eq!(registry.models().version(Task::Fault), Some(&*kept));
}

#[test]
fn a_new_daemon_whose_version_is_bad_begins_with_what_is_built_in() {
    let bench = bench();
    bench.name("nowhere");
    let mut registry = Registry::new(Some(bench.models.path()));
    let changes = of_fault(registry.look());
    let refused_and_loaded = matches!(
        &changes[..],
        [Change::Refused { .. }, Change::Loaded { version, .. }] if version == BUILT_IN
    );
    assert!(refused_and_loaded, "{changes:?}");
    assert_eq!(registry.models().version(Task::Fault), Some(&*bench.id()));
}

#[test]
fn what_a_person_writes_to_the_list_is_taken_over() {
    let mut bench = bench();
    write(&bench.models.path().join("fault/mine"), spec("mine", 0.9));
    assert!(bench.registry.look().is_empty(), "nobody said that it is to be used");
    bench.name("mine\n");
    let changes = bench.registry.look();
    assert!(matches!(&changes[..], [Change::Loaded { version, .. }] if version == "mine"));
    bench.name("../../elsewhere");
    let (told, reason) = bench.refusal();
    assert!(told.contains("is no version"), "{told}");
    assert_eq!(reason, "file");
}

#[test]
fn a_missing_model_is_refused() {
    let mut bench = bench();
    bench.name("nowhere");
    let (told, reason) = bench.refusal();
    assert!(told.contains("nowhere/metrics.json"), "{told}");
    assert_eq!(reason, "file");
    let error = bench.registry.load(bench.other.path()).unwrap_err();
    assert_eq!(error.as_str(), "unknown");
}

#[test]
fn a_truncated_model_is_refused() {
    let mut bench = bench();
    let folder = bench.models.path().join("fault/cut");
    write(&folder, spec("cut", 0.9));
    let whole = fs::read(folder.join(fault::MODEL)).unwrap();
    fs::write(folder.join(fault::MODEL), &whole[..whole.len() / 2]).unwrap();
    bench.name("cut");
    let (told, reason) = bench.refusal();
    assert!(told.contains("not the model that was scored"), "{told}");
    assert_eq!(reason, "damaged");
    // Also where somebody scores what is left of it.
    score(&folder);
    assert_eq!(bench.refusal().1, "damaged");
    fs::write(folder.join(fault::MODEL), whole).unwrap();
    score(&folder);
    assert!(matches!(&bench.registry.look()[..], [Change::Loaded { .. }]), "it was repaired");
}

#[test]
fn a_model_of_other_features_is_refused_and_the_feature_named() {
    let mut bench = bench();
    let folder = bench.models.path().join("fault/old");
    write(&folder, spec("old", 0.9));
    let path = folder.join(fault::MODEL);
    let text = fs::read_to_string(&path).unwrap().replace("p99_own", "p98_own");
    fs::write(&path, text).unwrap();
    score(&folder);
    bench.name("old");
    let (told, reason) = bench.refusal();
    assert!(told.contains("feature 2 is p98_own, and should be p99_own"), "{told}");
    assert_eq!(reason, "schema");
}

#[test]
fn a_model_that_says_other_things_than_it_did_is_refused() {
    let mut bench = bench();
    let folder = bench.models.path().join("fault/other");
    write(&folder, spec("other", 0.9));
    let path = folder.join(fault::MODEL);
    let text = fs::read_to_string(&path).unwrap().replace("0.001", "0.2");
    fs::write(&path, text).unwrap();
    score(&folder);
    bench.name("other");
    assert_eq!(bench.refusal().1, "golden");
}

#[test]
fn a_model_with_what_is_no_number_is_refused() {
    for no_number in ["NaN", "null", "1e999"] {
        let mut bench = bench();
        let folder = bench.models.path().join("fault/nan");
        write(&folder, spec("nan", 0.9));
        let path = folder.join(fault::MODEL);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("0.9]", &format!("{no_number}]"), 1)).unwrap();
        score(&folder);
        bench.name("nan");
        assert_eq!(bench.refusal().1, "damaged", "{no_number}");
    }
}

#[test]
fn a_model_without_scores_is_refused() {
    let mut bench = bench();
    let folder = bench.models.path().join("fault/raw");
    write(&folder, spec("raw", 0.9));
    fs::write(folder.join(METRICS), "{}").unwrap();
    bench.name("raw");
    let (told, reason) = bench.refusal();
    assert!(told.contains("cargo xtask model evaluate"), "{told}");
    assert_eq!(reason, "unscored");
}

#[test]
fn a_slow_model_is_refused() {
    let mut bench = bench();
    // Chains: whatever is asked goes through half of all nodes, as many as a file may hold.
    let chain = |length: u16| {
        let mut nodes = Vec::new();
        for at in (0..length).step_by(2) {
            let threshold = FEATURES[0].range[0];
            nodes.push(Node { feature: 0, threshold, low: at + 1, high: at + 2, share: 0.5 });
            nodes.push(Node { feature: 0, threshold: 0.0, low: 0, high: 0, share: 0.5 });
        }
        nodes.push(Node { feature: 0, threshold: 0.0, low: 0, high: 0, share: 0.5 });
        nodes
    };
    let slow = ForestSpec { trees: vec![chain(2_000); 80], ..spec("slow", 0.9) };
    write(&bench.models.path().join("fault/slow"), slow);
    bench.name("slow");
    let (told, reason) = bench.refusal();
    assert!(told.contains("a tick has room for"), "{told}");
    assert_eq!(reason, "slow");
}
