//! Statuses of other nodes, as a delegate keeps them: what goes upward when, and what has arrived.
//!
//! A register goes up when its milestone is new: received, started, ended. What lies between is
//! only counted. Milestones wait a little for company, so that one exchange carries many.

use std::collections::{BTreeMap, BTreeSet};

use protocol::feed::StageCounts;
use protocol::limits::{FEED_GATHER, FEED_STARTED, FEED_URGENT, STATUSES_MAX};
use protocol::orders::{Mark, Receipt};
use protocol::status::{Bucket, Milestone, NodeStatus, Reachability, SignedStatus, State, bucket};
use protocol::{NodeId, RolloutId, Seq, Span, Time, Verified};

use crate::outbox::Outbox;

/// A status that was handed to the coordinator and not acknowledged is handed over again after this;
/// the pause doubles.
const OFFER_AGAIN: Span = Span::from_secs(4);
/// See [`OFFER_AGAIN`].
const OFFER_AGAIN_MAX: Span = Span::from_secs(300);

/// When a register goes upward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    /// The number with which its milestone was said first: a receipt for it or a later one is good.
    pub(crate) said: Seq,
    started: bool,
    at: Time,
    again: Time,
    tries: u32,
}

impl Due {
    /// A milestone that was reached now. What a handful node says cannot wait, nor can a failure.
    pub(crate) fn new(status: &NodeStatus, handful: bool, now: Time) -> Due {
        let milestone = status.state.milestone();
        let failed = bucket(status.state, Reachability::Reachable) == Bucket::Failed;
        let started = milestone == Milestone::Started;
        let wait = match (handful || failed, started) {
            (true, _) => FEED_URGENT,
            (false, true) => FEED_STARTED,
            (false, false) => FEED_GATHER,
        };
        Due {
            said: status.seq,
            started: started && !handful,
            at: now + wait,
            again: now,
            tries: 0,
        }
    }

    /// Whether `new` says nothing upward that `old` did not.
    pub(crate) fn covers(old: &NodeStatus, new: &NodeStatus, handful: bool) -> bool {
        // That a window or a person holds a node back is known nowhere else, and is told once.
        let constrained = matches!(new.state, State::Waiting(on) if on.is_of_the_node());
        let same = if handful || constrained {
            old.state == new.state
        } else {
            old.state.milestone() == new.state.milestone()
        };
        same && old.plan == new.plan && old.wave == new.wave
    }

    /// When it goes up, `lag` later than it would from the first delegate.
    pub(crate) fn at(&self, lag: Span) -> Time {
        (self.at + lag).max(self.again)
    }

    /// Whether it goes along with an exchange that takes place now. Of the second delegate's only
    /// what the first one left lying does.
    fn goes(&self, now: Time, lag: Span) -> bool {
        let waits = self.started || lag > Span::ZERO;
        self.again <= now && (!waits || self.at + lag <= now)
    }

    /// It goes up now, if it does; it is not due again for a while.
    pub(crate) fn offer(&mut self, now: Time, lag: Span) -> bool {
        if !self.goes(now, lag) {
            return false;
        }
        let pause = OFFER_AGAIN.0.saturating_mul(1 << self.tries.min(16));
        self.tries += 1;
        self.again = now + Span(pause.min(OFFER_AGAIN_MAX.0));
        true
    }
}

/// Statuses of other nodes.
#[derive(Default)]
pub(crate) struct Relay {
    others: BTreeMap<(RolloutId, NodeId), Other>,
    /// Those that the coordinator has not acknowledged.
    open: BTreeSet<(RolloutId, NodeId)>,
    /// Whether the counts are others than they were when they were taken last.
    changed: bool,
}

struct Other {
    status: Verified<NodeStatus>,
    due: Due,
    receipt: Option<Verified<Receipt>>,
}

impl Relay {
    /// Keeps another node's status if it is newer than the one that is held.
    pub(crate) fn hear(
        &mut self,
        status: Verified<NodeStatus>,
        handful: bool,
        now: Time,
        out: &mut Outbox,
    ) {
        let key = (status.rollout.clone(), status.node);
        let mut due = Due::new(&status, handful, now);
        let mut receipt = None;
        if let Some(held) = self.others.get(&key) {
            if held.status.seq == status.seq && held.status.digest() != status.digest() {
                let line = format!(
                    "{} signed two statuses with the number {}",
                    key.1, status.seq
                );
                out.note("equivocation", line);
            }
            if held.status.seq >= status.seq {
                return;
            }
            self.changed |= held.status.state != status.state;
            if Due::covers(&held.status, &status, handful) {
                due = held.due;
                receipt.clone_from(&held.receipt);
            }
        } else {
            if self.others.len() >= STATUSES_MAX {
                // Without room the newcomer waits: its node says it again until it has a receipt.
                let Some(spare) = self.spare(&key.1) else {
                    return;
                };
                self.others.remove(&spare);
                self.open.remove(&spare);
            }
            self.changed = true;
        }
        match receipt {
            Some(_) => self.open.remove(&key),
            None => self.open.insert(key.clone()),
        };
        let other = Other {
            status,
            due,
            receipt,
        };
        self.others.insert(key, other);
    }

