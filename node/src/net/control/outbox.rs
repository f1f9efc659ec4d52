//! Events on their way to the driver.

use std::collections::VecDeque;

use protocol::limits::CONTROL_EVENTS_MAX;

use super::ControlEvent;

/// Two bounded queues. What may be lost (gossip, refusals, multicast) loses its oldest; for what may
/// not be lost the swarm is left unpolled until there is room, and so the peers wait.
#[derive(Default)]
pub(super) struct Outbox {
    must: VecDeque<ControlEvent>,
    may: VecDeque<ControlEvent>,
    dropped: u64,
}

impl Outbox {
    pub(super) fn push(&mut self, event: ControlEvent) {
        use ControlEvent as E;
        match event {
            E::Connected(_) | E::Disconnected(_) | E::Request { .. } => self.must.push_back(event),
            E::Gossip { .. } | E::Discovered(_) | E::Refused { .. } => {
                if self.may.len() == CONTROL_EVENTS_MAX {
                    self.may.pop_front();
                    self.count_dropped();
                }
                self.may.push_back(event);
            }
        }
    }

    /// What may not be lost goes first, so a node is connected before it gossips.
    pub(super) fn pop(&mut self) -> Option<ControlEvent> {
        self.must.pop_front().or_else(|| self.may.pop_front())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.must.is_empty() && self.may.is_empty()
    }

    /// Whether the swarm has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.must.len() >= CONTROL_EVENTS_MAX
    }

    pub(super) fn clear(&mut self) {
        self.must.clear();
        self.may.clear();
    }

    fn count_dropped(&mut self) {
        self.dropped += 1;
        if self.dropped.is_power_of_two() {
            tracing::warn!(
                dropped = self.dropped,
                "gossip is dropped: the driver does not keep up"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::net::identity::fixture::node;

    fn gossip(n: usize) -> ControlEvent {
        ControlEvent::Gossip {
            from: node(1),
            bytes: n.to_be_bytes().to_vec(),
        }
    }

    #[test]
    fn gossip_loses_its_oldest_and_requests_stop_the_swarm() {
        let mut outbox = Outbox::default();
        for n in 0..CONTROL_EVENTS_MAX + 3 {
            outbox.push(gossip(n));
        }
        assert!(!outbox.is_full());
        assert_eq!(outbox.dropped, 3);
        for _ in 0..CONTROL_EVENTS_MAX {
            assert!(!outbox.is_full());
            let (reply, _) = oneshot::channel();
            outbox.push(ControlEvent::Request {
                from: node(1),
                bytes: vec![],
                reply,
            });
        }
        assert!(outbox.is_full());
        for _ in 0..CONTROL_EVENTS_MAX {
            assert!(matches!(outbox.pop(), Some(ControlEvent::Request { .. })));
        }
        let Some(ControlEvent::Gossip { bytes, .. }) = outbox.pop() else {
            panic!("gossip is next")
        };
        assert_eq!(bytes, 3usize.to_be_bytes());
    }
}
