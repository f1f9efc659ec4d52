//! What must hold at every action, told by an observer who knows nothing of the brain's inside.

use std::collections::BTreeMap;

use protocol::orders::OrderBody;
use protocol::plan::RolloutPlan;
use protocol::status::assess_id;
use protocol::trust::{Role, RoleKeys};
use protocol::wire::SiteMessage;
use protocol::{Hash, Now, RolloutId, Seq, Time, Verified};

use crate::contract::{Action, Boundary, Config, Event, Record, RecordKey, Step};

/// The observer. It outlives the brain's crashes.
pub(crate) struct Checker {
    plans: BTreeMap<RolloutId, Verified<RolloutPlan>>,
    /// The newest order about each thing that was handed in and is on the node's disk.
    leases: BTreeMap<RolloutId, (Seq, u32, Time, Hash, Time)>,
    holds: BTreeMap<RolloutId, (Seq, bool)>,
    recalled: Vec<RolloutId>,
    last_status: BTreeMap<RolloutId, Seq>,
    last_presence: Option<Seq>,
    /// Whose orders count.
    online: Option<RoleKeys>,
    /// How often a switch was asked for.
    pub(crate) switches: usize,
}

impl Checker {
    pub(crate) fn new(plans: &[&Verified<RolloutPlan>]) -> Checker {
        Checker {
            plans: plans
                .iter()
                .map(|p| (p.rollout.clone(), (*p).clone()))
                .collect(),
            leases: BTreeMap::new(),
            holds: BTreeMap::new(),
            recalled: Vec::new(),
            last_status: BTreeMap::new(),
            last_presence: None,
            online: None,
            switches: 0,
        }
    }

    /// Another plan comes into play.
    pub(crate) fn learn(&mut self, plan: &Verified<RolloutPlan>) {
        self.plans.insert(plan.rollout.clone(), plan.clone());
    }

    /// An event is about to be handed in.
    pub(crate) fn event(&mut self, event: &Event, config: &Config, now: Now) {
        if let Event::Root(root) = event {
            let online = root.role(Role::Coordinator).cloned();
            if self.online.is_some() && self.online != online {
                self.leases.clear();
                self.holds.clear();
            }
            self.online = online;
        }
        if let Event::Order(order, recall) = event {
            let newer = |held: Option<Seq>| held.is_none_or(|held| order.seq > held);
            match &order.body {
                OrderBody::GoLease {
                    rollout,
                    wave,
                    not_after,
                    ..
                } if newer(self.leases.get(rollout).map(|l| l.0)) => {
                    let lease = (order.seq, *wave, now.boot, config.boot_id, *not_after);
                    self.leases.insert(rollout.clone(), lease);
                }
                OrderBody::Halt { rollout, .. } | OrderBody::Resume { rollout }
                    if newer(self.holds.get(rollout).map(|h| h.0)) =>
                {
                    let halted = matches!(order.body, OrderBody::Halt { .. });
                    self.holds.insert(rollout.clone(), (order.seq, halted));
                }
                OrderBody::Recall { rollout, .. } if recall.is_some() => {
                    self.recalled.push(rollout.clone());
                }
                _ => {}
            }
        }
    }

    /// After a crash only what was remembered counts: an order that was handed in and lost may come
    /// again, and then anew.
    pub(crate) fn crashed(&mut self, disk: &BTreeMap<RecordKey, Record>) {
        self.leases.retain(|rollout, lease| {
            let Some(Record::Lease(kept)) = disk.get(&RecordKey::Lease(rollout.clone())) else {
                return false;
            };
            // The one before may have been remembered when the newest was lost.
            *lease = (
                kept.seq,
                kept.wave,
                kept.received,
                kept.boot_id,
                kept.not_after,
            );
            true
        });
        let seq_of = |key: RecordKey| match disk.get(&key) {
            Some(Record::Order(order)) => Some(order.seq),
            _ => None,
        };
        self.holds.retain(|rollout, hold| {
            let subject = protocol::orders::Subject::Hold(rollout.clone());
            seq_of(RecordKey::Order(subject)) == Some(hold.0)
        });
        self.recalled
            .retain(|rollout| disk.contains_key(&RecordKey::Recall(rollout.clone())));
    }

