//! Places, among the uploads for one: so many in all, and of them so many for one peer, so that nobody
//! can keep the others out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

/// All places.
#[derive(Debug)]
pub(super) struct Places<K: Copy + Eq + Hash> {
    max: usize,
    per_peer_max: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    in_all: usize,
    by_peer: HashMap<K, usize>,
}

impl<K: Copy + Eq + Hash> Places<K> {
    /// This many in all, and of them for one peer.
    pub(super) fn new(max: usize, per_peer_max: usize) -> Arc<Places<K>> {
        let taken = Mutex::new(Taken {
            in_all: 0,
            by_peer: HashMap::new(),
        });
        Arc::new(Places {
            max,
            per_peer_max,
            taken,
        })
    }

    /// A place for a peer, unless it or everybody together has enough.
    pub(super) fn take(self: &Arc<Self>, peer: K) -> Option<Place<K>> {
        let mut taken = self.taken.lock().expect("no panic under this lock");
        let has = taken.by_peer.get(&peer).copied().unwrap_or(0);
        if taken.in_all >= self.max || has >= self.per_peer_max {
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
pub(super) struct Place<K: Copy + Eq + Hash> {
    places: Arc<Places<K>>,
    peer: K,
}

impl<K: Copy + Eq + Hash> Drop for Place<K> {
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
    use protocol::NodeId;
    use protocol::limits::UPLOADS_PER_PEER_MAX;

    use super::*;

    #[test]
    fn one_peer_cannot_take_the_places_of_all() {
        let places = Places::new(UPLOADS_PER_PEER_MAX + 2, UPLOADS_PER_PEER_MAX);
        let [greedy, modest, late] = [1, 2, 3].map(|n| NodeId([n; 32]));
        let mut held: Vec<Place<NodeId>> = (0..64).filter_map(|_| places.take(greedy)).collect();
        assert_eq!(held.len(), UPLOADS_PER_PEER_MAX);
        let mut others: Vec<Place<NodeId>> = (0..64).filter_map(|_| places.take(modest)).collect();
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
