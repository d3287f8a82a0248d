//! A chain's compiled tables: constants the verifier knows, and an *arena* of bytes they point into.
//!
//! Every offset is in bytes from the start of the chain's arena and a multiple of the element's size. The arena is
//! little-endian, as the machines are that Ringfence builds for.
//!
//! A packet's fields are cut into *classes* (two values are in one class when no rule tells them apart). Each class of
//! each field has a *row*: the set of *positions* (bits) of the rules that accept it.
//!
//! * A chain of at most 64 positions is *narrow* (`blocks == 0`): a row is one `u64`, at `rows[field] + class * 8`, and the
//!   one wild word has the bits of all positions.
//! * Otherwise a row is `blocks` block references, `u32` each, at `rows[field] + class * blocks * 4`. Block `k` covers
//!   positions `4096 k ..`. A reference is 0 (no bits) or the offset of a block: one summary word whose bit `w` says
//!   that word `w` is not zero, followed by the non-zero words only. Equal blocks are stored once. The positions
//!   that do not read a field at all are not in its rows but in the field's *wild* words, stored in full.
//!
//! Class 0 of an address, mark or directly indexed field is the class of values that no rule names; *absent* is in it.
//!
//! Wild words lie side by side for the active fields, so that one word of all fields shares a cache line:
//! `wild + (word * active_count + rank) * 8`, where `rank` is the field's place among the active ones in [`ORDER`]; the wild
//! summaries likewise at `wild_summary + (block * active_count + rank) * 8`.

use crate::bytes;

/// The most rules a chain may have.
pub const MAX_RULES: usize = 65_536;
/// The most positions a chain may have (a rule takes several when it ORs static and dynamic sets).
pub const MAX_POSITIONS: usize = 65_536;
/// Positions a block covers.
pub const BLOCK: u32 = 4096;
/// Rules that may match without deciding before the packet is dropped.
pub const MAX_CONTINUATIONS: u32 = 32;
/// Largest arena, bytes: the verifier's bound for a variable offset (`BPF_MAX_VAR_OFF`, 1 << 29).
pub const MAX_ARENA: usize = 512 << 20;

/// Source address.
pub const SRC: usize = 0;
/// Destination address.
pub const DST: usize = 1;
/// Source port; index into the direct table, see [`PORT_ABSENT`].
pub const SPORT: usize = 2;
/// Destination port.
pub const DPORT: usize = 3;
/// Protocol, TCP flags and ICMP type as one value, see [`PROTO_TCP`].
pub const PROTO: usize = 4;
/// Family, fragment and DSCP as one value, see [`IP_FAMILY_SHIFT`].
pub const IP: usize = 5;
/// Outermost VLAN id.
pub const VLAN: usize = 6;
/// Length of the packet from its network header on.
pub const LENGTH: usize = 7;
/// `skb->mark`.
pub const MARK: usize = 8;
/// Interface; its class comes from [`crate::interface::Interface`].
pub const INTERFACE: usize = 9;
/// Connection state; direct index [`STATE_NEW`] and following.
pub const STATE: usize = 10;
/// First of the fields of source membership in dynamic sets: eight sets a field, the class is the mask.
pub const SRC_SETS: usize = 11;
/// First of the fields of destination membership.
pub const DST_SETS: usize = 19;
/// Dynamic sets in one field.
pub const SETS_PER_FIELD: usize = 8;
/// The most dynamic sets a chain can read for one address.
pub const MAX_CHAIN_SETS: usize = 64;
/// Class of a membership field for a packet without addresses.
pub const SETS_ABSENT: u32 = 256;
/// How many fields there are.
pub const FIELDS: usize = 27;

/// The order in which fields are asked: the cheap and telling ones first, because a packet that no rule can match any
/// more is not looked up further.
pub const ORDER: [usize; FIELDS] = [
    PROTO, DPORT, INTERFACE, IP, VLAN, LENGTH, SPORT, MARK, STATE, SRC, DST, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
    21, 22, 23, 24, 25, 26,
];

/// Direct index of a port field: the port, or this when the packet has none.
pub const PORT_ABSENT: u32 = 65_536;
/// Direct index of a port field: the packet has ports that cannot be read (a later fragment).
pub const PORT_UNKNOWN: u32 = 65_537;
/// Size of a port field's direct table.
pub const PORT_SPACE: u32 = 65_538;

/// Direct index of [`PROTO`]: below this, a protocol without details, or with unreadable ones.
pub const PROTO_TCP: u32 = 256;
/// `PROTO_TCP + flags byte`: TCP with its flags. From here, `PROTO_ICMP + type * 256 + code`.
pub const PROTO_ICMP: u32 = 512;
/// `PROTO_ICMPV6 + type * 256 + code`.
pub const PROTO_ICMPV6: u32 = 512 + 65_536;
/// No protocol: not an IP packet.
pub const PROTO_ABSENT: u32 = 512 + 2 * 65_536;
/// The protocol could not be reached (extension chain beyond the bound, or behind a fragment's start).
pub const PROTO_UNKNOWN: u32 = PROTO_ABSENT + 1;
/// Size of the direct table.
pub const PROTO_SPACE: u32 = PROTO_UNKNOWN + 1;

/// Direct index of [`IP`]: family (0 none, 1 IPv4, 2 IPv6) in the bits from here up.
pub const IP_FAMILY_SHIFT: u32 = 7;
/// Bit set for a fragment, first or later; the DSCP is below.
pub const IP_FRAGMENT: u32 = 64;
/// Size of the direct table.
pub const IP_SPACE: u32 = 3 << IP_FAMILY_SHIFT;