    /// An entry that makes room: one that is acknowledged; else a register of the node that has most
    /// of them, if it has more than `newcomer` would have: no node takes the room of all others by
    /// inventing rollouts.
    fn spare(&self, newcomer: &NodeId) -> Option<(RolloutId, NodeId)> {
        let done = self.others.iter().find(|(_, o)| o.receipt.is_some());
        if let Some((key, _)) = done {
            return Some(key.clone());
        }
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (_, node) in self.others.keys() {
            *counts.entry(*node).or_default() += 1;
        }
        let own = counts.get(newcomer).copied().unwrap_or_default();
        let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let mut keys = self.others.keys().filter(|(_, node)| *node == most);
        keys.next_back().filter(|_| count > own + 1).cloned()
    }

    /// When something goes up next, `lag` later than from the first delegate.
    pub(crate) fn due(&self, lag: Span) -> Option<Time> {
        let open = self.open.iter().filter_map(|key| self.others.get(key));
        open.map(|o| o.due.at(lag)).min()
    }

    /// What goes up now, at most `max`, by rollout.
    pub(crate) fn offer(&mut self, max: usize, now: Time, lag: Span) -> Vec<SignedStatus> {
        let mut offers = Vec::new();
        for key in &self.open {
            if offers.len() >= max {
                break;
            }
            let Some(other) = self.others.get_mut(key) else {
                continue;
            };
            if other.due.offer(now, lag) {
                offers.push(SignedStatus::of(&other.status));
            }
        }
        offers
    }

    /// Takes a mark of a receipt in; true if it acknowledged what was open.
    pub(crate) fn acknowledge(&mut self, mark: &Mark, receipt: &Verified<Receipt>) -> bool {
        let key = (mark.rollout.clone(), mark.node);
        match self.others.get_mut(&key) {
            Some(other) if other.receipt.is_none() && mark.seq >= other.due.said => {
                other.receipt = Some(receipt.clone());
                self.open.remove(&key);
                true
            }
            _ => false,
        }
    }

    /// Receipts of an earlier epoch are worth nothing: all registers go up again.
    pub(crate) fn begin_anew(&mut self, now: Time) {
        for (key, other) in &mut self.others {
            other.receipt = None;
            other.due = Due::new(&other.status, false, now);
            self.open.insert(key.clone());
        }
        self.changed = true;
    }

    /// The receipt for a node's register, if there is one.
    pub(crate) fn receipt(&self, node: NodeId, rollout: &RolloutId) -> Option<&Verified<Receipt>> {
        let other = self.others.get(&(rollout.clone(), node))?;
        other.receipt.as_ref()
    }

    /// Whether the counts changed since [`Relay::counts`] was called last.
    pub(crate) fn changed(&self) -> bool {
        self.changed
    }

    /// The counts have to be told again.
    pub(crate) fn touch(&mut self) {
        self.changed = true;
    }

    /// What the nodes are at, by rollout.
    pub(crate) fn counts(&mut self) -> BTreeMap<RolloutId, StageCounts> {
        self.changed = false;
        let mut counts: BTreeMap<RolloutId, StageCounts> = BTreeMap::new();
        for ((rollout, _), other) in &self.others {
            counts
                .entry(rollout.clone())
                .or_default()
                .add(other.status.state);
        }
        counts
    }

