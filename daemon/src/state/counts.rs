//! Counters that survive what the kernel's do not: the change of generation, and the reboot.
//!
//! The kernel counts per generation from zero. What a rule counted before is the generation's *base*, on disk. All
//! arithmetic wraps, so that a reset is a base of minus what the kernel holds, and no packet counted between reading
//! and resetting is lost.
//!
//! A generation that is in the kernel and no longer in force still holds counts that nobody has taken over. That it is
//! there says so: [`Counts::merged`] names those that were taken over already, so that a crash at any point neither
//! loses nor doubles anything.

use std::collections::HashMap;

use ringfence_abi::counter::Counter;
use serde::{Deserialize, Serialize};

use super::StateError;
use super::files::{read_json, write_json};
use super::generations::{KeptLine, Store};

const FILE: &str = "counts.json";

/// One line's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Packets; wraps.
    pub packets: u64,
    /// Bytes; wraps.
    pub bytes: u64,
    /// Last hit, milliseconds since 1970; 0: never.
    pub last: u64,
}

impl Count {
    /// The sum; the later of both hits.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.wrapping_add(other.packets),
            bytes: self.bytes.wrapping_add(other.bytes),
            last: self.last.max(other.last),
        }
    }

    /// From the kernel's counter. `wall` and `monotonic` are now, in milliseconds since 1970 and in nanoseconds.
    #[must_use]
    pub fn live(counter: &Counter, wall: u64, monotonic: u64) -> Self {
        let ago = monotonic.saturating_sub(counter.last_hit) / 1_000_000;
        let last = if counter.last_hit == 0 { 0 } else { wall.saturating_sub(ago) };
        Self { packets: counter.packets, bytes: counter.bytes, last }
    }
}

/// What is kept of a generation's counters, by counter index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Added to what the kernel holds.
    pub base: Vec<Count>,
    /// What the kernel held when it was last looked at: all that is left after a reboot.
    pub snapshot: Vec<Count>,
    /// Hits before this, milliseconds since 1970, are not shown: the counters were reset.
    pub reset: u64,
    /// Generations still in the kernel whose counts are in `base`.
    pub merged: Vec<u64>,
}

impl Counts {
    /// Reads those of a generation; none yet are zeros.
    pub fn read(store: &Store, number: u64) -> Result<Self, StateError> {
        Ok(read_json(&store.file(number, FILE))?.unwrap_or_default())
    }

    /// Writes them.
    pub fn write(&self, store: &Store, number: u64) -> Result<(), StateError> {
        write_json(&store.file(number, FILE), self)
    }

    /// The generation is loaded again into a kernel that holds nothing of it: what it held is in the snapshot.
    pub fn loaded_again(&mut self) {
        let snapshot = std::mem::take(&mut self.snapshot);
        self.add(&snapshot);
        self.merged.clear();
    }

    /// Adds to the base.
    pub fn add(&mut self, counts: &[Count]) {
        if self.base.len() < counts.len() {
            self.base.resize(counts.len(), Count::default());
        }
        for (base, count) in self.base.iter_mut().zip(counts) {
            *base = base.plus(*count);
        }
    }

    /// What is to be shown where the kernel holds `live`.
    #[must_use]
    pub fn total(&self, live: &[Count]) -> Vec<Count> {
        let at = |list: &[Count], index: usize| list.get(index).copied().unwrap_or_default();
        let total = |index| {
            let count: Count = at(&self.base, index).plus(at(live, index));
            Count { last: if count.last <= self.reset { 0 } else { count.last }, ..count }
        };
        (0..live.len().max(self.base.len())).map(total).collect()
    }

    /// Sets what is shown to zero.
    pub fn reset(&mut self, live: &[Count], wall: u64) {
        let minus =
            |count: &Count| Count { packets: count.packets.wrapping_neg(), bytes: count.bytes.wrapping_neg(), last: 0 };
        self.base = live.iter().map(minus).collect();
        self.reset = wall;
    }
}

