//! A site of several brains on one bus, and a coordinator that comes and goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use protocol::feed::Seal;
use protocol::fixtures::{CREATED, Fleet, contact, node, node_key};
use protocol::orders::{Mark, Order, OrderBody};
use protocol::plan::RolloutPlan;
use protocol::status::{NodeStatus, State};
use protocol::topology::Topology;
use protocol::versioned::Versioned as _;
use protocol::wire::{ControlReply, ControlRequest, Presence, SiteMessage};
use protocol::witness::WitnessWord;
use protocol::{Hash, NodeId, Now, Seq, Span, Time, Verified};

use crate::Brain;
use crate::contract::{
    Action, Config, Event, Memory, NodeRole, Record, RecordKey, Step, StepOutcome, Tempo, Ticket,
};

mod slots;
mod stories;

struct Member {
    config: Config,
    key: SigningKey,
    brain: Brain,
    disk: BTreeMap<RecordKey, Record>,
    up: bool,
    inbox: VecDeque<Event>,
    paced: Vec<Action>,
    linked_to_coordinator: bool,
    links: BTreeSet<NodeId>,
}

/// Nodes of site `s1` and the coordinator, who is contact 9000.
struct Site {
    fleet: Fleet,
    now: Now,
    members: BTreeMap<NodeId, Member>,
    orders: Vec<Verified<Order>>,
    documents: BTreeMap<Hash, Event>,
    topology: Verified<Topology>,
    plan: Verified<RolloutPlan>,
    reachable: bool,
    known: BTreeMap<NodeId, Presence>,
    statuses: BTreeMap<NodeId, NodeStatus>,
    uplinks: BTreeSet<NodeId>,
    /// Of each witness the number of its newest word, and whom it misses by that.
    words: BTreeMap<NodeId, (Seq, Vec<NodeId>)>,
    /// Questions between nodes: who asked, and with which ticket.
    questions: BTreeMap<Ticket, (NodeId, Ticket)>,
    next: u64,
    /// A step takes so long.
    step_takes: Span,
    /// Steps that are under way: when they end, and whose they are.
    steps: Vec<(Time, NodeId, Ticket)>,
    /// Who has begun an installation and not ended it.
    at_work: BTreeSet<NodeId>,
    /// The most that were at work at a time.
    most_at_work: usize,
}

impl Site {
    fn new(count: u64) -> Site {
        Site::with(count, |_| {})
    }

    /// The same, with the plan changed before it is signed.
    fn with(count: u64, on_plan: impl FnOnce(&mut RolloutPlan)) -> Site {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let nodes = (1..=count).map(node).collect();
        let mut plan = fleet.plan("r", &release, nodes);
        on_plan(&mut plan);
        let plan = fleet.verified(&plan);
        let topology = fleet.verified(&fleet.topology(1, 2));
        let bulletin = fleet.bulletin(Some(&topology), &[(&plan, 1)]);
        let orders = vec![
            fleet.order(1, fleet.lease(&plan, 1)),
            fleet.order(2, OrderBody::Bulletin(bulletin)),
        ];
        let documents = BTreeMap::from([
            (topology.digest(), Event::Topology(topology.clone())),
            (plan.digest(), Event::Plan(plan.clone())),
            (release.digest(), Event::Release(release)),
        ]);
        let mut site = Site {
            now: Now {
                boot: Time::from_secs(50),
                wall: CREATED,
            },
            members: BTreeMap::new(),
            reachable: true,
            known: BTreeMap::new(),
            statuses: BTreeMap::new(),
            uplinks: BTreeSet::new(),
            words: BTreeMap::new(),
            questions: BTreeMap::new(),
            next: 0,
            step_takes: Span::ZERO,
            steps: Vec::new(),
            at_work: BTreeSet::new(),
            most_at_work: 0,
            fleet,
            orders,
            documents,
            topology,
            plan,
        };
        (1..=count).for_each(|n| site.join(n, NodeRole::Endpoint));
        site
    }

    fn join(&mut self, n: u64, role: NodeRole) {
        let config = Config {
            node: node(n),
            fleet: self.fleet.id(),
            role,
            os: "linux".into(),
            arch: "x86_64".into(),
            labels: Default::default(),
            attributes: Default::default(),
            contact: contact(n),
            epoch: 1,
            boot_id: Hash::of(&n.to_le_bytes()),
            coordinators: vec![contact(9000)],
            origins: vec![contact(9001)],
            tempo: Tempo::default(),
            grain: crate::contract::Grain::default(),
            agent: None,
            seed: n,
        };
        let member = Member {
            brain: Brain::new(config.clone(), Memory::default(), self.now),
            config,
            key: node_key(n),
            disk: BTreeMap::new(),
            up: true,
            inbox: VecDeque::new(),
            paced: Vec::new(),
            linked_to_coordinator: false,
            links: BTreeSet::new(),
        };
        self.members.insert(node(n), member);
        self.greet(node(n), n);
    }

