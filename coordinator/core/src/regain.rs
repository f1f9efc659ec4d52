//! After a restore: a ledger from a backup lacks what came after it, and the fleet has it.
//!
//! A restored coordinator first listens. It numbers no order, because nodes hold higher numbers than it
//! knows, and tells no bulletin, because what that does not name the nodes would take for over. Each site
//! that reports is asked for the orders after the ledger's last one, and for the plans and releases that
//! the newest bulletin among them names; signatures decide what is believed. Once every site was heard,
//! or after [`REGAIN_MAX`], a new epoch is opened past the newest number that was found, what was found
//! is taken over, and everything is said again in that epoch. Nodes that see a new epoch say their
//! statuses again, so the counts become what they are.
//!
//! What stops is believed of the online key alone, what goes on is not: a rollout that the fleet has as
//! halted is halted here until operators lift it, one that is halted here stays so. A rollout that ran
//! here and had left the fleet's bulletin is halted, too: how it ended is not known.
//!
//! Who was cut off meanwhile and comes later with a halt, a recall or a rollout of the lost time is heard
//! all the same.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::REGAIN_MAX;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Bulletin, Order, OrderBody, RolloutHead, Subject};
use protocol::plan::{Recall, RolloutPlan};
use protocol::topology::Topology;
use protocol::{Hash, NodeId, RolloutId, Seq, SiteId, Time, Verified};

use crate::conductor::Conductor;
use crate::contract::{LedgerEvent, RolloutState, Testimony};

/// What was heard since the ledger was restored.
#[derive(Default)]
pub(crate) struct Regain {
    /// The last order that the restored ledger has.
    since: Seq,
    /// No order is given before all sites were heard.
    listening: bool,
    /// Boot time until which it listens at most.
    until: Time,
    sites: BTreeSet<SiteId>,
    /// The newest about each subject, all above `since`.
    orders: BTreeMap<Subject, Order>,
    newest: Seq,
    recalls: BTreeMap<Hash, Verified<Recall>>,
    plans: BTreeMap<Hash, Verified<RolloutPlan>>,
    releases: BTreeMap<Hash, Verified<ReleaseManifest>>,
    topology: Option<Verified<Topology>>,
}

impl Regain {
    /// Nothing heard of what came after this order.
    pub(crate) fn since(since: Seq) -> Regain {
        Regain {
            since,
            listening: true,
            ..Regain::default()
        }
    }

    /// A new epoch is open.
    pub(crate) fn conclude(&mut self) {
        self.listening = false;
    }

    /// Takes orders and documents in. Gives the subjects of which it brought a newer order.
    fn take(&mut self, testimony: Testimony) -> BTreeSet<Subject> {
        let mut news = BTreeSet::new();
        for order in testimony.orders {
            let subject = order.body.subject();
            let held = self.orders.get(&subject).map_or(self.since, |o| o.seq);
            self.newest = self.newest.max(order.seq);
            if order.seq > held {
                self.orders.insert(subject.clone(), (*order).clone());
                news.insert(subject);
            }
        }
        let recalls = testimony.recalls.into_iter();
        self.recalls.extend(recalls.map(|r| (r.digest(), r)));
        let plans = testimony.plans.into_iter();
        self.plans.extend(plans.map(|p| (p.digest(), p)));
        let releases = testimony.releases.into_iter();
        self.releases.extend(releases.map(|r| (r.digest(), r)));
        let version = self.topology.as_ref().map(|t| t.version);
        let topology = testimony.topology;
        let newer = topology.filter(|t| version.is_none_or(|v| v < t.version));
        self.topology = newer.or(self.topology.take());
        news
    }

    fn bulletin(&self) -> Option<&Bulletin> {
        match &self.orders.get(&Subject::Bulletin)?.body {
            OrderBody::Bulletin(bulletin) => Some(bulletin),
            _ => None,
        }
    }
}

impl Conductor {
    /// Orders after which a node that has its orders up to `head` is to be asked for what it has; `None`
    /// if there is nothing to learn of it.
    pub fn asks_for(&self, head: Seq) -> Option<Seq> {
        let regain = self.regain.as_deref()?;
        let lost = head > regain.since && head.epoch < self.orders.next().epoch;
        (regain.listening || lost).then_some(regain.since)
    }

    /// What of a rollout in a bulletin is not known here: its plan with all signatures, its release.
    pub fn lacks(&self, head: &RolloutHead) -> (bool, bool) {
        let held = self.rollouts.get(&head.rollout);
        let plan = held.is_none_or(|r| is_open(r.state) && r.digest == head.plan);
        (plan, !self.releases.contains_key(&head.release))
    }

