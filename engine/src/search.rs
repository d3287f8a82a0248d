//! Classes to rules: the iterator over matching rules, lowest position first.
//!
//! [`narrow`] serves chains of at most 64 positions with one word a field, as far as the first match. Wider chains, and
//! rules that let evaluation go on, are walked by [`Search`]: blocks, words, bits. The kernel programs call
//! [`Search::step`] from `bpf_loop`, whose callback is verified once; user space from a plain loop.

use ringfence_abi::{
    chain::{BLOCK, ChainConsts, FIELDS, MAX_CONTINUATIONS, Position},
    counter,
    verdict::{ACCEPT, COUNT, DROP, FLAG_AUDIT, PROTECT},
};

use crate::{
    Tables,
    bits::{lowest, rank},
    ro::read,
};

/// What is judged: a packet or a system call, as classes.
pub trait Classes {
    /// The class of field `FIELD`; `None` when the tables contradict themselves.
    fn class<T: Tables, const FIELD: usize>(&self, consts: &ChainConsts, tables: &T) -> Option<u32>;
}

/// Receives the rules that matched and let evaluation go on.
pub trait Sink {
    /// Counter index within the chain of a `count` rule or one in audit mode.
    fn continued(&mut self, line: u32);
    /// Whether a rule with a limit matches, as far as its limit says; `None` when the tables contradict themselves. Asked
    /// once for a rule that all its fields match.
    fn admits(&mut self, limit: u32) -> Option<bool>;
}

/// What decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Counter index within the chain.
    pub line: u32,
    /// One of [`ringfence_abi::verdict`]: accept, drop or reject.
    pub verdict: u32,
}

impl Outcome {
    /// The tables contradict themselves: drop, counted.
    pub const TABLES: Self = Self { line: counter::TABLES, verdict: DROP as u32 };
    /// Too many rules let evaluation go on: drop, counted.
    pub const CONTINUATIONS: Self = Self { line: counter::CONTINUATIONS, verdict: DROP as u32 };

    /// No rule decided.
    #[inline(always)]
    #[must_use]
    pub fn default(consts: &ChainConsts) -> Self {
        Self { line: counter::DEFAULT, verdict: read(&consts.default_verdict) }
    }
}

/// Runs a statement for each field in [`ringfence_abi::chain::ORDER`], unrolled: fields are known to the verifier, so
/// that what a policy does not read costs nothing.
macro_rules! each_field {
    ($field:ident => $body:block) => {
        each_field!(@ $field $body, 4 3 9 5 6 7 2 8 10 0 1 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26)
    };
    (@ $field:ident $body:block, $($number:literal)+) => {
        $({ const $field: usize = $number; $body })+
    };
}

/// The rule behind a position.
struct Match {
    line: u32,
    verdict: u8,
    flags: u8,
    /// Number of its limit, from 1; 0: none.
    limit: u32,
}

impl Match {
    #[inline(always)]
    fn read<T: Tables>(consts: &ChainConsts, tables: &T, position: u32) -> Option<Self> {
        let word = tables.u64(read(&consts.positions) + position * size_of::<Position>() as u32)?;
        let limit = (word >> 48) as u32;
        Some(Self { line: word as u32, verdict: (word >> 32) as u8, flags: (word >> 40) as u8, limit })
    }

    #[inline(always)]
    fn continues(&self) -> bool {
        self.verdict == COUNT || self.flags & FLAG_AUDIT != 0
    }

    #[inline(always)]
    fn outcome(&self) -> Outcome {
        Outcome { line: self.line, verdict: u32::from(self.verdict) }
    }
}

/// What a chain of at most 64 positions says at once.
#[derive(Clone, Copy, Debug)]
pub enum Narrow {
    /// It is decided.
    Done(Outcome),
    /// The first rule that matches lets evaluation go on: walk these positions ([`Search::resume`]).
    Walk(u64),
}

/// Judges in a chain of at most 64 positions, as far as its first match.
#[inline(always)]
pub fn narrow<T: Tables, C: Classes>(consts: &ChainConsts, tables: &T, judged: &C) -> Narrow {
    let Some(word) = narrow_word(consts, tables, judged) else { return Narrow::Done(Outcome::TABLES) };
    if word == 0 {
        return Narrow::Done(Outcome::default(consts));
    }
    match Match::read(consts, tables, lowest(word)) {
        None => Narrow::Done(Outcome::TABLES),
        Some(first) if first.continues() || first.limit != 0 => Narrow::Walk(word),
        Some(first) => Narrow::Done(first.outcome()),
    }
}

#[inline(always)]
fn narrow_word<T: Tables, C: Classes>(consts: &ChainConsts, tables: &T, judged: &C) -> Option<u64> {
    let active = read(&consts.active);
    let mut word = tables.u64(read(&consts.wild))?;
    each_field!(FIELD => {
        if active & (1 << FIELD) != 0 && word != 0 {
            let class = judged.class::<T, FIELD>(consts, tables)?;
            word &= tables.u64(read(&consts.rows[FIELD]) + class * 8)?;
        }
    });
    Some(word)
}

/// The state of a walk over matching positions.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Search {
    /// Offset of each active field's row.
    rows: [u32; FIELDS],
    /// Each active field's reference for the current block.
    blocks: [u32; FIELDS],
    /// Matching words of the current block not yet looked at.
    summary: u64,
    /// Matching bits of the current word not yet looked at.
    word: u64,
    /// The block after the current one.
    next_block: u32,
    /// First position of the current word.
    base: u32,
    last: u32,
    continued: u32,
}

