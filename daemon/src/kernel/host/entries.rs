//! Dynamic entries by path (`ringctl deny PATH`), found by keyed hashes of host paths.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use ringfence_abi::host::{
    ANY, EXE_UNKNOWN, KEEPS_MOUNTS, KEEPS_SUBJECTS, MAX_PATH_ENTRIES, PATH_ABOVE, PATH_ITSELF, PATH_TREE, PathEntry,
    PathHashKey, hash_byte,
};

use super::{hooks::Needs, subjects::exe_path};
use crate::kernel::{
    Kernel,
    error::{Context as _, KernelError, Result},
    generation::Loaded,
};

/// An entry of `ringctl deny PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Host path, symbolic links resolved by the caller.
    pub path: PathBuf,
    /// Also all below it.
    pub tree: bool,
    /// What it is about. `exe` and `hits` are filled in.
    pub entry: PathEntry,
    /// Host path of the only executable it is about.
    pub exe: Option<PathBuf>,
}

impl Kernel {
    /// Puts an entry in force, hooks included, before it returns. `loaded` are the generations that may be in force.
    /// Gives its number, by which it is removed.
    pub fn add_path_rule(&self, rule: &PathRule, loaded: &[&Loaded]) -> Result<u32> {
        let what = || format!("cannot enter {}", rule.path.display());
        if let Some(obstacle) = &self.host.support.lsm {
            return Err(KernelError::Host(obstacle.clone()));
        }
        let exe = rule.exe.as_deref().map_or(Ok(ANY), |path| self.exe_id(path))?;
        if exe == EXE_UNKNOWN {
            return Err(KernelError::Full { what: "the list of executables", limit: ringfence_abi::host::EXES as u32 });
        }
        let entry = PathEntry { exe, hits: 0, ..rule.entry };
        self.refresh_mounts()?;
        self.serve(loaded, needs(&entry))?;
        let used = self.path_entries()?;
        let number = (0..MAX_PATH_ENTRIES).find(|number| !used.iter().any(|(other, _)| other == number));
        let number = number.ok_or(KernelError::Full { what: "the list of path entries", limit: MAX_PATH_ENTRIES })?;
        let maps = &self.host.maps;
        maps.entries.set(&number, &entry).context(what)?;
        for key in keys(maps.state.secret(), rule.path.as_os_str().as_bytes(), rule.tree) {
            let bits = maps.hashes.get(&key).context(what)?.unwrap_or_default();
            maps.hashes.set(&key, &(bits | 1 << number)).context(what)?;
        }
        // From here on it is looked for, and no directory is taken to be known.
        maps.state.set_entries(used.len() as u32 + 1);
        self.wait_for_running_programs()?;
        Ok(number)
    }

    /// Takes an entry out of force. The hooks it needed go with the next [`Kernel::host_after_flip`].
    pub fn remove_path_rule(&self, number: u32) -> Result<()> {
        let what = || format!("cannot remove path entry {number}");
        let maps = &self.host.maps;
        let mut held = Vec::new();
        let bit = 1_u64.checked_shl(number).unwrap_or_default();
        maps.hashes
            .for_each(|key, bits| {
                if bits & bit != 0 {
                    held.push((key, bits & !bit));
                }
            })
            .context(what)?;
        for (key, bits) in held {
            if bits == 0 {
                maps.hashes.remove(&key).context(what)?;
            } else {
                maps.hashes.set(&key, &bits).context(what)?;
            }
        }
        maps.entries.set(&number, &PathEntry::default()).context(what)?;
        maps.state.set_entries(self.path_entries()?.len() as u32);
        Ok(())
    }

    /// The entries in force, with their hits, by number.
    pub fn path_entries(&self) -> Result<Vec<(u32, PathEntry)>> {
        let mut entries = Vec::new();
        for number in 0..MAX_PATH_ENTRIES {
            let entry = self.host.maps.entries.get(&number).context(|| "cannot read the path entries".to_owned())?;
            entries.extend(entry.filter(|entry| entry.id != 0).map(|entry| (number, entry)));
        }
        Ok(entries)
    }

    /// The id of an executable's host path, by which [`PathEntry::exe`] names it; given out if it is new.
    pub fn exe_id(&self, path: &Path) -> Result<u32> {
        let key = exe_path(path.as_os_str().as_bytes());
        let long = || KernelError::Full { what: "the room for an executable's path", limit: 256 };
        self.executable(&key.ok_or_else(long)?)
    }

    /// What the entries ask of the hooks, in every generation.
    pub(super) fn entry_needs(&self) -> Result<Needs> {
        Ok(self.path_entries()?.iter().fold(Needs::default(), |all, (_, entry)| all.and(needs(entry))))
    }
}

fn needs(entry: &PathEntry) -> Needs {
    let subjects = if entry.exe == ANY { 0 } else { KEEPS_SUBJECTS };
    Needs { ops: entry.ops, keeps: KEEPS_MOUNTS | subjects }
}

/// The keys under which a path is found: its own, and those of the directories on the way to it.
fn keys(secret: u64, path: &[u8], tree: bool) -> Vec<PathHashKey> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let hash = |path: &[u8]| path.iter().fold(secret, |hash, byte| hash_byte(hash, *byte));
    let above = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
    let itself = PathHashKey { hash: hash(path), tree: if tree { PATH_TREE } else { PATH_ITSELF } };
    above.map(|path| PathHashKey { hash: hash(path), tree: PATH_ABOVE }).chain([itself]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_by_itself_and_by_every_directory_above_it() {
        let hash = |path: &str| path.bytes().fold(7, hash_byte);
        let expected = [("", PATH_ABOVE), ("/etc", PATH_ABOVE), ("/etc/ssh", PATH_TREE)];
        let expected: Vec<_> = expected.map(|(path, tree)| PathHashKey { hash: hash(path), tree }).into();
        assert_eq!(keys(7, b"/etc/ssh", true), expected);
        assert_eq!(keys(7, b"/etc/ssh/", true), expected, "a trailing slash means nothing");
        assert_eq!(keys(7, b"/", false), [PathHashKey { hash: 7, tree: PATH_ITSELF }]);
    }
}
