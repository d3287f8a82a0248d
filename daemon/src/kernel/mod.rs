//! The kernel's side of the daemon: the only module that imports aya.
//!
//! [`Kernel`] owns the pins. What it puts into the kernel outlives the process: programs, maps and links are pinned,
//! and dropping a [`Kernel`] changes nothing. A second daemon on the same pins is refused; the next one adopts what it
//! finds.
//!
//! ```text
//! device -> link -> dispatcher --CELL--> XDP_PROGS / TC_PROGS [slot] -> the generation's program -> its own maps
//! ```
//!
//! `unsafe` is in `sys` (bpf commands that aya does not offer) and `mapped` (map values in memory) only.

mod added;
mod attach;
mod cell;
mod clsact;
mod connections;
mod dispatchers;
mod dynamic;
mod entrances;
mod error;
mod explain;
mod features;
mod former;
mod generation;
mod grace;
mod host;
mod info;
mod limits;
mod mapped;
mod maps;
mod measure;
mod objects;
mod off;
mod pins;
mod sys;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    path::Path,
    sync::{Mutex, PoisonError},
};

use ringfence_abi::generation::CellWord;

#[cfg(test)]
pub(crate) use self::added::tests as added_tests;
pub use self::{
    added::{NO_LINE, Position, Rings},
    attach::{AttachReport, Attached, Device, Direction, IngressHook},
    connections::{Pool, Pools},
    error::{KernelError, Result},
    explain::Hook,
    generation::Loaded,
    host::{HookState, MountReport, MountWatch, Obstacle, PathRule, Support},
    info::{MapSize, ProgramSize},
    maps::{MAX_ELEMENTS, MAX_ENTRIES},
    measure::census,
    pins::mount_bpffs,
    sys::{descriptor_of, one_heap, pidfd},
};
use self::{
    dispatchers::Dispatchers, dynamic::Lengths, error::Context as _, former::Formers, grace::Grace, host::Host,
    maps::Shared, pins::Pins,
};

/// The owner of Ringfence's pins.
#[derive(Debug)]
pub struct Kernel {
    maps: Shared,
    dispatchers: Dispatchers,
    lengths: Mutex<Lengths>,
    grace: Grace,
    tcx: bool,
    host: Host,
    formers: Formers,
    // Last: the lock goes when all else is closed.
    pins: Pins,
}

impl Kernel {
    /// Takes possession of `<bpffs>/v<ABI_VERSION>`, adopting what is pinned there and making what is not.
    ///
    /// What another version of Ringfence pinned beside it is found, too, and stays as it is until
    /// [`Kernel::retire_formers`].
    ///
    /// Fails without the needed privileges, on a kernel that lacks something, when `bpffs` is on no BPF filesystem, and
    /// while another daemon owns the pins.
    ///
    /// `cgroup` is where `connect` and `bind` are judged on a kernel without security hooks; `None`: the root of the
    /// cgroup2 file system.
    pub fn open(bpffs: &Path, cgroup: Option<&Path>) -> Result<Self> {
        features::privileges()?;
        features::kernel()?;
        let pins = Pins::own(bpffs)?;
        let formers = Formers::new(pins.formers()?);
        let maps = Shared::open(&pins)?;
        let dispatchers = Dispatchers::open(&pins)?;
        let lengths = Mutex::new(Lengths::recount(&maps)?);
        let host = Host::open(&pins, cgroup)?;
        let grace = Grace::new()?;
        let kernel = Self { maps, dispatchers, lengths, grace, tcx: features::tcx(), host, formers, pins };
        kernel.clear_strays()?;
        Ok(kernel)
    }

    /// What the programs read.
    pub fn cell(&self) -> CellWord {
        self.maps.cell.read()
    }

    /// Puts slots into force, in one store: `current` until `deadline`, `previous` after it (seconds of
    /// `CLOCK_BOOTTIME`; 0: there is no deadline). The audit bit stays.
    pub fn flip(&self, current: u8, previous: u8, deadline: u32) {
        self.maps.cell.write(CellWord { current, previous, deadline, ..self.cell() });
        self.maps.cell.advance();
    }

    /// Says whether verdicts are carried out (`false`) or only counted (`true`).
    pub fn set_audit(&self, audit: bool) {
        self.maps.cell.write(CellWord { audit: audit.into(), ..self.cell() });
    }

    /// Returns when every packet that was being judged before the call has been: after a flip, the counters of the old
    /// generation are then final. Takes some milliseconds.
    pub fn wait_for_running_programs(&self) -> Result<()> {
        self.grace.wait()
    }

    /// Packets that were dropped because the cell named no loaded generation.
    pub fn dispatch_misses(&self) -> Result<u64> {
        let cpus = self.maps.misses.read().context(|| "cannot read the count of dispatch misses".to_owned())?;
        Ok(cpus.iter().flatten().sum())
    }

    /// Makes the pins again where their file system was unmounted and there is another in its place; an error while there
    /// is none.
    pub fn keep_pins(&self) -> Result<()> {
        if self.pins.keep()? {
            tracing::warn!("the BPF filesystem was unmounted; everything is pinned in the one that is there now");
        }
        Ok(())
    }

    fn lengths(&self) -> std::sync::MutexGuard<'_, Lengths> {
        // A panic elsewhere does not make the counts wrong: they change after the kernel's answer.
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
