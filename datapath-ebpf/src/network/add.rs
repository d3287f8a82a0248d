//! `add:` of a rule: an address that the programs put into a dynamic set.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use ringfence_abi::{
    chain::{MAX_CHAIN_SETS, Trie},
    counter::SETS_FULL,
    dynamic::{Element, ElementKey, Lengths, V4, V6},
    limit::{Add, AddState, Added},
};
use ringfence_engine::{
    Tables,
    fields::{FAMILY_V4, Fields},
    ro::read,
    trie::{LEVELS_V4, LEVELS_V6, lookup},
};

use crate::{
    arena::Arena,
    limit::exchange,
    lookup::expired,
    maps::{self, ADD_STATES, ADDED, CELL, ELEMENTS, SET_LENGTHS, scratch},
    track::clock,
};

/// Working memory.
#[repr(C)]
pub struct Adding {
    add: Add,
    key: ElementKey,
    /// The element that gives way.
    old: ElementKey,
    element: Element,
}

/// How often room is made, where other CPUs take it.
const ATTEMPTS: u32 = 3;
/// Connections are judged again after an addition, but not more often than this, nanoseconds.
const PAUSE: u64 = 100_000_000;
/// What an insertion of a key that is there says.
const EEXIST: i32 = -17;

/// Adds the packet's far end to the set of the limit in `Asked`; 0, or the counter of what stood against it.
#[inline(never)]
pub fn add<const EGRESS: bool>(fields: &Fields) -> u32 {
    let Some(scratch) = scratch() else { return 0 };
    // SAFETY: this CPU's own memory; who asks does not touch this part.
    let (adding, asked) = unsafe { (&mut (*scratch).adding, &(*scratch).asked) };
    let Some(arena) = Arena::of::<EGRESS>(maps::consts::<EGRESS>()) else { return 0 };
    if load(&arena, asked.limit.add, &mut adding.add).is_none() {
        return 0;
    }
    let v4 = fields.family == FAMILY_V4;
    let address = if EGRESS { fields.dst } else { fields.src };
    let [never_v4, never_v6] = &adding.add.never;
    let never = if v4 {
        lookup(&arena, never_v4, address[0], 0, LEVELS_V4)
    } else {
        lookup(&arena, never_v6, address[0], address[1], LEVELS_V6)
    };
    if never != Some(0) {
        return 0;
    }
    let set = read(&maps::track().sets[adding.add.set as usize & (MAX_CHAIN_SETS - 1)]);
    adding.key.address = address;
    adding.key.set = set;
    adding.key.family = if v4 { V4 } else { V6 };
    adding.key.length = if v4 { 32 } else { 128 };
    adding.key.zero = 0;
    // SAFETY: read at once; the daemon replaces values whole.
    let known = unsafe { ELEMENTS.get(&adding.key) };
    if known.is_some_and(|element| !expired(element.expires)) {
        return 0;
    }
    let expired = known.is_some();
    enter(adding, expired, asked.limit.line)
}

#[inline(always)]
fn load(arena: &Arena, at: u32, add: &mut Add) -> Option<()> {
    let pair = |at: u32| arena.u64(at).map(|word| (word as u32, (word >> 32) as u32));
    (add.set, add.state) = pair(at)?;
    (add.base, add.capacity) = pair(at + 8)?;
    add.timeout = arena.u64(at + 16)?;
    add.evict = arena.u64(at + 24)?;
    let trie = |at: u32| {
        let ((top, bits), (nodes, leaves)) = (pair(at)?, pair(at + 8)?);
        Some(Trie { top, bits, nodes, leaves })
    };
    add.never[0] = trie(at + 32)?;
    add.never[1] = trie(at + 48)?;
    Some(())
}

