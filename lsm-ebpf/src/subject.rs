//! Who calls.

use core::ffi::c_void;

use ringfence_abi::host::{
    CgroupKey, EXE_PATH, EXE_UNKNOWN, LEAF_ABSENT, LEAF_TRUSTED, LEAF_UNKNOWN, Leaf, MASK_UNKNOWN, MAX_ANCESTORS,
    SUBJECT_ANCESTORS_LOST, SUBJECT_KNOWN, SUBJECT_TAINTED, Subject,
    field::{ANCESTOR, CGROUP, EXE, GID},
    layout::{NODE_NAME, NODE_PARENT},
    line,
};
use ringfence_engine::{
    Tables as _,
    host::{access::Classifier, automaton::Walk},
    ro::read,
};

use aya_ebpf::{bindings::BPF_ANY, helpers::generated::bpf_get_current_cgroup_id};

use crate::{
    arena::{Arena, opaque},
    kernel::{Cred, Task, peek, peek_member},
    maps::{CGROUPS, EXE_LEAVES, HOST, SUBJECTS},
    path,
    repeat::repeat,
    report,
    scratch::{BUFFER, Climb, Frame, TOP},
};

/// Supplementary groups that are looked at.
const MAX_GROUPS: u32 = 1024;

#[inline(always)]
fn classifier(frame: &Frame) -> Classifier<'_, Arena> {
    Classifier { host: &HOST, tables: frame.tables() }
}

/// [`crate::scratch::Scratch::caller`]: all that rules read of the caller is set.
pub const CALLER_KNOWN: u32 = 0;
/// Nothing is; file system ids count.
const CALLER_OF_FILES: u32 = 1;
/// Nothing is; effective ids count.
const CALLER: u32 = 2;

/// Notes whose ids count. `of_files`: the file system's. The rest waits for a rule that reads it: most calls are decided
/// without.
#[inline(always)]
pub fn begin(frame: &Frame, task: Task, of_files: bool) {
    let (scratch, cred) = (frame.scratch(), task.cred());
    (scratch.caller, scratch.uid) = if of_files { (CALLER_OF_FILES, cred.fsuid()) } else { (CALLER, cred.euid()) };
}

/// Sets what rules read of the current task, unless that has been done.
#[inline(never)]
pub fn settle(frame: &Frame) -> bool {
    let scratch = frame.scratch();
    let of_files = scratch.caller == CALLER_OF_FILES;
    if scratch.caller == CALLER_KNOWN {
        return true;
    }
    scratch.caller = CALLER_KNOWN;
    current(frame, of_files).is_some()
}

/// Sets what rules read of the current task.
#[inline(always)]
fn current(frame: &Frame, of_files: bool) -> Option<()> {
    let task = Task::current();
    let cred = task.cred();
    let scratch = frame.scratch();
    let classes = classifier(frame);
    classes.uid(&mut scratch.access, scratch.uid)?;
    classes.auid(&mut scratch.access, task.login_uid())?;
    if classes.reads(GID) {
        let mask = groups(frame, cred, if of_files { cred.fsgid() } else { cred.egid() })?;
        classes.class::<GID>(&mut scratch.access, mask);
    }
    if classes.reads(CGROUP) {
        let class = cgroup(frame, task);
        classes.class::<CGROUP>(&mut scratch.access, class);
    }
    if classes.reads(EXE) || classes.reads(ANCESTOR) || frame.entries() != 0 {
        executable(frame, task)?;
    }
    Some(())
}

#[inline(always)]
fn executable(frame: &Frame, task: Task) -> Option<()> {
    let scratch = frame.scratch();
    let classes = classifier(frame);
    scratch.exe = EXE_UNKNOWN;
    if task.is_kernel() {
        classes.class::<ANCESTOR>(&mut scratch.access, 0);
        return classes.exe(&mut scratch.access, LEAF_ABSENT, false);
    }
    let Some(subject) = known(task.leader()) else {
        report::unknown(line::SUBJECT);
        classes.class::<ANCESTOR>(&mut scratch.access, MASK_UNKNOWN);
        return classes.exe(&mut scratch.access, LEAF_UNKNOWN, true);
    };
    // SAFETY: a value of the map; aligned loads do not tear.
    let (exe, flags) = unsafe { ((*subject).exe, (*subject).flags) };
    scratch.exe = exe;
    if classes.reads(EXE) {
        let leaf = leaf_of(exe);
        if leaf == LEAF_UNKNOWN {
            report::unknown(line::SUBJECT);
        }
        classes.exe(&mut scratch.access, leaf, flags & SUBJECT_TAINTED != 0)?;
    }
    if classes.reads(ANCESTOR) {
        let mask = ancestors(frame, subject);
        classes.class::<ANCESTOR>(&mut scratch.access, mask);
    }
    Some(())
}

