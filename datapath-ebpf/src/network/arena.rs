//! The chain's tables as one map value.

use core::arch::asm;

use ringfence_abi::chain::ChainConsts;
use ringfence_engine::{Tables, ro};

use crate::maps::{ARENA_EGRESS, ARENA_INGRESS};

/// The value's address; its size is a constant that the verifier knows.
#[derive(Clone, Copy)]
pub struct Arena {
    base: *const u8,
    size: u64,
}

impl Arena {
    /// The direction's tables.
    #[inline(always)]
    pub fn of<const EGRESS: bool>(consts: &ChainConsts) -> Option<Self> {
        let map = if EGRESS { &ARENA_EGRESS } else { &ARENA_INGRESS };
        Some(Self { base: map.get_ptr(0)?.cast(), size: u64::from(ro::read(&consts.arena)) })
    }

    #[inline(always)]
    fn at(&self, offset: u32, len: u64) -> Option<*const u8> {
        let mut offset = u64::from(offset);
        // LLVM may otherwise compare a value that is not yet complete, and the verifier sees no bound on the rest.
        // SAFETY: copies a register to itself.
        unsafe { asm!("{0} = {0}", inout(reg) offset) };
        if offset > self.size - len {
            return None;
        }
        // SAFETY: within the map's value, as just compared.
        Some(unsafe { self.base.add(offset as usize) })
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