/// Direct index of [`VLAN`] for an untagged frame.
pub const VLAN_ABSENT: u32 = 4096;
/// Size of the direct table.
pub const VLAN_SPACE: u32 = 4097;

/// Direct index of [`LENGTH`] when there is no network header. Longer packets than 65,535 count as 65,535.
pub const LENGTH_ABSENT: u32 = 65_536;
/// Size of the direct table.
pub const LENGTH_SPACE: u32 = 65_537;

/// Direct index of [`STATE`]: nothing of the connection has been answered, or it is none yet.
pub const STATE_NEW: u32 = 0;
/// Part of a connection that both sides take part in.
pub const STATE_ESTABLISHED: u32 = 1;
/// An ICMP error about a known connection.
pub const STATE_RELATED: u32 = 2;
/// What no connection begins with and none that is known goes on with.
pub const STATE_INVALID: u32 = 3;
/// Not an IP packet.
pub const STATE_ABSENT: u32 = 4;
/// A later fragment whose first one is not known, a protocol that cannot be reached.
pub const STATE_UNKNOWN: u32 = 5;
/// Size of the direct table.
pub const STATE_SPACE: u32 = 6;

/// Bit of [`Trie`] top entries and leaf words: the rest is a class. Otherwise the rest is a node number.
pub const LEAF: u32 = 1 << 31;
/// Address bits a trie node consumes.
pub const STRIDE: u32 = 6;

/// A prefix trie in flat arrays (poptrie: Asai and Ohara, SIGCOMM 2015), over the top bits of a 128-bit
/// left-aligned value.
///
/// `top` holds `1 << bits` words, each [`LEAF`] `| class` or a node number. A [`Node`] consumes [`STRIDE`] bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trie {
    /// Offset of the top table.
    pub top: u32,
    /// Bits that index the top table.
    pub bits: u32,
    /// Offset of the nodes.
    pub nodes: u32,
    /// Offset of the leaves (classes, `u32`).
    pub leaves: u32,
}
bytes!(Trie: 16);

/// A trie node. For the six-bit value `v`: if bit `v` of `vector` is set, the child is node
/// `base_node + popcount(vector & ((2 << v) - 1)) - 1`; otherwise the class is leaf
/// `base_leaf + popcount(leafvec & ((2 << v) - 1)) - 1` (`leafvec` marks the first of each run of equal leaves).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Which values have a child node.
    pub vector: u64,
    /// Which values begin a run of equal leaves.
    pub leafvec: u64,
    /// Number of the first child.
    pub base_node: u32,
    /// Index of the first leaf.
    pub base_leaf: u32,
}
bytes!(Node: 24);

/// What a position stands for; the table of them is at [`ChainConsts::positions`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Counter index within the chain.
    pub line: u32,
    /// One of [`crate::verdict`].
    pub verdict: u8,
    /// [`crate::verdict::FLAG_AUDIT`], [`crate::verdict::FLAG_LOG`].
    pub flags: u8,
    /// Number of the rule's limit, from 1; 0: it has none.
    pub limit: u16,
}
bytes!(Position: 8);

/// The read-only constants of a chain. The verifier knows their values, so code for fields that no rule reads is
/// removed when the programs are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainConsts {
    /// Size of the arena in bytes; at least 64.
    pub arena: u32,
    /// Bit `f`: some rule reads field `f`.
    pub active: u32,
    /// Number of bits set in `active`.
    pub active_count: u32,
    /// Blocks in a row; 0: the chain is narrow.
    pub blocks: u32,
    /// Offset of the [`Position`] table.
    pub positions: u32,
    /// Offset of the wild words.
    pub wild: u32,
    /// Offset of the wild summaries.
    pub wild_summary: u32,
    /// Verdict where no rule decides.
    pub default_verdict: u32,
    /// Non-zero: the policy says `mode: audit`.
    pub audit: u32,
    /// Bit `i`: line `i` of [`crate::counter::FLOOR_NAMES`] is in force.
    pub floor: u32,
    /// First counter of the chain.
    pub counter_base: u32,
    /// Number of the chain's counters.
    pub counters: u32,
    /// Counter index within the chain of the first of [`crate::counter::ANSWER_NAMES`]; 0: nothing is rejected.
    pub answers: u32,
    /// Counter index within the chain of the first of [`crate::counter::COOKIE_NAMES`]; 0: nothing is protected.
    pub cookies: u32,
    /// Number of entries in `src_sets` that are used.
    pub src_set_count: u32,
    /// Number of entries in `dst_sets` that are used.
    pub dst_set_count: u32,
    /// Offset of each field's rows.
    pub rows: [u32; FIELDS],
    /// Offset of each directly indexed field's table of classes (`u32` each).
    pub direct: [u32; FIELDS],
    /// Tries: source IPv4, source IPv6, destination IPv4, destination IPv6, mark.
    pub tries: [Trie; 5],
    /// Kernel ids of the dynamic sets of the source address; entry `8 g + b` is bit `b` of field `SRC_SETS + g`.
    pub src_sets: [u16; MAX_CHAIN_SETS],
    /// The same for the destination address.
    pub dst_sets: [u16; MAX_CHAIN_SETS],
}
bytes!(ChainConsts: 616);

/// Index into [`ChainConsts::tries`].
pub const TRIE_SRC4: usize = 0;
/// Index into [`ChainConsts::tries`].
pub const TRIE_SRC6: usize = 1;
/// Index into [`ChainConsts::tries`].
pub const TRIE_DST4: usize = 2;
/// Index into [`ChainConsts::tries`].
pub const TRIE_DST6: usize = 3;
/// Index into [`ChainConsts::tries`].
pub const TRIE_MARK: usize = 4;
