//! The frame of the LSM programs. There is no hook in it: the host half brings one file a hook below `hooks/`, and
//! nothing is loaded or attached from this object until then (`ringctl status` says that the half is unavailable).
//!
//! What is fixed already: an invocation reads the pinned cell once, as the network dispatchers do, and a verdict becomes
//! an errno in [`outcome`] and nowhere else.
#![no_std]
#![no_main]

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use ringfence_abi::{generation::Cell, verdict::ACCEPT};

/// Shared with the network half by its pin.
#[map]
pub static CELL: Array<Cell> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `EACCES` as hooks return it.
const REFUSED: i32 = -13;

/// What a hook returns: the answer of the hooks before it, if that is a refusal, else ours.
#[inline(always)]
pub fn outcome(before: i32, verdict: u8, audit: bool) -> i32 {
    if before != 0 || verdict == ACCEPT || audit { before } else { REFUSED }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// Kernel helpers of LSM programs are for programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
