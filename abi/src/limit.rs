//! Rate limits: a rule's record in the arena, and what is remembered of each sender.
//!
//! A limit is a virtual schedule (the generic cell rate algorithm, ITU-T I.371): the time at which the next unit is due, one
//! word, so that CPUs that spend at once need a compare-and-swap and no lock. Times are [`UNITS`] of a nanosecond of
//! `CLOCK_BOOTTIME`.

use crate::bytes;

/// Units of the schedule in a nanosecond: a word lasts for nine years of uptime.
pub const UNITS: u32 = 64;
/// [`Limit::cost`] is in this many units more, for rates of bytes.
pub const COST_SHIFT: u32 = 4;

/// A rule's limit; the table of them is at [`crate::connection::TrackConsts::limits`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// What one packet, or byte, costs: `UNITS << COST_SHIFT` are a nanosecond.
    pub cost: u64,
    /// How far ahead of now the schedule may be, in [`UNITS`].
    pub window: u64,
    /// Number of the rule among the policy's counters: part of the key.
    pub line: u32,
    /// `FLAG_` bits.
    pub flags: u32,
    /// Bits of the address that belong to the key: IPv4 in the lowest byte, IPv6 in the next.
    pub lengths: u32,
    /// Zero.
    pub zero: u32,
}
bytes!(Limit: 32);

/// The rule matches what is above the rate; otherwise what is below.
pub const FLAG_OVER: u32 = 1;
/// Bytes are counted, not packets.
pub const FLAG_BYTES: u32 = 2;
/// Each source has a schedule of its own.
pub const FLAG_SOURCE: u32 = 4;
/// Each destination has.
pub const FLAG_DESTINATION: u32 = 8;

/// Key of the map `LIMITS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LimitKey {
    /// The address with the bits past the length zero; zeros where the rule has one schedule.
    pub address: [u64; 2],
    /// [`Limit::line`].
    pub line: u32,
    /// Of `crate::dynamic::V4` and `V6`; 0 where the rule has one schedule.
    pub family: u32,
}
bytes!(LimitKey: 24);

/// Schedules that a generation remembers.
pub const MAX_SCHEDULES: u32 = 65_536;
