//! Rate limits: a rule's record in the arena, and what is remembered of each sender.
//!
//! A limit is a virtual schedule (the generic cell rate algorithm, ITU-T I.371): the time at which the next unit is due, one
//! word, so that CPUs that spend at once need a compare-and-swap and no lock. Times are [`UNITS`] of a nanosecond of
//! `CLOCK_BOOTTIME`.

use crate::{bytes, chain::Trie, connection::Key, dynamic::ElementKey};

/// Units of the schedule in a nanosecond: a word lasts for nine years of uptime.
pub const UNITS: u32 = 64;
/// [`Limit::cost`] is in this many units more, for rates of bytes.
pub const COST_SHIFT: u32 = 4;

/// A rule's limit, or what it adds without one; the table of them is at [`crate::connection::TrackConsts::limits`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What one packet, or byte, costs: `UNITS << COST_SHIFT` are a nanosecond.
    pub cost: u64,
    /// How far ahead of now the schedule may be, in [`UNITS`].
    pub window: u64,
    /// The rule by its name or content, so that what is remembered stays its own over an apply; below [`PROOF`].
    pub rule: u32,
    /// `FLAG_` bits.
    pub flags: u32,
    /// Bits of the address that belong to the key: IPv4 in the lowest byte, IPv6 in the next.
    pub lengths: u32,
    /// Connections that may be open at a time ([`FLAG_CONNECTIONS`]).
    pub most: u32,
    /// Offset of the [`Add`] in the arena; 0: the rule adds nothing.
    pub add: u32,
    /// Counter index of the rule.
    pub line: u32,
}
bytes!(Limit: 40);

/// What a rule adds to a dynamic set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Add {
    /// The set, as an index of [`crate::connection::TrackConsts::sets`].
    pub set: u32,
    /// Index of its [`AddState`].
    pub state: u32,
    /// First of its places in the map `ADDED`.
    pub base: u32,
    /// How many there are: the set's capacity.
    pub capacity: u32,
    /// Nanoseconds that an element stays; 0: until it is deleted.
    pub timeout: u64,
    /// Non-zero: the oldest element gives way when the set is full.
    pub evict: u64,
    /// Addresses that are never added: class 1 of these, of IPv4 and IPv6.
    pub never: [Trie; 2],
}
bytes!(Add: 64);

/// What a generation's programs know of a set that they add to; value of the map `ADD_STATES`. Its ring of [`Added`] has the
/// elements that they added, oldest first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddState {
    /// Elements that were ever added.
    pub head: u64,
    /// Those of them that are forgotten again.
    pub tail: u64,
    /// Elements that the set has from elsewhere, which the daemon counts.
    pub others: u64,
    /// Zero.
    pub zero: u64,
}
bytes!(AddState: 32);

/// An element that the programs added; value of the map `ADDED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Its key.
    pub key: ElementKey,
    /// Its value, as of then.
    pub expires: u64,
    /// Counter index of the rule that added it.
    pub line: u64,
    /// Which one it is, from 1; written last.
    pub number: u64,
}
bytes!(Added: 48);

/// The most elements of a set that rules add to.
pub const MAX_ADDED: u32 = 1 << 20;

/// Bit of [`LimitKey::rule`]: the schedule is one of completed handshakes, which prove a source.
pub const PROOF: u32 = 1 << 31;

/// The rule matches what is above the rate; otherwise what is below.
pub const FLAG_OVER: u32 = 1;
/// Bytes are counted, not packets.
pub const FLAG_BYTES: u32 = 2;
/// Each source has a schedule of its own.
pub const FLAG_SOURCE: u32 = 4;
/// Each destination has.
pub const FLAG_DESTINATION: u32 = 8;
/// Open connections are counted; the rule matches while there is room ([`FLAG_OVER`]: once there is none).
pub const FLAG_CONNECTIONS: u32 = 16;
/// There is no limit: the rule only adds.
pub const FLAG_ALWAYS: u32 = 32;
/// What the rule adds needs no proof.
pub const FLAG_UNPROVEN: u32 = 64;

/// Limits that one connection takes part in.
pub const MAX_NOTED: usize = 4;
/// Bit of a limit's number: it is one of the egress chain.
pub const NOTED_EGRESS: u16 = 1 << 15;

/// Key of the map `HOLDERS`: connections that a limit counts are in places, numbered from 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HolderKey {
    /// Whose connections.
    pub whose: LimitKey,
    /// The place, below [`Limit::most`].
    pub place: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(HolderKey: 32);

/// Value of the map `HOLDERS`. The place is free once the connection is over: nobody has to give it back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// [`crate::connection::Connection::created`] of the connection; [`TAKEN`] while it is being written.
    pub created: u64,
    /// Its key.
    pub key: Key,
}
bytes!(Holder: 48);

/// See [`Holder::created`].
pub const TAKEN: u64 = u64::MAX;
/// Places that are looked at for a free one: all, where the limit is not larger.
pub const PROBES: u32 = 64;

/// Key of the map `LIMITS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LimitKey {
    /// The address with the bits past the length zero; zeros where the rule has one schedule.
    pub address: [u64; 2],
    /// [`Limit::rule`].
    pub rule: u32,
    /// Of `crate::dynamic::V4` and `V6`; 0 where the rule has one schedule.
    pub family: u32,
}
bytes!(LimitKey: 24);

/// Schedules that a generation remembers.
pub const MAX_SCHEDULES: u32 = 65_536;
