//! Judging a connection's first packet once more, after something changed: on its own chain, as new, without a trace.

use ringfence_engine::{judge::judge, ro::read, search::passes};

use crate::{
    arena::Arena,
    host::Kernel,
    maps::{self, Scratch, scratch},
};

/// Whether the packet in `Track::again` would be let through today.
#[inline(always)]
pub fn rejudge(outbound: bool) -> bool {
    let passes = if outbound { leaving() } else { arriving() };
    passes != 0
}

// Functions of their own: each is a whole search.

#[inline(never)]
fn arriving() -> u64 {
    first::<false>()
}

#[inline(never)]
fn leaving() -> u64 {
    first::<true>()
}

#[inline(always)]
fn first<const EGRESS: bool>() -> u64 {
    let consts = maps::consts::<EGRESS>();
    let (Some(arena), Some(scratch)) = (Arena::of::<EGRESS>(consts), scratch()) else { return 0 };
    // SAFETY: this CPU's own memory; whoever asks waits.
    let Scratch { track, .. } = unsafe { &mut *scratch };
    let mut kernel = Kernel::again::<EGRESS>();
    let judgement = judge(consts, &arena, &mut kernel, &track.again, EGRESS);
    u64::from(passes(judgement.outcome) || read(&consts.audit) != 0)
}
