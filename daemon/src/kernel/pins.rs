//! Where things are pinned, and who owns the place.
//!
//! Below `<bpffs>/v<ABI_VERSION>/`: `maps/NAME` and `programs/NAME` (the dispatchers), which outlive generations;
//! `links/IFINDEX-HOOK` and `hooks/NAME` (the host half's links); `gen/NUMBER-SLOT/` with a generation's own maps and programs. A generation is built in
//! `gen/loading-SLOT` and renamed when it is whole. (No name has a dot: bpffs reserves them.)

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use ringfence_abi::names::CELL;

use super::{
    error::{Context as _, KernelError, Result},
    former::Former,
    sys,
};
use crate::faults::abi_version;

/// Where pins are made that have lost their file system, until all are there.
const RESTORING: &str = "restoring";

/// The directory of all pins.
#[derive(Debug)]
pub struct Pins {
    bpffs: PathBuf,
    root: PathBuf,
    // Held for as long as this process owns the pins. The kernel drops it when the process dies, however it dies.
    owner: Mutex<Flock<File>>,
}

impl Pins {
    /// Takes possession of the directory, which it makes if need be.
    pub fn own(bpffs: &Path) -> Result<Self> {
        let not_bpffs = || KernelError::NotBpffs { path: bpffs.to_owned() };
        let existing = bpffs.ancestors().find(|path| path.exists()).ok_or_else(not_bpffs)?;
        if statfs(existing).context(|| format!("cannot look at {}", existing.display()))?.filesystem_type()
            != BPF_FS_MAGIC
        {
            return Err(not_bpffs());
        }
        let root = bpffs.join(format!("v{}", abi_version()));
        for directory in [
            root.clone(),
            root.join("maps"),
            root.join("programs"),
            root.join("links"),
            root.join("hooks"),
            root.join("gen"),
        ] {
            fs::create_dir_all(&directory).context(|| format!("cannot make {}", directory.display()))?;
        }
        let owner = lock(&root)?;
        remove(&bpffs.join(RESTORING))?;
        Ok(Self { bpffs: bpffs.to_owned(), root, owner: Mutex::new(owner) })
    }

    /// What other versions pinned beside ours; an error while a daemon of theirs is running.
    pub fn formers(&self) -> Result<Vec<Former>> {
        let mut found = Vec::new();
        for name in names(&self.bpffs)? {
            let root = self.bpffs.join(&name);
            let is_version = name.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
            if is_version && root != self.root {
                let owner = lock(&root)?;
                tracing::info!(version = name, "another version of Ringfence was here");
                found.push(Former::new(name, root, owner)?);
            }
        }
        Ok(found)
    }

    /// Looks whether the pins are still where they were. If the file system was unmounted, it lives on for as long as our
    /// descriptor does, and with it what is in force; as soon as there is another in its place, everything is pinned
    /// there. `true`: just now.
    pub fn keep(&self) -> Result<bool> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let held = owner.metadata().context(|| "cannot look at our own pins".to_owned())?;
        match fs::metadata(&self.root) {
            Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => return Ok(false),
            _ => {}
        }
        let gone = || KernelError::Unmounted { path: self.bpffs.clone() };
        let place = self.bpffs.ancestors().find(|path| path.exists()).ok_or_else(gone)?;
        let kind = statfs(place).context(|| format!("cannot look at {}", place.display()))?.filesystem_type();
        if kind != BPF_FS_MAGIC {
            return Err(gone());
        }
        fs::create_dir_all(&self.bpffs).context(|| format!("cannot make {}", self.bpffs.display()))?;
        // Whole or not at all: half of it would not be adopted.
        let restoring = self.bpffs.join(RESTORING);
        remove(&restoring)?;
        pin_again(&PathBuf::from(format!("/proc/self/fd/{}", owner.as_raw_fd())), &restoring)?;
        if !restoring.join("maps").join(CELL).exists() {
            // The directory was removed with what was in it, not the file system from under it.
            remove(&restoring)?;
            return Err(KernelError::Removed { path: self.root.clone() });
        }
        fs::rename(&restoring, &self.root).context(|| format!("cannot make {}", self.root.display()))?;
        *owner = lock(&self.root)?;
        Ok(true)
    }

    /// The directory of all pins of this version.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A map that outlives generations.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join("maps").join(name)
    }

    /// A program that outlives generations.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join("programs").join(name)
    }

    /// The link of a device at a hook.
    pub fn link(&self, ifindex: u32, hook: &str) -> PathBuf {
        self.links().join(format!("{ifindex}-{hook}"))
    }

    /// All links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The link of a place of the host half.
    pub fn hook(&self, name: &str) -> PathBuf {
        self.root.join("hooks").join(name)
    }

    /// A whole generation.
    pub fn generation(&self, number: u64, slot: u8) -> PathBuf {
        self.root.join("gen").join(format!("{number}-{slot}"))
    }

    /// A generation that is being built.
    pub fn loading(&self, slot: u8) -> PathBuf {
        self.root.join("gen").join(format!("loading-{slot}"))
    }

    /// The whole generations: number, slot and directory, in the order of their numbers. What else is there, a build
    /// that was interrupted, is removed.
    pub fn generations(&self) -> Result<Vec<(u64, u8, PathBuf)>> {
        let mut found = Vec::new();
        for name in names(&self.root.join("gen"))? {
            let parsed =
                name.split_once('-').and_then(|(number, slot)| Some((number.parse().ok()?, slot.parse().ok()?)));
            match parsed {
                Some((number, slot)) => found.push((number, slot, self.generation(number, slot))),
                None => remove(&self.root.join("gen").join(name))?,
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes all pins, last of all the directory.
    pub fn remove_all(&self) -> Result<()> {
        remove(&self.root)
    }
}

/// Pins everything that is pinned below `from` below `to`, too.
fn pin_again(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).context(|| format!("cannot make {}", to.display()))?;
    for name in names(from)? {
        let (old, new) = (from.join(&name), to.join(&name));
        if old.is_dir() {
            pin_again(&old, &new)?;
        } else if let Some(object) = sys::open_pin(&old).context(|| format!("cannot open {}", old.display()))? {
            sys::pin(object.as_fd(), &new).context(|| format!("cannot pin {}", new.display()))?;
        }
    }
    Ok(())
}

/// Takes possession of a directory of pins.
fn lock(root: &Path) -> Result<Flock<File>> {
    let directory = File::open(root).context(|| format!("cannot open {}", root.display()))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => KernelError::Owned { path: root.to_owned() },
        error => KernelError::Io { what: format!("cannot lock {}", root.display()), source: error.into() },
    })
}

/// Mounts a BPF filesystem if the directory is on none yet.
pub fn mount_bpffs(directory: &Path) -> Result<()> {
    let what = || format!("cannot mount a BPF filesystem at {}", directory.display());
    if statfs(directory).context(what)?.filesystem_type() == BPF_FS_MAGIC {
        return Ok(());
    }
    mount(Some("bpf"), directory, Some("bpf"), MsFlags::empty(), Some("mode=0700")).context(what)
}

/// The names in a directory.
pub fn names(directory: &Path) -> Result<Vec<String>> {
    let what = || format!("cannot list {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).context(what)? {
        names.push(entry.context(what)?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Removes a pin, or a directory of pins. What is not there is removed already.
pub fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.context(|| format!("cannot remove {}", path.display())),
    }
}
