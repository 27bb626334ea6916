//! The compiled XDP program, part of the daemon itself: `cargo xtask ebpf` builds it from
//! `gateway-ebpf`, and `cargo xtask ebpf --check` proves that it was.

/// The object file, aligned as its parser wants it.
pub static BYTES: &[u8] = aya::include_bytes_aligned!("../../../gateway-ebpf/gateway.bpf.o");
