//! Limits: whose schedule a packet is on, and spending from it on all CPUs at once.

use core::{arch::asm, ffi::c_void, ptr};

use aya_ebpf::helpers::generated::{bpf_for_each_map_elem, bpf_ktime_get_boot_ns};
use ringfence_abi::{
    chain::STATE_NEW,
    counter::LIMITS_FULL,
    dynamic::{V4, V6},
    limit::{
        FLAG_ALWAYS, FLAG_CONNECTIONS, FLAG_DESTINATION, FLAG_OVER, FLAG_SOURCE, FLAG_UNPROVEN, Limit, LimitKey,
        MAX_NOTED, NOTED_EGRESS, PROOF, UNITS,
    },
};
use ringfence_engine::{
    Tables,
    fields::{FAMILY_NONE, FAMILY_V4, Fields},
    limit::{amount, spend},
    ro::read,
};

use crate::{
    add,
    arena::Arena,
    holders,
    lookup::masked,
    maps::{self, CELL, LIMITS, scratch},
    report::Tally,
    track::Track,
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

/// Who asks a limit.
#[derive(Clone, Copy)]
pub struct Asking {
    pub egress: bool,
    pub tally: Tally,
    /// A connection's first packet is judged once more: nothing is spent, and nothing is above a rate.
    pub quiet: bool,
    /// The same for an explanation, of which nothing is noted, either.
    pub explaining: bool,
    /// Nothing is refused now, so nothing is added.
    pub audits: bool,
}

/// What a limit says.
#[derive(Clone, Copy)]
pub struct Said {
    /// Whether its rule matches; `None`: the tables contradict themselves.
    pub matches: Option<bool>,
    /// A counter that the packet adds to besides.
    pub count: Option<u32>,
}

/// Asks the limit with this number, from 1, of a rule whose fields all match.
#[inline(always)]
pub fn admits(asking: Asking, number: u32) -> Said {
    let unreadable = Said { matches: None, count: None };
    let Some(scratch) = scratch() else { return unreadable };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let scratch = unsafe { &mut *scratch };
    let (asked, track) = (&mut scratch.asked, &mut scratch.track);
    let found =
        if asking.egress { load::<true>(number, &mut asked.limit) } else { load::<false>(number, &mut asked.limit) };
    if found.is_none() {
        return unreadable;
    }
    let fields = if asking.quiet { &track.again } else { &scratch.fields };
    let flags = asked.limit.flags;
    let over = flags & FLAG_OVER != 0;
    let free = asking.quiet || asking.explaining;
    let begins = asking.quiet || track.state == STATE_NEW;
    let mut count = None;
    let mut under = true;
    let counts = counting() && flags & FLAG_CONNECTIONS != 0;
    if counts {
        // Packets of connections that are open are within the limit.
        if !free && begins {
            name(fields, asked);
            under = holders::vacant(&asked.key, asked.limit.most, track.now);
        }
    } else if !free && flags & FLAG_ALWAYS == 0 {
        name(fields, asked);
        let full;
        (under, full) = take(asked, amount(&asked.limit, asking.tally.packets, asking.tally.bytes));
        if full {
            count = Some(LIMITS_FULL);
        }
    }
    let proves = adding() && asked.limit.add != 0 && flags & FLAG_UNPROVEN == 0;
    if under && begins && !asking.explaining && (proves || counts) {
        let noted = number as u16 | if asking.egress { NOTED_EGRESS } else { 0 };
        if !note(&mut track.noted, noted) {
            under = false;
            count = Some(LIMITS_FULL);
        }
    }
    let matches = under != over;
    if matches && adding() && asked.limit.add != 0 && !free && !asking.audits {
        let now = flags & FLAG_UNPROVEN != 0 || over && is_proven(asking.egress, fields, asked);
        if now && fields.family != FAMILY_NONE {
            let full = if asking.egress { add::add::<true>(fields) } else { add::add::<false>(fields) };
            if full != 0 {
                count = Some(full);
            }
        }
    }
    Said { matches: Some(matches), count }
}

/// Whether some rule adds to a set.
#[inline(always)]
pub fn adding() -> bool {
    read(&maps::track().adding) != 0
}

/// Whether some limit counts connections.
#[inline(always)]
pub fn counting() -> bool {
    read(&maps::track().counts) != 0
}

/// Whether what a connection's first packet met matters later.
#[inline(always)]
pub fn notes() -> bool {
    adding() || counting()
}

/// Remembers that the packet met a limit; whether there was room.
#[inline(always)]
pub fn note(noted: &mut [u16; MAX_NOTED], number: u16) -> bool {
    // Written out: an index that is not constant costs a check and the verifier its memory of the rest.
    macro_rules! place {
        ($($place:literal)*) => {
            $(if noted[$place] == 0 || noted[$place] == number {
                noted[$place] = number;
                return true;
            })*
        };
    }
    place!(0 1 2 3);
    false
}

/// Reads the limit with this number, from 1.
#[inline(always)]
pub fn load<const EGRESS: bool>(number: u32, limit: &mut Limit) -> Option<()> {
    let table = read(&maps::track().limits[EGRESS as usize]);
    // The tables have no limit: the verifier removes what follows.
    if table == 0 {
        return None;
    }
    let at = table + (number - 1) * size_of::<Limit>() as u32;
    let arena = Arena::of::<EGRESS>(maps::consts::<EGRESS>())?;
    limit.cost = arena.u64(at)?;
    limit.window = arena.u64(at + 8)?;
    let word = arena.u64(at + 16)?;
    limit.rule = word as u32;
    limit.flags = (word >> 32) as u32;
    let word = arena.u64(at + 24)?;
    limit.lengths = word as u32;
    limit.most = (word >> 32) as u32;
    let word = arena.u64(at + 32)?;
    limit.add = word as u32;
    limit.line = (word >> 32) as u32;
    Some(())
}

/// The schedule of the packet's sender, or of all.
#[inline(always)]
pub fn name(fields: &Fields, asked: &mut Asked) {
    let Asked { key, limit, .. } = asked;
    key.rule = limit.rule;
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

/// The schedule of handshakes that the far end completed: always its own, whoever shares the rule's.
#[inline(always)]
fn name_proof(egress: bool, fields: &Fields, asked: &mut Asked) {
    asked.key.rule = asked.limit.rule | PROOF;
    asked.key.family = u32::from(if fields.family == FAMILY_V4 { V4 } else { V6 });
    asked.key.address = if egress { fields.dst } else { fields.src };
}

/// Whether handshakes alone would have reached the limit: packets with another's address complete none.
#[inline(always)]
fn is_proven(egress: bool, fields: &Fields, asked: &mut Asked) -> bool {
    name_proof(egress, fields, asked);
    let Some(schedule) = LIMITS.get_ptr(&asked.key) else { return false };
    // SAFETY: a map's value; an aligned load does not tear. The helper has no preconditions.
    unsafe { spend(&asked.limit, schedule.read_volatile(), 1, bpf_ktime_get_boot_ns()).is_none() }
}

/// Spends a handshake that was completed.
#[inline(always)]
pub fn prove(egress: bool, fields: &Fields, asked: &mut Asked) {
    name_proof(egress, fields, asked);
    take(asked, 1);
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
pub fn exchange(at: *mut u64, from: u64, to: u64) -> bool {
    let mut found = from;
    // SAFETY: a map's value, eight bytes and aligned.
    unsafe { asm!("r0 = cmpxchg_64({0} + 0, r0, {1})", in(reg) at, in(reg) to, inout("r0") found) };
    found == from
}

/// Whether a map is to be swept: it is full, and was not for a second. Two CPUs that sweep at once do no harm.
#[inline(always)]
pub fn may_sweep(swept: *mut u64, now: u64) -> bool {
    // SAFETY: a word of the cell; an aligned access does not tear.
    unsafe {
        if now < swept.read_volatile() + 1_000_000_000 {
            return false;
        }
        swept.write_volatile(now);
    }
    true
}

/// Takes schedules out that are behind now: who has one is as good as who has none.
#[inline(always)]
fn sweep(now: u64) {
    let Some(cell) = CELL.get_ptr_mut(0) else { return };
    // SAFETY: the map's only value.
    if !may_sweep(unsafe { &raw mut (*cell).limits_swept }, now) {
        return;
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

/// Remembers in a connection what its packet met, beside what another hook noted.
#[inline(always)]
pub fn merge(limits: &mut [u16; MAX_NOTED], track: &Track) {
    macro_rules! each {
        ($($place:literal)*) => {
            $(if track.noted[$place] != 0 {
                note(limits, track.noted[$place]);
            })*
        };
    }
    each!(0 1 2 3);
}
