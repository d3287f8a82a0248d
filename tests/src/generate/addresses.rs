//! Conditions on addresses.

use std::net::IpAddr;
use std::sync::Arc;

use ringfence_policy::model::{AddressList, AddressMatch, SetId};
use ringfence_policy::ranges::AddressRanges;

use super::{Pool, Rng, World, once_in, pick};

/// Lists that several rules of a policy share, as they do when they name the same set.
pub(super) struct Lists {
    pub shared: Vec<Arc<AddressRanges>>,
    pub dynamic: u16,
    /// Prefixes are long, so that a rule matches little.
    pub specific: bool,
}

impl Lists {
    pub fn new(rng: &mut Rng, pool: &Pool, dynamic: u16, specific: bool) -> Self {
        let shared = (0..4).map(|_| ranges(rng, pool, 12, specific)).collect();
        Self { shared, dynamic, specific }
    }

    /// The conditions of one field: usually one, two where a group's `when` adds its own.
    pub fn conditions(&self, rng: &mut Rng, pool: &Pool) -> Vec<AddressMatch> {
        let count = 1 + usize::from(once_in(rng, 8));
        (0..count).map(|_| self.condition(rng, pool)).collect()
    }

    fn condition(&self, rng: &mut Rng, pool: &Pool) -> AddressMatch {
        let only_not = once_in(rng, if self.specific { 40 } else { 5 });
        let any_of = (!only_not).then(|| self.list(rng, pool, self.specific));
        let with_not = only_not || once_in(rng, 6);
        let none_of = if with_not { self.list(rng, pool, true) } else { AddressList::default() };
        AddressMatch { any_of, none_of }
    }

    /// A list that is not empty.
    fn list(&self, rng: &mut Rng, pool: &Pool, specific: bool) -> AddressList {
        let mut list = AddressList::default();
        if self.dynamic > 0 && once_in(rng, 4) {
            list.dynamic = (0..rng.usize(1..3)).map(|_| SetId(rng.u16(..self.dynamic))).collect();
        }
        if once_in(rng, 4) {
            list.fixed.push(Arc::clone(&self.shared[rng.usize(..self.shared.len())]));
        }
        if (list.dynamic.is_empty() && list.fixed.is_empty()) || once_in(rng, 3) {
            list.fixed.push(ranges(rng, pool, 3, specific));
        }
        list
    }
}

/// The condition that names one address.
pub(super) fn exactly(rng: &mut Rng, pool: &Pool) -> AddressMatch {
    let mut ranges = AddressRanges::default();
    if rng.bool() {
        ranges.push_prefix(IpAddr::V4(pick(rng, &pool.v4)), 32);
    } else {
        ranges.push_prefix(IpAddr::V6(pick(rng, &pool.v6)), 128);
    }
    let any_of = AddressList { fixed: vec![Arc::new(ranges)], dynamic: Vec::new() };
    AddressMatch { any_of: Some(any_of), none_of: AddressList::default() }
}

fn ranges(rng: &mut Rng, pool: &Pool, most: usize, specific: bool) -> Arc<AddressRanges> {
    let mut ranges = AddressRanges::default();
    for _ in 0..rng.usize(1..=most) {
        let (address, length) = pool.prefix(rng, specific);
        ranges.push_prefix(address, length);
    }
    if once_in(rng, if specific { 30 } else { 6 }) {
        // `a-b`, which no prefix need fit.
        let (a, b) = (pick(rng, &pool.v4).to_bits(), pick(rng, &pool.v4).to_bits());
        ranges.v4.push((a.min(b), a.max(b)));
        let (a, b) = (pick(rng, &pool.v6).to_bits(), pick(rng, &pool.v6).to_bits());
        ranges.v6.push((a.min(b), a.max(b)));
    }
    ranges.normalise();
    Arc::new(ranges)
}

/// An address that some member of a condition's list accepts, if it has one in the family.
pub(super) fn inside(rng: &mut Rng, condition: &AddressMatch, world: &World, v4: bool) -> Option<IpAddr> {
    let list = condition.any_of.as_ref()?;
    let mut found = Vec::new();
    for fixed in &list.fixed {
        if v4 && !fixed.v4.is_empty() {
            let (low, high) = pick(rng, &fixed.v4);
            let between = rng.u32(low..=high);
            found.push(IpAddr::V4(pick(rng, &[low, high, between]).into()));
        } else if !v4 && !fixed.v6.is_empty() {
            let (low, high) = pick(rng, &fixed.v6);
            let between = rng.u128(low..=high);
            found.push(IpAddr::V6(pick(rng, &[low, high, between]).into()));
        }
    }
    let members =
        world.members.iter().filter(|(set, address, _)| list.dynamic.contains(set) && address.is_ipv4() == v4);
    found.extend(members.map(|&(_, address, _)| address));
    (!found.is_empty()).then(|| pick(rng, &found))
}
