//! What `gateway decap` runs at a backend: it takes the headers off that a gateway put before its
//! clients' packets, and hands these to the host.
//!
//! An object of its own, since a backend needs none of the gateway's maps.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[path = "../cursor.rs"]
mod cursor;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{LpmTrie, PerCpuArray};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use gateway_common::layout::mode;
use gateway_common::limits::DECAP_SOURCES_MAX;
use gateway_common::tunnel::{self, OUTCOMES_LEN, Outcome, carry, unwrap};

use crate::cursor::XdpFrame;

/// Who may send packets in packets here, by prefix.
#[btf_map(name = "SOURCES")]
pub static SOURCES: LpmTrie<[u8; 4], u32, { DECAP_SOURCES_MAX as usize }> = LpmTrie::new();
/// The same of IPv6.
#[btf_map(name = "SOURCES6")]
pub static SOURCES6: LpmTrie<[u8; 16], u32, { DECAP_SOURCES_MAX as usize }> = LpmTrie::new();
/// Frames by [`Outcome`].
#[btf_map(name = "OUTCOMES")]
pub static OUTCOMES: PerCpuArray<u64, { OUTCOMES_LEN as usize }> = PerCpuArray::new();

/// Takes IP in IP apart.
#[xdp]
#[inline(always)]
pub fn decap_ipip(ctx: XdpContext) -> u32 {
    end(decap(&ctx, mode::DSR_IPIP))
}

/// Takes IP in GUE apart.
#[xdp]
#[inline(always)]
pub fn decap_gue(ctx: XdpContext) -> u32 {
    end(decap(&ctx, mode::DSR_GUE))
}

/// The maps as who may send.
struct Sources;

impl tunnel::Sources for Sources {
    #[inline(always)]
    fn allow(&self, source: [u8; 4]) -> bool {
        SOURCES.get(&Key::new(32, source)).is_some()
    }

    #[inline(always)]
    fn allow6(&self, source: [u8; 16]) -> bool {
        SOURCES6.get(&Key::new(128, source)).is_some()
    }
}

#[inline(always)]
fn decap(ctx: &XdpContext, mode: u16) -> Outcome {
    let frame = XdpFrame::new(ctx);
    let inner = match unwrap(&frame, mode, &Sources) {
        Ok(inner) => inner,
        Err(outcome) => return outcome,
    };
    let taken_off =
        carry(&frame, &inner).and_then(|()| cursor::move_start(ctx, inner.overhead as i32));
    if taken_off.is_some() { Outcome::Unwrapped } else { Outcome::DropMalformed }
}

#[inline(always)]
fn end(outcome: Outcome) -> u32 {
    if let Some(count) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: the map holds this row for this CPU alone, and XDP does not preempt itself.
        unsafe { *count += 1 };
    }
    match outcome {
        Outcome::Unwrapped | Outcome::PassOther => XDP_PASS,
        Outcome::DropSource | Outcome::DropMalformed => XDP_DROP,
    }
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
