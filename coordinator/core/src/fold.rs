//! The fold: what each event of the ledger does to the view. A replay and the live conductor take the
//! same way, so they cannot differ.

use protocol::inventory::NodeInventory;
use protocol::lift::Lift;
use protocol::orders::{Order, OrderBody};
use protocol::plan::RolloutPlan;
use protocol::status::{Bucket, NodeStatus, Reachability, State, bucket};
use protocol::versioned::Versioned;
use protocol::{NodeId, RolloutId, Time};

use crate::conductor::Conductor;
use crate::contract::{LedgerEvent, RolloutState};
use crate::fleet::{Fleet, Held, Node};
use crate::regain::Regain;
use crate::rollout::Rollout;
use crate::stopping::Stop;

impl Conductor {
    /// Folds one event.
    pub(crate) fn fold(&mut self, event: &LedgerEvent) {
        let boot = self.now.boot;
        match event {
            LedgerEvent::Epoch { epoch } => {
                self.orders.open_epoch(*epoch);
                self.regain.iter_mut().for_each(|r| r.conclude());
            }
            LedgerEvent::Restored { .. } => {
                self.regain = Some(Box::new(Regain::since(self.orders.head())));
            }
            LedgerEvent::Regained { plan } => {
                if let Some(held) = Held::<RolloutPlan>::read(plan) {
                    let rollout = Rollout::approved(held.value, plan);
                    self.rollouts.insert(rollout.plan.rollout.clone(), rollout);
                }
            }
            // The body holds the certificates.
            LedgerEvent::Barred { .. }
            | LedgerEvent::Renewed { .. }
            | LedgerEvent::Warranted { .. }
            | LedgerEvent::TokenMade(_)
            | LedgerEvent::Admitted { .. } => {}
            LedgerEvent::Enrolled(enrolled) => self.fleet.enrol(enrolled),
            LedgerEvent::Revoked { node, .. } => self.fleet.revoke(node),
            LedgerEvent::Moved { node, site } => self.fleet.place(node, site.as_ref()),
            LedgerEvent::Inventory { envelope } => {
                if let Ok(inventory) = NodeInventory::from_bytes(&envelope.payload) {
                    self.fleet.describe(&inventory);
                }
            }
            // The body holds the chain and says at the start which root is in force.
            LedgerEvent::Rooted { .. } => {}
            LedgerEvent::Topology { envelope } => {
                self.fleet.topology = Held::read(envelope).or(self.fleet.topology.take());
            }
            LedgerEvent::Released { envelope } => {
                if let Some(release) = Held::read(envelope) {
                    self.releases.insert(release.digest, release);
                }
            }
            LedgerEvent::Proposed { plan, .. } => {
                self.rollouts
                    .insert(plan.rollout.clone(), Rollout::proposed((**plan).clone()));
            }
            LedgerEvent::Order(order) => self.fold_order(order),
            LedgerEvent::Statuses { statuses } => {
                for signed in statuses {
                    if let Ok(status) = NodeStatus::from_bytes(&signed.body) {
                        self.fold_status(&status, boot);
                    }
                }
            }
            LedgerEvent::Approved { rollout, .. }
            | LedgerEvent::State { rollout, .. }
            | LedgerEvent::Enlisted { rollout, .. }
            | LedgerEvent::Targets { rollout, .. }
            | LedgerEvent::WaveOpened { rollout, .. }
            | LedgerEvent::Dawned { rollout, .. }
            | LedgerEvent::Verdict { rollout, .. }
            | LedgerEvent::Cleared { rollout, .. }
            | LedgerEvent::CohortHeld { rollout, .. }
            | LedgerEvent::CohortReleased { rollout, .. }
            | LedgerEvent::Problem { rollout, .. }
            | LedgerEvent::Witnessed { rollout, .. }
            | LedgerEvent::Silent { rollout, .. } => {
                if let Some(held) = self.rollouts.get_mut(rollout) {
                    fold_rollout(held, &self.fleet, event, boot);
                }
            }
            LedgerEvent::HaltedAll { why, at } => {
                let why = why.clone();
                self.stopped = Some(Stop { why, at: *at });
            }
            LedgerEvent::Assessing {
                release,
                until,
                within,
                at,
            } => self.assessments.fold(*release, *until, *within, *at),
            LedgerEvent::InstalledByHand(note) => self.fold_by_hand(note),
            // The halt of a rollout ends with the state that it gets after this.
            LedgerEvent::Lifted { envelope } => {
                let lift = Held::<Lift>::read(envelope);
                if lift.is_some_and(|lift| lift.value.rollout.is_none()) {
                    self.stopped = None;
                }
            }
            LedgerEvent::Recalled { envelope } => {
                let recall = Held::<protocol::plan::Recall>::read(envelope);
                if let Some(held) = recall.and_then(|r| self.rollouts.get_mut(&r.value.rollout)) {
                    held.recall = Some(envelope.clone());
                }
            }
        }
    }