    pub(crate) fn listens(&self) -> bool {
        self.regain.as_ref().is_some_and(|r| r.listening)
    }

    /// Boot time until which it listens at most, if it does.
    pub(crate) fn listens_until(&self) -> Option<Time> {
        let regain = self.regain.as_ref().filter(|r| r.listening)?;
        Some(regain.until)
    }

    /// Seconds for which it still listens at most, if it does.
    pub(crate) fn listens_for(&self) -> Option<u64> {
        let until = self.listens_until()?;
        Some(until.since(self.now.boot).0.div_ceil(1000))
    }

    /// True if the ledger was restored and the fleet has to be heard first.
    pub(crate) fn begin_listening(&mut self) -> bool {
        let until = self.now.boot + REGAIN_MAX;
        let Some(regain) = self.regain.as_mut().filter(|r| r.listening) else {
            return false;
        };
        regain.until = until;
        let line = "the ledger was restored: no order is given until every site was heard";
        self.note("restored", line.into());
        self.stop_listening_if_due();
        true
    }

    /// Takes in what a node has.
    pub(crate) fn hear(&mut self, testimony: Testimony) {
        let site = self.fleet.nodes.get(&testimony.from);
        let site = site.and_then(|n| n.site.as_deref().cloned());
        let known = |node: &NodeId| self.fleet.nodes.get(node).is_some_and(|n| !n.revoked);
        let revoked: Vec<NodeId> = testimony.revoked.iter().copied().filter(known).collect();
        for node in revoked {
            // Refused only if it is not enrolled.
            let _ = self.revoke(node, "it is on the fleet's revocation list".into());
        }
        if let Some((serials, number)) = testimony.barred.clone() {
            self.record(LedgerEvent::Barred { serials, number });
        }
        let Some(regain) = &mut self.regain else {
            return;
        };
        let news = regain.take(testimony);
        regain.sites.extend(site);
        match regain.listening {
            true => self.stop_listening_if_due(),
            false => self.take_over(Some(&news)),
        }
    }

    /// Ends the listening if every site was heard or its time is over.
    pub(crate) fn stop_listening_if_due(&mut self) {
        let Some(regain) = self.regain.as_ref().filter(|r| r.listening) else {
            return;
        };
        let peopled = self.fleet.sites.keys();
        let all = peopled.clone().all(|site| regain.sites.contains(&**site));
        let nobody = self.fleet.all_admitted().next().is_none();
        // Who was asked may not have brought a document in time: it is asked again as long as this listens.
        // Who is named for a wave and was enrolled in the lost time has to be back: without it the wave
        // would have no voters, and pass.
        let brought = |head: &RolloutHead| {
            let (lacks_plan, lacks_release) = self.lacks(head);
            let plan = regain.plans.get(&head.plan);
            let back = |plan: &Verified<RolloutPlan>| {
                let mut named = plan.named();
                named.all(|node| self.fleet.nodes.contains_key(node))
            };
            (!lacks_plan || plan.is_some_and(back))
                && (!lacks_release || regain.releases.contains_key(&head.release))
        };
        let whole = regain
            .bulletin()
            .is_none_or(|bulletin| bulletin.rollouts.iter().all(brought));
        let heard = all && whole && (nobody || !regain.sites.is_empty());
        if !heard && self.now.boot < regain.until {
            return;
        }
        let line = match heard {
            true => "every site was heard".to_owned(),
            false => format!(
                "{} of {} sites were heard; more may be brought later",
                regain.sites.len(),
                peopled.count()
            ),
        };
        let newest = regain.newest.max(self.orders.head());
        let epoch = newest.epoch.saturating_add(1);
        self.note("regained", format!("epoch {epoch} begins: {line}"));
        self.record(LedgerEvent::Epoch { epoch });
        self.take_over(None);
        self.take_up();
    }

