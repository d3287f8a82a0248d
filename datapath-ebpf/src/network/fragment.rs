//! Fragments: later ones go where the first one of their packet went.

use ringfence_abi::{
    chain::STATE_UNKNOWN,
    connection::{FRAGMENT_SECONDS, Fragment, FragmentKey, LINE_BITS, same_time},
    counter,
    dynamic::{V4, V6},
    verdict::{ACCEPT, DROP},
};
use ringfence_engine::{
    deep::Deep,
    fields::{FAMILY_V4, Fields},
    search::Outcome,
};

use crate::{
    maps::FRAGMENTS,
    track::{Looked, Track},
};

/// Names the packet that a fragment is of.
#[inline(always)]
pub fn name(egress: bool, fields: &Fields, deep: &Deep, key: &mut FragmentKey) {
    key.src = fields.src;
    key.dst = fields.dst;
    key.id = deep.id;
    key.proto = deep.next as u8;
    key.family = if fields.family == FAMILY_V4 { V4 } else { V6 };
    key.egress = u8::from(egress);
    key.zero = 0;
}

/// A later fragment goes where the first one went. One that begins inside the first one could replace the headers that
/// were judged: it is dropped, and the rest of its packet with it, which cannot be put together any more (RFC 5722). One
/// whose first fragment is not known, because it comes before it or that was refused, is judged with its ports unknown.
#[inline(always)]
pub fn later(track: &mut Track, deep: &Deep) -> Looked {
    if let Some(first) = FRAGMENTS.get_ptr(&track.fragment) {
        // SAFETY: read at once; the programs replace values whole.
        let Fragment { expires, cached, size } = unsafe { *first };
        if expires > track.now && same_time(cached, track.stamp) {
            if u64::from(deep.offset) < size {
                let _: Result<(), i32> = FRAGMENTS.remove(&track.fragment);
                return Looked::Settled(Outcome { line: counter::FRAGMENT_OVERLAP, verdict: u32::from(DROP) });
            }
            let line = cached as u32 & ((1 << LINE_BITS) - 1);
            return Looked::Settled(Outcome { line, verdict: u32::from(ACCEPT) });
        }
    }
    Looked::State(STATE_UNKNOWN)
}

/// Remembers a first fragment that was accepted.
#[inline(always)]
pub fn keep(line: u32, deep: &Deep, track: &mut Track) {
    let mut size = u64::from(deep.size);
    if let Some(known) = FRAGMENTS.get_ptr(&track.fragment) {
        // SAFETY: as above.
        let known = unsafe { *known };
        if known.expires > track.now {
            size = size.max(known.size);
        }
    }
    track.first.expires = track.now + FRAGMENT_SECONDS * 1_000_000_000;
    track.first.cached = track.stamp | u64::from(line);
    track.first.size = size;
    let _: Result<(), i32> = FRAGMENTS.insert(&track.fragment, &track.first, 0);
}
