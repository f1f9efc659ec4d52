//! What follows from what came. Each room is entered when something that it depends on changed or
//! when its time has come, and is left alone otherwise: most of what a node hears concerns one room
//! or none.

use std::collections::{BTreeMap, BTreeSet};

use protocol::orders::Bulletin;
use protocol::wire::Contact;
use protocol::{Hash, NodeId, Now, RolloutId, Seq, SiteId, Time};

use super::Brain;
use crate::assess;
use crate::contract::{Action, Config, NodeRole};
use crate::membership::{Member, Surroundings};
use crate::orders::Orders;
use crate::pulls::{Sources, Wanted};
use crate::rollouts::Rollouts;
use crate::slots::{self, Ask, Slots};
use crate::swarm;
use crate::task::Rooms;
use crate::uplink::Call;

/// One room's conclusions are another's news; after so many rounds the rest waits for the next call.
const ROUNDS_MAX: usize = 8;

/// What changed since the rooms were entered last.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The orders: their head, the bulletin, a gap.
    pub(super) orders: bool,
    /// What this node lacks, or whom it may ask for it.
    pub(super) lacks: bool,
    /// Anything that a rollout waits for.
    pub(super) rollouts: bool,
}

impl News {
    /// As at the start: everything is new.
    pub(super) const ALL: News = News {
        orders: true,
        lacks: true,
        rollouts: true,
    };
}

/// Until when the rooms beside the swarm have nothing to do; `None`: until they are told something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest(Option<Time>);

impl Brain {
    /// Brings the swarm to rest, and the other rooms if they have anything to do.
    pub(super) fn settle_swarm(&mut self, now: Now) {
        self.drain_swarm();
        if self.rest.is_none() || self.rest_ends().is_some_and(|at| at <= now.boot) {
            self.settle(now);
        }
    }

    /// Brings everything to rest: whatever is due and allowed now is said and done.
    pub(super) fn settle(&mut self, now: Now) {
        self.drain_swarm();
        if !self.addressed {
            return;
        }
        for _ in 0..ROUNDS_MAX {
            self.follow_orders(now);
            self.tend_members(now);
            self.speak_with_coordinator(now);
            self.pull(now);
            self.tell_inventory(now);
            self.tell_of_strangers(now);
            self.bear_witness(now);
            self.assess(now);
            self.roll_out(now);
            self.tend_slots(now);
            if self.reports.timeout().is_some_and(|at| at <= now.boot) {
                self.reports.tick(now, &mut self.counters, &mut self.out);
            }
            self.drain_swarm();
            if self.news == News::default() {
                break;
            }
        }
        self.counters.flush(&mut self.out);
        self.rest = Some(Rest(self.rooms_due()));
    }

    /// When [`Brain::settle`] has something to do, apart from the swarm.
    pub(super) fn rest_ends(&self) -> Option<Time> {
        if !self.addressed {
            return None;
        }
        if self.news != News::default() {
            return Some(Time(0));
        }
        match self.rest {
            Some(Rest(until)) => until,
            None => self.rooms_due(),
        }
    }

    fn rooms_due(&self) -> Option<Time> {
        let carries = self.membership.carries();
        let uplink = self
            .membership
            .is_uplinker()
            .then(|| self.uplink.timeout(&self.reports, carries))
            .flatten();
        let due = [
            self.membership.timeout(),
            self.pulls.timeout(),
            self.rollouts.timeout(),
            self.reports.timeout(),
            self.inventory.timeout(),
            self.assessments.timeout(),
            self.slots.timeout(),
            self.strangers.timeout(),
            self.witness.timeout(),
            uplink,
        ];
        due.into_iter().flatten().min()
    }

