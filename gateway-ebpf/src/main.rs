//! The XDP programs. Every decision is `gateway_common::route`'s; here its verdict becomes an action
//! and is counted.
//!
//! `gateway` is attached and sees every packet. What few packets need is a program of its own, which
//! it calls through `PROGRAMS`: so the path of most packets stays small, and each program has the
//! whole of the BPF stack.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod capture;
mod cursor;
mod line;
mod maps;
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use gateway_common::layout::{Outer, program};
use gateway_common::packet::{Frame, ipv6};
use gateway_common::rewrite::Hop;
use gateway_common::route::{
    Family, Routed, Step, Tables, V4, V6, arrive, challenge, fragment, fragment6, icmp, icmp6,
    limited, open, reset, stopped,
};
use gateway_common::tunnel::overhead;
use gateway_common::verdict::Verdict;

use crate::cursor::XdpFrame;
use crate::tables::{MapFamily, MapTables};

/// Steers one packet. Attached to every interface that clients or backends are behind.
///
/// Inlined into what the macro makes of it, since the name of a function of its own would depend on
/// where the source lies, and objects built elsewhere would differ. So are the others.
#[xdp]
#[inline(always)]
pub fn gateway(ctx: XdpContext) -> u32 {
    arrive_and_go_on::<V4>(&ctx)
}

/// Goes on where a flow begins.
#[xdp]
#[inline(always)]
pub fn gateway_open(ctx: XdpContext) -> u32 {
    open_and_go_on::<V4>(&ctx)
}

/// Steers a packet of IPv6.
#[xdp]
#[inline(always)]
pub fn gateway_v6(ctx: XdpContext) -> u32 {
    arrive_and_go_on::<V6>(&ctx)
}

/// Goes on where a flow of IPv6 begins.
#[xdp]
#[inline(always)]
pub fn gateway_v6_open(ctx: XdpContext) -> u32 {
    open_and_go_on::<V6>(&ctx)
}

#[inline(always)]
fn arrive_and_go_on<V: MapFamily>(ctx: &XdpContext) -> u32 {
    let tables = MapTables::<V>::new(ctx);
    let step = arrive(&XdpFrame::new(ctx), &tables);
    go_on(ctx, &tables, step)
}

#[inline(always)]
fn open_and_go_on<V: MapFamily>(ctx: &XdpContext) -> u32 {
    let tables = MapTables::<V>::new(ctx);
    let step = open(&XdpFrame::new(ctx), &tables);
    if let Step::Ended(routed) = step
        && routed.verdict as u32 == Verdict::DropTables as u32
    {
        // A daemon is at work, or its plan was wrong. Off unless the loader raises the level.
        debug!(ctx, "the tables contradict each other; interface {}", ctx.ingress_ifindex());
    }
    go_on(ctx, &tables, step)
}

/// Goes on where a packet is to be sent in another one, to a backend of either family.
#[xdp]
#[inline(always)]
pub fn gateway_encapsulate(ctx: XdpContext) -> u32 {
    let Some(outer) = maps::OUTER.get(0) else {
        let routed = Routed { verdict: Verdict::DropTables, interface: 0 };
        return end(&ctx, &MapTables::<V4>::new(&ctx), routed);
    };
    if outer.is_ipv6() { encapsulate::<V6>(&ctx, outer) } else { encapsulate::<V4>(&ctx, outer) }
}

#[inline(always)]
fn encapsulate<V: MapFamily>(ctx: &XdpContext, outer: &Outer) -> u32 {
    let tables = MapTables::<V>::new(ctx);
    let (to, hop) = match way(&tables, outer) {
        Ok(way) => way,
        Err(verdict) if outer.holds_ipv6() => return stop::<V6>(ctx, verdict),
        Err(verdict) => return stop::<V4>(ctx, verdict),
    };
    let routed = match wrap::<V>(ctx, outer, &to, &hop) {
        Ok(()) => Routed { verdict: Verdict::ForwardIn, interface: hop.interface },
        Err(verdict) => Routed { verdict, interface: 0 },
    };
    end(ctx, &tables, routed)
}

/// Between whom a packet goes with its outer header, and its way: the program before left that to this
/// one if the packet itself is of the other family.
#[inline(always)]
fn way<V: MapFamily>(tables: &MapTables<V>, outer: &Outer) -> Result<(V::Tuple, Hop), Verdict> {
    let to = V::ends(outer)?;
    let hop = match outer.hop() {
        Some(hop) => hop,
        None => tables.next_hop(&outer.packet(), &to, tables.now_coarse_ns())?,
    };
    Ok((to, hop))
}

/// Makes room before the packet and writes the headers there.
#[inline(always)]
fn wrap<V: MapFamily>(
    ctx: &XdpContext,
    outer: &Outer,
    to: &V::Tuple,
    hop: &Hop,
) -> Result<(), Verdict> {
    let overhead = overhead(outer.mode, outer.is_ipv6());
    cursor::move_start(ctx, -(overhead as i32)).ok_or(Verdict::DropTooBig)?;
    V::wrap(&XdpFrame::new(ctx), outer, to, hop)
}

