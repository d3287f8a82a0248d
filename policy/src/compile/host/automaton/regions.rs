//! States between which walks go back and forth (strongly connected components: Tarjan 1972).

use super::dfa::{DEAD, Dfa};

const NONE: u32 = u32::MAX;

/// The regions of the states that a walk can come to, [`DEAD`] left out.
pub(super) struct Regions {
    /// By state.
    numbers: Vec<u32>,
    /// All states, region by region: none leads to a region behind its own.
    states: Vec<u32>,
    /// Where each region ends.
    ends: Vec<usize>,
}

impl Regions {
    pub(super) fn new(dfa: &Dfa) -> Self {
        let count = dfa.states.len();
        let mut regions = Self { numbers: vec![NONE; count], states: Vec::with_capacity(count), ends: Vec::new() };
        // When each state was met, and the earliest that it leads back to.
        let (mut met, mut back) = (vec![NONE; count], vec![NONE; count]);
        let (mut clock, mut open, mut path) = (0, Vec::new(), Vec::new());
        for start in dfa.starts {
            let mut entered = Some(start);
            loop {
                if let Some(state) = entered.take().filter(|state| *state != DEAD && met[*state as usize] == NONE) {
                    (met[state as usize], back[state as usize]) = (clock, clock);
                    clock += 1;
                    open.push(state);
                    path.push((state, 0));
                }
                let Some((state, index)) = path.last_mut() else { break };
                let at = *state as usize;
                if let Some(target) = dfa.target(*state, *index) {
                    *index += 1;
                    if target != DEAD && regions.numbers[target as usize] == NONE {
                        back[at] = back[at].min(met[target as usize]);
                        entered = Some(target);
                    }
                    continue;
                }
                path.pop();
                if let Some((parent, _)) = path.last() {
                    back[*parent as usize] = back[*parent as usize].min(back[at]);
                }
                if back[at] == met[at] {
                    regions.close(&mut open, at as u32);
                }
            }
        }
        regions
    }

    fn close(&mut self, open: &mut Vec<u32>, first: u32) {
        while let Some(state) = open.pop() {
            self.numbers[state as usize] = self.ends.len() as u32;
            self.states.push(state);
            if state == first {
                break;
            }
        }
        self.ends.push(self.states.len());
    }

    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The region of a state that a walk can come to.
    pub(super) fn of(&self, state: u32) -> usize {
        self.numbers[state as usize] as usize
    }

    /// All regions with their states, each before those that it leads to.
    pub(super) fn forward(&self) -> impl Iterator<Item = (usize, &[u32])> {
        (0..self.count()).rev().map(|region| {
            let begin = region.checked_sub(1).map_or(0, |before| self.ends[before]);
            (region, &self.states[begin..self.ends[region]])
        })
    }
}
