//! An array map's memory as atomic words: the one place that holds a raw pointer to it.

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

/// The rows of a `BPF_F_MMAPABLE` array, shared with the kernel.
///
/// Only as atomic words, since XDP programs and other processes change them at any moment; a plain
/// reference would promise that nobody does.
#[derive(Debug)]
pub(super) struct MappedArray {
    words: NonNull<AtomicU64>,
    len: usize,
}

impl MappedArray {
    /// Maps `words` 64-bit words of the array `map`, from its start.
    pub(super) fn new(map: impl AsFd, words: usize) -> io::Result<MappedArray> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing one, and
        // nothing refers to it yet. That the array is as long as asked is checked by the kernel
        // (kernel/bpf/arraymap.c, `array_map_mmap`).
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                words * size_of::<AtomicU64>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                0,
            )
        }?;
        let words_start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(MappedArray { words: words_start, len: words })
    }

    /// All words of the array.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is this long, page-aligned, and lives until `drop`, which needs this
        // `&self` to have ended; every access to shared words is atomic.
        unsafe { NonNull::slice_from_raw_parts(self.words, self.len).as_ref() }
    }

    /// Writes each word of another array over the one in its place here.
    pub(super) fn copy(&self, other: &MappedArray) {
        for (to, from) in self.words().iter().zip(other.words()) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Word `index` of the array, or `None` outside it.
    pub(super) fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.words().get(index)
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<AtomicU64>();
        // SAFETY: `new` mapped exactly these bytes, and no reference into them outlives `self`.
        let unmapped = unsafe { rustix::mm::munmap(self.words.as_ptr().cast(), bytes) };
        debug_assert!(unmapped.is_ok(), "unmapping our own mapping: {unmapped:?}");
    }
}

// SAFETY: the mapping belongs to the process, not to a thread, and is reached only through atomics.
unsafe impl Send for MappedArray {}
// SAFETY: as above; `&MappedArray` gives out nothing but `&AtomicU64`.
unsafe impl Sync for MappedArray {}
