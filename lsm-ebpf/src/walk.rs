//! From a dentry to its place among the paths.
//!
//! The way goes up `d_parent` to the file system's root, so that no bind mount, chroot or mount namespace changes it; a
//! directory's place is kept with its inode. All of it counts only if no name changed meanwhile (`rename_lock`).

use core::ffi::c_void;

use ringfence_abi::host::{
    DIRECTORY_FOLDS, DIRECTORY_FOREIGN, Directory, HostState, LEAF_ABSENT, LEAF_UNKNOWN, PATH_ABOVE, PATH_ITSELF,
    PATH_TREE,
    layout::{DENTRY_FLAGS, DENTRY_SB, SB_DEV, SB_MAGIC, SB_ROOT},
    line,
};
use ringfence_engine::{host::automaton::Walk, ro::read};

use crate::{
    arena::opaque,
    kernel::{Dentry, Inode, Task, age, copy, peek_member, rename_sequence},
    maps::{DIRS, HOST, state},
    mounts,
    path::{end_component, entries, gather, step},
    repeat::repeat,
    report,
    scratch::{Climb, Frame, MAX_DEPTH, MAX_LENGTH, TOP},
};

/// No directory folds names from here on.
const NOWHERE: u32 = u32::MAX;

/// How a place is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// With all that lies below it: a directory that moves or is mounted over.
    pub below: bool,
    /// The whole path is wanted in the buffer.
    pub text: bool,
}

impl Wish {
    /// The place itself.
    pub const ITSELF: Self = Self { below: false, text: false };
}

/// What the attempts at a place share.
#[repr(C)]
struct Attempt {
    frame: Frame,
    dentry: Dentry,
    /// The directory it is in; itself if it is a file system's root.
    holder: Dentry,
    root: u32,
    below: u32,
    text: u32,
    zero: u32,
}

/// Finds the place of a dentry and notes it as `places[number]`.
#[inline(always)]
pub fn locate(frame: &Frame, dentry: Dentry, number: usize, wish: Wish) {
    let parent = dentry.parent();
    let root = parent.0 == dentry.0;
    if root && dentry.super_block().root().0 != dentry.0 {
        if dentry.super_block().is_internal() {
            nowhere(frame, number);
        } else {
            unknown(frame, number, line::DISCONNECTED);
        }
        return;
    }
    let attempt = Attempt {
        frame: *frame,
        dentry,
        holder: if root { dentry } else { parent },
        root: u32::from(root),
        below: u32::from(wish.below),
        text: u32::from(wish.text),
        zero: 0,
    };
    let scratch = frame.scratch();
    scratch.progress.line = line::TORN;
    repeat!(3, try_once, &raw const attempt);
    settle(frame, number, wish.below);
}

/// The same for an inode of which no name is at hand: by the first it has. Where it has none in memory it is unknown.
#[inline(always)]
pub fn locate_alias(frame: &Frame, inode: Inode, number: usize) {
    locate_address(frame, inode.first_alias(), number);
}

/// The same for a dentry of which only the address is known; 0: none.
#[inline(always)]
pub fn locate_address(frame: &Frame, dentry: u64, number: usize) {
    let scratch = frame.scratch();
    scratch.progress.line = line::DISCONNECTED;
    if dentry != 0
        && let Some(state) = state()
    {
        let attempt = AddressAttempt { frame: *frame, dentry, state };
        scratch.progress.line = line::TORN;
        repeat!(3, try_address, &raw const attempt);
    }
    settle(frame, number, false);
}

/// The object has no path.
#[inline(always)]
pub fn nowhere(frame: &Frame, number: usize) {
    let place = &mut frame.scratch().places[number];
    place.leaf = LEAF_ABSENT;
    place.entries = 0;
}

/// The object's path cannot be told.
#[inline(always)]
pub fn unknown(frame: &Frame, number: usize, why: u32) {
    report::unknown(why);
    let place = &mut frame.scratch().places[number];
    place.leaf = LEAF_UNKNOWN;
    place.entries = 0;
}

/// Turns what has been read into a place.
#[inline(always)]
pub fn settle(frame: &Frame, number: usize, below: bool) {
    let scratch = frame.scratch();
    let progress = &mut scratch.progress;
    if progress.line != 0 {
        unknown(frame, number, progress.line);
        return;
    }
    let tables = frame.tables();
    let leaf = if below { progress.walk.below(&HOST.paths, tables) } else { progress.walk.leaf(&HOST.paths, tables) };
    if progress.hashing != 0 {
        progress.entries |= entries(progress.hash, PATH_ITSELF);
        if below {
            progress.entries |= entries(progress.hash, PATH_ABOVE);
        }
    }
    let place = &mut scratch.places[number];
    place.leaf = leaf.unwrap_or(LEAF_UNKNOWN);
    place.entries = progress.entries;
}

