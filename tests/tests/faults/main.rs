//! Faults survived under traffic: at every moment the packets are judged by one whole generation, what must pass passes,
//! and what must be refused never gets through.
//!
//! The daemon ends or stops where a test says: that is compiled into builds with debug assertions only, and so are these
//! tests.

#[cfg(debug_assertions)]
mod applies;
#[cfg(debug_assertions)]
mod confirm;
#[cfg(debug_assertions)]
mod disk;
#[cfg(debug_assertions)]
mod full;
#[cfg(debug_assertions)]
mod kills;
#[cfg(debug_assertions)]
mod scene;
#[cfg(debug_assertions)]
mod takeover;
#[cfg(debug_assertions)]
mod traffic;
#[cfg(debug_assertions)]
mod upgrade;

use anyhow::{Result, ensure};
use ringfence_tests::daemon::binary;

#[test]
fn a_release_build_asks_for_no_faults() -> Result<()> {
    let program = std::fs::read(binary("ringfenced"))?;
    for name in ["RINGFENCE_FAULTS", "RINGFENCE_ABI"] {
        let has = program.windows(name.len()).any(|window| window == name.as_bytes());
        ensure!(has == cfg!(debug_assertions), "{name} in the program: {has}");
    }
    Ok(())
}
