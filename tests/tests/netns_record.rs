//! A recording of faults with real load, in a short form.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gateway_core::fault::{LabelledWindow, RECORDING_VERSION};
use gateway_tests::fault::Fault;
use gateway_tests::record::{Plan, Spell, record};
use gateway_tests::testbed::Testbed;

/// Three backends, of which the first fails a third of its requests from second 2 to 12.
fn plan() -> Plan {
    let fault = Fault::Grey { share: 0.33 };
    let spells = vec![Spell { backend: 0, fault, is_fault: true, from: 2.0, to: 12.0 }];
    Plan { seed: 3, seconds: 14.0, service_ms: vec![10.0, 12.0, 15.0], spells }
}

#[test]
fn a_recording_shows_the_fault_that_it_names() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let lines = record(&testbed, &plan(), |_, _| true).unwrap();
    let of = |pool: &str, backend: &str| -> Vec<&LabelledWindow> {
        lines.iter().filter(|line| line.pool == pool && line.backend == backend).collect()
    };
    for pool in ["l4", "l7"] {
        let sick: Vec<_> = of(pool, "b1").into_iter().filter(|l| l.faulty == Some(true)).collect();
        assert!(sick.len() >= 2, "{pool}: {:?}", of(pool, "b1"));
        for line in sick {
            assert_eq!((line.fault.as_str(), line.fault_since), ("grey", Some(2.0)));
            let seen = &line.window;
            assert!(seen.server_errors > 0 && seen.answered > seen.server_errors, "{line:?}");
        }
        for backend in ["b2", "b3"] {
            let well = of(pool, backend);
            assert!(well.len() >= 5 && well.iter().all(|l| l.faulty != Some(true)), "{well:?}");
            assert!(well.iter().all(|line| line.window.server_errors == 0));
        }
    }
    assert!(lines.iter().all(|l| l.version == RECORDING_VERSION && l.fleet == "lab-3"));
    assert!(lines.is_sorted_by(|a, b| a.at <= b.at), "in the order of time");
    let observed = lines.iter().filter(|line| line.pool != "l7-steered");
    assert!(observed.clone().all(|line| line.window.serving), "nobody is cut");
    assert!(observed.count() < lines.len(), "the pool that is served as usual is there, too");
    let text = serde_json::to_string(&lines[0]).unwrap();
    assert_eq!(serde_json::from_str::<LabelledWindow>(&text).unwrap(), lines[0]);
}

#[test]
fn a_recording_ends_early_when_told() {
    let Some(testbed) = Testbed::or_skip(3) else { return };
    let long = Plan { seconds: 3_600.0, ..plan() };
    let lines = record(&testbed, &long, |now, _| now < 3.0).unwrap();
    assert!(lines.iter().all(|line| line.at < 10.0));
}
