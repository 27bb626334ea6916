//! The few commands of bpf(2) that are not asked of aya, fenced: whether there is BPF, and detaching a
//! link at once.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

// `enum bpf_cmd` of the kernel's include/uapi/linux/bpf.h.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

// `enum bpf_map_type` there.
const BPF_MAP_TYPE_ARRAY: u32 = 2;

/// Members of `union bpf_attr`; the kernel takes shorter ones and reads the rest as zero.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ObjectAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MapAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
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

/// Whether the kernel offers BPF to this thread at all: makes a map, the least that anybody with
/// `CAP_BPF` may, and lets go of it.
pub(super) fn probe() -> io::Result<()> {
    let mut attr =
        MapAttr { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 4, max_entries: 1 };
    // SAFETY: this command has no addresses.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &mut attr) }?;
    // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
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
