//! The coordinator's body in the pretend world: ledger, signatures, the feed.

use std::collections::BTreeMap;
use std::sync::Arc;

use coordinator_core::contract::{
    Action, Answer, Command, Config, Enrolled, Event, LedgerEvent, Uplink, goes_to_all,
};
use coordinator_core::{Conductor, Ticket};
use protocol::envelope::Envelope;
use protocol::feed::{Seal, StageCounts};
use protocol::limits::{
    self, BULLETIN_LIFE, CONTROL_MAX_BYTES, MEMBERS_TOLD_MAX, UPLINK_STATUSES_MAX,
};
use protocol::orders::{Mark, Order, OrderBody, Receipt};
use protocol::wire::{Contact, ControlReply, ControlRequest};
use protocol::{FleetId, Seq, Span, Time};

use crate::checks::findings::Rule;
use crate::hub::{Happening, Hub};
use crate::mail::{Asker, Mail};
use crate::series::Sums;
use crate::shared::Place;
use crate::traffic::{self, Traffic};

/// Bytes a second from each second on.
type Rates = Vec<(f64, f64)>;

/// The coordinator.
pub struct Desk {
    /// Its brain.
    pub conductor: Conductor,
    /// What is durable.
    pub ledger: Vec<LedgerEvent>,
    /// Whether its process runs.
    pub up: bool,
    config: Config,
    envelopes: BTreeMap<Seq, Arc<Envelope>>,
    marks: BTreeMap<Ticket, (Vec<Mark>, bool)>,
    answers: BTreeMap<Ticket, Answer>,
    tickets: u64,
    /// What came and went over time, and how much of all was counted.
    over_time: (Sums, Sums),
    weighed: (u64, u64),
    /// Who is connected, and whether it carries its site's feed.
    feed: BTreeMap<Place, bool>,
    /// Pushes that were not answered yet: to whom, what, how often.
    pushed: BTreeMap<u64, (Place, Arc<Envelope>, u32)>,
    pushes: u64,
    /// What it heard and said.
    pub traffic: Traffic,
    wake: Option<Time>,
}

impl Desk {
    /// A coordinator with an empty ledger.
    pub fn new(fleet: FleetId, origin: Contact, coordinator: Contact) -> Desk {
        let config = Config {
            fleet,
            origins: vec![origin],
            coordinators: vec![coordinator],
            root_version: 1,
            unreachable_after: Span::from_secs(180),
            bulletin_life: BULLETIN_LIFE,
            plans_threshold: 2,
            time_frames: Default::default(),
            starts_per_day: None,
        };
        Desk {
            conductor: Conductor::new(config.clone()),
            config,
            ledger: Vec::new(),
            up: true,
            envelopes: BTreeMap::new(),
            marks: BTreeMap::new(),
            answers: BTreeMap::new(),
            tickets: 0,
            over_time: (Sums::new(Span::from_secs(1)), Sums::new(Span::from_secs(1))),
            weighed: (0, 0),
            feed: BTreeMap::new(),
            pushed: BTreeMap::new(),
            pushes: 0,
            traffic: Traffic::default(),
            wake: None,
        }
    }

    /// Bytes a second that came and went, from each second on.
    pub fn rates(&self) -> (Rates, Rates) {
        (self.over_time.0.rates(), self.over_time.1.rates())
    }

    /// Notes what came and went since it was last noted.
    fn weigh(&mut self, now: Time) {
        let (came, went) = self.traffic.totals();
        self.over_time.0.add(now, came - self.weighed.0);
        self.over_time.1.add(now, went - self.weighed.1);
        self.weighed = (came, went);
    }

    /// A push was answered.
    pub(crate) fn push_came(&mut self, number: u64) {
        self.pushed.remove(&number);
    }

