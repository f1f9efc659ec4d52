//! Statuses: this node's own register for each rollout, and those of others that it keeps until the
//! coordinator has them.

use std::collections::BTreeMap;

use protocol::limits::{OUTPUT_TAIL_BYTES, STATUSES_MAX, TEXT_MAX_BYTES};
use protocol::orders::Receipt;
use protocol::status::{NodeStatus, SignedStatus, State};
use protocol::{NodeId, Now, RolloutId, Seq, Span, Time, Verified};

use crate::contract::{Action, Record, RecordKey, StatusRecord};
use crate::counters::Counters;
use crate::outbox::Outbox;

/// Unacknowledged, an own status is said again after this long; the pause doubles.
const REPEAT_MIN: Span = Span::from_secs(4);
/// See [`REPEAT_MIN`].
const REPEAT_MAX: Span = Span::from_secs(60);
/// A status that was handed to the coordinator and not acknowledged is handed over again after this.
const OFFER_AGAIN: Span = Span::from_secs(4);

/// All statuses that this node answers for.
#[derive(Default)]
pub(crate) struct Reports {
    own: BTreeMap<RolloutId, Own>,
    others: BTreeMap<(NodeId, RolloutId), Other>,
}

struct Own {
    record: StatusRecord,
    /// The number with which the present state was said first; repeats have higher ones, because
    /// gossip drops what it has seen before.
    said: Seq,
    repeat_at: Time,
    repeats: u32,
}

struct Other {
    status: Verified<NodeStatus>,
    acknowledged: bool,
    offer_at: Time,
}

impl Own {
    fn acknowledged(&self) -> bool {
        self.record.acknowledged.is_some_and(|seq| seq >= self.said)
    }
}

impl Reports {
    /// An own status that was remembered.
    pub(crate) fn restore(&mut self, record: StatusRecord) {
        let own = Own {
            said: record.status.seq,
            record,
            repeat_at: Time(0),
            repeats: 0,
        };
        self.own.insert(own.record.status.rollout.clone(), own);
    }

    /// The highest number that an own status has.
    pub(crate) fn highest(&self) -> Option<Seq> {
        self.own.values().map(|own| own.record.status.seq).max()
    }

    /// This node's newest status for a rollout.
    pub(crate) fn own(&self, rollout: &RolloutId) -> Option<&NodeStatus> {
        self.own.get(rollout).map(|own| &own.record.status)
    }

    /// Whether the coordinator has this node's newest status for a rollout.
    pub(crate) fn acknowledged(&self, rollout: &RolloutId) -> bool {
        self.own.get(rollout).is_some_and(Own::acknowledged)
    }

    /// Says `status` if it tells anything new: numbered, remembered, then gossiped. Its number and
    /// the moment of its state are filled in here.
    pub(crate) fn say(
        &mut self,
        mut status: NodeStatus,
        now: Now,
        counters: &mut Counters,
        out: &mut Outbox,
    ) {
        truncate_front(&mut status.output_tail, OUTPUT_TAIL_BYTES);
        truncate(&mut status.reason, TEXT_MAX_BYTES);
        let held = self.own.get(&status.rollout);
        if let Some(own) = held {
            let old = &own.record.status;
            let same = old.state == status.state
                && old.reason == status.reason
                && old.attempt == status.attempt
                && old.plan == status.plan
                && old.wave == status.wave;
            if same {
                return;
            }
            status.lan_bytes = status.lan_bytes.max(old.lan_bytes);
            status.wan_bytes = status.wan_bytes.max(old.wan_bytes);
        }
        let since = held
            .map(|own| &own.record.status)
            .filter(|old| old.state == status.state);
        status.entered_at = since.map_or(now.wall, |old| old.entered_at);
        status.seq = counters.draw(out);
        let acknowledged = held.and_then(|own| own.record.acknowledged);
        let own = Own {
            said: status.seq,
            record: StatusRecord {
                status,
                acknowledged,
            },
            repeat_at: Time(now.boot.0 + REPEAT_MIN.0),
            repeats: 0,
        };
        out.remember(Record::Status(own.record.clone()));
        out.push(Action::GossipStatus(own.record.status.clone()));
        self.own.insert(own.record.status.rollout.clone(), own);
    }

    /// Says again what the coordinator has not acknowledged.
    pub(crate) fn tick(&mut self, now: Now, counters: &mut Counters, out: &mut Outbox) {
        for own in self
            .own
            .values_mut()
            .filter(|own| !own.acknowledged() && own.repeat_at <= now.boot)
        {
            let pause = REPEAT_MIN
                .0
                .saturating_mul(1 << own.repeats.min(16))
                .min(REPEAT_MAX.0);
            own.repeats += 1;
            own.repeat_at = Time(now.boot.0 + pause);
            own.record.status.seq = counters.draw(out);
            out.remember(Record::Status(own.record.clone()));
            out.push(Action::GossipStatus(own.record.status.clone()));
        }
    }

