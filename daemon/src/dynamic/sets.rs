//! Elements of dynamic sets.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::ops::Bound;

use ringfence_abi::dynamic::MAX_SETS;
use ringfence_api::Prefix;
use ringfence_policy::model::{DynamicKind, DynamicSet, WhenFull};
use ringfence_policy::ranges::AddressRanges;

use super::contents::Contents;
pub use super::contents::Member;

/// The sets that the daemon fills: addresses of this host, next hops of its routes, its name servers.
pub const KEPT: [&str; 3] = ["local", "gateways", "resolvers"];

/// Why elements cannot be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The policy in force declares no such set.
    #[error("the policy declares no dynamic set `{0}`")]
    Unknown(String),
    /// The daemon fills it.
    #[error("`${0}` is kept by the daemon and cannot be changed by hand")]
    BuiltIn(String),
    /// More sets than the kernel has ids for.
    #[error("more than {MAX_SETS} dynamic sets")]
    TooMany,
}

/// What an addition changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addition {
    /// To be added, or to get a new expiry.
    pub added: Vec<Prefix>,
    /// To make room.
    pub evicted: Vec<Prefix>,
    /// Not to be added, and why.
    pub refused: Vec<(Prefix, String)>,
}

/// Every set's declaration and elements.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    declared: BTreeMap<String, DynamicSet>,
    contents: BTreeMap<String, Contents>,
}

impl Sets {
    /// Takes the dynamic sets of the policy that is now in force. Returns the elements that its `never` lists forbid;
    /// they are out. Elements of sets it does not declare stay, for the policy that declares them again.
    pub fn declare(&mut self, declared: &[DynamicSet]) -> Vec<(String, Prefix)> {
        self.declared = declared.iter().map(|set| (set.name.clone(), set.clone())).collect();
        let mut forbidden = Vec::new();
        for (name, set) in &self.declared {
            if let (DynamicKind::Declared { never, .. }, Some(contents)) = (&set.kind, self.contents.get(name)) {
                let hit = contents.elements.keys().filter(|element| overlaps(never, **element));
                forbidden.extend(hit.map(|element| (name.clone(), *element)));
            }
        }
        for (name, element) in &forbidden {
            self.remove(name, &[*element]);
        }
        forbidden
    }

    /// The declaration of a set people may change.
    pub fn changeable(&self, name: &str) -> Result<&DynamicSet, SetError> {
        let set = self.declared.get(name).ok_or_else(|| SetError::Unknown(name.to_owned()))?;
        match set.kind {
            DynamicKind::Declared { .. } => Ok(set),
            _ => Err(SetError::BuiltIn(name.to_owned())),
        }
    }

    /// Whether the daemon fills it, so that it needs not be kept.
    #[must_use]
    pub fn is_kept_by_daemon(&self, name: &str) -> bool {
        KEPT.contains(&name)
    }

    /// The declarations in force.
    pub fn declared(&self) -> impl Iterator<Item = &DynamicSet> {
        self.declared.values()
    }

    /// The set and element of a `never` list that `prefix` touches.
    #[must_use]
    pub fn never(&self, prefix: Prefix) -> Option<&str> {
        self.declared.values().find_map(|set| match &set.kind {
            DynamicKind::Declared { never, .. } if overlaps(never, prefix) => Some(set.name.as_str()),
            _ => None,
        })
    }

    /// Whether the set's own `never` list touches `prefix`.
    #[must_use]
    pub fn forbids(&self, name: &str, prefix: Prefix) -> bool {
        let kind = self.declared.get(name).map(|set| &set.kind);
        matches!(kind, Some(DynamicKind::Declared { never, .. }) if overlaps(never, prefix))
    }

