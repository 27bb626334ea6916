use super::*;
use crate::fault::LabelledWindow;

const A: BackendRow = BackendRow { row: 1, generation: 1 };
const B: BackendRow = BackendRow { row: 2, generation: 1 };
const NAMES: [(BackendRow, &str); 2] = [(A, "a"), (B, "b")];

fn at(second: u64) -> KtimeNs {
    KtimeNs(1_000_000_000 * second)
}

fn window() -> FaultWindow {
    FaultWindow { seconds: 5.0, answered: 50, serving: true, ..FaultWindow::default() }
}

/// An archive for so many windows, looks themselves included, that was shown both backends each second up to this one.
fn archive(windows_max: usize, seconds: u64) -> Archive {
    let mut archive = Archive::default();
    archive.limit(Limits { windows: windows_max, rates: 100 });
    (1..=seconds).for_each(|second| look(&mut archive, second));
    archive
}

fn look(archive: &mut Archive, second: u64) {
    archive.look(at(second), &[(A, window(), 0.0), (B, window(), 0.5)]);
}

/// All windows, by as many pages as that takes.
fn all(archive: &Archive, windows_max: usize) -> Vec<LabelledWindow> {
    let (mut windows, mut after) = (Vec::new(), KtimeNs(0));
    loop {
        let page = archive.page("web", &NAMES, after, windows_max);
        windows.extend(page.windows);
        match page.next {
            Some(next) => after = KtimeNs(next),
            None => return windows,
        }
    }
}

/// What is known of a backend's windows, second by second from the first.
fn labels(archive: &Archive, backend: &str) -> Vec<Option<bool>> {
    let windows = all(archive, 1_000);
    windows.iter().filter(|w| w.backend == backend).map(|window| window.faulty).collect()
}

#[test]
fn pages_of_any_size_are_the_same_recording() {
    let archive = archive(100, 20);
    let whole = all(&archive, 1_000);
    assert_eq!(whole.len(), 40);
    for size in [1, 2, 3, 7, 40] {
        assert_eq!(all(&archive, size), whole, "pages of {size}");
    }
    let [a, b] = &whole[..2] else { panic!("two backends") };
    assert_eq!((a.backend.as_str(), a.at, a.rule), ("a", 1.0, Some(0.0)));
    assert_eq!((b.backend.as_str(), b.at, b.rule), ("b", 1.0, Some(0.5)));
    assert_eq!(archive.page("web", &NAMES, at(20), 10), WindowPage::default());
}

#[test]
fn the_oldest_windows_go_and_none_stay_where_none_may() {
    let mut archive = archive(150, 200);
    let windows = all(&archive, 1_000);
    assert_eq!((windows.len(), windows[0].at), (100, 151.0));
    archive.limit(Limits { windows: 15, rates: 0 });
    assert_eq!(all(&archive, 1_000).len(), 10);
    archive.limit(Limits::default());
    look(&mut archive, 201);
    assert_eq!(all(&archive, 1_000).len(), 0);
    assert_eq!(archive.label(A, at(0), at(300), true), 0);
}

#[test]
fn pools_share_the_memory_by_their_backends() {
    let few = Limits::new(1 << 20, 2, 10);
    let many = Limits::new(1 << 20, 8, 10);
    assert_eq!((many.windows, many.rates), (4 * few.windows, 4 * few.rates));
    let bytes = (few.windows + many.windows) * size_of::<Kept>() + (few.rates + many.rates) * 4;
    assert!(bytes <= 1 << 20 && bytes > (1 << 20) * 99 / 100, "{bytes}");
    assert_eq!(Limits::new(0, 2, 10), Limits::default());
    assert_eq!(Limits::new(1 << 20, 0, 0), Limits::default());
}

#[test]
fn an_incident_is_faulty_around_it_unsure_near_it_and_well_far_from_it() {
    let mut archive = archive(2_000, 200);
    archive.incident(A, at(201), Reason::ConnectFailures);
    (201..=400).for_each(|second| look(&mut archive, second));
    let a = labels(&archive, "a");
    let faulty: Vec<usize> =
        (0..a.len()).filter(|at| a[*at] == Some(true)).map(|at| at + 1).collect();
    assert_eq!(faulty, [198, 199, 200, 201, 202]);
    let well: Vec<usize> =
        (0..a.len()).filter(|at| a[*at] == Some(false)).map(|at| at + 1).collect();
    // A minute at either end of what is kept is not known to have been well, either.
    assert_eq!(well, (61..=140).chain(262..=340).collect::<Vec<_>>());
    let b = labels(&archive, "b");
    assert!(b[60..340].iter().all(|label| *label == Some(false)));
    let shown = all(&archive, 1_000).into_iter().find(|window| window.faulty == Some(true));
    assert_eq!(shown.expect("some are faulty").fault, "connect_failures");
}

