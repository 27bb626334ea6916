//! The few commands of bpf(2) that aya does not offer, fenced: batch look-ups, taking an entry out
//! of a hash, and detaching a link at once.

use std::ffi::CString;
use std::io;
use std::marker::PhantomData;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::maps::{MapData, MapError};
use bytemuck::{Pod, Zeroable};

// `enum bpf_cmd` of the kernel's include/uapi/linux/bpf.h.
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_long = 21;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_DETACH: libc::c_long = 34;

/// Entries asked for at once: 80 KiB of flows, half a millisecond.
const BATCH: usize = 1_024;

/// Members of `union bpf_attr`; the kernel takes shorter ones and reads the rest as zero.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct IdAttr {
    start_id: u32,
    next_id: u32,
    open_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkAttr {
    link_fd: u32,
}

/// # Safety
///
/// Addresses in `attr` must be those that `command` reads and writes, valid for as many bytes as
/// the map named in it makes the kernel copy.
unsafe fn bpf<A: Pod>(command: libc::c_long, attr: &mut A) -> io::Result<i32> {
    let attr = bytemuck::bytes_of_mut(attr);
    // SAFETY: the kernel reads and writes at most `attr.len()` bytes of `attr`, which is borrowed
    // mutably; the caller answers for the addresses in it.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), attr.len()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer as i32) }
}

/// Whether the kernel offers BPF to this thread at all.
pub(super) fn probe() -> io::Result<()> {
    let mut attr = IdAttr { start_id: 0, next_id: 0, open_flags: 0 };
    // SAFETY: this command has no addresses.
    match unsafe { bpf(BPF_PROG_GET_NEXT_ID, &mut attr) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        // No program loaded yet is an answer too.
        _ => Ok(()),
    }
}

/// Detaches the link pinned at `path` from its interface, at once. Removing the pin alone would do
/// so only when the kernel gets round to it, and whoever starts next would find the old program.
pub(super) fn detach_link(path: &Path) -> io::Result<()> {
    let link = open_pin(path)?;
    let mut attr = LinkAttr { link_fd: link.as_raw_fd() as u32 };
    // SAFETY: this command has no addresses.
    unsafe { bpf(BPF_LINK_DETACH, &mut attr) }.map(drop)
}

fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjectAttr { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the one address is that of a string with its terminating zero, alive until the end.
    let fd = unsafe { bpf(BPF_OBJ_GET, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A hash of the kernel, walked and changed by whole batches. Its key and value sizes were compared
/// with `K` and `V`, which every command below relies on.
pub(super) struct KernelHash<K, V> {
    map: MapData,
    layout: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> KernelHash<K, V> {
    /// The hash `map`, if its sizes are those of `K` and `V`.
    pub(super) fn new(map: MapData) -> Result<KernelHash<K, V>, MapError> {
        let info = map.info()?;
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        if key != size_of::<K>() {
            return Err(MapError::InvalidKeySize { size: size_of::<K>(), expected: key });
        }
        if value != size_of::<V>() {
            return Err(MapError::InvalidValueSize { size: size_of::<V>(), expected: value });
        }
        Ok(KernelHash { map, layout: PhantomData })
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &K) -> io::Result<Option<V>> {
        self.element(BPF_MAP_LOOKUP_ELEM, key)
    }

    /// Removes a key and returns the value it had at that moment.
    pub(super) fn take(&self, key: &K) -> io::Result<Option<V>> {
        self.element(BPF_MAP_LOOKUP_AND_DELETE_ELEM, key)
    }

    fn element(&self, command: libc::c_long, key: &K) -> io::Result<Option<V>> {
        let mut value = V::zeroed();
        let mut attr = ElementAttr {
            map_fd: self.fd().as_raw_fd() as u32,
            reserved: 0,
            key: std::ptr::from_ref(key) as u64,
            value: std::ptr::from_mut(&mut value) as u64,
            flags: 0,
        };
        // SAFETY: `key` and `value` are as large as the map's, which `new` compared.
        match unsafe { bpf(command, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Appends the entries of the next buckets to `into`. Each entry that stays is seen exactly
    /// once in a walk, since these tables never resize.
    pub(super) fn next_batch(&self, walk: &mut Walk, into: &mut Vec<(K, V)>) -> io::Result<()> {
        let mut room = BATCH;
        loop {
            match self.batch_of(room, walk, into) {
                // One bucket holds more than there is room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
                answer => return answer,
            }
        }
    }

    fn batch_of(&self, room: usize, walk: &mut Walk, into: &mut Vec<(K, V)>) -> io::Result<()> {
        let mut keys = vec![K::zeroed(); room];
        let mut values = vec![V::zeroed(); room];
        let from = walk.bucket;
        let mut next = 0_u32;
        let mut attr = BatchAttr {
            in_batch: from.as_ref().map_or(0, |bucket| std::ptr::from_ref(bucket) as u64),
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            map_fd: self.fd().as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: `keys` and `values` hold `count` entries of the map's sizes, which `new`
        // compared; hashes keep their place in 4 bytes (kernel/bpf/hashtab.c,
        // `__htab_map_lookup_and_delete_batch`).
        let answer = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
        walk.ended = match answer {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        walk.bucket = Some(next);
        into.extend(keys.into_iter().zip(values).take(attr.count as usize));
        Ok(())
    }
}

/// How far a walk through a hash has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Walk {
    /// Next bucket; `None`: from the start.
    pub(super) bucket: Option<u32>,
    /// Whether all buckets were seen.
    pub(super) ended: bool,
}
