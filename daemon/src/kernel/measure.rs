//! What a packet costs, by the kernel's own test run; and what there is of ours in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd as _,
    path::Path,
    time::Duration,
};

use aya::{maps::MapInfo, programs::loaded_programs};
use ringfence_abi::names;

use super::{
    Kernel,
    error::{Context as _, Result},
    explain::Hook,
    sys,
};

impl Kernel {
    /// Mean time the attached programs take for a frame, of `repeat` runs one after the other. What the cell names
    /// judges it, and counts it.
    pub fn time(&self, hook: Hook, frame: &[u8], repeat: u32) -> Result<Duration> {
        let dispatcher = match hook {
            Hook::XdpIngress => names::DISPATCH_XDP,
            Hook::TcIngress => names::DISPATCH_TC_IN,
            Hook::TcIngressL3 => names::DISPATCH_TC_IN_L3,
            Hook::TcEgress => names::DISPATCH_TC_OUT,
            Hook::TcEgressL3 => names::DISPATCH_TC_OUT_L3,
        };
        self.test_run(dispatcher, frame, repeat)
    }

    /// The same for a program that does nothing but let the frame pass: what the test run itself costs.
    pub fn time_bare(&self, frame: &[u8], repeat: u32) -> Result<Duration> {
        self.test_run(names::PASS_XDP, frame, repeat)
    }

    fn test_run(&self, name: &'static str, frame: &[u8], repeat: u32) -> Result<Duration> {
        let program = self.dispatchers.get(name)?.fd.as_fd();
        let nanoseconds = sys::test_run(program, frame, repeat).context(|| format!("cannot run {name}"))?;
        Ok(Duration::from_nanos(nanoseconds.into()))
    }
}

/// The programs in the kernel that read the cell pinned below `root` (a directory such as `.../ringfence/v1`), by name, and
/// how many maps they use. Pinned or not: what is left behind by mistake is counted, too.
pub fn census(root: &Path) -> Result<(BTreeMap<String, usize>, usize)> {
    let what = || "cannot list the programs".to_owned();
    let cell = MapInfo::from_pin(root.join("maps").join(names::CELL)).map_err(io::Error::other).context(what)?.id();
    let (mut programs, mut maps) = (BTreeMap::new(), BTreeSet::new());
    for program in loaded_programs() {
        // One that ends while the list is read is gone, and so is not counted.
        let Ok(program) = program else { continue };
        let Ok(Some(used)) = program.map_ids() else { continue };
        if used.contains(&cell) {
            *programs.entry(program.name_as_str().unwrap_or_default().to_owned()).or_default() += 1;
            maps.extend(used);
        }
    }
    Ok((programs, maps.len()))
}
