//! Rate limits: whose schedule a packet is on, and spending from it on all CPUs at once.

use core::{arch::asm, ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_for_each_map_elem, bpf_ktime_get_boot_ns};
use ringfence_abi::{
    dynamic::{V4, V6},
    limit::{FLAG_DESTINATION, FLAG_OVER, FLAG_SOURCE, Limit, LimitKey, UNITS},
};
use ringfence_engine::{
    Tables,
    fields::{FAMILY_NONE, FAMILY_V4, Fields},
    limit::{amount, spend},
    ro::read,
};

use crate::{
    arena::Arena,
    lookup::masked,
    maps::{self, CELL, LIMITS, scratch},
    report::Tally,
};

/// A limit that is asked, and whose schedule.
#[repr(C)]
pub struct Asked {
    pub key: LimitKey,
    pub limit: Limit,
    /// A schedule that begins.
    pub first: u64,
}

/// How often a schedule that other CPUs spend from at the same time is tried; after that the packet is above the rate.
const ATTEMPTS: u32 = 8;

/// Whether a rule with this limit matches, and whether there was no room for another sender's schedule. Without `spending`
/// nothing is above a rate.
#[inline(always)]
pub fn admits(egress: bool, number: u32, tally: Tally, free: bool) -> (bool, bool) {
    let offset = read(if egress { &maps::track().limits[1] } else { &maps::track().limits[0] });
    // The tables have no limit: the verifier removes what follows.
    if offset == 0 {
        return (false, false);
    }
    let Some(scratch) = scratch() else { return (false, true) };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let scratch = unsafe { &mut *scratch };
    let asked = &mut scratch.asked;
    let found = if egress {
        load::<true>(offset + (number - 1) * size_of::<Limit>() as u32, &mut asked.limit)
    } else {
        load::<false>(offset + (number - 1) * size_of::<Limit>() as u32, &mut asked.limit)
    };
    if found.is_none() {
        return (false, true);
    }
    let over = asked.limit.flags & FLAG_OVER != 0;
    if free {
        return (!over, false);
    }
    name(&scratch.fields, asked);
    let (under, full) = take(asked, amount(&asked.limit, tally.packets, tally.bytes));
    (under != over, full)
}

#[inline(always)]
fn load<const EGRESS: bool>(at: u32, limit: &mut Limit) -> Option<()> {
    let arena = Arena::of::<EGRESS>(maps::consts::<EGRESS>())?;
    limit.cost = arena.u64(at)?;
    limit.window = arena.u64(at + 8)?;
    let word = arena.u64(at + 16)?;
    limit.line = word as u32;
    limit.flags = (word >> 32) as u32;
    limit.lengths = arena.u32(at + 24)?;
    Some(())
}

/// The schedule of the packet's sender, or of all.
#[inline(always)]
fn name(fields: &Fields, asked: &mut Asked) {
    let Asked { key, limit, .. } = asked;
    key.line = limit.line;
    key.family = 0;
    key.address[0] = 0;
    key.address[1] = 0;
    if limit.flags & (FLAG_SOURCE | FLAG_DESTINATION) == 0 || fields.family == FAMILY_NONE {
        return;
    }
    let address = if limit.flags & FLAG_SOURCE != 0 { fields.src } else { fields.dst };
    let v4 = fields.family == FAMILY_V4;
    key.family = u32::from(if v4 { V4 } else { V6 });
    key.address = masked(address, if v4 { limit.lengths & 0xff } else { limit.lengths >> 8 & 0xff });
}

/// Spends; whether the packet is below the rate, and whether there was no room.
#[inline(always)]
fn take(asked: &mut Asked, amount: u64) -> (bool, bool) {
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let Some(first) = spend(&asked.limit, 0, amount, now) else { return (false, false) };
    let mut schedule = LIMITS.get_ptr_mut(&asked.key);
    if schedule.is_none() {
        asked.first = first;
        // 1: only if another CPU has not begun it meanwhile.
        if LIMITS.insert(&asked.key, &asked.first, 1).is_ok() {
            return (true, false);
        }
        schedule = LIMITS.get_ptr_mut(&asked.key);
        if schedule.is_none() {
            sweep(now);
            if LIMITS.insert(&asked.key, &asked.first, 1).is_ok() {
                return (true, false);
            }
            schedule = LIMITS.get_ptr_mut(&asked.key);
        }
    }
    let Some(schedule) = schedule else { return (false, true) };
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        attempt += 1;
        // SAFETY: a map's value; an aligned load does not tear.
        let due = unsafe { schedule.read_volatile() };
        let Some(after) = spend(&asked.limit, due, amount, now) else { return (false, false) };
        if exchange(schedule, due, after) {
            return (true, false);
        }
    }
    (false, false)
}

/// Replaces a value if it is still `from`. (`core` has no atomics on this target; BPF has them since 5.12.)
#[inline(always)]
fn exchange(at: *mut u64, from: u64, to: u64) -> bool {
    let mut found = from;
    // SAFETY: a map's value, eight bytes and aligned.
    unsafe { asm!("r0 = cmpxchg_64({0} + 0, r0, {1})", in(reg) at, in(reg) to, inout("r0") found) };
    found == from
}

/// Takes schedules out that are behind now, once a second at most: who has one is as good as who has none.
#[inline(always)]
fn sweep(now: u64) {
    let Some(cell) = CELL.get_ptr_mut(0) else { return };
    // SAFETY: the map's only value; two CPUs that sweep at once do no harm.
    unsafe {
        if now < (*cell).limits_swept + 1_000_000_000 {
            return;
        }
        (*cell).limits_swept = now;
    }
    let callback: *mut c_void;
    // SAFETY: loads an address, right here for the reason given at `repeat!`.
    unsafe { asm!("{0} = {1} ll", out(reg) callback, sym expire) };
    // SAFETY: the callback has the signature that the helper calls (5.13), and ignores its context.
    unsafe { bpf_for_each_map_elem(ptr::from_ref(&LIMITS).cast_mut().cast(), callback, ptr::null_mut(), 0) };
}

unsafe extern "C" fn expire(_: *mut c_void, key: *mut LimitKey, due: *mut u64, _: *mut c_void) -> i64 {
    // SAFETY: the kernel gives an element of the map; the helper has no preconditions.
    unsafe {
        if *due <= bpf_ktime_get_boot_ns().wrapping_mul(u64::from(UNITS)) {
            let _: Result<(), i32> = LIMITS.remove(&*key);
        }
    }
    0
}
