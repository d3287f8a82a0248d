//! Intervals of values to classes: two values are in one class when the same predicates hold for them.
//!
//! A *predicate* is a set of values, given as sorted disjoint intervals, with the positions that require it. The sweep
//! visits every interval's ends in order; the predicates that hold between two ends are identified by the exclusive
//! or of random numbers (Zobrist hashing, 128 bits), so a set of a million prefixes used by one rule costs two million
//! steps and yields two classes.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
};

use super::rows::Rows;
use crate::ranges::Number;

/// A set of values that some positions require.
pub(super) struct Predicate<'a, T: Clone> {
    pub(super) values: Cow<'a, [(T, T)]>,
    /// Its number within the field.
    pub(super) number: u32,
}

/// The classes of one field. Class 0 is the one in which no predicate holds.
pub(super) struct Classes<'a> {
    by_signature: HashMap<u128, u32>,
    /// The positions that require each predicate.
    positions: &'a [Vec<u32>],
    rows: &'a mut Rows,
    /// Predicates whose positions differ between the row in `rows` and the sweep's place.
    pending: BTreeSet<u32>,
}

impl<'a> Classes<'a> {
    /// Begins a field; `rows` has no class yet.
    pub(super) fn new(positions: &'a [Vec<u32>], rows: &'a mut Rows) -> Self {
        let mut classes = Self { by_signature: HashMap::new(), positions, rows, pending: BTreeSet::new() };
        classes.class(0);
        classes
    }

    fn class(&mut self, signature: u128) -> u32 {
        *self.by_signature.entry(signature).or_insert_with(|| {
            for predicate in std::mem::take(&mut self.pending) {
                for &position in &self.positions[predicate as usize] {
                    self.rows.toggle(position);
                }
            }
            self.rows.push()
        })
    }

    fn flip(&mut self, predicate: u32) {
        if !self.pending.remove(&predicate) {
            self.pending.insert(predicate);
        }
    }

    /// Cuts the whole domain into runs of one class: (first value, class), neighbours differ.
    pub(super) fn sweep<T: Number>(&mut self, predicates: &[Predicate<'_, T>]) -> Vec<(T, u32)> {
        let mut ends = Vec::with_capacity(predicates.iter().map(|p| p.values.len() * 2).sum());
        for predicate in predicates {
            for &(low, high) in predicate.values.iter() {
                ends.push((low, predicate.number));
                if let Some(after) = high.after() {
                    ends.push((after, predicate.number));
                }
            }
        }
        ends.sort_unstable();
        let mut signature = 0;
        let mut runs: Vec<(T, u32)> = vec![(T::MIN, 0)];
        for end in ends.chunk_by(|a, b| a.0 == b.0) {
            for &(_, predicate) in end {
                self.flip(predicate);
                signature ^= zobrist(predicate);
            }
            let class = self.class(signature);
            match runs.last_mut() {
                Some(last) if last.0 == end[0].0 => last.1 = class,
                _ => runs.push((end[0].0, class)),
            }
        }
        // What still holds behind the last value does not hold at the first value of the field's next sweep.
        for predicate in predicates.iter().filter(|p| p.values.last().is_some_and(|last| last.1 == T::MAX)) {
            self.flip(predicate.number);
        }
        runs.dedup_by(|later, earlier| later.1 == earlier.1);
        runs
    }
}

/// A number for each predicate: two rounds of `SplitMix64` (Steele, Lea and Flood 2014) with different starts.
fn zobrist(predicate: u32) -> u128 {
    let half = |seed: u64| {
        let mut z = seed.wrapping_add(u64::from(predicate).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    u128::from(half(0x5851_f42d_4c95_7f2d)) << 64 | u128::from(half(0x1405_7b7e_f767_814f))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &Rows) -> Vec<u64> {
        rows.narrow_rows().to_vec()
    }

    #[test]
    fn values_that_no_predicate_tells_apart_share_a_class() {
        let positions = [vec![0], vec![1, 3], vec![2]];
        let mut built = Rows::new(4);
        let mut classes = Classes::new(&positions, &mut built);
        let runs = classes.sweep(&[
            Predicate { values: vec![(10_u32, 20), (30, 40)].into(), number: 0 },
            Predicate { values: vec![(15_u32, 35)].into(), number: 1 },
            Predicate { values: vec![(50_u32, u32::MAX)].into(), number: 2 },
        ]);
        assert_eq!(runs, [(0, 0), (10, 1), (15, 2), (21, 3), (30, 2), (36, 1), (41, 0), (50, 4)]);
        // A second sweep of the same field (IPv6 after IPv4) starts from nothing and finds the same classes again.
        let again = classes.sweep(&[Predicate { values: vec![(5_u128, u128::MAX)].into(), number: 0 }]);
        assert_eq!(again, [(0, 0), (5, 1)]);
        assert_eq!(rows(&built), [0b0000, 0b0001, 0b1011, 0b1010, 0b0100]);
    }

    #[test]
    fn a_predicate_of_everything_has_no_class_beside_it() {
        let mut built = Rows::new(1);
        let mut classes = Classes::new(&[], &mut built);
        drop(classes.sweep::<u32>(&[]));
        let positions = [vec![0]];
        let mut built = Rows::new(1);
        let mut classes = Classes::new(&positions, &mut built);
        assert_eq!(classes.sweep(&[Predicate { values: vec![(0_u128, u128::MAX)].into(), number: 0 }]), [(0, 1)]);
        assert_eq!(rows(&built), [0, 1]);
    }
}
