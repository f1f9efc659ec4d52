//! Machines that came to a door and were not let in: who they said to be, from where, when.
//!
//! At the coordinator's own door, and at those of nodes, as these tell. Kept in memory: a coordinator that
//! restarts sees anew who comes. What nodes tell is believed of any node of the fleet, since nothing
//! follows from it; but no one node's word pushes those of others out of the list.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use protocol::limits::{STRANGERS_MAX, UNMANAGED_MAX, UNMANAGED_TOLD_MAX};
use protocol::strangers::Stranger;
use protocol::{NodeId, Time};

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Who it said to be; none if it did not even prove a key.
    pub node: Option<NodeId>,
    /// From where.
    pub address: IpAddr,
    /// Who told of it; none: it came to the coordinator's own door.
    pub told_by: Option<NodeId>,
    /// At whose door it was the last time.
    pub seen_by: Option<NodeId>,
    /// The first time.
    pub first: Time,
    /// The last time.
    pub last: Time,
    /// How often.
    pub times: u64,
    /// What was wrong the last time.
    pub reason: String,
}

/// By whose word, who and from where.
type Key = (Option<NodeId>, Option<NodeId>, IpAddr);

/// The list. Of too many, those that were not seen for longest are forgotten.
#[derive(Default)]
pub struct Sightings(Mutex<BTreeMap<Key, Sighting>>);

impl Sightings {
    /// Somebody was refused here.
    pub fn note(&self, node: Option<NodeId>, address: IpAddr, reason: &str, now: Time) {
        let reason = reason.chars().filter(|c| !c.is_control());
        self.add(Sighting {
            node,
            address,
            told_by: None,
            seen_by: None,
            first: now,
            last: now,
            times: 1,
            reason: reason.take(200).collect(),
        });
    }

    /// A node of the fleet tells whom it, or others of its site, did not let in.
    pub fn told(&self, by: NodeId, seen: &[Stranger], now: Time) {
        for stranger in seen.iter().take(STRANGERS_MAX) {
            let last = stranger.last.min(now);
            self.add(Sighting {
                node: stranger.node,
                address: stranger.address,
                told_by: Some(by),
                seen_by: Some(stranger.seen_by),
                first: stranger.first.min(last),
                last,
                times: u64::from(stranger.times),
                reason: stranger.knock.reason().to_owned(),
            });
        }
    }

    fn add(&self, new: Sighting) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (new.told_by, new.node, new.address);
        if let Some(held) = all.get_mut(&key) {
            held.first = held.first.min(new.first);
            held.last = held.last.max(new.last);
            held.times = held.times.saturating_add(new.times);
            (held.seen_by, held.reason) = (new.seen_by, new.reason);
            return;
        }
        let of_teller = |(told_by, ..): &Key| new.told_by.is_some() && *told_by == new.told_by;
        let told = all.keys().filter(|key| of_teller(key)).count();
        let full = told >= UNMANAGED_TOLD_MAX;
        if full || all.len() >= UNMANAGED_MAX {
            let place = all.iter().filter(|(key, _)| !full || of_teller(key));
            let oldest = place.min_by_key(|(_, sighting)| sighting.last);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                all.remove(&key);
            }
        }
        all.insert(key, new);
    }

    /// All of them, the one seen last first.
    pub fn all(&self) -> Vec<Sighting> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<Sighting> = all.values().cloned().collect();
        list.sort_by_key(|sighting| std::cmp::Reverse(sighting.last));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::strangers::Knock;

    fn node(n: u64) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        NodeId(id)
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn who_comes_again_is_counted_and_of_too_many_the_oldest_goes() {
        let sightings = Sightings::default();
        let one = Some(node(1));
        sightings.note(one, ip(1), "first\nline", Time(1));
        sightings.note(one, ip(1), "second", Time(5));
        let all = sightings.all();
        let [found] = &all[..] else { panic!("{all:?}") };
        assert_eq!(
            (found.first, found.last, found.times),
            (Time(1), Time(5), 2)
        );
        assert_eq!(found.reason, "second");
        for n in 2..=UNMANAGED_MAX as u64 + 1 {
            sightings.note(Some(node(n)), ip(1), "stranger", Time(4 + n));
        }
        let all = sightings.all();
        assert_eq!(all.len(), UNMANAGED_MAX);
        assert!(
            all.iter().all(|found| found.node != one),
            "the one unseen for longest went"
        );
    }

    #[test]
    fn what_one_node_tells_pushes_nobody_elses_out() {
        let stranger = |n: u64, last| Stranger {
            node: Some(node(n)),
            address: ip(7),
            knock: Knock::Bare,
            seen_by: node(2),
            first: Time(last + 9),
            last: Time(last),
            times: u32::MAX,
        };
        let sightings = Sightings::default();
        sightings.note(None, ip(1), "at the own door", Time(1));
        sightings.told(node(3), &[stranger(1, 2)], Time(100));
        for n in 0..3 * UNMANAGED_TOLD_MAX as u64 {
            sightings.told(node(4), &[stranger(n, u64::MAX - 10)], Time(100));
        }
        let all = sightings.all();
        assert_eq!(all.len(), UNMANAGED_TOLD_MAX + 2);
        assert!(all.iter().any(|s| s.told_by.is_none()));
        assert!(all.iter().any(|s| s.told_by == Some(node(3))));
        assert!(all.iter().all(|s| s.first <= s.last && s.last <= Time(100)));
        // One message brings no more than a message may.
        let many: Vec<Stranger> = (0..1000).map(|n| stranger(n, 50)).collect();
        sightings.told(node(5), &many, Time(100));
        let of = |teller| move |s: &&Sighting| s.told_by == Some(teller);
        let all = sightings.all();
        assert_eq!(all.iter().filter(of(node(5))).count(), STRANGERS_MAX);
    }
}