    /// Says what adding would change, without changing it.
    pub fn plan(&self, name: &str, elements: &[Prefix]) -> Result<Addition, SetError> {
        let set = self.changeable(name)?;
        let DynamicKind::Declared { capacity, full, never, .. } = &set.kind else {
            return Err(SetError::BuiltIn(name.to_owned()));
        };
        let empty = Contents::default();
        let contents = self.contents.get(name).unwrap_or(&empty);
        let mut wanted = elements.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut old = contents
            .by_expiry
            .iter()
            .map(|(_, element)| *element)
            .filter(|element| wanted.binary_search(element).is_err());
        let mut plan = Addition::default();
        let mut size = contents.elements.len();
        for element in wanted.iter().copied() {
            if overlaps(never, element) {
                plan.refused.push((element, "holds an address that `never` of the set names".to_owned()));
            } else if contents.elements.contains_key(&element) {
                plan.added.push(element);
            } else if size < *capacity as usize {
                size += 1;
                plan.added.push(element);
            } else if *full == WhenFull::EvictOldest
                && let Some(victim) = old.next()
            {
                plan.evicted.push(victim);
                plan.added.push(element);
            } else {
                plan.refused.push((element, format!("the set is full, it has {capacity} elements")));
            }
        }
        Ok(plan)
    }

    /// Carries out what [`Self::plan`] said, and what a journal or the daemon's own sets say, without any check.
    pub fn insert(&mut self, name: &str, elements: &[Prefix], member: &Member) {
        let contents = self.contents.entry(name.to_owned()).or_default();
        for element in elements {
            contents.insert(*element, member.clone());
        }
    }

    /// Takes elements out; returns those that were in.
    pub fn remove(&mut self, name: &str, elements: &[Prefix]) -> Vec<Prefix> {
        let Some(contents) = self.contents.get_mut(name) else { return Vec::new() };
        elements.iter().copied().filter(|element| contents.remove(*element)).collect()
    }

    /// Forgets a set's elements; returns them.
    pub fn flush(&mut self, name: &str) -> Vec<Prefix> {
        self.contents.remove(name).map(|contents| contents.elements.into_keys().collect()).unwrap_or_default()
    }

    /// Takes out what has expired.
    pub fn expire(&mut self, boot_now: u64) -> Vec<(String, Vec<Prefix>)> {
        let mut expired = Vec::new();
        for (name, contents) in &mut self.contents {
            let due: Vec<Prefix> = contents
                .by_expiry
                .iter()
                .take_while(|(boot, _)| *boot <= boot_now)
                .map(|(_, element)| *element)
                .collect();
            for element in &due {
                contents.remove(*element);
            }
            if !due.is_empty() {
                expired.push((name.clone(), due));
            }
        }
        expired
    }

    /// When the first element expires.
    #[must_use]
    pub fn first_expiry(&self) -> Option<u64> {
        self.contents.values().filter_map(|contents| contents.by_expiry.first().map(|(boot, _)| *boot)).min()
    }

    /// The elements of a set by address, those after `after`.
    pub fn elements(&self, name: &str, after: Option<Prefix>) -> impl Iterator<Item = (Prefix, &Member)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let contents = self.contents.get(name).into_iter();
        contents.flat_map(move |c| c.elements.range((from, Bound::Unbounded)).map(|(e, m)| (*e, m)))
    }

    /// The names of all sets that have elements, those that the daemon keeps only where the policy reads them.
    pub fn filled(&self) -> impl Iterator<Item = &str> {
        let shown = |name: &str| self.declared.contains_key(name) || !self.is_kept_by_daemon(name);
        let filled = self.contents.iter().filter(|(_, contents)| !contents.elements.is_empty());
        filled.map(|(name, _)| name.as_str()).filter(move |name| shown(name))
    }

    /// Whether an element of the set holds the address.
    #[must_use]
    pub fn contains(&self, name: &str, address: std::net::IpAddr) -> bool {
        let Some(contents) = self.contents.get(name) else { return false };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let of_length = |length| Prefix::new(address, length);
        (0..=longest).filter_map(of_length).any(|prefix| contents.elements.contains_key(&prefix))
    }

    /// Whether exactly this is an element of the set.
    #[must_use]
    pub fn has(&self, name: &str, element: &Prefix) -> bool {
        self.contents.get(name).is_some_and(|contents| contents.elements.contains_key(element))
    }

    /// What is known of an element.
    #[must_use]
    pub fn member(&self, name: &str, element: Prefix) -> Option<&Member> {
        self.contents.get(name)?.elements.get(&element)
    }

    /// What is in a set; `None`: nothing ever was.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<&Contents> {
        self.contents.get(name)
    }

    /// How many elements a set has.
    #[must_use]
    pub fn len(&self, name: &str) -> usize {
        self.contents.get(name).map_or(0, |contents| contents.elements.len())
    }
}

