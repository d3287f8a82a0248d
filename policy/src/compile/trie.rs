//! Runs of classes to a prefix trie in flat arrays; the reader is `engine::trie`.

use ringfence_abi::chain::{LEAF, Node, STRIDE, Trie};

use super::arena::Arena;

/// A part of the value space that one node covers.
struct Task {
    /// First value.
    start: u128,
    /// Leading bits that are fixed.
    depth: u32,
    /// The runs that begin at or below `start` and within the part.
    runs: std::ops::Range<usize>,
}

/// Writes the trie of `runs` (first left-aligned value, class; the first run begins at 0).
pub(super) fn write(arena: &mut Arena, runs: &[(u128, u32)]) -> Trie {
    // Few prefixes: a small top table, that stays in the cache; many: fewer levels.
    let bits = match runs.len() {
        ..=64 => 8,
        65..=4096 => 12,
        _ => 16,
    };
    let mut builder = Builder { runs, nodes: Vec::new(), leaves: Vec::new(), queue: Vec::new() };
    let top: Vec<u32> = builder.split(0, 0, bits, 0..runs.len()).into_iter().map(|slot| builder.entry(slot)).collect();
    let mut done = 0;
    while done < builder.queue.len() {
        builder.node(done);
        done += 1;
    }
    Trie { top: arena.halves(top), bits, nodes: arena.nodes(&builder.nodes), leaves: arena.halves(builder.leaves) }
}

/// One slot of a table: a class, or a part that must be cut further.
enum Slot {
    Leaf(u32),
    Part(Task),
}

struct Builder<'a> {
    runs: &'a [(u128, u32)],
    nodes: Vec<Node>,
    leaves: Vec<u32>,
    /// Node `i` covers `queue[i]`: children are queued together, so their numbers are consecutive.
    queue: Vec<Task>,
}

impl Builder<'_> {
    /// Queues a part and gives the table entry of a slot.
    fn entry(&mut self, slot: Slot) -> u32 {
        match slot {
            Slot::Leaf(class) => class | LEAF,
            Slot::Part(task) => {
                self.queue.push(task);
                (self.queue.len() - 1) as u32
            }
        }
    }

    /// Cuts a part by the next `bits` bits.
    fn split(&self, start: u128, depth: u32, bits: u32, runs: std::ops::Range<usize>) -> Vec<Slot> {
        let below = 128_u32.saturating_sub(depth + bits);
        // Past the last address bit several slots stand for one value.
        let surplus = (depth + bits).saturating_sub(128);
        let mut first = runs.start;
        (0..1_u128 << bits)
            .map(|slot| {
                let slot_start = start | slot >> surplus << below;
                let slot_end = slot_start | ((1 << below) - 1);
                while first + 1 < runs.end && self.runs[first + 1].0 <= slot_start {
                    first += 1;
                }
                let mut last = first;
                if first + 1 < runs.end && self.runs[first + 1].0 <= slot_end {
                    last = first + self.runs[first + 1..runs.end].partition_point(|run| run.0 <= slot_end);
                }
                if last == first {
                    return Slot::Leaf(self.runs[first].1);
                }
                Slot::Part(Task { start: slot_start, depth: depth + bits, runs: first..last + 1 })
            })
            .collect()
    }

    fn node(&mut self, number: usize) {
        let Task { start, depth, ref runs } = self.queue[number];
        let slots = self.split(start, depth, STRIDE, runs.clone());
        let mut node =
            Node { base_node: self.queue.len() as u32, base_leaf: self.leaves.len() as u32, ..Node::default() };
        let mut previous = None;
        for (value, slot) in slots.into_iter().enumerate() {
            match slot {
                Slot::Part(task) => {
                    node.vector |= 1 << value;
                    self.queue.push(task);
                }
                Slot::Leaf(class) => {
                    if previous != Some(class) {
                        node.leafvec |= 1 << value;
                        self.leaves.push(class);
                    }
                    previous = Some(class);
                }
            }
        }
        self.nodes.push(node);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringfence_engine::{
        slice::SliceTables,
        trie::{LEVELS_V4, LEVELS_V6, lookup},
    };

    use super::*;

    fn class_of(runs: &[(u128, u32)], value: u128) -> u32 {
        runs[runs.partition_point(|run| run.0 <= value) - 1].1
    }

    fn check(bits: u32, levels: u32, starts: &[u128], probes: &[u128]) {
        let shift = 128 - bits;
        let mut starts: Vec<u128> = starts.iter().map(|start| start >> shift << shift).collect();
        starts.push(0);
        starts.sort_unstable();
        starts.dedup();
        let runs: Vec<(u128, u32)> =
            starts.iter().enumerate().map(|(i, &start)| (start, (i * 7 % 5 + i) as u32)).collect();
        let mut arena = Arena::new();
        let trie = write(&mut arena, &runs);
        let bytes = arena.finish();
        let near =
            starts.iter().flat_map(|start| [*start, start.wrapping_sub(1 << shift), start.wrapping_add(1 << shift)]);
        for value in near.chain(probes.iter().copied()).map(|value| value >> shift << shift) {
            let found = lookup(&SliceTables(&bytes), &trie, (value >> 64) as u64, value as u64, levels);
            assert_eq!(found, Some(class_of(&runs, value)), "at {value:032x}");
        }
    }

    proptest! {
        #[test]
        fn every_value_finds_its_run(
            starts in prop::collection::vec(any::<u128>().prop_map(|x| x >> (x & 31) << (x >> 5 & 63)), 0..300),
            probes in prop::collection::vec(any::<u128>(), 50),
        ) {
            check(128, LEVELS_V6, &starts, &probes);
            check(32, LEVELS_V4, &starts, &probes);
        }
    }

    #[test]
    fn host_routes_reach_the_last_level() {
        let hosts: Vec<u128> = (0..64).map(|i| (0x2001_0db8_u128 << 96) + i * 3).collect();
        check(128, LEVELS_V6, &hosts, &[]);
    }
}
