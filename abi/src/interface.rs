//! What a generation knows of an interface: the value of its map `INTERFACES`, keyed by ifindex.

use crate::bytes;

/// The loopback device of every network namespace (`LOOPBACK_IFINDEX`; the kernel refuses to boot otherwise).
pub const LOOPBACK_IFINDEX: u32 = 1;

/// Classes are those of [`crate::chain::ChainConsts`]' interface field; absent from the map means class 0, the class
/// of names that no rule mentions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Row of the ingress chain's interface field.
    pub ingress: u32,
    /// Row of the egress chain's interface field.
    pub egress: u32,
    /// Link-layer address; zeros where there is none. XDP sends answers only to what was sent to it.
    pub address: [u8; 6],
    /// Zero.
    pub zero: u16,
}
bytes!(Interface: 16);
