//! A path through the automaton of `abi::host`, byte by byte: in the kernel, where a walk can be kept at a directory and
//! taken up there again, and in user space.

use ringfence_abi::host::{Automaton, LEAF_UNKNOWN, PAIR_FREE, PAIR_MULTIPLIER, PAIR_PROBES, Pairs};

use crate::{Tables, ro::read};

/// Bytes of a `StateInfo`.
const INFO: u32 = 16;
/// Bytes of a `PairEntry`.
const ENTRY: u32 = 16;

/// How far a path has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// The automaton's state.
    pub state: u32,
    /// The trees gathered so far.
    pub trees: u32,
}

impl Walk {
    /// Before the first byte, arrived at the start: one of [`Automaton::host`], [`Automaton::foreign`] and
    /// [`Automaton::abstract_name`]. `None`, here and below: the tables contradict themselves.
    #[inline(always)]
    pub fn start<T: Tables>(automaton: &Automaton, tables: &T, start: u32) -> Option<Self> {
        let mut walk = Self { state: start, trees: 0 };
        walk.arrive(automaton, tables)?;
        Some(walk)
    }

    /// Reads one byte.
    #[inline(always)]
    pub fn step<T: Tables>(&mut self, automaton: &Automaton, tables: &T, byte: u8) -> Option<()> {
        let byte = u32::from(byte);
        let columns = tables.u32(read(&automaton.classes) + (byte & !3))?;
        let column = columns >> ((byte & 3) * 8) & 0xff;
        self.state = tables.u32(read(&automaton.rows) + (self.state + column) * 4)?;
        Some(())
    }

    /// Ends a component: before each `/` but one that begins the path, and at the path's end.
    #[inline(always)]
    pub fn arrive<T: Tables>(&mut self, automaton: &Automaton, tables: &T) -> Option<()> {
        let tree = tables.u32(info(automaton, tables, self.state)?)?;
        if tree != 0 {
            self.trees = find(tables, &automaton.combine, self.trees, tree)?;
        }
        Some(())
    }

    /// The leaf of a path that ends here, arrived.
    #[inline(always)]
    pub fn leaf<T: Tables>(&self, automaton: &Automaton, tables: &T) -> Option<u32> {
        // Nothing ends at the dead state: most paths are there.
        if self.state == 0 {
            return tables.u32(read(&automaton.tree_leaves) + self.trees * 4);
        }
        match tables.u32(info(automaton, tables, self.state)? + 4)? {
            0 => tables.u32(read(&automaton.tree_leaves) + self.trees * 4),
            exact => find(tables, &automaton.finish, self.trees, exact),
        }
    }

    /// What can still be reached below: 0 is nothing that matters.
    #[inline(always)]
    #[must_use]
    pub fn reach<T: Tables>(&self, automaton: &Automaton, tables: &T) -> Option<u32> {
        tables.u32(info(automaton, tables, self.state)? + 8)
    }

    /// The leaf of a directory that ends here together with all that lies below it.
    #[inline(always)]
    pub fn below<T: Tables>(&self, automaton: &Automaton, tables: &T) -> Option<u32> {
        let leaf = self.leaf(automaton, tables)?;
        match tables.u32(info(automaton, tables, self.state)? + 8)? {
            0 => Some(leaf),
            reach => find(tables, &automaton.below, leaf, reach),
        }
    }
}

/// The leaf of a whole path, [`LEAF_UNKNOWN`] where the tables contradict themselves. For user space.
#[must_use]
pub fn leaf<T: Tables>(automaton: &Automaton, tables: &T, start: u32, path: &[u8]) -> u32 {
    walk(automaton, tables, start, path).and_then(|walk| walk.leaf(automaton, tables)).unwrap_or(LEAF_UNKNOWN)
}

/// The same for a directory and all that lies below it.
#[must_use]
pub fn leaf_below<T: Tables>(automaton: &Automaton, tables: &T, start: u32, path: &[u8]) -> u32 {
    walk(automaton, tables, start, path).and_then(|walk| walk.below(automaton, tables)).unwrap_or(LEAF_UNKNOWN)
}

fn walk<T: Tables>(automaton: &Automaton, tables: &T, start: u32, path: &[u8]) -> Option<Walk> {
    let mut walk = Walk::start(automaton, tables, start)?;
    for (at, byte) in path.iter().enumerate() {
        if *byte == b'/' && at > 0 {
            walk.arrive(automaton, tables)?;
        }
        walk.step(automaton, tables, *byte)?;
    }
    walk.arrive(automaton, tables)?;
    Some(walk)
}

/// Offset of a state's `StateInfo`.
#[inline(always)]
fn info<T: Tables>(automaton: &Automaton, tables: &T, state: u32) -> Option<u32> {
    let number = tables.u32(read(&automaton.rows) + (state + read(&automaton.info)) * 4)?;
    Some(read(&automaton.infos) + number * INFO)
}

/// What a pair stands for.
#[inline(always)]
fn find<T: Tables>(tables: &T, pairs: &Pairs, a: u32, b: u32) -> Option<u32> {
    let key = u64::from(a) << 32 | u64::from(b);
    let mut place = (key.wrapping_mul(PAIR_MULTIPLIER) >> 32) as u32;
    let mut probe = 0;
    while probe < PAIR_PROBES {
        let entry = read(&pairs.offset) + (place & read(&pairs.mask)) * ENTRY;
        match tables.u64(entry)? {
            found if found == key => return tables.u32(entry + 8),
            PAIR_FREE => return None,
            _ => {}
        }
        place = place.wrapping_add(1);
        probe += 1;
    }
    None
}
