//! From a dentry to its place among the paths.
//!
//! The way goes up `d_parent` to the file system's root, so that no bind mount, chroot or mount namespace changes it. It
//! counts only if no dentry on it was moved meanwhile. A directory's place is kept with its inode for as long as nothing
//! at all is renamed (`rename_lock`).

use core::ffi::c_void;

use ringfence_abi::host::{
    DIRECTORY_FOLDS, DIRECTORY_FOREIGN, DIRECTORY_READ, Directory, HostState, LEAF_ABSENT, LEAF_UNKNOWN, PATH_ABOVE,
    PATH_ITSELF, PATH_TREE,
    layout::{DENTRY_FLAGS, DENTRY_SB, SB_DEV, SB_MAGIC, SB_ROOT},
    line,
};
use ringfence_engine::{host::automaton::Walk, ro::read};

use crate::{
    arena::opaque,
    kernel::{Dentry, Inode, Task, age, copy, peek_member, rename_sequence},
    maps::{DIRS, HOST},
    mounts,
    path::{self, Moved, end_component, entries, gather, step},
    repeat::repeat,
    report,
    scratch::{Climb, Frame, MAX_DEPTH, MAX_LENGTH, TOP},
};

/// How often a way is gone before it counts as torn. Only who may rename a directory on it can tear it.
const ATTEMPTS: u32 = 3;
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
    root: u32,
    text: u32,
}

/// Finds the place of a dentry and notes it as `places[number]`. A function of its own, as few are: most hooks call it.
#[inline(never)]
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
    let scratch = frame.scratch();
    // By way of memory: 6.1 takes the branch of a caller's constant for the only one, although another caller of the same
    // program gives another.
    scratch.below = u32::from(wish.below);
    let attempt = Attempt { frame: *frame, dentry, root: u32::from(root), text: u32::from(wish.text) };
    if !wish.text
        && let Some(kept) = recall(if root { dentry } else { parent }, frame.epoch())
    {
        // Here and below one look at the sequence is enough: what is kept was read at this one, and the name, which is
        // read before it, has not changed since.
        if kept.leaf != DIRECTORY_READ {
            if rename_sequence() == kept.sequence {
                let place = &mut scratch.places[number];
                place.leaf = kept.leaf;
                place.entries = 0;
                return;
            }
        } else {
            scratch.directory = *kept;
            let why = arrive(&attempt);
            if rename_sequence() == scratch.directory.sequence {
                scratch.progress.line = why;
                return settle(frame, number, scratch.is_below());
            }
        }
    }
    repeat!(ATTEMPTS, try_once, &raw const attempt);
    settle(frame, number, scratch.is_below());
}

/// The leaf of a dentry in a warm directory in which names do not matter, if the sequence still is what is given with it.
#[inline(always)]
pub fn glance(dentry: Dentry, state: *mut HostState) -> Option<(u32, u32)> {
    let parent = dentry.parent();
    if parent.0 == dentry.0 {
        return None;
    }
    // SAFETY: the map's only value; an aligned load does not tear.
    let kept = recall(parent, unsafe { (&raw const (*state).epoch).read_volatile() })?;
    (kept.leaf != DIRECTORY_READ).then_some((kept.leaf, kept.sequence))
}

/// The same for an inode of which no name is at hand: by the first it has. Where it has none in memory it is unknown.
#[inline(always)]
pub fn locate_alias(frame: &Frame, inode: Inode, number: usize) {
    locate_address(frame, inode.first_alias(), number);
}

