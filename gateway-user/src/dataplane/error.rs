//! What can keep the data plane from running, each with what to try.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::maps::perf::PerfBufferError;
use aya::programs::ProgramError;
use gateway_common::layout::LAYOUT_VERSION;
use gateway_common::limits::DECAP_SOURCES_MAX;
use thiserror::Error;

use super::host::KernelVersion;
use super::rehearsal::FRAME_MAX;

/// Why the data plane could not be opened, read, written or removed.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// The process lacks privileges.
    #[error(
        "handling BPF programs needs {missing}, which this process does not have; \
         run it as root, or grant them (systemd: `AmbientCapabilities={missing}`)"
    )]
    MissingCapabilities {
        /// `CAP_…` names, separated by spaces.
        missing: String,
    },

    /// The kernel lacks what the program and its maps use.
    #[error("the kernel is {found}, but the data plane needs at least {needed}; boot a newer one")]
    KernelTooOld {
        /// Version that runs.
        found: KernelVersion,
        /// Oldest version that has everything.
        needed: KernelVersion,
    },

    /// The kernel calls itself by something that is no version.
    #[error("the kernel's release {release:?} does not begin with a version such as 6.12")]
    KernelUnknown {
        /// As `uname -r` shows it.
        release: String,
    },

    /// Two captures would take each other's packets.
    #[error(
        "somebody captures packets of this data plane already; wait for that to end (3 seconds at \
         most after it was killed)"
    )]
    CaptureTaken,

    /// A buffer that captured packets come through.
    #[error("cannot open a buffer for captured packets; it takes 2 MiB of each CPU")]
    CaptureBuffer {
        /// What the kernel answered.
        source: PerfBufferError,
    },

    /// The kernel does not let this process use BPF, whatever its capabilities.
    #[error("the kernel refuses the bpf system call, though capabilities suffice; {}", bpf_remedy(.source))]
    BpfUnavailable {
        /// What it answered.
        source: io::Error,
    },

    /// The pin directory is not where maps can be pinned.
    #[error(
        "{pin_dir}: not on a BPF file system; choose a directory under /sys/fs/bpf, or mount one \
         there: `mount -t bpf bpf {mount_point}`", pin_dir = pin_dir.display(),
        mount_point = mount_point.display()
    )]
    NotBpffs {
        /// Where maps were to be pinned.
        pin_dir: PathBuf,
        /// The existing directory above it.
        mount_point: PathBuf,
    },

    /// A file or directory on the BPF file system could not be used.
    #[error("{path}: could not {action}", path = path.display())]
    Pin {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },

    /// Another process holds the pin directory.
    #[error(
        "{pin_dir}: another gateway is using it; stop that one, or give this one a `pin_dir` of \
         its own", pin_dir = pin_dir.display()
    )]
    InUse {
        /// The directory.
        pin_dir: PathBuf,
    },

    /// No interface was named.
    #[error("no interface to attach to; name at least one, of: {known}")]
    NoInterface {
        /// Those that exist, separated by commas.
        known: String,
    },

    /// A configured interface does not exist.
    #[error("{interface}: there is no such interface; there are: {known}")]
    InterfaceUnknown {
        /// As configured.
        interface: String,
        /// Those that exist, separated by commas.
        known: String,
    },

    /// The kernel did not say which interfaces exist.
    #[error("could not ask the kernel for its interfaces")]
    InterfaceQuery {
        /// What it answered.
        source: io::Error,
    },

    /// Somebody else's program runs on the interface.
    #[error(
        "{interface}: the XDP program {program:?} (id {id}) is already attached and is not this \
         gateway's; if nobody needs it: `ip link set dev {interface} xdp off`"
    )]
    ForeignProgram {
        /// The interface.
        interface: String,
        /// The program's name in the kernel.
        program: String,
        /// Its id, as `bpftool prog show id` takes it.
        id: u32,
    },

    /// The driver cannot run XDP itself.
    #[error(
        "{interface}: the driver refused native XDP; `xdp_mode = \"generic\"` works, more slowly"
    )]
    NativeModeRefused {
        /// The interface.
        interface: String,
        /// What the kernel answered.
        source: ProgramError,
    },

    /// The program could not be attached.
    #[error("{interface}: could not attach the XDP program")]
    Attach {
        /// The interface.
        interface: String,
        /// What the kernel answered.
        source: ProgramError,
    },

    /// A program attached without a link cannot be pinned.
    #[error(
        "{interface}: the kernel gave no link for the XDP program, so it could not outlive the \
         daemon; nothing was left attached"
    )]
    NoLink {
        /// The interface.
        interface: String,
    },

    /// The kernel's forwarding is off, and the program's next-hop look-up obeys it.
    #[error(
        "{interface}: IPv4 forwarding is off, so every packet would be dropped; turn it on: \
         `sysctl -w net/ipv4/conf/{interface}/forwarding=1`"
    )]
    ForwardingOff {
        /// The interface.
        interface: String,
    },

    /// The range of source ports is empty or contains port 0.
    #[error(
        "nat_ports {first}-{last} is no range of ports; the default is 10000-32767",
        first = nat_ports.start(), last = nat_ports.end()
    )]
    NatPortsInvalid {
        /// As configured.
        nat_ports: RangeInclusive<u16>,
    },

    /// The host would hand out the gateway's source ports to its own connections.
    #[error(
        "nat_ports {first}-{last} overlaps the ports of the host's own connections \
         ({local_first}-{local_last}); choose others, or reserve them: \
         `sysctl -w net.ipv4.ip_local_reserved_ports={first}-{last}`",
        first = nat_ports.start(), last = nat_ports.end(),
        local_first = local_ports.start(), local_last = local_ports.end()
    )]
    NatPortsOverlap {
        /// As configured.
        nat_ports: RangeInclusive<u16>,
        /// `net.ipv4.ip_local_port_range`.
        local_ports: RangeInclusive<u16>,
    },

    /// The flow table's size makes no sense.
    #[error(
        "flows_max is {flows_max}; it must be a power of two from 64 to 16777216, and 262144 is the default"
    )]
    FlowsMaxInvalid {
        /// As configured.
        flows_max: u32,
    },

    /// More prefixes than the program has room for.
    #[error(
        "{count} prefixes may send packets here, but there is room for {DECAP_SOURCES_MAX}; join \
         some to shorter ones"
    )]
    TooManySources {
        /// As given.
        count: usize,
    },

    /// A kernel setting could not be read.
    #[error("{path}: could not read this kernel setting", path = path.display())]
    Sysctl {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// The random seed could not be drawn.
    #[error("/dev/urandom: could not draw a seed for the flow hash")]
    Seed {
        /// Why.
        source: io::Error,
    },

    /// The embedded BPF object cannot be understood.
    #[error("the embedded BPF object is corrupt; rebuild it: `cargo xtask ebpf`")]
    CorruptObject {
        /// What is wrong with it.
        source: EbpfError,
    },

    /// The embedded BPF object was built from other sources.
    #[error(
        "the embedded BPF object does not fit this daemon ({what}); rebuild both: \
         `cargo xtask ebpf`, then `cargo build`"
    )]
    ForeignObject {
        /// What is missing or differs.
        what: String,
    },

    /// Maps could not be made or the object not be prepared.
    #[error("could not make the data plane's maps")]
    Load {
        /// Why.
        source: EbpfError,
    },

    /// The kernel's verifier did not accept the program.
    #[error("the kernel did not accept the XDP program; please report its log, which follows")]
    Rejected {
        /// The verifier's words.
        source: ProgramError,
    },

    /// The pinned maps are of another version and in use.
    #[error(
        "{pin_dir}: its maps have layout {found}, this gateway reads layout {LAYOUT_VERSION}, and \
         its program is still forwarding; remove both (connections through it end): \
         `gateway detach`, then start again", pin_dir = pin_dir.display()
    )]
    OtherLayout {
        /// Where they are pinned.
        pin_dir: PathBuf,
        /// Their version.
        found: u32,
    },

    /// The pinned flow table has another size.
    #[error(
        "{pin_dir}: flows_max was {pinned} when these flow tables were made and is {wanted} now; \
         set it back to keep live flows, or remove the tables (connections through the gateway \
         end): `gateway detach`, then start again", pin_dir = pin_dir.display()
    )]
    FlowsMaxChanged {
        /// Where it is pinned.
        pin_dir: PathBuf,
        /// Its size.
        pinned: u32,
        /// As configured.
        wanted: u32,
    },

    /// A map in the pin directory is not ours, or only half of ours are there.
    #[error(
        "{path}: {what}, while a program is still forwarding by it; remove both: \
         `gateway detach`, then start again", path = path.display()
    )]
    ForeignMap {
        /// The pin.
        path: PathBuf,
        /// What differs.
        what: String,
    },

    /// There is no data plane to look at.
    #[error(
        "{pin_dir}: no data plane is pinned here; say where it is by `--config FILE` or \
         `--pin-dir DIR`", pin_dir = pin_dir.display()
    )]
    NothingPinned {
        /// Where it was looked for.
        pin_dir: PathBuf,
    },

    /// The pinned maps are not those that this program reads.
    #[error(
        "{path}: {what}; ask with the `gateway` that made these maps", path = path.display()
    )]
    UnknownMap {
        /// The pin.
        path: PathBuf,
        /// What differs.
        what: String,
    },

    /// A packet that cannot be rehearsed.
    #[error(
        "a frame of {len} bytes cannot be tried out: the kernel takes 14 to {FRAME_MAX}; capture \
         shorter packets (`tcpdump` before segments are joined: `ethtool -K IF gro off`)"
    )]
    FrameLen {
        /// Its length with the Ethernet header.
        len: usize,
    },

    /// The kernel did not run the program for a rehearsal.
    #[error(
        "the kernel did not run the program for a frame of {len} bytes that comes in by \
         {interface}; is the gateway's program attached there?"
    )]
    Rehearsal {
        /// Length of the frame.
        len: usize,
        /// The interface.
        interface: String,
        /// What it answered.
        source: ProgramError,
    },

    /// Packets of an address do not come in where the gateway is.
    #[error(
        "the kernel reaches {addr} by {by}, where the gateway is not attached; say by \
         `--interface` where its packets come in: {attached}"
    )]
    NoIngress {
        /// The address.
        addr: IpAddr,
        /// Name of the interface, or that there is none.
        by: String,
        /// Those that the gateway is attached to.
        attached: String,
    },

    /// The program runs nowhere.
    #[error(
        "{pin_dir}: the gateway's program is attached to no interface, so it does nothing with any \
         packet; `gateway run` attaches it", pin_dir = pin_dir.display()
    )]
    NotAttached {
        /// Where its links would be pinned.
        pin_dir: PathBuf,
    },

    /// The kernel did not say by which interface it reaches an address.
    #[error("could not ask the kernel for its route to {addr}")]
    RouteQuery {
        /// The address.
        addr: IpAddr,
        /// What it answered.
        source: io::Error,
    },

    /// A map could not be read.
    #[error("could not read the map {map}")]
    Read {
        /// The map's name.
        map: &'static str,
        /// Why.
        source: MapError,
    },

    /// A map could not be written.
    #[error("could not write {write}")]
    Write {
        /// Which write.
        write: String,
        /// Why.
        source: MapError,
    },

    /// A write names a row that does not exist.
    #[error("could not write {write}: there is no such row")]
    NoSuchRow {
        /// Which write.
        write: String,
    },

    /// A map could not be mapped into memory.
    #[error("could not map {map} into memory")]
    Mmap {
        /// The map's name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },

    /// The event ring has been taken already.
    #[error("the flow events are being read already")]
    EventsTaken,

    /// The guard's lists have been taken already.
    #[error("the guard's lists are being written already")]
    GuardTaken,

    /// The event ring could not be watched.
    #[error("could not watch the ring of flow events")]
    Events {
        /// Why.
        source: io::Error,
    },
}

/// Who refuses bpf(2), by how: the kernel itself answers `ENOSYS`, as some filters do, and `EPERM`
/// never to who has the capabilities.
fn bpf_remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOSYS) => {
            "either it is built without CONFIG_BPF_SYSCALL, or a seccomp filter hides the call: \
             allow it (systemd: `SystemCallFilter=bpf`; containers: their seccomp profile)"
        }
        _ => {
            "a seccomp filter or a security module forbids it: allow it (systemd: \
             `SystemCallFilter=bpf`; containers: their seccomp profile), or see `dmesg` for what \
             a security module denied"
        }
    }
}
