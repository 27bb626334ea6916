//! Packets for who captures: what is noted of one on its way, and its copy to user space.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use aya_ebpf::programs::XdpContext;
use gateway_common::capture::{ANY, wants};
use gateway_common::layout::{CaptureFilter, Captured, Vip};
use gateway_common::packet::{Frame, ipv6};
use gateway_common::route::{self, Routed, Tables, V4, V6};

use crate::cursor::XdpFrame;
use crate::maps;
use crate::tables::{MapFamily, MapTables};

/// Whether somebody captures, or did until a moment ago.
#[inline(always)]
pub fn is_on() -> bool {
    maps::CAPTURE.get(0).is_some_and(|filter| filter.until_ns != 0)
}

/// Notes whose a packet is. Rows are kept one higher, as the row of a packet of which nothing was
/// noted is all zeroes.
#[inline(always)]
pub fn note(vip: u32, backend: u32) {
    if is_on()
        && let Some(known) = known()
    {
        (known.vip, known.backend) = (vip.wrapping_add(1), backend.wrapping_add(1));
    }
}

/// Notes how a packet's journey ended.
#[inline(always)]
pub fn note_end(routed: &Routed, action: u32) {
    if let Some(known) = known() {
        (known.verdict, known.action, known.egress) =
            (routed.verdict as u32, action, routed.interface);
    }
}

/// Hands a packet to who captures, if they want it, and forgets what was noted of it. What is to be
/// done with it.
#[inline(always)]
pub fn hand_over(ctx: &XdpContext) -> Option<u32> {
    let known = known()?;
    let noted = *known;
    (known.vip, known.backend) = (0, 0);
    let filter = maps::CAPTURE.get_ptr_mut(0)?;
    // SAFETY: the row is there as long as the map. Who captures may write it meanwhile: then this
    // packet is judged by some of the old filter and some of the new.
    let filter: &mut CaptureFilter = unsafe { &mut *filter };
    // SAFETY: takes no arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if now_ns >= filter.until_ns {
        // Who captured went away without a word.
        filter.until_ns = 0;
        return Some(noted.action);
    }
    let frame = XdpFrame::new(ctx);
    let size = frame.size() as u32;
    let packet = Captured {
        at_ns: now_ns,
        vip: row(noted.vip).unwrap_or_else(|| vip_of(ctx, &frame)),
        backend: row(noted.backend).unwrap_or(ANY),
        ingress: ctx.ingress_ifindex() as u32,
        len: size,
        reserved: 0,
        ..noted
    };
    // SAFETY: takes no arguments.
    if wants(filter, &packet, unsafe { bpf_get_prandom_u32() }) {
        maps::CAPTURED.output(ctx, &packet, filter.snap_len.min(size));
    }
    Some(noted.action)
}

#[inline(always)]
fn known() -> Option<&'static mut Captured> {
    // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
    maps::CAPTURING.get_ptr_mut(0).map(|row| unsafe { &mut *row })
}

#[inline(always)]
fn row(noted: u32) -> Option<u32> {
    if noted == 0 { None } else { Some(noted - 1) }
}

/// The VIP that a packet is for of which nothing was noted: it was not forwarded, so it is as it came.
#[inline(always)]
fn vip_of(ctx: &XdpContext, frame: &XdpFrame) -> u32 {
    let vip = if ipv6::is_ipv6(frame) { find::<V6>(ctx, frame) } else { find::<V4>(ctx, frame) };
    vip.map_or(ANY, |vip| vip.index)
}

#[inline(always)]
fn find<V: MapFamily>(ctx: &XdpContext, frame: &XdpFrame) -> Option<Vip> {
    let header = V::header(frame).ok()?;
    let packet = V::transport(frame, &header).ok()?;
    let tuple = V::tuple(frame, &packet).ok()?;
    let tables = MapTables::<V>::new(ctx);
    let settings = tables.settings()?;
    route::vip_of(&tables, settings, &tuple, &V::key(&tuple, settings.hash_seed))
}
