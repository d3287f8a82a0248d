//! What processes do to each other.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::{
    KEEPS_SUBJECTS, LEAF_UNKNOWN, MASK_UNKNOWN, TRI_ABSENT,
    field::{ANCESTOR, CGROUP, GID, SIGNAL},
    op::{PTRACE, SIGNAL as OP_SIGNAL},
};
use ringfence_engine::ro::read;

use crate::{
    call::{Call, bit, is_asked, judged, judged_always, judged_anywhere},
    kernel::{Task, argument, owner_uid},
    maps::HOST,
    subject::{self, leaf_of_task, taint},
};

/// `PTRACE_MODE_ATTACH`; without it somebody only looks.
const ATTACH: u32 = 2;

/// Asks for tracing of `task`; who is traced may be made to run anything.
#[inline(always)]
fn traced(task: Task) -> i32 {
    let keeps = read(&HOST.keeps) & KEEPS_SUBJECTS != 0;
    if !keeps && !is_asked(bit(PTRACE)) {
        return 0;
    }
    judged_always(bit(PTRACE), |call| {
        let mut allowed = true;
        if is_asked(bit(PTRACE)) {
            call.classes().target(&mut call.frame.scratch().access, leaf_of_task(task))?;
            allowed = call.ask(bit(PTRACE))?;
        }
        if keeps && (allowed || !crate::report::enforcing()) {
            taint(task.leader());
        }
        Some(allowed)
    })
}

/// ptrace, `/proc/PID/mem`, `process_vm_writev`, `pidfd_getfd`.
#[lsm(hook = "ptrace_access_check")]
fn h_ptrace_access_check(ctx: LsmContext) -> i32 {
    if ctx.arg::<u32>(1) & ATTACH == 0 { 0 } else { traced(Task(argument(&ctx, 0))) }
}

/// `PTRACE_TRACEME`.
#[lsm(hook = "ptrace_traceme")]
fn h_ptrace_traceme(_: LsmContext) -> i32 {
    traced(Task::current())
}

#[inline(always)]
fn signalled(call: Call, target: Task, signal: u32) -> Option<bool> {
    let (classes, access) = (call.classes(), &mut call.frame.scratch().access);
    classes.direct::<SIGNAL>(access, signal & 0xff)?;
    classes.target(access, leaf_of_task(target))?;
    call.ask(bit(OP_SIGNAL))
}

/// kill, tgkill, `pidfd_send_signal` ...
#[lsm(hook = "task_kill")]
fn h_task_kill(ctx: LsmContext) -> i32 {
    let (target, signal): (_, u32) = (Task(argument(&ctx, 0)), ctx.arg(2));
    // Signal 0 asks whether there is such a process.
    if signal == 0 {
        return 0;
    }
    judged(bit(OP_SIGNAL), |call| signalled(call, target, signal))
}

/// `F_SETOWN` with `O_ASYNC`: sent in whatever thread makes the file ready, for the user who asked for it. Nothing else
/// is known of that one.
#[lsm(hook = "file_send_sigiotask")]
fn h_file_send_sigiotask(ctx: LsmContext) -> i32 {
    let (target, owner, signal): (_, _, u32) = (Task(argument(&ctx, 0)), argument(&ctx, 1), ctx.arg(2));
    // 0 stands for SIGIO.
    let signal = if signal == 0 { 29 } else { signal };
    judged_anywhere(bit(OP_SIGNAL), |call| {
        let scratch = call.frame.scratch();
        scratch.uid = owner_uid(owner);
        scratch.exe = 0;
        let (classes, access) = (call.classes(), &mut scratch.access);
        classes.uid(access, scratch.uid)?;
        classes.auid(access, u32::MAX)?;
        classes.exe(access, LEAF_UNKNOWN, true)?;
        classes.class::<ANCESTOR>(access, MASK_UNKNOWN);
        classes.class::<GID>(access, MASK_UNKNOWN);
        let cgroup = subject::unknown_cgroup(&call.frame)?;
        classes.class::<CGROUP>(access, cgroup);
        call.flags(TRI_ABSENT, TRI_ABSENT)?;
        signalled(call, target, signal)
    })
}
