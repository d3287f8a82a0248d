//! The mount table in the kernel, brought up to date with `/proc/1/mountinfo`.
//!
//! Host paths are those of PID 1's mount namespace: the daemon itself may run in one of its own (`PrivateTmp=` and the
//! like), where parts of the host look different.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
};

use ringfence_abi::host::MountKey;

use super::mountinfo;
use crate::kernel::{
    Kernel,
    error::{Context as _, KernelError as Error, Result},
};

/// As the map `MOUNTS` holds it.
type Table = HashMap<MountKey, ringfence_abi::host::Mount>;

const TABLE: &str = "/proc/1/mountinfo";
/// How often a table is read that a program has changed before it could be entered.
const ATTEMPTS: u32 = 16;

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
        let namespace = fs::metadata("/proc/1/ns/mnt").context(|| "cannot look at the mount namespace".to_owned())?;
        let changed = self.host.maps.state.set_namespace(namespace.ino() as u32);
        let mut report = MountReport { changed, ..MountReport::default() };
        let entered = self.follow_mounts(&mut report);
        if report.changed {
            self.host.maps.state.bump_epoch();
        }
        entered.map(|()| report)
    }

    fn follow_mounts(&self, report: &mut MountReport) -> Result<()> {
        for _ in 0..ATTEMPTS {
            // What the programs enter after this is not known to be older than the text.
            let before = self.known_mounts()?;
            let text = fs::read(TABLE).context(|| format!("cannot read {TABLE}"))?;
            let (table, left_out) = mountinfo::table(&mountinfo::parse(&text));
            (report.known, report.left_out) = (table.len(), left_out);
            if let Some(wanted) = by_address(table, &before)
                && self.enter_mounts(&before, &wanted, &mut report.changed)?
            {
                return Ok(());
            }
            // Until a file system is gone whose number another has already.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err(Error::Busy { what: TABLE })
    }

    fn known_mounts(&self) -> Result<Table> {
        let mut known = Table::new();
        let each = |key, mount| {
            known.insert(key, mount);
        };
        self.host.maps.mounts.for_each(each).context(|| "cannot read the mount table".to_owned())?;
        Ok(known)
    }

    /// Puts what is wanted into the kernel's table, in which there was `before`. `false`: it is another by now.
    fn enter_mounts(&self, before: &Table, wanted: &Table, changed: &mut bool) -> Result<bool> {
        let what = || "cannot bring the mount table up to date".to_owned();
        let mounts = &self.host.maps.mounts;
        for (key, mount) in wanted {
            let entered = match before.get(key) {
                Some(known) if known == mount => continue,
                Some(known) => {
                    mounts.get(key).context(what)? == Some(*known) && mounts.replace(key, mount).context(what)?
                }
                None => mounts.add(key, mount).context(what)?,
            };
            if !entered {
                return Ok(false);
            }
            *changed = true;
        }
        // What a program entered stays until it is gone: it does so before the mount is to be seen, and what is not to
        // be seen any more may still be in use.
        let is_programs = |key: &MountKey| key.is_address() && key.index == 0;
        for key in before.keys().filter(|key| !wanted.contains_key(key) && !is_programs(key)) {
            *changed |= mounts.remove(key).context(what)?;
        }
        Ok(true)
    }
}

/// The table with the superblocks' addresses in place of the device numbers, where they are known. `None`: of two file
/// systems with the same number, one is about to go.
fn by_address(table: Table, known: &Table) -> Option<Table> {
    let mut addresses = HashMap::new();
    for (key, mount) in known.iter().filter(|(key, _)| key.is_address() && key.index == 0) {
        if addresses.insert(mount.device, key.file_system).is_some() {
            return None;
        }
    }
    let address = |device| addresses.get(&device).copied();
    let renamed = table.into_iter().map(|(key, mount)| {
        (MountKey { file_system: address(key.file_system).unwrap_or(key.file_system), ..key }, mount)
    });
    Some(renamed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: u64 = 0xffff_8880_0100_0000;

    fn key(file_system: u64) -> MountKey {
        MountKey { file_system, index: 0, zero: 0 }
    }

    fn table(lines: &str) -> Table {
        mountinfo::table(&mountinfo::parse(lines.as_bytes())).0
    }

    #[test]
    fn what_a_program_entered_is_named_by_its_address() {
        let now = table("1 0 0:50 / /a rw - tmpfs t rw\n2 0 0:51 / /b rw - tmpfs t rw\n");
        let entered = [(key(ADDRESS), now[&key(50)])].into();
        let wanted = by_address(now.clone(), &entered).unwrap();
        assert_eq!(wanted.get(&key(ADDRESS)), now.get(&key(50)));
        assert_eq!(wanted.get(&key(50)), None);
        assert_eq!(wanted.get(&key(51)), now.get(&key(51)));
    }

    #[test]
    fn of_two_with_one_number_nothing_is_said() {
        let now = table("1 0 0:50 / /a rw - tmpfs t rw\n");
        let entered = [(key(ADDRESS), now[&key(50)]), (key(ADDRESS + 4096), now[&key(50)])].into();
        assert_eq!(by_address(now, &entered), None);
    }
}
