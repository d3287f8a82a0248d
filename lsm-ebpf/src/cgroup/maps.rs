//! Maps and constants, as few as these programs need: on the kernels they are for, others cannot be made.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::SkStorage,
    macros::{btf_map, map},
    maps::{Array, PerCpuArray},
};
use ringfence_abi::{
    counter::Counter,
    generation::Cell,
    host::{HostConsts, HostState, KernelLayout},
    zeroed,
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

/// The policy's constants; read them through `ro::read`.
#[unsafe(no_mangle)]
pub static HOST: HostConsts = zeroed();

/// Where the running kernel keeps what the programs read.
#[unsafe(no_mangle)]
pub static KERNEL: KernelLayout = zeroed();
