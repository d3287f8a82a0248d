//! The host's mounts: from a path within a file system to the host's path.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use ringfence_abi::host::{
    MOUNT_BY_MAGIC, MOUNT_PATH, MOUNT_ROOTS, Mount, MountKey,
    layout::{DENTRY_SB, SB_DEV, SB_MAGIC},
};

use crate::{
    arena::opaque,
    kernel::{SuperBlock, copy, peek_member},
    maps::MOUNTS,
    repeat::repeat,
    scratch::{BUFFER, Climb, Frame, TOP},
};

/// What is mounted of the file system.
#[inline(always)]
fn mount(file_system: u64, index: u32) -> Option<&'static Mount> {
    // SAFETY: the value may be replaced or go while it is read; the epoch then says that what was made of it is void.
    unsafe { MOUNTS.get(&MountKey { file_system, index, zero: 0 }) }
}

/// The key that a file system's mounts are kept under.
#[inline(always)]
pub fn key(magic: u64, address: u64, device: u32) -> u64 {
    let by_magic = MOUNT_BY_MAGIC | magic;
    if mount(by_magic, 0).is_some() {
        by_magic
    } else if mount(address, 0).is_some() {
        address
    } else {
        u64::from(device)
    }
}

#[inline(always)]
fn key_of(super_block: SuperBlock) -> u64 {
    key(super_block.magic(), super_block.address(), super_block.device())
}

/// Whether the host has mounted anything of the file system.
#[inline(always)]
pub fn is_known(super_block: SuperBlock) -> bool {
    mount(key_of(super_block), 0).is_some()
}

/// The same for the file system of a dentry whose address is known.
#[inline(always)]
pub fn is_known_by_address(dentry: u64) -> bool {
    let Some(super_block) = peek_member::<u64>(dentry, DENTRY_SB) else { return false };
    let (Some(magic), Some(device)) =
        (peek_member::<u64>(super_block, SB_MAGIC), peek_member::<u32>(super_block, SB_DEV))
    else {
        return false;
    };
    mount(key(magic, super_block, device), 0).is_some()
}

/// Enters where a file system is mounted, unless a place of it is known. `true`: it was entered.
#[inline(always)]
pub fn enter(super_block: SuperBlock, mount: &mut Mount) -> bool {
    let known = key_of(super_block);
    if known & MOUNT_BY_MAGIC != 0 && known != super_block.address() {
        return false;
    }
    mount.device = u64::from(super_block.device());
    let key = MountKey { file_system: super_block.address(), index: 0, zero: 0 };
    if super_block.is_fresh() {
        // What is there was of another one at this address, or with this number.
        remove(super_block);
    } else if self::mount(known, 0).is_some() {
        return false;
    }
    MOUNTS.insert(&key, mount, u64::from(BPF_NOEXIST)).is_ok()
}

/// Removes what is known of a file system. `true`: something was.
#[inline(always)]
pub fn remove(super_block: SuperBlock) -> bool {
    let (mut any, mut index) = (false, 0);
    while index < MOUNT_ROOTS {
        for file_system in [super_block.address(), u64::from(super_block.device())] {
            any |= MOUNTS.remove(&MountKey { file_system, index, zero: 0 }).is_ok();
        }
        index += 1;
    }
    any
}

/// Replaces the root of a mount, at the beginning of the path that was gathered, by the mount point. `false`: the host
/// has not mounted this part of the file system.
#[inline(always)]
pub fn find(frame: &Frame, file_system: u64) -> bool {
    let scratch = frame.scratch();
    scratch.climb.file_system = file_system;
    scratch.climb.index = Climb::NO_MOUNT;
    scratch.climb.matched = 0;
    repeat!(MOUNT_ROOTS, choose, &raw const *frame);
    let Some(mount) = mount(scratch.climb.file_system, scratch.climb.index) else { return false };
    let len = mount.point_len;
    let at = scratch.climb.at + scratch.climb.matched;
    if len >= MOUNT_PATH as u32 || at < len {
        return false;
    }
    let at = opaque(u64::from(at - len));
    if at > u64::from(TOP) {
        return false;
    }
    scratch.climb.at = at as u32;
    let to = (&raw mut scratch.path).cast::<u8>().wrapping_add(at as usize);
    copy(to, (opaque(u64::from(len)) & 0xff) as u32, (&raw const mount.point) as u64)
}

/// Looks at one mount: the longest root that the path begins with is taken.
unsafe extern "C" fn choose(index: u32, context: *mut c_void) -> i64 {
    let frame = Frame::of(context);
    let climb = &mut frame.scratch().climb;
    let Some(mount) = mount(climb.file_system, index) else { return 1 };
    let len = mount.root_len;
    if len >= MOUNT_PATH as u32 {
        return 0;
    }
    if climb.index != Climb::NO_MOUNT && len <= climb.matched {
        return 0;
    }
    let comparison = Comparison { frame: *frame, root: &raw const mount.root };
    climb.root = 0;
    if len > 0 {
        repeat!(len, compare, &raw const comparison);
        let end = opaque(u64::from(climb.at + len));
        if climb.root != u64::from(len) || end > u64::from(TOP) {
            return 0;
        }
        // The root is a whole component's end.
        if end < u64::from(TOP) && frame.scratch().path[end as usize] != b'/' {
            return 0;
        }
    }
    climb.index = index;
    climb.matched = len;
    0
}

#[repr(C)]
struct Comparison {
    frame: Frame,
    root: *const [u8; MOUNT_PATH],
}

/// Compares a byte; counts the equal ones in `climb.root`, which the way up no longer needs.
unsafe extern "C" fn compare(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `choose` waits for the loop.
    let comparison = unsafe { &*context.cast::<Comparison>() };
    let scratch = comparison.frame.scratch();
    let at = opaque(u64::from(scratch.climb.at + index));
    let index = opaque(u64::from(index));
    if at >= BUFFER as u64 || index >= MOUNT_PATH as u64 {
        return 1;
    }
    // SAFETY: a value of the map, and an index within it.
    let expected = unsafe { (*comparison.root)[index as usize] };
    if scratch.path[at as usize] != expected {
        return 1;
    }
    scratch.climb.root += 1;
    0
}