/// One try; 0: names changed meanwhile, try again.
unsafe extern "C" fn try_once(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `locate` waits for the loop.
    let attempt = unsafe { &*context.cast::<Attempt>() };
    let Some(state) = state() else { return 1 };
    let scratch = attempt.frame.scratch();
    let warm = index == 0 && attempt.text == 0 && recall(attempt, state);
    if !warm {
        let holder = attempt.holder;
        let why = climb_up(&attempt.frame, holder.address(), FileSystem::of(holder), state);
        if why != 0 {
            scratch.progress.line = why;
            return i64::from(why != line::TORN);
        }
    }
    let why = arrive(attempt, state);
    if rename_sequence() != scratch.directory.sequence {
        return 0;
    }
    if !warm {
        remember(attempt);
    }
    scratch.progress.line = why;
    1
}

/// What the attempts at an address share.
#[repr(C)]
struct AddressAttempt {
    frame: Frame,
    dentry: u64,
    state: *mut HostState,
}

/// One try, never kept.
unsafe extern "C" fn try_address(_: u32, context: *mut c_void) -> i64 {
    // SAFETY: `locate_address` waits for the loop.
    let attempt = unsafe { &*context.cast::<AddressAttempt>() };
    let scratch = attempt.frame.scratch();
    let Some(system) = FileSystem::of_address(attempt.dentry) else {
        scratch.progress.line = line::MEMORY;
        return 1;
    };
    let why = climb_up(&attempt.frame, attempt.dentry, system, attempt.state);
    if why != line::TORN && rename_sequence() == scratch.directory.sequence {
        scratch.progress.line = why;
        return 1;
    }
    scratch.progress.line = line::TORN;
    0
}

/// What the way up needs of a file system.
#[derive(Clone, Copy)]
struct FileSystem {
    root: u64,
    magic: u64,
    device: u32,
    folds: bool,
}

impl FileSystem {
    #[inline(always)]
    fn of(dentry: Dentry) -> Self {
        let block = dentry.super_block();
        Self { root: block.root().address(), magic: block.magic(), device: block.device(), folds: dentry.folds() }
    }

    #[inline(always)]
    fn of_address(dentry: u64) -> Option<Self> {
        let block: u64 = peek_member(dentry, DENTRY_SB)?;
        let magic: u64 = peek_member(block, SB_MAGIC)?;
        let folds = peek_member::<u32>(dentry, DENTRY_FLAGS)? & 2 != 0 && magic != 0x9fa0;
        Some(Self { root: peek_member(block, SB_ROOT)?, magic, device: peek_member(block, SB_DEV)?, folds })
    }
}

/// Takes up what is kept with the directory's inode. Its sequence is compared at the end.
#[inline(always)]
fn recall(attempt: &Attempt, state: *mut HostState) -> bool {
    let map = (&raw const DIRS).cast_mut().cast();
    let kept: *mut Directory = attempt.holder.inode().stored(map, core::ptr::null_mut::<Directory>(), 0);
    if kept.is_null() {
        return false;
    }
    // SAFETY: a value of the map, which is replaced and never changed; the state is the map's only value.
    let (kept, epoch) = unsafe { (&*kept, (&raw const (*state).epoch).read_volatile()) };
    if kept.serial != read(&HOST.serial) || kept.epoch != epoch || kept.age != age() {
        return false;
    }
    attempt.frame.scratch().directory = *kept;
    true
}

/// Keeps the directory's place with its inode.
#[inline(always)]
fn remember(attempt: &Attempt) {
    let map: *mut c_void = (&raw const DIRS).cast_mut().cast();
    let inode = attempt.holder.inode();
    inode.forget(map);
    inode.stored(map, &raw mut attempt.frame.scratch().directory, 1);
}

