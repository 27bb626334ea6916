//! Atomic operations that `core` does not offer for BPF, since the target has no compare-and-swap
//! in its oldest version. These instructions are in BPF's version 3 (Linux 5.12).

use core::arch::asm;

/// Adds to a word and returns what it was before.
///
/// # Safety
///
/// `word` points to a live map value and is aligned to 8.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, more: u64) -> u64 {
    let mut value = more;
    // SAFETY: by the caller's promise the word may be written.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            value = inout(reg) value,
            word = in(reg) word,
            options(nostack),
        );
    }
    value
}

/// Sets bits of a word and returns what it was before.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn fetch_or(word: *mut u64, bits: u64) -> u64 {
    let mut value = bits;
    // SAFETY: by the caller's promise the word may be written.
    unsafe {
        asm!(
            "{value} = atomic_fetch_or((u64 *)({word} + 0), {value})",
            value = inout(reg) value,
            word = in(reg) word,
            options(nostack),
        );
    }
    value
}
