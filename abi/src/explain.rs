//! The question and the answer of a program that was loaded with `EXPLAIN` set: it decides as the enforcing one does,
//! with the same tables and sets, and changes nothing.

use crate::bytes;

/// Value of the map `EXPLAIN_IN`: what a test run cannot put into the packet itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Interface the packet is on.
    pub ifindex: u32,
    /// `skb->mark`.
    pub mark: u32,
    /// A VLAN tag held in the skb: bit 16 set, tag control information below; 0: none.
    pub vlan: u32,
    /// Direct index of [`crate::chain::STATE`] that the packet is taken to be in.
    pub state: u32,
}
bytes!(Question: 16);

/// Value of the map `EXPLAIN_OUT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// One of [`crate::verdict`]; 0: the program did not get as far.
    pub verdict: u32,
    /// Counter index within the chain (without the chain's base) that names what decided.
    pub line: u32,
    /// For [`crate::counter::DYNAMIC`]: the entry's id.
    pub entry: u64,
    /// Counter indices (within the chain) of the rules that matched and let evaluation go on, in order.
    pub continued: [u32; 32],
    /// How many of `continued` are set.
    pub continued_len: u32,
    /// Non-zero: a field was unknown.
    pub unknown: u32,
}
bytes!(Answer: 152);
