//! What comes up from the fleet: enrolments, presence, statuses. Only enrolled nodes that are not
//! revoked are heard, and only what is stored or already superseded is acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use protocol::inventory::NodeInventory;
use protocol::limits::{NODES_MAX, UPLINK_STATUSES_MAX};
use protocol::orders::Mark;
use protocol::status::{NodeStatus, SignedStatus, State};
use protocol::wire::Presence;
use protocol::{NodeId, RolloutId, Seq, SiteId, Verified};

use crate::conductor::Conductor;
use crate::contract::{Action, Enrolled, LedgerEvent, Uplink};
use crate::fold::{is_out, last_state};
use crate::register::Register;

/// New epochs of one node from which on two machines are suspected.
const EPOCHS_ALARM: u32 = 3;

/// Joiners and leavers of one rollout.
type Change = (Vec<(NodeId, u32)>, Vec<(NodeId, String)>);

impl Conductor {
    pub(crate) fn enrol(&mut self, enrolled: Enrolled) {
        let node = enrolled.node;
        if !self.fleet.has_room_for(&node) {
            self.note(
                "fleet_full",
                format!("node {node} is not taken in: the fleet is full"),
            );
            return;
        }
        self.record(LedgerEvent::Enrolled(enrolled));
        self.place(node);
    }

    /// Takes in what a node says of itself; what it said before is no news.
    pub(crate) fn described(&mut self, inventory: &Verified<NodeInventory>) {
        let Some(node) = self.fleet.admitted(&inventory.node) else {
            let line = format!(
                "the inventory of {} is ignored: not enrolled",
                inventory.node
            );
            return self.note("not_enrolled", line);
        };
        let same = *node.labels == inventory.labels && *node.attributes == inventory.attributes;
        if same || node.described >= inventory.seq {
            return;
        }
        let envelope = inventory.envelope().clone();
        self.record(LedgerEvent::Inventory { envelope });
        self.place(inventory.node);
    }

    pub(crate) fn introduced(&mut self, me: &Presence) {
        let now = self.now;
        let moved = self.fleet.introduced(me, now);
        self.moved(moved);
    }

    fn moved(&mut self, moved: Option<(NodeId, Option<SiteId>)>) {
        if let Some((node, site)) = moved {
            self.record(LedgerEvent::Moved { node, site });
            self.place(node);
        }
    }

    /// Puts a node where the plans have it: a later joiner becomes a target of what is alive, one that
    /// moved changes its wave or leaves. Whoever has an outcome keeps its place.
    fn place(&mut self, id: NodeId) {
        let Some(node) = self.fleet.admitted(&id) else {
            return;
        };
        let mut changes: Vec<(RolloutId, Change)> = Vec::new();
        for (rollout, held) in self.rollouts.iter().filter(|(_, r)| r.is_alive()) {
            let out = last_state(&self.fleet, &id, rollout).is_some_and(is_out);
            let wave = held.wave_of(&id, node).filter(|_| !out);
            match (held.targets.get(&id), wave) {
                (None, Some(wave)) => changes.push((rollout.clone(), (vec![(id, wave)], vec![]))),
                (Some(t), Some(wave)) if t.wave != wave && !t.state.ended() => {
                    changes.push((rollout.clone(), (vec![(id, wave)], vec![])));
                }
                (Some(t), None) if !t.state.ended() && !t.state.started() => {
                    let why = "its site, or what it says of itself, is not meant any more";
                    let why = why.to_owned();
                    changes.push((rollout.clone(), (vec![], vec![(id, why)])));
                }
                _ => {}
            }
        }
        for (rollout, (joined, left)) in changes {
            self.record(LedgerEvent::Targets {
                rollout,
                joined,
                left,
            });
        }
    }

    pub(crate) fn uplink(&mut self, uplink: &Uplink) {
        let (ticket, from, now) = (uplink.ticket, uplink.from, self.now);
        if self.fleet.admitted(&from).is_none() {
            // an origin asks for orders the same way, and has nothing to tell
            if !self.fleet.origins.contains(&from) {
                let line = format!("an uplink of {from} is ignored: not enrolled");
                self.note("not_enrolled", line);
            }
            return self.act(Action::Acknowledge {
                ticket,
                marks: Vec::new(),
                known: true,
            });
        }
        match &uplink.me {
            Some(me) => self.introduced(me),
            None => self.fleet.spoke(&from, now),
        }
        let node = self.fleet.admitted(&from);
        let presence = node.and_then(|n| n.presence.as_ref());
        let mut known = presence.is_some();
        let site = presence.and_then(|p| p.site.clone());
        if let (Some(site), Some(roster)) = (&site, &uplink.roster) {
            let members = self.feeds.change(site, roster);
            known &= members.is_some();
            let members: Vec<NodeId> = members.into_iter().flatten().copied().collect();
            for moved in self.fleet.witnessed(&from, &members, Some(site), now) {
                self.moved(Some(moved));
            }
            let told = uplink.stages.as_ref();
            if let Some(stages) = told.filter(|s| s.site.as_ref() == Some(site)) {
                self.feeds.count(site, from, stages);
            }
        }
        let marks = self.take_statuses(&uplink.statuses);
        self.act(Action::Acknowledge {
            ticket,
            marks,
            known,
        });
    }

