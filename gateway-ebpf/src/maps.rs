//! The maps. Names, keys and values are `gateway_common::layout`'s; limits its `limits`'.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_fib_lookup};
use aya_ebpf::btf_maps::{
    Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerfEventArray, ProgramArray, RingBuf,
};
use aya_ebpf::macros::btf_map;
use gateway_common::hop::{HopRow, HopRow6};
use gateway_common::layout::{
    Backend, Backend6, Buckets, CaptureFilter, Captured, ChallengeKeys, Flow, Flow6, FlowEvent,
    Fragment, Fragment6, FragmentKey, FragmentKey6, GuardCounts, Limits, Live, MaglevTable,
    Opening, Outer, Pool, PortKey, ProvenKey, Returns, Settings, Tags, Traffic, Unsent, Vip,
    VipKey, VipKey6, Weights, WideVip, program,
};
use gateway_common::limits;
use gateway_common::verdict::VERDICTS_LEN;

const BACKENDS: usize = limits::BACKENDS_MAX as usize;
/// The loader sets what is configured.
const FLOWS_DEFAULT: usize = limits::FLOWS_DEFAULT as usize;
/// The daemon maps the memory of these: the proxy shares every weight and count with XDP, and the
/// sweep walks the flows without system calls.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map(name = "VIPS")]
pub static VIPS: HashMap<VipKey, Vip, { limits::VIPS_MAX as usize }> = HashMap::new();
#[btf_map(name = "VIP_ADDRS")]
pub static VIP_ADDRS: HashMap<[u8; 4], u32, { limits::VIPS_MAX as usize }> = HashMap::new();
#[btf_map(name = "VIP_NETS")]
pub static VIP_NETS: LpmTrie<[u8; 4], u32, { limits::VIPS_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "VIP_PORTS")]
pub static VIP_PORTS: LpmTrie<PortKey, WideVip, { limits::VIP_PORTS_MAX as usize }> =
    LpmTrie::new();
#[btf_map(name = "POOLS")]
pub static POOLS: Array<Pool, { limits::POOLS_MAX as usize }> = Array::new();
#[btf_map(name = "MAGLEV")]
pub static MAGLEV: Array<MaglevTable, { limits::MAGLEV_TABLES as usize }> = Array::new();
#[btf_map(name = "BACKENDS")]
pub static BACKEND_ROWS: Array<Backend, BACKENDS> = Array::new();
#[btf_map(name = "WEIGHTS")]
pub static WEIGHTS: Array<Weights, BACKENDS, MMAPABLE> = Array::new();
#[btf_map(name = "LIVE")]
pub static LIVE: Array<Live, BACKENDS, MMAPABLE> = Array::new();
#[btf_map(name = "FLOWS")]
pub static FLOWS: Array<Flow, FLOWS_DEFAULT, MMAPABLE> = Array::new();
#[btf_map(name = "TAGS")]
pub static TAGS: Array<Tags, { FLOWS_DEFAULT / limits::FLOW_WAYS as usize }, MMAPABLE> =
    Array::new();
#[btf_map(name = "RETURNS")]
pub static RETURNS: Array<
    Returns,
    { FLOWS_DEFAULT / limits::FLOWS_PER_RETURNS as usize },
    MMAPABLE,
> = Array::new();
#[btf_map(name = "HOPS")]
pub static HOPS: PerCpuArray<HopRow, { limits::HOPS_MAX as usize }> = PerCpuArray::new();
/// Where a question to the kernel's routes is put: the stack has no room for it.
#[btf_map(name = "ROUTE")]
pub static ROUTE: PerCpuArray<bpf_fib_lookup, 1> = PerCpuArray::new();
#[btf_map(name = "CLIENT_CLASSES")]
pub static CLIENT_CLASSES: LpmTrie<[u8; 4], u32, { limits::CLIENT_PREFIXES_MAX as usize }> =
    LpmTrie::new();
#[btf_map(name = "DENY")]
pub static DENY: LpmTrie<[u8; 4], u32, { limits::GUARD_PREFIXES_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "ALLOW")]
pub static ALLOW: LpmTrie<[u8; 4], u32, { limits::GUARD_PREFIXES_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "LIMITS")]
pub static LIMITS: Array<Limits, { limits::VIPS_MAX as usize }> = Array::new();
#[btf_map(name = "BUCKETS")]
pub static BUCKETS: Array<Buckets, { limits::BUCKET_LINES as usize }, MMAPABLE> = Array::new();
#[btf_map(name = "GUARD_COUNTS")]
pub static GUARD_COUNTS: PerCpuArray<GuardCounts, { limits::VIPS_MAX as usize }> =
    PerCpuArray::new();
