//! Fragments: the first one of a packet says where it goes, and the later ones, which have no ports,
//! go after it. Those of IPv6 are in [`ipv6`].
//!
//! A first fragment is steered as a whole packet would be, and where it went is kept for a while under
//! what all fragments of the packet share (RFC 791, section 3.2). A later one that comes before it goes
//! nowhere: keeping it until then is not possible here, and whoever cuts packets sends them in order.
//!
//! A journey of its own, since few packets need it: in the kernel it is another program
//! ([`crate::layout::program::FRAGMENT`]).

pub(super) mod ipv6;

use bytemuck::Zeroable;

use crate::layout::{FlowKey, Fragment, FragmentKey, Outer, mode};
use crate::packet::{self, Bytes, ETHERNET_LEN, FRAGMENT_OFFSET, Frame, Header, IPV4_LEN_MIN};
use crate::rewrite::{Hop, rewrite_header};
use crate::verdict::Verdict;

use super::icmp::between;
use super::{Step, Tables, V4, ended, serves, steer, stopped};

/// How long later fragments may follow the first: what RFC 791, section 3.2, lets a receiver wait.
pub const FRAGMENT_LIFE_NS: u64 = 15_000_000_000;

/// Verdicts as they are kept.
const PASS_TO_PROXY: u32 = Verdict::PassToProxy as u32;
const FORWARD_IN: u32 = Verdict::ForwardIn as u32;
const FORWARD_OUT: u32 = Verdict::ForwardOut as u32;

/// What becomes of a fragment.
#[inline(always)]
pub fn fragment<F: Frame, T: Tables<Family = V4>>(frame: &F, tables: &T) -> Step {
    match journey(frame, tables) {
        Ok(step) => step,
        Err(verdict) => stopped(verdict),
    }
}

#[inline(always)]
fn journey<F: Frame, T: Tables<Family = V4>>(frame: &F, tables: &T) -> Result<Step, Verdict> {
    let header = packet::header(frame)?;
    let key = key_of(frame, header.source_addr, header.target_addr, header.protocol)?;
    if header.fragment & FRAGMENT_OFFSET != 0 {
        return follow(frame, tables, &header, &key);
    }
    let step = steer::<F, T, true>(frame, tables, &header);
    remember(frame, tables, &key, header.ip_len, &step);
    step
}

/// What all fragments of the packet in this frame share, whose addresses were these.
#[inline(always)]
pub(super) fn key_of<F: Frame>(
    frame: &F,
    source_addr: [u8; 4],
    target_addr: [u8; 4],
    protocol: u8,
) -> Result<FragmentKey, Verdict> {
    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN).ok_or(Verdict::DropTruncated)?;
    Ok(FragmentKey { source_addr, target_addr, id: ip.two::<4>(), protocol, reserved: 0 })
}

/// Keeps where a first fragment of `ip_len` bytes goes, as it was changed for that.
#[inline(always)]
pub(super) fn remember<F: Frame, T: Tables<Family = V4>>(
    frame: &F,
    tables: &T,
    key: &FragmentKey,
    ip_len: u16,
    step: &Result<Step, Verdict>,
) {
    let (verdict, outer) = match step {
        Ok(Step::Ended(routed)) => match sent(frame, routed.interface, ip_len) {
            Some(outer) => (routed.verdict, outer),
            None => return,
        },
        Ok(Step::Encapsulates) => match tables.outer() {
            Some(outer) => (Verdict::ForwardIn, outer),
            None => return,
        },
        // The host gets all of it. Of what is none of our business anyway nothing need be kept.
        Err(verdict @ (Verdict::PassNotOurs | Verdict::PassToProxy))
            if serves(tables, &between(key.source_addr, key.target_addr)) =>
        {
            (*verdict, Outer::zeroed())
        }
        _ => return,
    };
    let until_ns = tables.now_coarse_ns().wrapping_add(FRAGMENT_LIFE_NS);
    tables.set_fragment(key, &Fragment { outer, verdict: verdict as u32, until_ns });
}

/// How a packet is sent that was changed for it.
#[inline(always)]
fn sent<F: Frame>(frame: &F, interface: u32, ip_len: u16) -> Option<Outer> {
    let ip = frame.bytes::<IPV4_LEN_MIN>(ETHERNET_LEN)?;
    let ethernet = frame.bytes::<ETHERNET_LEN>(0)?;
    let ([a, b, c, d], [e, f]) = (ethernet.four::<0>(), ethernet.two::<4>());
    let ([g, h], [i, j, k, l]) = (ethernet.two::<6>(), ethernet.four::<8>());
    Some(Outer {
        interface,
        link_source: [g, h, i, j, k, l],
        link_target: [a, b, c, d, e, f],
        source_addr: ip.four::<12>(),
        target_addr: ip.four::<16>(),
        inner_len: ip_len,
        ..Outer::zeroed()
    })
}

/// Sends a later fragment after the first.
#[inline(always)]
fn follow<F: Frame, T: Tables<Family = V4>>(
    frame: &F,
    tables: &T,
    header: &Header,
    key: &FragmentKey,
) -> Result<Step, Verdict> {
    let first = tables.fragment(key).filter(|first| tables.now_coarse_ns() < first.until_ns);
    let Some(Fragment { outer, verdict, .. }) = first else {
        let is_ours = serves(tables, &between(header.source_addr, header.target_addr));
        return Err(if is_ours { Verdict::DropFragment } else { Verdict::PassNotOurs });
    };
    let verdict = forwarded(verdict)?;
    if header.ttl <= 1 {
        return Err(Verdict::DropTtl);
    }
    // The way had room for the first. All but the last are of one length, unless somebody plays.
    if header.ip_len > outer.inner_len {
        return Err(Verdict::DropTooBig);
    }
    let hop =
        Hop { interface: outer.interface, source: outer.link_source, target: outer.link_target };
    if outer.mode != mode::NAT {
        tables.set_outer(&Outer { inner_len: header.ip_len, tos: header.tos, ..outer });
        return Ok(Step::Encapsulates);
    }
    let addresses = |source_addr, target_addr| FlowKey {
        source_addr,
        target_addr,
        source_port: [0; 2],
        target_port: [0; 2],
        protocol: header.protocol,
        reserved: [0; 3],
    };
    let from = addresses(header.source_addr, header.target_addr);
    rewrite_header(frame, &from, &addresses(outer.source_addr, outer.target_addr), &hop)?;
    Ok(ended(verdict, &hop))
}

/// How later fragments are forwarded whose first ended in the verdict of this number.
///
/// # Errors
/// The verdict of those that go to the host.
#[inline(always)]
fn forwarded(verdict: u32) -> Result<Verdict, Verdict> {
    match verdict {
        PASS_TO_PROXY => Err(Verdict::PassToProxy),
        FORWARD_IN => Ok(Verdict::ForwardIn),
        FORWARD_OUT => Ok(Verdict::ForwardOut),
        _ => Err(Verdict::PassNotOurs),
    }
}