#[test]
fn an_incident_that_goes_on_is_faulty_all_along() {
    let mut archive = archive(2_000, 100);
    (101..=150).for_each(|second| {
        archive.incident(A, at(second), Reason::FailedShare);
        look(&mut archive, second);
    });
    assert!(labels(&archive, "a")[97..150].iter().all(|label| *label == Some(true)));
}

#[test]
fn the_operators_last_word_stands_for_windows_that_lie_in_it() {
    let mut archive = archive(2_000, 200);
    archive.incident(A, at(100), Reason::Silent);
    assert_eq!(archive.label(A, at(90), at(110), false), 21);
    let a = labels(&archive, "a");
    assert!(a[94..110].iter().all(|label| *label == Some(false)), "{a:?}");
    // Windows that begin before it or end after it lie in it in part.
    assert!(a[90..94].iter().chain(&a[110..114]).all(Option::is_none), "{a:?}");
    archive.label(A, at(90), at(110), true);
    let said = all(&archive, 1_000);
    let said: Vec<_> = said.iter().filter(|w| w.faulty == Some(true)).collect();
    assert_eq!(said.len(), 16);
    assert!(said.iter().all(|w| w.fault == "labelled" && w.fault_since == Some(90.0)));
}

#[test]
fn nothing_is_known_of_a_window_without_a_request() {
    let mut archive = archive(2_000, 0);
    let empty = FaultWindow { answered: 0, ..window() };
    (1..=200).for_each(|second| archive.look(at(second), &[(A, empty, 0.0)]));
    archive.label(A, at(1), at(200), true);
    assert!(labels(&archive, "a").iter().all(Option::is_none));
}

#[test]
fn with_incidents_beyond_what_is_remembered_nothing_before_is_said_to_be_well() {
    let mut archive = archive(100_000, 0);
    for second in 1..=12_000 {
        if second % 20 == 0 && second < 11_000 {
            archive.incident(A, at(second), Reason::Silent);
        }
        look(&mut archive, second);
    }
    let b = labels(&archive, "b");
    let first = b.iter().position(|label| *label == Some(false)).expect("some are well");
    // 549 incidents, of which the first 37 are forgotten.
    assert_eq!(first + 1, 37 * 20 + 60);
}

#[test]
fn a_backend_that_is_gone_keeps_its_windows_under_a_name_of_its_own() {
    let mut archive = archive(2_000, 3);
    archive.look(at(4), &[(B, window(), 0.0)]);
    let page = archive.page("web", &NAMES[1..], at(2), 100);
    let names: Vec<&str> = page.windows.iter().map(|window| window.backend.as_str()).collect();
    assert_eq!(names, ["gone-1-1", "b", "b"]);
}

#[test]
fn load_is_a_series_a_backend_with_gaps_where_it_was_not_there() {
    let mut archive = archive(0, 0);
    archive.minute(at(60), &[(None, Some(3.0)), (Some(A), Some(3.0))]);
    archive.minute(at(120), &[(None, Some(5.0)), (Some(A), Some(3.0)), (Some(B), None)]);
    archive.minute(at(180), &[(None, Some(7.0)), (Some(B), Some(7.0))]);
    let LoadHistory { ends, series } = archive.load(&NAMES[1..]);
    assert_eq!(ends, [60.0, 120.0, 180.0]);
    let names: Vec<_> = series.iter().map(|series| series.backend.as_deref()).collect();
    assert_eq!(names, [None, Some("gone-1-1"), Some("b")]);
    assert_eq!(series[0].rates, [Some(3.0), Some(5.0), Some(7.0)]);
    assert_eq!(series[1].rates, [Some(3.0), Some(3.0), None]);
    assert_eq!(series[2].rates, [None, None, Some(7.0)]);
    // Two rates and a minute itself take 14: of room for 100, seven minutes.
    (4..=100).for_each(|minute| {
        archive.minute(at(60 * minute), &[(None, Some(1.0)), (Some(B), Some(1.0))]);
    });
    assert_eq!(archive.load(&NAMES).ends.len(), 7);
    archive.limit(Limits { windows: 0, rates: 0 });
    archive.minute(at(60_000), &[(None, Some(1.0)), (Some(B), Some(1.0))]);
    assert_eq!(archive.load(&NAMES).ends.len(), 0);
}