#[btf_map(name = "CHALLENGE_KEYS")]
pub static CHALLENGE_KEYS: Array<ChallengeKeys, 1> = Array::new();
#[btf_map(name = "PROVEN")]
pub static PROVEN: LruHashMap<ProvenKey, u64, { limits::PROVEN_MAX as usize }> = LruHashMap::new();
#[btf_map(name = "SETTINGS")]
pub static SETTINGS: Array<Settings, 1> = Array::new();
#[btf_map(name = "EVENTS")]
pub static EVENTS: RingBuf<FlowEvent, { limits::EVENTS_BYTES as usize }> = RingBuf::new();
#[btf_map(name = "VIP_TRAFFIC")]
pub static VIP_TRAFFIC: PerCpuArray<Traffic, { limits::VIPS_MAX as usize }> = PerCpuArray::new();
#[btf_map(name = "BACKEND_TRAFFIC")]
pub static BACKEND_TRAFFIC: PerCpuArray<Traffic, BACKENDS> = PerCpuArray::new();
#[btf_map(name = "PROGRAMS")]
pub static PROGRAMS: ProgramArray<{ program::PROGRAMS_LEN as usize }> = ProgramArray::new();
#[btf_map(name = "OPENING")]
pub static OPENING: PerCpuArray<Opening, 1> = PerCpuArray::new();
#[btf_map(name = "OUTER")]
pub static OUTER: PerCpuArray<Outer, 1> = PerCpuArray::new();
#[btf_map(name = "CAPTURE")]
pub static CAPTURE: Array<CaptureFilter, 1> = Array::new();
/// What is known of the packet so far, while somebody captures.
#[btf_map(name = "CAPTURING")]
pub static CAPTURING: PerCpuArray<Captured, 1> = PerCpuArray::new();
#[btf_map(name = "CAPTURED")]
pub static CAPTURED: PerfEventArray = PerfEventArray::new();
#[btf_map(name = "UNSENT")]
pub static UNSENT: PerCpuArray<Unsent, 1> = PerCpuArray::new();
#[btf_map(name = "FRAGMENTS")]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { limits::FRAGMENTS_MAX as usize }> =
    LruHashMap::new();
#[btf_map(name = "VERDICTS")]
pub static VERDICTS: PerCpuArray<u64, { VERDICTS_LEN as usize }> = PerCpuArray::new();

#[btf_map(name = "VIPS6")]
pub static VIPS6: HashMap<VipKey6, Vip, { limits::VIPS_MAX as usize }> = HashMap::new();
#[btf_map(name = "VIP_ADDRS6")]
pub static VIP_ADDRS6: HashMap<[u8; 16], u32, { limits::VIPS_MAX as usize }> = HashMap::new();
#[btf_map(name = "VIP_NETS6")]
pub static VIP_NETS6: LpmTrie<[u8; 16], u32, { limits::VIPS_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "BACKENDS6")]
pub static BACKEND_ROWS6: Array<Backend6, BACKENDS> = Array::new();
#[btf_map(name = "FLOWS6")]
pub static FLOWS6: Array<Flow6, FLOWS_DEFAULT, MMAPABLE> = Array::new();
#[btf_map(name = "CLIENT_CLASSES6")]
pub static CLIENT_CLASSES6: LpmTrie<[u8; 16], u32, { limits::CLIENT_PREFIXES_MAX as usize }> =
    LpmTrie::new();
#[btf_map(name = "DENY6")]
pub static DENY6: LpmTrie<[u8; 16], u32, { limits::GUARD_PREFIXES_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "ALLOW6")]
pub static ALLOW6: LpmTrie<[u8; 16], u32, { limits::GUARD_PREFIXES_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "HOPS6")]
pub static HOPS6: PerCpuArray<HopRow6, { limits::HOPS_MAX as usize }> = PerCpuArray::new();
#[btf_map(name = "FRAGMENTS6")]
pub static FRAGMENTS6: LruHashMap<FragmentKey6, Fragment6, { limits::FRAGMENTS_MAX as usize }> =
    LruHashMap::new();
#[btf_map(name = "FRAGMENT_KEY6")]
pub static FRAGMENT_KEY6: PerCpuArray<FragmentKey6, 1> = PerCpuArray::new();