    /// When [`Reports::tick`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Time> {
        self.own
            .values()
            .filter(|own| !own.acknowledged())
            .map(|own| own.repeat_at)
            .min()
    }

    /// Keeps another node's status if it is newer than the one that is held.
    pub(crate) fn hear(&mut self, status: Verified<NodeStatus>, out: &mut Outbox) {
        let key = (status.node, status.rollout.clone());
        if let Some(held) = self.others.get(&key) {
            if held.status.seq == status.seq && held.status.digest() != status.digest() {
                let line = format!(
                    "{} signed two statuses with the number {}",
                    key.0, status.seq
                );
                out.note("equivocation", line);
            }
            if held.status.seq >= status.seq {
                return;
            }
        } else if self.others.len() >= STATUSES_MAX {
            let spare = self
                .others
                .iter()
                .find(|(_, o)| o.acknowledged)
                .map(|(key, _)| key.clone());
            // Without room the newcomer waits: its node says it again until it has a receipt.
            let Some(spare) = spare.or_else(|| self.hoarded(&key.0)) else {
                return;
            };
            self.others.remove(&spare);
        }
        self.others.insert(
            key,
            Other {
                status,
                acknowledged: false,
                offer_at: Time(0),
            },
        );
    }

    /// A register of the node that has most of them, if it has more than `newcomer` would have: no
    /// node takes the room of all others by inventing rollouts.
    fn hoarded(&self, newcomer: &NodeId) -> Option<(NodeId, RolloutId)> {
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (node, _) in self.others.keys() {
            *counts.entry(*node).or_default() += 1;
        }
        let own = counts.get(newcomer).copied().unwrap_or_default();
        let (most, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        let mut keys = self.others.keys().filter(|(node, _)| *node == most);
        keys.next_back().filter(|_| count > own + 1).cloned()
    }

    /// Own statuses that the coordinator has not acknowledged, at most `max`.
    pub(crate) fn own_open(&self, max: usize) -> Vec<NodeStatus> {
        let open = self.own.values().filter(|own| !own.acknowledged());
        open.take(max)
            .map(|own| own.record.status.clone())
            .collect()
    }

    /// Statuses of others that the coordinator has not acknowledged and that are due to be handed
    /// over, at most `max`; they are not due again for a while.
    pub(crate) fn offer(&mut self, max: usize, now: Now) -> Vec<SignedStatus> {
        let due = self
            .others
            .values_mut()
            .filter(|o| !o.acknowledged && o.offer_at <= now.boot);
        due.take(max)
            .map(|other| {
                other.offer_at = Time(now.boot.0 + OFFER_AGAIN.0);
                SignedStatus::of(&other.status)
            })
            .collect()
    }

    /// Whether statuses of others are due to be handed over.
    pub(crate) fn has_offers(&self, now: Now) -> bool {
        self.others
            .values()
            .any(|o| !o.acknowledged && o.offer_at <= now.boot)
    }

    /// Takes a receipt in; true if it acknowledged anything that was open.
    pub(crate) fn acknowledge(&mut self, me: NodeId, receipt: &Receipt, out: &mut Outbox) -> bool {
        let mut new = false;
        for mark in &receipt.marks {
            if mark.node == me {
                let Some(own) = self.own.get_mut(&mark.rollout) else {
                    continue;
                };
                // No register runs ahead of its own node: such a mark is from before a loss of memory.
                let ahead = mark.seq > own.record.status.seq;
                if !ahead && own.record.acknowledged.is_none_or(|seq| seq < mark.seq) {
                    own.record.acknowledged = Some(mark.seq);
                    out.remember(Record::Status(own.record.clone()));
                    new = true;
                }
            } else if let Some(other) = self.others.get_mut(&(mark.node, mark.rollout.clone()))
                && !other.acknowledged
                && mark.seq >= other.status.seq
            {
                other.acknowledged = true;
                new = true;
            }
        }
        new
    }

    /// Own rollouts that have a status.
    pub(crate) fn rollouts(&self) -> impl Iterator<Item = &RolloutId> {
        self.own.keys()
    }

    /// Drops this node's register and those of others for a rollout that is over.
    pub(crate) fn forget(&mut self, rollout: &RolloutId, out: &mut Outbox) {
        if self.own.remove(rollout).is_some() {
            out.forget(RecordKey::Status(rollout.clone()));
        }
        self.others
            .retain(|(_, r), o| r != rollout || !o.acknowledged);
    }
}

/// The state of this node's register, if it says that nothing more is to come.
pub(crate) fn ended(status: Option<&NodeStatus>) -> Option<State> {
    status.map(|s| s.state).filter(|state| state.ended())
}

