//! ioctl.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::op::IOCTL;

use crate::{
    call::{bit, judged},
    kernel::{File, argument},
};

#[inline(always)]
fn asked(ctx: &LsmContext) -> i32 {
    let file = File(argument(ctx, 0));
    judged(bit(IOCTL), |call| if call.file(file)? { call.ask(bit(IOCTL)) } else { Some(true) })
}

/// ioctl.
#[lsm(hook = "file_ioctl")]
fn h_file_ioctl(ctx: LsmContext) -> i32 {
    asked(&ctx)
}

/// ioctl of 32-bit programs.
#[lsm(hook = "file_ioctl_compat")]
fn h_file_ioctl_compat(ctx: LsmContext) -> i32 {
    asked(&ctx)
}
