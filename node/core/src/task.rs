//! What a rollout asks of this node, and what the node may reach while it does it.

use std::collections::BTreeSet;

use protocol::manifest::{Artifact, ReleaseManifest, release_name};
use protocol::plan::RolloutPlan;
use protocol::slots::SlotRules;
use protocol::status::{NodeStatus, State, install_id};
use protocol::{Hash, Now, RolloutId, Seq, SiteId, Time, Verified};

use crate::contract::{Config, Failure, FetchReason, Warrant};
use crate::counters::Counters;
use crate::installed::Installed;
use crate::inventory::Inventory;
use crate::lease::Leases;
use crate::library::Library;
use crate::offers::Offers;
use crate::orders::Orders;
use crate::outbox::Outbox;
use crate::precedence::{Leave, Wait, permission, slot, times, turn, unread};
use crate::relations::{Other, first};
use crate::report::Reports;
use crate::slots::Slots;
use crate::swarm::Swarm;

/// The rooms of the brain that a rollout enters.
pub(crate) struct Rooms<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a Config,
    pub(crate) orders: &'a Orders,
    pub(crate) leases: &'a Leases,
    pub(crate) library: &'a Library,
    pub(crate) installed: &'a mut Installed,
    /// Restart slots of the site.
    pub(crate) slots: &'a Slots,
    /// What this node says of itself.
    pub(crate) inventory: &'a Inventory,
    pub(crate) offers: &'a mut Offers,
    pub(crate) counters: &'a mut Counters,
    pub(crate) reports: &'a mut Reports,
    pub(crate) swarm: &'a mut Swarm,
    /// Releases that more than one rollout brings.
    pub(crate) shared: &'a BTreeSet<Hash>,
    /// Another installation is under way.
    pub(crate) busy: bool,
    /// Another installation of the same product is under way: its end decides what is installed.
    pub(crate) rival: bool,
    /// Rollouts that are in force here, as far as releases say anything of each other.
    pub(crate) others: Vec<Other>,
    /// A rollout of which the bulletin speaks, whose plan or release is still to come.
    pub(crate) unread: Option<RolloutId>,
    /// Rollouts whose orders are to be forgotten.
    pub(crate) over: Vec<RolloutId>,
    pub(crate) out: &'a mut Outbox,
}

/// Plan and release as they concern this node.
#[derive(Clone)]
pub(crate) struct Task {
    /// The plan that is followed.
    pub(crate) plan: Verified<RolloutPlan>,
    /// What it brings.
    pub(crate) release: Verified<ReleaseManifest>,
    /// The release's contents for this platform, if it has any.
    pub(crate) artifact: Option<Artifact>,
    /// The node's wave.
    pub(crate) wave: u32,
    /// The site by which that wave was found.
    pub(crate) site: Option<SiteId>,
    /// Names the one installation that this rollout makes on this node.
    pub(crate) install_id: Hash,
    /// Every byte is here and verified.
    pub(crate) staged: bool,
}

impl Task {
    /// The task that `plan` gives to the node of `config` as a member of `wave`.
    pub(crate) fn new(
        plan: Verified<RolloutPlan>,
        release: Verified<ReleaseManifest>,
        wave: u32,
        site: Option<&SiteId>,
        config: &Config,
    ) -> Task {
        Task {
            artifact: release.artifact_for(&config.os, &config.arch).cloned(),
            install_id: install_id(&config.node, &release.digest(), &plan.rollout),
            plan,
            release,
            wave,
            site: site.cloned(),
            staged: false,
        }
    }

    /// The rollout.
    pub(crate) fn rollout(&self) -> &RolloutId {
        &self.plan.rollout
    }

    /// The release as people write it.
    pub(crate) fn name(&self) -> String {
        release_name(&self.release.product, &self.release.version)
    }

    /// Whether the release is the agent itself.
    pub(crate) fn is_agent(&self, rooms: &Rooms<'_>) -> bool {
        rooms.config.agent.as_ref() == Some(&self.release.product)
    }

    /// Whether the newest bulletin still names it.
    pub(crate) fn alive(&self, orders: &Orders) -> bool {
        orders
            .head_of(self.rollout())
            .is_some_and(|h| h.release == self.release.digest())
    }

    /// Whether an install may start or switch now.
    pub(crate) fn permission(&self, rooms: &Rooms<'_>) -> Result<Leave, Wait> {
        let leave = self.permission_but_slot(rooms)?;
        if let Some(rules) = &self.plan.constraints.slots {
            let group = self.slots_group(rules, rooms);
            slot(rooms.slots.leave(rules, &group, rooms.now.boot))?;
        }
        Ok(leave)
    }

