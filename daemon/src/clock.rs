//! The two clocks: boot time decides, wall time is for people and for the disk.
//!
//! An expiry in the kernel is nanoseconds of `CLOCK_BOOTTIME`, which never jumps and counts suspended time. It means
//! nothing after a reboot, so the disk also gets wall time and the boot it was written in.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

const NANOSECONDS: u64 = 1_000_000_000;

/// Nanoseconds of `CLOCK_BOOTTIME`, as the programs in the kernel read it.
#[must_use]
pub fn boot_now() -> u64 {
    nanoseconds(ClockId::CLOCK_BOOTTIME)
}

/// Seconds of the same, the clock of the cell's deadline.
#[must_use]
pub fn boot_seconds() -> u32 {
    (boot_now() / NANOSECONDS) as u32
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
    static SHIFTS: OnceLock<[i64; 2]> = OnceLock::new();
    // A process stays in its time namespace, whose clocks cannot be set once it has a process.
    let shifts =
        SHIFTS.get_or_init(|| shifts(&std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default()));
    let shift = shifts[usize::from(clock == ClockId::CLOCK_BOOTTIME)];
    // Both clocks exist since Linux 2.6.39 and cannot fail with a valid pointer.
    let here =
        clock_gettime(clock).map_or(0, |t| t.tv_sec().cast_unsigned() * NANOSECONDS + t.tv_nsec().cast_unsigned());
    here.saturating_add_signed(shift.saturating_neg())
}

/// How many nanoseconds this process's monotonic clock and its boot clock are ahead of the machine's: a container may have a
/// time namespace of its own, and programs in the kernel know nothing of it.
fn shifts(offsets: &str) -> [i64; 2] {
    ["monotonic", "boottime"].map(|clock| {
        let line = offsets.lines().find_map(|line| line.strip_prefix(clock)).unwrap_or_default();
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<i64>().unwrap_or_default());
        let (seconds, nanoseconds) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        seconds.saturating_mul(NANOSECONDS.cast_signed()).saturating_add(nanoseconds)
    })
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

    /// The moment that the kernel knows: nanoseconds of `CLOCK_BOOTTIME`, not 0.
    #[must_use]
    pub fn at(boot: u64) -> Self {
        let left = boot.saturating_sub(boot_now()) / 1_000_000;
        Self { boot, wall: wall_now().saturating_add(left), span: left.max(1) }
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
    fn a_time_namespace_is_told_by_its_offsets() {
        assert_eq!(
            shifts("monotonic           0         0\nboottime      1000000         7\n"),
            [0, 1_000_000_000_000_007]
        );
        assert_eq!(shifts("monotonic  -2 500000000\nboottime  -1  0\n"), [-1_500_000_000, -1_000_000_000]);
        // A kernel without time namespaces.
        assert_eq!(shifts(""), [0, 0]);
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
