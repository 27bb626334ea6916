//! The XDP entry point. Every decision is `gateway_common::route`'s; here its verdict becomes an
//! action and is counted.

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
use gateway_common::route::{Routed, route};
use gateway_common::verdict::Verdict;

use crate::cursor::XdpFrame;
use crate::tables::MapTables;

/// Steers one packet. Attached to every interface that clients or backends are behind.
///
/// Inlined into what the macro makes of it, since the name of a function of its own would depend on
/// where the source lies, and objects built elsewhere would differ.
#[xdp]
#[inline(always)]
pub fn gateway(ctx: XdpContext) -> u32 {
    let tables = MapTables::new(&ctx);
    let routed = route(&XdpFrame::new(&ctx), &tables);
    tables.count_verdict(routed.verdict);
    if routed.verdict as u32 == Verdict::DropTables as u32 {
        // A daemon is at work, or its plan was wrong. Off unless the loader raises the level.
        debug!(&ctx, "the tables contradict each other; interface {}", ctx.ingress_ifindex());
    }
    action(&ctx, routed)
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
