//! Maps and constants, as few as these programs need: on the kernels they are for, others cannot be made.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, PerCpuArray},
};
use ringfence_abi::{
    chain::{ChainConsts, FIELDS, MAX_CHAIN_SETS, Trie},
    counter::Counter,
    generation::Cell,
    host::{Automaton, HostConsts, HostState, KernelLayout, Pairs, layout},
};
use ringfence_engine::search::{Outcome, Search};

/// The chain's tables. The loader makes the map with the value's real size.
#[map]
pub static ARENA_HOST: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static CELL: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static HOST_STATE: Array<HostState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Calls refused because no program was where it must be.
#[map]
pub static HOST_MISS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// Working memory of a call, for what the stack is too small for. Every one of these places is passed under the socket's
/// lock, so a socket's is used by one call at a time; a CPU's would be shared with whoever preempts the program.
#[btf_map]
pub static SOCK_SCRATCH: SkStorage<Scratch> = SkStorage::new();

/// See [`SOCK_SCRATCH`].
#[repr(C)]
pub struct Scratch {
    pub search: Search,
    pub outcome: Outcome,
}

const NO_TRIE: Trie = Trie { top: 0, bits: 0, nodes: 0, leaves: 0 };
const NO_PAIRS: Pairs = Pairs { offset: 0, mask: 0 };
const NO_AUTOMATON: Automaton = Automaton {
    classes: 0,
    rows: 0,
    info: 0,
    infos: 0,
    combine: NO_PAIRS,
    finish: NO_PAIRS,
    below: NO_PAIRS,
    tree_leaves: 0,
    leaves: 0,
    host: 0,
    foreign: 0,
    abstract_name: 0,
    zero: 0,
};

/// The policy's constants; read them through `ro::read`.
#[unsafe(no_mangle)]
pub static HOST: HostConsts = HostConsts {
    chain: ChainConsts {
        arena: 0,
        active: 0,
        active_count: 0,
        blocks: 0,
        positions: 0,
        wild: 0,
        wild_summary: 0,
        default_verdict: 0,
        audit: 0,
        floor: 0,
        counter_base: 0,
        counters: 0,
        src_set_count: 0,
        dst_set_count: 0,
        rows: [0; FIELDS],
        direct: [0; FIELDS],
        tries: [NO_TRIE; 5],
        src_sets: [0; MAX_CHAIN_SETS],
        dst_sets: [0; MAX_CHAIN_SETS],
    },
    gid: NO_TRIE,
    paths: NO_AUTOMATON,
    cgroups: NO_AUTOMATON,
    ops: 0,
    serial: 0,
    address_unknown: 0,
    fstype_unknown: 0,
    protect_self: 0,
    keeps: 0,
    quick: 0,
    quick_columns: 0,
};

/// Where the running kernel keeps what the programs read.
#[unsafe(no_mangle)]
pub static KERNEL: KernelLayout = KernelLayout { rename_lock: 0, offsets: [0; layout::COUNT] };