/// Enters the element into the set and the ring.
#[inline(always)]
fn enter(adding: &mut Adding, expired: bool, line: u32) -> u32 {
    let capacity = u64::from(adding.add.capacity);
    let Some(state) = ADD_STATES.get_ptr_mut(adding.add.state) else { return 0 };
    if capacity == 0 || !room(adding, state) {
        return SETS_FULL;
    }
    // SAFETY: the helper has no preconditions.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    adding.element.expires = if adding.add.timeout == 0 { 0 } else { now + adding.add.timeout };
    // A length's bit is set before its first element is there.
    let Some(lengths) = SET_LENGTHS.get_ptr_mut(u32::from(adding.key.set)) else { return 0 };
    // SAFETY: a map's value; the daemon sets other bits of the same words.
    unsafe {
        let (word, bit) = if adding.key.family == V4 {
            (&raw mut (*lengths).v4, Lengths::bit(32).1)
        } else {
            (&raw mut (*lengths).v6[2], Lengths::bit(128).1)
        };
        asm!("lock *(u64 *)({0} + 0) |= {1}", in(reg) word, in(reg) bit);
    }
    // 1: only if another CPU has not added it meanwhile.
    match ELEMENTS.insert(&adding.key, &adding.element, u64::from(!expired)) {
        Ok(()) => {}
        Err(EEXIST) => return 0,
        Err(_) => return SETS_FULL,
    }
    let mut number: u64 = 1;
    // SAFETY: a map's value, eight bytes and aligned; the instruction needs 5.12.
    unsafe { asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) number, in(reg) &raw mut (*state).head) };
    let Some(place) = ADDED.get_ptr_mut(adding.add.base + (number % capacity) as u32) else { return 0 };
    // SAFETY: a map's value; who reads it goes by the number, which is written last.
    unsafe {
        (&raw mut (*place).number).write_volatile(0);
        (*place).key = adding.key;
        (*place).expires = adding.element.expires;
        (*place).line = u64::from(line);
        (&raw mut (*place).number).write_volatile(number + 1);
    }
    judge_again();
    0
}

/// Whether the set takes one more; the oldest element gives way if it may.
#[inline(always)]
fn room(adding: &mut Adding, state: *mut AddState) -> bool {
    let capacity = u64::from(adding.add.capacity);
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        attempt += 1;
        // SAFETY: a map's value; aligned loads do not tear.
        let (head, tail, others) = unsafe {
            (
                (&raw const (*state).head).read_volatile(),
                (&raw const (*state).tail).read_volatile(),
                (&raw const (*state).others).read_volatile(),
            )
        };
        if head.wrapping_sub(tail).wrapping_add(others) < capacity {
            return true;
        }
        if head == tail {
            return false;
        }
        let Some(oldest) = ADDED.get_ptr(adding.add.base + (tail % capacity) as u32) else { return false };
        // SAFETY: a map's value, which is what it was if its number is.
        let Added { key, expires, number, .. } = unsafe { *oldest };
        if number <= tail {
            // Another CPU is writing it.
            return false;
        }
        // Overwritten where the number is larger: then there is nothing to take out.
        let mut remains = false;
        if number == tail + 1 {
            adding.old = key;
            // SAFETY: as above.
            remains = unsafe { ELEMENTS.get(&adding.old) }.is_some_and(|element| element.expires == expires);
        }
        if remains && adding.add.evict == 0 && !expired(expires) {
            return false;
        }
        // SAFETY: a map's value.
        if exchange(unsafe { &raw mut (*state).tail }, tail, tail + 1) && remains {
            let _: Result<(), i32> = ELEMENTS.remove(&adding.old);
        }
    }
    false
}

/// Has what is remembered of connections judged again: at once, or with the first packet after a pause.
#[inline(always)]
fn judge_again() {
    let Some(cell) = CELL.get_ptr_mut(0) else { return };
    let now = clock();
    // SAFETY: the map's only value; an addition of another CPU that comes between is due after its own pause.
    unsafe {
        let next = (&raw const (*cell).advanced).read_volatile() + PAUSE;
        if now < next {
            (&raw mut (*cell).due).write_volatile(next);
            return;
        }
    }
    advance(now);
}

/// Advances the epoch.
#[inline(always)]
pub fn advance(now: u64) {
    let Some(cell) = CELL.get_ptr_mut(0) else { return };
    // SAFETY: the map's only value; the daemon advances the same word atomically.
    unsafe {
        (&raw mut (*cell).advanced).write_volatile(now);
        asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) &raw mut (*cell).epoch, in(reg) 1_u64);
    }
}
