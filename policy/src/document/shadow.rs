//! Rules that can never match because an earlier one decides all their packets.
//!
//! Sound: a warning is never wrong. Not complete: several rules that only together cover a later one are not noticed.
//! Each deciding rule is filed under one thing that a rule it covers must have (a port, a source or destination
//! prefix), so that a rule is compared with few others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::problems::{Complaint, Problems};
use super::source::Span;
use crate::model::{AddressList, AddressMatch, IcmpMatch, InterfaceMatch, Location, Match, Rule};
use crate::ranges::{AddressRanges, Number, Ranges};
use crate::services::{ICMP, ICMPV6};

// Comparisons for one chain; after that the search ends, and says so.
const BUDGET: usize = 20_000_000;
// A list of more ranges than this is compared by identity only.
const MAX_COMPARED: usize = 256;

/// Warns of the rules that cannot match.
pub(super) fn warn(rules: &[Rule], names: &[String], problems: &mut Problems) {
    let mut index = Index::default();
    let mut budget = BUDGET;
    for (number, rule) in rules.iter().enumerate() {
        // A contradiction between `when` and the rule has its own warning.
        let matches_nothing = rule.matches.family.is_some_and(|families| !families.v4 && !families.v6);
        if !matches_nothing {
            let candidates = index.candidates(&rule.matches);
            if candidates.iter().map(|list| list.len()).sum::<usize>() > budget {
                problems.warning(span(rule.at), "rules from here on were not searched for ones that can never match: there are too many like each other");
                return;
            }
            let by = candidates.into_iter().flatten().copied().filter(|&earlier| {
                budget = budget.saturating_sub(1);
                covers(&rules[earlier].matches, &rule.matches)
            });
            if let Some(by) = by.min() {
                report(rule, &rules[by], names, problems);
            }
            if !rule.may_continue() {
                index.insert(number, &rule.matches);
            }
        }
    }
}

fn report(rule: &Rule, by: &Rule, names: &[String], problems: &mut Problems) {
    let file = names.get(by.at.file as usize).map_or("?", String::as_str);
    let place = format!("`{}` ({file}:{})", by.name, by.at.line);
    let complaint = if by.verdict.refuses() || !rule.verdict.refuses() || !can_be_unknown(&by.matches) {
        Complaint::new(format!("the rule `{}` can never match: {place} decides all its packets", rule.name))
    } else {
        // An unknown field matches what refuses and not what accepts, so the later rule keeps those packets.
        Complaint::new(format!(
            "the rule `{}` matches only packets with unreadable ports or protocol: {place} accepts all others",
            rule.name
        ))
    };
    problems.warning(span(rule.at), complaint.help("put the narrower rule first, or remove it"));
}

fn span(at: Location) -> Span {
    Span { file: at.file, line: at.line, column: at.column, end: at.column + 1 }
}

fn can_be_unknown(m: &Match) -> bool {
    m.state.is_some()
        || m.proto.is_some()
        || m.port.is_some()
        || m.source_port.is_some()
        || m.flags.is_some()
        || m.icmp.is_some()
}

/// Whether `a` matches every packet that `b` matches.
fn covers(a: &Match, b: &Match) -> bool {
    let numbers = [
        (&a.state, &b.state),
        (&a.port, &b.port),
        (&a.proto, &b.proto),
        (&a.source_port, &b.source_port),
        (&a.vlan, &b.vlan),
        (&a.dscp, &b.dscp),
        (&a.mark, &b.mark),
        (&a.length, &b.length),
    ];
    numbers.into_iter().all(|(a, b)| field(a.as_ref(), b.as_ref(), |a, b| within(b.as_slice(), a.as_slice())))
        && field(a.fragment.as_ref(), b.fragment.as_ref(), |a, b| a == b)
        && field(a.family.as_ref(), b.family.as_ref(), |a, b| (a.v4 || !b.v4) && (a.v6 || !b.v6))
        && field(a.flags.as_ref(), b.flags.as_ref(), |a, b| a.intersection(b) == *b)
        && field(a.icmp.as_ref(), b.icmp.as_ref(), |a, b_icmp| icmp_covers(a, b_icmp, b.proto.as_ref()))
        && conditions(&a.from, &b.from, address_covers)
        && conditions(&a.to, &b.to, address_covers)
        && conditions(&a.interface, &b.interface, interface_covers)
}

// A rule that does not read a field takes every value and its absence.
fn field<T>(a: Option<&T>, b: Option<&T>, covers: impl Fn(&T, &T) -> bool) -> bool {
    match (a, b) {
        (None, _) => true,
        (Some(a), Some(b)) => covers(a, b),
        (Some(_), None) => false,
    }
}

// Every condition of `a` follows from one of `b`.
fn conditions<T>(a: &[T], b: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
    a.iter().all(|a| b.iter().any(|b| covers(a, b)))
}

// A message by number is in both families' ranges; the protocol beside it says which one counts.
fn icmp_covers(a: &IcmpMatch, b: &IcmpMatch, proto: Option<&Ranges>) -> bool {
    let possible = |protocol: u8| proto.is_none_or(|proto| proto.contains(protocol.into()));
    (!possible(ICMP) || within(b.v4.as_slice(), a.v4.as_slice()))
        && (!possible(ICMPV6) || within(b.v6.as_slice(), a.v6.as_slice()))
}

fn interface_covers(a: &InterfaceMatch, b: &InterfaceMatch) -> bool {
    let inside = |b: &crate::model::NameGlob, a: &crate::model::NameGlob| {
        a == b || a.0 == "*" || b.is_literal() && a.matches(&b.0)
    };
    let any_of = match (&a.any_of, &b.any_of) {
        (None, _) => true,
        (Some(a), Some(b)) => b.iter().all(|b| a.iter().any(|a| inside(b, a))),
        (Some(_), None) => false,
    };
    any_of && a.none_of.iter().all(|a| b.none_of.iter().any(|b| inside(a, b)))
}

