//! Mode, owner, times, extended attributes.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::op::{ATTR, WRITE};

use crate::{
    call::{bit, judged},
    kernel::{Dentry, argument, attributes_valid, setattr_arguments},
    walk::Wish,
};

/// `ATTR_SIZE`: a truncation, which counts as writing.
const SIZE: u32 = 1 << 3;
/// `ATTR_FORCE`: the kernel drops set-user-ID bits and the like after a write; nobody asked for it.
const FORCE: u32 = 1 << 9;

#[inline(always)]
fn changed(dentry: Dentry) -> i32 {
    judged(bit(ATTR), |call| {
        call.dentry(dentry, Wish::ITSELF)?;
        call.ask(bit(ATTR))
    })
}

/// chmod, chown, utimes and their kin; truncation.
#[lsm(hook = "inode_setattr")]
fn h_inode_setattr(ctx: LsmContext) -> i32 {
    let (dentry, attributes) = setattr_arguments(&ctx);
    let valid = attributes_valid(attributes);
    let asked = if valid & SIZE != 0 { bit(WRITE) } else { bit(ATTR) };
    if valid & SIZE == 0 && valid & FORCE != 0 {
        return 0;
    }
    judged(bit(WRITE) | bit(ATTR), |call| {
        call.dentry(dentry, Wish::ITSELF)?;
        call.ask(asked)
    })
}

/// setxattr and its kin.
#[lsm(hook = "inode_setxattr")]
fn h_inode_setxattr(ctx: LsmContext) -> i32 {
    changed(Dentry(argument(&ctx, 1)))
}

/// removexattr and its kin.
#[lsm(hook = "inode_removexattr")]
fn h_inode_removexattr(ctx: LsmContext) -> i32 {
    changed(Dentry(argument(&ctx, 1)))
}

/// setxattr of an access control list, since 6.2.
#[lsm(hook = "inode_set_acl")]
fn h_inode_set_acl(ctx: LsmContext) -> i32 {
    changed(Dentry(argument(&ctx, 1)))
}

/// removexattr of one.
#[lsm(hook = "inode_remove_acl")]
fn h_inode_remove_acl(ctx: LsmContext) -> i32 {
    changed(Dentry(argument(&ctx, 1)))
}
