use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/forecast")
}

/// A copy of the model that ships, for damaging.
fn copy() -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in ["model.onnx", "features.json", "golden.json"] {
        fs::copy(shipped().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn refused(folder: &Path) -> String {
    let mut error: &dyn std::error::Error = &load(folder).unwrap_err();
    let mut text = error.to_string();
    while let Some(source) = error.source() {
        error = source;
        text = format!("{text}: {error}");
    }
    text
}

#[test]
fn the_model_that_ships_says_what_it_said_when_it_was_trained() {
    load(&shipped()).unwrap();
    assert!(fs::metadata(shipped().join("model.onnx")).unwrap().len() < 200_000);
}

#[test]
fn a_series_hears_the_same_alone_and_in_a_batch() {
    let lstm = load(&shipped()).unwrap();
    let width = lstm.spec().state;
    let vector =
        |nth: usize| -> Vector { std::array::from_fn(|at| (nth * 7 + at) as f32 % 3.0 - 1.0) };
    let inputs: Vec<Vector> = (0..37).map(vector).collect();
    let mut states = vec![0.0; inputs.len() * width];
    let mut together = Vec::new();
    (0..3).for_each(|_| together = lstm.step(&inputs, &mut states).unwrap());
    for nth in [0, 17, 36] {
        let mut state = vec![0.0; width];
        let mut alone = Vec::new();
        (0..3).for_each(|_| alone = lstm.step(&inputs[nth..=nth], &mut state).unwrap());
        for (a, b) in alone.iter().zip(&together[nth * OUTPUTS..]) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
        assert!(state.iter().zip(&states[nth * width..]).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}

#[test]
fn a_truncated_or_damaged_file_is_refused() {
    let folder = copy();
    let path = folder.path().join("model.onnx");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refused(folder.path()).contains("model.onnx"));
    let mut damaged = bytes;
    // Somewhere in the weights, which are most of it.
    let at = damaged.len() / 2;
    damaged[at..at + 64].fill(0x7f);
    fs::write(&path, &damaged).unwrap();
    assert!(refused(folder.path()).contains("golden.json"), "{}", refused(folder.path()));
}

#[test]
fn a_model_with_other_features_is_refused() {
    let folder = copy();
    let path = folder.path().join("features.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"version\": 1", "\"version\": 0")).unwrap();
    assert!(refused(folder.path()).contains("other features"));
}

#[test]
fn a_missing_file_is_named() {
    let folder = copy();
    fs::remove_file(folder.path().join("golden.json")).unwrap();
    assert!(refused(folder.path()).contains("golden.json"));
}