/// The end of a packet of this family that `verdict` stopped.
#[inline(always)]
fn stop<V: MapFamily>(ctx: &XdpContext, verdict: Verdict) -> u32 {
    let tables = MapTables::<V>::new(ctx);
    go_on(ctx, &tables, stopped(verdict))
}

/// Tells a client that its connection is lost.
#[xdp]
#[inline(always)]
pub fn gateway_reset(ctx: XdpContext) -> u32 {
    tell_lost::<V4>(&ctx)
}

/// The same over IPv6.
#[xdp]
#[inline(always)]
pub fn gateway_v6_reset(ctx: XdpContext) -> u32 {
    tell_lost::<V6>(&ctx)
}

#[inline(always)]
fn tell_lost<V: MapFamily>(ctx: &XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx);
    let surplus = frame.size().wrapping_sub(V::ANSWER_LEN);
    end_answered(ctx, surplus, reset::<V, _>(&frame).map(|()| Verdict::ResetLost))
}

/// Asks the source of a SYN to prove that it is there.
#[xdp]
#[inline(always)]
pub fn gateway_challenge(ctx: XdpContext) -> u32 {
    let frame = XdpFrame::new(&ctx);
    let size = frame.size();
    // One end for both families, as the compiler would merge two into what the verifier refuses.
    let (len, answered) = if ipv6::is_ipv6(&frame) {
        (V6::ANSWER_LEN, challenge(&frame, &MapTables::<V6>::new(&ctx)))
    } else {
        (V4::ANSWER_LEN, challenge(&frame, &MapTables::<V4>::new(&ctx)))
    };
    let surplus = size.wrapping_sub(len);
    end_answered(&ctx, surplus, answered.map(|()| Verdict::SynChallenged))
}

/// Ends the journey of a packet that became an answer: what it has beyond that is cut off.
#[inline(always)]
fn end_answered(ctx: &XdpContext, surplus: usize, answered: Result<Verdict, Verdict>) -> u32 {
    let verdict = match answered {
        Ok(verdict) if tables::cut(ctx, surplus) => verdict,
        Ok(_) => Verdict::DropTruncated,
        Err(verdict) => verdict,
    };
    end(ctx, &MapTables::<V4>::new(ctx), Routed { verdict, interface: 0 })
}

/// Goes on with errors of the network, and with echo.
#[xdp]
#[inline(always)]
pub fn gateway_icmp(ctx: XdpContext) -> u32 {
    let tables = MapTables::<V4>::new(&ctx);
    let step = icmp(&XdpFrame::new(&ctx), &tables);
    go_on(&ctx, &tables, step)
}

/// The same of ICMPv6.
#[xdp]
#[inline(always)]
pub fn gateway_v6_icmp(ctx: XdpContext) -> u32 {
    let tables = MapTables::<V6>::new(&ctx);
    let step = icmp6(&XdpFrame::new(&ctx), &tables);
    go_on(&ctx, &tables, step)
}

/// Goes on where a journey ended while somebody captures.
#[xdp]
#[inline(always)]
pub fn gateway_capture(ctx: XdpContext) -> u32 {
    capture::hand_over(&ctx).unwrap_or(XDP_DROP)
}

/// Goes on at a VIP whose sources are limited, to the end that others reach at once.
#[xdp]
#[inline(always)]
pub fn gateway_limited(ctx: XdpContext) -> u32 {
    limit_and_go_on::<V4>(&ctx)
}

/// The same over IPv6.
#[xdp]
#[inline(always)]
pub fn gateway_v6_limited(ctx: XdpContext) -> u32 {
    limit_and_go_on::<V6>(&ctx)
}

#[inline(always)]
fn limit_and_go_on<V: MapFamily>(ctx: &XdpContext) -> u32 {
    let tables = MapTables::<V>::new(ctx);
    let step = limited(&XdpFrame::new(ctx), &tables);
    go_on(ctx, &tables, step)
}

/// Goes on with fragments.
#[xdp]
#[inline(always)]
pub fn gateway_fragment(ctx: XdpContext) -> u32 {
    let tables = MapTables::<V4>::new(&ctx);
    let step = fragment(&XdpFrame::new(&ctx), &tables);
    go_on(&ctx, &tables, step)
}

/// The same of IPv6.
#[xdp]
#[inline(always)]
pub fn gateway_v6_fragment(ctx: XdpContext) -> u32 {
    let tables = MapTables::<V6>::new(&ctx);
    let step = fragment6(&XdpFrame::new(&ctx), &tables);
    go_on(&ctx, &tables, step)
}

/// Tells a sender why its packet cannot go on.
#[xdp]
#[inline(always)]
pub fn gateway_error(ctx: XdpContext) -> u32 {
    tell_unsent::<V4>(&ctx)
}

