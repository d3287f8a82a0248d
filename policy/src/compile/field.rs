//! One field of a chain: which positions read it, its classes and rows, and how a value finds its class.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

use ringfence_abi::chain::{
    DST, INTERFACE, MARK, SETS_ABSENT, SETS_PER_FIELD, SRC, TRIE_DST4, TRIE_DST6, TRIE_MARK, TRIE_SRC4, TRIE_SRC6,
};

use super::{
    CompileError, InterfaceClasses,
    direct::Direct,
    positions::{Address, Position},
    rows::Rows,
    sweep::{Classes, Predicate},
};
use crate::model::{Chain, InterfaceMatch, NameGlob, SetId};

/// The most wildcards in a chain's `interface:` fields: each subset of them is a class.
pub(super) const MAX_INTERFACE_GLOBS: usize = 10;

/// A field that some rule reads.
pub(super) struct Field {
    pub(super) number: usize,
    /// Bitmap of the positions that read it.
    pub(super) readers: Vec<u64>,
    pub(super) rows: Rows,
    pub(super) lookup: Lookup,
}

/// How a value finds its class.
pub(super) enum Lookup {
    /// A table of classes.
    Direct(Vec<u32>),
    /// Tries, by their index in the constants, over left-aligned values.
    Tries(Vec<(usize, Vec<(u128, u32)>)>),
    /// The class is made elsewhere.
    Given,
}

/// A chain while its fields are built.
pub(super) struct Builder<'a> {
    pub(super) chain: &'a Chain,
    pub(super) positions: &'a [Position],
    /// Positions to count in rows ([`Rows::watch`]).
    pub(super) watched: &'a [u64],
}

/// Distinct conditions, numbered in the order they are first met, with the positions that require each.
pub(super) struct Conditions<K> {
    numbers: HashMap<K, u32>,
    pub(super) positions: Vec<Vec<u32>>,
    pub(super) readers: Vec<u64>,
}

impl<K: Hash + Eq> Conditions<K> {
    pub(super) fn new(positions: usize) -> Self {
        Self { numbers: HashMap::new(), positions: Vec::new(), readers: vec![0; positions.div_ceil(64).max(1)] }
    }