/// Of each group what is among the `allowed` ones; of an element that is in several groups the last one counts.
#[must_use]
pub fn allowed<T>(groups: Vec<(T, Vec<Prefix>)>, allowed: &[Prefix]) -> Vec<(T, Vec<Prefix>)> {
    let mut left: HashSet<Prefix> = allowed.iter().copied().collect();
    let own = |(what, elements): (T, Vec<Prefix>)| {
        (what, elements.into_iter().filter(|element| left.remove(element)).collect::<Vec<_>>())
    };
    let mut groups: Vec<_> = groups.into_iter().rev().map(own).filter(|(_, elements)| !elements.is_empty()).collect();
    groups.reverse();
    groups
}

/// Whether a `never` list names an address of the prefix.
#[must_use]
pub fn overlaps(never: &AddressRanges, prefix: Prefix) -> bool {
    let host_bits = 128 - u32::from(prefix.length());
    match prefix.address() {
        IpAddr::V4(low) => {
            let (low, host_bits) = (low.to_bits(), host_bits - 96);
            touches(&never.v4, low, low | u32::MAX.checked_shr(32 - host_bits).unwrap_or(0))
        }
        IpAddr::V6(low) => {
            let low = low.to_bits();
            touches(&never.v6, low, low | u128::MAX.checked_shr(128 - host_bits).unwrap_or(0))
        }
    }
}

