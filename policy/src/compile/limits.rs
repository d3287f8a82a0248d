//! Limits, and what rules add to sets, to their tables.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{Hash as _, Hasher as _},
};

use ringfence_abi::{
    chain::Trie,
    counter::BUILTINS,
    limit::{
        Add, FLAG_ALWAYS, FLAG_BYTES, FLAG_CONNECTIONS, FLAG_DESTINATION, FLAG_OVER, FLAG_SOURCE, FLAG_UNPROVEN, Limit,
        NOTED_EGRESS, PROOF,
    },
};

use super::{AddedSet, Line, arena::Arena, chain::Entry, lines::Fnv, trie};
use crate::{
    model::{self, Chain, DynamicKind, Per, Policy, Quantity, Rule, SetId, WhenFull},
    ranges::AddressRanges,
};

/// The most limits in a chain: their numbers have 15 bits, and 0 is none.
pub(super) const MOST: usize = NOTED_EGRESS as usize - 1;

/// Whether the programs must look a rule up beyond what it matches.
pub(super) fn has_record(rule: &Rule) -> bool {
    rule.limit.is_some() || rule.adds().is_some()
}

/// The numbers of the rules' limits, from 1 in the order of the rules.
pub(super) struct Limits(HashMap<usize, u64>);

impl Limits {
    pub(super) fn of(rules: &[Entry<'_>]) -> Self {
        let limited = rules.iter().enumerate().filter(|(_, rule)| rule.record);
        Self(limited.map(|(number, _)| number).zip(1..).collect())
    }

    /// 0: the rule has none.
    pub(super) fn number(&self, rule: usize) -> u64 {
        self.0.get(&rule).copied().unwrap_or(0)
    }
}

/// The sets that rules of either chain add to, with their places in the map `ADDED`.
pub(super) struct Rings(BTreeMap<SetId, AddedSet>);

impl Rings {
    pub(super) fn of(policy: &Policy) -> Self {
        let rules = [&policy.ingress, &policy.egress].into_iter().flatten().flat_map(|chain| &chain.rules);
        let sets: BTreeSet<SetId> = rules.filter_map(Rule::adds).map(|add| add.set).collect();
        let mut base = 0;
        let ring = |set: SetId| {
            let capacity = declared(policy, set).map_or(1, |(_, capacity, ..)| capacity);
            let ring = AddedSet { set, base, capacity };
            base += capacity;
            (set, ring)
        };
        Self(sets.into_iter().map(ring).collect())
    }

    /// How many there are, and how many places.
    pub(super) fn sizes(&self) -> (u32, u32) {
        (self.0.len() as u32, self.0.values().map(|ring| ring.capacity).sum())
    }