    /// An action is about to be carried out.
    pub(crate) fn action(
        &mut self,
        action: &Action,
        disk: &BTreeMap<RecordKey, Record>,
        config: &Config,
        now: Now,
    ) {
        match action {
            // Whether a release is needed is no installation.
            Action::Step {
                install_id,
                release,
                step: Step::Detect,
                ..
            } if *install_id == assess_id(&config.node, &release.digest()) => {}
            Action::Step {
                install_id, step, ..
            } => {
                let journal = disk.values().find_map(|record| match record {
                    Record::Journal(journal) if journal.install_id == *install_id => Some(journal),
                    _ => None,
                });
                let journal = journal.expect("a step comes after its journal");
                let expected: &[Boundary] = match step {
                    Step::WriteSlot => &[Boundary::SlotIntent],
                    Step::PreHook(_) => &[Boundary::PreHook],
                    Step::PostHook(_) => &[Boundary::PostHook],
                    Step::Switch => &[Boundary::SwitchIntent],
                    Step::Detect => &[Boundary::SwitchIntent, Boundary::RestartArmed],
                    Step::Restart => &[Boundary::RestartArmed, Boundary::RolledBack],
                    Step::Keep => &[Boundary::RestartArmed],
                    Step::CheckHealth => &[
                        Boundary::Switched,
                        Boundary::PostHooked,
                        Boundary::RestartArmed,
                        Boundary::Healthy,
                    ],
                    Step::CleanUp => &[Boundary::Committed],
                    Step::RollBack | Step::Discard => &[Boundary::RollingBack],
                };
                assert!(
                    expected.contains(&journal.at),
                    "{step:?} at {:?}",
                    journal.at
                );
                if *step == Step::Switch {
                    self.switches += 1;
                    self.leave_to_switch(&journal.rollout, disk, config, now);
                }
            }
            Action::GossipStatus(status) => {
                let kept = disk.get(&RecordKey::Status(status.rollout.clone()));
                let Some(Record::Status(kept)) = kept else {
                    panic!("said before remembered")
                };
                assert_eq!(kept.status, **status, "what is said is what is remembered");
                let last = self.last_status.insert(status.rollout.clone(), status.seq);
                assert!(
                    last.is_none_or(|last| last < status.seq),
                    "the register rises"
                );
            }
            Action::Gossip(SiteMessage::Order(envelope)) => {
                let digest = envelope.digest();
                let kept = disk
                    .values()
                    .any(|r| matches!(r, Record::Order(o) if o.digest() == digest));
                assert!(kept, "an order is remembered before it is handed on");
            }
            Action::Gossip(SiteMessage::Presence(presence)) => {
                let rises = self.last_presence.is_none_or(|last| last < presence.seq);
                assert!(
                    rises,
                    "presence {} after {:?}",
                    presence.seq, self.last_presence
                );
                self.last_presence = Some(presence.seq);
            }
            _ => {}
        }
    }

    fn leave_to_switch(
        &self,
        rollout: &RolloutId,
        disk: &BTreeMap<RecordKey, Record>,
        config: &Config,
        now: Now,
    ) {
        let plan = &self.plans[rollout];
        let (_, wave, received, boot, not_after) = self.leases.get(rollout).expect("a lease");
        assert_eq!(*boot, config.boot_id, "a lease ends with its boot");
        assert!(
            now.boot < Time(received.0 + plan.lease_ttl.0),
            "the lease is live"
        );
        assert!(now.wall < *not_after, "the lease's last day");
        let mine = plan.wave_of(&config.node, None).expect("a wave");
        assert!(mine <= *wave, "the wave is open");
        assert!(
            now.wall >= plan.waves[mine as usize].not_before,
            "the wave's floor"
        );
        assert!(now.wall < plan.not_after, "the plan's last day");
        assert!(
            self.holds.get(rollout).is_none_or(|h| !h.1),
            "no switch in a halt"
        );
        assert!(!self.recalled.contains(rollout), "no switch after a recall");
        let bulletin = disk.get(&RecordKey::Order(protocol::orders::Subject::Bulletin));
        let Some(Record::Order(order)) = bulletin else {
            panic!("no switch without a bulletin")
        };
        let OrderBody::Bulletin(bulletin) = &order.body else {
            panic!("a bulletin")
        };
        assert!(now.wall < bulletin.expires, "the bulletin is fresh");
    }
}
