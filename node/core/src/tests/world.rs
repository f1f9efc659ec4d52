//! A machine, its disk and a coordinator, scripted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use protocol::envelope::Envelope;
use protocol::feed::Seal;
use protocol::fixtures::{self, CREATED, Fleet, contact, node, seq};
use protocol::index::Index;
use protocol::inventory::NodeInventory;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Bulletin, Mark, Order, OrderBody};
use protocol::pieces::{Geometry, PieceSet};
use protocol::plan::{Recall, RolloutPlan};
use protocol::status::{NodeStatus, State};
use protocol::versioned::Versioned;
use protocol::wire::{ControlReply, ControlRequest};
use protocol::{BlobRef, Hash, Now, RolloutId, Seq, Span, Time, Verified};

use super::Checker;
use super::agents::Keeper;
use super::around::Around;
use crate::Brain;
use crate::contract::{
    Action, Boundary, Config, CountersRecord, Event, Failure, FailureClass, InstalledRecord,
    Memory, NodeRole, Record, RecordKey, Step, StepOutcome, Tempo, Ticket,
};

/// One node of no site with its machine, and the coordinator that it reports to.
pub(crate) struct World {
    pub(crate) fleet: Fleet,
    pub(crate) config: Config,
    pub(crate) now: Now,
    pub(crate) brain: Brain,
    pub(crate) disk: BTreeMap<RecordKey, Record>,
    pub(crate) checker: Checker,
    /// Answers that the body has not handed in yet.
    pub(crate) answers: VecDeque<Event>,
    /// Actions that may still be carried out before the crash.
    pub(crate) actions_left: Option<usize>,
    pub(crate) actions_done: usize,
    pub(crate) notes: Vec<&'static str>,
    /// Lines that the user was shown.
    pub(crate) shown: Vec<String>,
    /// What came of the user's wishes.
    pub(crate) granted: Vec<Result<String, String>>,
    pub(crate) dropped: Vec<BlobRef>,
    // the machine
    pub(crate) installed: Option<Hash>,
    /// Releases that were switched to, in order.
    pub(crate) switched: Vec<String>,
    pub(crate) keeper: Keeper,
    pub(crate) around: Around,
    pub(super) slots: BTreeSet<Hash>,
    /// Whether blobs are complete when they are opened; else the test says when content is here.
    pub(crate) blobs_here: bool,
    /// Outcomes of the next slots written; done when there are none.
    pub(crate) slot_outcomes: VecDeque<StepOutcome>,
    /// Whether the new release is healthy.
    pub(crate) healthy: bool,
    /// Steps whose answers wait until the test lets them go.
    pub(crate) held: Option<Step>,
    pub(crate) held_answers: Vec<Event>,
    pub(crate) steps: Vec<Step>,
    pub(crate) commits: usize,
    // the coordinator
    pub(crate) orders: BTreeMap<u64, (Verified<Order>, Option<Verified<Recall>>)>,
    documents: BTreeMap<Hash, Event>,
    pub(crate) reachable: bool,
    /// Orders up to this one were pushed; none while the node is not connected.
    pushed: Option<u64>,
    /// Whether the coordinator renews the lease while time passes.
    pub(crate) renewing: bool,
    pub(crate) statuses: BTreeMap<RolloutId, NodeStatus>,
    /// What the node said of itself last.
    pub(crate) inventory: Option<NodeInventory>,
    pub(crate) states: Vec<State>,
    pub(crate) old: Verified<ReleaseManifest>,
    pub(crate) new: Verified<ReleaseManifest>,
    pub(crate) plan: Verified<RolloutPlan>,
}

/// A failure of a program.
pub(crate) fn failure(reason: &str, retryable: bool) -> Failure {
    Failure {
        reason: reason.into(),
        exit_code: Some(3),
        output_tail: "oh".into(),
        class: match retryable {
            true => FailureClass::Machine,
            false => FailureClass::Release,
        },
    }
}

impl World {
    /// `app@1` is installed, and a rollout brings `app@2` with a health check to this node in its
    /// first wave. Nothing was ordered yet.
    pub(crate) fn new() -> World {
        World::with(|_| {}, |_| {})
    }

