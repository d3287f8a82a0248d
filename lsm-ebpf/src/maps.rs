//! Maps and read-only constants of a generation.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, task_struct},
    btf_maps::InodeStorage,
    helpers::generated::bpf_task_storage_get,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use ringfence_abi::{
    counter::Counter,
    explain::Answer,
    generation::Cell,
    host::{
        AccessQuestion, CgroupKey, Directory, EXES as EXES_COUNT, ExePath, HostConsts, HostState, KernelLayout,
        MAX_PATH_ENTRIES, Mount, MountKey, OWN_OBJECTS as OWN_OBJECTS_COUNT, OwnObject, PathEntry, PathHashKey,
        Subject,
    },
    zeroed,
};
use ringfence_engine::ro;

use crate::{kernel::Task, scratch::Scratch};

/// The chain's tables. The loader makes the map with the value's real size.
#[map]
pub static ARENA_HOST: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static EXE_LEAVES: Array<u32> = Array::with_max_entries(EXES_COUNT as u32, 0);
#[map]
pub static CELL: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static HOST_STATE: Array<HostState> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub static MOUNTS: HashMap<MountKey, Mount> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
pub static EXES: HashMap<ExePath, u32> = HashMap::with_max_entries(EXES_COUNT as u32, BPF_F_NO_PREALLOC);
#[map]
pub static CGROUPS: LruHashMap<CgroupKey, u32> = LruHashMap::with_max_entries(8192, 0);
#[map]
pub static PATH_ENTRIES: Array<PathEntry> = Array::with_max_entries(MAX_PATH_ENTRIES, 0);
#[map]
pub static PATH_HASHES: HashMap<PathHashKey, u64> = HashMap::with_max_entries(8192, BPF_F_NO_PREALLOC);
#[map]
pub static OWN_OBJECTS: HashMap<OwnObject, u32> =
    HashMap::with_max_entries(OWN_OBJECTS_COUNT as u32, BPF_F_NO_PREALLOC);
#[map]
pub static ACCESS_IN: Array<AccessQuestion> = Array::with_max_entries(1, 0);
#[map]
pub static EXPLAIN_OUT: Array<Answer> = Array::with_max_entries(1, 0);
/// What time it was by `CLOCK_MONOTONIC` when the jiffies were these.
#[repr(C)]
pub struct Clock {
    pub tick: u64,
    pub time: u64,
}
#[map]
pub static CLOCK: PerCpuArray<Clock> = PerCpuArray::with_max_entries(1, 0);
/// A directory's place in the automaton. A value is never changed, only replaced, so nobody reads half of one.
#[btf_map]
pub static DIRS: InodeStorage<Directory> = InodeStorage::new();
/// Kept at the thread group's leader.
#[btf_map]
pub static SUBJECTS: TaskStorage<Subject> = TaskStorage::new();
/// A thread's working memory: the stack of 512 bytes is too small for it, and a CPU's would be shared with whoever
/// preempts the program. It also hides constants from the verifier: 6.1 verifies the callback of `bpf_loop` only with
/// what it knows of the context at the first call; what it reads from a map it knows nothing of.
#[btf_map]
static SCRATCH: TaskStorage<Scratch> = TaskStorage::new();
/// Working memory where there is no thread of one's own: in test runs, and in `file_send_sigiotask`, which runs with
/// interrupts off.
#[map]
static SCRATCH_CPU: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Task storage; aya-ebpf defines none.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; 29],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: a description of a map; the pointers are types and never followed.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        use core::ptr::null;
        Self { r#type: null(), key: null(), value: null(), max_entries: null(), map_flags: null() }
    }

    /// The task's value, if it has one.
    #[inline(always)]
    pub fn get(&self, task: Task) -> Option<*mut T> {
        self.find(task, 0)
    }

    /// The task's value, made of zeros if it has none yet; `None`: no memory.
    #[inline(always)]
    pub fn get_or_create(&self, task: Task) -> Option<*mut T> {
        self.find(task, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
    }

    #[inline(always)]
    fn find(&self, task: Task, flags: u64) -> Option<*mut T> {
        let (map, task) = (core::ptr::from_ref(self).cast_mut().cast(), task.0.cast::<task_struct>().cast_mut());
        // SAFETY: a map of this type, and a task that the verifier knows as one.
        let value = unsafe { bpf_task_storage_get(map, task, core::ptr::null_mut(), flags) };
        if value.is_null() { None } else { Some(value.cast()) }
    }
}

/// The thread's working memory.
#[inline(always)]
pub fn scratch(task: Task) -> Option<*mut Scratch> {
    SCRATCH.get_or_create(task)
}

/// This CPU's working memory.
#[inline(always)]
pub fn scratch_of_cpu() -> Option<*mut Scratch> {
    SCRATCH_CPU.get_ptr_mut(0)
}

/// What outlives generations.
#[inline(always)]
pub fn state() -> Option<*mut HostState> {
    HOST_STATE.get_ptr_mut(0)
}

/// The policy's constants; read them through `ro::read`.
#[unsafe(no_mangle)]
pub static HOST: HostConsts = zeroed();

/// Where the running kernel keeps what the programs read.
#[unsafe(no_mangle)]
pub static KERNEL: KernelLayout = zeroed();

#[unsafe(no_mangle)]
static EXPLAIN: u32 = 0;

/// Whether this is the program that explains.
#[inline(always)]
pub fn explaining() -> bool {
    ro::read(&EXPLAIN) != 0
}
