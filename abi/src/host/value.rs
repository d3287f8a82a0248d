//! What fields hold where a call has no value, or none that can be told.

/// Index into [`ChainConsts::tries`](crate::chain::ChainConsts::tries) in a host chain.
pub const TRIE_ADDR4: usize = 0;
/// IPv6 addresses.
pub const TRIE_ADDR6: usize = 1;
/// User ids, left-aligned as IPv4 addresses are.
pub const TRIE_UID: usize = 2;
/// File system types, as IPv6 addresses are.
pub const TRIE_FSTYPE: usize = 3;
/// Login user ids; `unset` is `u32::MAX`.
pub const TRIE_AUID: usize = 4;

/// Direct index of `field::PROTO`, `field::FAMILY`, `field::TYPE`, `field::CAPABILITY` and `field::SIGNAL`
/// for a call without one.
pub const SMALL_ABSENT: u32 = 256;
/// The value cannot be told.
pub const SMALL_UNKNOWN: u32 = 257;
/// Size of their direct tables.
pub const SMALL_SPACE: u32 = 258;

/// Direct index of `field::FLAGS`: `owner * FLAGS_OWNER + anonymous * FLAGS_ANONYMOUS + container`, each one of the
/// `TRI_` values.
pub const FLAGS_OWNER: u32 = 16;
/// See [`FLAGS_OWNER`].
pub const FLAGS_ANONYMOUS: u32 = 4;
/// Size of the direct table.
pub const FLAGS_SPACE: u32 = 64;
/// The call has no such property (no file).
pub const TRI_ABSENT: u32 = 0;
/// It is false.
pub const TRI_NO: u32 = 1;
/// It is true.
pub const TRI_YES: u32 = 2;
/// It cannot be told.
pub const TRI_UNKNOWN: u32 = 3;

/// Conditions on group ids, and on ancestors, that one policy may have: one bit each of a mask, which is the class.
pub const MASK_CONDITIONS: usize = 8;
/// Class of [`field::GID`](super::field::GID) and [`field::ANCESTOR`](super::field::ANCESTOR) when they cannot be told.
pub const MASK_UNKNOWN: u32 = 256;
/// Number of their classes.
pub const MASK_CLASSES: u32 = 257;

/// Direct index of [`field::OP`](super::field::OP) is below this.
pub const OP_SPACE: u32 = 32;
