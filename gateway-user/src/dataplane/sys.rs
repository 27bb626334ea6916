//! The few commands of bpf(2) that aya does not offer, fenced: whether there is BPF, and detaching a
//! link at once.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

// `enum bpf_cmd` of the kernel's include/uapi/linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_LINK_DETACH: libc::c_long = 34;

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
