//! New names, and names that go.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::{
    field::FAMILY,
    op::{BIND, CREATE, DELETE},
};

use crate::{
    call::{bit, judged},
    kernel::{Dentry, argument},
    walk::Wish,
};

const AF_UNIX: u32 = 1;

#[inline(always)]
fn created(ctx: &LsmContext) -> i32 {
    let dentry = Dentry(argument(ctx, 1));
    judged(bit(CREATE), |call| {
        call.new_name(dentry)?;
        call.ask(bit(CREATE))
    })
}

#[inline(always)]
fn removed(ctx: &LsmContext) -> i32 {
    let dentry = Dentry(argument(ctx, 1));
    judged(bit(DELETE), |call| {
        call.dentry(dentry, Wish::ITSELF)?;
        call.ask(bit(DELETE))
    })
}

/// open with `O_CREAT`, creat.
#[lsm(hook = "inode_create")]
fn h_inode_create(ctx: LsmContext) -> i32 {
    created(&ctx)
}

/// mkdir, mkdirat.
#[lsm(hook = "inode_mkdir")]
fn h_inode_mkdir(ctx: LsmContext) -> i32 {
    created(&ctx)
}

/// symlink, symlinkat.
#[lsm(hook = "inode_symlink")]
fn h_inode_symlink(ctx: LsmContext) -> i32 {
    created(&ctx)
}

/// mknod, mknodat, and bind of a Unix socket to a path, which makes one.
#[lsm(hook = "inode_mknod")]
fn h_inode_mknod(ctx: LsmContext) -> i32 {
    let (dentry, mode): (_, u32) = (Dentry(argument(&ctx, 1)), ctx.arg(2));
    let socket = mode & 0o17_0000 == 0o14_0000;
    judged(bit(CREATE) | bit(BIND), |call| {
        call.new_name(dentry)?;
        if !socket {
            return call.ask(bit(CREATE));
        }
        call.classes().direct::<FAMILY>(&mut call.frame.scratch().access, AF_UNIX)?;
        call.ask(bit(CREATE) | bit(BIND))
    })
}

/// unlink, unlinkat.
#[lsm(hook = "inode_unlink")]
fn h_inode_unlink(ctx: LsmContext) -> i32 {
    removed(&ctx)
}

/// rmdir.
#[lsm(hook = "inode_rmdir")]
fn h_inode_rmdir(ctx: LsmContext) -> i32 {
    removed(&ctx)
}
