//! Every byte that crosses the line between user space and the kernel programs.
//!
//! Layouts here are versioned by [`ABI_VERSION`]: the pinned maps live in a directory named after it, so that a daemon
//! never reads another version's bytes. All integers are in host byte order unless a field says otherwise. There is no
//! implicit padding and no `bool`; sizes are asserted at compile time below each type.
#![no_std]

pub mod chain;
pub mod connection;
pub mod counter;
pub mod dynamic;
pub mod explain;
pub mod generation;
pub mod host;
pub mod interface;
pub mod limit;
pub mod names;
pub mod verdict;

/// Version of every layout in this crate and of the pinned maps. Bump it with any change of a size or an offset.
pub const ABI_VERSION: u32 = 2;

/// A type that may be copied to and from kernel memory as bytes.
///
/// # Safety
/// The implementor is `repr(C)`, holds only integers and arrays of them, and has no padding.
pub unsafe trait Bytes: Copy + 'static {}

/// All zeros: what the loader overwrites, and what is not used.
#[must_use]
pub const fn zeroed<T: Bytes>() -> T {
    // SAFETY: integers and arrays of them may be zero.
    unsafe { core::mem::zeroed() }
}

macro_rules! bytes {
    ($($name:ty: $size:literal),+ $(,)?) => {$(
        const _: () = assert!(core::mem::size_of::<$name>() == $size);
        // SAFETY: `repr(C)` of integers; the size asserted above equals the sum of the fields, so nothing pads.
        unsafe impl $crate::Bytes for $name {}
    )+};
}
pub(crate) use bytes;

bytes!(u32: 4, u64: 8);
