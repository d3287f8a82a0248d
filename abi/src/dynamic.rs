//! Dynamic entries (`ringctl deny`) and the elements of dynamic sets: hash maps that outlive generations.
//!
//! Both are looked up by (…, prefix length, masked address) for each prefix length in use; [`Lengths`] says which are.

use crate::bytes;

/// IPv4 in [`EntryKey::family`] and [`ElementKey::family`].
pub const V4: u8 = 4;
/// IPv6 in [`EntryKey::family`] and [`ElementKey::family`].
pub const V6: u8 = 6;

/// [`EntryKey::direction`]: matched against the source of arriving packets.
pub const INGRESS: u8 = 0;
/// [`EntryKey::direction`]: matched against the destination of leaving packets.
pub const EGRESS: u8 = 1;

/// [`EntryKey::port_kind`]: any port, also none.
pub const PORT_ANY: u8 = 0;
/// [`EntryKey::port_kind`]: the destination port in `port`.
pub const PORT_EXACT: u8 = 1;
/// [`EntryKey::port_kind`]: a packet whose port is unknown. User space keeps one beside each group of `PORT_EXACT`
/// *deny* entries for an address, because unknown matches every refusal and no permission.
pub const PORT_UNKNOWN: u8 = 2;

/// Key of the map `ENTRIES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey {
    /// The address with the bits past `length` zero: IPv4 in the high 32 bits of the first word, IPv6 in both words,
    /// each word a number (not network byte order).
    pub address: [u64; 2],
    /// Destination port, host order; 0 unless `port_kind` is [`PORT_EXACT`].
    pub port: u16,
    /// [`INGRESS`] or [`EGRESS`].
    pub direction: u8,
    /// [`V4`] or [`V6`].
    pub family: u8,
    /// Prefix length, 0..=32 or 0..=128.
    pub length: u8,
    /// [`PORT_ANY`], [`PORT_EXACT`] or [`PORT_UNKNOWN`].
    pub port_kind: u8,
    /// Zero.
    pub zero: u16,
}
bytes!(EntryKey: 24);

/// Value of the map `ENTRIES`. Of several entries that match a packet, the one with the highest `id` decides.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Nanoseconds of `CLOCK_BOOTTIME` from which the entry no longer matches; 0: never expires.
    pub expires: u64,
    /// Grows with every `deny` and `allow`.
    pub id: u64,
    /// Packets it decided, added atomically by the programs.
    pub packets: u64,
    /// Bytes it decided.
    pub bytes: u64,
    /// [`crate::verdict::ACCEPT`] or [`crate::verdict::DROP`].
    pub verdict: u64,
}
bytes!(Entry: 40);

/// Prefix lengths in use: bit `n % 64` of word `n / 64` for length `n`. Set before the first element of a length is
/// added, cleared after the last one is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// IPv4 lengths, 0..=32.
    pub v4: u64,
    /// IPv6 lengths, 0..=128.
    pub v6: [u64; 3],
}
bytes!(Lengths: 32);

impl Lengths {
    /// The word and bit of a prefix length.
    #[inline(always)]
    #[must_use]
    pub const fn bit(length: u8) -> (usize, u64) {
        ((length >> 6) as usize, 1 << (length & 63))
    }
}

/// Index into the map `ENTRY_LENGTHS`: direction * 3 + port kind.
pub const ENTRY_LENGTHS: u32 = 6;

/// Kernel ids of dynamic sets are 0..`MAX_SETS` (the map `SET_LENGTHS` is indexed by them). They are given out by the
/// daemon, stable over generations; a policy names at most 64 and the built-in three.
pub const MAX_SETS: u32 = 128;

/// Key of the map `ELEMENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementKey {
    /// As [`EntryKey::address`].
    pub address: [u64; 2],
    /// Kernel id of the set.
    pub set: u16,
    /// [`V4`] or [`V6`].
    pub family: u8,
    /// Prefix length.
    pub length: u8,
    /// Zero.
    pub zero: u32,
}
bytes!(ElementKey: 24);

/// Value of the map `ELEMENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Nanoseconds of `CLOCK_BOOTTIME` from which it is no member; 0: never expires.
    pub expires: u64,
}
bytes!(Element: 8);
