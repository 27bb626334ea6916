use std::net::Ipv4Addr;
use std::time::Duration;

use gateway_common::clock::KtimeNs;
use gateway_common::layout::Backend;
use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::engine::{Engine, EngineOptions};
use crate::fixture::{backend, fleet, vip};
use crate::fleet::{Admission, Fleet, Ports, VipAddr};
use crate::rows::HeapRows;
use crate::sim::check_tables;

const OPTIONS: EngineOptions = EngineOptions { weights_age_max: Duration::from_secs(30), seed: 1 };

fn at(seconds: u64) -> KtimeNs {
    KtimeNs(seconds * 1_000_000_000)
}

/// A change of the fleet, as an operator makes it.
#[derive(Clone, Debug)]
enum Edit {
    Add(usize, u32),
    Remove(usize, usize),
    Drain(usize, usize),
    DropPool(usize),
    AddPool(u32),
    MoveVip(usize, usize),
    Tick,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0usize..4, 0u32..40).prop_map(|(pool, number)| Edit::Add(pool, number)),
        (0usize..4, 0usize..8).prop_map(|(pool, at)| Edit::Remove(pool, at)),
        (0usize..4, 0usize..8).prop_map(|(pool, at)| Edit::Drain(pool, at)),
        (0usize..4).prop_map(Edit::DropPool),
        (0u32..40).prop_map(Edit::AddPool),
        (0usize..4, 0usize..4).prop_map(|(vip, pool)| Edit::MoveVip(vip, pool)),
        Just(Edit::Tick),
    ]
}

/// An address, or a prefix that is around some others; a port, or several.
fn wide_or_not(number: u32, port: u16) -> VipAddr {
    let net = IpNet::new_assert(Ipv4Addr::new(10, 0, 0, 100).into(), 32 - (number % 4) as u8 * 8);
    VipAddr::new(net, Ports { first: port, last: port + number as u16 % 3 * 20 })
}

/// Makes the edit if the fleet stays valid by it.
fn make(fleet: &mut Fleet, edit: &Edit) {
    match *edit {
        Edit::Add(pool, number) => {
            if let Some(pool) = fleet.pools.get_mut(pool) {
                let backend = backend(500_000 + number);
                if pool.backends.iter().all(|there| there.addr != backend.addr) {
                    pool.backends.push(backend);
                }
            }
        }
        Edit::Remove(pool, at) => {
            if let Some(pool) = fleet.pools.get_mut(pool)
                && pool.backends.len() > 1
                && at < pool.backends.len()
            {
                pool.backends.remove(at);
            }
        }
        Edit::Drain(pool, at) => {
            let backend = fleet.pools.get_mut(pool).and_then(|pool| pool.backends.get_mut(at));
            if let Some(backend) = backend {
                backend.admission = Admission::Draining;
            }
        }
        Edit::DropPool(pool) => {
            if pool < fleet.pools.len() && fleet.pools.len() > 1 {
                fleet.pools.remove(pool);
                fleet.vips.retain(|vip| vip.pool != pool);
                let later = fleet.vips.iter_mut().filter(|vip| vip.pool > pool);
                later.for_each(|vip| vip.pool -= 1);
            }
        }
        Edit::AddPool(number) => {
            let name = format!("pool{number}");
            let port = 1000 + number as u16;
            let new = fleet.pools.iter().all(|pool| pool.name != name)
                && fleet.vips.iter().all(|vip| vip.addr.ports().first != port);
            if new && fleet.pools.len() < 4 {
                fleet.pools.push(crate::fixture::pool(&name, 2));
                let mut vip = vip(&name, port, fleet.pools.len() - 1);
                vip.addr = wide_or_not(number, port);
                fleet.vips.push(vip);
            }
        }
        Edit::MoveVip(vip, pool) => {
            if let Some(vip) = fleet.vips.get_mut(vip).filter(|_| pool < fleet.pools.len()) {
                vip.pool = pool;
            }
        }
        Edit::Tick => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_plan_leads_to_what_is_desired_and_is_safe_at_every_step(
        edits in proptest::collection::vec(edit(), 1..12),
    ) {
        let mut config = fleet(&[("web", 3), ("api", 2)]);
        let mut engine = Engine::new(config.clone(), Tables::default(), OPTIONS, at(1)).unwrap();
        let mut applied = Tables::default();
        let rows = HeapRows::default();
        for (number, edit) in std::iter::once(&Edit::Tick).chain(&edits).enumerate() {
            make(&mut config, edit);
            let now = at(2 + number as u64);
            engine.reconfigure(config.clone(), now).unwrap();
            engine.tick(now, &rows);
            for write in plan(engine.tables(), &applied) {
                applied.apply(&write);
                check_tables(&applied).map_err(|what| TestCaseError::fail(format!("{edit:?}: {what}")))?;
            }
            prop_assert_eq!(&applied, engine.tables());
            prop_assert!(plan(engine.tables(), &applied).is_empty());
        }
    }
}

#[test]
fn nothing_is_written_twice() {
    let engine = Engine::new(fleet(&[("web", 3)]), Tables::default(), OPTIONS, at(1)).unwrap();
    assert!(plan(engine.tables(), engine.tables()).is_empty());
}

#[test]
fn a_row_has_its_weights_before_anything_names_it() {
    let engine = Engine::new(fleet(&[("web", 2)]), Tables::default(), OPTIONS, at(1)).unwrap();
    let writes = plan(engine.tables(), &Tables::default());
    let kind = |write: &Write| match write {
        Write::Weights(..) => 0,
        Write::Backend(..) => 1,
        Write::Table(..) => 2,
        Write::Pool(..) => 3,
        _ => 4,
    };
    let kinds: Vec<u8> = writes.iter().map(kind).collect();
    assert_eq!(kinds, [0, 0, 1, 1, 2, 3, 4]);
}

#[test]
fn a_set_of_vips_is_there_before_a_prefix_leads_to_it() {
    let mut config = fleet(&[("web", 1)]);
    config.vips[0].addr = "10.0.0.0/24:80-81".parse().unwrap();
    let engine = Engine::new(config, Tables::default(), OPTIONS, at(1)).unwrap();
    let there = plan(engine.tables(), &Tables::default());
    assert!(matches!(there.last_chunk(), Some([Write::VipPorts(..), Write::VipNet(24, _, 0)])));
    let gone = plan(&Tables::default(), engine.tables());
    assert!(matches!(
        gone.first_chunk(),
        Some([Write::RemoveVipNet(..), Write::RemoveVipPorts(..)])
    ));
    assert_eq!(engine.tables().all_vips().len(), 1);
}

#[test]
fn what_is_removed_goes_in_the_reverse_order() {
    let engine = Engine::new(fleet(&[("web", 1)]), Tables::default(), OPTIONS, at(1)).unwrap();
    let writes = plan(&Tables::default(), engine.tables());
    assert!(matches!(
        writes.as_slice(),
        [
            Write::RemoveVip(_),
            Write::Pool(_, FREE_POOL),
            Write::Backend(_, BackendEntry { row: Backend { flags: 0, .. }, .. }),
            Write::Weights(..)
        ]
    ));
}

#[test]
fn rows_of_the_operator_are_left_alone() {
    let engine = Engine::new(fleet(&[("web", 2)]), Tables::default(), OPTIONS, at(1)).unwrap();
    let mut desired = engine.tables().clone();
    desired.weights.clear();
    assert!(plan(&desired, engine.tables()).is_empty());
}
