//! Operations with two names.
//!
//! Each name is asked. Beyond that a new name must not allow what the old one refuses, and what cannot be read is not
//! replaced; directories stand for all that lies below them.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::op::{APPEND, ATTR, CREATE, DELETE, EXEC, LINK, MAP_EXEC, READ, RENAME, WRITE};

use crate::{
    call::{bit, judged},
    kernel::{Dentry, argument},
    walk::{self, Wish},
};

const MOVES: u32 = bit(READ)
    | bit(WRITE)
    | bit(APPEND)
    | bit(EXEC)
    | bit(MAP_EXEC)
    | bit(ATTR)
    | bit(CREATE)
    | bit(DELETE)
    | bit(RENAME)
    | bit(LINK);

/// rename, renameat, renameat2; the kernel calls it twice for an exchange, each way.
#[lsm(hook = "inode_rename")]
fn h_inode_rename(ctx: LsmContext) -> i32 {
    let (old, new) = (Dentry(argument(&ctx, 1)), Dentry(argument(&ctx, 3)));
    judged(MOVES, |call| {
        let wish = Wish { below: old.inode().is_directory(), text: false };
        call.dentry(old, wish)?;
        // What could still be protected below the new name says nothing of what comes to lie there.
        walk::locate(&call.frame, new, 1, Wish::ITSELF);
        if !call.ask_both(bit(RENAME), bit(RENAME))? || !call.keeps_protection()? {
            return Some(false);
        }
        Some(new.inode().is_null() || !call.is_protected(READ, 1))
    })
}

/// link, linkat.
#[lsm(hook = "inode_link")]
fn h_inode_link(ctx: LsmContext) -> i32 {
    let (old, new) = (Dentry(argument(&ctx, 0)), Dentry(argument(&ctx, 2)));
    judged(MOVES, |call| {
        call.dentry(old, Wish::ITSELF)?;
        walk::locate(&call.frame, new, 1, Wish::ITSELF);
        Some(call.ask_both(bit(LINK), bit(LINK))? && call.keeps_protection()?)
    })
}