/// Finds the directory's place anew; gives why it cannot be told.
#[inline(always)]
fn climb_up(frame: &Frame, dentry: u64, system: FileSystem, state: *mut HostState) -> u32 {
    let scratch = frame.scratch();
    scratch.directory.sequence = rename_sequence();
    if scratch.directory.sequence & 1 != 0 {
        return line::TORN;
    }
    // SAFETY: the map's only value; aligned loads do not tear.
    unsafe {
        scratch.directory.epoch = (&raw const (*state).epoch).read_volatile();
        scratch.progress.hashing = (&raw const (*state).entries).read_volatile();
        scratch.progress.hash = (&raw const (*state).secret).read_volatile();
    }
    scratch.directory.serial = read(&HOST.serial);
    scratch.directory.age = age();
    gather(frame, dentry, system.root);
    if scratch.climb.line != Climb::ARRIVED {
        return scratch.climb.line;
    }
    let in_file_system = scratch.climb.at;
    let found = mounts::find(frame, system.magic, system.device);
    if !found && Task::current().mount_namespace() == host_namespace(state) {
        return line::SUPERBLOCK;
    }
    let mut flags = if found { 0 } else { DIRECTORY_FOREIGN };
    scratch.progress.folds = NOWHERE;
    if system.folds {
        flags |= DIRECTORY_FOLDS;
        scratch.progress.folds = in_file_system;
    }
    scratch.directory.flags = flags;
    let start = if found { read(&HOST.paths.host) } else { read(&HOST.paths.foreign) };
    let Some(walk) = Walk::start(&HOST.paths, frame.tables(), start) else { return line::MEMORY };
    scratch.progress.walk = walk;
    scratch.progress.depth = 0;
    scratch.progress.line = 0;
    scratch.progress.entries = 0;
    if scratch.progress.hashing != 0 {
        scratch.progress.entries = entries(scratch.progress.hash, PATH_TREE);
    }
    let at = scratch.climb.at;
    scratch.progress.position = at;
    let length = TOP - at;
    if length > MAX_LENGTH {
        return line::LENGTH;
    }
    if length > 0 {
        repeat!(length, step, &raw const *frame);
        if scratch.progress.line != 0 {
            return scratch.progress.line;
        }
        if end_component(frame).is_none() {
            return line::MEMORY;
        }
    }
    let progress = &scratch.progress;
    scratch.directory.state = progress.walk.state;
    scratch.directory.trees = progress.walk.trees;
    scratch.directory.length = length;
    scratch.directory.depth = progress.depth;
    scratch.directory.hash = progress.hash;
    scratch.directory.entries = progress.entries;
    0
}

/// Goes from the directory to the place itself; gives why it cannot be told.
#[inline(always)]
fn arrive(attempt: &Attempt, state: *mut HostState) -> u32 {
    let scratch = attempt.frame.scratch();
    let directory = &scratch.directory;
    let progress = &mut scratch.progress;
    if directory.flags & DIRECTORY_FOREIGN != 0 && Task::current().mount_namespace() == host_namespace(state) {
        return line::SUPERBLOCK;
    }
    progress.walk = Walk { state: directory.state, trees: directory.trees };
    progress.hash = directory.hash;
    progress.entries = directory.entries;
    progress.depth = directory.depth;
    progress.line = 0;
    // SAFETY: the map's only value; an aligned load does not tear.
    progress.hashing = unsafe { (&raw const (*state).entries).read_volatile() };
    if attempt.root != 0 {
        return if directory.depth > MAX_DEPTH { line::DEPTH } else { 0 };
    }
    let len = attempt.dentry.name_len();
    if len > 255 || directory.length + 1 + len > MAX_LENGTH {
        return line::LENGTH;
    }
    if directory.depth >= MAX_DEPTH {
        return line::DEPTH;
    }
    // Nothing is left to be matched: the name does not matter.
    if progress.walk.state == 0 && progress.hashing == 0 && attempt.text == 0 {
        return 0;
    }
    progress.folds = if directory.flags & DIRECTORY_FOLDS != 0 { TOP } else { NOWHERE };
    scratch.path[TOP as usize] = b'/';
    let name = (&raw mut scratch.path).cast::<u8>().wrapping_add(TOP as usize + 1);
    if !copy(name, (opaque(u64::from(len)) & 0xff) as u32, attempt.dentry.name()) {
        return line::MEMORY;
    }
    progress.position = TOP;
    repeat!(len + 1, step, &raw const attempt.frame);
    if scratch.progress.line != 0 {
        return scratch.progress.line;
    }
    if end_component(&attempt.frame).is_none() { line::MEMORY } else { 0 }
}

#[inline(always)]
fn host_namespace(state: *mut HostState) -> u32 {
    // SAFETY: the map's only value; an aligned load does not tear.
    unsafe { (&raw const (*state).mount_namespace).read_volatile() }
}
