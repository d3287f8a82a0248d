//! What stands in for the security hooks of `connect` and `bind` on kernels that give none: programs at a cgroup.
//!
//! As at the security hooks, a dispatcher that never changes hands each call to the generation in force, which decides
//! by the same tables. The kernel makes EPERM of a refusal. What these programs cannot find out is unknown: the caller's
//! executable, its ancestors, its cgroup's path.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod arena;
#[path = "cgroup/call.rs"]
mod call;
#[path = "cgroup/maps.rs"]
mod maps;
mod repeat;

use aya_ebpf::{
    EbpfContext as _, helpers::generated::bpf_ktime_get_boot_ns, macros::cgroup_sock_addr, maps::ProgramArray,
    programs::SockAddrContext,
};
use ringfence_abi::{
    generation::{CellWord, SLOTS},
    host::{CGROUP_HOOKS, HOOKS, op},
};

use crate::maps::{CELL, HOST_MISS, HOST_STATE};

/// What the kernel makes EPERM of.
const REFUSE: i32 = 0;
const PASS: i32 = 1;

macro_rules! places {
    ($($index:literal $kind:ident $dispatcher:ident $judge:ident $array:ident $op:ident $family:ident;)+) => {
        $(
            #[aya_ebpf::macros::map]
            #[allow(non_upper_case_globals, reason = "named after the place")]
            static $array: ProgramArray = ProgramArray::with_max_entries(SLOTS, 0);

            #[cgroup_sock_addr($kind)]
            fn $dispatcher(ctx: SockAddrContext) -> i32 {
                dispatch(&ctx, &$array, HOOKS.len() as u32 + $index)
            }

            #[cgroup_sock_addr($kind)]
            fn $judge(ctx: SockAddrContext) -> i32 {
                if call::passes(&ctx, op::$op, call::Family::$family) { PASS } else { REFUSE }
            }
        )+
        const _: () = assert!([$($index),+].len() == CGROUP_HOOKS.len(), "every place has its programs");
    };
}

places! {
    0 connect4 d_cg_connect4 h_cg_connect4 C_connect4 CONNECT V4;
    1 connect6 d_cg_connect6 h_cg_connect6 C_connect6 CONNECT V6;
    2 sendmsg4 d_cg_sendmsg4 h_cg_sendmsg4 C_sendmsg4 CONNECT V4;
    3 sendmsg6 d_cg_sendmsg6 h_cg_sendmsg6 C_sendmsg6 CONNECT V6;
    4 bind4 d_cg_bind4 h_cg_bind4 C_bind4 BIND V4;
    5 bind6 d_cg_bind6 h_cg_bind6 C_bind6 BIND V6;
}

#[inline(always)]
fn dispatch(ctx: &SockAddrContext, programs: &ProgramArray, place: u32) -> i32 {
    let Some(cell) = CELL.get_ptr(0) else { return PASS };
    // SAFETY: the map's only value; user space stores the word atomically, and an aligned load does not tear.
    let word = CellWord::unpack(unsafe { (&raw const (*cell).word).read_volatile() });
    let slot = word.slot(if word.deadline == 0 { 0 } else { now() }) as u32;
    // SAFETY: no destructor is pending here, and the array holds programs for this place only.
    unsafe { programs.tail_call(ctx, slot) };
    let Some(state) = HOST_STATE.get_ptr(0) else { return PASS };
    // No generation at all lies beyond the slots.
    let slot = arena::opaque(u64::from(slot));
    if slot >= u64::from(SLOTS) {
        return PASS;
    }
    // SAFETY: within the map's only value, as just compared; an aligned load does not tear.
    let judged = unsafe { (&raw const (*state).hooks[slot as usize]).read_volatile() };
    if judged >> place & 1 == 0 || ctx.tgid() == 1 {
        return PASS;
    }
    if let Some(missed) = HOST_MISS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value; a count lost to preemption refuses the call all the same.
        unsafe { *missed += 1 };
    }
    REFUSE
}

/// Seconds of `CLOCK_BOOTTIME`.
#[inline(always)]
fn now() -> u32 {
    // SAFETY: the helper has no preconditions.
    (unsafe { bpf_ktime_get_boot_ns() } / 1_000_000_000) as u32
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The helpers used are for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