/// What is known of a process, by its leader.
#[inline(always)]
pub fn known(leader: Task) -> Option<*mut Subject> {
    // SAFETY: a value of the map.
    SUBJECTS.get(leader).filter(|subject| unsafe { (**subject).flags } & SUBJECT_KNOWN != 0)
}

/// The leaf of an executable in this generation.
#[inline(always)]
pub fn leaf_of(exe: u32) -> u32 {
    match EXE_LEAVES.get(exe) {
        // Nobody has said what it means to this generation.
        None | Some(0) => LEAF_UNKNOWN,
        Some(_) if exe == EXE_UNKNOWN => LEAF_UNKNOWN,
        Some(leaf) => *leaf,
    }
}

/// The leaf of another process' executable, where no thread but its leader matters.
#[inline(always)]
pub fn leaf_of_task(task: Task) -> u32 {
    if task.is_kernel() {
        return LEAF_ABSENT;
    }
    let leaf = known(task.leader()).map_or(LEAF_UNKNOWN, |subject| {
        // SAFETY: a value of the map.
        leaf_of(unsafe { (*subject).exe })
    });
    if leaf == LEAF_UNKNOWN {
        report::unknown(line::SUBJECT);
    }
    leaf
}

/// Permissions by executable no longer hold for the process.
#[inline(always)]
pub fn taint(leader: Task) {
    if let Some(subject) = SUBJECTS.get_or_create(leader) {
        // SAFETY: a value of the map; of two that write at a time, both set this bit.
        unsafe { (*subject).flags |= SUBJECT_TAINTED };
    }
}

/// Whether code of this place may be mapped without tainting.
#[inline(always)]
pub fn is_trusted(frame: &Frame, number: usize) -> bool {
    let leaf = frame.scratch().places[number].leaf;
    let flags = classifier(frame).leaf_word(leaf, core::mem::offset_of!(Leaf, flags));
    flags.is_some_and(|flags| flags & LEAF_TRUSTED != 0)
}

/// A loop over a subject's ancestors.
#[repr(C)]
struct Ancestors {
    frame: Frame,
    subject: *mut Subject,
}

#[inline(always)]
fn ancestors(frame: &Frame, subject: *mut Subject) -> u32 {
    // SAFETY: a value of the map; mask and serial lie side by side and are loaded and stored as one.
    let kept = unsafe { (&raw const (*subject).mask).cast::<u64>() };
    // SAFETY: as above; aligned to eight bytes.
    let word = unsafe { kept.read_volatile() };
    let serial = read(&HOST.serial);
    if (word >> 32) as u32 == serial {
        return word as u32;
    }
    let scratch = frame.scratch();
    scratch.mask = 0;
    let context = Ancestors { frame: *frame, subject };
    repeat!(MAX_ANCESTORS as u32, ancestor, &raw const context);
    // SAFETY: as above.
    if unsafe { (*subject).flags } & SUBJECT_ANCESTORS_LOST != 0 {
        scratch.mask |= MASK_UNKNOWN;
    }
    if scratch.mask & MASK_UNKNOWN != 0 {
        // May be known later.
        report::unknown(line::SUBJECT);
        return MASK_UNKNOWN;
    }
    // SAFETY: as above.
    unsafe { kept.cast_mut().write_volatile(u64::from(scratch.mask) | u64::from(serial) << 32) };
    scratch.mask
}

unsafe extern "C" fn ancestor(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `ancestors` waits for the loop.
    let context = unsafe { &*context.cast::<Ancestors>() };
    let index = opaque(u64::from(index));
    // SAFETY: a value of the map, an index within it.
    if index >= MAX_ANCESTORS as u64 || index >= u64::from(unsafe { (*context.subject).count }) {
        return 1;
    }
    // SAFETY: as above.
    let leaf = leaf_of(unsafe { (*context.subject).ancestors[index as usize] });
    let word = classifier(&context.frame).leaf_word(leaf, core::mem::offset_of!(Leaf, ancestor));
    context.frame.scratch().mask |= word.unwrap_or(MASK_UNKNOWN);
    0
}

/// A loop over supplementary groups.
#[repr(C)]
struct Groups {
    frame: Frame,
    first: u64,
}

#[inline(always)]
fn groups(frame: &Frame, cred: Cred, gid: u32) -> Option<u32> {
    let (count, first) = cred.groups();
    if count > MAX_GROUPS {
        report::unknown(line::SUBJECT);
        return Some(MASK_UNKNOWN);
    }
    frame.scratch().mask = classifier(frame).group(gid)?;
    let context = Groups { frame: *frame, first };
    repeat!(count, group, &raw const context);
    let mask = frame.scratch().mask;
    Some(if mask >= MASK_UNKNOWN { MASK_UNKNOWN } else { mask })
}

