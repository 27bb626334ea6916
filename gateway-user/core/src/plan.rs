//! Which writes turn the tables that are applied into those that are wanted, in an order that is
//! safe at every step.
//!
//! A packet may be routed between any two writes. So rows and tables are written before the pool
//! that names them, pools before the VIPs that name those, and what is given up goes the other
//! way round: first nobody names it, then it is freed.

use std::sync::Arc;

use bytemuck::Zeroable;
use gateway_common::layout::{Limits, Weights};

use crate::tables::{BackendEntry, FREE_POOL, Tables, Write};

/// The writes from `applied` to `desired`. Nothing is written that is the same already.
///
/// Rows of `WEIGHTS` that `desired` does not mention belong to the operator and are left alone,
/// unless their backend is given up.
pub fn plan(desired: &Tables, applied: &Tables) -> Vec<Write> {
    let mut writes = Vec::new();
    set_backends(desired, applied, &mut writes);
    set_tables(desired, applied, &mut writes);
    set_pools(desired, applied, &mut writes);
    set_client_classes(desired, applied, &mut writes);
    set_limits(desired, applied, &mut writes);
    set_wide_vips(desired, applied, &mut writes);
    set_vips(desired, applied, &mut writes);

    remove_vips(desired, applied, &mut writes);
    remove_wide_vips(desired, applied, &mut writes);
    remove_limits(desired, applied, &mut writes);
    remove_client_classes(desired, applied, &mut writes);
    remove_pools(desired, applied, &mut writes);
    remove_backends(desired, applied, &mut writes);
    writes
}

/// A new row gets its weights first: a draw that finds it must not read those of an earlier tenant.
fn set_backends(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    for (&row, weights) in &desired.weights {
        if applied.weights.get(&row) != Some(weights) {
            writes.push(Write::Weights(row, *weights));
        }
    }
    for (&row, backend) in &desired.backends {
        if applied.backends.get(&row) != Some(backend) {
            writes.push(Write::Backend(row, *backend));
        }
    }
}

fn set_tables(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    for (&index, slots) in &desired.maglev {
        // The same allocation is the common case; comparing 128 KiB a pool and tick is not.
        let same = applied
            .maglev
            .get(&index)
            .is_some_and(|there| Arc::ptr_eq(there, slots) || there == slots);
        if !same {
            writes.push(Write::Table(index, Arc::clone(slots)));
        }
    }
}

fn set_pools(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    for (&index, pool) in &desired.pools {
        if applied.pools.get(&index) != Some(pool) {
            writes.push(Write::Pool(index, *pool));
        }
    }
}

fn set_client_classes(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    for (&(prefix_len, network), &class) in &desired.client_classes {
        if applied.client_classes.get(&(prefix_len, network)) != Some(&class) {
            writes.push(Write::ClientClass(prefix_len, network, class));
        }
    }
}

fn set_limits(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    for (&row, limits) in &desired.limits {
        if applied.limits.get(&row) != Some(limits) {
            writes.push(Write::Limits(row, *limits));
        }
    }
}

fn set_vips(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    for (key, vip) in &desired.vips {
        if applied.vips.get(key) != Some(vip) {
            writes.push(Write::Vip(*key, *vip));
        }
    }
}

/// A set's VIPs come before the prefix that leads to them.
fn set_wide_vips(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    for (&(bits, key), vip) in &desired.wide.blocks {
        if applied.wide.blocks.get(&(bits, key)) != Some(vip) {
            writes.push(Write::VipPorts(bits, key, *vip));
        }
    }
    for (&(len, network), set) in &desired.wide.nets {
        if applied.wide.nets.get(&(len, network)) != Some(set) {
            writes.push(Write::VipNet(len, network, *set));
        }
    }
}

fn remove_vips(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    let gone = applied.vips.keys().filter(|key| !desired.vips.contains_key(key));
    writes.extend(gone.map(|key| Write::RemoveVip(*key)));
}

fn remove_wide_vips(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    let gone = applied.wide.nets.keys().filter(|net| !desired.wide.nets.contains_key(net));
    writes.extend(gone.map(|&(len, network)| Write::RemoveVipNet(len, network)));
    let blocks = applied.wide.blocks.keys();
    let gone = blocks.filter(|block| !desired.wide.blocks.contains_key(block));
    writes.extend(gone.map(|&(bits, key)| Write::RemoveVipPorts(bits, key)));
}

fn remove_limits(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    let gone = applied.limits.keys().filter(|row| !desired.limits.contains_key(row));
    writes.extend(gone.map(|&row| Write::Limits(row, Limits::zeroed())));
}

fn remove_client_classes(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    let gone =
        applied.client_classes.keys().filter(|key| !desired.client_classes.contains_key(key));
    writes.extend(gone.map(|&(prefix_len, network)| Write::RemoveClientClass(prefix_len, network)));
}

fn remove_pools(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    let gone = applied.pools.keys().filter(|index| !desired.pools.contains_key(index));
    writes.extend(gone.map(|&index| Write::Pool(index, FREE_POOL)));
}

fn remove_backends(desired: &Tables, applied: &Tables, writes: &mut Vec<Write>) {
    for (&row, backend) in &applied.backends {
        if !desired.backends.contains_key(&row) {
            writes.push(Write::Backend(row, BackendEntry::free(backend.row.generation)));
        }
    }
    let stale = applied.weights.keys().filter(|row| !desired.backends.contains_key(row));
    writes.extend(stale.map(|&row| Write::Weights(row, Weights::zeroed())));
}

#[cfg(test)]
mod tests;
