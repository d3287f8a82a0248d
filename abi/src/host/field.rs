//! Numbers of the host half's fields. The search asks them in the sequence of [`crate::chain::ORDER`], so the numbers
//! are chosen such that the telling ones come first: operation, path, executable, user.

/// Operation; direct index, one of [`super::op`].
pub const OP: usize = 4;
/// Object's path; the class is [`super::Leaf::path`].
pub const PATH: usize = 3;
/// Caller's executable; [`super::Leaf::exe`], or [`super::Leaf::tainted`].
pub const EXE: usize = 9;
/// User id (fsuid for files, euid otherwise); class by trie [`super::TRIE_UID`].
pub const UID: usize = 5;
/// Unit and cgroup; the class is the leaf's `path` of the automaton [`super::HostConsts::cgroups`].
pub const CGROUP: usize = 6;
/// Owner, anonymous, container; direct index, see [`super::FLAGS_OWNER`].
pub const FLAGS: usize = 7;
/// Group ids: the class is a mask, see [`super::HostConsts::gid`].
pub const GID: usize = 2;
/// Login user id; class by trie [`super::TRIE_AUID`].
pub const AUID: usize = 8;
/// Executable of the process acted on; [`super::Leaf::target`].
pub const TARGET: usize = 10;
/// Address of a socket call; class by tries [`super::TRIE_ADDR4`] and [`super::TRIE_ADDR6`].
pub const ADDR: usize = 0;
/// Port of a socket call; direct index as [`crate::chain::DPORT`].
pub const PORT: usize = 1;
/// Ancestors' executables: the class is the union of [`super::Leaf::ancestor`] masks.
pub const ANCESTOR: usize = 11;
/// File system type: its name, zero-padded to 16 bytes, read as a big-endian number through [`super::TRIE_FSTYPE`].
pub const FSTYPE: usize = 12;
/// Socket protocol; direct index 0..=255, [`super::SMALL_ABSENT`].
pub const PROTO: usize = 13;
/// Socket family (`AF_`); direct index as above.
pub const FAMILY: usize = 14;
/// Socket type (`SOCK_`); direct index as above.
pub const TYPE: usize = 15;
/// Capability number; direct index as above.
pub const CAPABILITY: usize = 16;
/// Signal number; direct index as above.
pub const SIGNAL: usize = 17;
/// How many there are.
pub const COUNT: usize = 18;