    /// The same, with release and plan changed before they are signed.
    pub(crate) fn with(
        on_release: impl FnOnce(&mut ReleaseManifest),
        on_plan: impl FnOnce(&mut RolloutPlan),
    ) -> World {
        let fleet = Fleet::new(1);
        let old = fleet.verified(&fleet.release("app", "1", 1));
        let mut new = fleet.release("app", "2", 2);
        new.health_check = Some(fleet.health_check(Span::from_secs(3), 2));
        on_release(&mut new);
        let new = fleet.verified(&new);
        let mut plan = fleet.plan("r", &new, vec![node(1)]);
        on_plan(&mut plan);
        let plan = fleet.verified(&plan);
        let config = Config {
            node: node(1),
            fleet: fleet.id(),
            role: NodeRole::Endpoint,
            os: "linux".into(),
            arch: "x86_64".into(),
            labels: Default::default(),
            attributes: Default::default(),
            contact: contact(1),
            epoch: 1,
            boot_id: Hash::of(b"boot 0"),
            coordinators: vec![contact(9000)],
            origins: vec![contact(9001)],
            tempo: Tempo::default(),
            grain: crate::contract::Grain::default(),
            agent: None,
            seed: 7,
        };
        let app = old.product.clone();
        let installed = InstalledRecord {
            product: app.clone(),
            release: old.digest(),
            previous: None,
        };
        let counters = CountersRecord {
            releases: BTreeMap::from([(app, 1)]),
            ..CountersRecord::default()
        };
        let records = [
            Record::Release(old.clone()),
            Record::Installed(installed),
            Record::Counters(counters),
        ];
        let documents = BTreeMap::from([
            (plan.digest(), Event::Plan(plan.clone())),
            (new.digest(), Event::Release(new.clone())),
        ]);
        let now = Now {
            boot: Time::from_secs(100),
            wall: CREATED,
        };
        let mut world = World {
            brain: Brain::new(config.clone(), Memory::default(), now),
            checker: Checker::new(&[&plan]),
            disk: records.into_iter().map(|r| (r.key(), r)).collect(),
            answers: VecDeque::new(),
            actions_left: None,
            actions_done: 0,
            notes: Vec::new(),
            shown: Vec::new(),
            granted: Vec::new(),
            dropped: Vec::new(),
            installed: Some(old.digest()),
            switched: Vec::new(),
            keeper: Keeper::of(old.digest()),
            around: Around::default(),
            slots: BTreeSet::from([old.digest()]),
            blobs_here: false,
            slot_outcomes: VecDeque::new(),
            healthy: true,
            held: None,
            held_answers: Vec::new(),
            steps: Vec::new(),
            commits: 0,
            orders: BTreeMap::new(),
            documents,
            reachable: true,
            pushed: None,
            renewing: true,
            statuses: BTreeMap::new(),
            inventory: None,
            states: Vec::new(),
            fleet,
            config,
            now,
            old,
            new,
            plan,
        };
        world.restart();
        world
    }

    // ---- the coordinator -----------------------------------------------------------------------

    fn next_order(&self) -> u64 {
        self.orders.keys().next_back().map_or(1, |n| n + 1)
    }

    /// Gives an order; the node learns it with its next uplink.
    pub(crate) fn give(&mut self, body: OrderBody) -> Verified<Order> {
        let order = self.fleet.order(self.next_order(), body);
        self.orders.insert(order.seq.n, (order.clone(), None));
        order
    }

    /// Puts release and plan where nodes pull them.
    pub(crate) fn publish(&mut self) {
        let (plan, release) = (self.plan.clone(), self.new.clone());
        self.documents.insert(plan.digest(), Event::Plan(plan));
        self.documents
            .insert(release.digest(), Event::Release(release));
    }

    /// Opens wave 0 and says so in a bulletin.
    pub(crate) fn open(&mut self) {
        let lease = self.give(self.fleet.lease(&self.plan, 0));
        self.bulletin(lease.seq.n, |_| {});
    }

    /// Gives a bulletin that names the rollout, with `last` as the last order about it.
    pub(crate) fn bulletin(&mut self, last: u64, change: impl FnOnce(&mut Bulletin)) {
        let mut bulletin = self.fleet.bulletin(None, &[(&self.plan, last)]);
        if last == 0 {
            bulletin.rollouts[0].last_order = Seq::default();
        }
        change(&mut bulletin);
        self.give(OrderBody::Bulletin(bulletin));
    }

    /// Renews the lease of wave 0.
    pub(crate) fn renew(&mut self) -> Verified<Order> {
        self.give(self.fleet.lease(&self.plan, 0))
    }

    /// Takes the release back.
    pub(crate) fn recall(&mut self) {
        let (body, recall) = self.fleet.recall(&self.plan);
        let n = self.next_order();
        self.orders
            .insert(n, (self.fleet.order(n, body), Some(recall)));
    }

    /// The state that the coordinator has of the rollout.
    pub(crate) fn reported(&self) -> Option<State> {
        self.statuses.get(&self.plan.rollout).map(|s| s.state)
    }

