//! A look at the data plane from outside: beside a daemon that holds it, and after that is gone.

use std::time::Duration;

use gateway_common::layout::{Settings, flow_state, map_name};
use gateway_core::tables::{BackendEntry, Write};
use gateway_user::clock;
use gateway_user::dataplane::{Dataplane, DataplaneError, FlowState, SWEEP_BUDGET, Tracked, View};
use gateway_user::telemetry::Telemetry;

use crate::lab::{Lab, with_lab};
use crate::tables::{add_flow, array, fill, settings};

const WHOLE: u8 = flow_state::ESTABLISHED | flow_state::CONFIRMED;

/// All flows, by the client's port.
fn flows(lab: &Lab) -> Vec<Tracked> {
    let mut flows = Vec::new();
    let view = View::open(&lab.pin_dir).unwrap();
    view.each_flow(clock::now(), |flow| flows.push(*flow)).unwrap();
    flows.sort_by_key(|flow| flow.client.port());
    flows
}

#[test]
fn flows_are_read_beside_the_daemon_and_after_it() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        fill(&mut dataplane);
        let minute = Duration::from_secs(60);
        add_flow(lab, 10_001, WHOLE, clock::now() - minute);
        add_flow(lab, 10_002, flow_state::REFUSED, clock::now());

        let beside = flows(lab);
        let [first, second] = beside[..] else { panic!("{beside:?}") };
        assert_eq!(first.client.to_string(), "10.9.0.2:10001");
        assert_eq!(first.vip.to_string(), "10.9.0.100:80");
        assert_eq!(first.backend.unwrap().to_string(), "10.9.0.3:8080");
        assert_eq!((first.row, first.generation, first.nat_port), (9, 1, 10_001));
        assert_eq!((first.state, second.state), (FlowState::Established, FlowState::Refused));
        assert!(first.age >= minute && first.idle >= minute, "{first:?}");
        assert!(second.age < minute, "{second:?}");

        drop(dataplane);
        let after = flows(lab);
        let clients = |flows: &[Tracked]| flows.iter().map(|flow| flow.client).collect::<Vec<_>>();
        assert_eq!(clients(&after), clients(&beside));
    });
}

#[test]
fn looking_changes_nothing_for_the_daemon() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        fill(&mut dataplane);
        add_flow(lab, 10_001, WHOLE, clock::now());
        assert_eq!(flows(lab).len(), 1);
        let (telemetry, _observations) = Telemetry::new();
        let swept = dataplane.sweep(clock::now(), SWEEP_BUDGET, &telemetry);
        assert_eq!((swept.visited, swept.freed), (1, 0));
        assert!(dataplane.events().is_ok(), "the ring of events has its one reader still");
    });
}

#[test]
fn a_flow_whose_backend_was_removed_is_shown_without_one() {
    with_lab(|lab| {
        let mut dataplane = Dataplane::open(&lab.options()).unwrap();
        fill(&mut dataplane);
        add_flow(lab, 10_001, WHOLE, clock::now());
        dataplane.apply(&[Write::Backend(9, BackendEntry::free(0))]).unwrap();
        assert_eq!(flows(lab)[0].backend, None);
    });
}

#[test]
fn where_nothing_is_pinned_one_is_told_how_to_say_where() {
    with_lab(|lab| {
        let error = View::open(&lab.pin_dir).err().unwrap();
        assert!(matches!(error, DataplaneError::NothingPinned { .. }), "{error}");
        assert!(error.to_string().contains("--pin-dir"), "{error}");
    });
}

#[test]
fn maps_of_another_layout_are_not_read() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        let other = Settings { layout_version: 999, ..settings(lab) };
        array(lab, map_name::SETTINGS).set(0, other, 0).unwrap();
        let error = View::open(&lab.pin_dir).err().unwrap();
        assert!(matches!(error, DataplaneError::UnknownMap { .. }), "{error}");
        assert!(error.to_string().contains("999"), "{error}");
    });
}

#[test]
fn a_map_that_is_not_the_gateways_is_not_read() {
    with_lab(|lab| {
        drop(Dataplane::open(&lab.options()).unwrap());
        std::fs::remove_file(lab.pin(map_name::BACKENDS)).unwrap();
        array::<[u8; 20]>(lab, map_name::POOLS).pin(lab.pin(map_name::BACKENDS)).unwrap();
        let error = View::open(&lab.pin_dir).err().unwrap();
        assert!(matches!(error, DataplaneError::UnknownMap { .. }), "{error}");
        assert!(error.to_string().contains(map_name::BACKENDS), "{error}");
    });
}
