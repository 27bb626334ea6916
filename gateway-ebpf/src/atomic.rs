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

/// Flips bits of a word.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn fetch_xor(word: *mut u64, bits: u64) {
    // SAFETY: by the caller's promise the word may be written.
    unsafe {
        asm!(
            "{bits} = atomic_fetch_xor((u64 *)({word} + 0), {bits})",
            bits = inout(reg) bits => _,
            word = in(reg) word,
            options(nostack),
        );
    }
}

/// Writes a word if it is `from`, and returns what it was before.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, from: u64, to: u64) -> u64 {
    let before;
    // SAFETY: by the caller's promise the word may be written.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {to})",
            inout("r0") from => before,
            word = in(reg) word,
            to = in(reg) to,
            options(nostack),
        );
    }
    before
}
