//! What is kept of packets that were let through: connections that begin, go on and are proven.

use core::{arch::asm, ffi::c_void, ptr};

use aya_ebpf::helpers::generated::bpf_for_each_map_elem;
use ringfence_abi::{
    chain::{IP_FRAGMENT, STATE_ESTABLISHED, STATE_INVALID},
    connection::{Connection, FLAG_MARK, Key},
    counter,
};
use ringfence_engine::{
    fields::{FAMILY_NONE, Fields},
    ro::read,
    track::{self, Pool},
};

use crate::{
    fragment, limit,
    maps::{self, CELL, CONNECTIONS, HALF_IN, HALF_OUT, Scratch, scratch},
    prove,
    report::Tally,
    track::{LEAVE, Track, clock, forget, on, place, put_again, touch},
};

/// What [`keep`] says of most packets.
const GOES_ON: (bool, u32) = (true, 0);

/// A packet that was let through.
#[derive(Clone, Copy)]
pub struct Kept {
    pub egress: bool,
    pub tally: Tally,
    pub state: u32,
    pub ifindex: u32,
    pub mark: u32,
    pub has_mark: bool,
    pub line: u32,
    /// See `Judgement::plain`.
    pub plain: bool,
}

/// Keeps what is to be known of a packet that was let through; whether it may go on after all, and a counter that it adds to
/// (0: none).
#[inline(always)]
pub fn keep(kept: Kept, fields: &Fields) -> (bool, u32) {
    let Some(scratch) = scratch() else { return GOES_ON };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let Scratch { deep, track, .. } = unsafe { &mut *scratch };
    if fields.family == FAMILY_NONE {
        return GOES_ON;
    }
    if fields.ip & IP_FRAGMENT != 0 && deep.offset == 0 {
        fragment::keep(kept.line, deep, track);
    }
    if !on() || track.wish == LEAVE || kept.state == STATE_INVALID {
        return GOES_ON;
    }
    if let Some(found) = CONNECTIONS.get_ptr_mut(&track.key) {
        if kept.state == STATE_ESTABLISHED {
            // SAFETY: as in `connection`.
            let connection = unsafe { &mut *found };
            touch(connection, true, track, kept.tally);
            if kept.plain && read(&maps::track().cacheable) >> u32::from(kept.egress) & 1 != 0 {
                connection.cached[place(kept.egress, track, connection)] = track.stamp | u64::from(kept.line);
            }
        }
        return GOES_ON;
    }
    if let Some(found) = HALF_IN.get_ptr_mut(&track.key) {
        // SAFETY: as in `connection`.
        return advance(kept, track, unsafe { &mut *found }, Pool::In);
    }
    if let Some(found) = HALF_OUT.get_ptr_mut(&track.key) {
        // SAFETY: as in `connection`.
        return advance(kept, track, unsafe { &mut *found }, Pool::Out);
    }
    begin(kept, fields, track);
    GOES_ON
}

/// A packet of a connection that was not proven before it.
#[inline(always)]
fn advance(kept: Kept, track: &mut Track, connection: &mut Connection, pool: Pool) -> (bool, u32) {
    let promoted = track::promotes(connection, pool, &track.segment);
    touch(connection, promoted, track, kept.tally);
    if limit::notes() {
        limit::merge(&mut connection.limits, track);
    }
    if !promoted {
        return GOES_ON;
    }
    track.fresh = *connection;
    if CONNECTIONS.insert(&track.key, &track.fresh, 0).is_err() {
        sweep(track.now);
        if CONNECTIONS.insert(&track.key, &track.fresh, 0).is_err() {
            return (true, counter::CONNECTIONS_FULL);
        }
    }
    if limit::notes() {
        put_again(track, connection);
        let (goes_on, count) = prove::proven(track);
        if !goes_on {
            forget(&track.key, Pool::Established);
            forget(&track.key, pool);
            return (false, counter::LIMIT_CONNECTIONS);
        }
        forget(&track.key, pool);
        return (true, count);
    }
    forget(&track.key, pool);
    GOES_ON
}

#[inline(always)]
fn begin(kept: Kept, fields: &Fields, track: &mut Track) {
    let fresh = &mut track.fresh;
    track::begin(fresh, fields, &track.segment);
    fresh.created = track.now;
    fresh.judged = track.stamp;
    fresh.ifindex = kept.ifindex;
    fresh.mark = kept.mark;
    fresh.limits = track.noted;
    if kept.has_mark {
        fresh.flags |= FLAG_MARK;
    }
    track::update(fresh, false, &track.segment);
    fresh.packets[0] = u64::from(kept.tally.packets);
    fresh.bytes[0] = u64::from(kept.tally.bytes);
    fresh.expires = track.now + read(&maps::track().timeouts[usize::from(fresh.state & 7)]);
    // What does not fit pushes out the oldest of its own kind.
    let pool = if kept.egress { &HALF_OUT } else { &HALF_IN };
    let _: Result<(), i32> = pool.insert(&track.key, fresh, 0);
}

/// Takes expired connections out, once a second at most: the pool is full, and the daemon, which does it all the time, may
/// be dead.
#[inline(always)]
fn sweep(now: u64) {
    let Some(cell) = CELL.get_ptr_mut(0) else { return };
    // SAFETY: the map's only value.
    if !limit::may_sweep(unsafe { &raw mut (*cell).swept }, now) {
        return;
    }
    let callback: *mut c_void;
    // SAFETY: loads an address, right here for the reason given at `repeat!`.
    unsafe { asm!("{0} = {1} ll", out(reg) callback, sym expire) };
    // SAFETY: the callback has the signature that the helper calls (5.13), and ignores its context.
    unsafe {
        bpf_for_each_map_elem(ptr::from_ref(&CONNECTIONS).cast_mut().cast(), callback, ptr::null_mut(), 0);
    }
}

unsafe extern "C" fn expire(map: *mut c_void, key: *mut Key, value: *mut Connection, _: *mut c_void) -> i64 {
    let _ = map;
    // SAFETY: the kernel gives an element of the map.
    unsafe {
        if (*value).expires <= clock() {
            let _: Result<(), i32> = CONNECTIONS.remove(&*key);
        }
    }
    0
}
