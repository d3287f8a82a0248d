//! The host half: dispatchers at security hooks, what a generation's programs need besides its tables, and the programs
//! at a cgroup that stand in for two operations where the kernel has no security hooks to give.
//!
//! ```text
//! hook -> link -> d_HOOK --CELL--> P_HOOK [slot] -> the generation's h_HOOK -> its own maps, and the shared ones
//! ```
//!
//! The order of an apply: [`Kernel::load`], [`Kernel::host_before_flip`], [`Kernel::flip`], [`Kernel::host_after_flip`].

mod btf;
mod layout;
mod obstacle;

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use ringfence_abi::{
    explain::Answer,
    host::{AccessQuestion, PathEntry},
};

pub use self::obstacle::Obstacle;
use super::{
    Kernel,
    error::{Context as _, KernelError, Result},
    generation::Loaded,
};

/// What of the host half this machine can do.
#[derive(Clone, Debug)]
pub struct Support {
    /// What stands in the way of the security hooks; `None`: they can be had.
    pub lsm: Option<Obstacle>,
    /// What stands in the way of judging `connect` and `bind` at a cgroup, which is done where `lsm` is an obstacle.
    pub cgroup: Option<Obstacle>,
    /// Hooks of [`ringfence_abi::host::HOOKS`] that this kernel lacks.
    pub missing: Vec<&'static str>,
}

/// Where a hook stands, for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// Its name: one of [`ringfence_abi::host::HOOKS`], or `cgroup/connect4` ...
    pub name: &'static str,
    /// The loaded generations need it.
    pub needed: bool,
    /// Its dispatcher is attached.
    pub attached: bool,
    /// This kernel has it.
    pub present: bool,
}

/// The mount table as it was put into the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountReport {
    /// Mounts that are known to the programs.
    pub known: usize,
    /// Those that did not fit (a path too long, too many parts of one device): host paths below them are unknown.
    pub left_out: Vec<String>,
    /// Whether anything changed.
    pub changed: bool,
}

/// `/proc/self/mountinfo`: readable (with `POLLPRI`, or the error condition) whenever the mount table has changed.
#[derive(Debug)]
pub struct MountWatch(std::fs::File);

impl AsFd for MountWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An entry of `ringctl deny PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Host path, without a trailing slash, links resolved by the caller.
    pub path: PathBuf,
    /// Also all below it.
    pub tree: bool,
    /// What it is about. `exe` is filled in from `exe` below.
    pub entry: PathEntry,
    /// Host path of the only executable it is about.
    pub exe: Option<PathBuf>,
}

impl Kernel {
    /// What of the host half this machine can do; found out when the kernel was opened.
    #[must_use]
    pub fn host_support(&self) -> &Support {
        &self.host_support
    }

    /// Everything that must be so before `next` may come into force: mounts, subjects, the meaning of executables, and
    /// every dispatcher that it or one of `others` (those that may be in force, too) needs. After an error, what was
    /// attached for `next` goes with the next [`Kernel::host_after_flip`].
    pub fn host_before_flip(&self, next: &Loaded, others: &[&Loaded]) -> Result<()> {
        let (_, _) = (next, others);
        Ok(())
    }

    /// Completes a flip: what happened between the two is made up for, and hooks that no generation of `loaded` needs are
    /// detached.
    pub fn host_after_flip(&self, loaded: &[&Loaded]) -> Result<()> {
        let _ = loaded;
        Ok(())
    }

    /// Every hook, for the status.
    pub fn host_hooks(&self, loaded: &[&Loaded]) -> Result<Vec<HookState>> {
        let _ = loaded;
        Ok(Vec::new())
    }

    /// Opens the watch of the mount table; call [`Kernel::refresh_mounts`] when it fires.
    pub fn watch_mounts() -> Result<MountWatch> {
        let file = std::fs::File::open("/proc/self/mountinfo").context(|| "cannot watch the mount table".to_owned())?;
        Ok(MountWatch(file))
    }

    /// Brings the mount table up to date.
    pub fn refresh_mounts(&self) -> Result<MountReport> {
        Ok(MountReport::default())
    }

    /// Puts an entry in force, hooks included, before it returns: in all of `loaded`. Gives its number.
    pub fn add_path_rule(&self, rule: &PathRule, loaded: &[&Loaded]) -> Result<u32> {
        let (_, _) = (rule, loaded);
        Err(self.unavailable())
    }

    /// Takes an entry out of force. The hooks it needed go with the next [`Kernel::host_after_flip`].
    pub fn remove_path_rule(&self, number: u32) -> Result<()> {
        let _ = number;
        Err(self.unavailable())
    }

    /// The entries in force, with their hits, by number.
    pub fn path_entries(&self) -> Result<Vec<(u32, PathEntry)>> {
        Ok(Vec::new())
    }

    /// The id of an executable's host path, by which [`PathEntry::exe`] names it; given out if it is new.
    pub fn exe_id(&self, path: &Path) -> Result<u32> {
        let _ = path;
        Err(self.unavailable())
    }

    /// What a generation does with an access, decided by its own programs without effect. Works on every kernel.
    pub fn explain_access(&self, loaded: &Loaded, question: &AccessQuestion) -> Result<Answer> {
        let (_, _) = (loaded, question);
        Err(self.unavailable())
    }

    fn unavailable(&self) -> KernelError {
        let obstacle = self.host_support.lsm.clone();
        KernelError::Host(obstacle.unwrap_or(Obstacle::NotBuilt))
    }
}

/// The cgroup that programs are attached to: a directory of a cgroup2 file system.
pub(super) fn open_cgroup(directory: &Path) -> Result<OwnedFd> {
    let file = std::fs::File::open(directory);
    Ok(file.context(|| format!("cannot open the cgroup {}", directory.display()))?.into())
}
