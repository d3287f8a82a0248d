//! What the programs remember between packets: connections, and the first parts of fragmented packets.
//!
//! Three pools. *Established* connections are in a hash map that never evicts. What is not proven yet is in two LRU maps of
//! its own, one for what came in and one for what this host began, so that a flood of either kind pushes out neither an
//! established connection nor the other kind. A connection is promoted when the far side has acknowledged, at ingress,
//! the very sequence number that a segment of it ended with at egress; without TCP, when this host began it and an answer
//! has come.
//!
//! Times are nanoseconds of `CLOCK_MONOTONIC_COARSE`, which is what `bpf_ktime_get_coarse_ns` (5.11) reads.

use crate::{bytes, chain::MAX_CHAIN_SETS, limit::MAX_NOTED, zeroed};

/// Key of the pools: the same for both directions of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The endpoint that is the smaller one by address, then port; addresses as in [`crate::dynamic::EntryKey`].
    pub low: [u64; 2],
    /// The other endpoint.
    pub high: [u64; 2],
    /// Port of `low`; of an ICMP query its identifier; 0 where a protocol has none.
    pub low_port: u16,
    /// Port of `high`; of an ICMP query the type of its requests, and 256 where `low` asks.
    pub high_port: u16,
    /// Protocol number.
    pub proto: u8,
    /// [`crate::dynamic::V4`] or [`crate::dynamic::V6`].
    pub family: u8,
    /// Zero.
    pub zero: u16,
}
bytes!(Key: 40);

/// See [`Connection::limits`]. (A number, not the constant: rustc 1.95 fails on the latter where a closure changes one field of a
/// connection.)
pub type Noted = [u16; 4];
const _: () = assert!(size_of::<Noted>() == 2 * MAX_NOTED);

/// Value of the pools. Direction 0 is that of the first packet, 1 the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// From then on it is none any more.
    pub expires: u64,
    /// When its first packet was let through.
    pub created: u64,
    /// Packets of each direction, once for each hook that saw them.
    pub packets: [u64; 2],
    /// Their bytes from the network header on.
    pub bytes: [u64; 2],
    /// The line that accepts this connection's packets without another look, at `2 * egress + direction`: [`stamp`] and
    /// line. Valid while the stamp is.
    pub cached: [u64; 4],
    /// [`stamp`] under which its first packet was last judged, with line 0.
    pub judged: u64,
    /// Sequence number after the last segment of each direction that left.
    pub ends: [u32; 2],
    /// What each direction acknowledged last.
    pub acks: [u32; 2],
    /// The first packet's interface.
    pub ifindex: u32,
    /// The first packet's direct index of [`crate::chain::PROTO`].
    pub proto: u32,
    /// Of [`crate::chain::LENGTH`].
    pub length: u32,
    /// Its mark.
    pub mark: u32,
    /// Its direct index of [`crate::chain::IP`].
    pub ip: u16,
    /// Its direct index of [`crate::chain::VLAN`].
    pub vlan: u16,
    /// `FLAG_` bits.
    pub flags: u16,
    /// Index into [`TIMEOUT_NAMES`]; [`KILLED`].
    pub state: u8,
    /// Zero.
    pub zero: u8,
    /// Numbers of the limits that its first packet met and that count connections, or handshakes; 0: no more.
    pub limits: Noted,
}
bytes!(Connection: 136);

/// The first packet came from [`Key::low`].
pub const FLAG_FROM_LOW: u16 = 1;
/// The first packet left (or was only seen leaving).
pub const FLAG_OUTBOUND: u16 = 2;
/// The other side has answered.
pub const FLAG_REPLIED: u16 = 4;
/// The first packet was not the beginning: it was found under way.
pub const FLAG_PICKED_UP: u16 = 8;
/// Direction 0 has sent FIN; for direction 1 the bit above.
pub const FLAG_FIN: u16 = 16;
/// `ends[0]` is known; for direction 1 the bit above.
pub const FLAG_END: u16 = 64;
/// `acks[0]` is known; for direction 1 the bit above.
pub const FLAG_ACK: u16 = 256;
/// `mark` is known.
pub const FLAG_MARK: u16 = 1024;
/// Its first packet would not be let through any more. It stays, so that no end's next packet begins it anew from the other
/// side, but its packets are of no connection.
pub const FLAG_REFUSED: u16 = 2048;

/// The states of a connection, by the timeouts that a policy may set for them.
pub const TIMEOUT_NAMES: [&str; 8] =
    ["tcp-syn", "tcp-established", "tcp-closing", "tcp-closed", "udp", "udp-replied", "icmp", "other"];