    fn uplink(&mut self, ticket: Ticket, after: u64, own: Vec<NodeStatus>) {
        if !self.reachable {
            self.answers.push_back(Event::Answered {
                ticket,
                reply: None,
            });
            return;
        }
        let mut newest = BTreeMap::new();
        for (order, recall) in self.orders.values() {
            newest.insert(order.body.subject(), (order.clone(), recall.clone()));
        }
        let mut orders: Vec<_> = newest
            .into_values()
            .filter(|(o, _)| o.seq.n > after)
            .collect();
        orders.sort_by_key(|(order, _)| order.seq);
        let envelopes: Vec<Envelope> = orders.iter().map(|(o, _)| o.envelope().clone()).collect();
        for (order, recall) in orders {
            self.answers.push_back(Event::Order(order, recall));
        }
        self.pushed = self.orders.keys().copied().max();
        let mut marks = Vec::new();
        for status in own {
            let (node, rollout, seq) = (status.node, status.rollout.clone(), status.seq);
            marks.push(Mark {
                node,
                rollout: rollout.clone(),
                seq,
            });
            if self
                .statuses
                .get(&rollout)
                .is_none_or(|held| held.seq < seq)
            {
                if self
                    .statuses
                    .get(&rollout)
                    .is_none_or(|held| held.state != status.state)
                {
                    self.states.push(status.state);
                }
                self.statuses.insert(rollout, status);
            }
        }
        let receipt = (!marks.is_empty()).then(|| self.fleet.receipt(marks));
        let seal = receipt.as_ref().map(|r| Seal::of(r.envelope(), Vec::new()));
        self.answers.extend(receipt.map(Event::Receipt));
        let reply = ControlReply::Uplink {
            orders: envelopes,
            receipt: seal,
            known: true,
        };
        self.answers.push_back(Event::Answered {
            ticket,
            reply: Some(Box::new(reply)),
        });
    }

    // ---- the machine ---------------------------------------------------------------------------

    /// The process ends here and now; what was not done is lost.
    pub(crate) fn crash(&mut self) {
        self.answers.clear();
        self.held_answers.clear();
        self.actions_left = None;
        self.checker.crashed(&self.disk);
        self.keep_agent();
        self.boot();
        self.restart();
    }

    /// The machine starts anew: another boot.
    pub(crate) fn reboot(&mut self) {
        let name = format!("boot at {}", self.now.wall.0);
        self.config.boot_id = Hash::of(name.as_bytes());
        self.now.boot = Time::from_secs(1);
        self.crash();
    }

    fn restart(&mut self) {
        let memory = Memory {
            records: self.disk.values().cloned().collect(),
        };
        self.brain = Brain::new(self.config.clone(), memory, self.now);
        self.pushed = None;
        self.tell(Event::Root(self.fleet.trust().root().clone()));
        self.tell(Event::Addresses(vec![[10, 0, 0, 1].into()]));
    }

    /// Hands an event in; actions are not carried out yet.
    pub(crate) fn tell(&mut self, event: Event) {
        self.checker.event(&event, &self.config, self.now);
        self.brain.handle(self.now, event);
    }

    /// Every byte of the new release is here.
    pub(crate) fn content_comes(&mut self) {
        let release = self.new.digest();
        self.brain.content_comes(self.now, release);
    }

    /// Carries out one action; false if there is none.
    pub(crate) fn act(&mut self) -> bool {
        let Some(action) = self.brain.poll_action() else {
            return false;
        };
        self.actions_done += 1;
        self.checker
            .action(&action, &self.disk, &self.config, self.now);
        match action {
            Action::Remember(record) => {
                if let Record::Journal(journal) = &*record {
                    let before = self.disk.get(&record.key());
                    let again = matches!(before, Some(Record::Journal(j)) if j.at == journal.at);
                    self.commits += usize::from(journal.at == Boundary::Committed && !again);
                }
                self.disk.insert(record.key(), *record);
            }
            Action::Forget(key) => drop(self.disk.remove(&key)),
            Action::Step {
                ticket,
                release,
                before,
                step,
                ..
            } => {
                let agent = self.config.agent.is_some();
                if step == Step::Restart && !agent && self.machine_restarts() {
                    return true;
                }
                if step == Step::Restart && agent && self.restarts(release.digest()) {
                    return true;
                }
                let outcome = self.take_step(&release, before.map(|b| b.digest()), &step);
                let answer = Event::StepEnded { ticket, outcome };
                if self.held == Some(step) {
                    self.held_answers.push(answer);
                } else {
                    self.answers.push_back(answer);
                }
            }
            Action::Ask {
                ticket,
                request,
                own_statuses,
                ..
            } => match *request {
                ControlRequest::Uplink { after, .. } => self.uplink(ticket, after.n, own_statuses),
                ControlRequest::PullDocument { digest } => {
                    let document = self
                        .documents
                        .get(&digest)
                        .cloned()
                        .filter(|_| self.reachable);
                    let reply = ControlReply::Document(document.as_ref().map(|_| Vec::new()));
                    self.answers.extend(document);
                    self.answers.push_back(Event::Answered {
                        ticket,
                        reply: Some(Box::new(reply)),
                    });
                }
                ControlRequest::Inventory(signed) if self.reachable => {
                    self.inventory = NodeInventory::from_bytes(&signed.body).ok();
                    let reply = Some(Box::new(ControlReply::Done));
                    self.answers.push_back(Event::Answered { ticket, reply });
                }
                _ => self.answers.push_back(Event::Answered {
                    ticket,
                    reply: None,
                }),
            },
            Action::OpenBlob { ticket, blob } if self.blobs_here => {
                let whole = PieceSet::full(Geometry::of(blob.length).pieces());
                let found = Some(whole.into());
                self.answers.push_back(Event::BlobOpened { ticket, found });
            }
            Action::DropBlob(blob) => self.dropped.push(blob),
            Action::ReadIndex { ticket, .. } => {
                let empty = Index {
                    pack: BlobRef::of(b""),
                    chunks: Vec::new(),
                    entries: Vec::new(),
                    piece_cvs: vec![Hash::of(b"")],
                };
                let index = empty.check().expect("an empty index is sound");
                let index = Some(Arc::new(index));
                self.answers.push_back(Event::IndexRead { ticket, index });
            }
            Action::GiveNotice { line, .. } => self.shown.push(line),
            Action::Granted { answer, .. } => self.granted.push(answer),
            Action::Note { event, .. } => self.notes.push(event),
            _ => {}
        }
        true
    }

