//! The daemon's state and its locks.
//!
//! Everything here is synchronous; the server runs it off the runtime's thread. Locks are taken in this order:
//! `applying`, `control`, `dynamic`, `kernel`, the network.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::Notify;

use crate::apply::active::Active;
use crate::apply::candidate::{Candidate, Origin};
use crate::apply::feeds::Feeds;
use crate::apply::own::Own;
use crate::cli::Arguments;
use crate::dynamic::Dynamic;
use crate::error::{Error, Result};
use crate::interfaces::attachments::Attachments;
use crate::interfaces::watch;
use crate::kernel::{Kernel, Loaded, MountReport};
use crate::state::generations::Store;
use crate::state::standing::StandingFile;

/// The daemon.
#[derive(Debug)]
pub struct Daemon {
    /// Its command line.
    pub arguments: Arguments,
    /// Generations on disk.
    pub store: Store,
    /// The network as last seen.
    pub network: watch::Shared,
    /// What `protect_self` guards.
    pub own: Own,
    /// The kernel has no security hooks to give: `connect` and `bind` are judged at a cgroup.
    pub at_cgroup: bool,
    /// The kernel's command line says that nothing is to be enforced.
    pub forbidden: bool,
    /// The set files of the generation in force.
    pub feeds: Feeds,
    /// Wakes whoever waits for the next expiry, when a nearer one has come.
    pub rearm: Notify,
    /// Held over a whole apply: a second one waits.
    applying: Mutex<()>,
    control: Mutex<Control>,
    dynamic: Mutex<Dynamic>,
    // `None`: off.
    kernel: RwLock<Option<Kernel>>,
    // The state directory is this daemon's as long as this lives.
    _owner: Flock<File>,
}

/// What is in force.
#[derive(Debug)]
pub struct Control {
    /// The generation in force; `None`: none.
    pub running: Option<Box<Active>>,
    /// Set while the generation in force waits for a confirmation.
    pub pending: Option<Pending>,
    /// Generations that are not in force any more and could not be let go yet.
    pub leftover: Vec<Active>,
    /// What is attached where.
    pub attachments: Attachments,
    /// What is wrong without belonging to one hook, by subject.
    pub problems: BTreeMap<&'static str, String>,
    /// What survives a reboot.
    pub standing: StandingFile,
    /// The host's mounts, as the programs know them.
    pub mounts: MountReport,
}

impl Control {
    /// The generations that may be in force: the one that is, and the one that an unconfirmed one goes back to.
    #[must_use]
    pub fn loaded(&self) -> Vec<&Loaded> {
        let previous = self.pending.as_ref().map(|pending| &*pending.previous);
        self.running.as_deref().into_iter().chain(previous).map(|active| &active.loaded).collect()
    }
}

/// A generation that waits for a confirmation.
#[derive(Debug)]
pub struct Pending {
    /// What comes back otherwise. Number 0 is the empty generation: nothing was in force.
    pub previous: Box<Active>,
    /// Seconds of `CLOCK_BOOTTIME` after which the programs use it by themselves.
    pub deadline: u32,
}

/// The number of the generation that stands for "nothing in force".
pub const EMPTY: u64 = 0;

impl Daemon {
    /// Opens the state directory. Where `off` was in force, or the kernel's command line forbids it, what `kernel` has
    /// is removed.
    pub fn open(arguments: Arguments, kernel: Kernel) -> Result<Self> {
        let state = &arguments.state_dir;
        fs::create_dir_all(state).map_err(Error::system(format!("cannot make {}", state.display())))?;
        let owner = own(state)?;
        let standing = StandingFile::open(state)?;
        let at_cgroup = kernel.host_support().lsm.is_some();
        let forbidden = crate::apply::off::forbidden_at_boot();
        let kernel = if forbidden || standing.get().off { kernel.off().map(|()| None)? } else { Some(kernel) };
        let control = Control {
            running: None,
            pending: None,
            leftover: Vec::new(),
            attachments: Attachments::default(),
            problems: BTreeMap::new(),
            standing,
            mounts: MountReport::default(),
        };
        Ok(Self {
            store: Store::open(state)?,
            dynamic: Mutex::new(Dynamic::open(state)?),
            network: watch::Shared::default(),
            feeds: Feeds::default(),
            rearm: Notify::new(),
            applying: Mutex::new(()),
            control: Mutex::new(control),
            kernel: RwLock::new(kernel),
            own: Own::of(&arguments),
            at_cgroup,
            forbidden,
            arguments,
            _owner: owner,
        })
    }

    /// Reads, tests and compiles a policy for this machine. `last` is the generation whose copies stand in for set files
    /// that have vanished.
    pub fn candidate(&self, origin: Origin, last: Option<u64>) -> Result<Candidate> {
        Candidate::prepare(origin, &self.store, &self.own, self.at_cgroup, last)
    }

    /// Held by whoever changes which generation is in force. The value behind it is nothing, so a panic in its holder
    /// leaves nothing broken; the same is true of the other locks, whose holders write to the disk and to the kernel
    /// before they change what they hold.
    pub fn applying(&self) -> MutexGuard<'_, ()> {
        self.applying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is in force.
    pub fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Dynamic entries and sets.
    pub fn dynamic(&self) -> MutexGuard<'_, Dynamic> {
        self.dynamic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses the kernel's half; [`Error::Off`] while `off` is in force.
    pub fn kernel<T>(&self, work: impl FnOnce(&Kernel) -> Result<T>) -> Result<T> {
        let kernel = self.kernel.read().unwrap_or_else(PoisonError::into_inner);
        work(kernel.as_ref().ok_or(Error::Off)?)
    }

    /// Whether `off` is in force.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.kernel.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Takes the kernel's half away, for `off`.
    pub fn take_kernel(&self) -> Option<Kernel> {
        self.kernel.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Puts it back, for `on`.
    pub fn set_kernel(&self, kernel: Kernel) {
        *self.kernel.write().unwrap_or_else(PoisonError::into_inner) = Some(kernel);
    }
}

fn own(state: &Path) -> Result<Flock<File>> {
    let path = state.join("lock");
    let cannot = || format!("cannot lock {}", path.display());
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    // On a file system that cannot be written there can be a lock all the same.
    let file = file.or_else(|error| File::open(&path).map_err(|_| error)).map_err(Error::system(cannot()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => Error::System {
            what: "another ringfenced uses the state directory".to_owned(),
            error: std::io::Error::other(state.display().to_string()),
        },
        errno => Error::system(cannot())(errno.into()),
    })
}