/// The same over IPv6.
#[xdp]
#[inline(always)]
pub fn gateway_v6_error(ctx: XdpContext) -> u32 {
    tell_unsent::<V6>(&ctx)
}

#[inline(always)]
fn tell_unsent<V: MapFamily>(ctx: &XdpContext) -> u32 {
    let tables = MapTables::<V>::new(ctx);
    let (Ok(verdict) | Err(verdict)) = answer(ctx, &tables);
    end(ctx, &tables, Routed { verdict, interface: 0 })
}

/// Makes an error of the packet: room before it, the quote's end, and the headers.
#[inline(always)]
fn answer<V: MapFamily>(ctx: &XdpContext, tables: &MapTables<V>) -> Result<Verdict, Verdict> {
    let frame = XdpFrame::new(ctx);
    let error = tables.error(&frame)?;
    let has_room = tables::cut(ctx, error.surplus(frame.size()))
        && cursor::move_start(ctx, -(V::ERROR_LEN as i32)).is_some();
    if has_room { V::write_error(&XdpFrame::new(ctx), &error) } else { Err(Verdict::DropTruncated) }
}

/// Calls the program that goes on, or ends the journey.
#[inline(always)]
fn go_on<V: MapFamily>(ctx: &XdpContext, tables: &MapTables<V>, step: Step) -> u32 {
    let verdict = match step {
        Step::Ended(routed) => return end(ctx, tables, routed),
        Step::Opens => {
            // SAFETY, here and below: nothing is held that would have to be dropped. It returns only
            // if no program is there.
            unsafe { maps::PROGRAMS.tail_call(ctx, V::OPEN) };
            Verdict::DropTables
        }
        Step::Encapsulates => {
            // SAFETY: see above.
            unsafe { maps::PROGRAMS.tail_call(ctx, program::ENCAPSULATE) };
            Verdict::DropTables
        }
        Step::Icmp => {
            // SAFETY: see above.
            unsafe { maps::PROGRAMS.tail_call(ctx, V::ICMP) };
            Verdict::DropTables
        }
        Step::Limited => {
            // SAFETY: see above.
            unsafe { maps::PROGRAMS.tail_call(ctx, V::LIMITED) };
            Verdict::DropTables
        }
        Step::Challenged => {
            // SAFETY: see above.
            unsafe { maps::PROGRAMS.tail_call(ctx, program::CHALLENGE) };
            Verdict::DropTables
        }
        Step::Ipv6 => {
            // SAFETY: see above.
            unsafe { maps::PROGRAMS.tail_call(ctx, program::IPV6) };
            Verdict::PassNotOurs
        }
        Step::Lost(verdict) => {
            // SAFETY: see above.
            unsafe { maps::PROGRAMS.tail_call(ctx, V::RESET) };
            verdict
        }
        Step::Fragment => {
            // SAFETY: see above.
            unsafe { maps::PROGRAMS.tail_call(ctx, V::FRAGMENT) };
            Verdict::DropTables
        }
        Step::Unsent(verdict) => {
            // SAFETY: see above.
            unsafe { maps::PROGRAMS.tail_call(ctx, V::ERROR) };
            verdict
        }
    };
    end(ctx, tables, Routed { verdict, interface: 0 })
}

/// Counts the end of a packet's journey, and says what the kernel is to do with it.
#[inline(always)]
fn end<V>(ctx: &XdpContext, tables: &MapTables<V>, routed: Routed) -> u32 {
    tables.count_verdict(routed.verdict);
    let action = action(ctx, &routed);
    if capture::is_on() {
        capture::note_end(&routed, action);
        // SAFETY: nothing is held that would have to be dropped. It returns only if no program is
        // there, and then nothing is captured.
        unsafe { maps::PROGRAMS.tail_call(ctx, program::CAPTURE) };
    }
    action
}

#[inline(always)]
fn action(ctx: &XdpContext, routed: &Routed) -> u32 {
    match routed.verdict {
        Verdict::PassNotOurs | Verdict::PassToProxy | Verdict::PassNotIp => XDP_PASS,
        Verdict::ForwardIn | Verdict::ForwardOut | Verdict::ForwardError => {
            if routed.interface == ctx.ingress_ifindex() as u32 {
                XDP_TX
            } else {
                tables::redirect(routed.interface)
            }
        }
        // Not XDP_TX: a virtual card (veth) wakes its peer for that only if the peer has a program of
        // its own, and what is answered here is rare.
        Verdict::ResetLost
        | Verdict::SynChallenged
        | Verdict::EchoAnswered
        | Verdict::TooBigAnswered
        | Verdict::TtlAnswered => tables::redirect(ctx.ingress_ifindex() as u32),
        _ => XDP_DROP,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here can panic: a program that could would hold this loop, and the verifier would
    // refuse it.
    loop {}
}

/// `bpf_fib_lookup` is for programs under the GPL alone (`gpl_only` in `net/core/filter.c`).
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
