//! The mount table in the kernel, brought up to date with `/proc/1/mountinfo`.
//!
//! Host paths are those of PID 1's mount namespace: the daemon itself may run in one of its own (`PrivateTmp=` and the
//! like), where parts of the host look different.

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
};

use super::mountinfo;
use crate::kernel::{
    Kernel,
    error::{Context as _, Result},
};

const TABLE: &str = "/proc/1/mountinfo";

/// The mount table as it was put into the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountReport {
    /// Mounts that are known to the programs.
    pub known: usize,
    /// Mount points of those that did not fit (a path too long, too many parts of one device): files there are unknown.
    pub left_out: Vec<String>,
    /// Whether anything changed.
    pub changed: bool,
}

/// The mount table's file: `poll` says `POLLPRI` and `POLLERR` when the table has changed since the last `poll`.
#[derive(Debug)]
pub struct MountWatch(File);

impl MountWatch {
    /// Opens it; call [`Kernel::refresh_mounts`] when it fires.
    pub fn open() -> Result<Self> {
        Ok(Self(File::open(TABLE).context(|| "cannot watch the mount table".to_owned())?))
    }
}

impl AsFd for MountWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Kernel {
    /// Opens the watch of the mount table.
    pub fn watch_mounts() -> Result<MountWatch> {
        MountWatch::open()
    }

    /// Brings the mount table up to date; where there are no security hooks, nobody reads it, and nothing is done.
    pub fn refresh_mounts(&self) -> Result<MountReport> {
        if self.host_support().lsm.is_some() {
            return Ok(MountReport::default());
        }
        let text = fs::read(TABLE).context(|| format!("cannot read {TABLE}"))?;
        let namespace = fs::metadata("/proc/1/ns/mnt").context(|| "cannot look at the mount namespace".to_owned())?;
        self.enter_mounts(&text, namespace.ino() as u32)
    }

    /// Puts a mount table into the kernel.
    pub(super) fn enter_mounts(&self, text: &[u8], namespace: u32) -> Result<MountReport> {
        let what = || "cannot bring the mount table up to date".to_owned();
        let maps = &self.host.maps;
        let lines = mountinfo::parse(text);
        let (mut table, left_out) = mountinfo::table(&lines);
        let known = table.len();
        let mut gone = Vec::new();
        maps.mounts
            .for_each(|key, mount| match table.get(&key) {
                Some(wanted) if *wanted == mount => drop(table.remove(&key)),
                Some(_) => {}
                None => gone.push(key),
            })
            .context(what)?;
        // What is left of the table is new or different.
        let changed = maps.state.set_namespace(namespace) || !table.is_empty() || !gone.is_empty();
        for (key, mount) in &table {
            maps.mounts.set(key, mount).context(what)?;
        }
        for key in &gone {
            maps.mounts.remove(key).context(what)?;
        }
        if changed {
            maps.state.bump_epoch();
        }
        Ok(MountReport { known, left_out, changed })
    }
}