    fn greet(&mut self, id: NodeId, n: u64) {
        let root = self.fleet.trust().root().clone();
        let member = self.members.get_mut(&id).expect("a member");
        let addresses = vec![[127, 1, 0, n as u8].into()];
        // Every node was given the topology at enrolment, except in stories about learning it.
        member
            .inbox
            .extend([Event::Root(root), Event::Topology(self.topology.clone())]);
        member.inbox.push_back(Event::Addresses(addresses));
    }

    fn send(&mut self, to: NodeId, event: Event) {
        if let Some(member) = self.members.get_mut(&to).filter(|m| m.up) {
            member.inbox.push_back(event);
        }
    }

    fn gossip(&mut self, from: NodeId, event: &Event) {
        let others: Vec<NodeId> = self
            .members
            .keys()
            .filter(|n| **n != from)
            .copied()
            .collect();
        others.into_iter().for_each(|n| self.send(n, event.clone()));
    }

    fn order_of(&self, digest: Hash) -> Option<Event> {
        let order = self.orders.iter().find(|o| o.digest() == digest)?;
        Some(Event::Order(order.clone(), None))
    }

    /// What the coordinator or a peer answers, statements first.
    fn answer(&mut self, to: NodeId, ticket: Ticket, reply: Option<ControlReply>) {
        let orders = match &reply {
            Some(ControlReply::Orders(orders) | ControlReply::Uplink { orders, .. }) => {
                orders.clone()
            }
            Some(ControlReply::Receipt(envelope)) => {
                let receipt = self.fleet.trust().verify(envelope).expect("a receipt");
                self.send(to, Event::Receipt(receipt));
                Vec::new()
            }
            _ => Vec::new(),
        };
        for envelope in orders {
            let order = self
                .order_of(envelope.digest())
                .expect("an order of the coordinator");
            self.send(to, order);
        }
        let reply = reply.map(Box::new);
        self.send(to, Event::Answered { ticket, reply });
    }

    fn ask_coordinator(
        &mut self,
        from: NodeId,
        ticket: Ticket,
        request: ControlRequest,
        own: Vec<NodeStatus>,
    ) {
        if !self.reachable {
            return self.send(
                from,
                Event::Answered {
                    ticket,
                    reply: None,
                },
            );
        }
        let member = self.members.get_mut(&from).expect("a member");
        member.linked_to_coordinator = true;
        let reply = match request {
            ControlRequest::Guide { .. } => ControlReply::Members(Vec::new()),
            ControlRequest::Locate { me } => {
                let mut here: Vec<_> = self.known.values().cloned().map(Arc::new).collect();
                here.retain(|p| p.contact.node != from);
                self.known.insert(from, me);
                ControlReply::Members(here)
            }
            ControlRequest::Uplink {
                me,
                statuses,
                after,
                ..
            } => {
                self.uplinks.insert(from);
                let known = me.is_some() || self.known.contains_key(&from);
                self.known.extend(me.map(|me| (from, me)));
                let read = |s: &protocol::status::SignedStatus| {
                    (*s.verify(self.fleet.id()).expect("signed")).clone()
                };
                let brought = statuses.unpack(self.fleet.id(), 512);
                let brought = brought.iter().flatten().map(read);
                let statuses: Vec<NodeStatus> = brought.chain(own).collect();
                let mark = |s: &NodeStatus| Mark {
                    node: s.node,
                    rollout: s.rollout.clone(),
                    seq: s.seq,
                };
                let marks: Vec<Mark> = statuses.iter().map(mark).collect();
                for status in statuses {
                    let held = self.statuses.get(&status.node);
                    if held.is_none_or(|held| held.seq < status.seq) {
                        self.statuses.insert(status.node, status);
                    }
                }
                let receipt = (!marks.is_empty()).then(|| self.fleet.receipt(marks));
                let seal = receipt.as_ref().map(|r| Seal::of(r.envelope(), Vec::new()));
                if let Some(receipt) = receipt {
                    self.send(from, Event::Receipt(receipt));
                }
                let orders = self.orders.iter().filter(|o| o.seq > after);
                let orders = orders.map(|o| o.envelope().clone()).collect();
                ControlReply::Uplink {
                    orders,
                    receipt: seal,
                    known,
                }
            }
            ControlRequest::PullDocument { digest } => {
                let document = self.documents.get(&digest).cloned();
                let reply = ControlReply::Document(document.as_ref().map(|_| Vec::new()));
                document.into_iter().for_each(|d| self.send(from, d));
                reply
            }
            ControlRequest::Witness(words) => {
                for word in words {
                    let word = WitnessWord::from_bytes(&word.body).expect("a word");
                    let held = self.words.entry(word.witness).or_default();
                    if held.0 < word.seq {
                        *held = (word.seq, word.silent);
                    }
                }
                ControlReply::Done
            }
            other => panic!("not a question for the coordinator: {other:?}"),
        };
        self.answer(from, ticket, Some(reply));
    }

