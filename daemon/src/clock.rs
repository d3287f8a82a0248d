//! The two clocks: boot time decides, wall time is for people and for the disk.
//!
//! An expiry in the kernel is nanoseconds of `CLOCK_BOOTTIME`, which never jumps and counts suspended time. It means
//! nothing after a reboot, so the disk also gets wall time and the boot it was written in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[must_use]
pub fn boot_now() -> u64 {
    nanoseconds(ClockId::CLOCK_BOOTTIME)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of [`ringfence_abi::counter::Counter::last_hit`].
#[must_use]
pub fn monotonic_now() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// Milliseconds since 1970.
#[must_use]
pub fn wall_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn nanoseconds(clock: ClockId) -> u64 {
    // Both clocks exist since Linux 2.6.39 and cannot fail with a valid pointer.
    clock_gettime(clock).map_or(0, |t| t.tv_sec().cast_unsigned() * 1_000_000_000 + t.tv_nsec().cast_unsigned())
}

/// The kernel's name for this boot; empty where `/proc` is not mounted.
#[must_use]
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(|_| String::new(), |id| id.trim().to_owned())
}

/// A moment in the future, in both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expiry {
    /// Nanoseconds of `CLOCK_BOOTTIME`; never 0.
    pub boot: u64,
    /// Milliseconds since 1970.
    pub wall: u64,
    /// Milliseconds that were asked for: a wall clock that was set back can give no more than these. 0: not known.
    #[serde(default)]
    pub span: u64,
}

impl Expiry {
    /// `after` from now.
    #[must_use]
    pub fn after(after: Duration) -> Self {
        Self {
            boot: boot_now().saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)),
            wall: wall_now().saturating_add(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            span: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Whether the moment has come.
    #[must_use]
    pub fn passed(&self, boot_now: u64) -> bool {
        self.boot <= boot_now
    }

    /// The same moment when it was written in another boot: wall time is all that is left of it.
    #[must_use]
    pub fn rebooted(self, boot_now: u64, wall_now: u64) -> Self {
        let left = self.wall.saturating_sub(wall_now);
        let left = if self.span == 0 { left } else { left.min(self.span) };
        Self { boot: boot_now.saturating_add(left.saturating_mul(1_000_000)).max(1), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_keeps_its_wall_time_over_a_reboot_and_its_boot_time_over_a_clock_jump() {
        let expiry = Expiry { boot: 500_000_000_000, wall: 1_000_000, span: 60_000 };
        // Ten seconds of wall time were left when the machine came up again, 3 s into the new boot.
        let again = expiry.rebooted(3_000_000_000, 990_000);
        assert_eq!(again, Expiry { boot: 13_000_000_000, ..expiry });
        assert!(!again.passed(12_999_999_999) && again.passed(13_000_000_000));
        // It expired while the machine was off.
        assert!(expiry.rebooted(3_000_000_000, 2_000_000).passed(3_000_000_000));
        // Within one boot wall time is not read at all.
        assert!(!expiry.passed(499_999_999_999) && expiry.passed(500_000_000_000));
    }

    #[test]
    fn a_wall_clock_that_was_lost_gives_no_more_time_than_was_asked_for() {
        let expiry = Expiry { boot: 500_000_000_000, wall: 1_800_000_000_000, span: 3_600_000 };
        // The battery is empty: it is 1970 again.
        assert_eq!(expiry.rebooted(3_000_000_000, 5_000).boot, 3_603_000_000_000);
        // The clock is ahead: it is over, which is what it would be if the machine had been off for so long.
        assert!(expiry.rebooted(3_000_000_000, u64::MAX).passed(3_000_000_000));
        // Nothing overflows, whatever the disk says.
        let wild = Expiry { boot: u64::MAX, wall: u64::MAX, span: u64::MAX };
        assert_eq!(wild.rebooted(u64::MAX, 0).boot, u64::MAX);
        // Written by a version that did not note what was asked for.
        let old: Expiry = serde_json::from_str(r#"{"boot": 5, "wall": 90000}"#).unwrap();
        assert_eq!(old.rebooted(1_000_000_000, 80_000).boot, 11_000_000_000);
    }
}