/// Whether `low` to `high` has something in common with ranges that are sorted and disjoint.
fn touches<T: Ord + Copy>(ranges: &[(T, T)], low: T, high: T) -> bool {
    let first = ranges.partition_point(|range| range.1 < low);
    ranges.get(first).is_some_and(|range| range.0 <= high)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Expiry;

    fn declared(name: &str, capacity: u32, full: WhenFull) -> DynamicSet {
        let mut never = AddressRanges::default();
        never.push_prefix("192.0.2.0".parse().unwrap(), 24);
        never.normalise();
        let kind = DynamicKind::Declared { timeout: None, capacity, full, never: Arc::new(never) };
        DynamicSet { name: name.into(), at: None, kind }
    }

    fn sets(capacity: u32, full: WhenFull) -> Sets {
        let mut sets = Sets::default();
        sets.declared.insert("jail".into(), declared("jail", capacity, full));
        let local = DynamicSet { name: "local".into(), at: None, kind: DynamicKind::Local };
        sets.declared.insert("local".into(), local);
        sets
    }

    fn at(boot: u64) -> Member {
        Member { expiry: Some(Expiry { boot, wall: 0, span: 0 }), ..Member::default() }
    }

    fn prefixes(list: &[&str]) -> Vec<Prefix> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_full_set_refuses_or_evicts_what_expires_first() {
        let mut full = sets(2, WhenFull::Refuse);
        full.insert("jail", &prefixes(&["10.0.0.1"]), &at(9));
        full.insert("jail", &prefixes(&["10.0.0.2"]), &at(5));
        let third = prefixes(&["10.0.0.1", "10.0.0.3"]);
        let plan = full.plan("jail", &third).unwrap();
        assert_eq!(plan.added, prefixes(&["10.0.0.1"]), "what is in needs no room");
        assert_eq!(plan.refused[0].0, prefixes(&["10.0.0.3"])[0]);

        full.declared.insert("jail".into(), declared("jail", 2, WhenFull::EvictOldest));
        let plan = full.plan("jail", &third).unwrap();
        assert_eq!((plan.added, plan.evicted), (third.clone(), prefixes(&["10.0.0.2"])));
        // Elements without expiry are never evicted.
        full.insert("jail", &prefixes(&["10.0.0.1", "10.0.0.2"]), &Member::default());
        assert_eq!(full.plan("jail", &third).unwrap().refused.len(), 1);
    }

    #[test]
    fn never_unknown_and_built_in_sets_are_refused() {
        let mut sets = sets(10, WhenFull::Refuse);
        let plan = sets.plan("jail", &prefixes(&["192.0.2.77", "192.0.0.0/16", "192.0.3.0/24"])).unwrap();
        assert_eq!(plan.added, prefixes(&["192.0.3.0/24"]));
        assert_eq!(plan.refused.len(), 2);
        assert!(matches!(sets.plan("nosuch", &[]), Err(SetError::Unknown(_))));
        assert!(matches!(sets.plan("local", &[]), Err(SetError::BuiltIn(_))));
        assert_eq!(sets.never(prefixes(&["192.0.2.1"])[0]), Some("jail"));
        // A new `never` throws out what is in.
        sets.insert("jail", &prefixes(&["192.0.2.1", "10.0.0.1"]), &Member::default());
        let forbidden = sets.declare(&[declared("jail", 10, WhenFull::Refuse)]);
        assert_eq!(forbidden, [("jail".to_owned(), prefixes(&["192.0.2.1"])[0])]);
        assert_eq!(sets.len("jail"), 1);
    }

    #[test]
    fn never_lists_are_searched_at_both_ends_of_the_address_space() {
        let mut never = AddressRanges::default();
        for (address, length) in
            [("0.0.0.0", 8), ("192.0.2.7", 32), ("255.255.255.255", 32), ("::", 128), ("ff00::", 8)]
        {
            never.push_prefix(address.parse().unwrap(), length);
        }
        never.normalise();
        let hit = |text: &str| overlaps(&never, text.parse().unwrap());
        for text in
            ["0.0.0.0/0", "0.255.255.255", "192.0.2.0/24", "192.0.2.7", "255.255.255.254/31", "::/0", "::", "ffff::1"]
        {
            assert!(hit(text), "{text}");
        }
        for text in ["1.0.0.0/8", "192.0.2.6", "192.0.2.8/29", "255.255.255.254", "::1", "fe00::/8"] {
            assert!(!hit(text), "{text}");
        }
    }

    #[test]
    fn of_an_element_with_two_timeouts_the_last_one_counts() {
        let groups =
            vec![(1, prefixes(&["10.0.0.1", "10.0.0.2"])), (2, prefixes(&["10.0.0.1"])), (3, prefixes(&["10.0.0.3"]))];
        let left = allowed(groups, &prefixes(&["10.0.0.1", "10.0.0.2"]));
        assert_eq!(left, [(1, prefixes(&["10.0.0.2"])), (2, prefixes(&["10.0.0.1"]))]);
    }

    #[test]
    fn elements_expire_in_order_and_a_new_expiry_replaces_the_old() {
        let mut sets = sets(10, WhenFull::Refuse);
        let (a, b) = (prefixes(&["10.0.0.1"]), prefixes(&["10.0.0.2"]));
        sets.insert("jail", &a, &at(5));
        sets.insert("jail", &b, &at(7));
        sets.insert("jail", &a, &at(9));
        assert_eq!(sets.first_expiry(), Some(7));
        assert_eq!(sets.expire(7), [("jail".to_owned(), b.clone())]);
        assert_eq!(sets.expire(8), []);
        assert_eq!(sets.remove("jail", &[a[0], b[0]]), a);
        assert_eq!(sets.first_expiry(), None);
    }
}
