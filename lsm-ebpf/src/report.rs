//! Counting, or answering an explanation.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use ringfence_abi::{chain::MAX_CONTINUATIONS, explain::Answer, generation::CellWord};
use ringfence_engine::{ro::read, search::Outcome};

use crate::{
    kernel::jiffies,
    maps::{CELL, COUNTERS, EXPLAIN_OUT, HOST, explaining},
    scratch::Frame,
};

/// Adds to a 64-bit number that others add to as well.
#[inline(always)]
pub fn add(to: *mut u64, amount: u64) {
    // SAFETY: part of a map's value. (`core` has no `fetch_add` on this target.)
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) to, in(reg) amount) };
}

/// Counts a line, at the time of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn count(line: u32) {
    // SAFETY: the helper has no preconditions.
    count_at(line, unsafe { bpf_ktime_get_ns() });
}

/// Counts a line. Atomically, although the counters are the CPU's own: the program may be preempted.
#[inline(always)]
fn count_at(line: u32, time: u64) {
    let Some(counter) = COUNTERS.get_ptr_mut(read(&HOST.chain.counter_base) + line) else { return };
    // SAFETY: a value of the map; the time may be that of another hit at almost the same moment.
    unsafe {
        add(&raw mut (*counter).packets, 1);
        (*counter).last_hit = time;
    }
}

/// The time, which is looked up once a tick: the coarse clock is not for these programs, and the fine one costs more than
/// the counting.
#[inline(always)]
fn time(frame: &Frame) -> u64 {
    let scratch = frame.scratch();
    let now = jiffies();
    if scratch.tick != now as u32 || scratch.time == 0 {
        scratch.tick = now as u32;
        // SAFETY: the helper has no preconditions.
        scratch.time = unsafe { bpf_ktime_get_ns() };
    }
    scratch.time
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

/// Notes what decided.
#[inline(always)]
pub fn decided(frame: &Frame, outcome: Outcome) {
    let entry = frame.scratch().entry.id;
    if !explaining() {
        count_at(outcome.line, time(frame));
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
