//! Path patterns to one forward automaton in the arena (`abi::host::Automaton`).
//!
//! `nfa` makes a trie of the patterns, `dfa` makes it deterministic, `product` finds what trees can be gathered on the
//! way to each state, and this file writes it down.

mod dfa;
mod nfa;
mod product;
mod regions;
mod sets;

use std::collections::{HashMap, HashSet};

use ringfence_abi::host::{self, LEAF_UNKNOWN, PAIR_FREE, PAIR_MULTIPLIER, PAIR_PROBES, Pairs};

use self::{
    dfa::{Dfa, Info},
    nfa::Nfa,
    product::{Product, TooMany},
};
pub(in crate::compile::host) use self::{product::Meaning, sets::Sets};
use super::super::arena::Arena;
use crate::{glob::GlobError, model::PathGlob};

/// The first leaf that is a path's.
pub(super) const FIRST_LEAF: u32 = LEAF_UNKNOWN + 1;

/// The patterns blow up: conditions and the globs in them, the most to blame first.
#[derive(Debug)]
pub(super) struct TooLarge {
    pub(super) worst: Vec<(u32, u32)>,
}

/// An automaton whose leaves have no classes yet.
pub(super) struct Automaton {
    dfa: Dfa,
    product: Product,
    sets: Sets,
}

impl Meaning {
    /// Without what lies below.
    pub(super) fn itself(self) -> Self {
        Self { reach: 0, ..self }
    }
}

impl Automaton {
    /// `lists`: the patterns any of which makes each condition hold. `below`: the automaton is asked about directories
    /// with all that lies below them, and these conditions are left out by rules. A pattern that is none is put into
    /// `bad`.
    pub(super) fn new(
        lists: &[Vec<PathGlob>],
        below: Option<&HashSet<u32>>,
        bad: &mut Option<(PathGlob, GlobError)>,
    ) -> Result<Self, TooLarge> {
        let mut sets = Sets::new();
        let nfa = Nfa::new(lists, bad);
        let dfa = Dfa::new(&nfa, &mut sets, below)?;
        drop(nfa);
        match Product::new(&dfa, &mut sets) {
            Ok(product) => Ok(Self { dfa, product, sets }),
            Err(TooMany) => Err(TooLarge { worst: wildest(lists) }),
        }
    }

    /// What each leaf from [`FIRST_LEAF`] on means.
    pub(super) fn leaves(&self) -> &[Meaning] {
        &self.product.leaves
    }

    /// The sets of conditions that meanings name.
    pub(super) fn sets(&self) -> &Sets {
        &self.sets
    }

    /// Writes it. `leaves` are those of *absent* and *unknown*, then those of [`Automaton::leaves`].
    pub(super) fn write(self, leaves: &[host::Leaf], arena: &mut Arena) -> host::Automaton {
        let Self { dfa, product, sets } = self;
        drop(sets);
        debug_assert_eq!(leaves.len(), product.leaves.len() + FIRST_LEAF as usize);
        let packed: Vec<u32> = dfa.columns.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)).collect();
        let classes = arena.halves(packed);
        // One word more a state: the number of its information.
        let stride = dfa.width + 1;
        let mut infos: Vec<Info> = vec![Info::default()];
        let mut numbers = HashMap::from([(Info::default(), 0)]);
        arena.reserve(dfa.states.len() * stride as usize * 4);
        let rows = arena.halves([]);
        let mut row = vec![0; stride as usize];
        for (number, state) in dfa.states.iter().enumerate() {
            row[..dfa.width as usize].fill(state.other * stride);
            row[usize::from(dfa.slash)] = state.slash * stride;
            for (column, target) in dfa.edges(state) {
                row[usize::from(*column)] = target * stride;
            }
            row[dfa.width as usize] = *numbers.entry(state.info).or_insert_with(|| {
                infos.push(state.info);
                (infos.len() - 1) as u32
            });
            debug_assert!(number > 0 || row.iter().all(|word| *word == 0));
            arena.more_halves(&row);
        }
        let infos = arena.words(
            infos.iter().flat_map(|info| [u64::from(info.tree) | u64::from(info.exact) << 32, u64::from(info.reach)]),
        );
        host::Automaton {
            classes,
            rows,
            info: dfa.width,
            infos,
            combine: pairs(&product.combine, arena),
            finish: pairs(&product.finish, arena),
            below: pairs(&product.below, arena),
            tree_leaves: arena.halves(product.tree_leaves),
            leaves: arena.halves(
                leaves
                    .iter()
                    .flat_map(|leaf| [leaf.path, leaf.exe, leaf.tainted, leaf.target, leaf.ancestor, leaf.flags]),
            ),
            host: dfa.starts[0] * stride,
            foreign: dfa.starts[1] * stride,
            abstract_name: dfa.starts[2] * stride,
            zero: 0,
        }
    }
}

/// All patterns, those first that can meet the most others on one path.
fn wildest(lists: &[Vec<PathGlob>]) -> Vec<(u32, u32)> {
    let wild = |glob: &PathGlob| {
        let text = glob.to_string();
        (text.matches("**/").count(), text.matches('*').count())
    };
    let globs = |(list, condition)| (0..).zip(list).map(move |(number, glob)| (wild(glob), condition, number));
    let mut all: Vec<_> = lists.iter().zip(0..).flat_map(globs).collect();
    all.sort_by_key(|(wild, ..)| std::cmp::Reverse(*wild));
    all.into_iter().map(|(_, condition, number)| (condition, number)).collect()
}

/// A hash table in which every entry is found within [`PAIR_PROBES`] looks.
fn pairs(list: &[((u32, u32), u32)], arena: &mut Arena) -> Pairs {
    let mut size = (list.len() * 2).next_power_of_two();
    loop {
        if let Some(table) = fill(list, size) {
            let offset = arena.words(table.into_iter().flat_map(|(key, value)| [key, u64::from(value)]));
            return Pairs { offset, mask: (size - 1) as u32 };
        }
        size *= 2;
    }
}

fn fill(list: &[((u32, u32), u32)], size: usize) -> Option<Vec<(u64, u32)>> {
    let mut table = vec![(PAIR_FREE, 0); size];
    for ((a, b), value) in list {
        let key = u64::from(*a) << 32 | u64::from(*b);
        let place = (key.wrapping_mul(PAIR_MULTIPLIER) >> 32) as usize;
        let free = (place..place + PAIR_PROBES as usize).find(|at| table[at & (size - 1)].0 == PAIR_FREE)?;
        table[free & (size - 1)] = (key, *value);
    }
    Some(table)
}
