//! Sets of condition numbers, each stored once.

use std::{collections::HashMap, rc::Rc};

/// The sets; number 0 is the empty one.
pub(in crate::compile::host) struct Sets {
    numbers: HashMap<Rc<[u32]>, u32>,
    all: Vec<Rc<[u32]>>,
}

impl Sets {
    pub(super) fn new() -> Self {
        let mut sets = Self { numbers: HashMap::new(), all: Vec::new() };
        sets.intern(Vec::new());
        sets
    }

    /// The number of a set given in any order, with repetitions.
    pub(super) fn intern(&mut self, mut set: Vec<u32>) -> u32 {
        set.sort_unstable();
        set.dedup();
        if let Some(number) = self.numbers.get(set.as_slice()) {
            return *number;
        }
        let number = self.all.len() as u32;
        let set: Rc<[u32]> = set.into();
        self.all.push(Rc::clone(&set));
        self.numbers.insert(set, number);
        number
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
