//! Header parsing, classification and first match: the code that runs in the kernel programs, in `ringctl explain`
//! and in tests without root.
//!
//! No `alloc`, no panics on packet data, no I/O. Tables are read through [`Tables`], packets through [`Frame`], both
//! with bounds that the caller's side checks; the kernel programs implement them over map values and packet pointers.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod answer;
pub mod bits;
pub mod classify;
pub mod deep;
pub mod fields;
pub mod floor;
pub mod host;
pub mod judge;
pub mod limit;
pub mod parse;
pub mod ro;
pub mod search;
pub mod slice;
pub mod track;
pub mod trie;

/// A chain's arena.
pub trait Tables {
    /// The `u32` at a byte offset that is a multiple of 4; `None` when it lies outside.
    fn u32(&self, offset: u32) -> Option<u32>;
    /// The `u64` at a byte offset that is a multiple of 8 (a trie node's halves: of 4); `None` when outside.
    fn u64(&self, offset: u32) -> Option<u64>;
}

/// A packet as a hook sees it.
pub trait Frame {
    /// `N` bytes from `offset`, if they can be read in place.
    fn at<const N: usize>(&self, offset: u32) -> Option<&[u8; N]>;
    /// Bytes that can be read in place.
    fn linear(&self) -> u32;
    /// All bytes of the packet; may cost a helper call, so it is asked only when `linear` does not settle the matter.
    fn total(&self) -> u32;
    /// Payload bytes of each of the segments the kernel will still cut it into; 0: it goes as it is.
    fn segment(&self) -> u32;
}
