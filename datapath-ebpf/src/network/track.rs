//! Connections: what is looked up before the rules are asked.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use ringfence_abi::{
    chain::{IP_FRAGMENT, STATE_ESTABLISHED, STATE_INVALID, STATE_NEW, STATE_RELATED, STATE_UNKNOWN},
    connection::{
        Connection, FLAG_MARK, FLAG_OUTBOUND, FLAG_REFUSED, Fragment, FragmentKey, KILLED, Key, LINE_BITS, TCP_CLOSING,
        same_time, stamp,
    },
    counter,
    limit::MAX_NOTED,
    verdict::{ACCEPT, DROP},
};
use ringfence_engine::{
    deep::{Deep, MESSAGE_BAD_ERROR, MESSAGE_ERROR, NO_PROTO},
    fields::{FAMILY_NONE, Fields},
    ro::read,
    search::Outcome,
    track::{self, Pool, Segment, described, is_later_fragment},
};

use crate::{
    add,
    again::rejudge,
    fragment, limit,
    maps::{self, CELL, CONNECTIONS, HALF_IN, HALF_OUT, Scratch, scratch},
    report::Tally,
};

/// Working memory of tracking.
#[repr(C)]
pub struct Track {
    pub key: Key,
    pub segment: Segment,
    /// When the packet came.
    pub now: u64,
    /// What judgements hold under, with line 0.
    pub stamp: u64,
    /// What is to be done when the packet is let through.
    pub wish: u64,
    /// A connection that is put together.
    pub fresh: Connection,
    pub fragment: FragmentKey,
    pub first: Fragment,
    /// The first packet of a connection that is judged once more: its fields, interface and mark.
    pub again: Fields,
    pub again_ifindex: u32,
    pub again_mark: u32,
    pub again_marked: u32,
    /// The packet's state, where a limit asks for it.
    pub state: u32,
    /// Numbers of limits that the packet met, as in [`Connection::limits`].
    pub noted: [u16; MAX_NOTED],
}

/// [`Track::wish`]: nothing.
pub const LEAVE: u64 = 0;
/// [`Track::wish`]: the packet belongs to a connection or begins one.
const KEEP: u64 = 1;

/// A packet that has just been parsed.
#[derive(Clone, Copy)]
pub struct Look {
    pub egress: bool,
    pub tally: Tally,
    /// The state that an explanation asks for.
    pub said: Option<u32>,
}

/// Nothing is known of the packet, and nothing is to be kept, until [`look`] has looked: what is on the floor is not.
#[inline(always)]
pub fn begin_packet() {
    if let Some(scratch) = scratch() {
        // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
        unsafe { (*scratch).track.wish = LEAVE };
    }
}

/// What was found.
pub enum Looked {
    /// No rule needs to be asked.
    Settled(Outcome),
    /// Direct index of the packet's state.
    State(u32),
}

/// Whether connections are tracked.
#[inline(always)]
pub fn on() -> bool {
    read(&maps::track().on) != 0
}

