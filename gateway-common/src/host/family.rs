//! What differs between IPv4 and IPv6 in tables on the heap.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;

use super::HostTables;
use crate::layout::{
    Backend, Flow, Flow6, FlowKey, FlowTuple6, Fragment, Fragment6, FragmentKey, FragmentKey6, Vip,
    VipKey, VipKey6,
};
use crate::route::{Family, V4, V6, towards, towards6};

/// A family of which [`HostTables`] has tables.
pub(super) trait HostFamily: Family<FragmentKey: Eq + Hash> {
    fn source_addr(tuple: &Self::Tuple) -> IpAddr;
    fn target_addr(tuple: &Self::Tuple) -> IpAddr;
    fn vip(tables: &HostTables, tuple: &Self::Tuple) -> Option<Vip>;
    fn towards(
        tables: &HostTables,
        row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<Self::Tuple>;
    fn client(tables: &HostTables, index: u32, flow: &Flow) -> Option<Self::Tuple>;
    fn set_client(tables: &HostTables, index: u32, tuple: &Self::Tuple);
    fn set_fragment_key(tables: &HostTables, key: &Self::FragmentKey);
    fn fragment_key(tables: &HostTables) -> Option<&Self::FragmentKey>;
    fn fragments(tables: &HostTables) -> &RefCell<HashMap<Self::FragmentKey, Self::Fragment>>;
}

impl HostFamily for V4 {
    fn source_addr(tuple: &FlowKey) -> IpAddr {
        tuple.source_addr.into()
    }

    fn target_addr(tuple: &FlowKey) -> IpAddr {
        tuple.target_addr.into()
    }

    fn vip(tables: &HostTables, tuple: &FlowKey) -> Option<Vip> {
        tables.vips.get(&VipKey::of(tuple)).copied()
    }

    fn towards(
        _tables: &HostTables,
        _row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<FlowKey> {
        Some(towards(backend, nat_port, key))
    }

    fn client(_tables: &HostTables, _index: u32, flow: &Flow) -> Option<FlowKey> {
        Some(flow.key)
    }

    /// It is in the flow's key.
    fn set_client(_tables: &HostTables, _index: u32, _tuple: &FlowKey) {}

    /// It is in the packet's key, but for the number, which is not changed.
    fn set_fragment_key(_tables: &HostTables, _key: &FragmentKey) {}

    fn fragment_key(_tables: &HostTables) -> Option<&FragmentKey> {
        None
    }

    fn fragments(tables: &HostTables) -> &RefCell<HashMap<FragmentKey, Fragment>> {
        &tables.fragments
    }
}

impl HostFamily for V6 {
    fn source_addr(tuple: &FlowTuple6) -> IpAddr {
        tuple.source_addr.into()
    }

    fn target_addr(tuple: &FlowTuple6) -> IpAddr {
        tuple.target_addr.into()
    }

    fn vip(tables: &HostTables, tuple: &FlowTuple6) -> Option<Vip> {
        tables.vips6.get(&VipKey6::of(tuple)).copied()
    }

    fn towards(
        tables: &HostTables,
        row: u32,
        backend: &Backend,
        nat_port: [u8; 2],
        key: &FlowKey,
    ) -> Option<FlowTuple6> {
        let addrs = tables.rows.get(row as usize)?.ipv6;
        Some(towards6(backend, &addrs, nat_port, key))
    }

    fn client(tables: &HostTables, index: u32, flow: &Flow) -> Option<FlowTuple6> {
        Some(tables.flow_addrs.get(index as usize)?.get().tuple(&flow.key))
    }

    fn set_client(tables: &HostTables, index: u32, tuple: &FlowTuple6) {
        if let Some(addrs) = tables.flow_addrs.get(index as usize) {
            addrs.set(Flow6 { client_addr: tuple.source_addr, vip_addr: tuple.target_addr });
        }
    }

    fn set_fragment_key(tables: &HostTables, key: &FragmentKey6) {
        // A packet begins one flow at most.
        let _ = tables.fragment_key6.set(*key);
    }

    fn fragment_key(tables: &HostTables) -> Option<&FragmentKey6> {
        tables.fragment_key6.get()
    }

    fn fragments(tables: &HostTables) -> &RefCell<HashMap<FragmentKey6, Fragment6>> {
        &tables.fragments6
    }
}
