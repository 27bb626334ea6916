//! The compiled XDP programs, part of the daemon itself: `cargo xtask ebpf` builds them from
//! `gateway-ebpf`, and `cargo xtask ebpf --check` proves that it did.

/// The object file, aligned as its parser wants it.
pub static BYTES: &[u8] = aya::include_bytes_aligned!("../../../gateway-ebpf/gateway.bpf.o");

/// That of the programs for backends, aligned likewise.
pub static DECAP: &[u8] = aya::include_bytes_aligned!("../../../gateway-ebpf/gateway-decap.bpf.o");