/// The same for a dentry of which only the address is known; 0: none.
#[inline(never)]
pub fn locate_address(frame: &Frame, dentry: u64, number: usize) {
    let scratch = frame.scratch();
    scratch.progress.line = line::DISCONNECTED;
    if dentry != 0 {
        let attempt = AddressAttempt { frame: *frame, dentry };
        repeat!(ATTEMPTS, try_address, &raw const attempt);
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

/// One try; 0: something on the way was moved meanwhile, try again.
unsafe extern "C" fn try_once(_: u32, context: *mut c_void) -> i64 {
    // SAFETY: `locate` waits for the loop.
    let attempt = unsafe { &*context.cast::<Attempt>() };
    let (frame, dentry) = (&attempt.frame, attempt.dentry);
    let scratch = frame.scratch();
    let holder = begin(frame, dentry, attempt.root != 0);
    let lost = climb_up(frame, holder.address(), FileSystem::of(holder));
    let why = if lost == 0 { arrive(attempt) } else { lost };
    match path::moved(frame, dentry.address()) {
        Moved::Something => {
            scratch.progress.line = line::TORN;
            return 0;
        }
        Moved::Nothing if lost == 0 => remember(frame, holder),
        _ => {}
    }
    scratch.progress.line = why;
    1
}

/// Begins a way up; gives the directory that the name is in.
#[inline(always)]
fn begin(frame: &Frame, dentry: Dentry, root: bool) -> Dentry {
    path::begin(frame);
    if root {
        return dentry;
    }
    path::visit(frame, dentry.address());
    dentry.parent()
}

/// What the attempts at an address share.
#[repr(C)]
struct AddressAttempt {
    frame: Frame,
    dentry: u64,
}

/// One try, never kept.
unsafe extern "C" fn try_address(_: u32, context: *mut c_void) -> i64 {
    // SAFETY: `locate_address` waits for the loop.
    let attempt = unsafe { &*context.cast::<AddressAttempt>() };
    let frame = &attempt.frame;
    path::begin(frame);
    let why = match FileSystem::of_address(attempt.dentry) {
        Some(system) => climb_up(frame, attempt.dentry, system),
        None => line::MEMORY,
    };
    if matches!(path::moved(frame, attempt.dentry), Moved::Something) {
        frame.scratch().progress.line = line::TORN;
        return 0;
    }
    frame.scratch().progress.line = why;
    1
}

/// What the way up needs of a file system.
#[derive(Clone, Copy)]
struct FileSystem {
    address: u64,
    root: u64,
    magic: u64,
    device: u32,
    folds: bool,
}

impl FileSystem {
    #[inline(always)]
    fn of(dentry: Dentry) -> Self {
        let block = dentry.super_block();
        Self {
            address: block.address(),
            root: block.root().address(),
            magic: block.magic(),
            device: block.device(),
            folds: dentry.folds(),
        }
    }

    #[inline(always)]
    fn of_address(dentry: u64) -> Option<Self> {
        let block: u64 = peek_member(dentry, DENTRY_SB)?;
        let magic: u64 = peek_member(block, SB_MAGIC)?;
        let folds = peek_member::<u32>(dentry, DENTRY_FLAGS)? & 2 != 0 && magic != 0x9fa0;
        let (root, device) = (peek_member(block, SB_ROOT)?, peek_member(block, SB_DEV)?);
        Some(Self { address: block, root, magic, device, folds })
    }
}

/// What is kept with the directory's inode. Its sequence is compared at the end.
#[inline(always)]
fn recall(holder: Dentry, epoch: u32) -> Option<&'static Directory> {
    let map = (&raw const DIRS).cast_mut().cast();
    let kept: *mut Directory = holder.inode().stored(map, core::ptr::null_mut::<Directory>(), 0);
    // SAFETY: null, or a value of the map, which is replaced and never changed.
    let kept = unsafe { kept.as_ref() }?;
    (kept.serial == read(&HOST.serial) && kept.epoch == epoch && kept.age == age()).then_some(kept)
}

/// Keeps the directory's place with its inode.
#[inline(always)]
fn remember(frame: &Frame, holder: Dentry) {
    let map: *mut c_void = (&raw const DIRS).cast_mut().cast();
    let inode = holder.inode();
    inode.forget(map);
    inode.stored(map, &raw mut frame.scratch().directory, 1);
}

/// Finds the directory's place anew; gives why it cannot be told.
#[inline(always)]
fn climb_up(frame: &Frame, dentry: u64, system: FileSystem) -> u32 {
    let scratch = frame.scratch();
    scratch.directory.epoch = frame.epoch();
    scratch.progress.hashing = frame.entries();
    // SAFETY: the map's only value; an aligned load does not tear.
    scratch.progress.hash = unsafe { (&raw const (*frame.state()).secret).read_volatile() };
    scratch.directory.serial = read(&HOST.serial);
    scratch.directory.age = age();
    gather(frame, dentry, system.root);
    if scratch.climb.line != Climb::ARRIVED {
        return scratch.climb.line;
    }
    let in_file_system = scratch.climb.at;
    let found = mounts::find(frame, mounts::key(system.magic, system.address, system.device));
    if !found && Task::current().mount_namespace() == host_namespace(frame) {
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
    // Names in it are neither too long nor too deep, and the mount namespace does not matter.
    let short = length + 256 <= MAX_LENGTH && progress.depth < MAX_DEPTH;
    let settled = progress.walk.state == 0 && progress.hashing == 0 && flags & DIRECTORY_FOREIGN == 0 && short;
    let leaf = if settled { progress.walk.leaf(&HOST.paths, frame.tables()) } else { None };
    scratch.directory.leaf = leaf.unwrap_or(DIRECTORY_READ);
    0
}

/// Goes from the directory to the place itself; gives why it cannot be told.
#[inline(never)]
fn arrive(attempt: &Attempt) -> u32 {
    let frame = &attempt.frame;
    let scratch = frame.scratch();
    let directory = &scratch.directory;
    let progress = &mut scratch.progress;
    if directory.flags & DIRECTORY_FOREIGN != 0 && Task::current().mount_namespace() == host_namespace(frame) {
        return line::SUPERBLOCK;
    }
    progress.walk = Walk { state: directory.state, trees: directory.trees };
    progress.hash = directory.hash;
    progress.entries = directory.entries;
    progress.depth = directory.depth;
    progress.line = 0;
    progress.hashing = frame.entries();
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
    repeat!(len + 1, step, &raw const *frame);
    if scratch.progress.line != 0 {
        return scratch.progress.line;
    }
    if end_component(frame).is_none() { line::MEMORY } else { 0 }
}

#[inline(always)]
fn host_namespace(frame: &Frame) -> u32 {
    // SAFETY: the map's only value; an aligned load does not tear.
    unsafe { (&raw const (*frame.state()).mount_namespace).read_volatile() }
}