/// What judgements hold under now.
#[inline(always)]
fn now_stamp(now: u64) -> u64 {
    let Some(cell) = CELL.get_ptr_mut(0) else { return 0 };
    // SAFETY: the map's only value; its words are stored atomically, and an aligned load does not tear.
    unsafe {
        if limit::adding() {
            let due = (&raw const (*cell).due).read_volatile();
            if due != 0 && now >= due && limit::exchange(&raw mut (*cell).due, due, 0) {
                add::advance(now);
            }
        }
        stamp((&raw const (*cell).epoch).read_volatile(), read(&maps::track().slot), 0)
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC_COARSE`.
#[inline(always)]
pub fn clock() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Looks up what is known of the packet.
#[inline(always)]
pub fn look(look: Look, fields: &Fields) -> Looked {
    let Some(scratch) = scratch() else { return Looked::Settled(Outcome::TABLES) };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let Scratch { deep, track, .. } = unsafe { &mut *scratch };
    if let Some(said) = look.said {
        return Looked::State(described(fields, deep, said));
    }
    track.wish = LEAVE;
    if limit::notes() {
        track.noted = [0; MAX_NOTED];
    }
    let state = described(fields, deep, STATE_NEW);
    if fields.family == FAMILY_NONE {
        return Looked::State(state);
    }
    let in_pieces = fields.ip & IP_FRAGMENT != 0;
    if !in_pieces && !on() {
        return Looked::State(state);
    }
    track.now = clock();
    track.stamp = now_stamp(track.now);
    if in_pieces {
        fragment::name(look.egress, fields, deep, &mut track.fragment);
        if is_later_fragment(fields, deep) {
            return fragment::later(track, deep);
        }
    }
    if on() { connection(look, fields, deep, track) } else { Looked::State(state) }
}

#[inline(always)]
fn connection(look: Look, fields: &Fields, deep: &Deep, track: &mut Track) -> Looked {
    let Some(from_low) = track::key(fields, deep, &mut track.key) else {
        let error = deep.message == MESSAGE_ERROR || deep.message == MESSAGE_BAD_ERROR;
        return Looked::State(match (error, deep.proto == NO_PROTO) {
            (true, _) => STATE_INVALID,
            (false, true) => STATE_UNKNOWN,
            (false, false) => STATE_NEW,
        });
    };
    if deep.message == MESSAGE_ERROR {
        return Looked::State(if is_known(&track.key, track.now) { STATE_RELATED } else { STATE_INVALID });
    }
    track.segment.take(fields, deep, look.egress, from_low);
    track.wish = KEEP;
    if let Some(found) = CONNECTIONS.get_ptr_mut(&track.key) {
        // SAFETY: a value of the map; other CPUs may write the same connection, whose numbers are not exact then.
        let connection = unsafe { &mut *found };
        let over = connection.state >= TCP_CLOSING && connection.state != KILLED;
        let again = track.segment.opens() && (over || connection.flags & FLAG_REFUSED != 0);
        if connection.expires > track.now && !again {
            return known(look, track, connection, Pool::Established);
        }
        let _: Result<(), i32> = CONNECTIONS.remove(&track.key);
    }
    if let Some(found) = HALF_IN.get_ptr_mut(&track.key) {
        // SAFETY: as above.
        let connection = unsafe { &mut *found };
        if connection.expires > track.now && !begins_anew(track, connection, Pool::In) {
            return known(look, track, connection, Pool::In);
        }
    }
    if let Some(found) = HALF_OUT.get_ptr_mut(&track.key) {
        // SAFETY: as above.
        let connection = unsafe { &mut *found };
        if connection.expires > track.now && !begins_anew(track, connection, Pool::Out) {
            return known(look, track, connection, Pool::Out);
        }
    }
    Looked::State(track::state_without(&track.segment))
}

/// Whether a packet begins what was refused before; then that is forgotten.
#[inline(always)]
fn begins_anew(track: &Track, connection: &Connection, pool: Pool) -> bool {
    let anew = track.segment.opens() && connection.flags & FLAG_REFUSED != 0;
    if anew {
        forget(&track.key, pool);
    }
    anew
}

/// Whether there is a connection that goes on, whatever its pool.
#[inline(always)]
fn is_known(key: &Key, now: u64) -> bool {
    let goes_on = |one: &Connection| one.expires > now && one.flags & FLAG_REFUSED == 0;
    // SAFETY: read at once; a connection that goes meanwhile makes a stale answer, not a wrong access.
    unsafe {
        CONNECTIONS.get(key).is_some_and(goes_on)
            || HALF_IN.get(key).is_some_and(goes_on)
            || HALF_OUT.get(key).is_some_and(goes_on)
    }
}

/// A packet of a known connection. If the connection's first packet would not be let through any more, it is one of no
/// connection, and begins none.
#[inline(always)]
fn known(look: Look, track: &mut Track, connection: &mut Connection, pool: Pool) -> Looked {
    if connection.state == KILLED {
        return Looked::Settled(Outcome { line: counter::KILLED, verdict: u32::from(DROP) });
    }
    let state = track::state(connection, pool, &track.segment);
    if state != STATE_ESTABLISHED {
        return Looked::State(state);
    }
    if pool == Pool::Established {
        let cached = connection.cached[place(look.egress, track, connection)];
        if same_time(cached, track.stamp) {
            touch(connection, true, track, look.tally);
            track.wish = LEAVE;
            let line = cached as u32 & ((1 << LINE_BITS) - 1);
            return Looked::Settled(Outcome { line, verdict: u32::from(ACCEPT) });
        }
    }
    if !same_time(connection.judged, track.stamp) {
        put_again(track, connection);
        if rejudge(connection.flags & FLAG_OUTBOUND != 0) {
            connection.flags &= !FLAG_REFUSED;
        } else {
            connection.flags |= FLAG_REFUSED;
        }
        connection.judged = track.stamp;
        if limit::notes() {
            connection.limits = track.noted;
            track.noted = [0; MAX_NOTED];
        }
    }
    if connection.flags & FLAG_REFUSED != 0 {
        track.wish = LEAVE;
        return Looked::State(track::state_without(&track.segment));
    }
    Looked::State(STATE_ESTABLISHED)
}

/// Index into [`Connection::cached`].
#[inline(always)]
pub fn place(egress: bool, track: &Track, connection: &Connection) -> usize {
    let mut place = usize::from(egress) * 2 + track.segment.direction(connection);
    // What the compiler knows to be small it does not bound; the verifier wants to see it.
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) place) };
    place & 3
}

/// Lays the connection's first packet ready to be judged once more.
#[inline(always)]
pub fn put_again(track: &mut Track, connection: &Connection) {
    track::first(&track.key, connection, &mut track.again);
    track.again_ifindex = connection.ifindex;
    track.again_mark = connection.mark;
    track.again_marked = u32::from(connection.flags & FLAG_MARK);
}

#[inline(always)]
pub fn forget(key: &Key, pool: Pool) {
    let _: Result<(), i32> = match pool {
        Pool::Established => CONNECTIONS.remove(key),
        Pool::In => HALF_IN.remove(key),
        Pool::Out => HALF_OUT.remove(key),
    };
}

/// Counts a packet in its connection and gives it new time.
#[inline(always)]
pub fn touch(connection: &mut Connection, promoted: bool, track: &Track, tally: Tally) {
    track::update(connection, promoted, &track.segment);
    if track.segment.direction(connection) == 0 {
        connection.packets[0] += u64::from(tally.packets);
        connection.bytes[0] += u64::from(tally.bytes);
    } else {
        connection.packets[1] += u64::from(tally.packets);
        connection.bytes[1] += u64::from(tally.bytes);
    }
    connection.expires = track.now + read(&maps::track().timeouts[usize::from(connection.state & 7)]);
}
