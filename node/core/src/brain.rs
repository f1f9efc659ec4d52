//! The brain: composition and routing. What each room decides is written in that room.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::GOSSIP_MAX_BYTES;
use protocol::wire::{Contact, ControlReply, ControlRequest, Presence, SiteMessage};
use protocol::{NodeId, Now, Seq, SiteId, Time};

use crate::contract::{
    Action, Config, Event, Memory, NodeRole, Record, Snapshot, StepOutcome, Ticket,
};
use crate::counters::Counters;
use crate::installed::Installed;
use crate::lease::Leases;
use crate::library::Library;
use crate::membership::{Member, Membership};
use crate::orders::{Orders, Taken, encoded_bytes};
use crate::outbox::Outbox;
use crate::pulls::{Pulls, Sources, Wanted};
use crate::report::Reports;
use crate::rollouts::Rollouts;
use crate::swarm::{self, Swarm};
use crate::task::Rooms;
use crate::uplink::{Call, Uplink};

/// Members that are named in one answer to a newcomer.
const TRACKED_MAX: usize = 256;

/// Everything that a node decides.
///
/// The body hands in events with [`Brain::handle`], calls [`Brain::handle_timeout`] once the boot
/// clock has reached [`Brain::poll_timeout`], and after either performs every action that
/// [`Brain::poll_action`] yields, in that order, until it yields none. Right after [`Brain::new`]
/// there may be actions too. The body hands in the root in force and the machine's addresses first:
/// without the one the node installs nothing, without the other it does nothing at all. Nothing here
/// fails: what cannot be followed is noted.
pub struct Brain {
    config: Config,
    out: Outbox,
    counters: Counters,
    library: Library,
    orders: Orders,
    leases: Leases,
    installed: Installed,
    reports: Reports,
    rollouts: Rollouts,
    membership: Membership,
    pulls: Pulls,
    uplink: Uplink,
    swarm: Swarm,
    /// Whether the machine's addresses were told.
    addressed: bool,
    was_uplinker: bool,
    /// The bulletin whose origins the swarm knows.
    followed: Option<Seq>,
    /// The bulletin after which the library was tidied.
    tidied: Option<Seq>,
    /// Connections to the coordinator that were made for one question.
    visits: BTreeSet<NodeId>,
}

