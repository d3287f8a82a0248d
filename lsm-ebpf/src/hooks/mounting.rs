//! Mounts: whether they may be made, and what they make of paths.
//!
//! A mount over a directory replaces what is below it, so it is asked as a rename onto it is. What the host's own
//! namespace mounts is entered in the mount table at once, also while the daemon is dead.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::{
    KEEPS_MOUNTS, MOUNT_PATH,
    op::{APPEND, ATTR, CREATE, DELETE, EXEC, LINK, MAP_EXEC, MOUNT, READ, RENAME, UMOUNT, WRITE},
};
use ringfence_engine::ro::read;

use crate::{
    arena::opaque,
    call::{Call, bit, is_asked, judged, judged_always},
    kernel::{Dentry, Mount, SuperBlock, Task, argument, copy, short_string},
    maps::{HOST, scratch, state},
    mounts, report,
    scratch::{Frame, TOP},
    walk::{self, Wish},
};

const ASKED: u32 = bit(READ)
    | bit(WRITE)
    | bit(APPEND)
    | bit(EXEC)
    | bit(MAP_EXEC)
    | bit(ATTR)
    | bit(CREATE)
    | bit(DELETE)
    | bit(RENAME)
    | bit(LINK)
    | bit(MOUNT);
/// `MS_REMOUNT`, and changes of propagation: nothing new is seen at the place.
const IN_PLACE: u64 = 0x20 | 1 << 17 | 1 << 18 | 1 << 19 | 1 << 20;
/// `MS_BIND` and `MS_MOVE`: no new file system.
const KNOWN: u64 = 0x1000 | 0x2000;

#[inline(always)]
fn keeps() -> bool {
    read(&HOST.keeps) & KEEPS_MOUNTS != 0
}

/// Whether the caller's mounts are the host's.
#[inline(always)]
fn in_host() -> bool {
    // SAFETY: the map's only value; an aligned load does not tear.
    state().is_some_and(|state| unsafe { (*state).mount_namespace } == Task::current().mount_namespace())
}

/// Asks for a mount over `place`, which has been located with all that is below.
#[inline(always)]
fn covered(call: Call) -> Option<bool> {
    if !is_asked(ASKED) {
        return Some(true);
    }
    Some(call.ask(bit(MOUNT) | bit(RENAME))? && !call.is_protected(READ, 0))
}

/// Notes the host path of a mount point, which was just located with its text.
#[inline(always)]
fn stash(frame: &Frame, place: Dentry) -> bool {
    let scratch = frame.scratch();
    scratch.stash.set = 0;
    if scratch.progress.line != 0 {
        return false;
    }
    let at = opaque(u64::from(scratch.climb.at));
    if at > u64::from(TOP) {
        return false;
    }
    let name = if place.parent().0 == place.0 { 0 } else { 1 + place.name_len() };
    let length = opaque(u64::from(TOP + name) - at);
    if length >= MOUNT_PATH as u64 {
        return false;
    }
    scratch.stash.mount.root_len = 0;
    scratch.stash.mount.point_len = length as u32;
    let from = (&raw const scratch.path).cast::<u8>().wrapping_add(at as usize);
    copy((&raw mut scratch.stash.mount.point).cast(), length as u32, from as u64)
}

/// Enters a file system at the place that was noted, unless the host has mounted it already.
#[inline(always)]
fn enter(frame: &Frame, super_block: SuperBlock) {
    if mounts::enter(super_block, &mut frame.scratch().stash.mount) {
        changed();
    }
}

/// Paths are not what they were: cached directories are walked anew.
#[inline(always)]
fn changed() {
    if let Some(state) = state() {
        // SAFETY: the map's only value.
        report::add32(unsafe { &raw mut (*state).epoch }, 1);
    }
}