fn truncate(text: &mut String, max: usize) {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

fn truncate_front(text: &mut String, max: usize) {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.drain(..start);
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{Fleet, node, node_key, rollout, seq};
    use protocol::orders::Mark;
    use protocol::{Hash, Seq};

    fn status(fleet: &Fleet, number: u64, name: &str, n: u64) -> NodeStatus {
        NodeStatus {
            fleet: fleet.id(),
            node: node(number),
            rollout: rollout(name),
            plan: Hash::of(b"plan"),
            release: Hash::of(b"release"),
            wave: 0,
            seq: seq(n),
            state: State::Received,
            reason: String::new(),
            entered_at: Time(0),
            attempt: 1,
            install_id: Hash::of(b"install"),
            lan_bytes: 0,
            wan_bytes: 0,
            exit_code: None,
            output_tail: String::new(),
        }
    }

    #[test]
    fn acknowledged_statuses_of_others_make_room_and_the_rest_waits() {
        let fleet = Fleet::new(1);
        let mut out = Outbox::default();
        let mut reports = Reports::default();
        let signed = |name: &str, n| {
            let status = status(&fleet, 2, name, n).sign(&node_key(2));
            status.verify(fleet.id()).expect("signed")
        };
        for i in 0..STATUSES_MAX {
            reports.hear(signed(&format!("r{i}"), 1), &mut out);
        }
        reports.hear(signed("late", 1), &mut out);
        assert_eq!(reports.others.len(), STATUSES_MAX);
        let late = (node(2), rollout("late"));
        assert!(!reports.others.contains_key(&late), "nothing makes room");
        let mark = Mark {
            node: node(2),
            rollout: rollout("r7"),
            seq: seq(1),
        };
        let receipt = fleet.receipt(None, vec![mark]);
        assert!(reports.acknowledge(node(1), &receipt, &mut out));
        assert!(
            !reports.acknowledge(node(1), &receipt, &mut out),
            "nothing new"
        );
        reports.hear(signed("late", 1), &mut out);
        assert_eq!(reports.others.len(), STATUSES_MAX);
        assert!(reports.others.contains_key(&late));
        reports.hear(signed("late", 3), &mut out);
        reports.hear(signed("late", 2), &mut out);
        assert_eq!(
            reports.others[&late].status.seq,
            seq(3),
            "the highest number wins"
        );
    }

    #[test]
    fn a_node_that_fills_all_the_room_gives_way_to_others() {
        let fleet = Fleet::new(1);
        let mut out = Outbox::default();
        let mut reports = Reports::default();
        let signed = |number, name: &str| {
            let status = status(&fleet, number, name, 1).sign(&node_key(number));
            status.verify(fleet.id()).expect("signed")
        };
        for i in 0..STATUSES_MAX {
            reports.hear(signed(2, &format!("r{i}")), &mut out);
        }
        reports.hear(signed(3, "r"), &mut out);
        reports.hear(signed(2, "one-more"), &mut out);
        assert_eq!(reports.others.len(), STATUSES_MAX);
        assert!(reports.others.contains_key(&(node(3), rollout("r"))));
        let more = (node(2), rollout("one-more"));
        assert!(!reports.others.contains_key(&more));
    }

    #[test]
    fn a_status_is_repeated_until_its_state_is_acknowledged() {
        let fleet = Fleet::new(1);
        let mut out = Outbox::default();
        let mut counters = Counters::new(None, None, 1);
        let mut reports = Reports::default();
        let at = |s| Now {
            boot: Time::from_secs(s),
            wall: Time::from_secs(s),
        };
        let mut said = status(&fleet, 1, "r", 0);
        said.reason = "é".repeat(TEXT_MAX_BYTES);
        said.output_tail = "ü".repeat(TEXT_MAX_BYTES);
        reports.say(said.clone(), at(0), &mut counters, &mut out);
        let first: Seq = reports.own_open(9)[0].seq;
        assert!(reports.own_open(9)[0].reason.len() <= TEXT_MAX_BYTES);
        assert!(reports.own_open(9)[0].output_tail.len() <= OUTPUT_TAIL_BYTES);
        reports.tick(at(5), &mut counters, &mut out);
        let second = reports.own_open(9)[0].seq;
        assert!(second > first, "gossip drops what it has seen");
        let ahead = Seq {
            epoch: 1,
            n: second.n + 1,
        };
        let mut receive = |seq| {
            let mark = Mark {
                node: node(1),
                rollout: rollout("r"),
                seq,
            };
            let receipt = fleet.receipt(None, vec![mark]);
            reports.acknowledge(node(1), &receipt, &mut out)
        };
        assert!(!receive(ahead), "no register runs ahead of its node");
        assert!(receive(first), "the state is the same since then");
        assert!(reports.acknowledged(&rollout("r")));
        assert_eq!(reports.timeout(), None);
        said.state = State::Succeeded;
        reports.say(said, at(9), &mut counters, &mut out);
        assert!(!reports.acknowledged(&rollout("r")));
    }
}
