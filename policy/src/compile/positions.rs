//! Rules to positions: a rule that ORs static addresses and dynamic sets takes one position for each alternative, so
//! that every position is a conjunction of one condition a field.

use std::{collections::BTreeSet, sync::Arc};

use super::CompileError;
use crate::{
    model::{AddressList, AddressMatch, Chain, SetId},
    ranges::{AddressRanges, complement, intersection, normalise},
};
use ringfence_abi::chain::MAX_POSITIONS;

/// One bit of the rows.
#[derive(Clone, Debug)]
pub(super) struct Position {
    /// Index into [`Chain::rules`].
    pub(super) rule: usize,
    pub(super) src: Address,
    pub(super) dst: Address,
}

/// What a position requires of an address.
#[derive(Clone, Debug, Default)]
pub(super) struct Address {
    /// `None`: any.
    pub(super) fixed: Option<Fixed>,
    /// In all of these sets.
    pub(super) members: BTreeSet<SetId>,
    /// In none of these.
    pub(super) strangers: BTreeSet<SetId>,
}

impl Address {
    /// Whether a dynamic set among `sets` is read.
    pub(super) fn reads(&self, sets: &[SetId]) -> bool {
        sets.iter().any(|set| self.members.contains(set) || self.strangers.contains(set))
    }

    /// Whether the memberships in `sets` are as required; bit `i` of `mask` says that it is in `sets[i]`.
    pub(super) fn accepts(&self, sets: &[SetId], mask: u32) -> bool {
        sets.iter().enumerate().all(|(i, set)| {
            if mask >> i & 1 == 1 { !self.strangers.contains(set) } else { !self.members.contains(set) }
        })
    }
}

/// Static addresses; shared between rules that name one set.
pub(super) type Fixed = Arc<AddressRanges>;

/// The positions of a chain, in rule order.
pub(super) fn expand(chain: &Chain, name: &'static str) -> Result<Vec<Position>, CompileError> {
    let mut positions = Vec::with_capacity(chain.rules.len());
    for (rule, content) in chain.rules.iter().enumerate() {
        let sources = alternatives(&content.matches.from);
        let destinations = alternatives(&content.matches.to);
        for src in &sources {
            for dst in &destinations {
                positions.push(Position { rule, src: src.clone(), dst: dst.clone() });
            }
        }
    }
    if positions.len() > MAX_POSITIONS {
        return Err(CompileError::TooManyPositions { chain: name, positions: positions.len(), limit: MAX_POSITIONS });
    }
    Ok(positions)
}

/// The ways in which all of the conditions can hold, each one a conjunction.
pub(super) fn alternatives(conditions: &[AddressMatch]) -> Vec<Address> {
    let mut ways = vec![Address::default()];
    for condition in conditions {
        let excluded = (!condition.none_of.fixed.is_empty()).then(|| outside(&union(&condition.none_of)));
        let mut base = ways;
        for way in &mut base {
            restrict(way, excluded.as_ref());
            way.strangers.extend(&condition.none_of.dynamic);
        }
        let Some(list) = &condition.any_of else {
            ways = base;
            continue;
        };
        ways = Vec::new();
        let fixed = (!list.fixed.is_empty()).then(|| union(list));
        for way in base {
            if fixed.is_some() {
                let mut way = way.clone();
                restrict(&mut way, fixed.as_ref());
                ways.push(way);
            }
            for set in &list.dynamic {
                let mut way = way.clone();
                way.members.insert(*set);
                ways.push(way);
            }
        }
    }
    ways
}

fn restrict(way: &mut Address, to: Option<&Fixed>) {
    let Some(to) = to else { return };
    way.fixed = Some(match &way.fixed {
        None => Arc::clone(to),
        Some(had) => Arc::new(AddressRanges { v4: intersection(&had.v4, &to.v4), v6: intersection(&had.v6, &to.v6) }),
    });
}

/// All static addresses of a list. A list of one set is that set, not a copy of its million prefixes.
fn union(list: &AddressList) -> Fixed {
    if let [only] = list.fixed.as_slice() {
        return Arc::clone(only);
    }
    let mut all = AddressRanges::default();
    for ranges in &list.fixed {
        all.v4.extend_from_slice(&ranges.v4);
        all.v6.extend_from_slice(&ranges.v6);
    }
    normalise(&mut all.v4);
    normalise(&mut all.v6);
    Arc::new(all)
}

fn outside(ranges: &AddressRanges) -> Fixed {
    Arc::new(AddressRanges { v4: complement(&ranges.v4, 0, u32::MAX), v6: complement(&ranges.v6, 0, u128::MAX) })
}
