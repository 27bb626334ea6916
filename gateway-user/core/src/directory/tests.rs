use std::net::Ipv4Addr;
use std::time::Duration;

use gateway_common::limits::CONTROL_CLASS;

use super::*;
use crate::fixture::{backend, fleet, pool, vip};
use crate::fleet::PoolSpec;
use crate::plan::plan;

const NOW: KtimeNs = KtimeNs(60_000_000_000);

fn adopt(fleet: &Fleet, adopted: &Tables) -> Directory {
    Directory::adopt(fleet, adopted, NOW).unwrap()
}

fn rows(directory: &Directory, pool: usize) -> Vec<BackendRow> {
    directory.pools()[pool].rows.clone()
}

/// What a daemon with this fleet leaves behind.
fn left_behind(fleet: &Fleet) -> Tables {
    let options =
        crate::engine::EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };
    let engine = crate::engine::Engine::new(fleet.clone(), Tables::default(), options, NOW);
    let mut tables = Tables::default();
    let desired = engine.unwrap();
    plan(desired.tables(), &Tables::default()).iter().for_each(|write| tables.apply(write));
    tables
}

#[test]
fn every_backend_has_a_row_of_its_own() {
    let directory = adopt(&fleet(&[("web", 5), ("api", 3)]), &Tables::default());
    let all: BTreeSet<u32> =
        (0..2).flat_map(|pool| rows(&directory, pool)).map(|r| r.row).collect();
    assert_eq!(all.len(), 8);
}

#[test]
fn what_stays_over_a_reload_keeps_its_row() {
    let before = adopt(&fleet(&[("web", 5), ("api", 3)]), &Tables::default());
    let mut changed = fleet(&[("web", 5), ("api", 3)]);
    changed.pools[0].backends.remove(1);
    changed.pools.swap(0, 1);
    changed.vips.clear();
    let after = before.reconfigure(&changed).unwrap();
    assert_eq!(rows(&after, 0), rows(&before, 1));
    let mut left = rows(&before, 0);
    left.remove(1);
    assert_eq!(rows(&after, 1), left);
    assert_eq!(after.pools()[0].index, before.pools()[1].index);
}

#[test]
fn both_families_are_known_again_after_a_restart() {
    let mut config = fleet(&[("web", 3)]);
    config.vips[0].addr = "[2001:db8::100]:80".parse().unwrap();
    config.pools[0].backends[1].addr = "[2001:db8::1]:8080".parse().unwrap();
    config.pools[0].backends[1].nat_addr = "2001:db8::9".parse().unwrap();
    let before = adopt(&config, &Tables::default());
    let after = adopt(&config, &left_behind(&config));
    assert_eq!((rows(&after, 0), after.vips()), (rows(&before, 0), before.vips()));
}

#[test]
fn vips_of_many_ports_or_addresses_are_known_again_after_a_restart() {
    let mut config = fleet(&[("web", 1), ("api", 1), ("dns", 1)]);
    let addrs = ["10.0.0.0/24:*", "10.0.0.7:8000-8100", "[2001:db8::/64]:53"];
    for (vip, addr) in config.vips.iter_mut().zip(addrs) {
        vip.addr = addr.parse().unwrap();
    }
    let before = adopt(&config, &Tables::default());
    let left = left_behind(&config);
    config.vips.reverse();
    config.vips.iter_mut().for_each(|vip| vip.pool = 2 - vip.pool);
    config.pools.reverse();
    let after = adopt(&config, &left);
    let mut vips = after.vips().to_vec();
    vips.reverse();
    assert_eq!(vips, before.vips());
}

#[test]
fn a_freed_row_rests_and_comes_back_with_another_generation() {
    let whole = fleet(&[("web", 3)]);
    let mut without = whole.clone();
    let gone = without.pools[0].backends.remove(0);
    let first = adopt(&whole, &Tables::default());
    let mut replaced = without.clone();
    replaced.pools[0].backends.push(backend(77));
    let second = first.reconfigure(&replaced).unwrap();
    assert!(!rows(&first, 0).iter().any(|old| old.row == rows(&second, 0)[2].row));

    without.pools[0].backends.insert(0, gone);
    let third = second.reconfigure(&without).unwrap();
    assert_ne!(rows(&third, 0)[0], rows(&first, 0)[0], "it is another tenant now");
    assert!(rows(&third, 0)[0].generation > rows(&first, 0)[0].generation);
}

#[test]
fn a_restart_finds_rows_and_generations_again() {
    let config = fleet(&[("web", 5), ("api", 3)]);
    let before = adopt(&config, &Tables::default());
    let mut reordered = config.clone();
    reordered.pools.swap(0, 1);
    reordered.vips.iter_mut().for_each(|vip| vip.pool = 1 - vip.pool);
    let after = Directory::adopt(&reordered, &left_behind(&config), NOW + Duration::from_secs(9));
    let after = after.unwrap();
    assert_eq!(rows(&after, 0), rows(&before, 1));
    assert_eq!(rows(&after, 1), rows(&before, 0));
    assert_eq!(after.vips(), before.vips());
}

#[test]
fn a_pool_is_recognised_by_its_backends_whatever_its_name() {
    let before = adopt(&fleet(&[("web", 5)]), &Tables::default());
    let mut renamed = fleet(&[("web", 5)]);
    renamed.pools[0].name = "shop".to_owned();
    let after = adopt(&renamed, &left_behind(&fleet(&[("web", 5)])));
    assert_eq!(rows(&after, 0), rows(&before, 0));
}

