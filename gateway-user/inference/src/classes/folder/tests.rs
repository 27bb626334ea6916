use gateway_core::classes::ClassSummary;

use super::*;

fn class(id: u8, cost: f32) -> ClassSummary {
    ClassSummary { id, cost, log_cost: cost.ln(), share: 0.5, profiles: 1, traits: [cost; TRAITS] }
}

fn view() -> ClassView {
    ClassView::new(vec![class(0, 0.5), class(1, 4.0)], [(7, 0), (8, 1)])
}

fn profiles() -> [Profile; 3] {
    [7, 8, 9].map(|id| Profile { id, traits: [3.0; TRAITS] })
}

/// Writes the classes, spoils one file, and says what is wrong then.
fn refused(file: &str, spoil: impl Fn(&str) -> String) -> ClassesError {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), "test", &view(), &profiles()).unwrap();
    let path = folder.path().join(file);
    let whole = fs::read_to_string(&path).unwrap();
    let spoilt = spoil(&whole);
    assert_ne!(spoilt, whole, "{file} is as it was");
    fs::write(&path, spoilt).unwrap();
    check(folder.path()).unwrap_err()
}

#[test]
fn what_was_exported_is_loaded_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), "test", &view(), &profiles()).unwrap();
    let (version, loaded) = check(folder.path()).unwrap();
    assert_eq!(version, "test");
    for profile in profiles() {
        assert_eq!(Golden::of(&loaded, &profile), Golden::of(&view(), &profile));
    }
    assert!(loaded.knows(&profiles()[0]) && !loaded.knows(&profiles()[2]));
}

#[test]
fn none_at_all_is_right() {
    let folder = tempfile::tempdir().unwrap();
    export(folder.path(), "none", &ClassView::default(), &profiles()).unwrap();
    let (_, loaded) = check(folder.path()).unwrap();
    assert!(loaded.classes().is_empty());
}

#[test]
fn the_classes_that_ship_are_what_their_folder_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/classes");
    check(&folder).unwrap();
    Artefact::from(&*folder).verified(MODEL).unwrap();
}

#[test]
fn bad_files_are_refused_with_what_is_wrong() {
    let cut = refused(MODEL, |text| text[..text.len() / 2].to_owned());
    assert!(matches!(cut, ClassesError::Json { .. }), "{cut}");
    let features = refused(FEATURES_FILE, |text| text.replace("\"writes\"", "\"reads\""));
    assert!(matches!(features, ClassesError::Other { what: "features", .. }), "{features}");
    let scale = refused(MODEL, |text| text.replacen("0.1", "0.2", 1));
    assert!(matches!(scale, ClassesError::Other { what: "scale", .. }), "{scale}");
    let twice = refused(MODEL, |text| text.replace("\"id\": 1", "\"id\": 0"));
    assert!(matches!(twice, ClassesError::Unsound { .. }), "{twice}");
    let free = refused(MODEL, |text| text.replace("\"cost\": 0.5", "\"cost\": 0.0"));
    assert!(matches!(free, ClassesError::Unsound { .. }), "{free}");
    let cost = refused(GOLDEN, |text| text.replace("\"cost\": 4.0", "\"cost\": 4.1"));
    assert!(matches!(cost, ClassesError::Golden { case: 1, .. }), "{cost}");
}