    /// Carries out everything that is to be done now; false if the crash came first.
    pub(crate) fn work(&mut self) -> bool {
        loop {
            if self.actions_left == Some(0) {
                return false;
            }
            if self.act() {
                self.actions_left = self.actions_left.map(|n| n - 1);
            } else if let Some(answer) = self.answers.pop_front() {
                self.tell(answer);
            } else {
                return true;
            }
        }
    }

    /// Lets time pass until the brain wants something, but no longer than `most`.
    pub(crate) fn pass(&mut self, most: Span) {
        self.push();
        let end = Time(self.now.boot.0 + most.0);
        let next = self
            .brain
            .poll_timeout()
            .unwrap_or(end)
            .clamp(self.now.boot, end);
        self.sleep(next.since(self.now.boot));
        self.brain.handle_timeout(self.now);
    }

    /// The coordinator pushes new orders to a node that is connected.
    fn push(&mut self) {
        let Some(pushed) = self.pushed.filter(|_| self.reachable) else {
            return;
        };
        let new: Vec<_> = self.orders.range(pushed + 1..).collect();
        let new: Vec<_> = new.into_iter().map(|(n, o)| (*n, o.clone())).collect();
        for (n, (order, recall)) in new {
            self.pushed = Some(n);
            self.tell(Event::Order(order, recall));
        }
    }

    /// Lets time pass without telling the brain.
    pub(crate) fn sleep(&mut self, span: Span) {
        self.now.boot.0 += span.0;
        self.now.wall.0 += span.0;
    }

    /// Works and waits until `done`, renewing the lease and crashing when told to. Panics when
    /// nothing comes of it.
    pub(crate) fn run(&mut self, done: impl Fn(&World) -> bool) {
        let mut renew_at = self.now.wall.0 + 20_000;
        for round in 0..20_000 {
            if !self.work() {
                self.crash();
                self.actions_left = self.keeper.goes_on.take();
                continue;
            }
            if done(self) {
                return;
            }
            if round > 3 && !self.blobs_here && self.brain.wants(&self.new.digest()) {
                self.content_comes();
                continue;
            }
            if self.renewing && self.now.wall.0 >= renew_at {
                renew_at = self.now.wall.0 + 20_000;
                self.renew();
            }
            self.pass(Span::from_secs(5));
        }
        let snapshot = self.brain.snapshot(self.now);
        panic!("nothing comes of it: {snapshot:#?}, {:?}", self.states);
    }

    /// Runs for some time.
    pub(crate) fn run_for(&mut self, span: Span) {
        let end = self.now.wall.0 + span.0;
        self.run(|w| w.now.wall.0 >= end);
    }

    /// Where the journal of the rollout stands on disk.
    pub(crate) fn journal(&self) -> Option<Boundary> {
        match self
            .disk
            .get(&RecordKey::Journal(self.plan.rollout.clone()))?
        {
            Record::Journal(journal) => Some(journal.at),
            _ => None,
        }
    }

    /// What the disk says is installed.
    pub(crate) fn installed_record(&self) -> Option<Hash> {
        match self
            .disk
            .get(&RecordKey::Installed(fixtures::site("app")))?
        {
            Record::Installed(installed) => Some(installed.release),
            _ => None,
        }
    }

    /// An order of a number that the coordinator never gave in order, for replays.
    pub(crate) fn order(&self, n: u64, body: OrderBody) -> Event {
        let order = self.fleet.order(n, body);
        assert_eq!(order.seq, seq(n));
        Event::Order(order, None)
    }
}
