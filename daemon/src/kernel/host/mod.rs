//! The host half: dispatchers at security hooks, what a generation's programs need besides its tables, and the programs
//! at a cgroup that stand in for two operations where the kernel has no security hooks to give.
//!
//! ```text
//! hook -> link -> d_HOOK --CELL--> P_HOOK [slot] -> the generation's h_HOOK -> its own maps, and the shared ones
//! ```
//!
//! The order of an apply: [`Kernel::load`], [`Kernel::host_before_flip`], [`Kernel::flip`], [`Kernel::host_after_flip`].

mod attach;
mod btf;
mod entries;
mod explain;
pub(super) mod generation;
mod hooks;
mod layout;
mod maps;
mod mountinfo;
mod mounts;
mod obstacle;
mod others;
mod own;
mod state;
mod subjects;
mod support;

use std::{os::fd::OwnedFd, path::Path};

use ringfence_abi::host::{KEEPS_MOUNTS, KEEPS_SUBJECTS, KernelLayout, op};

pub use self::{
    entries::PathRule,
    explain::AccessExplainer,
    mounts::{MountReport, MountWatch},
    obstacle::Obstacle,
    support::Support,
};
use self::{
    generation::Programs,
    hooks::{Needs, Place},
    maps::HostMaps,
};
use super::{
    Kernel,
    error::{Context as _, Result},
    generation::Loaded,
    pins::Pins,
};

/// Where a hook stands, for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// Its name: one of [`ringfence_abi::host::HOOKS`], or of [`ringfence_abi::host::CGROUP_HOOKS`].
    pub name: &'static str,
    /// The loaded generations, or the dynamic entries, need it.
    pub needed: bool,
    /// Its dispatcher is attached.
    pub attached: bool,
    /// This machine has it.
    pub present: bool,
}

/// The host half's side of a [`Kernel`].
#[derive(Debug)]
pub(super) struct Host {
    pub(super) maps: HostMaps,
    support: Support,
    layout: Option<KernelLayout>,
    cgroup: Option<OwnedFd>,
}

impl Host {
    /// Finds out what the machine can do, and opens the maps.
    pub(super) fn open(pins: &Pins, cgroup: Option<&Path>) -> Result<Self> {
        let support::Found { support, layout, cgroup } = support::find(cgroup);
        Ok(Self { maps: HostMaps::open(pins)?, support, layout, cgroup })
    }

    /// The places at which this machine lets programs judge.
    fn places(&self) -> Vec<Place> {
        match (&self.support.lsm, &self.support.cgroup) {
            (None, _) => Place::security().filter(|place| !self.support.missing.contains(&place.name)).collect(),
            (Some(_), None) => Place::cgroup().collect(),
            (Some(_), Some(_)) => Vec::new(),
        }
    }
}

impl Kernel {
    /// What of the host half this machine can do; found out when the kernel was opened.
    #[must_use]
    pub fn host_support(&self) -> &Support {
        &self.host.support
    }

    /// Calls that were refused because the generation in force had no program where it must have one.
    pub fn host_misses(&self) -> Result<u64> {
        let cpus = self.host.maps.misses.read().context(|| "cannot read the count of host misses".to_owned())?;
        Ok(cpus.iter().flatten().sum())
    }

    /// Everything that must be so before `next` may come into force: mounts, executables of running processes and what
    /// they mean, and every dispatcher that it or one of `others` (those that may be in force as well) needs. After an
    /// error, what was attached for `next` goes with the next [`Kernel::host_after_flip`].
    pub fn host_before_flip(&self, next: &Loaded, others: &[&Loaded]) -> Result<()> {
        let all: Vec<&Loaded> = others.iter().copied().chain([next]).collect();
        self.keep_up(&all)?;
        let current = self.cell().current;
        let kept = others.iter().any(|other| other.slot == current && other.host.needs().keeps(KEEPS_SUBJECTS));
        self.attach_places(self.judged(&all).into_iter())?;
        self.know_subjects(next, !kept)?;
        self.enter_own(self.needs(&all)?)
    }

    /// Completes a flip: makes up for what happened between [`Kernel::host_before_flip`] and the flip, and detaches what
    /// none of the `loaded` generations needs.
    pub fn host_after_flip(&self, loaded: &[&Loaded]) -> Result<()> {
        let current = self.cell().current;
        if let Some(current) = loaded.iter().find(|loaded| loaded.slot == current) {
            self.know_subjects(current, false)?;
        }
        let judged = self.judged(loaded);
        self.attach_places(judged.iter().copied())?;
        for place in Place::security().chain(Place::cgroup()) {
            if !judged.iter().any(|judged| judged.bit == place.bit) {
                self.detach_place(&place)?;
            }
        }
        self.enter_own(self.needs(loaded)?)
    }

