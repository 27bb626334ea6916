//! The committed corpus of the fuzz targets, replayed: what once found a fault finds it again.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking, and so do their helpers")]

use std::path::{Path, PathBuf};

use gateway_common::host::fuzzed;

fn inputs(target: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{dir:?}: {error}"));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn replay(target: &str, check: fn(&[u8])) {
    let inputs = inputs(target);
    assert!(inputs.len() > 20, "{target} has a corpus of {} only", inputs.len());
    for path in inputs {
        // Its name first, so that a panic says whose it is.
        println!("{}", path.display());
        check(&std::fs::read(&path).unwrap());
    }
}

#[test]
fn frames_of_the_corpus_are_decoded_within_their_bounds() {
    replay("frame", fuzzed::frame);
}

#[test]
fn journeys_of_the_corpus_end_well() {
    replay("journey", fuzzed::journey);
}
