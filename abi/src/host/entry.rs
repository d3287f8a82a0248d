//! Dynamic entries about paths.

use crate::bytes;

/// Dynamic path entries at most: their numbers are bits of a word.
pub const MAX_PATH_ENTRIES: u32 = 64;

/// Value of the pinned array `PATH_ENTRIES` (`ringctl deny PATH`), by entry number. `id` 0: unused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathEntry {
    /// Grows with every `deny` and `allow`, over both halves.
    pub id: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME` from which it no longer matches; 0: never expires.
    pub expires: u64,
    /// Calls it decided, added atomically by the programs.
    pub hits: u64,
    /// Bit per [`op`](super::op).
    pub ops: u32,
    /// [`crate::verdict::ACCEPT`] or [`crate::verdict::DROP`].
    pub verdict: u32,
    /// User id; [`ANY`]: every.
    pub uid: u32,
    /// Executable's id; [`ANY`]: every.
    pub exe: u32,
}
bytes!(PathEntry: 40);

/// [`PathEntry::uid`] and [`PathEntry::exe`]: any.
pub const ANY: u32 = u32::MAX;

/// Key of the pinned map `PATH_HASHES`, whose value (`u64`) has the bits of the entries for that path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathHashKey {
    /// [`hash_byte`] over the host path, from [`HostState::secret`](super::HostState::secret).
    pub hash: u64,
    /// One of the `PATH_` values.
    pub tree: u64,
}
bytes!(PathHashKey: 16);

/// [`PathHashKey::tree`]: the path itself.
pub const PATH_ITSELF: u64 = 0;
/// The path and all below it.
pub const PATH_TREE: u64 = 1;
/// A directory that the entry's path lies below: moving it, or mounting over it, touches that.
pub const PATH_ABOVE: u64 = 2;

/// One step of the hash by which dynamic path entries are found. Keyed by a secret: who cannot read that cannot make
/// another path that is taken for an allowed one.
#[inline(always)]
#[must_use]
pub const fn hash_byte(hash: u64, byte: u8) -> u64 {
    let mixed = (hash ^ byte as u64).wrapping_mul(0x9fb2_1c65_1e98_df25);
    mixed ^ mixed >> 32
}