    /// The group of this node under a plan's rules.
    pub(crate) fn slots_group(&self, rules: &SlotRules, rooms: &Rooms<'_>) -> Hash {
        rules.group(&rooms.inventory.subject(None))
    }

    /// The same as [`Task::permission`], were every restart slot free.
    pub(crate) fn permission_but_slot(&self, rooms: &Rooms<'_>) -> Result<Leave, Wait> {
        let leave = self.ordered(rooms)?;
        first(self, rooms)?;
        let until = times(&self.plan, rooms.offers, rooms.now)?;
        Ok(Leave {
            until: until.map_or(leave.until, |until| until.min(leave.until)),
        })
    }

    /// Whether what is in place may restart the machine now: times, user, machine and slots, as for a start.
    /// Orders are not asked: what has begun ends.
    pub(crate) fn may_restart(&self, rooms: &Rooms<'_>) -> Result<(), Wait> {
        times(&self.plan, rooms.offers, rooms.now)?;
        if let Some(rules) = &self.plan.constraints.slots {
            let group = self.slots_group(rules, rooms);
            slot(rooms.slots.leave(rules, &group, rooms.now.boot))?;
        }
        Ok(())
    }

    /// What a step of its installation rests on.
    pub(crate) fn warrant(&self, orders: &Orders) -> Warrant {
        Warrant {
            plan: self.plan.clone(),
            lease: orders.lease_order(self.rollout()).cloned(),
            recall: orders.recalled(&self.plan).cloned(),
            site: self.site.clone(),
        }
    }

    /// Tells the user once that the node's turn has come, if the plan asks for that.
    pub(crate) fn give_notice(&self, rooms: &mut Rooms<'_>) {
        let (id, plan) = (self.rollout(), &self.plan);
        let due = plan.constraints.user.is_some() && rooms.offers.of(id).is_none();
        if due && self.ordered(rooms).is_ok() {
            let (now, out) = (rooms.now, &mut *rooms.out);
            let offers = &mut *rooms.offers;
            offers.give_notice(id, &self.name(), &plan.constraints, now, out);
        }
    }

    /// Whether orders and metadata let it start: it is the node's turn.
    fn ordered(&self, rooms: &Rooms<'_>) -> Result<Leave, Wait> {
        let leave = permission(
            rooms.orders,
            rooms.leases,
            rooms.library,
            &self.plan,
            &self.release,
            self.wave,
            rooms.now,
        )?;
        unread(rooms.unread.as_ref())?;
        let (me, says) = (&rooms.config.node, rooms.inventory.subject(None));
        turn(rooms.orders, &self.plan, self.wave, me, &says)?;
        Ok(leave)
    }

    /// Reports where the node stands; nothing happens if it said so before.
    pub(crate) fn say(&self, state: State, reason: &str, attempt: u32, rooms: &mut Rooms<'_>) {
        self.say_with(state, reason, attempt, None, rooms);
    }

    /// Reports where the node stands, with what a failed program left.
    pub(crate) fn say_with(
        &self,
        state: State,
        reason: &str,
        attempt: u32,
        failure: Option<&Failure>,
        rooms: &mut Rooms<'_>,
    ) {
        let (mut lan_bytes, mut wan_bytes) = (0, 0);
        for (reason, bytes) in rooms
            .swarm
            .progress(&self.release.digest())
            .unwrap_or_default()
            .bytes
        {
            *if reason == FetchReason::Peer {
                &mut lan_bytes
            } else {
                &mut wan_bytes
            } += bytes;
        }
        let status = NodeStatus {
            fleet: rooms.config.fleet,
            node: rooms.config.node,
            rollout: self.rollout().clone(),
            plan: self.plan.digest(),
            release: self.release.digest(),
            wave: self.wave,
            seq: Seq::default(),
            state,
            reason: reason.to_owned(),
            entered_at: Time(0),
            attempt,
            install_id: self.install_id,
            lan_bytes,
            wan_bytes,
            exit_code: failure.and_then(|f| f.exit_code),
            output_tail: failure.map(|f| f.output_tail.clone()).unwrap_or_default(),
        };
        let handful = self.plan.is_handful(self.wave);
        rooms
            .reports
            .say(status, handful, rooms.now, rooms.counters, rooms.out);
    }
}
