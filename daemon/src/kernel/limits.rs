//! What a generation's limits remember, and where its programs note what they add to sets.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use ringfence_abi::{
    limit::{AddState, Added, Holder, HolderKey, LimitKey, MAX_SCHEDULES},
    names,
};
use ringfence_policy::compile::Compiled;

use super::{
    error::{Context as _, KernelError, Result},
    maps,
    sys::{self, Shape},
    table::Table,
};

/// The maps of a generation.
pub const MAPS: [&str; 4] = [names::LIMITS, names::HOLDERS, names::ADDED, names::ADD_STATES];

/// Pins the maps of a new generation in its directory. What the one before, in `before`, remembers of its rules goes on:
/// rules are known by what they are, not by their number.
pub fn make(directory: &Path, compiled: &Compiled, before: Option<&Path>) -> Result<()> {
    let schedules = if compiled.track.limits == [0; 2] { 1 } else { MAX_SCHEDULES };
    let limits = maps::ready::<LimitKey, u64>(schedules);
    match carried(before, names::LIMITS, &limits)? {
        Some(map) => pin(directory, names::LIMITS, &map)?,
        None => pin(directory, names::LIMITS, &maps::create(names::LIMITS, &limits)?)?,
    }
    let places = if compiled.track.counts == 0 { 1 } else { compiled.connections };
    holders(directory, &maps::hash::<HolderKey, Holder>(places), before)?;
    let array =
        |size: usize, entries: u32| maps::shape(BPF_MAP_TYPE_ARRAY, 4, size as u32, entries.max(1), BPF_F_MMAPABLE);
    let added = maps::create(names::ADDED, &array(size_of::<Added>(), compiled.track.added))?;
    pin(directory, names::ADDED, &added)?;
    let states = maps::create(names::ADD_STATES, &array(size_of::<AddState>(), compiled.track.adding))?;
    pin(directory, names::ADD_STATES, &states)
}

/// The places of connections: where there are as many as before the same, otherwise a copy.
fn holders(directory: &Path, shape: &Shape, before: Option<&Path>) -> Result<()> {
    if let Some(map) = carried(before, names::HOLDERS, shape)? {
        return pin(directory, names::HOLDERS, &map);
    }
    let map = maps::create(names::HOLDERS, shape)?;
    pin(directory, names::HOLDERS, &map)?;
    let Some(old) = open(before, names::HOLDERS)?.filter(|_| shape.entries > 1) else { return Ok(()) };
    let (own, old): (Table<HolderKey, Holder>, Table<HolderKey, Holder>) = (maps::table(map)?, maps::table(old)?);
    let what = || "cannot copy the places of connections".to_owned();
    let mut all = Vec::new();
    old.for_each(|key, holder| all.push((key, holder))).context(what)?;
    for (key, holder) in all {
        match own.add(&key, &holder) {
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => break,
            result => result.map(drop).context(what)?,
        }
    }
    Ok(())
}

/// The map of the generation before, if it has this shape and something to remember.
fn carried(before: Option<&Path>, name: &str, shape: &Shape) -> Result<Option<OwnedFd>> {
    let Some(map) = open(before, name)?.filter(|_| shape.entries > 1) else { return Ok(None) };
    let found = sys::map_shape(map.as_fd()).context(|| "cannot look at a map".to_owned())?;
    Ok((found == *shape).then_some(map))
}

fn open(directory: Option<&Path>, name: &str) -> Result<Option<OwnedFd>> {
    let Some(path) = directory.map(|directory| directory.join(name)) else { return Ok(None) };
    let map = sys::open_pin(&path).context(|| format!("cannot open {}", path.display()))?;
    map.map(Some).ok_or(KernelError::Foreign { path })
}

fn pin(directory: &Path, name: &str, map: &OwnedFd) -> Result<()> {
    let path = directory.join(name);
    sys::pin(map.as_fd(), &path).context(|| format!("cannot pin {}", path.display()))
}
