use super::*;
use crate::tables::FREE_POOL;

fn row(row: u32) -> BackendRow {
    BackendRow { row, generation: 1 }
}

#[test]
fn a_backends_row_says_how_packets_get_there() {
    let spec = crate::fixture::backend(7);
    for mode in Mode::ALL {
        let backend = backend_row(&spec, row(4), 0, mode);
        assert_eq!(backend.row.mode(), mode.number());
        assert_ne!(backend.row.flags & backend_flag::PRESENT, 0);
    }
}

#[test]
fn a_backends_row_says_where_it_is_in_either_family() {
    for (addr, nat_addr) in [("10.0.0.1:80", "10.0.0.9"), ("[2001:db8::1]:80", "2001:db8::9")] {
        let (addr, nat_addr) = (addr.parse().unwrap(), nat_addr.parse().unwrap());
        let spec = BackendSpec { addr, nat_addr, ..crate::fixture::backend(7) };
        let entry = backend_row(&spec, row(4), 0, Mode::Nat);
        assert_eq!((entry.addr(), entry.nat_addr()), (addr, nat_addr));
        assert_eq!(entry.is_ipv6(), addr.is_ipv6());
        assert_eq!(entry.row.addr == [0; 4], addr.is_ipv6(), "one place, not two");
    }
}

#[test]
fn the_heaviest_is_always_accepted_and_the_lightest_sometimes() {
    assert_eq!(acceptance(3.0, 3.0), WEIGHT_MAX);
    assert_eq!(acceptance(1.5, 3.0), 32768);
    assert_eq!(acceptance(1e-12, 3.0), 1);
    assert_eq!(acceptance(0.0, 3.0), 0);
    assert_eq!(acceptance(0.0, 0.0), 0);
}

#[test]
fn the_fallback_is_the_heaviest_admitted() {
    let rows = [row(4), row(5), row(6)];
    assert_eq!(fallback(&rows, &[1.0, 2.0, 0.0], NO_BACKEND), 5);
    assert_eq!(fallback(&rows, &[0.0; 3], 5), NO_BACKEND);
    assert_eq!(fallback(&rows, &[1.0; 3], NO_BACKEND), 4);
}

#[test]
fn the_fallback_stays_while_it_is_almost_as_heavy() {
    let rows = [row(4), row(5)];
    assert_eq!(fallback(&rows, &[1.05, 1.0], 5), 5);
    assert_eq!(fallback(&rows, &[1.2, 1.0], 5), 4);
    assert_eq!(fallback(&rows, &[1.0, 0.0], 5), 4);
}

fn candidates(weightless_seconds: &[Option<u64>]) -> Vec<Candidate> {
    weightless_seconds
        .iter()
        .enumerate()
        .map(|(index, seconds)| Candidate {
            member: Member { identity: 100 + index as u64, row: index as u32 },
            weightless_for: seconds.map(Duration::from_secs),
            draining: false,
        })
        .collect()
}

fn rows_of(membership: &Membership) -> Vec<u32> {
    membership.members.iter().map(|member| member.row).collect()
}

#[test]
fn an_ejection_changes_no_table() {
    let mut membership = Membership::new(3, &candidates(&[None; 4]), &Tables::default());
    let slots = Slots::clone(&membership.slots);
    assert!(!membership.update(&candidates(&[Some(600), Some(600), None, None])));
    assert_eq!((membership.table, &membership.slots), (6, &slots));
}

#[test]
fn a_table_that_mostly_names_weightless_ones_is_rebuilt_without_them() {
    let mut membership = Membership::new(3, &candidates(&[None; 4]), &Tables::default());
    let mostly = [Some(31), Some(31), Some(31), None];
    assert!(!membership.update(&candidates(&[Some(5), Some(31), Some(31), None])));
    assert!(membership.update(&candidates(&mostly)));
    assert_eq!((membership.table, rows_of(&membership)), (7, vec![3]));
    assert!(!membership.update(&candidates(&mostly)));
    assert!(membership.update(&candidates(&[None, Some(31), Some(31), None])));
    assert_eq!((membership.table, rows_of(&membership)), (6, vec![0, 1, 2, 3]));
}

#[test]
fn a_pool_without_any_weight_keeps_its_members() {
    let mut membership = Membership::new(0, &candidates(&[None; 2]), &Tables::default());
    assert!(!membership.update(&candidates(&[Some(600), Some(600)])));
}

#[test]
fn a_table_that_is_the_same_stays_in_use_over_a_restart() {
    let built = Membership::new(3, &candidates(&[None; 4]), &Tables::default());
    let mut adopted = Tables::default();
    adopted.pools.insert(3, Pool { table: 7, ..FREE_POOL });
    adopted.maglev.insert(7, built.slots.clone());
    assert_eq!(Membership::new(3, &candidates(&[None; 4]), &adopted).table, 7);
    let fewer = Membership::new(3, &candidates(&[None; 3]), &adopted);
    assert_eq!(fewer.table, 6, "the other one is built aside");
}