    /// The number of a condition that a position requires, and whether it is new.
    pub(super) fn require(&mut self, condition: K, position: usize) -> (u32, bool) {
        let next = self.positions.len() as u32;
        let number = *self.numbers.entry(condition).or_insert(next);
        if number == next {
            self.positions.push(Vec::new());
        }
        self.positions[number as usize].push(position as u32);
        self.readers[position / 64] |= 1 << (position % 64);
        (number, number == next)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

impl Builder<'_> {
    fn rows(&self) -> Rows {
        let mut rows = Rows::new(self.positions.len());
        rows.watch(self.watched);
        rows
    }

    /// A field with a table of classes.
    pub(super) fn direct(&self, direct: &Direct) -> Option<Field> {
        let mut conditions = Conditions::new(self.positions.len());
        let mut predicates = Vec::new();
        for (position, content) in self.positions.iter().enumerate() {
            let Some(values) = (direct.accepts)(&self.chain.rules[content.rule]) else { continue };
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
        let mut table = Vec::with_capacity(direct.space as usize);
        for (run, &(start, class)) in runs.iter().enumerate() {
            let end = runs.get(run + 1).map_or(direct.space, |next| next.0.min(direct.space));
            table.extend((start..end).map(|_| class));
        }
        Some(Field { number: direct.field, readers: conditions.readers, rows, lookup: Lookup::Direct(table) })
    }

    /// The static part of an address field.
    pub(super) fn address(&self, number: usize, side: fn(&Position) -> &Address) -> Option<Field> {
        let mut conditions = Conditions::new(self.positions.len());
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (position, content) in self.positions.iter().enumerate() {
            let Some(fixed) = &side(content).fixed else { continue };
            // By address, not by content: rules that name one set share it.
            let (number, new) = conditions.require(Arc::as_ptr(fixed), position);
            if new {
                v4.push(Predicate { values: Cow::Borrowed(fixed.v4.as_slice()), number });
                v6.push(Predicate { values: Cow::Borrowed(fixed.v6.as_slice()), number });
            }
        }
        if conditions.is_empty() {
            return None;
        }
        let mut rows = self.rows();
        let mut classes = Classes::new(&conditions.positions, &mut rows);
        let (four, six) = if number == SRC { (TRIE_SRC4, TRIE_SRC6) } else { (TRIE_DST4, TRIE_DST6) };
        debug_assert!(number == SRC || number == DST);
        let v4 = left_aligned(classes.sweep(&v4));
        let v6 = classes.sweep(&v6);
        Some(Field { number, readers: conditions.readers, rows, lookup: Lookup::Tries(vec![(four, v4), (six, v6)]) })
    }

    /// The packet mark.
    pub(super) fn mark(&self) -> Option<Field> {
        let mut conditions = Conditions::new(self.positions.len());
        let mut predicates = Vec::new();
        for (position, content) in self.positions.iter().enumerate() {
            let Some(values) = &self.chain.rules[content.rule].matches.mark else { continue };
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
        let lookup = Lookup::Tries(vec![(TRIE_MARK, left_aligned(runs))]);
        Some(Field { number: MARK, readers: conditions.readers, rows, lookup })
    }

    /// Membership in eight dynamic sets.
    pub(super) fn membership(&self, number: usize, sets: &[SetId], side: fn(&Position) -> &Address) -> Field {
        debug_assert!(sets.len() <= SETS_PER_FIELD);
        let readers: Vec<u32> =
            (0..self.positions.len() as u32).filter(|&i| side(&self.positions[i as usize]).reads(sets)).collect();
        let mut rows = self.rows();
        for mask in 0..SETS_ABSENT {
            rows.push_positions(
                readers.iter().copied().filter(|&i| side(&self.positions[i as usize]).accepts(sets, mask)),
            );
        }
        rows.push_positions(std::iter::empty());
        let mut bitmap = vec![0; self.positions.len().div_ceil(64).max(1)];
        for position in readers {
            bitmap[position as usize / 64] |= 1 << (position % 64);
        }
        Field { number, readers: bitmap, rows, lookup: Lookup::Given }
    }

    /// Interface names: a class for each subset of the wildcards, then one for each literal name.
    pub(super) fn interface(&self, name: &'static str) -> Result<Option<(Field, InterfaceClasses)>, CompileError> {
        let mut conditions = Conditions::new(self.positions.len());
        let mut distinct: Vec<&[InterfaceMatch]> = Vec::new();
        for (position, content) in self.positions.iter().enumerate() {
            let condition = self.chain.rules[content.rule].matches.interface.as_slice();
            if !condition.is_empty() && conditions.require(condition, position).1 {
                distinct.push(condition);
            }
        }
        if conditions.is_empty() {
            return Ok(None);
        }
        let mut names: Vec<&NameGlob> = distinct
            .iter()
            .flat_map(|all| all.iter())
            .flat_map(|one| one.any_of.iter().flatten().chain(&one.none_of))
            .collect();
        names.sort_unstable();
        names.dedup();
        let (literals, globs): (Vec<&NameGlob>, Vec<&NameGlob>) = names.into_iter().partition(|glob| glob.is_literal());
        if globs.len() > MAX_INTERFACE_GLOBS {
            let globs = globs.len();
            return Err(CompileError::TooManyInterfaceGlobs { chain: name, globs, limit: MAX_INTERFACE_GLOBS });
        }
        let mut rows = self.rows();
        let mut push = |holds: &dyn Fn(&InterfaceMatch) -> bool| {
            let accepting = distinct.iter().enumerate().filter(|(_, all)| all.iter().all(holds));
            rows.push_positions(accepting.flat_map(|(number, _)| conditions.positions[number].iter().copied()))
        };
        for mask in 0..1_usize << globs.len() {
            let hit = |glob: &NameGlob| globs.iter().position(|g| *g == glob).is_some_and(|i| mask >> i & 1 == 1);
            push(&|one| one.any_of.as_ref().is_none_or(|any| any.iter().any(hit)) && !one.none_of.iter().any(hit));
        }
        let mut classes =
            InterfaceClasses { literal: BTreeMap::new(), globs: globs.iter().map(|glob| (*glob).clone()).collect() };
        for literal in literals {
            let class = push(&|one| one.matches(&literal.0));
            classes.literal.insert(literal.0.clone(), class);
        }
        let field = Field { number: INTERFACE, readers: conditions.readers, rows, lookup: Lookup::Given };
        Ok(Some((field, classes)))
    }
}

pub(super) fn left_aligned(runs: Vec<(u32, u32)>) -> Vec<(u128, u32)> {
    runs.into_iter().map(|(start, class)| (u128::from(start) << 96, class)).collect()
}
