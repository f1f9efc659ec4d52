//! The brain: composition and routing. What each room decides is written in that room.

mod doors;
mod questions;
mod rates;
mod settle;

use std::collections::BTreeSet;

use protocol::limits::GOSSIP_MAX_BYTES;
use protocol::orders::{Order, Receipt};
use protocol::topology::NodeRates;
use protocol::trust::Role;
use protocol::wire::{Contact, SiteMessage};
use protocol::{NodeId, Now, Seq, Span, Time, Verified};

use crate::assess::Assessments;
use crate::budget::Budgets;
use crate::contract::{Action, Config, Door, Event, Memory, NodeRole, Record, Snapshot};
use crate::counters::Counters;
use crate::guests::Guests;
use crate::installed::Installed;
use crate::inventory::Inventory;
use crate::lease::Leases;
use crate::library::Library;
use crate::membership::{Membership, Surroundings, Word};
use crate::offers::Offers;
use crate::orders::{Orders, Taken, encoded_bytes};
use crate::outbox::Outbox;
use crate::pulls::{Pulls, Wanted};
use crate::referrals::Referrals;
use crate::report::Reports;
use crate::rollouts::Rollouts;
use crate::slots::Slots;
use crate::strangers::Strangers;
use crate::swarm::{self, Swarm};
use crate::uplink::Uplink;
use crate::witness::Witness;
use settle::{News, Rest};

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
    slots: Slots,
    inventory: Inventory,
    assessments: Assessments,
    offers: Offers,
    membership: Membership,
    pulls: Pulls,
    uplink: Uplink,
    swarm: Swarm,
    referrals: Referrals,
    guests: Guests,
    strangers: Strangers,
    witness: Witness,
    budgets: Budgets,
    /// What this node itself was told to keep to.
    paced: NodeRates,
    /// Whom the body serves.
    door: Door,
    /// Whether the machine's addresses were told.
    addressed: bool,
    was_uplinker: bool,
    /// Whether the swarm may take the members that it knows for all there are.
    knows_site: bool,
    /// Whether it carried the feed when last looked at.
    carried: bool,
    /// The bulletin whose origins the swarm knows.
    followed: Option<Seq>,
    /// The bulletin after which the library was tidied.
    tidied: Option<Seq>,
    /// Connections to the coordinator that were made for one question.
    visits: BTreeSet<NodeId>,
    /// Whom it asks for its first topology; none until the coordinator was asked who that may be.
    guides: Option<Vec<Contact>>,
    /// Something came that the root in force does not explain: there may be a newer one.
    doubts_root: bool,
    /// What the rooms have not looked at yet.
    news: News,
    /// When a room beside the swarm has something to do, as long as nothing but the swarm was told
    /// anything since that was looked at.
    rest: Option<Rest>,
    /// When it last began a new epoch, because its disk was put back.
    anew_at: Option<Time>,
}

/// A node begins no two epochs within this.
const ANEW_PAUSE: Span = Span::from_secs(20);

impl Brain {
    /// A brain that remembers `memory`; empty for a node that was just enrolled.
    pub fn new(config: Config, memory: Memory, now: Now) -> Brain {
        let mut reports = Reports::default();
        let mut counters = None;
        let mut peers = None;
        for record in &memory.records {
            match record {
                Record::Counters(record) => counters = Some(record.clone()),
                Record::Status(record) => reports.restore(record.clone(), now),
                Record::Peers(record) => peers = Some(record.clone()),
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
            slots: Slots::default(),
            inventory: Inventory::new(&config),
            assessments: Assessments::default(),
            offers: Offers::default(),
            membership: Membership::new(&config, peers),
            pulls: Pulls::new(config.seed),
            uplink: Uplink::new(config.tempo),
            swarm: Swarm::new(
                config.node,
                config.role,
                config.tempo,
                config.grain,
                config.seed,
            ),
            referrals: Referrals::new(config.grain),
            guests: Guests::default(),
            strangers: Strangers::default(),
            witness: Witness::default(),
            budgets: Budgets::default(),
            paced: NodeRates::default(),
            door: Door::Open,
            addressed: false,
            was_uplinker: false,
            knows_site: true,
            carried: false,
            followed: None,
            tidied: None,
            visits: BTreeSet::new(),
            guides: None,
            doubts_root: false,
            news: News::ALL,
            rest: None,
            anew_at: None,
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
                Record::Offer(offer) => brain.offers.restore(offer),
                Record::Status(_) | Record::Counters(_) | Record::Peers(_) => {}
                document => brain.library.restore(&document),
            }
        }
        brain.settle(now);
        brain
    }

