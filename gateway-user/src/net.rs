//! What the shells that open connections share.

use std::io;

/// Whether the gateway itself is out of something that a connection needs (files, ports, memory),
/// which says nothing of the peer.
pub(crate) fn is_own_lack(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL)
    )
}
