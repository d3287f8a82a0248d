//! Fields whose values are paths: which lists of patterns rules ask for, and the classes of what paths satisfy.

use std::collections::{HashMap, HashSet};

use super::super::{field::Conditions, field::Field, field::Lookup, rows::Rows};
use super::automaton::{Meaning, Sets};
use crate::model::{HostRule, PathGlob, PathMatch};

/// The distinct lists of patterns of one automaton: its conditions, by number.
#[derive(Default)]
pub(super) struct Lists {
    numbers: HashMap<Vec<PathGlob>, u32>,
    all: Vec<Vec<PathGlob>>,
    excluded: HashSet<u32>,
}

impl Lists {
    /// The number of a list.
    pub(super) fn number(&mut self, list: &[PathGlob]) -> u32 {
        let mut list = list.to_vec();
        list.sort_unstable();
        list.dedup();
        let next = self.all.len() as u32;
        let number = *self.numbers.entry(list.clone()).or_insert(next);
        if number == next {
            self.all.push(list);
        }
        number
    }

    /// The number of a list that a rule leaves out.
    fn exclude(&mut self, list: &[PathGlob]) -> u32 {
        let number = self.number(list);
        self.excluded.insert(number);
        number
    }

    pub(super) fn all(&self) -> &[Vec<PathGlob>] {
        &self.all
    }

    /// The lists that some rule leaves out.
    pub(super) fn excluded(&self) -> &HashSet<u32> {
        &self.excluded
    }
}

/// One condition of a rule on a path: some of a list, none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    any_of: Option<u32>,
    none_of: Option<u32>,
}

/// All conditions of a rule on a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Predicate {
    parts: Vec<Part>,
    refuses: bool,
}

/// What is asked about a path.
#[derive(Clone, Copy)]
pub(super) enum View {
    /// The path itself.
    Itself,
    /// The executable of a process that runs foreign code: nothing is permitted by it, no exclusion protects it.
    Tainted,
}

/// A field while its classes are found.
pub(super) struct PathField {
    number: usize,
    conditions: Conditions<Predicate>,
    predicates: Vec<Predicate>,
    /// Predicates by the first list that must match.
    by_list: HashMap<u32, Vec<u32>>,
    /// Predicates that need no list to match.
    free: Vec<u32>,
    /// The predicates that hold in each class.
    classes: Sets,
}

impl PathField {
    /// Class of *unknown*.
    const UNKNOWN: u32 = 1;

    /// `rules`: that of each position.
    pub(super) fn new(
        number: usize,
        rules: &[&HostRule],
        side: fn(&HostRule) -> &[PathMatch],
        lists: &mut Lists,
    ) -> Option<Self> {
        let mut conditions = Conditions::new(rules.len());
        let mut predicates = Vec::new();
        for (position, rule) in rules.iter().enumerate() {
            let matches = side(rule);
            if matches.is_empty() {
                continue;
            }
            let part = |one: &PathMatch, lists: &mut Lists| Part {
                any_of: one.any_of.as_ref().map(|list| lists.number(list)),
                none_of: (!one.none_of.is_empty()).then(|| lists.exclude(&one.none_of)),
            };
            let parts = matches.iter().map(|one| part(one, lists)).collect();
            let predicate = Predicate { parts, refuses: rule.verdict.refuses() };
            if conditions.require(predicate.clone(), position).1 {
                predicates.push(predicate);
            }
        }
        if conditions.is_empty() {
            return None;
        }
        let (mut by_list, mut free) = (HashMap::<u32, Vec<u32>>::new(), Vec::new());
        for (predicate, number) in predicates.iter().zip(0..) {
            match predicate.parts.iter().find_map(|part| part.any_of) {
                Some(list) => by_list.entry(list).or_default().push(number),
                None => free.push(number),
            }
        }
        let mut classes = Sets::new();
        let refusing = predicates.iter().zip(0..).filter(|(predicate, _)| predicate.refuses);
        // Kept apart from the class of absent even where nothing refuses, so that its number is always the same.
        let unknown = classes.push(refusing.map(|(_, number)| number).collect());
        debug_assert_eq!(unknown, Self::UNKNOWN);
        Some(Self { number, conditions, predicates, by_list, free, classes })
    }

    /// The class of a path.
    pub(super) fn class(&mut self, meaning: Meaning, sets: &Sets, view: View) -> u32 {
        let (matched, trees, reach) = (sets.get(meaning.matched), sets.get(meaning.trees), sets.get(meaning.reach));
        let has = |set: &[u32], list: u32| set.binary_search(&list).is_ok();
        let holds = |number: &u32| {
            let predicate = &self.predicates[*number as usize];
            predicate.parts.iter().all(|part| {
                let (any, none) = match (view, meaning.reach, predicate.refuses) {
                    (View::Itself, 0, _) | (View::Itself, _, false) => (
                        part.any_of.is_none_or(|list| has(matched, list)),
                        part.none_of.is_none_or(|list| !has(matched, list)),
                    ),
                    // With all that lies below: a refusal of something there is one of this, unless what is excluded
                    // covers all of it.
                    (View::Itself, _, true) => (
                        part.any_of.is_none_or(|list| has(matched, list) || has(reach, list)),
                        part.none_of.is_none_or(|list| !has(trees, list)),
                    ),
                    (View::Tainted, _, refuses) => (refuses && part.any_of.is_none_or(|list| has(matched, list)), true),
                };
                any && none
            })
        };
        let listed = matched.iter().chain(reach).filter_map(|list| self.by_list.get(list)).flatten();
        let holding = self.free.iter().chain(listed).filter(|number| holds(number)).copied().collect();
        self.classes.intern(holding)
    }

    /// Class of a path that cannot be told.
    pub(super) fn unknown() -> u32 {
        Self::UNKNOWN
    }

    /// The finished field.
    pub(super) fn finish(self, mut rows: Rows) -> Field {
        for holding in self.classes.iter() {
            let positions = |number: &u32| self.conditions.positions[*number as usize].iter().copied();
            rows.push_positions(holding.iter().flat_map(positions));
        }
        Field { number: self.number, readers: self.conditions.readers, rows, lookup: Lookup::Given }
    }
}
