//! Per-rule counters: one per-CPU array a generation, indexed by *counter index*.
//!
//! A chain's counters begin at [`crate::chain::ChainConsts::counter_base`]: first the built-in lines below, then the
//! chain's rules in policy order.

use crate::bytes;

/// One CPU's share of a counter. User space adds the packets and bytes of all CPUs and takes the latest `last_hit`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets as on the wire: a GSO packet counts its segments.
    pub packets: u64,
    /// Bytes from the network header on (at TC the link header is not counted either, so both hooks agree).
    pub bytes: u64,
    /// `CLOCK_BOOTTIME`-less coarse monotonic nanoseconds of the last hit; 0: never.
    pub last_hit: u64,
}
bytes!(Counter: 24);

/// The chain's default verdict.
pub const DEFAULT: u32 = 0;
/// First line of the floor; the lines are in the order of [`FLOOR_NAMES`].
pub const FLOOR: u32 = 1;
/// Names of the floor's lines, as in `floor: {NAME: false}`. Counter index = `FLOOR` + position.
pub const FLOOR_NAMES: [&str; 7] =
    ["arp", "neighbor-discovery", "router-advertisement", "multicast-listener", "dhcp-client", "path-mtu", "loopback"];
/// First line of what cannot be parsed, in the order of [`MALFORMED_NAMES`].
pub const MALFORMED: u32 = 8;
/// Reasons for which a frame is dropped before any rule, each counted under its own name.
pub const MALFORMED_NAMES: [&str; 6] = [
    // The frame ends inside the Ethernet header or a VLAN tag.
    "truncated-link",
    // More VLAN tags in the frame than two.
    "vlan-depth",
    // The frame ends inside the IPv4 or IPv6 header or one of its extension headers.
    "truncated-network",
    // A version, header length or total length that contradicts itself or the frame.
    "bad-network",
    // An unfragmented packet (or first fragment of one piece) that ends inside its TCP, UDP, SCTP or ICMP header.
    "truncated-transport",
    // The headers lie outside the part of the packet that the hook can read.
    "unreadable",
];
/// Refused or accepted by a dynamic entry (`ringctl deny` / `allow`).
pub const DYNAMIC: u32 = 14;
/// More than [`crate::chain::MAX_CONTINUATIONS`] rules matched without deciding: dropped.
pub const CONTINUATIONS: u32 = 15;
/// The tables of the generation could not be read: dropped. Never counted unless Ringfence has a bug.
pub const TABLES: u32 = 16;
/// Packets with a field in the state *unknown* (a later fragment's ports, an over-long extension chain). They are
/// also counted by the rule that decides.
pub const UNKNOWN: u32 = 17;
/// Packets of connections that `ringctl connections --kill` ended: dropped.
pub const KILLED: u32 = 18;
/// Connections that stay in the pool of the unproven, because that of the established ones is full.
pub const CONNECTIONS_FULL: u32 = 19;
/// Later fragments that begin inside the first one: dropped.
pub const FRAGMENT_OVERLAP: u32 = 20;
/// Packets that met a limit without room for another sender: they count as over it.
pub const LIMITS_FULL: u32 = 21;
/// Handshakes that were completed when their limit of connections was reached meanwhile: dropped.
pub const LIMIT_CONNECTIONS: u32 = 22;
/// Sources that a rule would have added to a set without room.
pub const SETS_FULL: u32 = 23;
/// How many built-in counters a chain has; the chain's rules follow.
pub const BUILTINS: u32 = 24;

/// Lines that a chain has behind its rules when it rejects something: what became of telling the senders. Packets are also
/// counted by the rule that rejects them.
pub const ANSWER_NAMES: [&str; 3] = [
    // The sender was told.
    "reject/answered",
    // Over the rate of answers: dropped in silence.
    "reject/limited",
    // The answer could not be made or sent: dropped in silence.
    "reject/failed",
];
/// Offsets of those lines from [`crate::chain::ChainConsts::answers`].
pub const ANSWERED: u32 = 0;
/// See [`ANSWERED`].
pub const LIMITED: u32 = 1;
/// See [`ANSWERED`].
pub const FAILED: u32 = 2;

/// Lines that an ingress chain has last of all when something in it is protected by SYN cookies. Segments are also counted by
/// the rule that accepts them.
pub const COOKIE_NAMES: [&str; 3] = [
    // A SYN was answered with a cookie.
    "syn-flood/cookie",
    // An acknowledgement that belongs to no connection and carries no cookie of the kernel's: dropped.
    "syn-flood/invalid",
    // The answer with the cookie could not be sent: dropped.
    "syn-flood/failed",
];
/// Offsets of those lines from [`crate::chain::ChainConsts::cookies`].
pub const COOKIE_SENT: u32 = 0;
/// See [`COOKIE_SENT`].
pub const COOKIE_INVALID: u32 = 1;
/// See [`COOKIE_SENT`].
pub const COOKIE_FAILED: u32 = 2;
