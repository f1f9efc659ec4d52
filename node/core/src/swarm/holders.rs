//! Who in the site holds which pieces of one blob, as they said themselves.

use litemap::LiteMap;
use protocol::NodeId;
use protocol::limits::HOLDERS_MAX;
use protocol::pieces::PieceSet;

/// The sets of the peers, and how often each piece is held.
pub(super) struct Holders {
    sets: LiteMap<NodeId, PieceSet>,
    counts: Vec<u16>,
    any: PieceSet,
}

impl Holders {
    pub fn new(pieces: u32) -> Holders {
        Holders {
            sets: LiteMap::new(),
            counts: vec![0; pieces as usize],
            any: PieceSet::empty(pieces),
        }
    }

    /// Pieces that somebody holds.
    pub fn any(&self) -> &PieceSet {
        &self.any
    }

    pub fn count(&self, piece: u32) -> u16 {
        self.counts.get(piece as usize).copied().unwrap_or(0)
    }

    pub fn sets(&self) -> impl Iterator<Item = (&NodeId, &PieceSet)> {
        self.sets.iter()
    }

    pub fn holds(&self, node: &NodeId, piece: u32) -> bool {
        self.sets.get(node).is_some_and(|set| set.contains(piece))
    }

    /// `node` holds exactly `set`. A set of another length, or one that is not what it says, or one
    /// more than the table takes, is not believed.
    pub fn replace(&mut self, node: NodeId, set: PieceSet) -> bool {
        if set.len() != self.any.len() || !set.well_formed() || !self.room_for(&node) {
            return false;
        }
        self.forget(&node);
        for piece in set.iter() {
            self.counts[piece as usize] += 1;
            self.any.insert(piece);
        }
        self.sets.insert(node, set);
        true
    }

    /// `node` holds this piece as well.
    pub fn add(&mut self, node: NodeId, piece: u32) {
        if piece >= self.any.len() || !self.room_for(&node) {
            return;
        }
        let len = self.any.len();
        if self
            .sets
            .entry(node)
            .or_insert_with(|| PieceSet::empty(len))
            .insert(piece)
        {
            self.counts[piece as usize] += 1;
            self.any.insert(piece);
        }
    }

    /// `node` does not hold this piece after all.
    pub fn remove(&mut self, node: &NodeId, piece: u32) {
        if self.sets.get_mut(node).is_some_and(|set| set.remove(piece)) {
            self.lower(piece);
        }
    }

    /// Nothing is known of `node` any more.
    pub fn forget(&mut self, node: &NodeId) {
        if let Some(set) = self.sets.remove(node) {
            for piece in set.iter() {
                self.lower(piece);
            }
        }
    }

    fn lower(&mut self, piece: u32) {
        let count = &mut self.counts[piece as usize];
        *count -= 1;
        if *count == 0 {
            self.any.remove(piece);
        }
    }

    fn room_for(&self, node: &NodeId) -> bool {
        self.sets.len() < HOLDERS_MAX || self.sets.contains_key(node)
    }
}
