//! Rate limits: one step of a schedule. Whose schedule it is, and how it is written back, is the caller's business.

use ringfence_abi::limit::{COST_SHIFT, FLAG_BYTES, Limit, UNITS};

/// Units of a packet that a limit counts.
#[inline(always)]
#[must_use]
pub fn amount(limit: &Limit, packets: u32, bytes: u32) -> u64 {
    u64::from(if limit.flags & FLAG_BYTES == 0 { packets } else { bytes })
}

/// The schedule after `amount` units at `now` (nanoseconds); `None`: they are above the rate, and nothing is spent.
#[inline(always)]
#[must_use]
pub fn spend(limit: &Limit, due: u64, amount: u64, now: u64) -> Option<u64> {
    let now = now.wrapping_mul(u64::from(UNITS));
    let from = if due > now { due } else { now };
    let after = from.wrapping_add(amount.wrapping_mul(limit.cost) >> COST_SHIFT);
    (after.wrapping_sub(now) <= limit.window).then_some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets that pass of a stream with this distance between them (nanoseconds), over a time.
    fn passed(limit: &Limit, every: u64, time: u64) -> u64 {
        let (mut due, mut passed) = (0, 0);
        for number in 0..time / every {
            if let Some(after) = spend(limit, due, 1, 5_000_000_000 + number * every) {
                due = after;
                passed += 1;
            }
        }
        passed
    }

    fn per_second(rate: u64, burst: u64) -> Limit {
        let cost = ((1_000_000_000 * u64::from(UNITS)) << COST_SHIFT) / rate;
        Limit { cost, window: (burst * cost) >> COST_SHIFT, ..Limit::default() }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        const SECOND: u64 = 1_000_000_000;
        for (rate, burst) in [(1, 1), (10, 20), (1000, 5), (333_333, 100)] {
            let expected = burst + 10 * rate;
            let found = passed(&per_second(rate, burst), 1_000, 10 * SECOND);
            // One more or less at the ends, and what rounding the cost to a 1,024th of a nanosecond makes.
            assert!(found.abs_diff(expected) <= 2 + expected / 10_000, "{rate}/s: {found} of {expected}");
        }
        // Below the rate everything passes.
        assert_eq!(passed(&per_second(1000, 1), 1_100_000, 10 * SECOND), 9090);
    }

    #[test]
    fn what_is_above_spends_nothing() {
        let limit = per_second(1, 2);
        let now = 7_000_000_000;
        let due = spend(&limit, 0, 2, now).unwrap();
        assert_eq!(spend(&limit, due, 1, now), None);
        assert!(spend(&limit, due, 1, now + 1_000_000_000).is_some());
        assert_eq!(spend(&limit, 0, 3, now), None, "more than a burst at once");
    }
}