    /// Stores what is new and tells up to where each register is durable.
    fn take_statuses(&mut self, statuses: &[Verified<NodeStatus>]) -> Vec<Mark> {
        let mut newest: BTreeMap<(NodeId, RolloutId), &Verified<NodeStatus>> = BTreeMap::new();
        let mut marks: BTreeMap<(NodeId, RolloutId), Seq> = BTreeMap::new();
        let mut dropped: Vec<String> = Vec::new();
        let mut equivocations: Vec<String> = Vec::new();
        for status in statuses.iter().take(UPLINK_STATUSES_MAX) {
            let key = (status.node, status.rollout.clone());
            match self.held_seq(status) {
                Err(why) => dropped.push(format!("status of {} is dropped: {why}", status.node)),
                Ok(held) if held.is_some_and(|held| held >= status.seq) => {
                    if self.equivocates(status) {
                        let line = format!(
                            "{} signed two statuses with the number {}",
                            status.node, status.seq
                        );
                        equivocations.push(line);
                        // Past its own number: an honest node whose disk was put back begins anew by this.
                        marks.entry(key).or_insert(status.seq.next());
                        continue;
                    }
                    marks.entry(key).or_insert(held.unwrap_or_default());
                }
                Ok(_) => {
                    let slot = newest.entry(key.clone()).or_insert(status);
                    if slot.seq < status.seq {
                        *slot = status;
                    }
                    marks.insert(key, slot.seq);
                }
            }
        }
        if let Some(first) = dropped.first() {
            self.note(
                "status_dropped",
                format!("{first} ({} in all)", dropped.len()),
            );
        }
        for line in equivocations {
            self.note("equivocation", line);
        }
        let begun: BTreeSet<(NodeId, u32)> = newest
            .values()
            .filter(|status| self.begins_anew(status))
            .map(|status| (status.node, status.seq.epoch))
            .collect();
        for (node, epoch) in begun {
            self.begun_anew(node, epoch);
        }
        self.change_targets(newest.values().copied());
        if !newest.is_empty() {
            let statuses = newest.values().map(|s| SignedStatus::of(s)).collect();
            let claim = |s: &&&Verified<NodeStatus>| s.state == State::Succeeded;
            let claims = newest.values().filter(claim).map(|s| s.node).collect();
            self.record(LedgerEvent::Statuses { statuses });
            self.reconsider(&claims);
        }
        marks
            .into_iter()
            .map(|((node, rollout), seq)| Mark { node, rollout, seq })
            .collect()
    }

    /// The number that is held of a status' register, or why the status is not taken.
    fn held_seq(&self, status: &NodeStatus) -> Result<Option<Seq>, String> {
        let node = self
            .fleet
            .nodes
            .get(&status.node)
            .ok_or("it is not enrolled")?;
        if node.revoked {
            return Err("its certificate was revoked".into());
        }
        let rollout = self
            .rollouts
            .get(&status.rollout)
            .ok_or_else(|| format!("there is no rollout {}", status.rollout))?;
        if rollout.digest != status.plan {
            return Err(format!(
                "its plan is not that of rollout {}",
                status.rollout
            ));
        }
        Ok(node.statuses.get(&status.rollout).map(|s| s.seq))
    }

    /// Whether another status with the same number is held. The first stands.
    fn equivocates(&self, status: &NodeStatus) -> bool {
        let node = self.fleet.nodes.get(&status.node);
        let held = node.and_then(|n| n.statuses.get(&status.rollout));
        let same = |held: &Register| *held == Register::of(held.rollout.clone(), status);
        held.is_some_and(|held| held.seq == status.seq && !same(held))
    }

    /// Whether a status is of a later epoch than what is held of its register.
    fn begins_anew(&self, status: &NodeStatus) -> bool {
        let node = self.fleet.nodes.get(&status.node);
        let held = node.and_then(|n| n.statuses.get(&status.rollout));
        held.is_some_and(|held| held.seq.epoch < status.seq.epoch)
    }

    /// A node that was put back to an earlier time goes on in a new epoch, once. Two machines with one key
    /// outdo each other in epochs, and neither can hide it.
    fn begun_anew(&mut self, node: NodeId, epoch: u32) {
        if self.begun.len() >= NODES_MAX && !self.begun.contains_key(&node) {
            return;
        }
        let times = self.begun.entry(node).or_default();
        *times = times.saturating_add(1);
        let (event, line) = match *times {
            ..EPOCHS_ALARM => (
                "reverted",
                format!(
                    "{node} goes on in epoch {epoch}: its disk was put back to an earlier time"
                ),
            ),
            times => (
                "cloned",
                format!(
                    "{node} began {times} epochs, the last is {epoch}: two machines may have its key; \
                     `tidegate nodes --revoke {node}` and enrol both"
                ),
            ),
        };
        self.note(event, line);
    }

    /// Ledgers who leaves the targets by what it reports, and who comes back, before the statuses
    /// themselves, so that the counts add up after every single event.
    fn change_targets<'a>(&mut self, statuses: impl Iterator<Item = &'a Verified<NodeStatus>>) {
        let mut changes: BTreeMap<RolloutId, Change> = BTreeMap::new();
        for status in statuses {
            let Some(rollout) = self.rollouts.get(&status.rollout) else {
                continue;
            };
            let is_target = rollout.targets.contains_key(&status.node);
            let (joined, left) = match (is_target, is_out(status.state)) {
                (true, true) => (None, Some(format!("{:?}: {}", status.state, status.reason))),
                (false, false) if rollout.is_alive() => {
                    let node = self.fleet.nodes.get(&status.node);
                    let wave = node.and_then(|node| rollout.wave_of(&status.node, node));
                    (wave, None)
                }
                _ => continue,
            };
            let change = changes.entry(status.rollout.clone()).or_default();
            change.0.extend(joined.map(|wave| (status.node, wave)));
            change.1.extend(left.map(|why| (status.node, why)));
        }
        for (rollout, (joined, left)) in changes {
            if !joined.is_empty() || !left.is_empty() {
                self.record(LedgerEvent::Targets {
                    rollout,
                    joined,
                    left,
                });
            }
        }
    }
}