    fn ask(&mut self, from: NodeId, to: NodeId, ticket: Ticket, request: ControlRequest) {
        let peer = self.members.get(&to).filter(|m| m.up);
        let Some(peer) = peer else {
            return self.send(
                from,
                Event::Answered {
                    ticket,
                    reply: None,
                },
            );
        };
        if let ControlRequest::PullDocument { digest } = request {
            let held = peer.disk.values().any(|record| match record {
                Record::Topology(t) => t.digest() == digest,
                Record::Plan(p) => p.digest() == digest,
                Record::Release(r) => r.digest() == digest,
                _ => false,
            });
            let document = self.documents.get(&digest).filter(|_| held).cloned();
            let reply = ControlReply::Document(document.as_ref().map(|_| Vec::new()));
            document.into_iter().for_each(|d| self.send(from, d));
            return self.answer(from, ticket, Some(reply));
        }
        if let ControlRequest::Report { statuses } = &request {
            for signed in statuses {
                let status = signed.verify(self.fleet.id()).expect("signed");
                self.send(to, Event::Status(status));
            }
        }
        self.next += 1;
        let question = Ticket(1 << 40 | self.next);
        self.questions.insert(question, (from, ticket));
        self.send(
            to,
            Event::Asked {
                ticket: question,
                from,
                request: Box::new(request),
            },
        );
    }

    fn act(&mut self, id: NodeId, action: Action) {
        let member = self.members.get_mut(&id).expect("a member");
        match action {
            Action::Remember(record) => drop(member.disk.insert(record.key(), *record)),
            Action::Forget(key) => drop(member.disk.remove(&key)),
            Action::Gossip(SiteMessage::Presence(presence)) => {
                self.gossip(id, &Event::Presence(presence));
            }
            Action::Gossip(SiteMessage::Missing { node, seq }) => {
                self.gossip(
                    id,
                    &Event::Missing {
                        from: id,
                        node,
                        seq,
                    },
                );
            }
            Action::Gossip(SiteMessage::Slot(word)) => self.gossip(id, &Event::Slot(word)),
            Action::Gossip(SiteMessage::Beat(beat)) => {
                self.gossip(id, &Event::Beat { from: id, beat });
            }
            Action::Gossip(SiteMessage::Order(envelope)) => {
                let order = self.order_of(envelope.digest()).expect("an order");
                self.gossip(id, &order);
            }
            Action::Gossip(SiteMessage::Receipt(envelope)) => {
                let receipt = self.fleet.trust().verify(&envelope).expect("a receipt");
                self.gossip(id, &Event::Receipt(receipt));
            }
            Action::GossipStatus(status) => {
                let status = status
                    .sign(&member.key)
                    .verify(self.fleet.id())
                    .expect("signed");
                self.gossip(id, &Event::Status(status));
            }
            Action::Connect(contact) => self.link(id, contact.node),
            Action::Disconnect(peer) if peer == node(9000) => member.linked_to_coordinator = false,
            Action::Disconnect(peer) => self.unlink(id, peer),
            Action::Ask {
                ticket,
                to,
                request,
                own_statuses,
            } if to.node == node(9000) => {
                self.ask_coordinator(id, ticket, *request, own_statuses);
            }
            Action::Ask {
                ticket,
                to,
                mut request,
                own_statuses,
            } => {
                if let ControlRequest::Report { statuses } = &mut *request {
                    let key = &member.key;
                    statuses.extend(own_statuses.iter().map(|s| s.sign(key)));
                }
                if let ControlRequest::Witness(words) = &mut *request {
                    let fleet = self.fleet.id();
                    words.iter_mut().for_each(|w| w.sign(fleet, &member.key));
                }
                self.ask(id, to.node, ticket, *request);
            }
            Action::Reply { ticket, reply } => {
                let (asker, question) = self.questions.remove(&ticket).expect("a question");
                self.answer(asker, question, Some(*reply));
            }
            Action::Step { ticket, step, .. } => {
                if step == Step::CleanUp {
                    self.at_work.remove(&id);
                } else {
                    self.at_work.insert(id);
                }
                self.most_at_work = self.most_at_work.max(self.at_work.len());
                self.steps
                    .push((self.now.boot + self.step_takes, id, ticket));
                self.end_steps();
            }
            Action::Pace { .. } | Action::PaceSelf(_) => member.paced.push(action),
            _ => {}
        }
    }

