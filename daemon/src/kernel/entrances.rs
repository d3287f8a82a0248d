//! The programs of a generation, and the places in the program arrays where the dispatchers find them.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use ringfence_abi::{
    generation::{VARIANT_EGRESS, VARIANT_EGRESS_L3, VARIANT_INGRESS, VARIANT_INGRESS_L3, VARIANTS},
    names,
};

use super::{
    Kernel,
    error::{Context as _, Result},
    host,
    table::Table,
};

/// A program of a generation, and where it goes.
pub struct Entrance {
    /// Its name.
    pub program: &'static str,
    /// Stands in when the policy has no such chain.
    pub pass: &'static str,
    xdp: bool,
    variant: u32,
    /// 0 is ingress, 1 egress.
    pub chain: usize,
}

/// All of them.
pub const ENTRANCES: [Entrance; 5] = [
    Entrance { program: names::XDP_INGRESS, pass: names::PASS_XDP, xdp: true, variant: VARIANT_INGRESS, chain: 0 },
    Entrance { program: names::TC_INGRESS, pass: names::PASS_TC, xdp: false, variant: VARIANT_INGRESS, chain: 0 },
    Entrance { program: names::TC_INGRESS_L3, pass: names::PASS_TC, xdp: false, variant: VARIANT_INGRESS_L3, chain: 0 },
    Entrance { program: names::TC_EGRESS, pass: names::PASS_TC, xdp: false, variant: VARIANT_EGRESS, chain: 1 },
    Entrance { program: names::TC_EGRESS_L3, pass: names::PASS_TC, xdp: false, variant: VARIANT_EGRESS_L3, chain: 1 },
];

impl Kernel {
    /// Takes the programs of a slot out, those of the security hooks too.
    pub(super) fn clear_slot(&self, slot: u8) -> Result<()> {
        host::generation::clear_slot(self, slot)?;
        for entrance in &ENTRANCES {
            let removed = self.programs(entrance).remove(&index(slot, entrance));
            removed.context(|| format!("cannot clear slot {slot}"))?;
        }
        Ok(())
    }

    fn programs(&self, entrance: &Entrance) -> &Table<u32, u32> {
        if entrance.xdp { &self.maps.xdp } else { &self.maps.tc }
    }

    /// Puts a program into a slot.
    pub(super) fn set_program(&self, entrance: &Entrance, slot: u8, program: BorrowedFd<'_>) -> Result<()> {
        let number = program.as_raw_fd().cast_unsigned();
        let set = self.programs(entrance).set(&index(slot, entrance), &number);
        set.context(|| format!("cannot put {} into slot {slot}", entrance.program))
    }
}

fn index(slot: u8, entrance: &Entrance) -> u32 {
    slot as u32 * VARIANTS + entrance.variant
}
