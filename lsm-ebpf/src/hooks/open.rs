//! Reading and writing of a file's data.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::op::{APPEND, READ, WRITE};

use crate::{
    call::{bit, judged},
    judge::glance,
    kernel::{Dentry, File, argument},
    walk::Wish,
};

const DATA: u32 = bit(READ) | bit(WRITE) | bit(APPEND);
/// `FMODE_EXEC` among a file's flags: opened to be executed, which `bprm_check_security` judges. No system call sets it.
const FOR_EXEC: u32 = 0x20;
const O_ACCMODE: u32 = 3;
const O_APPEND: u32 = 0o2000;
/// `FMODE_READ` and `FMODE_WRITE`.
const MODE_READ: u32 = 1;
const MODE_WRITE: u32 = 2;

/// What an open file is for.
#[inline(always)]
fn asked(file: File) -> u32 {
    let (flags, mode) = (file.flags(), file.mode());
    if flags & FOR_EXEC != 0 {
        return 0;
    }
    let mut ops = 0;
    // Access mode 3 gives neither, but ioctls on the device.
    let neither = flags & O_ACCMODE == O_ACCMODE;
    if mode & MODE_READ != 0 || neither {
        ops |= bit(READ);
    }
    if mode & MODE_WRITE != 0 || neither {
        ops |= if flags & O_APPEND != 0 { bit(APPEND) } else { bit(WRITE) };
    }
    ops
}

/// open, openat, openat2, creat, `io_uring`, `open_by_handle_at`, and the reopening of descriptors.
#[lsm(hook = "file_open")]
fn h_file_open(ctx: LsmContext) -> i32 {
    let file = File(argument(&ctx, 0));
    let ops = asked(file);
    if ops == 0 {
        return 0;
    }
    let read = ops == bit(READ);
    if (read || ops == bit(WRITE)) && file.is_plain() && glance(file.dentry(), if read { READ } else { WRITE }) {
        return 0;
    }
    judged(DATA, |call| if call.file(file)? { call.ask(ops) } else { Some(true) })
}

/// A descriptor that arrives over a Unix socket.
#[lsm(hook = "file_receive")]
fn h_file_receive(ctx: LsmContext) -> i32 {
    let file = File(argument(&ctx, 0));
    let ops = asked(file);
    if ops == 0 {
        return 0;
    }
    judged(DATA, |call| if call.file(file)? { call.ask(ops) } else { Some(true) })
}

/// ftruncate, and truncation by open (6.2 and newer).
#[lsm(hook = "file_truncate")]
fn h_file_truncate(ctx: LsmContext) -> i32 {
    let file = File(argument(&ctx, 0));
    judged(bit(WRITE), |call| if call.file(file)? { call.ask(bit(WRITE)) } else { Some(true) })
}

/// truncate; before 6.2 also ftruncate and truncation by open.
#[lsm(hook = "path_truncate")]
fn h_path_truncate(ctx: LsmContext) -> i32 {
    let dentry = Dentry::of_path(argument(&ctx, 0));
    judged(bit(WRITE), |call| {
        call.dentry(dentry, Wish::ITSELF)?;
        call.ask(bit(WRITE))
    })
}
