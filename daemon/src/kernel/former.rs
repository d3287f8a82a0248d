//! Taking over from another version of Ringfence, whose pins lie beside ours and whose bytes we do not read.
//!
//! What is attached to a device is taken over by giving its link our dispatcher in place of theirs: one step for the
//! kernel, so every packet is judged, by the one or by the other. (XDP takes one program a device, so there is no other
//! way without a gap.) Where we judge at another hook, and at the security hooks, whose links take no other program, ours is
//! attached before theirs goes; between the two, both judge. Each step can be done again after a crash.

use std::{
    fs::File,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::programs::ProgramInfo;
use nix::fcntl::Flock;

use super::{
    Kernel,
    attach::Direction,
    clsact,
    dispatchers::Dispatcher,
    error::{Context as _, Result},
    pins, sys,
};
use crate::faults::reach;

/// The pins of another version.
#[derive(Debug)]
pub struct Former {
    name: String,
    root: PathBuf,
    // Ids of its dispatchers, by which its filters are known.
    dispatchers: Vec<u32>,
    // No daemon of that version can be running, nor be started.
    _owner: Flock<File>,
}

/// Those that have not gone yet.
#[derive(Debug, Default)]
pub struct Formers(Mutex<Vec<Former>>);

impl Former {
    /// Of the directory that `owner` holds locked.
    pub(super) fn new(name: String, root: PathBuf, owner: Flock<File>) -> Result<Self> {
        let programs = root.join("programs");
        let names = if programs.exists() { pins::names(&programs)? } else { Vec::new() };
        let ids = names.iter().filter_map(|name| Some(ProgramInfo::from_pin(programs.join(name)).ok()?.id()));
        Ok(Self { name, dispatchers: ids.collect(), root, _owner: owner })
    }

    fn link(&self, ifindex: u32, hook: &str) -> PathBuf {
        self.root.join("links").join(format!("{ifindex}-{hook}"))
    }

    /// Its links of devices, by their pins and the device's number.
    fn links(&self) -> Result<Vec<(PathBuf, u32)>> {
        let directory = self.root.join("links");
        let number = |name: &str| name.split_once('-')?.0.parse().ok();
        Ok(listed(&directory)?.into_iter().filter_map(|name| Some((directory.join(&name), number(&name)?))).collect())
    }

    fn hooks(&self) -> Result<Vec<PathBuf>> {
        let directory = self.root.join("hooks");
        Ok(listed(&directory)?.into_iter().map(|name| directory.join(name)).collect())
    }
}

impl Formers {
    pub(super) fn new(found: Vec<Former>) -> Self {
        Self(Mutex::new(found))
    }

    fn get(&self) -> MutexGuard<'_, Vec<Former>> {
        // Behind the lock is only what is still to be done in the kernel, which can be done again.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a program is a dispatcher of theirs.
    pub(super) fn own(&self, program: u32) -> bool {
        self.get().iter().any(|former| former.dispatchers.contains(&program))
    }

    /// Whether theirs judge system calls.
    pub(super) fn judge_calls(&self) -> Result<bool> {
        self.get().iter().try_fold(false, |found, former| Ok(found || !former.hooks()?.is_empty()))
    }

    /// Takes over what another version attached to this device at this hook; `None`: there is nothing.
    pub(super) fn take_over(&self, ifindex: u32, hook: &str, program: &Dispatcher) -> io::Result<Option<TakenOver>> {
        for former in self.get().iter() {
            let pin = former.link(ifindex, hook);
            let Some(link) = sys::open_pin(&pin)? else { continue };
            let info = sys::link_info(link.as_fd())?;
            if info.ifindex != ifindex {
                // Its device is gone, and another has the number.
                continue;
            }
            if info.program != program.id {
                sys::link_update(link.as_fd(), program.fd.as_fd())?;
                reach("upgrade/link-updated");
            }
            return Ok(Some(TakenOver { link, former: pin }));
        }
        Ok(None)
    }
}

/// A link that runs our dispatcher now, and is still pinned where it was.
pub struct TakenOver {
    link: OwnedFd,
    former: PathBuf,
}

impl TakenOver {
    /// Pins it among ours.
    pub(super) fn keep(self, pin: &Path) -> io::Result<()> {
        sys::pin(self.link.as_fd(), pin)?;
        reach("upgrade/link-pinned");
        std::fs::remove_file(&self.former)
    }
}

impl Kernel {
    /// The versions whose pins are still there, by the names of their directories.
    #[must_use]
    pub fn formers(&self) -> Vec<String> {
        self.formers.get().iter().map(|former| former.name.clone()).collect()
    }

    /// Detaches and removes what other versions left, but for the devices and hooks that are to stay in their care because
    /// ours could not be attached. A former version of which nothing is attached any more is removed whole.
    pub fn retire_formers(&self, keeps_device: impl Fn(u32) -> bool, keeps_hooks: bool) -> Result<()> {
        let mut formers = self.formers.get();
        let mut left = Vec::new();
        for former in std::mem::take(&mut *formers) {
            match self.retire_former(&former, &keeps_device, keeps_hooks) {
                Ok(true) => {}
                Ok(false) => left.push(former),
                Err(error) => {
                    left.push(former);
                    formers.extend(left);
                    return Err(error);
                }
            }
        }
        *formers = left;
        Ok(())
    }

    fn retire_former(&self, former: &Former, keeps_device: impl Fn(u32) -> bool, keeps_hooks: bool) -> Result<bool> {
        let mut kept = false;
        for (pin, ifindex) in former.links()? {
            if keeps_device(ifindex) {
                kept = true;
            } else {
                self.remove_link(&pin)?;
            }
        }
        if !self.tcx {
            for ifindex in clsact::devices(|program| former.dispatchers.contains(&program))? {
                if keeps_device(ifindex) {
                    kept = true;
                    continue;
                }
                for direction in [Direction::Ingress, Direction::Egress] {
                    clsact::detach(ifindex, direction, |program| former.dispatchers.contains(&program))?;
                }
            }
        }
        let hooks = former.hooks()?;
        if keeps_hooks && !hooks.is_empty() {
            kept = true;
        } else {
            for pin in hooks {
                pins::remove(&pin)?;
            }
        }
        reach("upgrade/detached");
        if kept {
            return Ok(false);
        }
        // Program arrays go with their last pin: not while a dispatcher may still call by them.
        self.grace.wait()?;
        pins::remove(&former.root)?;
        reach("upgrade/removed");
        tracing::info!(version = former.name, "the pins of another version are gone");
        Ok(true)
    }

    /// Removes a link of theirs, detaching it unless it is one that runs our dispatcher already.
    fn remove_link(&self, pin: &Path) -> Result<()> {
        let what = || format!("cannot detach {}", pin.display());
        if let Some(link) = sys::open_pin(pin).context(what)? {
            let info = sys::link_info(link.as_fd()).context(what)?;
            if !self.dispatchers.owns(info.program) {
                match sys::link_detach(link.as_fd()) {
                    Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => return Err(error).context(what),
                    _ => {}
                }
            }
        }
        pins::remove(pin)
    }
}

fn listed(directory: &Path) -> Result<Vec<String>> {
    if directory.exists() { pins::names(directory) } else { Ok(Vec::new()) }
}
