//! Rows: the positions that accept a class, as words (narrow) or as references to shared blocks (wide).

use std::{collections::HashMap, iter::successors};

use ringfence_abi::chain::BLOCK;

use super::arena::Arena;

const WORDS: usize = (BLOCK / 64) as usize;

/// Which of up to 64 words are not zero.
pub(super) fn summary(words: &[u64]) -> u64 {
    words.iter().enumerate().map(|(i, word)| u64::from(*word != 0) << i).sum()
}

/// Blocks already written.
#[derive(Default)]
pub(super) struct Blocks<'a>(HashMap<&'a [u64], u32>);

impl<'a> Blocks<'a> {
    /// The reference of a block: 0 when it is empty.
    fn intern(&mut self, arena: &mut Arena, content: &'a [u64]) -> u32 {
        if content[0] == 0 {
            return 0;
        }
        *self.0.entry(content).or_insert_with(|| arena.words(content.iter().copied()))
    }
}

/// The rows of one field while its classes are found. Rows are added by changing the current one and keeping it.
pub(super) struct Rows {
    current: Vec<u64>,
    narrow: bool,
    /// Narrow: one word a class.
    words: Vec<u64>,
    /// Wide: the blocks that differ from the class before, as their number and their place in `blocks`.
    changes: Vec<(u32, u32)>,
    /// Where each class's changes end.
    ends: Vec<u32>,
    /// Blocks as they are written, a summary word and then the non-zero words; first the empty one.
    blocks: Vec<u64>,
    dirty: Vec<bool>,
    /// Positions to count in each row; empty: none.
    watched: Vec<u64>,
    /// The most of them in one row.
    most_watched: u32,
}

impl Rows {
    /// For a chain of so many positions.
    pub(super) fn new(positions: usize) -> Self {
        let words = positions.div_ceil(64).max(1);
        Self {
            current: vec![0; words],
            narrow: positions <= 64,
            words: Vec::new(),
            changes: Vec::new(),
            ends: Vec::new(),
            blocks: vec![0],
            dirty: vec![false; words.div_ceil(WORDS)],
            watched: Vec::new(),
            most_watched: 0,
        }
    }

    /// Counts, in every row kept from now on, the positions in `watched` (a bitmap).
    pub(super) fn watch(&mut self, watched: &[u64]) {
        self.watched = watched.to_vec();
    }

    /// The most watched positions in one row.
    pub(super) fn most_watched(&self) -> u32 {
        self.most_watched
    }

    pub(super) fn toggle(&mut self, position: u32) {
        let word = position as usize / 64;
        self.current[word] ^= 1 << (position % 64);
        self.dirty[word / WORDS] = true;
    }

    /// Keeps the current row as the next class.
    pub(super) fn push(&mut self) -> u32 {
        let watched = self.current.iter().zip(&self.watched).map(|(row, watched)| (row & watched).count_ones()).sum();
        self.most_watched = self.most_watched.max(watched);
        if self.narrow {
            self.words.push(self.current[0]);
            return (self.words.len() - 1) as u32;
        }
        for (number, dirty) in self.dirty.iter_mut().enumerate().filter(|(_, dirty)| **dirty) {
            let words = &self.current[number * WORDS..self.current.len().min((number + 1) * WORDS)];
            self.changes.push((number as u32, self.blocks.len() as u32));
            self.blocks.push(summary(words));
            self.blocks.extend(words.iter().filter(|word| **word != 0));
            *dirty = false;
        }
        self.ends.push(self.changes.len() as u32);
        (self.ends.len() - 1) as u32
    }

    /// Makes the current row exactly these positions and keeps it.
    pub(super) fn push_positions(&mut self, positions: impl Iterator<Item = u32>) -> u32 {
        let mut wanted = vec![0; self.current.len()];
        for position in positions {
            wanted[position as usize / 64] |= 1 << (position % 64);
        }
        for (word, wanted) in wanted.into_iter().enumerate() {
            if self.current[word] != wanted {
                self.current[word] = wanted;
                self.dirty[word / WORDS] = true;
            }
        }
        self.push()
    }