    pub(super) fn drain_swarm(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            match output {
                swarm::Output::Action(action) => self.out.push(action),
                swarm::Output::Staged(release) => {
                    self.rollouts.staged(release);
                    self.news.rollouts = true;
                }
                swarm::Output::Failed(release, failure) => {
                    self.rollouts.not_staged(release, &failure);
                    self.news.rollouts = true;
                }
                swarm::Output::Progress { release, .. } => {
                    self.news.rollouts |= self.rollouts.progressed(release);
                }
            }
        }
    }

    /// Where the coordinator is reached: as the newest bulletin says, or as was known at enrolment.
    pub(super) fn coordinators(&self) -> &[Contact] {
        coordinators(&self.orders, &self.config)
    }

    fn follow_orders(&mut self, now: Now) {
        if !std::mem::take(&mut self.news.orders) {
            return;
        }
        self.news.lacks = true;
        self.news.rollouts = true;
        self.counters.raise_orders(self.orders.head());
        self.membership.set_head(self.orders.head(), now);
        let followed = Some(self.orders.bulletin_seq());
        if self.followed == followed {
            return;
        }
        self.followed = followed;
        let told = self
            .orders
            .bulletin()
            .map(|b| &b.origins)
            .filter(|o| !o.is_empty());
        let mut origins = told.unwrap_or(&self.config.origins).clone();
        origins.retain(|origin| origin.node != self.config.node);
        self.swarm.set_origins(now, origins);
    }

    fn tend_members(&mut self, now: Now) {
        let head = self.orders.head();
        if self.membership.is_due(now) {
            let mut around = Surroundings {
                coordinators: coordinators(&self.orders, &self.config),
                head,
                counters: &mut self.counters,
                out: &mut self.out,
            };
            self.membership.tick(now, &mut around);
        }
        let knows_site = self.membership.knows_its_site();
        if knows_site != self.knows_site {
            self.knows_site = knows_site;
            self.swarm.set_site_known(now, knows_site);
            self.news.lacks = true;
        }
        let (first, changes) = (
            self.membership.is_first_delegate(),
            self.membership.take_changes(),
        );
        if !changes.is_empty() || first != self.reports.is_first() {
            let members = self.membership.members();
            let delegates = self.membership.delegates().iter();
            let others = delegates.filter_map(|n| members.get(n));
            let others = others.map(|m| m.presence.contact.clone()).collect();
            self.reports.set_delegates(others, first);
        }
        if changes.is_empty() {
            return;
        }
        self.news.lacks = true;
        let member =
            |(node, member): (&NodeId, &Member)| (*node, swarm::Member(member.presence.clone()));
        let members = self.membership.members().iter().map(member);
        self.swarm.set_members(now, members);
    }

    fn speak_with_coordinator(&mut self, now: Now) {
        let uplinker = self.membership.is_uplinker();
        if uplinker != self.was_uplinker {
            self.news.lacks = true;
            self.was_uplinker = uplinker;
            if uplinker {
                self.uplink.begin();
            } else {
                let coordinators: Vec<NodeId> =
                    self.coordinators().iter().map(|c| c.node).collect();
                self.visits.extend(coordinators);
            }
        }
        for node in std::mem::take(&mut self.visits) {
            if !uplinker {
                self.uplink.end();
                self.out.push(Action::Disconnect(node));
            }
        }
        let carries = self.membership.carries();
        if carries != self.carried {
            self.carried = carries;
            self.news.lacks = true;
            self.uplink.begin();
        }
        let due = self.uplink.timeout(&self.reports, carries);
        if uplinker && due.is_some_and(|at| at <= now.boot) {
            let head = self.orders.head();
            let me = self
                .membership
                .presence(self.counters.draw(&mut self.out), head);
            let others = self.membership.members().keys().copied();
            let members = carries.then(|| others.chain([self.config.node]).collect());
            let after = self.orders.pull_after();
            let coordinators = self.coordinators().to_vec();
            let call = Call {
                fleet: self.config.fleet,
                me,
                members,
                after,
                coordinators: &coordinators,
            };
            let (reports, out) = (&mut self.reports, &mut self.out);
            self.uplink.ask(now, call, reports, &mut self.counters, out);
        }
    }

    fn tell_inventory(&mut self, now: Now) {
        let isolated = self.membership.is_isolated();
        self.inventory.set_isolated(isolated, now);
        if self.inventory.timeout().is_none_or(|at| at > now.boot) {
            return;
        }
        let coordinators = self.coordinators().to_vec();
        let (me, counters, out) = (self.config.node, &mut self.counters, &mut self.out);
        self.inventory.tell(me, &coordinators, counters, now, out);
        // Who a rollout concerns may have changed.
        self.news.rollouts = true;
    }

    /// Answers what is assessed, if what it depends on may have changed.
    fn assess(&mut self, now: Now) {
        let due = self.assessments.timeout().is_some_and(|at| at <= now.boot);
        if self.config.role == NodeRole::Origin || !(self.news.rollouts || due) {
            return;
        }
        let around = assess::Around {
            now,
            config: &self.config,
            bulletin: self.orders.bulletin(),
            library: &self.library,
            installed: &self.installed,
            counters: &self.counters,
            out: &mut self.out,
        };
        self.assessments.look(around, &mut self.inventory);
    }

    /// Says anew what is wanted, if that may have changed, and asks what is due.
    fn pull(&mut self, now: Now) {
        let carries = self.membership.carries();
        if std::mem::take(&mut self.news.lacks) {
            let holes = self.orders.has_gaps() || self.orders.has_holes();
            let behind = holes || self.membership.ahead().next().is_some();
            self.uplink.hurry(behind);
            let wanted = self.wanted(behind, carries);
            self.pulls.set(&wanted, now);
        }
        if self.pulls.timeout().is_none_or(|at| at > now.boot) {
            return;
        }
        let members = self.membership.members();
        let contact = |n: &NodeId| Some(members.get(n)?.presence.contact.clone());
        // Others nearby have the topology already, or will have it soon.
        let guides = self.guides.iter().flatten().filter(|_| self.is_blind());
        let guides: Vec<Contact> = guides.cloned().collect();
        let sources = Sources {
            carries: carries && guides.is_empty(),
            me: self.membership.presence(Seq::default(), self.orders.head()),
            addresses: self.membership.addresses().to_vec(),
            coordinators: self.coordinators().to_vec(),
            delegates: self
                .membership
                .delegates()
                .iter()
                .filter_map(contact)
                .collect(),
            ahead: self.membership.ahead().filter_map(contact).collect(),
            members: members
                .values()
                .map(|m| m.presence.contact.clone())
                .chain(guides)
                .collect(),
            after: self.orders.pull_after(),
        };
        self.pulls.ask(now, &sources, &mut self.out);
    }

    fn wanted(&self, behind: bool, carries: bool) -> BTreeSet<Wanted> {
        let mut wanted = BTreeSet::new();
        // The feed brings orders to the one who carries it, unless it is down.
        if behind && (!carries || self.uplink.is_down()) {
            wanted.insert(Wanted::Orders);
        }
        if let Some(bulletin) = self.orders.bulletin() {
            let mut missing = self.library.missing(bulletin, self.config.role);
            // First of all a node finds its site, and who is there: they have the rest.
            let first = |digest: &Hash| {
                let digest = Some(*digest);
                digest == bulletin.revocations || digest == bulletin.topology
            };
            if self.is_blind() || !self.membership.knows_its_site() {
                missing.retain(first);
            }
            if self.is_blind() && self.guides.is_none() {
                missing.retain(|digest| Some(*digest) != bulletin.topology);
                wanted.insert(Wanted::Guides);
            }
            wanted.extend(missing.into_iter().map(Wanted::Document));
        }
        let newest = self.orders.bulletin().map_or(0, |b| b.root_version);
        let behind = |version: u64| self.doubts_root || version < newest;
        if let Some(root) = self.library.root().filter(|root| behind(root.version)) {
            wanted.insert(Wanted::Root(root.version + 1));
        }
        wanted
    }

    /// Whether it is an endpoint that cannot know its site yet.
    fn is_blind(&self) -> bool {
        let signed = |bulletin: &Bulletin| bulletin.topology.is_some();
        self.config.role == NodeRole::Endpoint
            && self.library.topology().is_none()
            && self.orders.bulletin().is_some_and(signed)
    }

    fn roll_out(&mut self, now: Now) {
        let due = self.rollouts.timeout().is_some_and(|at| at <= now.boot);
        if !std::mem::take(&mut self.news.rollouts) && !due {
            return;
        }
        let blind = self.library.topology().is_none()
            && self.orders.bulletin().is_none_or(|b| b.topology.is_some());
        // Without the topology a node may take itself for a member of another wave.
        if self.config.role == NodeRole::Origin || blind {
            return;
        }
        let before = self.rollouts.shape();
        self.slots.set_site(self.membership.site(), now.boot);
        let (over, wanted) = self.with_rooms(now, |rollouts, site, rooms| {
            rollouts.advance(site, rooms);
            let wanted = rollouts.wanted_slots(rooms);
            (std::mem::take(&mut rooms.over), wanted)
        });
        self.want_slots(&wanted, now);
        // One rollout may have waited for another.
        self.news.rollouts = self.rollouts.shape() != before;
        for rollout in over {
            self.tidied = None;
            self.orders.forget(&rollout, &mut self.out);
            self.leases.forget(&rollout, &mut self.out);
            self.offers.forget(&rollout, &mut self.out);
            self.news.lacks = true;
        }
        self.tidy(now);
    }

    /// Asks for the restart slots that rollouts want, and gives back what they want no more.
    fn want_slots(&mut self, wanted: &BTreeMap<Hash, Ask>, now: Now) {
        let (slots, mut here) = self.slots_here(now);
        slots.want(wanted, &mut here);
    }

    fn tend_slots(&mut self, now: Now) {
        if self.slots.timeout().is_none_or(|at| at > now.boot) {
            return;
        }
        let (slots, here) = self.slots_here(now);
        let taken = slots.tick(here);
        self.news.rollouts |= taken;
    }

    fn slots_here(&mut self, now: Now) -> (&mut Slots, slots::Here<'_>) {
        let here = slots::Here {
            me: self.config.node,
            boot: now.boot,
            settled: self.membership.knows_its_site(),
            counters: &mut self.counters,
            out: &mut self.out,
        };
        (&mut self.slots, here)
    }

    /// Drops the documents that nothing needs any more.
    fn tidy(&mut self, now: Now) {
        let followed = Some(self.orders.bulletin_seq());
        if self.tidied == followed {
            return;
        }
        self.tidied = followed;
        let (plans, releases): (BTreeSet<Hash>, BTreeSet<Hash>) =
            self.with_rooms(now, |rollouts, _, rooms| rollouts.kept(rooms));
        self.library.keep_only(&plans, &releases, &mut self.out);
        self.news.lacks = true;
    }

    pub(super) fn with_rooms<T>(
        &mut self,
        now: Now,
        act: impl FnOnce(&mut Rollouts, Option<&SiteId>, &mut Rooms<'_>) -> T,
    ) -> T {
        let shared = self.rollouts.shared();
        let others = self
            .rollouts
            .others(&self.orders, &self.reports, &self.leases, now);
        let unread = self.rollouts.unread(now.boot);
        let over: Vec<RolloutId> = Vec::new();
        let mut rooms = Rooms {
            now,
            config: &self.config,
            orders: &self.orders,
            leases: &self.leases,
            library: &self.library,
            installed: &mut self.installed,
            slots: &self.slots,
            inventory: &self.inventory,
            offers: &mut self.offers,
            counters: &mut self.counters,
            reports: &mut self.reports,
            swarm: &mut self.swarm,
            out: &mut self.out,
            shared: &shared,
            busy: false,
            rival: false,
            others,
            unread,
            over,
        };
        act(&mut self.rollouts, self.membership.site(), &mut rooms)
    }
}

/// See [`Brain::coordinators`].
fn coordinators<'a>(orders: &'a Orders, config: &'a Config) -> &'a [Contact] {
    let told = orders.bulletin().map(|b| &b.coordinators);
    told.filter(|c| !c.is_empty())
        .unwrap_or(&config.coordinators)
}
