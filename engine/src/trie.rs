//! Longest-prefix classification in flat arrays (poptrie, Asai and Ohara 2015).

use ringfence_abi::chain::{LEAF, STRIDE, Trie};

use crate::{Tables, bits::rank, ro};

/// Levels below the top table that an IPv4 address can need: (32 - 8) / 6.
pub const LEVELS_V4: u32 = 4;
/// Levels that an IPv6 address can need: (128 - 8) / 6.
pub const LEVELS_V6: u32 = 20;

/// The class of a left-aligned value (IPv4 in the top half of `high`). `None`: the tables contradict themselves.
#[inline(always)]
pub fn lookup<T: Tables>(tables: &T, trie: &Trie, mut high: u64, mut low: u64, levels: u32) -> Option<u32> {
    // At least 8 and at most 16 bits index the top; the mask keeps the shift in range for the verifier.
    let bits = ro::read(&trie.bits) & 31;
    let mut entry = tables.u32(ro::read(&trie.top) + ((high >> (64 - bits)) as u32) * 4)?;
    high = high << bits | low >> (64 - bits);
    low <<= bits;
    let mut level = 0;
    while entry & LEAF == 0 {
        if level == levels {
            return None;
        }
        level += 1;
        // A node is 24 bytes: vector, leafvec, base_node and base_leaf.
        let node = ro::read(&trie.nodes) + entry * 24;
        let value = (high >> (64 - STRIDE)) as u32;
        let vector = tables.u64(node)?;
        if vector >> value & 1 == 1 {
            entry = tables.u32(node + 16)? + rank(vector, value);
        } else {
            let leafvec = tables.u64(node + 8)?;
            // The leaf's run begins at or below `value`; the first value without a child always begins one.
            let leaf = tables.u32(node + 20)? + rank(leafvec, value) + (leafvec >> value & 1) as u32 - 1;
            return tables.u32(ro::read(&trie.leaves) + leaf * 4);
        }
        high = high << STRIDE | low >> (64 - STRIDE);
        low <<= STRIDE;
    }
    Some(entry & !LEAF)
}
