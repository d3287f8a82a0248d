//! The cell: one word that names the generation in force, shared with the programs.

use std::{
    mem::offset_of,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use ringfence_abi::generation::{self, CellWord, NO_SLOT};

use super::{
    error::{Context as _, Result},
    mapped::Words,
};

/// What the cell says before the first apply: the dispatchers drop.
pub const NOTHING: CellWord = CellWord { current: NO_SLOT, previous: NO_SLOT, audit: 0, deadline: 0 };

/// The cell in this process's memory. A store is seen whole or not at all; a map update might tear.
#[derive(Debug)]
pub struct Cell(Words);

impl Cell {
    /// Maps the cell.
    pub fn new(map: BorrowedFd<'_>) -> Result<Self> {
        let words = Words::new(map, size_of::<generation::Cell>()).context(|| "cannot map the cell".to_owned())?;
        Ok(Self(words))
    }

    /// What the programs read.
    pub fn read(&self) -> CellWord {
        CellWord::unpack(self.word().load(Ordering::SeqCst))
    }

    /// Replaces the word. There is one writer: the owner of the pins.
    pub fn write(&self, word: CellWord) {
        self.word().store(word.pack(), Ordering::SeqCst);
    }

    /// A number that no generation loaded since boot has had, and not 0.
    pub fn next_serial(&self) -> u32 {
        let last = &self.0.words()[offset_of!(generation::Cell, serial) / 8];
        loop {
            let serial = last.fetch_add(1, Ordering::SeqCst).wrapping_add(1) as u32;
            if serial != 0 {
                return serial;
            }
        }
    }

    /// What was remembered of connections does not hold any more.
    pub fn advance(&self) {
        self.0.words()[offset_of!(generation::Cell, epoch) / 8].fetch_add(1, Ordering::SeqCst);
    }

    fn word(&self) -> &AtomicU64 {
        // The first field of the value.
        &self.0.words()[0]
    }
}
