//! The same over IPv6, where the sender alone makes fragments, and an extension header of each says
//! where it belongs (RFC 8200, section 4.5).

use bytemuck::Zeroable;

use crate::layout::{FlowTuple6, Fragment6, FragmentKey6, Outer, mode};
use crate::packet::ipv6::{self, Header6, IPV6_LEN};
use crate::packet::{Bytes, ETHERNET_LEN, FRAGMENT_OFFSET, Frame};
use crate::rewrite::Hop;
use crate::rewrite::ipv6::{relay, set_addresses};
use crate::verdict::Verdict;

use super::super::{Routed, Step, Tables, V6, ended, serves, steer, stopped};
use super::{FRAGMENT_LIFE_NS, forwarded};

/// What becomes of a fragment.
#[inline(always)]
pub fn fragment6<F: Frame, T: Tables<Family = V6>>(frame: &F, tables: &T) -> Step {
    match journey(frame, tables) {
        Ok(step) => step,
        Err(verdict) => stopped(verdict),
    }
}

#[inline(always)]
fn journey<F: Frame, T: Tables<Family = V6>>(frame: &F, tables: &T) -> Result<Step, Verdict> {
    let header = ipv6::header(frame)?;
    // Asked again rather than kept meanwhile: on the stack there is no room beside what `steer` needs.
    // And once a flow begins here, its addresses are changed.
    tables.set_fragment_key(&key_of(frame, &header)?);
    let key = tables.fragment_key().ok_or(Verdict::DropTables)?;
    if header.behind.fragment & FRAGMENT_OFFSET != 0 {
        return follow(frame, tables, &header, key);
    }
    let step = steer::<F, T, true>(frame, tables, &header);
    remember(frame, tables, key, &step);
    step
}

/// What all fragments of the packet in this frame share.
#[inline(always)]
fn key_of<F: Frame>(frame: &F, header: &Header6) -> Result<FragmentKey6, Verdict> {
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    Ok(FragmentKey6 {
        source_addr: ipv6::source_addr(ip),
        target_addr: ipv6::target_addr(ip),
        id: header.behind.fragment_id,
    })
}

/// Keeps where a first fragment goes, as it was changed for that.
#[inline(always)]
pub(in super::super) fn remember<F: Frame, T: Tables<Family = V6>>(
    frame: &F,
    tables: &T,
    key: &FragmentKey6,
    step: &Result<Step, Verdict>,
) {
    let fragment = match step {
        Ok(Step::Ended(routed)) => sent(frame, routed),
        Ok(Step::Encapsulates) => tables.outer().map(|outer| Fragment6 {
            verdict: Verdict::ForwardIn as u32,
            outer,
            ..Fragment6::zeroed()
        }),
        // The host gets all of it. Of what is none of our business anyway nothing need be kept.
        Err(verdict @ (Verdict::PassNotOurs | Verdict::PassToProxy))
            if serves(tables, &between(key.source_addr, key.target_addr)) =>
        {
            Some(Fragment6 { verdict: *verdict as u32, ..Fragment6::zeroed() })
        }
        _ => None,
    };
    let Some(mut fragment) = fragment else { return };
    fragment.until_ns = tables.now_coarse_ns().wrapping_add(FRAGMENT_LIFE_NS);
    tables.set_fragment(key, &fragment);
}

/// How a packet is sent that was changed for it.
#[inline(always)]
fn sent<F: Frame>(frame: &F, routed: &Routed) -> Option<Fragment6> {
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN)?;
    let ethernet = frame.bytes::<ETHERNET_LEN>(0)?;
    let ([a, b, c, d], [e, f]) = (ethernet.four::<0>(), ethernet.two::<4>());
    let ([g, h], [i, j, k, l]) = (ethernet.two::<6>(), ethernet.four::<8>());
    Some(Fragment6 {
        verdict: routed.verdict as u32,
        outer: Outer {
            interface: routed.interface,
            link_source: [g, h, i, j, k, l],
            link_target: [a, b, c, d, e, f],
            // It was decoded, so this is no more than a packet may have.
            inner_len: u16::from_be_bytes(ip.two::<4>()).wrapping_add(IPV6_LEN as u16),
            ..Outer::zeroed()
        },
        source_addr: ipv6::source_addr(ip),
        target_addr: ipv6::target_addr(ip),
        ..Fragment6::zeroed()
    })
}

/// The five-tuple of a later fragment, which has no ports.
#[inline(always)]
fn between(source_addr: [u8; 16], target_addr: [u8; 16]) -> FlowTuple6 {
    FlowTuple6 { source_addr, target_addr, ..FlowTuple6::zeroed() }
}

/// Sends a later fragment after the first.
#[inline(always)]
fn follow<F: Frame, T: Tables<Family = V6>>(
    frame: &F,
    tables: &T,
    header: &Header6,
    key: &FragmentKey6,
) -> Result<Step, Verdict> {
    let first = tables.fragment(key).filter(|first| tables.now_coarse_ns() < first.until_ns);
    let Some(first) = first else {
        let is_ours = serves(tables, &between(key.source_addr, key.target_addr));
        return Err(if is_ours { Verdict::DropFragment } else { Verdict::PassNotOurs });
    };
    let verdict = forwarded(first.verdict)?;
    if header.ttl <= 1 {
        return Err(Verdict::DropTtl);
    }
    // The way had room for the first. All but the last are of one length, unless somebody plays.
    let outer = first.outer;
    if header.ip_len > outer.inner_len {
        return Err(Verdict::DropTooBig);
    }
    if outer.mode != mode::NAT {
        tables.set_outer(&Outer { inner_len: header.ip_len, tos: header.tos, ..outer });
        return Ok(Step::Encapsulates);
    }
    let hop =
        Hop { interface: outer.interface, source: outer.link_source, target: outer.link_target };
    let ip = frame.bytes::<IPV6_LEN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    set_addresses(ip, &between(first.source_addr, first.target_addr));
    relay(frame, &hop)?;
    Ok(ended(verdict, &hop))
}