#[test]
fn a_pool_that_a_reload_renames_is_the_same_pool() {
    let before = adopt(&fleet(&[("web", 5), ("api", 3)]), &Tables::default());
    let mut renamed = fleet(&[("web", 5), ("api", 3)]);
    renamed.pools[0].name = "shop".to_owned();
    renamed.pools[0].backends.remove(4);
    let after = before.reconfigure(&renamed).unwrap();
    assert_eq!(after.pools()[0].index, before.pools()[0].index);
    assert_eq!(rows(&after, 0), rows(&before, 0)[..4]);
    assert_eq!(rows(&after, 1), rows(&before, 1));
}

#[test]
fn a_renamed_pool_with_new_backends_is_recognised_by_its_vip() {
    let before = adopt(&fleet(&[("web", 5), ("api", 3)]), &Tables::default());
    let mut replaced = fleet(&[("web", 5), ("api", 3)]);
    replaced.pools[1] = pool("new", 3);
    let after = before.reconfigure(&replaced).unwrap();
    assert_eq!(after.pools()[1].index, before.pools()[1].index);
    assert!(rows(&after, 1).iter().all(|row| !rows(&before, 1).contains(row)));
}

#[test]
fn a_new_pool_beside_one_that_keeps_its_name_is_another() {
    let before = adopt(&fleet(&[("web", 5)]), &Tables::default());
    let mut copied = fleet(&[("web", 5)]);
    copied.pools.insert(0, PoolSpec { name: "copy".to_owned(), ..copied.pools[0].clone() });
    copied.vips[0].pool = 0;
    let after = before.reconfigure(&copied).unwrap();
    assert_eq!(rows(&after, 1), rows(&before, 0));
    assert!(rows(&after, 0).iter().all(|row| !rows(&before, 0).contains(row)));
}

#[test]
fn generations_after_a_restart_are_newer_than_any_before() {
    let config = fleet(&[("web", 2)]);
    let adopted = left_behind(&config);
    let newest = adopted.backends.values().map(|entry| entry.row.generation).max().unwrap();
    let mut more = config.clone();
    more.pools[0].backends.push(backend(50));
    let later = Directory::adopt(&more, &adopted, NOW + Duration::from_secs(5)).unwrap();
    assert!(rows(&later, 0)[2].generation > newest);
}

#[test]
fn another_address_of_the_gateway_is_another_tenant() {
    let before = adopt(&fleet(&[("web", 2)]), &Tables::default());
    let mut moved = fleet(&[("web", 2)]);
    moved.pools[0].backends[0].nat_addr = Ipv4Addr::new(10, 9, 9, 9).into();
    let after = before.reconfigure(&moved).unwrap();
    assert_ne!(rows(&after, 0)[0], rows(&before, 0)[0]);
    assert_eq!(rows(&after, 0)[1], rows(&before, 0)[1]);
}

#[track_caller]
fn refused(fleet: &Fleet) -> DirectoryError {
    Directory::adopt(fleet, &Tables::default(), NOW).map(|_| ()).unwrap_err()
}

#[test]
fn limits_are_errors_that_name_them() {
    let error = refused(&fleet(&[("web", BACKENDS_PER_POOL_MAX + 1)]));
    assert!(error.to_string().contains("at most 640"), "{error}");
    let pools = (0..=POOLS_MAX).map(|number| pool(&format!("p{number}"), 1)).collect();
    let many = Fleet { vips: Vec::new(), pools, client_classes: Vec::new() };
    assert_eq!(refused(&many), DirectoryError::TooManyPools { count: 65 });
    let pools = (0..7).map(|number| pool(&format!("p{number}"), BACKENDS_PER_POOL_MAX)).collect();
    let many = Fleet { vips: Vec::new(), pools, client_classes: Vec::new() };
    assert_eq!(refused(&many), DirectoryError::TooManyBackends { count: 4480 });
    let mut many = fleet(&[("web", 1)]);
    many.vips = (0..=VIPS_MAX as u16).map(|port| vip("v", port, 0)).collect();
    assert_eq!(refused(&many), DirectoryError::TooManyVips { count: 257 });
}

#[test]
fn contradictions_are_errors_that_name_them() {
    let mut twice = fleet(&[("web", 2)]);
    twice.pools[0].backends[1].addr = twice.pools[0].backends[0].addr;
    assert!(matches!(refused(&twice), DirectoryError::BackendTwice { .. }));
    assert!(matches!(refused(&fleet(&[("a", 1), ("a", 1)])), DirectoryError::PoolTwice { .. }));
    let mut claimed = fleet(&[("web", 1)]);
    claimed.vips.push(claimed.vips[0].clone());
    assert!(matches!(refused(&claimed), DirectoryError::VipTwice { .. }));
    let mut nowhere = fleet(&[("web", 1)]);
    nowhere.vips[0].pool = 7;
    assert!(matches!(refused(&nowhere), DirectoryError::NoSuchPool { .. }));
    let mut classless = fleet(&[("web", 1)]);
    classless.client_classes.push((Ipv4Addr::LOCALHOST.into(), 8, CONTROL_CLASS));
    assert!(matches!(
        refused(&classless),
        DirectoryError::NoSuchClass { class: CONTROL_CLASS, .. }
    ));
}

#[test]
fn a_refused_reload_changes_nothing() {
    let before = adopt(&fleet(&[("web", 2)]), &Tables::default());
    assert!(before.reconfigure(&fleet(&[("web", 2), ("web", 2)])).is_err());
    assert_eq!(rows(&before, 0).len(), 2);
}
