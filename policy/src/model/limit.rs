//! Limits and what rules add to sets, as a policy speaks of them.

use ringfence_abi::limit::{COST_SHIFT, UNITS};

use super::SetId;

/// `limit:` beside a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// What is limited.
    pub of: Quantity,
    /// The rule matches what is above it (`over:`, and `connections:` on a rule that refuses); otherwise what is below.
    pub over: bool,
    /// Who has one of his own.
    pub per: Per,
}

/// What a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantity {
    /// Packets or bytes.
    Rate {
        /// The rate.
        rate: Rate,
        /// Units that may come at once.
        burst: u64,
    },
    /// Connections that are open at a time.
    Connections(u32),
}

/// `add:` beside a rule: the far end's address to a dynamic set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Add {
    /// The set.
    pub set: SetId,
    /// Also what no completed handshake has proven.
    pub unproven: bool,
}

/// So many units in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Units; at least 1.
    pub amount: u64,
    /// Seconds; at least 1.
    pub seconds: u64,
    /// They are bytes, not packets.
    pub bytes: bool,
}

/// `per:` of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Per {
    /// All packets of the rule together.
    Rule,
    /// Each source, by so many bits of its address (IPv4, IPv6).
    Source(u8, u8),
    /// Each destination.
    Destination(u8, u8),
}

/// The fewest units that may come at once where the policy does not say: a limit of a slow rate is no lock.
const BURST: u64 = 5;
/// What may come at once of a fast one: a tenth of a second's, as packets come in batches.
const BURST_SHARE: u64 = 10;
/// The largest IP packet: a burst of bytes holds one.
const PACKET: u64 = 65_535;

impl Rate {
    /// What one unit costs, as in [`ringfence_abi::limit::Limit::cost`].
    #[must_use]
    pub fn cost(self) -> u64 {
        let nanosecond = u128::from(UNITS) << COST_SHIFT;
        let cost = u128::from(self.seconds) * 1_000_000_000 * nanosecond / u128::from(self.amount.max(1));
        u64::try_from(cost).unwrap_or(u64::MAX).max(1)
    }

    /// The burst where the policy does not say.
    #[must_use]
    pub fn usual_burst(self) -> u64 {
        let share = self.amount / self.seconds.max(1) / BURST_SHARE;
        share.max(if self.bytes { PACKET } else { BURST })
    }
}

impl Rate {
    /// How far ahead a schedule may be, as in [`ringfence_abi::limit::Limit::window`].
    #[must_use]
    pub fn window(self, burst: u64) -> u64 {
        let window = (u128::from(self.cost()) * u128::from(burst)) >> COST_SHIFT;
        // A word of the schedule lasts for nine years: no burst may be of more than half of that.
        u64::try_from(window).unwrap_or(u64::MAX).min(u64::MAX / 4)
    }
}