    /// Drops what is acknowledged about a rollout that is over.
    pub(crate) fn forget(&mut self, rollout: &RolloutId) {
        self.others
            .retain(|(r, _), other| r != rollout || other.receipt.is_none());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Hash;
    use protocol::fixtures::{Fleet, node, node_key, rollout, seq};
    use protocol::status::State;

    struct Bench {
        fleet: Fleet,
        out: Outbox,
        relay: Relay,
    }

    impl Bench {
        fn new() -> Bench {
            Bench {
                fleet: Fleet::new(1),
                out: Outbox::default(),
                relay: Relay::default(),
            }
        }

        fn hear(&mut self, number: u64, name: &str, n: u64, state: State, now: Time) {
            let status = NodeStatus {
                fleet: self.fleet.id(),
                node: node(number),
                rollout: rollout(name),
                plan: Hash::of(b"plan"),
                release: Hash::of(b"release"),
                wave: 0,
                seq: seq(n),
                state,
                reason: String::new(),
                entered_at: Time(0),
                attempt: 1,
                install_id: Hash::of(b"install"),
                lan_bytes: 0,
                wan_bytes: 0,
                exit_code: None,
                output_tail: String::new(),
            };
            let signed = status.sign(&node_key(number));
            let status = signed.verify(self.fleet.id()).expect("signed");
            self.relay.hear(status, false, now, &mut self.out);
        }

        fn acknowledge(&mut self, number: u64, name: &str, n: u64) -> bool {
            let mark = Mark {
                node: node(number),
                rollout: rollout(name),
                seq: seq(n),
            };
            let receipt = self.fleet.receipt(vec![mark.clone()]);
            self.relay.acknowledge(&mark, &receipt)
        }

        fn holds(&self, number: u64, name: &str) -> Option<Seq> {
            let other = self.relay.others.get(&(rollout(name), node(number)));
            other.map(|other| other.status.seq)
        }
    }

    #[test]
    fn a_milestone_goes_up_once_and_what_lies_between_only_counts() {
        let mut bench = Bench::new();
        bench.hear(2, "r", 1, State::Received, Time(0));
        assert!(bench.relay.offer(9, Time(0), FEED_GATHER).is_empty());
        assert_eq!(
            bench.relay.offer(9, Time(0), Span::ZERO).len(),
            1,
            "it takes along"
        );
        assert!(
            bench.relay.offer(9, Time(0), Span::ZERO).is_empty(),
            "on its way"
        );
        bench.hear(2, "r", 2, State::Downloading, Time(1));
        assert!(bench.acknowledge(2, "r", 1));
        assert_eq!(bench.relay.due(Span::ZERO), None);
        assert!(bench.relay.changed());
        assert_eq!(bench.relay.counts()[&rollout("r")].downloading, 1);
        assert!(!bench.relay.changed());
        assert!(bench.relay.receipt(node(2), &rollout("r")).is_some());
        let begun = Time::from_secs(100);
        bench.hear(2, "r", 3, State::Installing, begun);
        assert!(bench.relay.receipt(node(2), &rollout("r")).is_none());
        assert!(
            bench.relay.offer(9, begun, Span::ZERO).is_empty(),
            "an end may come first"
        );
        assert_eq!(bench.relay.due(Span::ZERO), Some(begun + FEED_STARTED));
        bench.hear(2, "r", 4, State::RolledBack, begun);
        assert_eq!(bench.relay.due(Span::ZERO), Some(begun + FEED_URGENT));
        assert_eq!(
            bench.relay.due(FEED_GATHER),
            Some(begun + FEED_URGENT + FEED_GATHER)
        );
        assert!(!bench.acknowledge(2, "r", 3), "that was about the start");
        assert!(bench.acknowledge(2, "r", 4));
    }

    #[test]
    fn two_statuses_with_one_number_are_noted() {
        let mut bench = Bench::new();
        bench.hear(2, "r", 1, State::Received, Time(0));
        bench.hear(2, "r", 1, State::Succeeded, Time(0));
        let noted = std::iter::from_fn(|| bench.out.pop()).any(|a| {
            matches!(
                a,
                crate::contract::Action::Note {
                    event: "equivocation",
                    ..
                }
            )
        });
        assert!(noted);
    }

    #[test]
    fn acknowledged_statuses_make_room_and_the_rest_waits() {
        let mut bench = Bench::new();
        for i in 0..STATUSES_MAX {
            bench.hear(2, &format!("r{i}"), 1, State::Received, Time(0));
        }
        bench.hear(2, "late", 1, State::Received, Time(0));
        assert_eq!(bench.relay.others.len(), STATUSES_MAX);
        assert_eq!(bench.holds(2, "late"), None, "nothing makes room");
        assert!(bench.acknowledge(2, "r7", 1));
        assert!(!bench.acknowledge(2, "r7", 1), "nothing new");
        bench.hear(2, "late", 1, State::Received, Time(0));
        assert_eq!(bench.relay.others.len(), STATUSES_MAX);
        bench.hear(2, "late", 3, State::Received, Time(0));
        bench.hear(2, "late", 2, State::Received, Time(0));
        assert_eq!(
            bench.holds(2, "late"),
            Some(seq(3)),
            "the highest number wins"
        );
    }

    #[test]
    fn a_node_that_fills_all_the_room_gives_way_to_others() {
        let mut bench = Bench::new();
        for i in 0..STATUSES_MAX {
            bench.hear(2, &format!("r{i}"), 1, State::Received, Time(0));
        }
        bench.hear(3, "r", 1, State::Received, Time(0));
        bench.hear(2, "one-more", 1, State::Received, Time(0));
        assert_eq!(bench.relay.others.len(), STATUSES_MAX);
        assert_eq!(bench.relay.open.len(), STATUSES_MAX);
        assert_eq!(bench.holds(3, "r"), Some(seq(1)));
        assert_eq!(bench.holds(2, "one-more"), None);
    }
}
