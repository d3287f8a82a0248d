//! Code that is mapped.
//!
//! Code from outside the trusted trees may be anybody's: whoever maps it keeps its executable, but no permission that
//! depends on it.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::{KEEPS_SUBJECTS, op::MAP_EXEC};
use ringfence_engine::ro::read;

use crate::{
    call::{bit, is_asked, judged_always},
    kernel::{File, Task, argument},
    maps::HOST,
    subject,
};

const PROT_EXEC: u64 = 4;

#[inline(always)]
fn mapped(file: File, protection: u64) -> i32 {
    let keeps = read(&HOST.keeps) & KEEPS_SUBJECTS != 0;
    if protection & PROT_EXEC == 0 || file.is_null() || !(keeps || is_asked(bit(MAP_EXEC))) {
        return 0;
    }
    judged_always(bit(MAP_EXEC), |call| {
        if !call.file(file)? {
            return Some(true);
        }
        if keeps {
            let task = Task::current();
            if file.inode().address() != task.executed_inode() && !subject::is_trusted(&call.frame, 0) {
                subject::taint(task.leader());
            }
        }
        if is_asked(bit(MAP_EXEC)) { call.ask(bit(MAP_EXEC)) } else { Some(true) }
    })
}

/// mmap with `PROT_EXEC`, also by execve and ld.so.
#[lsm(hook = "mmap_file")]
fn h_mmap_file(ctx: LsmContext) -> i32 {
    mapped(File(argument(&ctx, 0)), ctx.arg(2))
}

/// The file behind an overlay's, where the overlay's own mapping says nothing of it.
#[lsm(hook = "mmap_backing_file")]
fn h_mmap_backing_file(ctx: LsmContext) -> i32 {
    mapped(File(argument(&ctx, 1)), PROT_EXEC)
}

/// mprotect with `PROT_EXEC`.
#[lsm(hook = "file_mprotect")]
fn h_file_mprotect(ctx: LsmContext) -> i32 {
    mapped(File::of_mapping(argument(&ctx, 0)), ctx.arg(2))
}
