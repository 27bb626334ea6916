//! Packet memory as a [`Frame`].
//!
//! The verifier wants every access to be through the very register whose sum with a length was
//! compared with `data_end`, and it follows no sums that the compiler took apart. So sums and
//! accesses are written in assembly, one instruction each, and the compiler sees only their
//! results.

use core::arch::asm;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::programs::XdpContext;
use gateway_common::packet::{Bytes, Frame};

/// The packet of one run, from `data` to `data_end`.
pub struct XdpFrame {
    data: usize,
    end: usize,
}

impl XdpFrame {
    /// The packet of this run.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> XdpFrame {
        XdpFrame { data: ctx.data(), end: ctx.data_end() }
    }
}

/// Moves the start of the packet by so many bytes: below zero makes room before it, above takes bytes
/// off. `None` if there is no room, or the packet is shorter. Frames made before are not to be used
/// any more, and the verifier sees to that; make another.
#[inline(always)]
pub fn move_start(ctx: &XdpContext, bytes: i32) -> Option<()> {
    // SAFETY: the context is this run's.
    let refused = unsafe { bpf_xdp_adjust_head(ctx.as_ptr().cast(), bytes) };
    (refused == 0).then_some(())
}

impl Frame for XdpFrame {
    type Bytes<const N: usize> = XdpBytes<N>;

    #[inline(always)]
    fn size(&self) -> usize {
        self.end - self.data
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<XdpBytes<N>> {
        let mut start = self.data;
        // SAFETY: adds, and touches no memory.
        unsafe {
            asm!(
                "{start} += {offset}",
                start = inout(reg) start,
                offset = in(reg) offset,
                options(pure, nomem, nostack),
            );
        }
        (start + N <= self.end).then_some(XdpBytes { start })
    }
}

/// `N` bytes of the packet, whose end was compared with `data_end` when they were made. The packet
/// stays where it is until [`move_start`] is called, after which the verifier accepts no access.
#[derive(Clone, Copy)]
pub struct XdpBytes<const N: usize> {
    start: usize,
}

impl<const N: usize> Bytes for XdpBytes<N> {
    #[inline(always)]
    fn two<const AT: usize>(self) -> [u8; 2] {
        const { assert!(AT + 2 <= N) };
        let word: u64;
        // SAFETY: reads bytes AT and AT + 1 of the N that are known to be there.
        unsafe {
            asm!(
                "{word} = *(u16 *)({start} + {at})",
                word = out(reg) word,
                start = in(reg) self.start,
                at = const AT,
                options(readonly, nostack),
            );
        }
        (word as u16).to_ne_bytes()
    }

    #[inline(always)]
    fn four<const AT: usize>(self) -> [u8; 4] {
        const { assert!(AT + 4 <= N) };
        let word: u64;
        // SAFETY: reads bytes AT to AT + 3 of the N that are known to be there.
        unsafe {
            asm!(
                "{word} = *(u32 *)({start} + {at})",
                word = out(reg) word,
                start = in(reg) self.start,
                at = const AT,
                options(readonly, nostack),
            );
        }
        (word as u32).to_ne_bytes()
    }

    #[inline(always)]
    fn set_two<const AT: usize>(self, bytes: [u8; 2]) {
        const { assert!(AT + 2 <= N) };
        // SAFETY: writes bytes AT and AT + 1 of the N that are known to be there, which no
        // reference points to.
        unsafe {
            asm!(
                "*(u16 *)({start} + {at}) = {word}",
                word = in(reg) u16::from_ne_bytes(bytes) as u64,
                start = in(reg) self.start,
                at = const AT,
                options(nostack),
            );
        }
    }

    #[inline(always)]
    fn set_four<const AT: usize>(self, bytes: [u8; 4]) {
        const { assert!(AT + 4 <= N) };
        // SAFETY: writes bytes AT to AT + 3 of the N that are known to be there, which no
        // reference points to.
        unsafe {
            asm!(
                "*(u32 *)({start} + {at}) = {word}",
                word = in(reg) u32::from_ne_bytes(bytes) as u64,
                start = in(reg) self.start,
                at = const AT,
                options(nostack),
            );
        }
    }
}
