//! Limits to their table.

use std::collections::HashMap;

use ringfence_abi::limit::{FLAG_BYTES, FLAG_DESTINATION, FLAG_OVER, FLAG_SOURCE, Limit};

use super::{arena::Arena, chain::Entry};
use crate::model::{self, Per};

/// The most limits in a chain: their numbers have 16 bits, and 0 is none.
pub(super) const MOST: usize = u16::MAX as usize;

/// The numbers of the rules' limits, from 1 in the order of the rules.
pub(super) struct Limits(HashMap<usize, u64>);

impl Limits {
    pub(super) fn of(rules: &[Entry<'_>]) -> Self {
        let limited = rules.iter().enumerate().filter(|(_, rule)| rule.limit.is_some());
        Self(limited.map(|(number, _)| number).zip(1..).collect())
    }

    /// 0: the rule has none.
    pub(super) fn number(&self, rule: usize) -> u64 {
        self.0.get(&rule).copied().unwrap_or(0)
    }
}

/// Writes the table; its offset, or 0 where there is nothing to write. `first_line` is the counter of the first rule.
pub(super) fn write(arena: &mut Arena, rules: &[Entry<'_>], first_line: u32) -> u32 {
    let limited = rules.iter().enumerate().filter_map(|(number, rule)| Some((number as u32, rule.limit?)));
    let words: Vec<u64> = limited.flat_map(|(number, limit)| words(limit, first_line + number)).collect();
    if words.is_empty() { 0 } else { arena.words(words) }
}

/// The words of [`Limit`], whose order its own definition says.
fn words(limit: model::Limit, line: u32) -> [u64; 4] {
    let (per, lengths) = match limit.per {
        Per::Rule => (0, (0, 0)),
        Per::Source(v4, v6) => (FLAG_SOURCE, (v4, v6)),
        Per::Destination(v4, v6) => (FLAG_DESTINATION, (v4, v6)),
    };
    let over = if limit.over { FLAG_OVER } else { 0 };
    let bytes = if limit.rate.bytes { FLAG_BYTES } else { 0 };
    let record = Limit {
        cost: limit.rate.cost(),
        window: limit.window(),
        line,
        flags: per | over | bytes,
        lengths: u32::from(lengths.0) | u32::from(lengths.1) << 8,
        zero: 0,
    };
    [record.cost, record.window, u64::from(record.line) | u64::from(record.flags) << 32, u64::from(record.lengths)]
}
