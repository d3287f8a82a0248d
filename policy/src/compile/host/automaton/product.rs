//! What can come together: states, and the trees gathered on the way there.

use std::collections::{HashMap, HashSet};

use super::{
    dfa::{DEAD, Dfa},
    sets::Sets,
};

/// Pairs of a state and gathered trees that are looked at.
const MAX_VISITED: usize = 2_000_000;
/// Entries of one table.
const MAX_PAIRS: usize = 1_000_000;

/// What a path that ends somewhere satisfies: numbers of sets of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::compile::host) struct Meaning {
    /// Those that hold.
    pub(in crate::compile::host) matched: u32,
    /// Those of them that also hold for all below.
    pub(in crate::compile::host) trees: u32,
    /// Those that can still come to hold below, where that is asked.
    pub(in crate::compile::host) reach: u32,
}

/// The tables. Trees are numbered from 0, which is none; leaves from [`super::FIRST_LEAF`].
pub(super) struct Product {
    pub(super) combine: Vec<((u32, u32), u32)>,
    pub(super) finish: Vec<((u32, u32), u32)>,
    pub(super) below: Vec<((u32, u32), u32)>,
    pub(super) tree_leaves: Vec<u32>,
    pub(super) leaves: Vec<Meaning>,
}

/// More pairs than the tables may have.
pub(super) struct TooMany;

impl Product {
    pub(super) fn new(dfa: &Dfa, sets: &mut Sets) -> Result<Self, TooMany> {
        let mut explorer = Explorer {
            sets,
            trees: vec![0],
            tree_numbers: HashMap::from([(0, 0)]),
            combine: Table::default(),
            finish: Table::default(),
            below: Table::default(),
            leaves: Vec::new(),
            leaf_numbers: HashMap::new(),
        };
        let mut plain = vec![false; dfa.states.len()];
        let mut others = HashSet::new();
        // A walk arrives at its start before it reads anything.
        let mut stack = Vec::new();
        for start in dfa.starts {
            let trees = explorer.arrive(dfa.states[start as usize].info.tree, 0)?;
            stack.push((start, trees));
        }
        while let Some((state, trees)) = stack.pop() {
            let seen = if trees == 0 {
                std::mem::replace(&mut plain[state as usize], true)
            } else {
                !others.insert((state, trees))
            };
            if seen || state == DEAD {
                continue;
            }
            if others.len() > MAX_VISITED {
                return Err(TooMany);
            }
            let content = &dfa.states[state as usize];
            let arrived = explorer.arrive(content.info.tree, trees)?;
            explorer.end(&content.info, arrived)?;
            stack.push((content.slash, arrived));
            stack.push((content.other, trees));
            stack.extend(dfa.edges(content).iter().map(|(_, target)| (*target, trees)));
        }
        let mut tree_leaves = Vec::with_capacity(explorer.trees.len());
        for number in 0..explorer.trees.len() {
            let trees = explorer.trees[number];
            tree_leaves.push(explorer.leaf(Meaning { matched: trees, trees, reach: 0 }));
        }
        let Explorer { combine, finish, below, leaves, .. } = explorer;
        Ok(Self { combine: combine.list, finish: finish.list, below: below.list, tree_leaves, leaves })
    }
}

#[derive(Default)]
struct Table {
    known: HashMap<(u32, u32), u32>,
    list: Vec<((u32, u32), u32)>,
}

impl Table {
    fn add(&mut self, key: (u32, u32), value: u32) -> Result<(), TooMany> {
        if self.known.insert(key, value).is_none() {
            if self.list.len() == MAX_PAIRS {
                return Err(TooMany);
            }
            self.list.push((key, value));
        }
        Ok(())
    }
}

struct Explorer<'a> {
    sets: &'a mut Sets,
    /// The set of each number of trees.
    trees: Vec<u32>,
    tree_numbers: HashMap<u32, u32>,
    combine: Table,
    finish: Table,
    below: Table,
    leaves: Vec<Meaning>,
    leaf_numbers: HashMap<Meaning, u32>,
}

impl Explorer<'_> {
    fn arrive(&mut self, tree: u32, trees: u32) -> Result<u32, TooMany> {
        if tree == 0 {
            return Ok(trees);
        }
        if let Some(known) = self.combine.known.get(&(trees, tree)) {
            return Ok(*known);
        }
        let set = self.sets.union(self.trees[trees as usize], tree);
        let next = self.trees.len() as u32;
        let number = *self.tree_numbers.entry(set).or_insert(next);
        if number == next {
            self.trees.push(set);
        }
        self.combine.add((trees, tree), number)?;
        // Arriving twice in one place (a path's start is also the end of the empty path) changes nothing.
        self.combine.add((number, tree), number)?;
        Ok(number)
    }

    fn end(&mut self, info: &super::dfa::Info, arrived: u32) -> Result<(), TooMany> {
        let trees = self.trees[arrived as usize];
        let matched = self.sets.union(trees, info.exact);
        if info.exact == 0 && info.reach == 0 {
            return Ok(());
        }
        let leaf = self.leaf(Meaning { matched, trees, reach: 0 });
        if info.exact != 0 {
            self.finish.add((arrived, info.exact), leaf)?;
        }
        if info.reach != 0 {
            let all = self.leaf(Meaning { matched, trees, reach: info.reach });
            self.below.add((leaf, info.reach), all)?;
        }
        Ok(())
    }

    fn leaf(&mut self, meaning: Meaning) -> u32 {
        *self.leaf_numbers.entry(meaning).or_insert_with(|| {
            self.leaves.push(meaning);
            super::FIRST_LEAF + (self.leaves.len() - 1) as u32
        })
    }
}