/// What one step of a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take another step.
    More,
    /// The search is over.
    Done(Outcome),
}

impl Search {
    /// Classifies what is judged and begins before the first block.
    #[inline(always)]
    pub fn start<T: Tables, C: Classes>(&mut self, consts: &ChainConsts, tables: &T, judged: &C) -> Option<()> {
        let active = read(&consts.active);
        let row_size = read(&consts.blocks) * 4;
        each_field!(FIELD => {
            if active & (1 << FIELD) != 0 {
                let class = judged.class::<T, FIELD>(consts, tables)?;
                self.rows[FIELD] = read(&consts.rows[FIELD]) + class * row_size;
            }
        });
        self.begin(0);
        Some(())
    }

    /// Begins within the only word of a chain of at most 64 positions.
    #[inline(always)]
    pub fn resume(&mut self, word: u64) {
        self.begin(word);
    }

    #[inline(always)]
    fn begin(&mut self, word: u64) {
        self.word = word;
        self.summary = 0;
        self.next_block = 0;
        self.base = 0;
        self.last = 0;
        self.continued = 0;
    }

    /// Goes on to the next matching position, or finds out that a block or a word has none.
    #[inline(always)]
    pub fn step<T: Tables, S: Sink>(&mut self, consts: &ChainConsts, tables: &T, sink: &mut S) -> Step {
        if self.word == 0 {
            if self.summary == 0 {
                if self.next_block >= read(&consts.blocks) {
                    return Step::Done(Outcome::default(consts));
                }
                if self.enter_block(consts, tables).is_none() {
                    return Step::Done(Outcome::TABLES);
                }
            }
            if self.summary == 0 {
                return Step::More;
            }
            if self.enter_word(consts, tables).is_none() {
                return Step::Done(Outcome::TABLES);
            }
        }
        if self.word == 0 {
            return Step::More;
        }
        let position = self.base + lowest(self.word);
        self.word &= self.word - 1;
        match Match::read(consts, tables, position) {
            None => Step::Done(Outcome::TABLES),
            // Another position of the rule that was just taken.
            Some(found) if found.line == self.last => Step::More,
            Some(found) => self.take(&found, sink),
        }
    }

    /// A rule whose fields all match.
    #[inline(always)]
    fn take<S: Sink>(&mut self, found: &Match, sink: &mut S) -> Step {
        let admitted = if found.limit == 0 { Some(true) } else { sink.admits(found.limit) };
        let Some(admitted) = admitted else { return Step::Done(Outcome::TABLES) };
        if admitted && !found.continues() {
            return Step::Done(found.outcome());
        }
        if self.continued == MAX_CONTINUATIONS {
            return Step::Done(Outcome::CONTINUATIONS);
        }
        self.last = found.line;
        self.continued += 1;
        if admitted {
            sink.continued(found.line);
        }
        Step::More
    }

    #[inline(always)]
    fn enter_block<T: Tables>(&mut self, consts: &ChainConsts, tables: &T) -> Option<()> {
        let active = read(&consts.active);
        let block = self.next_block;
        // One before the first: each active field steps on before it reads.
        let mut wild = (read(&consts.wild_summary) + block * read(&consts.active_count) * 8).wrapping_sub(8);
        let mut summary = u64::MAX;
        each_field!(FIELD => {
            if active & (1 << FIELD) != 0 {
                wild = wild.wrapping_add(8);
                let reference = tables.u32(self.rows[FIELD] + block * 4)?;
                self.blocks[FIELD] = reference;
                let mut own = tables.u64(wild)?;
                if reference != 0 {
                    own |= tables.u64(reference)?;
                }
                summary &= own;
            }
        });
        self.summary = summary;
        self.next_block = block + 1;
        Some(())
    }

    #[inline(always)]
    fn enter_word<T: Tables>(&mut self, consts: &ChainConsts, tables: &T) -> Option<()> {
        let active = read(&consts.active);
        let index = lowest(self.summary);
        self.summary &= self.summary - 1;
        self.base = (self.next_block - 1) * BLOCK + index * 64;
        let mut wild = (read(&consts.wild) + (self.base >> 6) * read(&consts.active_count) * 8).wrapping_sub(8);
        let mut word = u64::MAX;
        each_field!(FIELD => {
            if active & (1 << FIELD) != 0 && word != 0 {
                wild = wild.wrapping_add(8);
                let reference = self.blocks[FIELD];
                let mut own = tables.u64(wild)?;
                if reference != 0 {
                    let present = tables.u64(reference)?;
                    if present >> index & 1 == 1 {
                        own |= tables.u64(reference + 8 + rank(present, index) * 8)?;
                    }
                }
                word &= own;
            }
        });
        self.word = word;
        Some(())
    }
}

/// Whether the verdict lets the packet or the call through.
#[inline(always)]
#[must_use]
pub fn passes(outcome: Outcome) -> bool {
    outcome.verdict == u32::from(ACCEPT) || outcome.verdict == u32::from(PROTECT)
}

#[cfg(test)]
mod tests {
    use ringfence_abi::chain::ORDER;

    #[test]
    fn each_field_follows_the_order_of_the_boundary() {
        let mut fields = std::vec::Vec::new();
        each_field!(FIELD => { fields.push(FIELD); });
        assert_eq!(fields, ORDER);
    }
}
