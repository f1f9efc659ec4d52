//! The conductor: one brain out of fleet, rollouts and orders. Here is what holds them together: the
//! calls of the body, and the round after each event in which due moves become events and orders.

use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};

use protocol::envelope::Envelope;
use protocol::filter::Filter;
use protocol::limits::TEXT_MAX_BYTES;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Order, OrderBody};
use protocol::plan::RolloutPlan;
use protocol::topology::Topology;
use protocol::trust::Statement;
use protocol::wire::Presence;
use protocol::{Hash, NodeId, Now, RolloutId, Seq, SiteId, Span, Time};

use crate::assess::Assessments;
use crate::by_hand::Notes;
use crate::contract::{
    Action, Config, Event, LedgerEvent, NodeView, ReleaseView, RolloutState, RolloutView, SiteView,
    Verdict,
};
use crate::feeds::Feeds;
use crate::fleet::{Fleet, Held};
use crate::guides::Scouts;
use crate::moves::Move;
use crate::orders::OrderBook;
use crate::regain::Regain;
use crate::rollout::Rollout;
use crate::stopping::Stop;
use crate::timeframes::Promise;
use crate::view;
use crate::witnesses::Words;

/// The coordinator's brain.
///
/// Order of calls: [`Conductor::new`]; [`Conductor::replay`] with every event of the ledger, in order;
/// [`Conductor::resume`] once; then [`Conductor::handle`] and [`Conductor::handle_timeout`] as things
/// happen. After each call but `replay` the body drains [`Conductor::poll_action`] and sets its clock to
/// [`Conductor::poll_timeout`].
pub struct Conductor {
    pub(crate) config: Config,
    pub(crate) fleet: Fleet,
    pub(crate) releases: BTreeMap<Hash, Held<ReleaseManifest>>,
    pub(crate) rollouts: BTreeMap<RolloutId, Rollout>,
    pub(crate) orders: OrderBook,
    /// What people did at machines.
    pub(crate) by_hand: Notes,
    /// What nodes are asked about.
    pub(crate) assessments: Assessments,
    /// Everything is halted.
    pub(crate) stopped: Option<Stop>,
    pub(crate) feeds: Feeds,
    /// What members of sites do not see.
    pub(crate) words: Words,
    /// What the fleet told of since the ledger was restored, if it was.
    pub(crate) regain: Option<Box<Regain>>,
    scouts: Scouts,
    pub(crate) ledger_head: Hash,
    pub(crate) ledger_entries: Option<u64>,
    pub(crate) revocations: Option<Hash>,
    pub(crate) now: Now,
    /// How often nodes began a new epoch since this process did; only those that did.
    pub(crate) begun: BTreeMap<NodeId, u32>,
    actions: VecDeque<Action>,
}

