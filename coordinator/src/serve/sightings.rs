//! Machines that came to the door and were not let in: who they said to be, from where, when.
//!
//! Kept in memory: a coordinator that restarts sees anew who comes. What nodes see at their own doors is
//! in their logs and not here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use protocol::limits::UNMANAGED_MAX;
use protocol::{NodeId, Time};

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sighting {
    /// Who it said to be; none if it did not even prove a key.
    pub node: Option<NodeId>,
    /// From where.
    pub address: IpAddr,
    /// The first time.
    pub first: Time,
    /// The last time.
    pub last: Time,
    /// How often.
    pub times: u64,
    /// What was wrong the last time.
    pub reason: String,
}

/// The list. Of too many, those that were not seen for longest are forgotten.
#[derive(Default)]
pub struct Sightings(Mutex<BTreeMap<(Option<NodeId>, IpAddr), Sighting>>);

impl Sightings {
    /// Somebody was refused. `address` is a multiaddress; without an IP address in it nothing is noted.
    pub fn note(&self, node: Option<NodeId>, address: &str, reason: &str, now: Time) {
        let ip = address.split('/').nth(2).and_then(|ip| ip.parse().ok());
        let Some(ip) = ip else { return };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= UNMANAGED_MAX && !all.contains_key(&(node, ip)) {
            let oldest = all.iter().min_by_key(|(_, sighting)| sighting.last);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                all.remove(&key);
            }
        }
        let sighting = all.entry((node, ip)).or_insert_with(|| Sighting {
            node,
            address: ip,
            first: now,
            last: now,
            times: 0,
            reason: String::new(),
        });
        sighting.last = now;
        sighting.times += 1;
        sighting.reason = reason
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
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

    #[test]
    fn who_comes_again_is_counted_and_of_too_many_the_oldest_goes() {
        let sightings = Sightings::default();
        let node = |n: u64| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            Some(NodeId(id))
        };
        sightings.note(None, "", "no address", Time(1));
        sightings.note(None, "/dns/host/tcp/1", "no address", Time(1));
        assert!(sightings.all().is_empty());
        sightings.note(node(1), "/ip4/10.0.0.1/tcp/1", "first\nline", Time(1));
        sightings.note(node(1), "/ip4/10.0.0.1/udp/2/quic-v1", "second", Time(5));
        let all = sightings.all();
        let [one] = &all[..] else { panic!("{all:?}") };
        assert_eq!((one.first, one.last, one.times), (Time(1), Time(5), 2));
        assert_eq!(one.reason, "second");
        for n in 2..=UNMANAGED_MAX as u64 + 1 {
            sightings.note(node(n), "/ip6/::1/tcp/1", "stranger", Time(4 + n));
        }
        let all = sightings.all();
        assert_eq!(all.len(), UNMANAGED_MAX);
        assert!(
            all.iter().all(|one| one.node != node(1)),
            "the one unseen for longest went"
        );
    }
}