unsafe extern "C" fn group(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `groups` waits for the loop.
    let context = unsafe { &*context.cast::<Groups>() };
    let gid = peek::<u32>(context.first + u64::from(index) * 4);
    let mask = gid.and_then(|gid| classifier(&context.frame).group(gid)).unwrap_or(MASK_UNKNOWN);
    context.frame.scratch().mask |= mask;
    0
}

/// The class of the task's cgroup: its path is read once for each cgroup and generation.
#[inline(always)]
fn cgroup(frame: &Frame, task: Task) -> u32 {
    // SAFETY: the helper has no preconditions.
    let key = CgroupKey { id: unsafe { bpf_get_current_cgroup_id() }, serial: read(&HOST.serial), zero: 0 };
    // SAFETY: the value is never changed.
    if let Some(class) = unsafe { CGROUPS.get(&key) } {
        return *class;
    }
    let scratch = frame.scratch();
    scratch.climb.node = task.cgroup_node();
    scratch.climb.at = TOP;
    scratch.climb.line = line::DEPTH;
    repeat!(walk_depth(), climb_one, &raw const *frame);
    let mut leaf = LEAF_UNKNOWN;
    if scratch.climb.line == Climb::ARRIVED
        && let Some(walk) = Walk::start(&HOST.cgroups, frame.tables(), read(&HOST.cgroups.host))
    {
        scratch.progress.walk = walk;
        scratch.progress.line = 0;
        scratch.progress.position = scratch.climb.at;
        let length = TOP - scratch.climb.at;
        let mut ended = Some(());
        if length > 0 && length <= TOP {
            repeat!(length, step, &raw const *frame);
            ended = scratch.progress.walk.arrive(&HOST.cgroups, frame.tables());
        }
        if scratch.progress.line == 0 && ended.is_some() {
            leaf = scratch.progress.walk.leaf(&HOST.cgroups, frame.tables()).unwrap_or(LEAF_UNKNOWN);
        }
    }
    if leaf == LEAF_UNKNOWN {
        report::unknown(line::CGROUP);
    }
    let class = cgroup_class(frame, leaf).unwrap_or(0);
    if leaf != LEAF_UNKNOWN {
        let _ = CGROUPS.insert(key, class, u64::from(BPF_ANY));
    }
    class
}

#[inline(always)]
fn cgroup_class(frame: &Frame, leaf: u32) -> Option<u32> {
    frame.tables().u32(read(&HOST.cgroups.leaves) + leaf * size_of::<Leaf>() as u32)
}

/// The class of a cgroup that cannot be told.
#[inline(always)]
pub fn unknown_cgroup(frame: &Frame) -> Option<u32> {
    if classifier(frame).reads(CGROUP) { cgroup_class(frame, LEAF_UNKNOWN) } else { Some(0) }
}

const fn walk_depth() -> u32 {
    crate::scratch::MAX_DEPTH + 1
}

/// Puts the name of a kernfs node before what has been gathered.
unsafe extern "C" fn climb_one(_: u32, context: *mut c_void) -> i64 {
    let scratch = Frame::of(context).scratch();
    let node = scratch.climb.node;
    let (Some(parent), Some(name)) = (peek_member::<u64>(node, NODE_PARENT), peek_member::<u64>(node, NODE_NAME))
    else {
        scratch.climb.line = line::CGROUP;
        return 1;
    };
    if parent == 0 {
        scratch.climb.line = Climb::ARRIVED;
        return 1;
    }
    scratch.climb.node = parent;
    let to = (&raw mut scratch.key).cast::<c_void>();
    // SAFETY: the memory has room for this many bytes; the helper checks the source.
    let len = unsafe { aya_ebpf::helpers::generated::bpf_probe_read_kernel_str(to, EXE_PATH as u32, name as *const _) };
    // The zero at its end is counted.
    if len < 2 {
        scratch.climb.line = line::CGROUP;
        return 1;
    }
    i64::from(!path::prepend(scratch, len as u32 - 1, name))
}

/// Reads a byte of a cgroup's path.
unsafe extern "C" fn step(index: u32, context: *mut c_void) -> i64 {
    let frame = Frame::of(context);
    let scratch = frame.scratch();
    let at = opaque(u64::from(scratch.progress.position + index));
    if at >= BUFFER as u64 {
        return 1;
    }
    let byte = scratch.path[at as usize];
    let progress = &mut scratch.progress;
    let ended = byte != b'/' || index == 0 || progress.walk.arrive(&HOST.cgroups, frame.tables()).is_some();
    if !ended || progress.walk.step(&HOST.cgroups, frame.tables(), byte).is_none() {
        progress.line = line::CGROUP;
        return 1;
    }
    0
}
