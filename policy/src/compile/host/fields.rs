//! The fields that are not paths.

use std::borrow::Cow;
use std::sync::Arc;

use ringfence_abi::{
    chain::{PORT_SPACE, PORT_UNKNOWN},
    host::{
        FLAGS_ANONYMOUS, FLAGS_OWNER, FLAGS_SPACE, OP_SPACE, SMALL_SPACE, SMALL_UNKNOWN, TRI_NO, TRI_UNKNOWN, TRI_YES,
        TRIE_ADDR4, TRIE_ADDR6, TRIE_AUID, TRIE_FSTYPE, TRIE_UID, field,
    },
};

use super::super::{
    field::{Conditions, Field, Lookup, left_aligned},
    positions::alternatives,
    rows::Rows,
    sweep::{Classes, Predicate},
};
use super::positions::Position;
use crate::{
    model::{HostMatch, HostRule, NameMatch},
    ranges::{Ranges, complement, intersection, normalise},
};

type Indices = Vec<(u32, u32)>;

/// A chain while its fields are built.
pub(super) struct Builder<'a> {
    pub(super) rules: &'a [HostRule],
    pub(super) positions: &'a [Position],
    pub(super) watched: &'a [u64],
}

impl Builder<'_> {
    pub(super) fn rows(&self) -> Rows {
        let mut rows = Rows::new(self.positions.len());
        rows.watch(self.watched);
        rows
    }

    fn rule(&self, position: &Position) -> &HostRule {
        &self.rules[position.rule]
    }

    /// All fields with a table of classes.
    pub(super) fn all_direct(&self) -> Vec<Field> {
        let small = |number, side: fn(&HostMatch) -> Option<&Ranges>| {
            self.direct(number, SMALL_SPACE, |position| {
                unknown_too(side(&self.rule(position).matches), self.rule(position), SMALL_UNKNOWN)
            })
        };
        let own = |number, side: fn(&Position) -> Option<&Ranges>| {
            self.direct(number, SMALL_SPACE, |position| unknown_too(side(position), self.rule(position), SMALL_UNKNOWN))
        };
        [
            self.direct(field::OP, OP_SPACE, |position| Some(bits(self.rule(position).matches.ops))),
            self.direct(field::FLAGS, FLAGS_SPACE, |position| flags(self.rule(position))),
            self.direct(field::PORT, PORT_SPACE, |position| {
                unknown_too(self.rule(position).matches.port.as_ref(), self.rule(position), PORT_UNKNOWN)
            }),
            small(field::PROTO, |matches| matches.proto.as_ref()),
            own(field::FAMILY, |position| position.family.as_ref()),
            own(field::TYPE, |position| position.kind.as_ref()),
            small(field::CAPABILITY, |matches| matches.capability.as_ref()),
            small(field::SIGNAL, |matches| matches.signal.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn direct(&self, number: usize, space: u32, accepts: impl Fn(&Position) -> Option<Indices>) -> Option<Field> {
        let mut conditions = Conditions::new(self.positions.len());
        let mut predicates = Vec::new();
        for (position, content) in self.positions.iter().enumerate() {
            let Some(values) = accepts(content) else { continue };
            let (number, new) = conditions.require(values.clone(), position);
            if new {
                predicates.push(Predicate { values: Cow::Owned(values), number });
            }
        }
        if conditions.is_empty() {
            return None;
        }
        let mut rows = self.rows();
        let runs = Classes::new(&conditions.positions, &mut rows).sweep(&predicates);
        let class = |index: u32| runs[runs.partition_point(|run| run.0 <= index) - 1].1;
        let lookup = Lookup::Direct((0..space).map(class).collect());
        Some(Field { number, readers: conditions.readers, rows, lookup })
    }

    /// User ids and login user ids.
    pub(super) fn ids(&self) -> Vec<Field> {
        let one = |number, trie, side: fn(&HostMatch) -> Option<&Ranges>| {
            let mut conditions = Conditions::new(self.positions.len());
            let mut predicates = Vec::new();
            for (position, content) in self.positions.iter().enumerate() {
                let Some(values) = side(&self.rule(content).matches) else { continue };
                let (number, new) = conditions.require(values, position);
                if new {
                    predicates.push(Predicate { values: Cow::Borrowed(values.as_slice()), number });
                }
            }
            if conditions.is_empty() {
                return None;
            }
            let mut rows = self.rows();
            let runs = Classes::new(&conditions.positions, &mut rows).sweep(&predicates);
            let lookup = Lookup::Tries(vec![(trie, left_aligned(runs))]);
            Some(Field { number, readers: conditions.readers, rows, lookup })
        };
        [
            one(field::UID, TRIE_UID, |matches| matches.uid.as_ref()),
            one(field::AUID, TRIE_AUID, |matches| matches.auid.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Addresses of socket calls, and the class of one that cannot be read.
    pub(super) fn address(&self) -> Option<(Field, u32)> {
        let mut conditions = Conditions::new(self.positions.len());
        let mut known = Vec::new();
        for (position, content) in self.positions.iter().enumerate() {
            let rule = self.rule(content);
            if rule.matches.to.is_empty() {
                continue;
            }
            // Without dynamic sets there is one way at most in which all hold; none where a list is empty.
            let fixed =
                alternatives(&rule.matches.to).pop().map(|way| way.fixed.unwrap_or_else(|| Arc::new(everything())));
            let fixed = fixed.unwrap_or_default();
            if conditions.require(Arc::as_ptr(&fixed), position).1 {
                known.push(fixed);
            }
        }
        if conditions.is_empty() {
            return None;
        }
        let mut rows = self.rows();
        let mut classes = Classes::new(&conditions.positions, &mut rows);
        let v4: Vec<_> = known
            .iter()
            .zip(0..)
            .map(|(set, number)| Predicate { values: Cow::Borrowed(set.v4.as_slice()), number })
            .collect();
        let v4 = left_aligned(classes.sweep(&v4));
        let v6: Vec<_> = known
            .iter()
            .zip(0..)
            .map(|(set, number)| Predicate { values: Cow::Borrowed(set.v6.as_slice()), number })
            .collect();
        let v6 = classes.sweep(&v6);
        let unknown = self.refusing(&mut rows, |rule| !rule.matches.to.is_empty());
        let lookup = Lookup::Tries(vec![(TRIE_ADDR4, v4), (TRIE_ADDR6, v6)]);
        Some((Field { number: field::ADDR, readers: conditions.readers, rows, lookup }, unknown))
    }

    /// File system types, and the class of one that cannot be told.
    pub(super) fn fstype(&self) -> Option<(Field, u32)> {
        let mut conditions = Conditions::new(self.positions.len());
        let mut predicates = Vec::new();
        for (position, content) in self.positions.iter().enumerate() {
            let matches = &self.rule(content).matches.fstype;
            if matches.is_empty() {
                continue;
            }
            let mut values = vec![(0, u128::MAX)];
            for one in matches {
                values = intersection(&values, &names(one));
            }
            let (number, new) = conditions.require(values.clone(), position);
            if new {
                predicates.push(Predicate { values: Cow::Owned(values), number });
            }
        }
        if conditions.is_empty() {
            return None;
        }
        let mut rows = self.rows();
        let runs = Classes::new(&conditions.positions, &mut rows).sweep(&predicates);
        let unknown = self.refusing(&mut rows, |rule| !rule.matches.fstype.is_empty());
        let lookup = Lookup::Tries(vec![(TRIE_FSTYPE, runs)]);
        Some((Field { number: field::FSTYPE, readers: conditions.readers, rows, lookup }, unknown))
    }

    /// A field whose class is a mask of conditions: `accepts` says whether a rule (its number) accepts the mask.
    pub(super) fn mask(
        &self,
        number: usize,
        reads: impl Fn(&HostRule) -> bool,
        accepts: impl Fn(usize, u32) -> bool,
    ) -> Field {
        let mut readers = vec![0; self.positions.len().div_ceil(64).max(1)];
        let reading: Vec<u32> =
            (0..self.positions.len() as u32).filter(|i| reads(self.rule(&self.positions[*i as usize]))).collect();
        for position in &reading {
            readers[*position as usize / 64] |= 1 << (position % 64);
        }
        let mut rows = self.rows();
        for mask in 0..ringfence_abi::host::MASK_UNKNOWN {
            let accepting = |i: &u32| accepts(self.positions[*i as usize].rule, mask);
            rows.push_positions(reading.iter().copied().filter(accepting));
        }
        self.refusing(&mut rows, reads);
        Field { number, readers, rows, lookup: Lookup::Given }
    }

    /// Adds the class of *unknown*: the refusing rules that read the field.
    fn refusing(&self, rows: &mut Rows, reads: impl Fn(&HostRule) -> bool) -> u32 {
        let refuses = |position: &Position| {
            let rule = self.rule(position);
            reads(rule) && rule.verdict.refuses()
        };
        rows.push_positions((0..self.positions.len() as u32).filter(|i| refuses(&self.positions[*i as usize])))
    }
}

fn everything() -> crate::ranges::AddressRanges {
    crate::ranges::AddressRanges { v4: vec![(0, u32::MAX)], v6: vec![(0, u128::MAX)] }
}

fn unknown_too(values: Option<&Ranges>, rule: &HostRule, unknown: u32) -> Option<Indices> {
    let mut indices = values?.as_slice().to_vec();
    if rule.verdict.refuses() {
        indices.push((unknown, unknown));
    }
    Some(indices)
}

fn bits(ops: u32) -> Indices {
    let mut indices: Indices = (0..32).filter(|op| ops >> op & 1 == 1).map(|op| (op, op)).collect();
    normalise(&mut indices);
    indices
}

fn flags(rule: &HostRule) -> Option<Indices> {
    let matches = &rule.matches;
    if matches.owner.is_none() && matches.anonymous.is_none() && matches.container.is_none() {
        return None;
    }
    let accepts = |wanted: Option<bool>, tri: u32| match (wanted, tri) {
        (None, _) => true,
        (Some(wanted), TRI_NO) => !wanted,
        (Some(wanted), TRI_YES) => wanted,
        (Some(_), TRI_UNKNOWN) => rule.verdict.refuses(),
        (Some(_), _) => false,
    };
    let mut indices: Indices = (0..FLAGS_SPACE)
        .filter(|index| {
            accepts(matches.owner, index / FLAGS_OWNER)
                && accepts(matches.anonymous, (index / FLAGS_ANONYMOUS) & 3)
                && accepts(matches.container, index & 3)
        })
        .map(|index| (index, index))
        .collect();
    normalise(&mut indices);
    Some(indices)
}

/// A file system type as a number: its name, zero-padded to 16 bytes.
pub(crate) fn fstype_number(name: &str) -> u128 {
    let mut bytes = [0; 16];
    let length = name.len().min(16);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    u128::from_be_bytes(bytes)
}

fn names(one: &NameMatch) -> Vec<(u128, u128)> {
    let points = |names: &[String]| {
        let mut points: Vec<(u128, u128)> = names.iter().map(|name| fstype_number(name)).map(|n| (n, n)).collect();
        normalise(&mut points);
        points
    };
    let outside = complement(&points(&one.none_of), 0, u128::MAX);
    one.any_of.as_ref().map_or(outside.clone(), |any_of| intersection(&points(any_of), &outside))
}
