//! `protect_self`: Ringfence's own maps, programs and links; and the operation `bpf`.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use ringfence_abi::host::{EXE_UNKNOWN, OWN_LINK, OWN_MAP, OWN_PROGRAM, OwnObject, line, op::BPF};
use ringfence_engine::ro::read;

use crate::{
    call::{bit, judged, refuse},
    kernel::{Task, argument, map_id, peek, program_id},
    maps::{HOST, OWN_OBJECTS, state},
    subject::known,
};

const LINK_UPDATE: u32 = 29;
const LINK_GET_FD_BY_ID: u32 = 30;
const LINK_DETACH: u32 = 34;

/// Whether the caller must not reach an object.
#[inline(always)]
fn is_protected(kind: u32, id: u32) -> bool {
    // SAFETY: the value means nothing.
    if unsafe { OWN_OBJECTS.get(&OwnObject { kind, id }) }.is_none() {
        return false;
    }
    // SAFETY: a value of the map.
    let exe = known(Task::current().leader()).map_or(EXE_UNKNOWN, |subject| unsafe { (*subject).exe });
    let Some(state) = state() else { return true };
    // SAFETY: the map's only value.
    let keepers = unsafe { &(*state).keepers };
    exe == EXE_UNKNOWN || !(exe == keepers[0] || exe == keepers[1] || exe == keepers[2] || exe == keepers[3])
}

/// Every bpf system call.
#[lsm(hook = "bpf")]
fn h_bpf(ctx: LsmContext) -> i32 {
    let (command, attributes): (u32, u64) = (ctx.arg(0), ctx.arg(1));
    if read(&HOST.protect_self) != 0
        && let Some(first) = peek::<u32>(attributes)
    {
        let link = match command {
            LINK_GET_FD_BY_ID => Some(first),
            LINK_UPDATE | LINK_DETACH => Task::current().link_behind(first),
            _ => None,
        };
        if link.is_some_and(|id| is_protected(OWN_LINK, id)) {
            return refuse(line::PROTECTED);
        }
    }
    judged(bit(BPF), |call| call.ask(bit(BPF)))
}

/// A descriptor of a map, however it is come by.
#[lsm(hook = "bpf_map")]
fn h_bpf_map(ctx: LsmContext) -> i32 {
    let protected = read(&HOST.protect_self) != 0 && is_protected(OWN_MAP, map_id(argument(&ctx, 0)));
    if protected { refuse(line::PROTECTED) } else { 0 }
}

/// A descriptor of a program.
#[lsm(hook = "bpf_prog")]
fn h_bpf_prog(ctx: LsmContext) -> i32 {
    let protected = read(&HOST.protect_self) != 0 && is_protected(OWN_PROGRAM, program_id(argument(&ctx, 0)));
    if protected { refuse(line::PROTECTED) } else { 0 }
}
