//! The chain's tables as one map value.

use core::arch::asm;

use ringfence_engine::{Tables, ro};

use crate::maps::{ARENA_HOST, HOST};

/// The value's address; its size is a constant that the verifier knows.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Arena(*const u8);

impl Arena {
    /// The generation's tables.
    #[inline(always)]
    pub fn get() -> Option<Self> {
        ARENA_HOST.get_ptr(0).map(|base| Self(base.cast()))
    }

    #[inline(always)]
    fn at(self, offset: u32, len: u64) -> Option<*const u8> {
        let offset = opaque(u64::from(offset));
        if offset > u64::from(ro::read(&HOST.chain.arena)) - len {
            return None;
        }
        // SAFETY: within the map's value, as just compared.
        Some(unsafe { self.0.add(offset as usize) })
    }
}

impl Tables for Arena {
    #[inline(always)]
    fn u32(&self, offset: u32) -> Option<u32> {
        // SAFETY: `at` gives four bytes of the map's value; the compiler of the tables aligns them.
        self.at(offset, 4).map(|at| unsafe { at.cast::<u32>().read() })
    }

    #[inline(always)]
    fn u64(&self, offset: u32) -> Option<u64> {
        // SAFETY: `at` gives eight bytes of the map's value; aligned as above.
        self.at(offset, 8).map(|at| unsafe { at.cast::<u64>().read() })
    }
}

/// Hides a value from LLVM, which may otherwise compare one that is not yet complete: the verifier then sees no bound on
/// the rest.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value) };
    value
}