/// mount.
#[lsm(hook = "sb_mount")]
fn h_sb_mount(ctx: LsmContext) -> i32 {
    let (place, kind, flags) = (Dentry::of_path(argument(&ctx, 1)), ctx.arg::<u64>(2), ctx.arg::<u64>(3));
    let keeps = keeps();
    if !keeps && !is_asked(ASKED) {
        return 0;
    }
    let in_place = flags & IN_PLACE != 0;
    let fresh = !in_place && flags & KNOWN == 0;
    let noted = keeps && fresh && in_host();
    judged_always(ASKED, |call| {
        call.frame.scratch().stash.set = 0;
        call.classes().fstype(&mut call.frame.scratch().access, short_string(kind))?;
        if !fresh {
            call.classes().no_fstype(&mut call.frame.scratch().access);
        }
        walk::locate(&call.frame, place, 0, Wish { below: !in_place, text: noted });
        if noted {
            let set = stash(&call.frame, place);
            call.frame.scratch().stash.set = u32::from(set);
        }
        if in_place { call.ask(bit(MOUNT)) } else { covered(call) }
    })
}

/// A file system that `mount` is about to show.
#[lsm(hook = "sb_kern_mount")]
fn h_sb_kern_mount(ctx: LsmContext) -> i32 {
    if keeps()
        && let Some(frame) = Frame::new(scratch(Task::current()))
    {
        if frame.scratch().stash.set != 0 {
            frame.scratch().stash.set = 0;
            enter(&frame, SuperBlock(argument(&ctx, 0)));
        }
    }
    0
}

/// `move_mount`: by which file systems made with the new interface are shown.
#[lsm(hook = "move_mount")]
fn h_move_mount(ctx: LsmContext) -> i32 {
    let (from, to) = (argument(&ctx, 0), argument(&ctx, 1));
    let (place, super_block) = (Dentry::of_path(to), Mount::of_path(from).super_block());
    let keeps = keeps();
    if !keeps && !is_asked(ASKED) {
        return 0;
    }
    let noted = keeps && in_host() && super_block.root().0 == Dentry::of_path(from).0;
    judged_always(ASKED, |call| {
        call.file_system(super_block)?;
        walk::locate(&call.frame, place, 0, Wish { below: true, text: noted });
        let noted = noted && stash(&call.frame, place);
        let allowed = covered(call)?;
        if noted && (allowed || !report::enforcing()) {
            enter(&call.frame, super_block);
        }
        Some(allowed)
    })
}

/// A file system that is gone: its device number may be another's next.
#[lsm(hook = "sb_free_security")]
fn h_sb_free_security(ctx: LsmContext) -> i32 {
    if !keeps() {
        return 0;
    }
    if mounts::remove(SuperBlock(argument(&ctx, 0))) {
        changed();
    }
    0
}

/// A change of a mounted file system's options.
#[lsm(hook = "sb_remount")]
fn h_sb_remount(ctx: LsmContext) -> i32 {
    let super_block = SuperBlock(argument(&ctx, 0));
    judged(bit(MOUNT), |call| {
        call.dentry(super_block.root(), Wish::ITSELF)?;
        call.ask(bit(MOUNT))
    })
}

/// `pivot_root`.
#[lsm(hook = "sb_pivotroot")]
fn h_sb_pivotroot(ctx: LsmContext) -> i32 {
    let (old, new) = (Dentry::of_path(argument(&ctx, 0)), Dentry::of_path(argument(&ctx, 1)));
    judged(bit(MOUNT), |call| {
        call.dentry(old, Wish::ITSELF)?;
        walk::locate(&call.frame, new, 1, Wish::ITSELF);
        call.ask_both(bit(MOUNT), bit(MOUNT))
    })
}

/// umount; the place is that of what the mount shows.
#[lsm(hook = "sb_umount")]
fn h_sb_umount(ctx: LsmContext) -> i32 {
    let root = Mount(argument(&ctx, 0)).root();
    judged(bit(UMOUNT), |call| {
        call.dentry(root, Wish::ITSELF)?;
        call.ask(bit(UMOUNT))
    })
}
