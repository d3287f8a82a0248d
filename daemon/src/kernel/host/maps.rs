//! The host half's maps that outlive generations.
//!
//! Those that only programs use (storage at inodes and tasks, program arrays, the cache of cgroups) are made by the
//! loader as the objects define them; the daemon makes those that it writes.

use aya_obj::generated::{
    BPF_F_MMAPABLE,
    bpf_map_type::{BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY},
};
use ringfence_abi::{
    host::{
        CGROUP_HOOKS, CgroupKey, EXES, ExePath, HOOKS, HostState, MAX_PATH_ENTRIES, Mount, MountKey, OWN_OBJECTS,
        OwnObject, PathEntry, PathHashKey,
    },
    names,
};

use super::state::State;
use crate::kernel::{
    error::{Context as _, Result},
    maps::{self, obtain},
    pins::Pins,
    table::{PerCpu, Table},
};

/// Most entries of the mount table: a machine with thousands of containers.
const MAX_MOUNTS: u32 = 16_384;
/// Keys of the dynamic entries: each has one for itself, and one for every directory on the way to it.
const MAX_HASHES: u32 = 65 * MAX_PATH_ENTRIES;
/// Cgroups whose class is remembered.
const MAX_CGROUPS: u32 = 16_384;

/// Maps by the names the objects know them by; program arrays aside.
pub const SHARED: [&str; 11] = [
    names::HOST_STATE,
    names::MOUNTS,
    names::EXES,
    names::CGROUPS,
    names::PATH_ENTRIES,
    names::PATH_HASHES,
    names::OWN_OBJECTS,
    names::HOST_MISS,
    names::DIRS,
    names::SUBJECTS,
    names::SCRATCH,
];

/// The maps that the daemon writes.
#[derive(Debug)]
pub struct HostMaps {
    /// What the programs read first.
    pub state: State,
    /// What is mounted where.
    pub mounts: Table<MountKey, Mount>,
    /// Ids of executables.
    pub exes: Table<ExePath, u32>,
    /// Dynamic entries.
    pub entries: Table<u32, PathEntry>,
    /// How they are found.
    pub hashes: Table<PathHashKey, u64>,
    /// What is Ringfence's own, for `protect_self`.
    pub own: Table<OwnObject, u32>,
    /// Calls the dispatchers refused for want of a generation's program.
    pub misses: PerCpu<u64>,
}

impl HostMaps {
    /// Opens the pinned maps, making those that are not there.
    pub fn open(pins: &Pins) -> Result<Self> {
        let state = obtain(pins, names::HOST_STATE, &maps::array::<HostState>(1, BPF_F_MMAPABLE), State::prepare)?;
        let plain = |name, shape: &_| obtain(pins, name, shape, |_| Ok(()));
        let cgroups =
            maps::shape(BPF_MAP_TYPE_LRU_HASH, size_of::<CgroupKey>() as u32, size_of::<u32>() as u32, MAX_CGROUPS, 0);
        plain(names::CGROUPS, &cgroups)?;
        let misses = maps::shape(BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 1, 0);
        Ok(Self {
            state: State::new(&state)?,
            mounts: maps::table(plain(names::MOUNTS, &maps::hash::<MountKey, Mount>(MAX_MOUNTS))?)?,
            exes: maps::table(plain(names::EXES, &maps::hash::<ExePath, u32>(EXES as u32))?)?,
            entries: maps::table(plain(names::PATH_ENTRIES, &maps::array::<PathEntry>(MAX_PATH_ENTRIES, 0))?)?,
            hashes: maps::table(plain(names::PATH_HASHES, &maps::hash::<PathHashKey, u64>(MAX_HASHES))?)?,
            own: maps::table(plain(names::OWN_OBJECTS, &maps::hash::<OwnObject, u32>(OWN_OBJECTS as u32))?)?,
            misses: PerCpu::new(plain(names::HOST_MISS, &misses)?).context(|| names::HOST_MISS.to_owned())?,
        })
    }
}

/// Name and pin of everything that the objects share.
pub fn pinned(pins: &Pins) -> Vec<(&'static str, std::path::PathBuf)> {
    let names = SHARED.into_iter().chain(HOOKS.iter().chain(&CGROUP_HOOKS).map(|hook| hook.array));
    names.map(|name| (name, pins.map(name))).collect()
}
