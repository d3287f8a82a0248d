//! The pinned cell that names the generation in force, and the slots of the program arrays.
//!
//! One hook invocation reads [`Cell`]'s word once, tail-calls into that generation's own program, and all tables that
//! program uses are its own. So an invocation sees one generation, and an apply is one atomic store.

use crate::bytes;

/// How many generations can be loaded at a time. Two are in use (current, previous), one is being loaded, one drains.
pub const SLOTS: u32 = 4;

/// Programs of one slot in a program array: index = slot * `VARIANTS` + variant.
pub const VARIANTS: u32 = 4;
/// Ingress on a device with Ethernet headers.
pub const VARIANT_INGRESS: u32 = 0;
/// Ingress on a device whose frames begin at the IP header (`WireGuard`, `tun`); only at TC.
pub const VARIANT_INGRESS_L3: u32 = 1;
/// Egress on a device with Ethernet headers; only at TC.
pub const VARIANT_EGRESS: u32 = 2;
/// Egress on a device whose frames begin at the IP header; only at TC.
pub const VARIANT_EGRESS_L3: u32 = 3;

/// The slot number that names no generation: nothing has been applied yet.
pub const NO_SLOT: u8 = 0xff;

/// The value of the map `CELL`. Written by one atomic 64-bit store through a memory mapping, never by a map update,
/// which may tear.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// See [`CellWord`].
    pub word: u64,
    /// The last number that a generation was given for its host half.
    pub serial: u64,
    /// Grows with every change of what decides about packets: generations, dynamic entries, elements of sets. What is
    /// remembered of a connection holds for one value of its low 32 bits.
    pub epoch: u64,
    /// When the programs last looked for expired connections, because the pool was full.
    pub swept: u64,
    /// The same for schedules of limits.
    pub limits_swept: u64,
    /// The same for places of limits of connections.
    pub holders_swept: u64,
    /// When a program last advanced the epoch, having added to a set.
    pub advanced: u64,
    /// When the next packet must advance it; 0: nothing was added since.
    pub due: u64,
}
bytes!(Cell: 64);

/// The unpacked word of [`Cell`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellWord {
    /// Slot of the generation in force until the deadline.
    pub current: u8,
    /// Slot of the generation that is in force after an unconfirmed deadline.
    pub previous: u8,
    /// Non-zero: no verdict is carried out, refusals are counted and let go (`ringctl mode audit`).
    pub audit: u8,
    /// Seconds of `CLOCK_BOOTTIME` after which `previous` decides; 0: no deadline.
    pub deadline: u32,
}

impl CellWord {
    /// Packs into the form that is stored atomically.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> u64 {
        self.current as u64 | (self.previous as u64) << 8 | (self.audit as u64) << 16 | (self.deadline as u64) << 32
    }

    /// The inverse of [`CellWord::pack`].
    #[inline(always)]
    #[must_use]
    pub const fn unpack(word: u64) -> Self {
        Self {
            current: word as u8,
            previous: (word >> 8) as u8,
            audit: (word >> 16) as u8,
            deadline: (word >> 32) as u32,
        }
    }

    /// The slot that decides at `now_seconds` of `CLOCK_BOOTTIME`.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self, now_seconds: u32) -> u8 {
        if self.deadline != 0 && now_seconds >= self.deadline { self.previous } else { self.current }
    }
}