    /// A node's connection ended.
    pub(crate) fn hung_up(&mut self, place: Place) {
        self.feed.remove(&place);
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

impl Hub {
    /// The coordinator begins: topology, and everyone enrolled.
    pub(crate) fn desk_opens(&mut self) {
        let now = self.clock();
        self.desk.conductor.resume(now);
        self.desk_drains();
        // the origin installs nothing and is no part of the fleet's targets
        for number in 0..self.shared.nodes() {
            let enrolled = Enrolled {
                node: self.shared.fleet.node(number),
                hostname: format!("host-{number}"),
                os: "linux".into(),
                arch: "x86_64".into(),
                labels: self.shared.labels(number),
                site: None,
                serial: format!("{number:x}"),
                token: "simulated".into(),
            };
            self.tell_desk(Event::Enrolled(enrolled));
        }
        let fleet = &self.shared.fleet;
        let topology = self.shared.topology().ok();
        let topology = topology.and_then(|t| fleet.believe(&fleet.sign(&t)));
        if let Some(topology) = topology {
            self.command(Command::SetTopology(topology));
        }
    }

    /// An operator's command.
    pub(crate) fn command(&mut self, command: Command) -> Option<Answer> {
        if matches!(command, Command::Propose { .. }) {
            self.desk.traffic.begin();
        }
        let ticket = self.desk.ticket();
        self.tell_desk(Event::Command(ticket, command));
        let answer = self.desk.answers.remove(&ticket);
        if answer.is_none() {
            self.audit
                .violated(self.time(), Rule::Body, "a command was not answered");
        }
        answer
    }

    pub(crate) fn tell_desk(&mut self, event: Event) {
        if self.desk.up {
            self.desk.conductor.handle(self.clock(), event);
            self.desk_drains();
        }
    }

    pub(crate) fn wake_desk(&mut self) {
        if self.desk.wake != Some(self.time()) {
            return;
        }
        self.desk.wake = None;
        if self.desk.up {
            self.desk.conductor.handle_timeout(self.clock());
            self.desk_drains();
        }
    }

    pub(crate) fn kill_desk(&mut self, down: Span) {
        if std::mem::take(&mut self.desk.up) {
            for Place { part, slot } in std::mem::take(&mut self.desk.feed).into_keys() {
                self.send(part, Mail::Lost { slot });
            }
            self.after(down, Happening::Boot);
        }
    }

    pub(crate) fn boot_desk(&mut self) {
        // what delegates count is not ledgered
        let views = |conductor: &Conductor| {
            let mut views = conductor.rollouts();
            views
                .iter_mut()
                .for_each(|v| v.stages = StageCounts::default());
            views
        };
        let before = views(&self.desk.conductor);
        let mut conductor = Conductor::new(self.desk.config.clone());
        self.desk
            .ledger
            .iter()
            .for_each(|event| conductor.replay(event));
        if views(&conductor) != before {
            self.audit.violated(
                self.time(),
                Rule::Replay,
                "the ledger folds to another view",
            );
        }
        self.desk.up = true;
        self.desk.wake = None;
        self.desk.conductor = conductor;
        self.desk.conductor.resume(self.clock());
        self.desk_drains();
    }

    fn desk_drains(&mut self) {
        let now = self.clock();
        let mut count = 0;
        while let Some(action) = self.desk.conductor.poll_action() {
            count += 1;
            match action {
                Action::Append(event) => {
                    self.audit.appended(now.boot, &event);
                    self.desk.ledger.push(event);
                }
                Action::Issue(order) => self.issue(order),
                Action::Acknowledge {
                    ticket,
                    marks,
                    known,
                } => {
                    self.desk.marks.insert(ticket, (marks, known));
                }
                Action::Answer(ticket, answer) => {
                    self.desk.answers.insert(ticket, answer);
                }
                Action::Note { event, line } => self.story.note(now.boot, event, line),
            }
        }
        if count > 0 {
            self.audit.handled(now.boot, &self.desk.conductor, count);
        }
        if let Some(at) = self.desk.conductor.poll_timeout() {
            let at = at.max(now.boot + Span(1));
            if self.desk.wake.is_none_or(|wake| at < wake) {
                self.desk.wake = Some(at);
                self.at(at, Happening::Wake);
            }
        }
    }

    fn issue(&mut self, order: Order) {
        let envelope = self.signed(&order);
        if let OrderBody::Halt { rollout, .. } = &order.body {
            self.halted(rollout);
        }
        let all = goes_to_all(&order);
        let fed = self
            .desk
            .feed
            .iter()
            .filter(|(_, carries)| all || **carries);
        let fed: Vec<Place> = fed.map(|(place, _)| *place).collect();
        let push = ControlRequest::Push {
            orders: vec![(*envelope).clone()],
        };
        for place in fed {
            self.desk.traffic.pushed("pushed orders", &push);
            self.push(place, envelope.clone(), 1);
        }
    }

    /// Pushes an order; where messages get lost it waits for the answer, as the real body does.
    fn push(&mut self, place: Place, order: Arc<Envelope>, tries: u32) {
        self.desk.pushes += 1;
        let (number, slot) = (self.desk.pushes, place.slot);
        if self.shared.is_lossy() && tries < limits::PUSH_TRIES {
            let waits = (place, order.clone(), tries);
            self.desk.pushed.insert(number, waits);
            let again = Span(limits::PUSH_PATIENCE.0 + limits::PUSH_AGAIN.0);
            self.after(again, Happening::PushAgain(number));
        }
        self.send(
            place.part,
            Mail::Push {
                slot,
                number,
                order,
            },
        );
    }

    /// A push was not answered in time.
    pub(crate) fn push_again(&mut self, number: u64) {
        let Some((place, order, tries)) = self.desk.pushed.remove(&number) else {
            return;
        };
        if self.desk.up && self.desk.feed.contains_key(&place) {
            let push = ControlRequest::Push {
                orders: vec![(*order).clone()],
            };
            self.desk.traffic.pushed("pushed orders", &push);
            self.push(place, order, tries + 1);
        }
    }

    fn signed(&mut self, order: &Order) -> Arc<Envelope> {
        if let Some(envelope) = self.desk.envelopes.get(&order.seq) {
            return envelope.clone();
        }
        let envelope = Arc::new(self.shared.fleet.sign(order));
        self.desk.envelopes.insert(order.seq, envelope.clone());
        envelope
    }

    fn orders_after(&mut self, after: Seq) -> Vec<Envelope> {
        let orders = self.desk.conductor.orders_after(after);
        let mut room = CONTROL_MAX_BYTES / 2;
        let mut envelopes = Vec::new();
        for order in &orders {
            let envelope = (*self.signed(order)).clone();
            let Some(left) = room.checked_sub(envelope.payload.len() + 512) else {
                break;
            };
            room = left;
            envelopes.push(envelope);
        }
        envelopes
    }

    /// A request reached the coordinator.
    pub(crate) fn desk_asked(&mut self, from: Asker, request: ControlRequest) {
        if !self.desk.up {
            return self.reply(from, None);
        }
        self.desk.traffic.asked(&request);
        let kind = traffic::kind(&request);
        let reply = match request {
            ControlRequest::PullOrders { after } => ControlReply::Orders(self.orders_after(after)),
            ControlRequest::PullDocument { digest } => {
                let envelope = self.desk.conductor.document(&digest);
                let found = envelope.and_then(|e| self.shared.fleet.document(e));
                match &found {
                    Some(found) => self.desk.traffic.documented(kind, found.bytes as u64),
                    None => (self.desk.traffic).answered(kind, &ControlReply::Document(None)),
                }
                return self.send(from.place.part, Mail::Document { to: from, found });
            }
            ControlRequest::PullRoot { .. } => ControlReply::Document(None),
            ControlRequest::Locate { me } => {
                let site = me.site.clone();
                self.tell_desk(Event::Located(me));
                let members = site.map(|site| self.desk.conductor.members_of(&site));
                let mut members = members.unwrap_or_default();
                let node = self.shared.fleet.node(self.shared.number(from.place));
                members.retain(|member| member.contact.node != node);
                members.truncate(MEMBERS_TOLD_MAX);
                ControlReply::Members(members.into_iter().map(Arc::new).collect())
            }
            ControlRequest::Guide { me, addresses } => {
                let node = me.contact.node;
                let event = Event::Newcomer {
                    me,
                    addresses: addresses.clone(),
                };
                self.tell_desk(event);
                let guides = self.desk.conductor.guides(&node, &addresses);
                ControlReply::Members(guides.into_iter().map(Arc::new).collect())
            }
            ControlRequest::Uplink {
                me,
                roster,
                statuses: batch,
                stages,
                after,
            } => {
                let ticket = self.desk.ticket();
                let node = self.shared.fleet.node(self.shared.number(from.place));
                self.desk.feed.insert(from.place, roster.is_some());
                let fleet = &self.shared.fleet;
                let statuses: Vec<Option<_>> = batch
                    .unpack(fleet.id(), UPLINK_STATUSES_MAX)
                    .into_iter()
                    .map(|signed| fleet.status(&signed?))
                    .collect();
                let marks: Vec<Option<Mark>> = statuses
                    .iter()
                    .map(|s| s.as_ref().map(|s| Mark::of(s)))
                    .collect();
                let stages = stages.and_then(|s| s.verify(fleet.id(), node).ok());
                self.tell_desk(Event::Uplink(Uplink {
                    ticket,
                    from: node,
                    me,
                    roster,
                    statuses: statuses.into_iter().flatten().collect(),
                    stages,
                }));
                let (receipt, known) = self.receipt(ticket, &marks);
                ControlReply::Uplink {
                    orders: self.orders_after(after),
                    receipt,
                    known,
                }
            }
            ControlRequest::Witness(words) => {
                let fleet = self.shared.fleet.id();
                for word in words.iter().filter_map(|word| word.verify(fleet).ok()) {
                    self.tell_desk(Event::Witnessed(word));
                }
                ControlReply::Done
            }
            // machines here are never asked what they are like, so they do not tell; nor does anybody knock
            ControlRequest::Inventory(_)
            | ControlRequest::Strangers(_)
            | ControlRequest::Push { .. }
            | ControlRequest::Greet { .. }
            | ControlRequest::Report { .. } => {
                ControlReply::Refused("not a question for a coordinator".into())
            }
        };
        self.desk.traffic.answered(kind, &reply);
        let now = self.time();
        self.desk.weigh(now);
        self.reply(from, Some(reply));
    }

    fn reply(&mut self, to: Asker, reply: Option<ControlReply>) {
        let reply = reply.map(Box::new);
        self.send(to.place.part, Mail::Answer { to, reply });
    }

    /// Signs for what is durable of what an uplink brought.
    fn receipt(&mut self, ticket: Ticket, marks: &[Option<Mark>]) -> (Option<Seal>, bool) {
        let Some((durable, known)) = self.desk.marks.remove(&ticket) else {
            self.audit
                .violated(self.time(), Rule::Body, "an uplink was not acknowledged");
            return (None, false);
        };
        let is_durable = |mark: &&Mark| {
            let same = |d: &Mark| d.node == mark.node && d.rollout == mark.rollout;
            durable.iter().any(|d| same(d) && d.seq >= mark.seq)
        };
        let kept = |mark: &Option<Mark>| mark.as_ref().filter(is_durable).cloned();
        let except = (0..).zip(marks).filter(|(_, mark)| kept(mark).is_none());
        let except = except.map(|(place, _)| place).collect();
        let receipt = Receipt {
            spec_version: 1,
            fleet: self.shared.fleet.id(),
            marks: marks.iter().filter_map(kept).collect(),
        };
        let seal = || Seal::of(&self.shared.fleet.sign(&receipt), except);
        ((!marks.is_empty()).then(seal), known)
    }
}
