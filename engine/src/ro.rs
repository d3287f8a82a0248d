//! Reading of constants that are written after compilation.
//!
//! The loader puts a policy's [`ringfence_abi::chain::ChainConsts`] into the programs' read-only data before it loads
//! them. Without a volatile read LLVM would fold the zeros that stand there at build time into the code.

/// Reads a value that the optimiser must not assume to know.
#[inline(always)]
pub fn read<T: Copy>(value: &T) -> T {
    // SAFETY: a reference is valid for reads, aligned and initialised; `T: Copy` may be duplicated.
    unsafe { core::ptr::read_volatile(value) }
}
