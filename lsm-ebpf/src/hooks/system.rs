//! Modules, other kernels, performance counters, namespaces, capabilities, ids, the clock.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::{
    field::CAPABILITY as CAPABILITY_FIELD,
    op::{CAPABILITY, KEXEC, MODULE_LOAD, PERF, SETGID, SETTIME, SETUID, USERNS},
};

use crate::{
    call::{bit, judged},
    kernel::{File, argument},
};

/// `READING_MODULE`, `READING_KEXEC_IMAGE` and `READING_KEXEC_INITRAMFS`; the numbers of `kernel_load_data` are the same.
const MODULE: u32 = 2;
const KEXEC_IMAGE: u32 = 3;
const KEXEC_INITRAMFS: u32 = 4;
/// `CAP_SYS_TIME`: adjtimex with `ADJ_SETOFFSET` passes no other hook.
const SYS_TIME: u32 = 25;

#[inline(always)]
fn loaded(what: u32) -> u32 {
    match what {
        MODULE => MODULE_LOAD,
        KEXEC_IMAGE | KEXEC_INITRAMFS => KEXEC,
        _ => u32::MAX,
    }
}

/// `finit_module`, `kexec_file_load`.
#[lsm(hook = "kernel_read_file")]
fn h_kernel_read_file(ctx: LsmContext) -> i32 {
    let (file, op) = (File(argument(&ctx, 0)), loaded(ctx.arg(1)));
    if op == u32::MAX || file.is_null() {
        return 0;
    }
    judged(bit(MODULE_LOAD) | bit(KEXEC), |call| if call.file(file)? { call.ask(bit(op)) } else { Some(true) })
}

/// `init_module`, `kexec_load`.
#[lsm(hook = "kernel_load_data")]
fn h_kernel_load_data(ctx: LsmContext) -> i32 {
    let op = loaded(ctx.arg(0));
    if op == u32::MAX {
        return 0;
    }
    judged(bit(MODULE_LOAD) | bit(KEXEC), |call| call.ask(bit(op)))
}

/// `perf_event_open`, and reads of its descriptors.
#[lsm(hook = "perf_event_open")]
fn h_perf_event_open(_: LsmContext) -> i32 {
    judged(bit(PERF), |call| call.ask(bit(PERF)))
}

/// unshare, clone, clone3 with `CLONE_NEWUSER`.
#[lsm(hook = "userns_create")]
fn h_userns_create(_: LsmContext) -> i32 {
    judged(bit(USERNS), |call| call.ask(bit(USERNS)))
}

/// Use of a capability that the caller has.
#[lsm(hook = "capable")]
fn h_capable(ctx: LsmContext) -> i32 {
    let capability: u32 = ctx.arg(2);
    let clock = capability == SYS_TIME;
    judged(bit(CAPABILITY) | bit(SETTIME), |call| {
        call.classes().direct::<CAPABILITY_FIELD>(&mut call.frame.scratch().access, capability & 0xff)?;
        call.ask(if clock { bit(CAPABILITY) | bit(SETTIME) } else { bit(CAPABILITY) })
    })
}

/// setuid, setreuid, setresuid, setfsuid.
#[lsm(hook = "task_fix_setuid")]
fn h_task_fix_setuid(_: LsmContext) -> i32 {
    judged(bit(SETUID), |call| call.ask(bit(SETUID)))
}

/// setgid, setregid, setresgid, setfsgid.
#[lsm(hook = "task_fix_setgid")]
fn h_task_fix_setgid(_: LsmContext) -> i32 {
    judged(bit(SETGID), |call| call.ask(bit(SETGID)))
}

/// setgroups.
#[lsm(hook = "task_fix_setgroups")]
fn h_task_fix_setgroups(_: LsmContext) -> i32 {
    judged(bit(SETGID), |call| call.ask(bit(SETGID)))
}

/// `clock_settime`, settimeofday, stime.
#[lsm(hook = "settime")]
fn h_settime(_: LsmContext) -> i32 {
    judged(bit(SETTIME), |call| call.ask(bit(SETTIME)))
}
