//! What path and operation decide by themselves, before anything else is looked up.

use ringfence_abi::host::{HostConsts, QUICK, QUICK_VERDICT};

use crate::{Tables, ro::read, search::Outcome};

/// The outcome for every call with these classes of path and operation; `None`: its other fields matter.
#[inline(always)]
#[must_use]
pub fn quick<T: Tables>(host: &HostConsts, tables: &T, path: u32, op: u32) -> Option<Outcome> {
    let columns = read(&host.quick_columns);
    if columns == 0 {
        return None;
    }
    let word = tables.u32(read(&host.quick) + (path * columns + op) * 4)?;
    if word & QUICK == 0 {
        return None;
    }
    Some(Outcome { line: word & ((1 << QUICK_VERDICT) - 1), verdict: (word & !QUICK) >> QUICK_VERDICT })
}
