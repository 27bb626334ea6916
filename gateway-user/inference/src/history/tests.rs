use gateway_core::archive::LoadSeries;
use gateway_core::classes::{Profile, ProfileTable};
use gateway_core::fault::{FaultWindow, RECORDING_VERSION};

use super::*;

fn window(at: f64, faulty: Option<bool>) -> LabelledWindow {
    LabelledWindow {
        version: RECORDING_VERSION,
        fleet: String::new(),
        pool: "web".to_owned(),
        backend: "b1".to_owned(),
        at,
        window: FaultWindow { seconds: 5.0, answered: 9, ..FaultWindow::default() },
        faulty,
        fault: String::new(),
        fault_since: faulty.filter(|faulty| *faulty).map(|_| at - 7.0),
        rule: Some(0.0),
    }
}

/// A pool with windows and, from 1,000 s on, minutes of load with one missing.
fn pool() -> PoolHistory {
    let mut table = ProfileTable::default();
    table.add(&Profile { id: 7, ..Profile::default() }, 0.5, 1.0);
    let ends = (1..=6).map(|minute| 1_000.0 + 60.0 * f64::from(minute)).collect();
    let rates = vec![Some(1.0), Some(2.0), None, Some(3.0), Some(4.0), Some(5.0)];
    PoolHistory {
        pool: "web".to_owned(),
        windows: vec![
            window(1_100.0, Some(true)),
            window(1_101.0, Some(false)),
            window(1_102.0, None),
        ],
        load: LoadHistory {
            ends,
            series: vec![
                LoadSeries { backend: None, rates: vec![Some(1.0); 6] },
                LoadSeries { backend: Some("b1".to_owned()), rates },
            ],
        },
        profiles: table.rows().copied().collect(),
    }
}

fn source() -> Source {
    Source { admin: "127.0.0.1:9900".to_owned(), version: "1.2.3".to_owned() }
}

#[test]
fn what_was_written_is_a_recording_and_series_without_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new");
    // Taken 640 s after it began, at 10,640 of the Unix epoch.
    let said = write(&path, vec![pool()], source(), (1_640.0, 10_640.0)).unwrap();
    assert_eq!(manifest(&path).unwrap(), said);
    assert_eq!((said.begin, said.seconds), (10_000.0, 360.0));
    let [counts] = &said.pools[..] else { panic!("{said:?}") };
    assert_eq!((counts.windows, counts.faulty, counts.well), (3, 1, 1));
    assert_eq!((counts.minutes, counts.profiles), (6, 1));

    let read = windows(&path).unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!((read[0].at, read[0].fault_since), (100.0, Some(93.0)));
    assert!(read.iter().all(|window| window.fleet == "history-10000"));
    // A file alone is a recording, too.
    assert_eq!(windows(&path.join("windows.jsonl")).unwrap(), read);

    let all = runs(&path, 1).unwrap();
    let named = |name: &str| all.iter().find(|run| run.name == name).unwrap().rates.clone();
    assert_eq!(all.len(), 3);
    assert_eq!(named("web#0"), [1.0; 6]);
    assert_eq!((named("web@b1#0"), named("web@b1#1")), (vec![1.0, 2.0], vec![3.0, 4.0, 5.0]));
    assert_eq!(runs(&path, 3).unwrap().len(), 2);

    assert_eq!(super::profiles(&path).unwrap(), pool().profiles);
    let profiles = fs::read_to_string(path.join("profiles.jsonl")).unwrap();
    let line: serde_json::Value = serde_json::from_str(profiles.trim()).unwrap();
    assert_eq!((&line["pool"], &line["profile"]["id"]), (&"web".into(), &7.into()));
}

#[test]
fn a_history_is_not_written_over_another_and_a_cut_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = (1_640.0, 10_640.0);
    write(folder.path(), vec![pool()], source(), at).unwrap();
    let again = write(folder.path(), vec![pool()], source(), at).unwrap_err();
    assert!(matches!(again, HistoryError::Taken { .. }), "{again}");

    let path = folder.path().join(MANIFEST);
    let whole = fs::read_to_string(&path).unwrap();
    fs::write(&path, whole.replace("\"version\": 1,", "\"version\": 2,")).unwrap();
    let other = windows(folder.path()).unwrap_err();
    assert!(matches!(other, HistoryError::Version { version: 2, .. }), "{other}");
    fs::write(&path, &whole[..20]).unwrap();
    assert!(matches!(manifest(folder.path()), Err(HistoryError::Manifest { .. })));
    fs::remove_file(&path).unwrap();
    assert!(matches!(runs(folder.path(), 1), Err(HistoryError::File { .. })));
}

#[test]
fn load_that_is_none_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), vec![pool()], source(), (1_640.0, 10_640.0)).unwrap();
    for wrong in ["60", "60,many", "NaN,3", "60,-1"] {
        fs::write(folder.path().join("load/web.csv"), format!("seconds,requests\n0,1\n{wrong}\n"))
            .unwrap();
        let error = runs(folder.path(), 1).unwrap_err();
        assert!(matches!(error, HistoryError::Load { line: 3, .. }), "{wrong}: {error}");
    }
}

#[test]
fn a_daemon_that_saw_nothing_yet_has_an_empty_history() {
    let folder = tempfile::tempdir().unwrap();
    let said = write(folder.path(), Vec::new(), source(), (50.0, 10_000.0)).unwrap();
    assert_eq!((said.begin, said.seconds), (10_000.0, 0.0));
    assert_eq!(windows(folder.path()).unwrap(), Vec::new());
    assert_eq!(runs(folder.path(), 1).unwrap(), Vec::new());
}
