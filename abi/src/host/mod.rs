//! The host half: operations, fields, path automata, and what outlives generations.
//!
//! A call is judged by the same tables as a packet ([`crate::chain`]): fields to classes to rows. The fields have numbers
//! of their own in the same space, so that one search serves both halves.

mod automaton;
mod entry;
pub mod field;
mod hook;
pub mod layout;
pub mod line;
pub mod op;
mod question;
mod state;
mod subject;
mod value;

pub use self::{automaton::*, entry::*, hook::*, question::*, state::*, subject::*, value::*};
use crate::{
    bytes,
    chain::{ChainConsts, Trie},
};

/// The read-only constants of a host chain: global `HOST`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostConsts {
    /// Tables, with the host half's field numbers; the arena is the map `ARENA_HOST`.
    pub chain: ChainConsts,
    /// Group ids, left-aligned; the trie's classes are masks of gid conditions.
    pub gid: Trie,
    /// Paths of objects and executables.
    pub paths: Automaton,
    /// Paths of cgroups below the cgroup2 mount.
    pub cgroups: Automaton,
    /// Bit per [`op`]: some rule, or the default, may refuse or count it.
    pub ops: u32,
    /// Differs in every generation loaded since boot, never 0: caches carry it. Written by the loader.
    pub serial: u32,
    /// Class of [`field::ADDR`] for an address that cannot be read.
    pub address_unknown: u32,
    /// Class of [`field::FSTYPE`] for a file system whose type cannot be told.
    pub fstype_unknown: u32,
    /// Non-zero: the policy says `protect_self`.
    pub protect_self: u32,
    /// `KEEPS_` bits: what must be kept up for it. Written by the loader.
    pub keeps: u32,
    /// Offset of the *quick* words, which spare most calls a search: row `class of PATH`, column `class of OP`, 0 for a
    /// field that no rule reads. A word is 0 where the other fields must be looked at, else [`QUICK`] with the line that
    /// decides and, at [`QUICK_VERDICT`], its verdict.
    pub quick: u32,
    /// Columns of a row; 0: there are no quick words.
    pub quick_columns: u32,
    /// Class of each field for a call of which nothing is known yet: that of *absent*. Aligned to eight bytes.
    pub absent: [u32; field::COUNT],
}
bytes!(HostConsts: 864);

/// A quick word: whatever else is known of a call, this decides.
pub const QUICK: u32 = 1 << 31;
/// Shift of the verdict in a quick word; below it is the line.
pub const QUICK_VERDICT: u32 = 24;

/// Where the running kernel keeps what the programs read: read-only global `KERNEL`, resolved in its BTF (and, for
/// `rename_lock`, kallsyms). Offsets are in bytes; [`NO_OFFSET`] where this kernel has no such member.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// Address of the `rename_lock` sequence (`u32`).
    pub rename_lock: u64,
    /// Offsets, by [`layout`] index.
    pub offsets: [u32; layout::COUNT],
}
bytes!(KernelLayout: 392);

/// [`KernelLayout::offsets`]: the kernel has no such member.
pub const NO_OFFSET: u32 = u32::MAX;
