//! What can come together: states, and the trees gathered on the way there.
//!
//! States between which walks go back and forth are looked at as one: below a tree, a pattern for every place alone has as
//! many states as it has bytes, and each of them can be reached with the trees of all the others.

use std::collections::{HashMap, HashSet};

use super::{
    dfa::{DEAD, Dfa, Info},
    regions::Regions,
    sets::Sets,
};

/// Pairs of gathered trees and what can come then that are looked at.
const MAX_LOOKS: usize = 4_000_000;
/// Entries of one table.
const MAX_PAIRS: usize = 150_000;

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
        let regions = Regions::new(dfa);
        // The trees with which a walk can come into each region.
        let mut coming: Vec<Vec<u32>> = vec![Vec::new(); regions.count()];
        // A walk arrives at its start before it reads anything.
        for start in dfa.starts.into_iter().filter(|start| *start != DEAD) {
            let trees = explorer.arrive(dfa.states[start as usize].info.tree, 0)?;
            coming[regions.of(start)].push(trees);
        }
        let mut looked_at = 0;
        for (region, states) in regions.forward() {
            let mut trees = std::mem::take(&mut coming[region]);
            trees.sort_unstable();
            trees.dedup();
            let (infos, ways) = survey(dfa, &regions, states);
            let mut known: HashSet<u32> = trees.iter().copied().collect();
            let mut next = 0;
            while let Some(&gathered) = trees.get(next) {
                next += 1;
                looked_at += infos.len() + ways.len();
                if looked_at > MAX_LOOKS {
                    return Err(TooMany);
                }
                for info in &infos {
                    let arrived = explorer.arrive(info.tree, gathered)?;
                    explorer.end(info, arrived)?;
                }
                for (target, tree) in &ways {
                    let gathered = explorer.arrive(*tree, gathered)?;
                    if *target != region {
                        coming[*target].push(gathered);
                    } else if known.insert(gathered) {
                        trees.push(gathered);
                    }
                }
            }
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

/// What ends of components mean in a region, and where ways out of its states lead: to which region, and arriving at
/// which trees before.
fn survey(dfa: &Dfa, regions: &Regions, states: &[u32]) -> (Vec<Info>, Vec<(usize, u32)>) {
    let (mut infos, mut ways) = (Vec::new(), Vec::new());
    for &state in states {
        let content = &dfa.states[state as usize];
        infos.push(content.info);
        let way = |target: u32, tree| (target != DEAD).then(|| (regions.of(target), tree));
        ways.extend(way(content.slash, content.info.tree));
        ways.extend(way(content.other, 0));
        ways.extend(dfa.edges(content).iter().filter_map(|(_, target)| way(*target, 0)));
    }
    infos.sort_unstable();
    infos.dedup();
    ways.sort_unstable();
    ways.dedup();
    (infos, ways)
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
        if self.sets.too_large() {
            return Err(TooMany);
        }
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

    fn end(&mut self, info: &Info, arrived: u32) -> Result<(), TooMany> {
        let trees = self.trees[arrived as usize];
        let matched = self.sets.union(trees, info.exact);
        if self.sets.too_large() {
            return Err(TooMany);
        }
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