impl Brain {
    /// A brain that remembers `memory`; empty for a node that was just enrolled.
    pub fn new(config: Config, memory: Memory, now: Now) -> Brain {
        let mut reports = Reports::default();
        let mut counters = None;
        for record in &memory.records {
            match record {
                Record::Counters(record) => counters = Some(record.clone()),
                Record::Status(record) => reports.restore(record.clone()),
                _ => {}
            }
        }
        let counters = Counters::new(counters, reports.highest(), config.epoch);
        let mut brain = Brain {
            out: Outbox::default(),
            library: Library::default(),
            orders: Orders::new(counters.orders()),
            leases: Leases::new(config.boot_id),
            installed: Installed::default(),
            reports,
            rollouts: Rollouts::default(),
            membership: Membership::new(&config),
            pulls: Pulls::new(config.seed),
            uplink: Uplink::new(config.tempo),
            swarm: Swarm::new(
                config.node,
                config.role,
                config.tempo,
                config.grain,
                config.seed,
            ),
            addressed: false,
            was_uplinker: false,
            followed: None,
            tidied: None,
            visits: BTreeSet::new(),
            counters,
            config,
        };
        for record in memory.records {
            match record {
                Record::Order(order) => brain.orders.restore(order),
                Record::Recall(recall) => brain.orders.restore_recall(recall),
                Record::Lease(lease) => brain.leases.restore(lease),
                Record::Journal(journal) => brain.rollouts.restore(journal),
                Record::Installed(installed) => brain.installed.restore(installed),
                Record::Status(_) | Record::Counters(_) => {}
                document => brain.library.restore(&document),
            }
        }
        brain.settle(now);
        brain
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Root(root) => self.library.set_root(&root),
            Event::Revocations(digest) => self.library.set_revocations(digest),
            Event::Topology(topology) => {
                if self
                    .library
                    .take_topology(topology, &mut self.counters, &mut self.out)
                {
                    self.find_site(now, true);
                }
            }
            Event::Plan(plan) => {
                let bulletin = self.orders.bulletin();
                self.library.take_plan(plan, bulletin, &mut self.out);
            }
            Event::Release(release) => {
                let bulletin = self.orders.bulletin();
                self.library.take_release(release, bulletin, &mut self.out);
            }
            Event::Order(order, recall) => {
                if self.orders.take(order.clone(), recall, &mut self.out) == Taken::New {
                    self.leases.take(&order, now, &mut self.out);
                }
            }
            Event::Receipt(receipt) => {
                let new = self
                    .reports
                    .acknowledge(self.config.node, &receipt, &mut self.out);
                let fits = encoded_bytes(receipt.envelope()) <= GOSSIP_MAX_BYTES;
                if new && fits && self.uplink.is_asking() && self.membership.site().is_some() {
                    let receipt = SiteMessage::Receipt(receipt.envelope().clone());
                    self.out.push(Action::Gossip(receipt));
                }
            }
            Event::Status(status) => {
                if status.node != self.config.node {
                    self.reports.hear(status, &mut self.out);
                }
            }
            Event::Addresses(addresses) => {
                self.addressed = true;
                self.membership.set_addresses(addresses);
                self.find_site(now, false);
            }
            Event::Moved(contact) => self.membership.set_contact(contact),
            Event::Roaming(roaming) => {
                self.membership.set_roaming(roaming);
                self.swarm.set_roaming(now, roaming);
            }
            Event::Leaving => {
                let head = self.orders.head();
                self.membership
                    .leave(head, &mut self.counters, &mut self.out);
                return;
            }
            Event::Presence(presence) => self.membership.hear(presence, now),
            Event::Connected(node) => self.membership.connected(node),
            Event::Disconnected(node) => self.membership.disconnected(node),
            Event::Answered { ticket, reply } => self.answered(ticket, reply, now),
            Event::Asked {
                ticket,
                from,
                request,
            } => self.asked(ticket, from, &request),
            Event::StepEnded { ticket, outcome } => self.step_ended(ticket, &outcome, now),
            Event::FetchProgress { .. } => {
                // Too many of them to look at everything anew each time.
                self.tell_swarm(now, event);
                return;
            }
            event => self.tell_swarm(now, event),
        }
        self.settle(now);
    }

    /// Does what became due. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.swarm.poll_timeout().is_some_and(|at| at <= now.boot) {
            self.swarm.handle_timeout(now);
        }
        self.settle(now);
    }

    /// The next thing that the body shall do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    /// Boot time at which [`Brain::handle_timeout`] wants to be called, if no event comes before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let mut due = vec![self.swarm.poll_timeout()];
        if self.addressed {
            due.push(self.membership.timeout());
            due.push(self.pulls.timeout());
            due.push(self.rollouts.timeout());
            due.push(self.reports.timeout());
            if self.membership.is_uplinker() {
                due.push(self.uplink.timeout());
            }
        }
        due.into_iter().flatten().min()
    }

    /// Where the node stands, for people and displays.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let (orders, library) = (&self.orders, &self.library);
        Snapshot {
            now,
            site: self.membership.site().cloned(),
            members: self.membership.members().len() + 1,
            delegate: self.membership.is_delegate(),
            orders_head: self.orders.head(),
            standings: match self.config.role {
                NodeRole::Origin => Vec::new(),
                NodeRole::Endpoint => {
                    self.rollouts
                        .standings(orders, library, &self.reports, &self.swarm)
                }
            },
        }
    }

    // ---- what came ---------------------------------------------------------------------------

    fn find_site(&mut self, now: Now, topology_changed: bool) {
        let topology = self.library.topology().map(|t| &**t);
        let site_changed = self.addressed && self.membership.find_site(topology, &mut self.out);
        if !site_changed && !topology_changed {
            return;
        }
        let own = self.membership.site();
        let own = own.and_then(|id| topology.and_then(|t| t.site(id)));
        let paced = match self.config.role {
            NodeRole::Origin => topology.map_or(&[][..], |t| &t.sites[..]),
            NodeRole::Endpoint => own.map_or(&[][..], std::slice::from_ref),
        };
        for site in paced {
            let bytes_per_s = site.wan_down_bytes_per_s;
            self.out.push(Action::Pace {
                site: site.id.clone(),
                bytes_per_s,
            });
        }
        let site = own.map(|site| (site.id.clone(), site.wan_down_bytes_per_s));
        self.swarm.set_site(now, site);
    }

    fn answered(&mut self, ticket: Ticket, reply: Option<ControlReply>, now: Now) {
        if let Some(pulled) = self.pulls.answered(ticket, now) {
            if let (Wanted::Orders, Some(ControlReply::Orders(orders))) = (pulled.wanted, &reply) {
                self.orders.pulled(pulled.after, orders);
            }
            if self.coordinators().iter().any(|c| c.node == pulled.from) {
                self.visits.insert(pulled.from);
            }
            return;
        }
        let more = self.reports.has_offers(now);
        if let Some(asked) = self.uplink.answered(ticket, reply.as_ref(), more, now) {
            if let Some(ControlReply::Uplink { orders, .. }) = &reply {
                self.orders.pulled(asked.after, orders);
            }
            self.visits.insert(asked.to);
            return;
        }
        let found = matches!(reply, Some(ControlReply::Members(_)));
        if let Some(asked) = self.membership.located(ticket, found, now) {
            self.visits.insert(asked);
            if let Some(ControlReply::Members(members)) = reply {
                members
                    .into_iter()
                    .for_each(|presence| self.membership.hear(presence, now));
            }
        }
    }

    fn asked(&mut self, ticket: Ticket, from: NodeId, request: &ControlRequest) {
        let reply = match request {
            ControlRequest::PullOrders { after } => ControlReply::Orders(self.orders.after(*after)),
            ControlRequest::Locate { .. } => {
                let members = self.membership.members().values();
                ControlReply::Members(
                    members
                        .take(TRACKED_MAX)
                        .map(|m| m.presence.clone())
                        .collect(),
                )
            }
            ControlRequest::Push { .. } if self.coordinators().iter().any(|c| c.node == from) => {
                ControlReply::Done
            }
            ControlRequest::Push { .. } => {
                ControlReply::Refused("only a coordinator pushes".into())
            }
            ControlRequest::Uplink { .. } => {
                ControlReply::Refused("this is not a coordinator".into())
            }
            ControlRequest::PullDocument { .. } | ControlRequest::PullRoot { .. } => {
                ControlReply::Refused("not held here".into())
            }
        };
        self.out.push(Action::Reply { ticket, reply });
    }

    fn step_ended(&mut self, ticket: Ticket, outcome: &StepOutcome, now: Now) {
        self.with_rooms(now, |rollouts, _, rooms| {
            rollouts.step_ended(ticket, outcome, rooms)
        });
    }

    fn tell_swarm(&mut self, now: Now, event: Event) {
        if let Some(input) = swarm::Input::of(event) {
            self.swarm.handle(now, input);
        }
        self.drain_swarm();
    }

    fn drain_swarm(&mut self) {
        while let Some(output) = self.swarm.poll_output() {
            match output {
                swarm::Output::Action(action) => self.out.push(action),
                swarm::Output::Staged(release) => self.rollouts.staged(release),
                swarm::Output::Failed(release, failure) => {
                    self.rollouts.not_staged(release, &failure);
                }
                swarm::Output::Progress { release, .. } => self.rollouts.progressed(release),
            }
        }
    }

    // ---- what follows ------------------------------------------------------------------------

    /// Brings everything to rest: whatever is due and allowed now is said and done.
    fn settle(&mut self, now: Now) {
        self.drain_swarm();
        if !self.addressed {
            return;
        }
        let coordinators = self.coordinators();
        let head = self.orders.head();
        self.counters.raise_orders(head);
        let out = &mut self.out;
        if self
            .membership
            .tick(now, &coordinators, head, &mut self.counters, out)
        {
            let member = |(node, member): (&NodeId, &Member)| {
                let Presence {
                    contact, roaming, ..
                } = &member.presence;
                (
                    *node,
                    swarm::Member {
                        contact: contact.clone(),
                        roaming: *roaming,
                    },
                )
            };
            let members: BTreeMap<_, _> = self.membership.members().iter().map(member).collect();
            self.swarm.set_members(now, &members);
        }
        self.follow_bulletin(now);
        self.speak_with_coordinator(now, &coordinators);
        self.pull(now, &coordinators);
        self.roll_out(now);
        self.reports.tick(now, &mut self.counters, &mut self.out);
        self.drain_swarm();
        self.counters.flush(&mut self.out);
    }

    fn coordinators(&self) -> Vec<Contact> {
        let told = self
            .orders
            .bulletin()
            .map(|b| &b.coordinators)
            .filter(|c| !c.is_empty());
        told.unwrap_or(&self.config.coordinators).clone()
    }

    fn follow_bulletin(&mut self, now: Now) {
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

    fn speak_with_coordinator(&mut self, now: Now, coordinators: &[Contact]) {
        let uplinker = self.membership.is_uplinker();
        if uplinker && !self.was_uplinker {
            self.uplink.begin();
        } else if !uplinker && self.was_uplinker {
            self.visits.extend(coordinators.iter().map(|c| c.node));
        }
        self.was_uplinker = uplinker;
        for node in std::mem::take(&mut self.visits) {
            if !uplinker {
                self.out.push(Action::Disconnect(node));
            }
        }
        if uplinker && self.uplink.due(now) {
            let head = self.orders.head();
            let me = self
                .membership
                .presence(self.counters.draw(&mut self.out), head);
            let others = self.membership.members().keys().copied();
            let members = others.chain([self.config.node]).collect();
            let after = self.orders.pull_after();
            let (reports, out) = (&mut self.reports, &mut self.out);
            self.uplink
                .ask(now, Call { me, members, after }, coordinators, reports, out);
        }
    }

    fn pull(&mut self, now: Now, coordinators: &[Contact]) {
        let uplinker = self.membership.is_uplinker();
        let head = self.orders.head();
        let members = self.membership.members();
        let mut wanted = BTreeSet::new();
        let behind = members.values().any(|m| m.presence.orders_head > head);
        // The uplink brings orders to those who have one, unless it is down.
        if (behind || self.orders.has_gaps()) && (!uplinker || self.uplink.is_down()) {
            wanted.insert(Wanted::Orders);
        }
        if let Some(bulletin) = self.orders.bulletin() {
            let missing = self.library.missing(bulletin, self.config.role);
            wanted.extend(missing.into_iter().map(Wanted::Document));
            if let Some(root) = self
                .library
                .root()
                .filter(|r| r.version < bulletin.root_version)
            {
                wanted.insert(Wanted::Root(root.version + 1));
            }
        }
        self.pulls.set(&wanted, now);
        if self.pulls.timeout().is_none_or(|at| at > now.boot) {
            return;
        }
        let delegates = self.membership.delegates();
        let contact = |m: &Member| m.presence.contact.clone();
        let sources = Sources {
            uplinker,
            coordinators: coordinators.to_vec(),
            delegates: delegates
                .iter()
                .filter_map(|n| members.get(n))
                .map(contact)
                .collect(),
            members: members
                .values()
                .map(|m| (contact(m), m.presence.orders_head))
                .collect(),
            after: self.orders.pull_after(),
        };
        self.pulls.ask(now, &sources, &mut self.out);
    }

    fn roll_out(&mut self, now: Now) {
        let blind = self.library.topology().is_none()
            && self.orders.bulletin().is_none_or(|b| b.topology.is_some());
        // Without the topology a node may take itself for a member of another wave.
        if self.config.role == NodeRole::Origin || blind {
            return;
        }
        let over = self.with_rooms(now, |rollouts, site, rooms| {
            rollouts.advance(site, rooms);
            std::mem::take(&mut rooms.over)
        });
        for rollout in over {
            self.tidied = None;
            self.orders.forget(&rollout, &mut self.out);
            self.leases.forget(&rollout, &mut self.out);
        }
        let followed = Some(self.orders.bulletin_seq());
        if self.tidied != followed {
            self.tidied = followed;
            let (plans, releases) = self.with_rooms(now, |rollouts, _, rooms| rollouts.kept(rooms));
            self.library.keep_only(&plans, &releases, &mut self.out);
        }
    }

    fn with_rooms<T>(
        &mut self,
        now: Now,
        act: impl FnOnce(&mut Rollouts, Option<&SiteId>, &mut Rooms<'_>) -> T,
    ) -> T {
        let shared = self.rollouts.shared();
        let mut rooms = Rooms {
            now,
            config: &self.config,
            orders: &self.orders,
            leases: &self.leases,
            library: &self.library,
            installed: &mut self.installed,
            counters: &mut self.counters,
            reports: &mut self.reports,
            swarm: &mut self.swarm,
            out: &mut self.out,
            shared: &shared,
            busy: false,
            rival: false,
            over: Vec::new(),
        };
        act(&mut self.rollouts, self.membership.site(), &mut rooms)
    }
}

#[cfg(test)]
impl Brain {
    /// As if the swarm had said that every byte of a release is here.
    pub(crate) fn content_comes(&mut self, now: Now, release: protocol::Hash) {
        self.rollouts.staged(release);
        self.settle(now);
    }

    /// Whether a rollout waits for the bytes of a release.
    pub(crate) fn wants(&self, release: &protocol::Hash) -> bool {
        self.rollouts.wants(release)
    }
}
