//! Maps and read-only constants of a generation.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use ringfence_abi::{
    chain::ChainConsts,
    connection::{Connection, FRAGMENTS as FRAGMENTS_COUNT, Fragment, FragmentKey, Key, TrackConsts},
    counter::Counter,
    dynamic::{ENTRY_LENGTHS as ENTRY_LENGTHS_COUNT, Element, ElementKey, Entry, EntryKey, Lengths, MAX_SETS},
    explain::{Answer, Question},
    generation::Cell,
    interface::Interface,
    limit::{AddState, Added, Holder, HolderKey, LimitKey},
    zeroed,
};
use ringfence_engine::{
    deep::Deep,
    fields::Fields,
    ro,
    search::{Outcome, Search},
};

use crate::{
    add::Adding,
    holders::Places,
    limit::Asked,
    lookup::{EntryProbe, MemberProbe},
    prove::Proving,
    report::Tally,
    track::Track,
};

/// Ingress tables. The loader makes the map with the value's real size.
#[map]
pub static ARENA_INGRESS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Egress tables.
#[map]
pub static ARENA_EGRESS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static INTERFACES: HashMap<u32, Interface> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);
#[map]
pub static ENTRIES: HashMap<EntryKey, Entry> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub static ENTRY_LENGTHS: Array<Lengths> = Array::with_max_entries(ENTRY_LENGTHS_COUNT, 0);
#[map]
pub static ELEMENTS: HashMap<ElementKey, Element> = HashMap::with_max_entries(4_194_304, BPF_F_NO_PREALLOC);
#[map]
pub static SET_LENGTHS: Array<Lengths> = Array::with_max_entries(MAX_SETS, 0);
/// Proven connections. These three maps are made by the loader, as large as the policy says, and go from one generation to
/// the next.
#[map]
pub static CONNECTIONS: HashMap<Key, Connection> = HashMap::with_max_entries(1, 0);
/// What came in and is not proven.
#[map]
pub static HALF_IN: LruHashMap<Key, Connection> = LruHashMap::with_max_entries(1, 0);
/// What this host began and nobody has answered.
#[map]
pub static HALF_OUT: LruHashMap<Key, Connection> = LruHashMap::with_max_entries(1, 0);
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment> = LruHashMap::with_max_entries(FRAGMENTS_COUNT, 0);
/// Schedules of limits, as the loader sizes them.
#[map]
pub static LIMITS: HashMap<LimitKey, u64> = HashMap::with_max_entries(1, 0);
/// Places of connections that limits count, likewise.
#[map]
pub static HOLDERS: HashMap<HolderKey, Holder> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);
/// What the programs added to sets, likewise.
#[map]
pub static ADDED: Array<Added> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static ADD_STATES: Array<AddState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static EXPLAIN_IN: Array<Question> = Array::with_max_entries(1, 0);
#[map]
pub static EXPLAIN_OUT: Array<Answer> = Array::with_max_entries(1, 0);
/// This CPU's working memory: the stack of 512 bytes is too small for it. XDP and TC run with softirqs off, so
/// invocations do not interleave on a CPU.
///
/// It also hides constants from the verifier. 6.1 verifies the callback of `bpf_loop` only with what it knows of the
/// context at the first call and takes branches of later iterations for dead; what it reads from a map it knows nothing
/// of.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// See [`SCRATCH`].
#[repr(C)]
pub struct Scratch {
    pub fields: Fields,
    pub deep: Deep,
    pub track: Track,
    pub asked: Asked,
    pub places: Places,
    pub proving: Proving,
    pub adding: Adding,
    pub tally: Tally,
    pub search: Search,
    pub outcome: Outcome,
    pub entry: EntryProbe,
    pub member: MemberProbe,
}

/// This CPU's working memory.
#[inline(always)]
pub fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0)
}

/// The pinned cell: its audit bit and its epoch are read.
#[map]
pub static CELL: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[unsafe(no_mangle)]
static CHAINS: [ChainConsts; 2] = [zeroed(); 2];

#[unsafe(no_mangle)]
static TRACK: TrackConsts = zeroed();

/// Constants of tracking; read them through `ro::read`.
#[inline(always)]
pub fn track() -> &'static TrackConsts {
    &TRACK
}

#[unsafe(no_mangle)]
static EXPLAIN: u32 = 0;

/// The direction's constants; read them through `ro::read`.
#[inline(always)]
pub fn consts<const EGRESS: bool>() -> &'static ChainConsts {
    &CHAINS[EGRESS as usize]
}

/// Whether this is the program that explains.
#[inline(always)]
pub fn explaining() -> bool {
    ro::read(&EXPLAIN) != 0
}
