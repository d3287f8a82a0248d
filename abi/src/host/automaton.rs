//! Paths: the automaton over a policy's patterns, and what a whole path means.

use crate::bytes;

/// Leaf of an object without a path: class 0 in every field.
pub const LEAF_ABSENT: u32 = 0;
/// Leaf of an object whose path cannot be told.
pub const LEAF_UNKNOWN: u32 = 1;

/// What a whole path means to each field that can ask for one. Index 0 is [`LEAF_ABSENT`], 1 is [`LEAF_UNKNOWN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// Class of [`field::PATH`](super::field::PATH) (or [`field::CGROUP`](super::field::CGROUP), in that automaton).
    pub path: u32,
    /// Class of [`field::EXE`](super::field::EXE) for a process that runs this file.
    pub exe: u32,
    /// The same for one that is tainted: no permission by `exe` holds any more.
    pub tainted: u32,
    /// Class of [`field::TARGET`](super::field::TARGET).
    pub target: u32,
    /// Bit `i`: condition `i` on ancestors holds; `MASK_UNKNOWN` in [`LEAF_UNKNOWN`], where a union with it is that.
    pub ancestor: u32,
    /// [`LEAF_TRUSTED`].
    pub flags: u32,
}
bytes!(Leaf: 24);

/// [`Leaf::flags`]: mapping this file executable does not taint (it lies in a trusted tree).
pub const LEAF_TRUSTED: u32 = 1;

/// What a path automaton's state means at the end of a component, by the number in the state's last column. Number 0
/// is all zeros.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateInfo {
    /// Which patterns `BASE/**` begin here: second half of a key of [`Automaton::combine`]; 0: none.
    pub tree: u32,
    /// Which patterns without a tail end here: second half of a key of [`Automaton::finish`]; 0: none.
    pub exact: u32,
    /// What can still be reached below: second half of a key of [`Automaton::below`]; 0: nothing that matters.
    pub reach: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(StateInfo: 16);

/// A hash table in the arena: `mask + 1` [`PairEntry`]s, open addressing. The place of `(a, b)` is
/// `(key * PAIR_MULTIPLIER >> 32) & mask` with `key = a << 32 | b`, then the next ones, at most [`PAIR_PROBES`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// Offset of the entries.
    pub offset: u32,
    /// Number of entries less one; a power of two less one.
    pub mask: u32,
}
bytes!(Pairs: 8);

/// Multiplier of [`Pairs`]' hash (2^64 divided by the golden ratio).
pub const PAIR_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Entries that are looked at; the compiler makes the table large enough.
pub const PAIR_PROBES: u32 = 8;
/// [`PairEntry::key`] of an unused entry.
pub const PAIR_FREE: u64 = u64::MAX;

/// An entry of [`Pairs`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairEntry {
    /// `a << 32 | b`.
    pub key: u64,
    /// What the pair stands for.
    pub value: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(PairEntry: 16);

/// A path automaton in the arena, read forward.
///
/// Its input is a *kind* (the start state) and then the path's bytes: `/a/b`, nothing for the root. A state is a number
/// of `u32`s from [`Automaton::rows`]; the next state for byte `x` is the word at `state + classes[x]`. State 0 is dead and
/// leads to itself. *Arriving* means the end of a component (and the start itself): [`StateInfo::tree`], if not 0, is
/// added to the *trees* gathered so far (0 at first) by [`Automaton::combine`]. The path's leaf is
/// `finish(trees, exact)`, or, where `exact` is 0, the word `trees` of [`Automaton::tree_leaves`].
///
/// A pair that has no entry cannot occur; whoever misses one takes [`LEAF_UNKNOWN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Automaton {
    /// Offset of 256 bytes: the column of each byte.
    pub classes: u32,
    /// Offset of the rows.
    pub rows: u32,
    /// Column of the state's [`StateInfo`] number.
    pub info: u32,
    /// Offset of the [`StateInfo`]s.
    pub infos: u32,
    /// `(trees, tree) -> trees`.
    pub combine: Pairs,
    /// `(trees, exact) -> leaf`.
    pub finish: Pairs,
    /// `(leaf, reach) -> leaf`: the leaf of a directory that is moved or mounted over, with all that lies below.
    pub below: Pairs,
    /// Offset of the leaf (`u32`) of each `trees`.
    pub tree_leaves: u32,
    /// Offset of the [`Leaf`]s.
    pub leaves: u32,
    /// Start for paths of the host's mounts (and for cgroup paths).
    pub host: u32,
    /// Start for paths on file systems the host has not mounted: only patterns that begin with `**/` live.
    pub foreign: u32,
    /// Start for abstract socket names, without the leading `@`.
    pub abstract_name: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(Automaton: 64);
