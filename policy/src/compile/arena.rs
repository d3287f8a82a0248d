//! The bytes of a chain's tables while they are written.

use ringfence_abi::chain::Node;

/// Grows at the end; offsets are in bytes. Offset 0 is never given out: it means "nothing" in block references.
#[derive(Debug)]
pub(super) struct Arena {
    bytes: Vec<u8>,
}

impl Arena {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; 8] }
    }

    /// The offset where the next element of 8 bytes would go.
    fn align(&mut self) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.bytes.len() as u32
    }

    /// By a quarter where more room is needed: doubled, the largest arenas would be half empty.
    fn push(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            self.bytes.reserve_exact((self.bytes.len() / 4).max(4096));
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn words(&mut self, words: impl IntoIterator<Item = u64>) -> u32 {
        let offset = self.align();
        for word in words {
            self.push(&word.to_le_bytes());
        }
        offset
    }

    pub(super) fn halves(&mut self, halves: impl IntoIterator<Item = u32>) -> u32 {
        let offset = self.align();
        for half in halves {
            self.push(&half.to_le_bytes());
        }
        offset
    }

    /// Makes room for so many bytes.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve_exact(bytes);
    }

    /// Goes on behind the last element, which was a `u32`.
    pub(super) fn more_halves(&mut self, halves: &[u32]) {
        for half in halves {
            self.push(&half.to_le_bytes());
        }
    }

    pub(super) fn nodes(&mut self, nodes: &[Node]) -> u32 {
        let words = nodes
            .iter()
            .flat_map(|node| [node.vector, node.leafvec, u64::from(node.base_node) | u64::from(node.base_leaf) << 32]);
        self.words(words)
    }

    /// The finished tables, padded to whole words.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.align();
        self.bytes.resize(self.bytes.len().max(64), 0);
        self.bytes
    }
}
