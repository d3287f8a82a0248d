//! Sets of condition numbers, each stored once.

use std::{collections::HashMap, rc::Rc};

/// Members that the sets of one automaton may have together.
const MAX_MEMBERS: usize = 4 << 20;

/// The sets; number 0 is the empty one.
pub(in crate::compile::host) struct Sets {
    numbers: HashMap<Rc<[u32]>, u32>,
    all: Vec<Rc<[u32]>>,
    members: usize,
}

impl Sets {
    pub(in crate::compile::host) fn new() -> Self {
        let mut sets = Self { numbers: HashMap::new(), all: Vec::new(), members: 0 };
        sets.intern(Vec::new());
        sets
    }

    /// The number of a set given in any order, with repetitions.
    pub(in crate::compile::host) fn intern(&mut self, mut set: Vec<u32>) -> u32 {
        set.sort_unstable();
        set.dedup();
        if let Some(number) = self.numbers.get(set.as_slice()) {
            return *number;
        }
        let number = self.push(set.into());
        self.numbers.insert(Rc::clone(&self.all[number as usize]), number);
        number
    }

    /// Adds a sorted set that no other is taken for, even if it has the same members.
    pub(in crate::compile::host) fn push(&mut self, set: Rc<[u32]>) -> u32 {
        self.members += set.len();
        self.all.push(set);
        (self.all.len() - 1) as u32
    }

    /// More members in all sets together than fit.
    pub(super) fn too_large(&self) -> bool {
        self.members > MAX_MEMBERS
    }

    /// All sets in the order of their numbers.
    pub(in crate::compile::host) fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.all.iter().map(|set| &**set)
    }

    /// What is in either.
    pub(super) fn union(&mut self, a: u32, b: u32) -> u32 {
        match (a, b) {
            (0, one) | (one, 0) => one,
            (a, b) if a == b => a,
            (a, b) => self.intern([self.get(a), self.get(b)].concat()),
        }
    }

    /// The members, sorted.
    pub(in crate::compile::host) fn get(&self, number: u32) -> &[u32] {
        &self.all[number as usize]
    }
}
