//! What a connection that has just been proven means to the limits that its first packet met.

use core::ffi::c_void;

use ringfence_abi::limit::{FLAG_CONNECTIONS, FLAG_OVER, MAX_NOTED, NOTED_EGRESS, PROBES};

use crate::{
    add, holders, limit,
    maps::{Scratch, scratch},
    repeat::repeat,
    track::Track,
};

/// The walk over the limits.
#[repr(C)]
pub struct Proving {
    limits: [u16; MAX_NOTED],
    /// Places that are still to be looked at for the limit before.
    probes: u32,
    /// 1: a limit of connections has no place left.
    refused: u32,
    /// A counter to be added to; 0: none.
    count: u32,
    zero: u32,
}

/// A limit and its places, each a step.
const STEPS: u32 = (PROBES + 1) * MAX_NOTED as u32 + 1;

/// Enters a proven connection into its limits; its first packet is in `Track::again`. Whether it may go on, and a counter
/// that it adds to.
#[inline(always)]
pub fn proven(track: &Track) -> (bool, u32) {
    let Some(scratch) = scratch() else { return (true, 0) };
    // SAFETY: this CPU's own memory, which nothing else refers to while a program runs.
    let Scratch { proving, places, .. } = unsafe { &mut *scratch };
    proving.limits = track.fresh.limits;
    proving.probes = 0;
    proving.refused = 0;
    proving.count = 0;
    holders::holder(places, &track.key, track.fresh.created);
    if proving.limits[0] == 0 {
        return (true, 0);
    }
    repeat!(STEPS, step);
    (proving.refused == 0, proving.count)
}

unsafe extern "C" fn step(_: u32, _: *mut c_void) -> i64 {
    let Some(scratch) = scratch() else { return 1 };
    // SAFETY: this CPU's own memory; `proven` waits for the loop.
    let Scratch { proving, places, asked, track, .. } = unsafe { &mut *scratch };
    if proving.probes != 0 {
        proving.probes -= 1;
        if places.try_next() {
            proving.probes = 0;
        } else if proving.probes == 0 {
            proving.refused = 1;
            return 1;
        }
        return 0;
    }
    let number = proving.limits[0];
    proving.limits = [proving.limits[1], proving.limits[2], proving.limits[3], 0];
    if number == 0 {
        return 1;
    }
    let egress = number & NOTED_EGRESS != 0;
    let number = u32::from(number & !NOTED_EGRESS);
    let found = if egress {
        limit::load::<true>(number, &mut asked.limit)
    } else {
        limit::load::<false>(number, &mut asked.limit)
    };
    if found.is_none() {
        return 0;
    }
    if limit::counting() && asked.limit.flags & FLAG_CONNECTIONS != 0 {
        limit::name(&track.again, asked);
        places.start(&asked.key, asked.limit.most, track.now);
        proving.probes = if asked.limit.most < PROBES { asked.limit.most } else { PROBES };
    } else if limit::adding() && asked.limit.flags & FLAG_OVER != 0 {
        limit::prove(egress, &track.again, asked);
    } else if limit::adding() && asked.limit.add != 0 {
        let count = if egress { add::add::<true>(&track.again) } else { add::add::<false>(&track.again) };
        if count != 0 {
            proving.count = count;
        }
    }
    0
}
