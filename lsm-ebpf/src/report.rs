//! Counting, or answering an explanation.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use ringfence_abi::{chain::MAX_CONTINUATIONS, explain::Answer, generation::CellWord};
use ringfence_engine::{ro::read, search::Outcome};

use crate::{
    kernel::jiffies,
    maps::{CELL, CLOCK, COUNTERS, EXPLAIN_OUT, HOST, explaining},
};

/// Adds to a 64-bit number that others add to as well.
#[inline(always)]
pub fn add(to: *mut u64, amount: u64) {
    // SAFETY: part of a map's value. (`core` has no `fetch_add` on this target.)
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) to, in(reg) amount) };
}

/// Counts a line. Atomically, although the counters are the CPU's own: the program may be preempted.
#[inline(always)]
pub fn count(line: u32) {
    let Some(counter) = COUNTERS.get_ptr_mut(read(&HOST.chain.counter_base) + line) else { return };
    // SAFETY: a value of the map; the time may be that of another hit at almost the same moment.
    unsafe {
        add(&raw mut (*counter).packets, 1);
        (*counter).last_hit = time();
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, looked up once a tick: the coarse clock is not for these programs, and the fine one
/// costs more than the counting.
#[inline(always)]
fn time() -> u64 {
    let Some(clock) = CLOCK.get_ptr_mut(0) else { return 0 };
    let now = jiffies();
    // SAFETY: this CPU's value; who preempts the program writes a time that is as good.
    unsafe {
        if (*clock).tick != now {
            (*clock).tick = now;
            (*clock).time = bpf_ktime_get_ns();
        }
        (*clock).time
    }
}

#[inline(always)]
fn answer() -> Option<*mut Answer> {
    EXPLAIN_OUT.get_ptr_mut(0)
}

/// Notes why something cannot be told.
#[inline(always)]
pub fn unknown(why: u32) {
    if !explaining() {
        count(why);
    } else if let Some(answer) = answer() {
        // SAFETY: a value of a map that only one explanation at a time uses.
        unsafe { (*answer).unknown = 1 };
    }
}

/// Notes a rule that matched and let evaluation go on.
#[inline(always)]
pub fn continued(line: u32) {
    if !explaining() {
        count(line);
    } else if let Some(answer) = answer() {
        // SAFETY: as above.
        unsafe {
            let len = (*answer).continued_len;
            if len < MAX_CONTINUATIONS {
                (*answer).continued[(len & (MAX_CONTINUATIONS - 1)) as usize] = line;
                (*answer).continued_len = len + 1;
            }
        }
    }
}

/// Notes what decided; `entry` is the id of a dynamic entry.
#[inline(always)]
pub fn decided(entry: u64, outcome: Outcome) {
    if !explaining() {
        count(outcome.line);
    } else if let Some(answer) = answer() {
        // SAFETY: as above.
        unsafe {
            (*answer).line = outcome.line;
            (*answer).entry = entry;
            (*answer).verdict = outcome.verdict;
        }
    }
}

/// Whether verdicts are carried out.
#[inline(always)]
pub fn enforcing() -> bool {
    if read(&HOST.chain.audit) != 0 {
        return false;
    }
    let Some(cell) = CELL.get_ptr(0) else { return true };
    // SAFETY: the map's only value; user space stores the word atomically.
    CellWord::unpack(unsafe { (&raw const (*cell).word).read_volatile() }).audit == 0
}

/// The same, and what was there before.
#[inline(always)]
pub fn fetch_add(to: *mut u64, amount: u64) -> u64 {
    let mut amount = amount;
    // SAFETY: part of a map's value.
    unsafe { asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) to, inout(reg) amount) };
    amount
}

/// Adds to a 32-bit number that others add to as well.
#[inline(always)]
pub fn add32(to: *mut u32, amount: u64) {
    // SAFETY: part of a map's value.
    unsafe { asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) to, in(reg) amount) };
}
