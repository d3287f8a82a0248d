//! The host chain's tables.

mod automaton;
mod fields;
mod leaves;
mod positions;
mod quick;
mod tables;
#[cfg(test)]
mod tests;

use ringfence_abi::host::{HostConsts, LEAF_ABSENT, LEAF_UNKNOWN, Leaf};
use ringfence_engine::{
    Tables,
    host::automaton::{leaf, leaf_below},
    slice::SliceTables,
    trie,
};

pub(crate) use self::fields::fstype_number;
pub use self::tables::TRUSTED;
pub(super) use self::tables::compile;

/// The host chain as the loader takes it. Every policy has one.
#[derive(Clone, Debug)]
pub struct CompiledHost {
    /// Constants; the loader writes `serial`.
    pub consts: HostConsts,
    /// The arena, `consts.chain.arena` bytes.
    pub arena: Vec<u8>,
    /// The policy has no `host:`.
    pub implicit: bool,
    /// Some rule reads an executable: they must be kept up for every process.
    pub needs_subjects: bool,
    /// The policy asks for Ringfence to guard itself.
    pub protect_self: bool,
    /// How many classes each field that some rule reads has; fields as in [`ringfence_abi::host::field`].
    pub classes: Vec<(usize, usize)>,
}

/// Where a path begins in the automaton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathKind {
    /// A path on the host's mounts.
    Host,
    /// A path within a file system that the host has not mounted.
    Foreign,
    /// An abstract socket's name, without the `@`.
    Abstract,
}

impl CompiledHost {
    /// The leaf of a path. `/` and the empty path are the root.
    #[must_use]
    pub fn leaf(&self, kind: PathKind, path: &[u8]) -> u32 {
        leaf(&self.consts.paths, &SliceTables(&self.arena), self.start(kind), rooted(kind, path))
    }

    /// The leaf of a directory and all that lies below it, as renaming or mounting over it is judged.
    #[must_use]
    pub fn leaf_below(&self, kind: PathKind, path: &[u8]) -> u32 {
        leaf_below(&self.consts.paths, &SliceTables(&self.arena), self.start(kind), rooted(kind, path))
    }

    /// What a leaf means; that of [`LEAF_UNKNOWN`] for a number there is no leaf of.
    #[must_use]
    pub fn leaf_record(&self, leaf: u32) -> Leaf {
        let read = |leaf: u32| {
            let at = self.consts.paths.leaves + leaf * size_of::<Leaf>() as u32;
            let word = |index: u32| SliceTables(&self.arena).u32(at + index * 4);
            Some(Leaf {
                path: word(0)?,
                exe: word(1)?,
                tainted: word(2)?,
                target: word(3)?,
                ancestor: word(4)?,
                flags: word(5)?,
            })
        };
        read(leaf).or_else(|| read(LEAF_UNKNOWN)).unwrap_or_default()
    }

    /// Class of a process with these group ids.
    #[must_use]
    pub fn gid_mask(&self, gids: &[u32]) -> u32 {
        let mask = |gid: &u32| {
            let tables = SliceTables(&self.arena);
            trie::lookup(&tables, &self.consts.gid, u64::from(*gid) << 32, 0, trie::LEVELS_V4).unwrap_or(0)
        };
        gids.iter().map(mask).fold(0, |all, one| all | one)
    }

    /// Class of a cgroup, by its path below the cgroup2 mount.
    #[must_use]
    pub fn cgroup_class(&self, path: &[u8]) -> u32 {
        let cgroups = &self.consts.cgroups;
        let tables = SliceTables(&self.arena);
        let found = leaf(cgroups, &tables, cgroups.host, rooted(PathKind::Host, path));
        tables.u32(cgroups.leaves + found * size_of::<Leaf>() as u32).unwrap_or(LEAF_ABSENT)
    }

    fn start(&self, kind: PathKind) -> u32 {
        match kind {
            PathKind::Host => self.consts.paths.host,
            PathKind::Foreign => self.consts.paths.foreign,
            PathKind::Abstract => self.consts.paths.abstract_name,
        }
    }
}

/// The automaton's root is the empty path.
fn rooted(kind: PathKind, path: &[u8]) -> &[u8] {
    if kind != PathKind::Abstract && path == b"/" { &[] } else { path }
}
