//! Places among the uploads: so many in all, and of them so many for one peer, so that nobody who is
//! admitted can keep the others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use protocol::NodeId;
use protocol::limits::UPLOADS_PER_PEER_MAX;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_peer: HashMap<NodeId, usize>,
}

impl Places {
    /// This many in all.
    pub(super) fn new(max: usize) -> Arc<Places> {
        let taken = Mutex::default();
        Arc::new(Places { max, taken })
    }

    /// A place for a peer, unless it or everybody together has enough.
    pub(super) fn take(self: &Arc<Places>, peer: NodeId) -> Option<Place> {
        let mut taken = self.taken.lock().expect("no panic under this lock");
        let has = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if taken.in_all >= self.max || has >= UPLOADS_PER_PEER_MAX {
            return None;
        }
        taken.in_all += 1;
        taken.by_peer.insert(peer, has + 1);
        let places = self.clone();
        Some(Place { places, peer })
    }
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    peer: NodeId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().expect("no panic under this lock");
        taken.in_all -= 1;
        match taken.by_peer.get_mut(&self.peer) {
            Some(has) if *has > 1 => *has -= 1,
            _ => drop(taken.by_peer.remove(&self.peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_cannot_take_the_places_of_all() {
        let places = Places::new(UPLOADS_PER_PEER_MAX + 2);
        let [greedy, modest, late] = [1, 2, 3].map(|n| NodeId([n; 32]));
        let mut held: Vec<Place> = (0..64).filter_map(|_| places.take(greedy)).collect();
        assert_eq!(held.len(), UPLOADS_PER_PEER_MAX);
        let mut others: Vec<Place> = (0..64).filter_map(|_| places.take(modest)).collect();
        assert_eq!(others.len(), 2, "so many are left in all");
        assert!(places.take(late).is_none());
        others.pop();
        assert!(places.take(greedy).is_none(), "it has enough");
        assert!(places.take(late).is_some());
        held.pop();
        assert!(places.take(greedy).is_some());
        drop((held, others));
        let taken = places.taken.lock().unwrap();
        assert_eq!((taken.in_all, taken.by_peer.len()), (0, 0));
    }
}
