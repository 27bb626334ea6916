//! What `cargo xtask bench packet` runs around the program under test.
//!
//! BPF_PROG_TEST_RUN does not reset a packet between its repeats, so a program that rewrites its
//! packet would be timed on its own output. This wrapper restores the packet, makes it one of the
//! next flow, and tail-calls the program; an empty one in its place gives the cost of the wrapper. What
//! the program put before its packet is taken off, too, at a cost that counts as the program's.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "../cursor.rs"]
mod cursor;

use core::hint::black_box;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use gateway_common::hash::mix;
use gateway_common::packet::{Bytes, Frame};
use gateway_common::variation::{RESTORED_LEN, Variation};

use crate::cursor::XdpFrame;

/// One row: what is run.
#[btf_map(name = "VARIATION")]
pub static VARIATION: Array<Variation, 1> = Array::new();
/// One row: the program under test, or `nothing`.
#[btf_map(name = "PROGRAMS")]
pub static PROGRAMS: ProgramArray<1> = ProgramArray::new();

/// Restores the packet, varies it, and goes on in the program under test.
#[xdp]
pub fn wrapper(ctx: XdpContext) -> u32 {
    if vary(&ctx).is_some() {
        // SAFETY: nothing is held that would have to be dropped. It returns only if no program is
        // there.
        unsafe { PROGRAMS.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

/// What an empty program costs.
#[xdp]
pub fn nothing(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

#[inline(always)]
fn vary(ctx: &XdpContext) -> Option<()> {
    let variation = VARIATION.get_ptr_mut(0)?;
    // SAFETY: the row of an array map; only this program writes it, on the one CPU of the run.
    let variation = unsafe { &mut *variation };
    let run = variation.run;
    variation.run = run.wrapping_add(1);
    let number = if variation.scattered != 0 { mix(run) } else { run };
    let (source, port) = variation.flow((number & variation.flows_mask) as u32);

    // Hidden, or the compiler would subtract from a pointer what the verifier knows no bounds of.
    let size = black_box(XdpFrame::new(ctx).size()) as u64;
    let grown = size.wrapping_sub(variation.len);
    if grown != 0 {
        cursor::move_start(ctx, grown as i32)?;
    }
    let packet = XdpFrame::new(ctx).bytes::<RESTORED_LEN>(0)?;
    macro_rules! restore {
        ($($word:literal)*) => { $(packet.set_four::<{ 4 * $word }>(variation.packet[$word]);)* };
    }
    restore!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18);
    if variation.is_ipv6 != 0 {
        packet.set_four::<34>(source);
        packet.set_two::<56>(port);
    } else {
        packet.set_four::<26>(source);
        packet.set_two::<36>(port);
    }
    Some(())
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel wants a licence named.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
