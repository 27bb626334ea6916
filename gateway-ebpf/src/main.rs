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
mod cursor;
mod line;
mod maps;
mod tables;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use gateway_common::layout::program;
use gateway_common::route::{Routed, Step, arrive, open};
use gateway_common::verdict::Verdict;

use crate::cursor::XdpFrame;
use crate::tables::MapTables;

/// Steers one packet. Attached to every interface that clients or backends are behind.
///
/// Inlined into what the macro makes of it, since the name of a function of its own would depend on
/// where the source lies, and objects built elsewhere would differ. So are the others.
#[xdp]
#[inline(always)]
pub fn gateway(ctx: XdpContext) -> u32 {
    let tables = MapTables::new(&ctx);
    let routed = match arrive(&XdpFrame::new(&ctx), &tables) {
        Step::Ended(routed) => routed,
        Step::Opens => {
            // SAFETY: nothing is held that would have to be dropped. It returns only if no program
            // is there.
            unsafe { maps::PROGRAMS.tail_call(&ctx, program::OPEN) };
            Routed { verdict: Verdict::DropTables, interface: 0 }
        }
    };
    end(&ctx, &tables, routed)
}

/// Goes on where a flow begins.
#[xdp]
#[inline(always)]
pub fn gateway_open(ctx: XdpContext) -> u32 {
    let tables = MapTables::new(&ctx);
    let routed = open(&XdpFrame::new(&ctx), &tables);
    if routed.verdict as u32 == Verdict::DropTables as u32 {
        // A daemon is at work, or its plan was wrong. Off unless the loader raises the level.
        debug!(&ctx, "the tables contradict each other; interface {}", ctx.ingress_ifindex());
    }
    end(&ctx, &tables, routed)
}

/// Counts the end of a packet's journey, and says what the kernel is to do with it.
#[inline(always)]
fn end(ctx: &XdpContext, tables: &MapTables, routed: Routed) -> u32 {
    tables.count_verdict(routed.verdict);
    action(ctx, routed)
}

#[inline(always)]
fn action(ctx: &XdpContext, routed: Routed) -> u32 {
    match routed.verdict {
        Verdict::PassNotOurs | Verdict::PassToProxy | Verdict::PassNotIpv4 => XDP_PASS,
        Verdict::ForwardIn | Verdict::ForwardOut => {
            if routed.interface == ctx.ingress_ifindex() as u32 {
                XDP_TX
            } else {
                tables::redirect(routed.interface)
            }
        }
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
