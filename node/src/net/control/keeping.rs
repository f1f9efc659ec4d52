//! Connections that are wanted for good: when to dial which contact again.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p::Multiaddr;
use protocol::NodeId;
use protocol::wire::Contact;
use tokio::time::Instant;

use super::peers;

const FIRST_DELAY: Duration = Duration::from_millis(250);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// The contacts that are kept, and where each stands.
#[derive(Default)]
pub(super) struct Keeping {
    contacts: BTreeMap<NodeId, Kept>,
}

struct Kept {
    contact: Contact,
    addresses: Vec<Multiaddr>,
    state: State,
    /// Failures in a row.
    failures: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Up { since: Instant },
    Dialling,
    Waiting { until: Instant },
}

/// How a dial failed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Failure {
    /// Nobody there, or it broke.
    Unreachable,
    /// It was refused or refused us: the next try is as good as never.
    Refused,
}

impl Keeping {
    /// Takes over what is wanted now; returns whom we no longer keep.
    pub(super) fn want(
        &mut self,
        wanted: &BTreeMap<NodeId, Contact>,
        is_up: impl Fn(&NodeId) -> bool,
        now: Instant,
    ) -> Vec<NodeId> {
        let gone: Vec<NodeId> = self
            .contacts
            .keys()
            .filter(|node| !wanted.contains_key(node))
            .copied()
            .collect();
        self.contacts.retain(|node, _| wanted.contains_key(node));
        for (node, contact) in wanted {
            if self
                .contacts
                .get(node)
                .is_some_and(|kept| kept.contact == *contact)
            {
                continue;
            }
            // A new address is worth a try at once.
            let state = if is_up(node) {
                State::Up { since: now }
            } else {
                State::Waiting { until: now }
            };
            let addresses = peers::addresses(contact);
            let kept = Kept {
                contact: contact.clone(),
                addresses,
                state,
                failures: 0,
            };
            self.contacts.insert(*node, kept);
        }
        gone
    }

    pub(super) fn keeps(&self, node: &NodeId) -> bool {
        self.contacts.contains_key(node)
    }

    /// Whom to dial now.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(NodeId, Vec<Multiaddr>)> {
        let mut due = Vec::new();
        for (node, kept) in &mut self.contacts {
            if matches!(kept.state, State::Waiting { until } if until <= now) {
                kept.state = State::Dialling;
                due.push((*node, kept.addresses.clone()));
            }
        }
        due
    }

    /// When somebody is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = |kept: &Kept| match kept.state {
            State::Waiting { until } => Some(until),
            State::Up { .. } | State::Dialling => None,
        };
        self.contacts.values().filter_map(waiting).min()
    }

    pub(super) fn up(&mut self, node: &NodeId, now: Instant) {
        if let Some(kept) = self.contacts.get_mut(node)
            && !matches!(kept.state, State::Up { .. })
        {
            kept.state = State::Up { since: now };
        }
    }

    /// The last connection ended. One that held counts as a success; a peer that takes connections
    /// and drops them is backed off from like one that takes none.
    pub(super) fn down(&mut self, node: &NodeId, now: Instant) {
        let Some(kept) = self.contacts.get_mut(node) else {
            return;
        };
        if let State::Up { since } = kept.state {
            if now.duration_since(since) >= LONGEST_DELAY {
                kept.failures = 0;
            }
            self.failed(node, Failure::Unreachable, now);
        }
    }

    pub(super) fn failed(&mut self, node: &NodeId, failure: Failure, now: Instant) {
        let Some(kept) = self.contacts.get_mut(node) else {
            return;
        };
        kept.failures = kept.failures.saturating_add(1);
        let delay = match failure {
            Failure::Unreachable => delay(node, kept.failures),
            Failure::Refused => LONGEST_DELAY,
        };
        kept.state = State::Waiting { until: now + delay };
    }

    /// Somebody else's dial is under way; look again soon.
    pub(super) fn busy(&mut self, node: &NodeId, now: Instant) {
        if let Some(kept) = self.contacts.get_mut(node) {
            kept.state = State::Waiting {
                until: now + FIRST_DELAY,
            };
        }
    }
}

/// Doubles with each failure, between half and whole of it by a hash, so that a site that lost its
/// coordinator does not come back in step.
fn delay(node: &NodeId, failures: u32) -> Duration {
    let whole = FIRST_DELAY
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(LONGEST_DELAY);
    let mut seed = node.as_bytes().to_vec();
    seed.extend_from_slice(&failures.to_be_bytes());
    let draw = u32::from(blake3::hash(&seed).as_bytes()[0]);
    whole / 2 + whole * draw / 510
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::identity::fixture::node;

    fn wanted(nodes: &[u8]) -> BTreeMap<NodeId, Contact> {
        let contact = |n: &u8| Contact {
            node: node(*n),
            control: [format!("/ip4/127.0.0.1/tcp/{n}")].into(),
            data: None,
        };
        nodes.iter().map(|n| (node(*n), contact(n))).collect()
    }

    #[test]
    fn a_contact_is_dialled_at_once_then_with_growing_delays_until_it_is_up() {
        let mut keeping = Keeping::default();
        let mut now = Instant::now();
        assert!(
            keeping
                .want(&wanted(&[1, 2]), |n| *n == node(2), now)
                .is_empty()
        );
        assert_eq!(keeping.due(now).len(), 1, "the other is up");
        let mut delays = Vec::new();
        for _ in 0..12 {
            assert_eq!(keeping.next(), None);
            keeping.failed(&node(1), Failure::Unreachable, now);
            let next = keeping.next().unwrap();
            assert!(keeping.due(next - Duration::from_millis(1)).is_empty());
            delays.push(next - now);
            now = next;
            assert_eq!(keeping.due(now).len(), 1);
        }
        assert!(delays[0] <= FIRST_DELAY && delays[0] >= FIRST_DELAY / 2);
        assert!(delays.iter().all(|delay| *delay <= LONGEST_DELAY));
        assert!(delays[11] >= LONGEST_DELAY / 2);
        keeping.up(&node(1), now);
        assert_eq!(keeping.next(), None);
        keeping.down(&node(1), now);
        assert!(
            keeping.next().unwrap() >= now + LONGEST_DELAY / 2,
            "it did not hold"
        );
        now = keeping.next().unwrap();
        assert_eq!(keeping.due(now).len(), 1);
        keeping.up(&node(1), now);
        now += LONGEST_DELAY;
        keeping.down(&node(1), now);
        assert!(keeping.next().unwrap() <= now + FIRST_DELAY);
    }

    #[test]
    fn what_is_no_longer_wanted_is_forgotten_and_a_new_address_is_tried_at_once() {
        let mut keeping = Keeping::default();
        let now = Instant::now();
        keeping.want(&wanted(&[1, 2]), |_| false, now);
        assert_eq!(keeping.due(now).len(), 2);
        keeping.failed(&node(1), Failure::Refused, now);
        assert_eq!(keeping.next(), Some(now + LONGEST_DELAY));
        assert_eq!(keeping.want(&wanted(&[1]), |_| false, now), [node(2)]);
        assert!(!keeping.keeps(&node(2)));
        assert_eq!(
            keeping.next(),
            Some(now + LONGEST_DELAY),
            "nothing new about node 1"
        );
        let mut moved = wanted(&[1]);
        moved.get_mut(&node(1)).unwrap().control = ["/ip4/127.0.0.1/tcp/99".into()].into();
        keeping.want(&moved, |_| false, now);
        assert_eq!(
            keeping.due(now)[0].1,
            ["/ip4/127.0.0.1/tcp/99".parse().unwrap()]
        );
    }
}