    pub(super) fn sets(&self) -> impl Iterator<Item = AddedSet> {
        self.0.values().copied()
    }
}

fn declared(policy: &Policy, set: SetId) -> Option<(u64, u32, WhenFull, &AddressRanges)> {
    match &policy.dynamic_sets.get(usize::from(set.0))?.kind {
        DynamicKind::Declared { timeout, capacity, full, never } => {
            Some((timeout.unwrap_or(0) * 1_000_000_000, *capacity, *full, never))
        }
        _ => None,
    }
}

/// Writes the table; its offset, or 0 where there is nothing to write.
/// `lines` are the chain's counters, which begin at `counter_base`.
pub(super) fn write(
    arena: &mut Arena,
    policy: &Policy,
    chain: &Chain,
    (lines, counter_base): (&[Line], u32),
    rings: &Rings,
) -> u32 {
    let rules = chain.rules.iter().zip(&lines[BUILTINS as usize..]).enumerate();
    let mut given = HashSet::new();
    let mut tries = HashMap::new();
    let mut words = Vec::new();
    for (number, (rule, line)) in rules.filter(|(_, (rule, _))| has_record(rule)) {
        let add = rule.adds().and_then(|add| write_add(arena, policy, add.set, rings, &mut tries)).unwrap_or(0);
        let id = free(identity(line), &mut given);
        words.extend(record(
            rule,
            Limit { rule: id, add, line: counter_base + BUILTINS + number as u32, ..Limit::default() },
        ));
    }
    if words.is_empty() { 0 } else { arena.words(words) }
}

/// The rule over applies: by its name if it has one, otherwise by its content.
fn identity(line: &Line) -> u32 {
    let mut hash = Fnv::default();
    line.chain.hash(&mut hash);
    if line.named {
        line.name.hash(&mut hash);
    } else {
        line.content.hash(&mut hash);
    }
    (hash.finish() ^ hash.finish() >> 32) as u32 & !PROOF
}

fn free(mut id: u32, given: &mut HashSet<u32>) -> u32 {
    while !given.insert(id) {
        id = id.wrapping_add(1) & !PROOF;
    }
    id
}

/// The words of [`Limit`], whose order its own definition says.
fn record(rule: &Rule, begun: Limit) -> [u64; 5] {
    let mut limit = begun;
    match rule.limit {
        None => limit.flags = FLAG_ALWAYS,
        Some(model::Limit { of, over, per }) => {
            let lengths = match per {
                Per::Rule => (0, 0),
                Per::Source(v4, v6) | Per::Destination(v4, v6) => (v4, v6),
            };
            limit.lengths = u32::from(lengths.0) | u32::from(lengths.1) << 8;
            limit.flags |= match per {
                Per::Rule => 0,
                Per::Source(..) => FLAG_SOURCE,
                Per::Destination(..) => FLAG_DESTINATION,
            };
            limit.flags |= if over { FLAG_OVER } else { 0 };
            match of {
                Quantity::Rate { rate, burst } => {
                    limit.flags |= if rate.bytes { FLAG_BYTES } else { 0 };
                    (limit.cost, limit.window) = (rate.cost(), rate.window(burst));
                }
                Quantity::Connections(most) => {
                    limit.flags |= FLAG_CONNECTIONS;
                    limit.most = most;
                }
            }
        }
    }
    if rule.adds().is_some_and(|add| add.unproven) {
        limit.flags |= FLAG_UNPROVEN;
    }
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    [
        limit.cost,
        limit.window,
        pair(limit.rule, limit.flags),
        pair(limit.lengths, limit.most),
        pair(limit.add, limit.line),
    ]
}

/// Writes what is to be known of a set; its offset. Rules that add to the same set share it.
fn write_add(
    arena: &mut Arena,
    policy: &Policy,
    set: SetId,
    rings: &Rings,
    written: &mut HashMap<SetId, u32>,
) -> Option<u32> {
    if let Some(offset) = written.get(&set) {
        return Some(*offset);
    }
    let (timeout, capacity, full, never) = declared(policy, set)?;
    let state = rings.0.keys().position(|known| *known == set)? as u32;
    let never = [
        trie::write(
            arena,
            &runs(never.v4.iter().map(|&(low, high)| (u128::from(low) << 96, u128::from(high) << 96 | LOW))),
        ),
        trie::write(arena, &runs(never.v6.iter().copied())),
    ];
    let base = rings.0.get(&set)?.base;
    let evict = u64::from(full == WhenFull::EvictOldest);
    let add = Add { set: set.0.into(), state, base, capacity, timeout, evict, never };
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    let words = [pair(add.set, add.state), pair(add.base, add.capacity), add.timeout, add.evict];
    let tries =
        add.never.iter().flat_map(|Trie { top, bits, nodes, leaves }| [pair(*top, *bits), pair(*nodes, *leaves)]);
    let offset = arena.words(words.into_iter().chain(tries));
    written.insert(set, offset);
    Some(offset)
}

/// The bits of a left-aligned IPv4 address that are none.
const LOW: u128 = u128::MAX >> 32;

/// Runs of class 1 within, class 0 without.
fn runs(ranges: impl Iterator<Item = (u128, u128)>) -> Vec<(u128, u32)> {
    let mut runs = vec![(0, 0)];
    for (low, high) in ranges {
        if runs.last().is_some_and(|last| last.0 == low) {
            runs.pop();
        }
        if runs.last().is_none_or(|last| last.1 != 1) {
            runs.push((low, 1));
        }
        if let Some(next) = high.checked_add(1) {
            runs.push((next, 0));
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_become_runs() {
        assert_eq!(runs([].into_iter()), [(0, 0)]);
        assert_eq!(runs([(0, 4), (9, 9), (10, u128::MAX)].into_iter()), [(0, 1), (5, 0), (9, 1)]);
        assert_eq!(runs([(3, 4)].into_iter()), [(0, 0), (3, 1), (5, 0)]);
    }

    #[test]
    fn equal_rules_have_limits_of_their_own() {
        let mut given = HashSet::new();
        assert_eq!((free(7, &mut given), free(7, &mut given), free(8, &mut given)), (7, 8, 9));
    }
}