/// Counts of one generation, laid out for the lines of another: by given name, otherwise by content. Of several lines
/// with the same content the n-th goes to the n-th. What has no counterpart is not carried.
#[must_use]
pub fn carry(counts: &[Count], from: &[KeptLine], to: &[KeptLine]) -> Vec<Count> {
    #[derive(PartialEq, Eq, Hash)]
    enum Key<'a> {
        Name(&'a str, &'a str),
        Content(&'a str, u64, usize),
    }
    fn keys(lines: &[KeptLine]) -> impl Iterator<Item = Key<'_>> {
        let mut seen: HashMap<(&str, u64), usize> = HashMap::new();
        lines.iter().map(move |line| {
            if line.named {
                Key::Name(&line.chain, &line.name)
            } else {
                let nth = seen.entry((&line.chain, line.content)).or_default();
                *nth += 1;
                Key::Content(&line.chain, line.content, *nth)
            }
        })
    }
    let old: HashMap<Key<'_>, Count> = keys(from).zip(counts.iter().copied()).collect();
    keys(to).map(|key| old.get(&key).copied().unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, named: bool, content: u64) -> KeptLine {
        KeptLine {
            name: name.into(),
            named,
            chain: "ingress".into(),
            verb: "drop".into(),
            at: Some(("p.yaml".into(), 1)),
            content,
        }
    }

    fn count(packets: u64) -> Count {
        Count { packets, bytes: packets * 100, last: packets }
    }

    #[test]
    fn counts_follow_names_then_content_and_never_positions() {
        let from = [
            line("default", true, 0),
            line("ssh", true, 1),
            line("p:ingress[1]", false, 2),
            line("p:ingress[2]", false, 3),
            line("p:ingress[3]", false, 3),
        ];
        let counts = [count(1), count(2), count(3), count(4), count(5)];
        let to = [
            line("default", true, 0),
            // New at position 0; the old unnamed ones have moved down.
            line("p:ingress[0]", false, 9),
            line("p:ingress[1]", false, 3),
            line("ssh", true, 77),
            line("p:ingress[3]", false, 2),
            line("p:ingress[4]", false, 3),
            line("p:ingress[5]", false, 3),
        ];
        let packets: Vec<u64> = carry(&counts, &from, &to).iter().map(|c| c.packets).collect();
        assert_eq!(packets, [1, 0, 4, 2, 3, 5, 0]);
    }

    #[test]
    fn chains_are_told_apart() {
        let egress = KeptLine { chain: "egress".into(), ..line("ssh", true, 1) };
        assert_eq!(carry(&[count(7)], &[line("ssh", true, 1)], &[egress]), [Count::default()]);
    }

    #[test]
    fn a_reset_loses_nothing_that_comes_after_the_reading() {
        let mut counts = Counts { base: vec![count(10)], ..Counts::default() };
        counts.reset(&[count(5)], 50);
        // Three packets came between reading and resetting, at time 60.
        let live = [Count { packets: 8, bytes: 800, last: 60 }];
        assert_eq!(counts.total(&live), [Count { packets: 3, bytes: 300, last: 60 }]);
        assert_eq!(counts.total(&[count(5)]), [Count::default()], "nor is a hit before it shown");
    }

    #[test]
    fn a_reboot_keeps_what_the_snapshot_saw() {
        let mut counts = Counts { base: vec![count(10)], snapshot: vec![count(5)], ..Counts::default() };
        counts.loaded_again();
        assert_eq!(counts.total(&[Count::default()])[0].packets, 15);
        counts.loaded_again();
        assert_eq!(counts.total(&[Count::default()])[0].packets, 15, "once only");
    }

    #[test]
    fn kernel_time_becomes_wall_time() {
        let counter = Counter { packets: 1, bytes: 2, last_hit: 5_000_000_000 };
        assert_eq!(Count::live(&counter, 1_000_000, 7_000_000_000).last, 998_000);
        assert_eq!(Count::live(&Counter::default(), 1_000_000, 7_000_000_000).last, 0);
    }
}