    /// How many rows there are: the field's classes.
    pub(super) fn len(&self) -> usize {
        if self.narrow { self.words.len() } else { self.ends.len() }
    }

    /// Each class's changes; none of a narrow chain.
    fn changed(&self) -> impl Iterator<Item = &[(u32, u32)]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).map(|(begin, end)| &self.changes[*begin as usize..*end as usize])
    }

    fn block(&self, place: u32) -> &[u64] {
        let block = &self.blocks[place as usize..];
        &block[..=block[0].count_ones() as usize]
    }

    /// Narrow rows, without the wild positions.
    #[cfg(test)]
    pub(super) fn narrow_rows(&self) -> &[u64] {
        &self.words
    }

    /// Each class's words that are not zero, with their numbers.
    pub(super) fn sparse(&self) -> impl Iterator<Item = Vec<(usize, u64)>> {
        let narrow = self.words.iter().map(|word| vec![(0, *word)]);
        let mut row = vec![0; self.dirty.len()];
        let wide = self.changed().map(move |changed| {
            for (number, place) in changed {
                row[*number as usize] = *place;
            }
            let words = row.iter().enumerate().flat_map(|(number, place)| {
                let block = self.block(*place);
                let present = successors(Some(block[0]), |rest| Some(rest & rest.wrapping_sub(1)));
                let words = present.map(move |rest| number * WORDS + rest.trailing_zeros() as usize);
                words.zip(block[1..].iter().copied())
            });
            words.collect()
        });
        narrow.chain(wide)
    }

    /// Writes the rows; narrow ones with the field's wild positions in them.
    pub(super) fn write<'a>(&'a self, arena: &mut Arena, blocks: &mut Blocks<'a>, wild: &[u64]) -> u32 {
        if self.narrow {
            return arena.words(self.words.iter().map(|word| word | wild[0]));
        }
        let mut row = vec![0; self.dirty.len()];
        let mut references = Vec::with_capacity(self.ends.len() * row.len());
        for changed in self.changed() {
            for (number, place) in changed {
                row[*number as usize] = blocks.intern(arena, self.block(*place));
            }
            references.extend_from_slice(&row);
        }
        arena.halves(references)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_gives_its_words() {
        let mut wide = Rows::new(10_000);
        for positions in [&[][..], &[5, 4096 + 64], &[5, 66, 9000], &[]] {
            wide.push_positions(positions.iter().copied());
        }
        let expected = [vec![], vec![(0, 1 << 5), (65, 1)], vec![(0, 1 << 5), (1, 4), (140, 1 << 40)], vec![]];
        assert!(wide.sparse().eq(expected));
        let mut narrow = Rows::new(64);
        narrow.push_positions([1, 63].into_iter());
        assert!(narrow.sparse().eq([vec![(0, 1 << 63 | 2)]]));
    }

    #[test]
    fn wide_rows_hold_non_zero_words_only_and_share_equal_blocks() {
        let mut rows = Rows::new(10_000);
        assert_eq!(rows.push(), 0);
        assert_eq!(rows.push_positions([5, 4096 + 64].into_iter()), 1);
        assert_eq!(rows.push_positions([5, 9000].into_iter()), 2);
        let mut arena = Arena::new();
        let at = rows.write(&mut arena, &mut Blocks::default(), &[]) as usize;
        let bytes = arena.finish();
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let word = |at: u32| u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap());
        let row = |class: usize| [0, 1, 2].map(|block| half(at + (class * 3 + block) * 4));
        assert_eq!(row(0), [0, 0, 0]);
        let (one, two) = (row(1), row(2));
        assert_eq!(one[0], two[0], "equal blocks are stored once");
        assert_eq!((word(one[0]), word(one[0] + 8)), (1, 1 << 5));
        assert_eq!((word(one[1]), word(one[1] + 8), one[2]), (2, 1, 0));
        assert_eq!((two[1], word(two[2]), word(two[2] + 8)), (0, 1 << (808 / 64), 1 << (808 % 64)));
    }
}