    /// Takes in what happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        let rest = self.rest.take();
        match event {
            Event::Root(root) => {
                let retired = self.library.set_root(&root);
                self.begin_anew(&retired, now);
                self.news = News::ALL;
            }
            Event::Revocations(digest) => {
                self.library.set_revocations(digest);
                self.news.lacks = true;
            }
            Event::Topology(topology) => {
                let (counters, out) = (&mut self.counters, &mut self.out);
                if self.library.take_topology(topology, counters, out) {
                    self.find_site(now, true);
                }
                self.documents_came();
            }
            Event::Plan(plan) => {
                let bulletin = self.orders.bulletin();
                self.library.take_plan(plan, bulletin, &mut self.out);
                self.documents_came();
            }
            Event::Release(release) => {
                let bulletin = self.orders.bulletin();
                self.library.take_release(release, bulletin, &mut self.out);
                self.documents_came();
            }
            Event::Order(order, recall) => {
                // Before the order is remembered: after a crash in between it is seen as new again.
                if self.orders.opens_epoch(&order) {
                    self.say_again(now);
                }
                if self.orders.take(order.clone(), recall, &mut self.out) != Taken::New {
                    return;
                }
                self.leases.take(&order, now, &mut self.out);
                self.hand_on(&order);
                self.news.orders = true;
            }
            Event::Receipt(receipt) => {
                let new = self.receipt_came(&receipt);
                if !(self.came_to_itself(now) || new) {
                    return;
                }
            }
            Event::Unbelieved => {
                self.news.lacks |= !self.doubts_root;
                self.doubts_root = true;
            }
            Event::Status(status) => {
                if status.node != self.config.node {
                    let plan = self.library.plan(&status.plan);
                    let handful = plan.is_some_and(|plan| plan.is_handful(status.wave));
                    self.reports.hear(status, handful, now, &mut self.out);
                }
                return;
            }
            Event::Addresses(addresses) => {
                self.addressed = true;
                self.membership.set_addresses(addresses);
                self.find_site(now, false);
                self.news = News::ALL;
            }
            Event::Moved(contact) => self.membership.set_contact(contact),
            Event::Machine(machine) => {
                self.inventory.set_machine(&machine, now);
                if !self.offers.set_machine(machine) {
                    return;
                }
                self.news.rollouts = true;
            }
            Event::Wished {
                ticket,
                rollout,
                wish,
            } => {
                let answer = self.with_rooms(now, |rollouts, _, rooms| {
                    rollouts.wished(rollout.as_ref(), wish, rooms)
                });
                self.out.push(Action::Granted { ticket, answer });
                self.news.rollouts = true;
            }
            Event::Roaming(roaming) => {
                self.membership.set_roaming(roaming);
                self.swarm.set_roaming(now, roaming);
            }
            Event::Leaving => {
                let head = self.orders.head();
                let mut around = Surroundings {
                    coordinators: &[],
                    head,
                    counters: &mut self.counters,
                    out: &mut self.out,
                };
                self.membership.leave(&mut around);
                return;
            }
            Event::Presence(presence) => {
                self.news.lacks |= presence.orders_head > self.orders.head();
                self.membership.hear(presence, Word::Own, now);
            }
            Event::Missing { from, node, seq } => self.membership.missing(from, node, seq, now),
            Event::Beat { from, beat } => {
                let head = self.orders.head();
                self.news.lacks |= self.membership.beat(from, beat, head, now);
            }
            Event::Slot(word) => {
                let Some(changed) = self.slots.hear(&word, self.config.node, now.boot) else {
                    return;
                };
                self.news.rollouts |= changed;
            }
            Event::Connected(node) => self.membership.connected(node, now),
            Event::Disconnected(node) => {
                self.membership.disconnected(node, now, &mut self.out);
                if self.coordinators().iter().any(|c| c.node == node) {
                    self.uplink.begin();
                }
            }
            Event::Answered { ticket, reply } => self.answered(ticket, reply.map(|r| *r), now),
            Event::Asked {
                ticket,
                from,
                request,
            } => self.asked(ticket, from, *request, now),
            Event::StepEnded { ticket, outcome }
                if self.assessments.step_ended(ticket, &outcome, now) =>
            {
                self.news.rollouts = true;
            }
            Event::StepEnded { ticket, outcome } => {
                self.with_rooms(now, |rollouts, _, rooms| {
                    rollouts.step_ended(ticket, &outcome, rooms)
                });
                self.news.rollouts = true;
            }
            Event::Wanted(wanted) => {
                self.asked_from_afar(now, *wanted);
                return;
            }
            Event::Left(ticket) => {
                self.guest_left(now, ticket);
                return;
            }
            Event::Knocked(visit) => {
                self.knocked(now, &visit);
                return;
            }
            Event::Notice(from, notice) => {
                if self.brought(now, from, &notice) {
                    return;
                }
                self.tell_swarm(now, Event::Notice(from, notice), rest);
                return;
            }
            event => {
                self.tell_swarm(now, event, rest);
                return;
            }
        }
        self.settle(now);
    }

    /// Does what became due. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.budgets.timeout().is_some_and(|at| at <= now.boot) {
            self.follow_hours(now);
        }
        if self.swarm.poll_timeout().is_some_and(|at| at <= now.boot) {
            self.swarm.handle_timeout(now);
        }
        if self.referrals.timeout().is_some_and(|at| at <= now.boot) {
            self.referrals.tick(now.boot, &mut self.out);
        }
        self.settle_swarm(now);
    }

    /// The next thing that the body shall do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.out.pop()
    }

    /// Boot time at which [`Brain::handle_timeout`] wants to be called, if no event comes before.
    pub fn poll_timeout(&self) -> Option<Time> {
        let due = [
            self.swarm.poll_timeout(),
            self.referrals.timeout(),
            self.budgets.timeout(),
            self.rest_ends(),
        ];
        due.into_iter().flatten().min()
    }

    /// Where the node stands, for people and displays.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let (orders, library) = (&self.orders, &self.library);
        Snapshot {
            now,
            site: self.membership.site().cloned(),
            members: self.membership.members().len() + 1,
            isolated: self.membership.is_isolated(),
            delegate: self.membership.is_delegate(),
            orders_head: self.orders.head(),
            trips: self.pulls.trips(),
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

    /// Forgets what stands on keys that a new root took away, in one commit with the root.
    fn begin_anew(&mut self, retired: &[Role], now: Now) {
        if retired.contains(&Role::Coordinator) {
            // What the lost key acknowledged may be known to a thief only.
            self.say_again(now);
            self.orders.drop_all(&mut self.out);
            self.leases.drop_all(&mut self.out);
            self.uplink.begin();
        }
        self.counters.drop_numbers_of(retired);
        self.counters.flush(&mut self.out);
    }

    /// The coordinator may not have what it was told.
    fn say_again(&mut self, now: Now) {
        let (counters, out) = (&mut self.counters, &mut self.out);
        self.reports.begin_anew(now, counters, out);
        self.inventory.say_again(now);
    }

    /// True if this node's disk was put back to an earlier time: what it says from then on has numbers of a
    /// new epoch, or it would count as said before and never be heard.
    fn came_to_itself(&mut self, now: Now) -> bool {
        let Some(seen) = self.reports.forgotten() else {
            return false;
        };
        if self.anew_at.is_some_and(|at| now.boot < at + ANEW_PAUSE) {
            return false;
        }
        self.anew_at = Some(now.boot);
        self.counters.begin_anew(seen);
        self.out.note(
            "reverted",
            format!("this node said {seen} and does not remember: its disk was put back; it begins a new epoch"),
        );
        self.say_again(now);
        self.uplink.begin();
        true
    }

    fn find_site(&mut self, now: Now, topology_changed: bool) {
        let topology = self.library.topology().map(|t| &**t);
        let site_changed = self.addressed && self.membership.find_site(topology, &mut self.out);
        if !site_changed && !topology_changed {
            return;
        }
        self.know_sites(now);
        self.knows_site = true;
    }

    /// Gossips an order that came from the coordinator or by a question; what came by gossip is
    /// known in the site.
    fn hand_on(&mut self, order: &Verified<Order>) {
        let fetched = self.membership.is_uplinker() || self.pulls.is_asking(Wanted::Orders);
        if fetched && encoded_bytes(order.envelope()) <= GOSSIP_MAX_BYTES {
            let order = SiteMessage::Order(order.envelope().clone());
            self.out.push(Action::Gossip(order));
        }
    }

    fn documents_came(&mut self) {
        self.news.lacks = true;
        self.news.rollouts = true;
    }

    /// True if the receipt acknowledged anything that was open.
    fn receipt_came(&mut self, receipt: &Verified<Receipt>) -> bool {
        let me = self.config.node;
        if !self.reports.acknowledge(me, receipt, &mut self.out) {
            return false;
        }
        let fits = encoded_bytes(receipt.envelope()) <= GOSSIP_MAX_BYTES;
        if fits && self.uplink.is_asking() && self.membership.site().is_some() {
            let receipt = SiteMessage::Receipt(receipt.envelope().clone());
            self.out.push(Action::Gossip(receipt));
        }
        self.news.rollouts = true;
        true
    }

    /// Most of what comes concerns the swarm alone: the other rooms keep their `rest`.
    fn tell_swarm(&mut self, now: Now, event: Event, rest: Option<Rest>) {
        if let Some(input) = swarm::Input::of(event) {
            self.swarm.handle(now, input);
        }
        self.rest = rest;
        self.settle_swarm(now);
    }
}

#[cfg(test)]
impl Brain {
    /// As if the swarm had said that every byte of a release is here.
    pub(crate) fn content_comes(&mut self, now: Now, release: protocol::Hash) {
        self.rollouts.staged(release);
        self.news.rollouts = true;
        self.settle(now);
    }

    /// Whether a rollout waits for the bytes of a release.
    pub(crate) fn wants(&self, release: &protocol::Hash) -> bool {
        self.rollouts.wants(release)
    }
}
