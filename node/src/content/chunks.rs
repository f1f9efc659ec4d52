//! The distinct chunks of a build, found again by their hash.
//!
//! A chunk costs its 36 bytes in the index's own form, grown by a quarter at a time, and 5 to 10 bytes
//! of slots: at most 55 bytes a chunk, about 0.9 MiB a GiB of distinct content.

use protocol::Hash;
use protocol::index::Chunk;

/// Chunks in pack order, with an open-addressed table of their numbers beside them.
pub(super) struct ChunkTable {
    chunks: Vec<Chunk>,
    slots: Vec<u32>,
}

const FREE: u32 = u32::MAX;

impl ChunkTable {
    pub fn new() -> ChunkTable {
        ChunkTable {
            chunks: Vec::new(),
            slots: vec![FREE; 1024],
        }
    }

    /// The number of the chunk, and whether it is new.
    pub fn intern(&mut self, chunk: Chunk) -> (u32, bool) {
        if (self.chunks.len() + 1) * 8 > self.slots.len() * 7 {
            self.grow();
        }
        let slot = self.find(&chunk.hash);
        if self.slots[slot] != FREE {
            return (self.slots[slot], false);
        }
        let number = self.chunks.len() as u32;
        if self.chunks.len() == self.chunks.capacity() {
            self.chunks.reserve_exact((self.chunks.len() / 4).max(1024));
        }
        self.chunks.push(chunk);
        self.slots[slot] = number;
        (number, true)
    }

    /// The chunks, in pack order.
    pub fn into_chunks(self) -> Vec<Chunk> {
        self.chunks
    }

    /// The slot of `hash`, or the free one where it belongs. The hash is its own hash.
    fn find(&self, hash: &Hash) -> usize {
        let mask = self.slots.len() - 1;
        let [a, b, c, d, e, f, g, h, ..] = hash.0;
        let mut slot = u64::from_le_bytes([a, b, c, d, e, f, g, h]) as usize & mask;
        while self.slots[slot] != FREE && self.chunks[self.slots[slot] as usize].hash != *hash {
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        self.slots = vec![FREE; self.slots.len() * 2];
        for number in 0..self.chunks.len() {
            let slot = self.find(&self.chunks[number].hash);
            self.slots[slot] = number as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_agrees_with_a_map() {
        let mut table = ChunkTable::new();
        let mut model = BTreeMap::new();
        for i in 0..20_000u32 {
            let hash = Hash::of(&(i * 7 % 9_001).to_le_bytes());
            let next = model.len() as u32;
            let known = model.contains_key(&hash);
            let number = *model.entry(hash).or_insert(next);
            assert_eq!(table.intern(Chunk { hash, length: 1 }), (number, !known));
        }
        let chunks = table.into_chunks();
        assert_eq!(chunks.len(), model.len());
        assert!(
            model
                .iter()
                .all(|(hash, number)| chunks[*number as usize].hash == *hash)
        );
    }
}
