//! Sites of bare memberships on a bus that loses, delays and falls apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::fixtures::{Fleet, contact, node};
use protocol::topology::Topology;
use protocol::wire::{ControlRequest, Presence, SiteMessage};
use protocol::{Hash, NodeId, Now, Seq, Span, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::{Membership, Surroundings, Word};
use crate::contract::{Action, Config, Grain, NodeRole, PeersRecord, Record, Tempo, Ticket};
use crate::counters::Counters;
use crate::outbox::Outbox;

mod rules;
mod views;

/// A node of the site, as far as membership goes.
struct Node {
    membership: Membership,
    counters: Counters,
    out: Outbox,
    links: BTreeSet<u64>,
    /// Nodes to which the body keeps a connection.
    wanted: BTreeSet<u64>,
}

enum Mail {
    Gossip(u64, SiteMessage),
    Connected(u64),
    Disconnected(u64),
    Dial(u64),
    Question(u64, Ticket, ControlRequest),
    Answer(Ticket, Option<Vec<Arc<Presence>>>),
}

/// The world. Node `n` of it is [`node`]`(n)`; the coordinator is contact 9000.
struct World {
    now: Time,
    nodes: BTreeMap<u64, Node>,
    records: BTreeMap<u64, PeersRecord>,
    lives: BTreeMap<u64, u32>,
    mail: BTreeMap<(Time, u64), (u64, Mail)>,
    posted: u64,
    rng: ChaCha8Rng,
    topology: Topology,
    of_node: BTreeMap<NodeId, u64>,
    /// Gossip that is lost, in a thousand.
    loss: u64,
    /// The same of questions to the coordinator and of its answers.
    deafness: u64,
    /// Nodes below this number do not reach the others; 0: everybody reaches everybody.
    split: u64,
    /// Nobody reaches anybody.
    apart: bool,
    coordinator: bool,
    known: BTreeMap<u64, Arc<Presence>>,
    /// Messages that were gossiped, by sender.
    said: BTreeMap<u64, u64>,
    /// Questions to the coordinator.
    troubled: usize,
}

impl World {
    fn new(seed: u64) -> World {
        World {
            now: Time::from_secs(10),
            nodes: BTreeMap::new(),
            records: BTreeMap::new(),
            lives: BTreeMap::new(),
            mail: BTreeMap::new(),
            posted: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            topology: Fleet::new(1).topology(1, 2),
            of_node: (1..=2000).map(|n| (node(n), n)).collect(),
            loss: 0,
            deafness: 0,
            split: 0,
            apart: false,
            coordinator: true,
            known: BTreeMap::new(),
            said: BTreeMap::new(),
            troubled: 0,
        }
    }

    fn clock(&self) -> Now {
        Now {
            boot: self.now,
            wall: self.now,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.rng.next_u64() % bound.max(1)
    }

    fn start(&mut self, n: u64) {
        if self.nodes.contains_key(&n) {
            return;
        }
        let life = self.lives.entry(n).or_default();
        *life += 1;
        let config = Config {
            node: node(n),
            fleet: Fleet::new(1).id(),
            role: NodeRole::Endpoint,
            os: "linux".into(),
            arch: "x86_64".into(),
            labels: Default::default(),
            attributes: Default::default(),
            contact: contact(n),
            // A new life goes on with higher numbers, as the counters on disk see to it.
            epoch: *life,
            boot_id: Hash::of(&n.to_le_bytes()),
            coordinators: vec![contact(9000)],
            origins: Vec::new(),
            tempo: Tempo::default(),
            grain: Grain::default(),
            agent: None,
            seed: n,
        };
        let mut membership = Membership::new(&config, self.records.get(&n).cloned());
        let mut out = Outbox::default();
        membership.set_addresses(vec![[127, 1, 0, 1].into()]);
        membership.find_site(Some(&self.topology), &mut out);
        let node = Node {
            membership,
            counters: Counters::new(None, None, config.epoch),
            out,
            links: BTreeSet::new(),
            wanted: BTreeSet::new(),
        };
        self.nodes.insert(n, node);
    }

    fn kill(&mut self, n: u64) {
        let Some(dead) = self.nodes.remove(&n) else {
            return;
        };
        for peer in dead.links {
            self.unlink(peer, n);
        }
    }

    /// From now on those below `split` and the others do not reach each other.
    fn tear(&mut self, split: u64) {
        self.split = split;
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        for a in nodes {
            for b in self.nodes[&a].links.clone() {
                if !self.reaches(a, b) {
                    self.unlink(a, b);
                    self.unlink(b, a);
                }
            }
        }
    }

    fn reaches(&self, a: u64, b: u64) -> bool {
        !self.apart && self.nodes.contains_key(&b) && (a < self.split) == (b < self.split)
    }

    fn unlink(&mut self, n: u64, from: u64) {
        if let Some(at) = self.nodes.get_mut(&n)
            && at.links.remove(&from)
        {
            self.post(1, n, Mail::Disconnected(from));
        }
    }

    fn post(&mut self, after: u64, to: u64, mail: Mail) {
        self.posted += 1;
        let key = (self.now + Span(after), self.posted);
        self.mail.insert(key, (to, mail));
    }

    /// Lets so many milliseconds pass.
    fn run(&mut self, millis: u64) {
        let end = self.now + Span(millis);
        loop {
            let due = |n: &Node| n.membership.timeout().map(|at| at.max(self.now));
            let timer = self.nodes.values().filter_map(due).min();
            let mail = self.mail.first_key_value().map(|((at, _), _)| *at);
            let next = timer.into_iter().chain(mail).min();
            let Some(next) = next.filter(|next| *next < end) else {
                break;
            };
            self.now = next;
            while let Some(entry) = self.mail.first_entry().filter(|e| e.key().0 <= next) {
                let (to, mail) = entry.remove();
                self.deliver(to, mail);
            }
            let nodes: Vec<u64> = self.nodes.keys().copied().collect();
            nodes.into_iter().for_each(|n| self.tick(n));
        }
        self.now = end;
    }

    fn tick(&mut self, n: u64) {
        let now = self.clock();
        let coordinators = [contact(9000)];
        let Some(node) = self.nodes.get_mut(&n) else {
            return;
        };
        if node.membership.is_due(now) {
            let mut around = Surroundings {
                coordinators: &coordinators,
                head: Seq::default(),
                counters: &mut node.counters,
                out: &mut node.out,
            };
            node.membership.tick(now, &mut around);
            node.membership.take_changes();
        }
        self.carry_out(n);
    }

    fn deliver(&mut self, to: u64, mail: Mail) {
        let now = self.clock();
        let Some(at) = self.nodes.get_mut(&to) else {
            return;
        };
        let membership = &mut at.membership;
        match mail {
            Mail::Gossip(from, SiteMessage::Presence(p)) if p.contact.node == node(from) => {
                membership.hear(p, Word::Own, now);
            }
            Mail::Gossip(from, SiteMessage::Missing { node: missing, seq }) => {
                membership.missing(node(from), missing, seq, now);
            }
            Mail::Gossip(from, SiteMessage::Beat(beat)) => {
                membership.beat(node(from), beat, Seq::default(), now);
            }
            Mail::Gossip(..) => {}
            Mail::Connected(peer) => membership.connected(node(peer), now),
            Mail::Disconnected(peer) => membership.disconnected(node(peer), now, &mut at.out),
            Mail::Dial(peer) => {
                if at.wanted.contains(&peer) && self.reaches(to, peer) {
                    self.link(to, peer);
                }
            }
            Mail::Question(from, ticket, request) => {
                let mut around = Surroundings {
                    coordinators: &[],
                    head: Seq::default(),
                    counters: &mut at.counters,
                    out: &mut at.out,
                };
                let (me, answer) = match request {
                    ControlRequest::Locate { me } => (me, membership.everyone(&mut around)),
                    ControlRequest::Greet { me, gone } => {
                        (me, vec![membership.greeted(gone, now, &mut around)])
                    }
                    other => panic!("{other:?}"),
                };
                membership.hear(Arc::new(me), Word::Direct, now);
                self.post(1, from, Mail::Answer(ticket, Some(answer)));
            }
            Mail::Answer(ticket, list) => {
                let list = list.as_deref();
                if !membership.surveyed(ticket, list, now) {
                    membership.located(ticket, list, now);
                }
            }
        }
        self.tick(to);
    }

    fn link(&mut self, a: u64, b: u64) {
        for (n, peer) in [(a, b), (b, a)] {
            let at = self.nodes.get_mut(&n).expect("a node that runs");
            if at.links.insert(peer) {
                self.post(1, n, Mail::Connected(peer));
            }
        }
    }

    fn carry_out(&mut self, n: u64) {
        while let Some(action) = self.nodes.get_mut(&n).and_then(|node| node.out.pop()) {
            match action {
                Action::Gossip(message) => self.gossip(n, &message),
                Action::Connect(to) => {
                    let to = self.of_node[&to.node];
                    let at = self.nodes.get_mut(&n).expect("it acts");
                    at.wanted.insert(to);
                    self.post(1, n, Mail::Dial(to));
                }
                Action::Disconnect(peer) => {
                    let peer = self.of_node[&peer];
                    let at = self.nodes.get_mut(&n).expect("it acts");
                    at.wanted.remove(&peer);
                    self.unlink(n, peer);
                    self.unlink(peer, n);
                }
                Action::Ask {
                    ticket,
                    to,
                    request,
                    ..
                } => self.ask(n, ticket, to.node, *request),
                Action::Remember(record) => {
                    if let Record::Peers(peers) = *record {
                        self.records.insert(n, peers);
                    }
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, n: u64, ticket: Ticket, to: NodeId, request: ControlRequest) {
        let Some(to) = self.of_node.get(&to).copied() else {
            self.troubled += 1;
            let ControlRequest::Locate { me } = request else {
                panic!("not a question for the coordinator");
            };
            let lost = self.below(1_000) < self.deafness;
            if lost {
                return self.post(10_000, n, Mail::Answer(ticket, None));
            }
            let known = self.known.values().filter(|p| p.contact.node != node(n));
            let answer = self.coordinator.then(|| known.take(8).cloned().collect());
            if self.coordinator {
                self.known.insert(n, Arc::new(me));
            }
            return match self.below(1_000) < self.deafness {
                true => self.post(10_000, n, Mail::Answer(ticket, None)),
                false => self.post(40, n, Mail::Answer(ticket, answer)),
            };
        };
        if self.reaches(n, to) {
            self.post(1, to, Mail::Question(n, ticket, request));
        } else {
            self.post(1_000, n, Mail::Answer(ticket, None));
        }
    }

    /// Floods over the links, as gossip does.
    fn gossip(&mut self, from: u64, message: &SiteMessage) {
        *self.said.entry(from).or_default() += 1;
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            for to in self.nodes[&at].links.clone() {
                if !seen.insert(to) || !self.nodes.contains_key(&to) {
                    continue;
                }
                open.push(to);
                if self.below(1000) >= self.loss {
                    let delay = 1 + self.below(10);
                    self.post(delay, to, Mail::Gossip(from, message.clone()));
                }
            }
        }
    }

    /// Whom a node sees, itself included.
    fn view(&self, n: u64) -> BTreeSet<u64> {
        let members = self.nodes[&n].membership.members().keys();
        members.map(|id| self.of_node[id]).chain([n]).collect()
    }

    fn everyone(&self) -> BTreeSet<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Nodes whose view is not the truth.
    fn mistaken(&self) -> Vec<(u64, BTreeSet<u64>)> {
        let everyone = self.everyone();
        let views = everyone.iter().map(|n| (*n, self.view(*n)));
        views.filter(|(_, view)| *view != everyone).collect()
    }

    /// Runs until every view is the truth, at most so many seconds.
    fn converge(&mut self, seconds: u64) -> bool {
        for _ in 0..seconds {
            if self.mistaken().is_empty() {
                return true;
            }
            self.run(1_000);
        }
        self.mistaken().is_empty()
    }
}