    /// Works out anew what the known executables mean to a generation. Under one generation, the programs do it for every
    /// executable that is new; to be done now and then for one that waits to come back.
    pub fn refresh_executables(&self, loaded: &Loaded) -> Result<()> {
        loaded.host.fill_leaves(&self.host.maps.exes)
    }

    /// Every hook, for the status.
    pub fn host_hooks(&self, loaded: &[&Loaded]) -> Result<Vec<HookState>> {
        let needs = self.needs(loaded)?;
        let present = self.host.places();
        let all = if self.host.support.lsm.is_none() {
            Place::security().collect()
        } else {
            Place::security().chain(Place::cgroup()).collect::<Vec<_>>()
        };
        all.into_iter()
            .map(|place| {
                Ok(HookState {
                    name: place.name,
                    needed: place.serves(needs),
                    attached: self.is_attached(&place)?,
                    present: present.iter().any(|present| present.bit == place.bit),
                })
            })
            .collect()
    }

    /// Operations that a generation asks to judge and that nothing on this machine judges (bits of [`op`]).
    #[must_use]
    pub fn unjudged_ops(&self, loaded: &Loaded) -> u32 {
        let places = self.host.places();
        let judged = |op: u32| {
            let needs = Needs { ops: 1 << op, keeps: 0 };
            places.iter().any(|place| place.serves(needs))
        };
        let asked = loaded.host.needs().ops;
        (0..op::COUNT).filter(|op| asked & 1 << op != 0 && !judged(*op)).map(|op| 1 << op).sum()
    }

    /// What the dynamic entries ask to be kept up, whatever the policy reads.
    pub(super) fn entry_keeps(&self) -> Result<u32> {
        Ok(self.entry_needs()?.keeps)
    }

    /// Loads what a generation that is being built judges with.
    pub(super) fn load_host(&self, slot: u8, directory: &Path, consts: &ringfence_abi::host::HostConsts) -> Result<()> {
        let needs = Needs::of(consts).and(self.entry_needs()?);
        let places: Vec<Place> = self.host.places().into_iter().filter(|place| place.serves(needs)).collect();
        Programs::of(self, directory, consts).load(slot, &places)
    }

    /// Makes generations judge wherever these needs call for it, and attaches there.
    fn serve(&self, loaded: &[&Loaded], needs: Needs) -> Result<()> {
        for generation in loaded {
            let there = self.host.maps.state.hooks(generation.slot);
            // Programs that were loaded to keep up less have no code for the rest: they are replaced.
            let raised = generation::raise(&generation.directory, needs.keeps)?;
            let added = Needs { ops: 0, keeps: raised.map_or(0, |_| needs.keeps) };
            let consts = raised.map_or_else(|| Ok(generation::HostPart::open(&generation.directory)?.consts), Ok)?;
            let lacks = |place: &Place| place.serves(needs) && there & 1 << place.bit == 0 || place.serves(added);
            let places: Vec<Place> = self.host.places().into_iter().filter(lacks).collect();
            Programs::of(self, &generation.directory, &consts).load(generation.slot, &places)?;
        }
        let subjects = needs.keeps(KEEPS_SUBJECTS);
        let kept = loaded.iter().any(|loaded| loaded.host.needs().keeps(KEEPS_SUBJECTS))
            || self.entry_needs()?.keeps(KEEPS_SUBJECTS);
        self.attach_places(self.judged(loaded).into_iter())?;
        match loaded.iter().find(|loaded| loaded.slot == self.cell().current) {
            Some(current) if subjects => self.scan_subjects(&current.host, !kept),
            _ => Ok(()),
        }
    }

    /// The places at which one of the generations has a program.
    fn judged(&self, loaded: &[&Loaded]) -> Vec<Place> {
        let bits = loaded.iter().fold(0, |bits, loaded| bits | self.host.maps.state.hooks(loaded.slot));
        Place::security().chain(Place::cgroup()).filter(|place| bits & 1 << place.bit != 0).collect()
    }

    fn needs(&self, loaded: &[&Loaded]) -> Result<Needs> {
        Ok(loaded.iter().fold(self.entry_needs()?, |all, loaded| all.and(loaded.host.needs())))
    }

    fn keep_up(&self, loaded: &[&Loaded]) -> Result<()> {
        if self.needs(loaded)?.keeps(KEEPS_MOUNTS) {
            self.refresh_mounts()?;
        }
        Ok(())
    }

    /// Enters the running processes where a generation asks for executables, and what these mean to it.
    fn know_subjects(&self, loaded: &Loaded, fresh: bool) -> Result<()> {
        if self.host.support.lsm.is_some() {
            return Ok(());
        }
        if loaded.host.needs().and(self.entry_needs()?).keeps(KEEPS_SUBJECTS) {
            self.scan_subjects(&loaded.host, fresh)?;
        }
        self.refresh_executables(loaded)
    }
}
