//! What is attached to interfaces: programs that never change, and hand each packet to the generation in force.
//!
//! Each reads the cell's word once and tail-calls the program of the slot it names. Where no program is loaded in that
//! slot, or the cell names none (`NO_SLOT` lies beyond the program arrays), the tail call falls through: the packet is
//! dropped and counted, never let through unjudged.
//!
//! The audit bit is not handed on: a program of the generation reads it from the same cell itself. It changes what is
//! done with a verdict and not which generation judges, so a store between the two reads mixes no policies.
#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext,
    bindings::{
        BPF_F_MMAPABLE, TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    helpers::generated::bpf_ktime_get_boot_ns,
    macros::{classifier, map, xdp},
    maps::{Array, PerCpuArray, ProgramArray},
    programs::{TcContext, XdpContext},
};
use ringfence_abi::generation::{
    Cell, CellWord, NO_SLOT, SLOTS, VARIANT_EGRESS, VARIANT_EGRESS_L3, VARIANT_INGRESS, VARIANT_INGRESS_L3, VARIANTS,
};

#[map]
static CELL: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
static XDP_PROGS: ProgramArray = ProgramArray::with_max_entries(SLOTS * VARIANTS, 0);

#[map]
static TC_PROGS: ProgramArray = ProgramArray::with_max_entries(SLOTS * VARIANTS, 0);

#[map]
static DISPATCH_MISS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

const _: () = assert!(NO_SLOT as u32 >= SLOTS, "no generation must lie beyond the program arrays");

#[xdp(frags)]
fn dispatch_xdp(ctx: XdpContext) -> u32 {
    dispatch(&ctx, &XDP_PROGS, VARIANT_INGRESS);
    XDP_DROP
}

#[classifier]
fn dispatch_in(ctx: TcContext) -> i32 {
    dispatch(&ctx, &TC_PROGS, VARIANT_INGRESS);
    TC_ACT_SHOT
}

#[classifier]
fn dispatch_in_l3(ctx: TcContext) -> i32 {
    dispatch(&ctx, &TC_PROGS, VARIANT_INGRESS_L3);
    TC_ACT_SHOT
}

#[classifier]
fn dispatch_out(ctx: TcContext) -> i32 {
    dispatch(&ctx, &TC_PROGS, VARIANT_EGRESS);
    TC_ACT_SHOT
}

#[classifier]
fn dispatch_out_l3(ctx: TcContext) -> i32 {
    dispatch(&ctx, &TC_PROGS, VARIANT_EGRESS_L3);
    TC_ACT_SHOT
}

/// Stands in the slot of a generation that has no ingress chain. An empty slot would drop, and the dispatcher may be
/// attached for the other generation's sake: until it is confirmed, either of two may come into force.
#[xdp(frags)]
fn pass_xdp(_: XdpContext) -> u32 {
    XDP_PASS
}

/// The same at TC: the next program decides.
#[classifier]
fn pass_tc(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Hands the packet to the generation in force; returns only when there is none, having counted that.
#[inline(always)]
fn dispatch(ctx: &impl EbpfContext, programs: &ProgramArray, variant: u32) {
    if let Some(cell) = CELL.get_ptr(0) {
        // SAFETY: the map's only value; user space stores the word atomically, and an aligned load does not tear.
        let word = CellWord::unpack(unsafe { (&raw const (*cell).word).read_volatile() });
        let slot = word.slot(if word.deadline == 0 { 0 } else { now() });
        // SAFETY: no destructor is pending here, and the array holds programs of this type only.
        unsafe { programs.tail_call(ctx, slot as u32 * VARIANTS + variant) };
    }
    if let Some(missed) = DISPATCH_MISS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value; XDP and TC on one CPU do not interrupt each other between load and store
        // often enough to matter, and a lost count drops the packet all the same.
        unsafe { *missed += 1 };
    }
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

// The helpers above are for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