    fn fold_order(&mut self, order: &Order) {
        self.orders.fold(order);
        let boot = self.now.boot;
        if let OrderBody::GoLease { rollout, below, .. } = &order.body
            && let Some(held) = self.rollouts.get_mut(rollout)
        {
            held.fold_lease(*below, boot);
        }
        if let OrderBody::Bulletin(bulletin) = &order.body {
            use RolloutState as S;
            for rollout in self.rollouts.values_mut() {
                let listed = bulletin
                    .rollouts
                    .iter()
                    .any(|r| r.rollout == rollout.plan.rollout);
                let ended = matches!(rollout.state, S::Finished | S::Aborted | S::Recalled);
                if ended && !listed {
                    rollout.retired = true;
                    self.orders.forget(&rollout.plan.rollout);
                }
            }
        }
    }

    fn fold_status(&mut self, status: &NodeStatus, boot: Time) {
        if !self.fleet.hold(status) {
            return;
        }
        if let Some(rollout) = self.rollouts.get_mut(&status.rollout) {
            rollout.fold_target_state(&status.node, status.state, boot);
        }
    }
}

/// Folds an event about one rollout.
fn fold_rollout(rollout: &mut Rollout, fleet: &Fleet, event: &LedgerEvent, boot: Time) {
    match event {
        LedgerEvent::Approved {
            by,
            envelope,
            complete,
            ..
        } => {
            rollout.envelope = envelope.clone();
            if !rollout.approved_by.contains(by) {
                rollout.approved_by.push(*by);
            }
            if *complete {
                rollout.fold_state(RolloutState::Ready, "approved; not started");
            }
        }
        LedgerEvent::State { state, why, at, .. } => {
            rollout.fold_state(*state, why);
            rollout.since = *at;
        }
        LedgerEvent::Enlisted { except, .. } => {
            let joined = enlisted(rollout, fleet, except);
            fold_joined(rollout, fleet, &joined, boot);
        }
        LedgerEvent::Targets { joined, left, .. } => {
            left.iter().for_each(|(node, _)| rollout.fold_left(node));
            fold_joined(rollout, fleet, joined, boot);
        }
        LedgerEvent::WaveOpened { wave, at, .. } => rollout.fold_opened(*wave, *at),
        LedgerEvent::Dawned { day, .. } => rollout.fold_dawn(*day),
        LedgerEvent::Verdict {
            wave, verdict, at, ..
        } => {
            rollout.fold_verdict(*wave, *verdict, *at);
        }
        LedgerEvent::Cleared { cohort, .. } => rollout.fold_cleared(*cohort),
        LedgerEvent::CohortHeld { cohort, .. } => rollout.fold_cohort_held(*cohort),
        LedgerEvent::CohortReleased { cohort, .. } => rollout.fold_cohort_released(*cohort),
        LedgerEvent::Problem { node, .. } => rollout.fold_problem(node),
        LedgerEvent::Witnessed { silent, back, .. } => {
            rollout.fold_witnessed(silent, back, boot);
        }
        LedgerEvent::Silent { nodes, .. } => {
            for node in nodes {
                rollout.fold_target_state(node, State::MissingReport, boot);
            }
        }
        _ => {}
    }
}

fn fold_joined(rollout: &mut Rollout, fleet: &Fleet, joined: &[(NodeId, u32)], boot: Time) {
    for (node, wave) in joined {
        let state = last_state(fleet, node, &rollout.plan.rollout);
        let state = state.filter(|s| !is_out(*s)).unwrap_or(State::NotReceived);
        let traits = fleet.nodes.get(node).map(|n| rollout.traits(n));
        rollout.fold_joined(*node, *wave, traits.unwrap_or_default(), state, boot);
    }
}

/// Everyone whom a rollout concerns by its plan, with the wave: all that are enrolled and not revoked at
/// this place of the ledger, but for these.
pub(crate) fn enlisted(rollout: &Rollout, fleet: &Fleet, except: &[NodeId]) -> Vec<(NodeId, u32)> {
    let there = |(id, node): &(&NodeId, &Node)| !node.revoked && !except.contains(id);
    let waved = |(id, node): (&NodeId, &Node)| Some((*id, rollout.wave_of(id, node)?));
    fleet.nodes.iter().filter(there).filter_map(waved).collect()
}

/// A node's last word about a rollout.
pub(crate) fn last_state(fleet: &Fleet, node: &NodeId, rollout: &RolloutId) -> Option<State> {
    fleet
        .nodes
        .get(node)?
        .statuses
        .get(rollout)
        .map(|s| s.state)
}

/// Whether a state takes a node out of the targets.
pub(crate) fn is_out(state: State) -> bool {
    bucket(state, Reachability::Reachable) == Bucket::Out
}