fn address_covers(a: &AddressMatch, b: &AddressMatch) -> bool {
    let any_of = match (&a.any_of, &b.any_of) {
        (None, _) => true,
        (Some(a), Some(b)) => list_within(b, a),
        (Some(_), None) => false,
    };
    any_of && list_within(&a.none_of, &b.none_of)
}

fn list_within(inner: &AddressList, outer: &AddressList) -> bool {
    inner.dynamic.iter().all(|set| outer.dynamic.contains(set))
        && inner.fixed.iter().all(|inner| outer.fixed.iter().any(|outer| addresses_within(inner, outer)))
}

fn addresses_within(inner: &Arc<AddressRanges>, outer: &Arc<AddressRanges>) -> bool {
    Arc::ptr_eq(inner, outer)
        || inner.v4.len() + inner.v6.len() <= MAX_COMPARED
            && within(&inner.v4, &outer.v4)
            && within(&inner.v6, &outer.v6)
}

// Both normalised: a range lies in the union of others only if it lies in one of them.
fn within<T: Number>(inner: &[(T, T)], outer: &[(T, T)]) -> bool {
    inner.iter().all(|&(low, high)| {
        let at = outer.partition_point(|&(_, end)| end < high);
        outer.get(at).is_some_and(|&(start, _)| start <= low)
    })
}

// What a rule is filed under.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Port(u32),
    SourcePort(u32),
    // Addresses as 128 bits, IPv4 in the mapped range: the common prefix of a range and its length.
    From(u128, u32),
    To(u128, u32),
}

#[derive(Default)]
struct Index {
    filed: HashMap<Key, Vec<usize>>,
    // Rules with nothing to file them under.
    rest: Vec<usize>,
    // Prefix lengths in use.
    from_lengths: Lengths,
    to_lengths: Lengths,
}

#[derive(Default)]
struct Lengths(BTreeSet<u32>);

impl Index {
    fn insert(&mut self, number: usize, m: &Match) {
        let keys = [
            m.from.iter().find_map(single).map(|(address, length)| Key::From(address, length)),
            m.to.iter().find_map(single).map(|(address, length)| Key::To(address, length)),
            m.port.as_ref().and_then(single_number).map(Key::Port),
            m.source_port.as_ref().and_then(single_number).map(Key::SourcePort),
        ];
        // The shortest list: rules that share a port may differ in their addresses, and the other way round.
        let key = keys.into_iter().flatten().min_by_key(|key| self.filed.get(key).map_or(0, Vec::len));
        let Some(key) = key else { return self.rest.push(number) };
        match key {
            Key::From(_, length) => {
                self.from_lengths.0.insert(length);
            }
            Key::To(_, length) => {
                self.to_lengths.0.insert(length);
            }
            Key::Port(_) | Key::SourcePort(_) => {}
        }
        self.filed.entry(key).or_default().push(number);
    }

    // The lists in which a rule that covers `m` must be.
    fn candidates(&self, m: &Match) -> Vec<&Vec<usize>> {
        let first =
            |ranges: &Option<Ranges>| ranges.as_ref().and_then(|ranges| ranges.as_slice().first()).map(|&(low, _)| low);
        let mut keys = Vec::new();
        keys.extend(first(&m.port).map(Key::Port));
        keys.extend(first(&m.source_port).map(Key::SourcePort));
        // One condition of several may be the one that is covered: look under each.
        for address in m.from.iter().filter_map(any_address) {
            keys.extend(self.from_lengths.prefixes(address).map(|(prefix, length)| Key::From(prefix, length)));
        }
        for address in m.to.iter().filter_map(any_address) {
            keys.extend(self.to_lengths.prefixes(address).map(|(prefix, length)| Key::To(prefix, length)));
        }
        keys.iter().filter_map(|key| self.filed.get(key)).chain([&self.rest]).collect()
    }
}

impl Lengths {
    fn prefixes(&self, address: u128) -> impl Iterator<Item = (u128, u32)> {
        self.0.iter().map(move |&length| (mask(address, length), length))
    }
}

fn mask(address: u128, length: u32) -> u128 {
    address & !u128::MAX.checked_shr(length).unwrap_or(0)
}

fn mapped(v4: u32) -> u128 {
    0xffff_0000_0000 | u128::from(v4)
}

fn single_number(ranges: &Ranges) -> Option<u32> {
    match ranges.as_slice() {
        [(low, high)] if low == high => Some(*low),
        _ => None,
    }
}

// The common prefix of a condition that is one range of addresses.
fn single(condition: &AddressMatch) -> Option<(u128, u32)> {
    let list = condition.any_of.as_ref()?;
    let ([fixed], []) = (list.fixed.as_slice(), list.dynamic.as_slice()) else { return None };
    let (low, high) = match (fixed.v4.as_slice(), fixed.v6.as_slice()) {
        ([(low, high)], []) => (mapped(*low), mapped(*high)),
        ([], [(low, high)]) => (*low, *high),
        _ => return None,
    };
    let length = (low ^ high).leading_zeros();
    Some((mask(low, length), length))
}

// Some address of each static list of a condition: a prefix that covers the condition covers them all.
fn any_address(condition: &AddressMatch) -> Option<u128> {
    let list = condition.any_of.as_ref()?.fixed.first()?;
    list.v4.first().map(|&(low, _)| mapped(low)).or_else(|| list.v6.first().map(|&(low, _)| low))
}