/// Seconds of each unless the policy says otherwise.
pub const TIMEOUTS: [u64; 8] = [60, 432_000, 120, 10, 30, 180, 30, 600];
/// TCP, handshake not complete.
pub const TCP_SYN: u8 = 0;
/// TCP, both sides have acknowledged.
pub const TCP_ESTABLISHED: u8 = 1;
/// TCP, one side has sent FIN or what looks like a reset.
pub const TCP_CLOSING: u8 = 2;
/// TCP, reset, or FIN of both sides.
pub const TCP_CLOSED: u8 = 3;
/// UDP without an answer.
pub const UDP: u8 = 4;
/// UDP with one.
pub const UDP_REPLIED: u8 = 5;
/// An ICMP query.
pub const ICMP: u8 = 6;
/// Any other protocol.
pub const OTHER: u8 = 7;
/// `ringctl connections --kill`: its packets are dropped until it expires.
pub const KILLED: u8 = 255;

/// Connections of a policy that does not say.
pub const DEFAULT_CAPACITY: u32 = 262_144;
/// The most it may say.
pub const MAX_CAPACITY: u32 = 4_194_304;
/// The fewest.
pub const MIN_CAPACITY: u32 = 1_024;

/// Entries of the pool for what came in and is not proven, by the capacity of the established one.
#[must_use]
pub const fn half_in(capacity: u32) -> u32 {
    capacity / 4
}

/// The same for what this host began.
#[must_use]
pub const fn half_out(capacity: u32) -> u32 {
    capacity / 8
}

/// Fragmented packets that are remembered.
pub const FRAGMENTS: u32 = 16_384;
/// Seconds that one is: longer than any system waits for the rest (RFC 8200: 60).
pub const FRAGMENT_SECONDS: u64 = 60;

/// Key of the map `FRAGMENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source.
    pub src: [u64; 2],
    /// Destination.
    pub dst: [u64; 2],
    /// Identification.
    pub id: u32,
    /// Protocol, or of IPv6 the header after the fragment header.
    pub proto: u8,
    /// [`crate::dynamic::V4`] or [`crate::dynamic::V6`].
    pub family: u8,
    /// 1 where it leaves.
    pub egress: u8,
    /// Zero.
    pub zero: u8,
}
bytes!(FragmentKey: 40);

/// Value of the map `FRAGMENTS`: the first fragment was accepted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// From then on it is forgotten.
    pub expires: u64,
    /// [`stamp`] with the line that accepted it.
    pub cached: u64,
    /// Bytes of the fragment: later ones that begin before this overlap it.
    pub size: u64,
}
bytes!(Fragment: 24);

/// The read-only constants of tracking.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackConsts {
    /// Nanoseconds of each state.
    pub timeouts: [u64; 8],
    /// Non-zero: connections are tracked.
    pub on: u32,
    /// The generation's slot.
    pub slot: u32,
    /// Bit 0 of ingress, bit 1 of egress. Set: no rule that can match an established connection's packets reads what differs
    /// between them or lets evaluation go on, so one look at the first of them stands for all.
    pub cacheable: u32,
    /// Zero.
    pub zero: u32,
    /// Offsets of the tables of [`crate::limit::Limit`]s in the arenas of ingress and egress; 0: no rule has one.
    pub limits: [u32; 2],
    /// Non-zero: some limit counts connections.
    pub counts: u32,
    /// Sets that rules add to.
    pub adding: u32,
    /// Places of the map `ADDED`.
    pub added: u32,
    /// Zero.
    pub zero_too: u32,
    /// Dynamic sets by their place in the policy: their ids in the kernel, which the loader writes.
    pub sets: [u16; MAX_CHAIN_SETS],
}
bytes!(TrackConsts: 232);

impl Default for TrackConsts {
    fn default() -> Self {
        zeroed()
    }
}

/// Bits of a stamp that are a line.
pub const LINE_BITS: u32 = 24;

/// What a judgement held under: the word of [`crate::generation::Cell::epoch`], the slot of the generation, and the line.
#[inline(always)]
#[must_use]
pub const fn stamp(epoch: u64, slot: u32, line: u32) -> u64 {
    epoch << 32 | ((slot & 0xff) as u64) << LINE_BITS | (line & 0x00ff_ffff) as u64
}

/// Whether two stamps are of the same time and generation, whatever their lines.
#[inline(always)]
#[must_use]
pub const fn same_time(a: u64, b: u64) -> bool {
    (a ^ b) >> LINE_BITS == 0
}