    fn end_steps(&mut self) {
        let now = self.now.boot;
        let (over, open): (Vec<_>, Vec<_>) = self.steps.drain(..).partition(|(at, ..)| *at <= now);
        self.steps = open;
        for (_, id, ticket) in over {
            let outcome = StepOutcome::Done;
            self.send(id, Event::StepEnded { ticket, outcome });
        }
    }

    fn link(&mut self, from: NodeId, to: NodeId) {
        let up = |site: &Site, n| site.members.get(&n).is_some_and(|m| m.up);
        if up(self, from) && up(self, to) && self.links(from).insert(to) {
            self.links(to).insert(from);
            self.send(from, Event::Connected(to));
            self.send(to, Event::Connected(from));
        }
    }

    fn links(&mut self, of: NodeId) -> &mut BTreeSet<NodeId> {
        &mut self.members.get_mut(&of).expect("a member").links
    }

    fn unlink(&mut self, from: NodeId, to: NodeId) {
        if self.links(from).remove(&to) {
            self.links(to).remove(&from);
            self.send(from, Event::Disconnected(to));
            self.send(to, Event::Disconnected(from));
        }
    }

    /// The process dies; its connections break.
    fn die(&mut self, id: NodeId) {
        self.members.get_mut(&id).expect("a member").up = false;
        self.at_work.remove(&id);
        for peer in self.links(id).clone() {
            self.unlink(id, peer);
        }
    }

    /// Runs until `done` holds or panics after much time.
    fn run(&mut self, done: impl Fn(&Site) -> bool) {
        for _ in 0..6_000 {
            self.end_steps();
            self.work();
            if done(self) {
                return;
            }
            self.now.boot.0 += 50;
            self.now.wall.0 += 50;
        }
        let standings: Vec<_> = self
            .members
            .values()
            .map(|m| (m.up, m.brain.snapshot(self.now)))
            .collect();
        panic!("nothing comes of it: {standings:#?} {:?}", self.statuses);
    }

    fn run_for(&mut self, span: Span) {
        let end = self.now.boot.0 + span.0;
        self.run(|site| site.now.boot.0 >= end);
    }

    fn work(&mut self) {
        let ids: Vec<NodeId> = self
            .members
            .iter()
            .filter(|(_, m)| m.up)
            .map(|(n, _)| *n)
            .collect();
        let release = self.plan.release;
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for id in &ids {
                let now = self.now;
                let member = self.members.get_mut(id).expect("a member");
                if let Some(event) = member.inbox.pop_front() {
                    member.brain.handle(now, event);
                    quiet = false;
                } else if member.brain.poll_timeout().is_some_and(|at| at <= now.boot) {
                    member.brain.handle_timeout(now);
                } else if member.brain.wants(&release) {
                    member.brain.content_comes(now, release);
                }
                while let Some(action) =
                    self.members.get_mut(id).and_then(|m| m.brain.poll_action())
                {
                    self.act(*id, action);
                    quiet = false;
                }
            }
        }
    }

    fn all_up_say(&self, state: State) -> bool {
        let says = |n: &NodeId| self.statuses.get(n).is_some_and(|s| s.state == state);
        self.members
            .iter()
            .filter(|(_, m)| m.up)
            .all(|(n, _)| says(n))
    }

    fn all_reported(&self) -> bool {
        let key = RecordKey::Journal(self.plan.rollout.clone());
        let reported = |m: &Member| matches!(m.disk.get(&key), Some(Record::Journal(j)) if j.at == crate::contract::Boundary::Reported);
        self.members.values().filter(|m| m.up).all(reported)
    }

    fn delegates(&self) -> Vec<NodeId> {
        let is = |m: &Member| m.up && m.brain.snapshot(self.now).delegate;
        self.members
            .iter()
            .filter(|(_, m)| is(m))
            .map(|(n, _)| *n)
            .collect()
    }
}