    /// Takes over what was heard. Of a late witness only what is new: operators may have lifted the rest.
    /// Without one nothing was said in this epoch yet, and what is not in the newest bulletin is over.
    fn take_over(&mut self, late: Option<&BTreeSet<Subject>>) {
        let Some(mut regain) = self.regain.take() else {
            return;
        };
        let ours = self.fleet.topology.as_ref().map(|t| t.value.version);
        if let Some(topology) = &regain.topology
            && ours.is_none_or(|ours| ours < topology.version)
        {
            let envelope = topology.envelope().clone();
            self.record(LedgerEvent::Topology { envelope });
        }
        let heads = regain.bulletin().map(|b| b.rollouts.clone());
        for head in heads.iter().flatten() {
            self.take_over_rollout(head, &mut regain);
        }
        if let Some(heads) = heads.filter(|_| late.is_none()) {
            self.end_unlisted(&heads);
        }
        for (subject, order) in &regain.orders {
            if late.is_some_and(|news| !news.contains(subject)) {
                continue;
            }
            let concerned = order.body.rollout().cloned();
            let changed = match &order.body {
                OrderBody::Halt { rollout, reason } => self.take_over_halt(rollout, reason),
                OrderBody::Recall { rollout, statement } => {
                    let recall = regain.recalls.get(&statement.digest());
                    recall.is_some_and(|recall| self.take_over_recall(rollout, recall))
                }
                _ => false,
            };
            if let Some(id) = concerned.filter(|_| changed && late.is_some()) {
                self.reassert(&id);
            }
        }
        self.regain = Some(regain);
    }

    fn take_over_rollout(&mut self, head: &RolloutHead, regain: &mut Regain) {
        let id = &head.rollout;
        let (lacks_plan, lacks_release) = self.lacks(head);
        let release = regain.releases.get(&head.release);
        if lacks_release && let Some(release) = release {
            let envelope = release.envelope().clone();
            self.record(LedgerEvent::Released { envelope });
        }
        if lacks_plan {
            let plan = regain.plans.get(&head.plan);
            let fits = |p: &&Verified<RolloutPlan>| {
                p.rollout == *id && self.releases.contains_key(&p.release)
            };
            let Some(plan) = plan.filter(fits) else {
                return self.note(
                    "lost",
                    format!("{id} ran, and nobody brought its plan and release yet"),
                );
            };
            let plan = plan.envelope().clone();
            self.note("regained", format!("{id} is known again"));
            self.record(LedgerEvent::Regained { plan });
            self.enlist(id);
            self.set_state(id, RolloutState::Running, "it ran before the restore");
        }
        let lease = regain.orders.get(&Subject::Lease(id.clone()));
        let Some(OrderBody::GoLease { wave: newest, .. }) = lease.map(|o| &o.body) else {
            return;
        };
        let Some(rollout) = self.rollouts.get(id).filter(|r| r.digest == head.plan) else {
            return;
        };
        let waves = (0..=*newest).zip(&rollout.waves);
        let closed = waves.filter(|(_, stand)| stand.opened_at.is_none());
        let closed: Vec<u32> = closed.map(|(wave, _)| wave).collect();
        let at = self.now.wall;
        for wave in closed {
            let rollout = id.clone();
            self.record(LedgerEvent::WaveOpened { rollout, wave, at });
        }
    }

    /// True if it changed anything.
    fn take_over_halt(&mut self, id: &RolloutId, reason: &str) -> bool {
        use RolloutState as S;
        let runs = |state| {
            matches!(
                state,
                S::Running | S::Paused | S::Preempted | S::Held | S::Finished
            )
        };
        let concerned = self.rollouts.get(id);
        if !concerned.is_some_and(|r| runs(r.state) && r.is_alive()) {
            return false;
        }
        let why = format!("halted before the restore: {reason}");
        self.set_state(id, S::Aborted, crate::conductor::cut(&why).as_str());
        true
    }

    /// True if it changed anything.
    fn take_over_recall(&mut self, id: &RolloutId, recall: &Verified<Recall>) -> bool {
        use RolloutState as S;
        let Some(rollout) = self.rollouts.get(id) else {
            return false;
        };
        let back = matches!(rollout.state, S::Recalling | S::Recalled);
        if back || rollout.digest != recall.plan {
            return false;
        }
        self.record(LedgerEvent::Recalled {
            envelope: recall.envelope().clone(),
        });
        self.set_state(id, S::Recalling, &recall.reason);
        true
    }

    fn end_unlisted(&mut self, heads: &[RolloutHead]) {
        use RolloutState as S;
        let runs = |state| matches!(state, S::Running | S::Paused | S::Preempted | S::Held);
        let listed = |id: &RolloutId| heads.iter().any(|head| head.rollout == *id);
        let rollouts = self.rollouts.iter();
        let over = rollouts.filter(|(id, r)| runs(r.state) && !listed(id));
        let over: Vec<RolloutId> = over.map(|(id, _)| id.clone()).collect();
        for id in over {
            let why = "it had ended before the restore, and how is not known";
            self.note("aborted", format!("{id}: {why}"));
            self.set_state(&id, S::Aborted, why);
        }
    }
}

fn is_open(state: RolloutState) -> bool {
    matches!(
        state,
        RolloutState::WaitingForApproval | RolloutState::Ready
    )
}
