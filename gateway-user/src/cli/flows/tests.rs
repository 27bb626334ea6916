//! What is shown of given flows.

use super::*;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flow(client: &str, backend: Option<&str>, state: FlowState) -> Tracked {
    Tracked {
        client: addr(client),
        vip: addr("10.0.0.100:80"),
        protocol: "tcp",
        row: 3,
        generation: 1,
        backend: backend.map(addr),
        nat_port: 10_007,
        state,
        class: 2,
        age: Duration::from_secs(3_600 + 240),
        idle: Duration::from_millis(1_500),
        bytes_in: 1_000,
        bytes_out: 20_000,
    }
}

/// Three flows: of two clients, one of them to a backend that is gone.
fn three() -> [Tracked; 3] {
    [
        flow("10.0.0.2:4000", Some("10.1.0.2:8080"), FlowState::Established),
        flow("10.0.0.2:4001", Some("10.1.0.2:8080"), FlowState::Closed),
        flow("10.0.0.3:4000", None, FlowState::Established),
    ]
}

fn range(text: &str) -> Option<Vec<Range>> {
    Some(vec![text.parse().unwrap()])
}

#[test]
fn a_filter_takes_what_fits_all_that_was_asked() {
    let everything =
        || Filter { vip: None, vip_name: None, backend: None, client: None, state: None };
    let taken = |filter: Filter| {
        three().iter().map(|flow| filter.takes(flow, &Names::default())).collect::<Vec<bool>>()
    };
    assert_eq!(taken(everything()), [true, true, true]);
    assert_eq!(taken(Filter { vip: range("10.0.0.100:81"), ..everything() }), [false; 3]);
    assert_eq!(
        taken(Filter { backend: range("10.1.0.0/16"), ..everything() }),
        [true, true, false]
    );
    assert_eq!(taken(Filter { client: range("10.0.0.3"), ..everything() }), [false, false, true]);
    let both =
        Filter { client: range("10.0.0.2"), state: Some(FlowState::Established), ..everything() };
    assert_eq!(taken(both), [true, false, false]);
}

#[test]
fn a_listing_ends_at_its_limit_and_says_how_many_there_are() {
    let mut listing = Listing { flows: Vec::new(), matched: 0, room: 64 };
    three().iter().for_each(|flow| listing.add(1, flow, &Names::default()));
    assert_eq!(
        listing.text(false).unwrap(),
        "  PROTO  CLIENT         VIP            BACKEND        NAT PORT  STATE        CLASS  AGE    IDLE  IN    OUT\n  \
         tcp    10.0.0.2:4000  10.0.0.100:80  10.1.0.2:8080  10007     established  2      1h 4m  1.5s  1000  20000\n\n\
         1 of 3 flows, room for 64; `--limit` shows more\n"
    );
    let json: serde_json::Value = serde_json::from_str(&listing.text(true).unwrap()).unwrap();
    assert_eq!(json["matched"], 3);
    assert_eq!(json["flows"].as_array().unwrap().len(), 1);
    assert_eq!(json["flows"][0]["idle_seconds"], 1.5);
}

#[test]
fn counts_put_the_largest_group_first() {
    let counted = |by| {
        let mut counts = Counts::new(by);
        three().iter().for_each(|flow| counts.add(flow, &Names::default()));
        counts.text(&Names::default(), false).unwrap()
    };
    assert_eq!(
        counted(CountBy::Backend),
        "  BACKEND        FLOWS  IN    OUT\n  \
         10.1.0.2:8080  2      2000  40000\n  \
         removed        1      1000  20000\n\n3 flows\n"
    );
    assert!(counted(CountBy::State).contains("established  2"));
    assert!(counted(CountBy::Vip).contains("10.0.0.100:80/tcp  3"));
}

#[test]
fn long_spans_have_two_units() {
    assert_eq!(span(0.25), "0.2s");
    assert_eq!(span(59.9), "59.9s");
    assert_eq!(span(7_325.4), "2h 2m");
}
