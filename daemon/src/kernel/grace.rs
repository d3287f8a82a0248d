//! Waiting until no program that began before now still runs.
//!
//! After a flip, an invocation that had already read the cell may still be counting into the old generation. The
//! kernel promises that an update of a map of maps returns only when programs can no longer use the old inner map
//! (`maybe_wait_bpf_programs`, kernel 4.18, commit 1ae80cf31938), by waiting for a grace period, which XDP and TC
//! programs run inside of. So one such update of a map of our own that no program uses is the wait. `membarrier` would
//! do as well, but not on kernels with `nohz_full`.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY_OF_MAPS;

use super::{
    error::{Context as _, Result},
    maps, sys,
};

/// A map of maps that serves for waiting.
#[derive(Debug)]
pub struct Grace {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Grace {
    /// Makes the map.
    pub fn new() -> Result<Self> {
        let inner = maps::create("grace_inner", &maps::array::<u64>(1, 0))?;
        let shape = maps::shape(BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 1, 0);
        let outer = sys::map_create("grace", &shape, Some(inner.as_fd()))
            .context(|| "cannot create a map of maps".to_owned())?;
        Ok(Self { outer, inner })
    }

    /// Returns when every program invocation that began before the call has ended: some milliseconds.
    pub fn wait(&self) -> Result<()> {
        let inner = self.inner.as_raw_fd().cast_unsigned();
        sys::update(self.outer.as_fd(), sys::bytes(&0_u32), sys::bytes(&inner), sys::ANY)
            .context(|| "cannot wait for running programs".to_owned())
    }
}