impl Conductor {
    /// A brain that knows nothing yet.
    pub fn new(config: Config) -> Conductor {
        Conductor {
            fleet: Fleet::new(
                config.origins.iter().map(|c| c.node).collect(),
                config.unreachable_after,
            ),
            config,
            releases: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            orders: OrderBook::default(),
            by_hand: Notes::new(),
            assessments: Assessments::default(),
            stopped: None,
            feeds: Feeds::default(),
            words: Words::default(),
            regain: None,
            scouts: Scouts::default(),
            ledger_head: Hash([0; 32]),
            ledger_entries: None,
            revocations: None,
            now: Now::default(),
            begun: BTreeMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// Takes in one event of the ledger. Asks for nothing.
    pub fn replay(&mut self, event: &LedgerEvent) {
        self.fold(event);
    }

    /// Begins to act: a new ledger gets its first epoch, leases and bulletin are issued anew. One that
    /// ends with [`LedgerEvent::Restored`] gives no order before it has heard the fleet; see
    /// [`Conductor::asks_for`].
    pub fn resume(&mut self, now: Now) {
        self.now = now;
        if self.orders.head() == Seq::default() {
            self.record(LedgerEvent::Epoch { epoch: 1 });
        }
        if self.begin_listening() {
            return;
        }
        self.take_up();
    }

    /// Leases, halts and the bulletin are given anew, under the clocks of this process.
    pub(crate) fn take_up(&mut self) {
        let now = self.now;
        let reassert = self.orders.fresh_epoch();
        let alive: Vec<RolloutId> = self
            .rollouts
            .values()
            .filter(|r| r.is_alive())
            .map(|r| r.plan.rollout.clone())
            .collect();
        for id in alive {
            if let Some(rollout) = self.rollouts.get_mut(&id) {
                rollout.restart_clocks(now.boot);
            }
            if reassert {
                self.reassert(&id);
            }
        }
        self.advance();
        self.issue_bulletin(true);
    }

    /// Something happened.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.now = now;
        self.fleet.expire(now);
        match event {
            Event::Command(ticket, command) => self.command(ticket, command),
            Event::Enrolled(enrolled) => self.enrol(enrolled),
            Event::TokenMade(token) => self.record(LedgerEvent::TokenMade(token)),
            Event::Admitted { node, by, tokens } => {
                self.record(LedgerEvent::Admitted { node, by, tokens });
            }
            Event::Renewed { node, serial } => {
                self.record(LedgerEvent::Renewed { node, serial });
            }
            Event::Uplink(uplink) => self.uplink(&uplink),
            Event::Inventory(inventory) => self.described(&inventory),
            Event::Witnessed(word) => self.witnessed(&word),
            Event::Located(me) => self.introduced(&me),
            Event::Newcomer { me, addresses } => {
                self.scouts.came(&self.fleet, &me, &addresses, now.boot);
            }
            Event::Root {
                version,
                plans_threshold,
                envelope,
            } => {
                self.config.root_version = version;
                self.config.plans_threshold = plans_threshold;
                self.record(LedgerEvent::Rooted { envelope });
            }
            Event::LedgerHead { head, entries } => {
                (self.ledger_head, self.ledger_entries) = (head, Some(entries));
            }
            Event::Revocations(list) => self.revocations = Some(list),
            Event::Testimony(testimony) => self.hear(*testimony),
        }
        self.go_round();
    }

    /// Does what is due, unless a restored coordinator still listens.
    fn go_round(&mut self) {
        if !self.listens() {
            self.advance();
            self.issue_bulletin(false);
        }
    }

    /// The time that [`Conductor::poll_timeout`] named has come (or is thought to have).
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        self.fleet.expire(now);
        self.stop_listening_if_due();
        self.go_round();
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Conductor::handle_timeout`], in boot time.
    pub fn poll_timeout(&self) -> Option<Time> {
        if let Some(until) = self.listens_until() {
            return Some(until);
        }
        let renewal = self.orders.bulletin().map(|b| {
            let renew_at = b.expires - self.half_life();
            self.now.boot + renew_at.since(self.now.wall)
        });
        self.rollouts
            .values()
            .filter_map(|r| r.wakes_at(self.now))
            .chain(renewal)
            .chain(self.fleet.expires_at())
            .chain(self.assessments.ends_at(self.now))
            .min()
    }

    // ---- views ---------------------------------------------------------------------------------

    /// All rollouts, by id.
    pub fn rollouts(&self) -> Vec<RolloutView> {
        self.rollouts.values().map(|r| self.view_of(r)).collect()
    }

    /// One rollout.
    pub fn rollout(&self, rollout: &RolloutId) -> Option<RolloutView> {
        self.rollouts.get(rollout).map(|r| self.view_of(r))
    }

    fn view_of(&self, rollout: &Rollout) -> RolloutView {
        let started = rollout.waves.first().and_then(|wave| wave.opened_at);
        let frames = &self.config.time_frames;
        RolloutView {
            by_hand: self.targets_by_hand(rollout),
            waits: self.capped_line(rollout),
            promise: started.and_then(|at| Promise::of(frames, &rollout.plan, at)),
            ..view::rollout(rollout, &self.feeds, &self.config)
        }
    }

    /// All nodes that were ever enrolled, by id.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.nodes_where(None)
    }

    /// Those of them of which a filter is true.
    pub fn nodes_where(&self, filter: Option<&Filter>) -> Vec<NodeView> {
        self.fleet
            .nodes
            .iter()
            .filter(|(_, n)| filter.is_none_or(|f| f.matches(&n.subject())))
            .map(|(id, n)| NodeView {
                by_hand: self.notes_about(id),
                ..view::node(id, n, &self.fleet)
            })
            .collect()
    }

    /// All sites that the topology has or a node is in, by name.
    pub fn sites(&self) -> Vec<SiteView> {
        view::sites(&self.fleet, self.now.wall)
    }

    /// All releases, by product and counter.
    pub fn releases(&self) -> Vec<ReleaseView> {
        let mut releases: Vec<_> = self.releases.values().map(view::release).collect();
        releases.sort_by(|a, b| {
            let key = |r: &ReleaseView| (r.manifest.product.clone(), r.manifest.release_counter);
            key(a).cmp(&key(b))
        });
        releases
    }

    /// The retained orders (the newest about each subject) with a higher number than this, rising. The
    /// body signs them again if it does not hold the envelopes; ed25519 gives the same bytes.
    pub fn orders_after(&self, after: Seq) -> Vec<Order> {
        self.orders.after(after)
    }

    /// The highest order that was given.
    pub fn orders_head(&self) -> Seq {
        self.orders.head()
    }

    /// A rollout's plan.
    pub fn plan(&self, rollout: &RolloutId) -> Option<&RolloutPlan> {
        self.rollouts.get(rollout).map(|r| &r.plan)
    }

    /// A signed statement that nodes may pull: the newest topology, a release, a plan with the
    /// signatures that it has so far, a recall. By the digest of its payload.
    pub fn document(&self, digest: &Hash) -> Option<&Envelope> {
        let topology = self.fleet.topology.as_ref().filter(|t| t.digest == *digest);
        let plan = || {
            self.rollouts
                .values()
                .find(|r| r.digest == *digest)
                .map(|r| &r.envelope)
        };
        let mut recalls = self.rollouts.values().filter_map(|r| r.recall.as_ref());
        topology
            .map(|t| &t.envelope)
            .or_else(|| self.releases.get(digest).map(|r| &r.envelope))
            .or_else(plan)
            .or_else(|| recalls.find(|r| r.digest() == *digest))
    }

    /// The newest topology.
    pub fn topology(&self) -> Option<&Topology> {
        self.fleet.topology.as_ref().map(|t| &t.value)
    }

    /// Whom a node without a topology, which has these addresses, asks for it.
    pub fn guides(&self, node: &NodeId, addresses: &[IpAddr]) -> Vec<Presence> {
        let members = |site: &SiteId| self.members_of(site);
        let topology = self.topology();
        topology.map_or_else(Vec::new, |topology| {
            self.scouts.guides(members, topology, node, addresses)
        })
    }

    /// The site that a node is in, as far as it is enrolled and said so.
    pub fn site_of(&self, node: &NodeId) -> Option<SiteId> {
        self.fleet.nodes.get(node)?.site.as_deref().cloned()
    }

    /// Members of a site that said lately where they are reached, the freshest first.
    pub fn members_of(&self, site: &SiteId) -> Vec<Presence> {
        self.fleet.members_of(site, self.now)
    }

    // ---- acting --------------------------------------------------------------------------------

    /// Folds an event and has it appended: there is no other way to change what lasts.
    pub(crate) fn record(&mut self, event: LedgerEvent) {
        self.fold(&event);
        self.actions.push_back(Action::Append(event));
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(crate) fn note(&mut self, event: &'static str, line: String) {
        self.actions.push_back(Action::Note { event, line });
    }

    /// Numbers an order, has it appended and then signed and sent.
    pub(crate) fn give(&mut self, body: OrderBody) {
        let order = Order {
            spec_version: Order::SPEC_VERSION,
            fleet: self.config.fleet,
            seq: self.orders.next(),
            issued: self.now.wall,
            body,
        };
        self.record(LedgerEvent::Order(Box::new(order.clone())));
        self.actions.push_back(Action::Issue(order));
    }

    pub(crate) fn set_state(&mut self, rollout: &RolloutId, state: RolloutState, why: &str) {
        let (rollout, why, at) = (rollout.clone(), why.to_owned(), self.now.wall);
        self.record(LedgerEvent::State {
            rollout,
            state,
            why,
            at,
        });
    }

    pub(crate) fn give_halt(&mut self, rollout: &RolloutId, reason: &str) {
        let (rollout, reason) = (rollout.clone(), cut(reason));
        self.give(OrderBody::Halt { rollout, reason });
    }

    /// In a new epoch nodes may hold higher numbers of the lost one; tell them what holds now.
    pub(crate) fn reassert(&mut self, id: &RolloutId) {
        use RolloutState as S;
        let Some(rollout) = self.rollouts.get(id) else {
            return;
        };
        let (why, recall) = (rollout.why.clone(), rollout.recall.clone());
        match (rollout.state, recall) {
            (S::Running | S::Finished, _) if self.stopped.is_some() => {
                self.give_halt(id, "everything is halted");
            }
            (S::Running | S::Finished, _) => self.give(OrderBody::Resume {
                rollout: id.clone(),
            }),
            (S::Paused | S::Preempted | S::Held | S::Aborted, _) => self.give_halt(id, &why),
            (S::Recalling | S::Recalled, Some(statement)) => {
                self.give(OrderBody::Recall {
                    rollout: id.clone(),
                    statement,
                });
            }
            _ => {}
        }
    }

    /// Lets every rollout do what is due.
    fn advance(&mut self) {
        let now = self.now;
        loop {
            self.make_way();
            self.share_day();
            let (stopped, urgent) = (self.stopped.is_some(), self.emergency().is_some());
            let due = |(id, rollout): (&RolloutId, &mut Rollout)| {
                let next = rollout.next_move(now)?;
                // stragglers of what is through get no leave either
                let aside = stopped || (urgent && rollout.yields());
                let leave = matches!(next, Move::Lease { .. });
                (!(aside && leave)).then(|| (id.clone(), next))
            };
            let Some((id, next)) = self.rollouts.iter_mut().find_map(due) else {
                return;
            };
            self.carry_out(&id, next);
        }
    }

    fn carry_out(&mut self, id: &RolloutId, next: Move) {
        use RolloutState as S;
        let at = self.now.wall;
        let (rollout, name) = (id.clone(), |c: &Conductor, w| c.rollouts[id].wave_name(w));
        match next {
            Move::Dawn(day) => self.record(LedgerEvent::Dawned { rollout, day }),
            Move::Silence(nodes) => {
                self.note(
                    "silent",
                    format!("{} nodes of {id} went silent", nodes.len()),
                );
                self.record(LedgerEvent::Silent { rollout, nodes });
            }
            Move::Open(wave) => {
                self.note(
                    "wave_opened",
                    format!("{} of {id} opened", name(self, wave)),
                );
                self.record(LedgerEvent::WaveOpened { rollout, wave, at });
            }
            Move::Lease { wave, below } => self.give_lease(id, wave, below),
            Move::Clear { cohort, counts } => {
                let line = format!(
                    "{id}: {} of {} outcomes are failures; the release goes on",
                    counts.1,
                    counts.0 + counts.1
                );
                self.note("cleared", line);
                self.record(LedgerEvent::Cleared {
                    rollout,
                    cohort,
                    counts,
                    at,
                });
            }
            Move::HoldCohort {
                cohort,
                counts,
                why,
            } => {
                self.note("cohort_held", format!("{id}: {why}"));
                self.record(LedgerEvent::CohortHeld {
                    rollout,
                    cohort,
                    counts,
                    why,
                    at,
                });
            }
            Move::Pass { wave, counts, why } => {
                let line = format!("{} of {id} passed: {why}", name(self, wave));
                self.note("wave_passed", line);
                let verdict = Verdict::Pass;
                self.record(LedgerEvent::Verdict {
                    rollout,
                    wave,
                    verdict,
                    counts,
                    why,
                    at,
                });
            }
            Move::Fail { wave, counts, why } => {
                let why = format!("{} failed its gate: {why}", name(self, wave));
                self.note("held", format!("{id}: {why}"));
                let verdict = Verdict::Fail;
                let said = why.clone();
                self.record(LedgerEvent::Verdict {
                    rollout,
                    wave,
                    verdict,
                    counts,
                    why: said,
                    at,
                });
                self.set_state(id, S::Held, &why);
                self.give_halt(id, &why);
            }
            Move::Finish => {
                self.note("finished", format!("{id}: every wave passed"));
                self.set_state(id, S::Finished, "every wave passed");
            }
            Move::TakenBack => {
                self.note("recalled", format!("{id} is taken back"));
                self.set_state(id, S::Recalled, "every target is back");
            }
            Move::Expire => {
                let why = "the plan's time ended before every wave had passed";
                self.note("aborted", format!("{id}: {why}"));
                self.set_state(id, S::Aborted, why);
                self.give_halt(id, why);
            }
        }
    }

    /// Gives a lease up to `wave`. Its wall-clock end is two lives away: a peer may hand it on late,
    /// and no start that it allows may come later than that.
    fn give_lease(&mut self, id: &RolloutId, wave: u32, below: Option<u64>) {
        let Some(rollout) = self.rollouts.get_mut(id) else {
            return;
        };
        rollout.lease_given(self.now.boot);
        let ttl = rollout.plan.lease_ttl;
        let end = self.now.wall + Span(ttl.0.saturating_mul(2));
        let not_after = rollout.plan.not_after.min(end);
        let plan = rollout.digest;
        let held = rollout.evidence.as_ref().map(|e| e.held());
        self.give(OrderBody::GoLease {
            rollout: id.clone(),
            plan,
            wave,
            below,
            held: held.unwrap_or_default(),
            not_after,
        });
    }

    pub(crate) fn half_life(&self) -> Span {
        Span(self.config.bulletin_life.0 / 2)
    }
}

/// As much of a text for people as an order or the ledger takes.
pub(crate) fn cut(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
