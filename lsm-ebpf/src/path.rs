//! A path as bytes: gathered from names on the way up, read by the automaton from its beginning.

use core::ffi::c_void;

use ringfence_abi::host::{
    MOUNT_PATH, PATH_TREE, PathHashKey, hash_byte,
    layout::{DENTRY_LEN, DENTRY_NAME, DENTRY_PARENT, DENTRY_SEQ},
    line,
};

use crate::{
    arena::opaque,
    kernel::{copy, peek_member, rename_sequence},
    maps::{HOST, PATH_HASHES},
    repeat::repeat,
    scratch::{BUFFER, Climb, Frame, HEAD, MAX_DEPTH, MAX_VISITS, Scratch, TOP},
};

/// Dynamic entries for a path.
#[inline(always)]
pub fn entries(hash: u64, tree: u64) -> u64 {
    let key = PathHashKey { hash, tree };
    // SAFETY: the value is read at once; user space replaces it whole.
    unsafe { PATH_HASHES.get(&key) }.copied().unwrap_or(0)
}

/// Reads a byte.
pub unsafe extern "C" fn step(index: u32, context: *mut c_void) -> i64 {
    let frame = Frame::of(context);
    let scratch = frame.scratch();
    let at = opaque(u64::from(scratch.progress.position + index));
    if at >= BUFFER as u64 {
        return 1;
    }
    let byte = scratch.path[at as usize];
    if byte == b'/' {
        if index > 0 && end_component(frame).is_none() {
            scratch.progress.line = line::MEMORY;
            return 1;
        }
        let progress = &mut scratch.progress;
        if at as u32 >= progress.folds && progress.walk.reach(&HOST.paths, frame.tables()) != Some(0) {
            progress.line = line::FOLDED;
            return 1;
        }
        progress.depth += 1;
        if progress.depth > MAX_DEPTH {
            progress.line = line::DEPTH;
            return 1;
        }
    }
    let progress = &mut scratch.progress;
    if progress.hashing != 0 {
        progress.hash = hash_byte(progress.hash, byte);
    }
    if progress.walk.step(&HOST.paths, frame.tables(), byte).is_none() {
        progress.line = line::MEMORY;
        return 1;
    }
    0
}

/// Ends a component.
#[inline(always)]
pub fn end_component(frame: &Frame) -> Option<()> {
    let progress = &mut frame.scratch().progress;
    if progress.hashing != 0 {
        progress.entries |= entries(progress.hash, PATH_TREE);
    }
    progress.walk.arrive(&HOST.paths, frame.tables())
}

/// Begins a way up.
#[inline(always)]
pub fn begin(frame: &Frame) {
    let scratch = frame.scratch();
    scratch.directory.sequence = rename_sequence();
    scratch.climb.visited = 0;
}

/// Notes a dentry's own sequence before anything is read of it.
#[inline(always)]
pub fn visit(frame: &Frame, node: u64) {
    let scratch = frame.scratch();
    let index = opaque(u64::from(scratch.climb.visited));
    // `gather` ends before.
    if index < MAX_VISITS as u64 {
        scratch.sequences[index as usize] = peek_member::<u32>(node, DENTRY_SEQ).unwrap_or(u32::MAX);
        scratch.climb.visited = index as u32 + 1;
    }
}

/// What was moved since [`begin`].
pub enum Moved {
    /// Nothing on any file system.
    Nothing,
    /// Nothing that was visited.
    Others,
    /// Something that was visited.
    Something,
}

/// Finds out what was moved since [`begin`], on the way that began at `node`.
#[inline(always)]
pub fn moved(frame: &Frame, node: u64) -> Moved {
    let scratch = frame.scratch();
    let sequence = scratch.directory.sequence;
    if sequence & 1 == 0 && sequence == rename_sequence() {
        return Moved::Nothing;
    }
    // Each dentry was as it was read between its first visit and its second. All first ones came before all second ones,
    // so the whole way was like this at once.
    scratch.climb.node = node;
    scratch.climb.line = Climb::ARRIVED;
    repeat!(scratch.climb.visited, revisit, &raw const *frame);
    if frame.scratch().climb.line == Climb::ARRIVED { Moved::Others } else { Moved::Something }
}

unsafe extern "C" fn revisit(index: u32, context: *mut c_void) -> i64 {
    let scratch = Frame::of(context).scratch();
    let index = opaque(u64::from(index));
    if index >= MAX_VISITS as u64 {
        return 1;
    }
    let parent = peek_member::<u64>(scratch.climb.node, DENTRY_PARENT);
    let sequence = peek_member::<u32>(scratch.climb.node, DENTRY_SEQ);
    let noted = scratch.sequences[index as usize];
    // Odd: it was being changed when it was read.
    if let (Some(parent), Some(sequence)) = (parent, sequence)
        && sequence == noted
        && noted & 1 == 0
    {
        scratch.climb.node = parent;
        return 0;
    }
    scratch.climb.line = line::TORN;
    1
}

/// Gathers the path from `node` up to `root` before `TOP`.
#[inline(always)]
pub fn gather(frame: &Frame, node: u64, root: u64) {
    let climb = &mut frame.scratch().climb;
    climb.node = node;
    climb.root = root;
    climb.at = TOP;
    // Stays if there is no end to it.
    climb.line = line::DEPTH;
    repeat!(MAX_DEPTH + 1, climb_one, &raw const *frame);
}

unsafe extern "C" fn climb_one(_: u32, context: *mut c_void) -> i64 {
    let frame = Frame::of(context);
    let scratch = frame.scratch();
    let node = scratch.climb.node;
    if node == scratch.climb.root {
        scratch.climb.line = Climb::ARRIVED;
        return 1;
    }
    visit(frame, node);
    let (Some(parent), Some(len), Some(name)) = (
        peek_member::<u64>(node, DENTRY_PARENT),
        peek_member::<u32>(node, DENTRY_LEN),
        peek_member::<u64>(node, DENTRY_NAME),
    ) else {
        scratch.climb.line = line::MEMORY;
        return 1;
    };
    if parent == node {
        scratch.climb.line = line::DISCONNECTED;
        return 1;
    }
    scratch.climb.node = parent;
    i64::from(!prepend(scratch, len, name))
}

/// Puts a name before what has been gathered; `false`: it does not fit.
#[inline(always)]
pub fn prepend(scratch: &mut Scratch, len: u32, name: u64) -> bool {
    scratch.climb.line = line::LENGTH;
    if len > 255 || scratch.climb.at < HEAD + 1 + len {
        return false;
    }
    let at = opaque(u64::from(scratch.climb.at - 1 - len));
    if at > u64::from(TOP) {
        return false;
    }
    scratch.climb.at = at as u32;
    scratch.path[at as usize] = b'/';
    let to = (&raw mut scratch.path).cast::<u8>().wrapping_add(at as usize + 1);
    if !copy(to, (opaque(u64::from(len)) & 0xff) as u32, name) {
        scratch.climb.line = line::MEMORY;
        return false;
    }
    scratch.climb.line = line::DEPTH;
    true
}

const _: () = assert!(MOUNT_PATH as u32 == HEAD && BUFFER as u32 >= TOP + 512);
