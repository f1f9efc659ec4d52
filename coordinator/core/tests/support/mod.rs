//! A body for tests: it keeps the ledger, the orders and the answers, and after every call it checks
//! that the ledger folds to what the conductor shows.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;

use protocol::fixtures::{self, CREATED, EXPIRES, Fleet, contact, node_key, rollout, seq, site};
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Mark, Order, OrderBody};
use protocol::plan::{Gate, Priority, Proposal, Recall, RolloutPlan, Selector, Targets, WaveDraft};
use protocol::status::{NodeStatus, State};
use protocol::trust::{Role, Statement};
use protocol::wire::Presence;
use protocol::{Hash, NodeId, Now, PublicKey, Span, Time, Verified};
use tidegate_coordinator_core::Conductor;
use tidegate_coordinator_core::contract::{
    Action, Answer, Command, CommandError, Config, Enrolled, Event, LedgerEvent, NodeView,
    RolloutState, RolloutView, Ticket, Uplink,
};

pub struct Bench {
    pub fleet: Fleet,
    pub config: Config,
    pub conductor: Conductor,
    pub ledger: Vec<LedgerEvent>,
    pub issued: Vec<Order>,
    pub notes: Vec<(&'static str, String)>,
    answers: BTreeMap<Ticket, Answer>,
    marks: BTreeMap<Ticket, Vec<Mark>>,
    tickets: u64,
    numbers: u64,
    pub now: Now,
    /// Whether each call is followed by a replay of the whole ledger.
    pub audit: bool,
}

pub fn config(fleet: &Fleet) -> Config {
    Config {
        fleet: fleet.id(),
        origins: vec![contact(9001)],
        coordinators: vec![contact(9000)],
        root_version: 1,
        unreachable_after: Span::from_secs(60),
        bulletin_life: Span::from_secs(1000),
        plans_threshold: 2,
        time_frames: Default::default(),
        starts_per_day: None,
    }
}

pub fn gate(min_success_ppm: u32, min_sample: u32, soak: u64) -> Gate {
    Gate {
        min_success_ppm,
        min_sample,
        soak: Span::from_secs(soak),
        silence_after: Span::from_secs(120),
    }
}

pub fn draft(name: &str, select: Selector, gate: Gate) -> WaveDraft {
    WaveDraft {
        name: name.into(),
        select,
        not_before: CREATED,
        gate,
    }
}

impl Bench {
    pub fn new() -> Bench {
        Bench::of(config)
    }

    /// A coordinator that is configured otherwise.
    pub fn of(config: impl Fn(&Fleet) -> Config) -> Bench {
        let fleet = Fleet::new(1);
        let config = config(&fleet);
        let mut bench = Bench {
            conductor: Conductor::new(config.clone()),
            config,
            fleet,
            ledger: Vec::new(),
            issued: Vec::new(),
            notes: Vec::new(),
            answers: BTreeMap::new(),
            marks: BTreeMap::new(),
            tickets: 0,
            numbers: 0,
            now: Now {
                boot: Time::from_secs(100),
                wall: CREATED,
            },
            audit: true,
        };
        bench.conductor.resume(bench.now);
        bench.drain();
        bench
    }

    /// Three sites of `per_site` nodes: node `n` is in site `s1 + n mod 3`.
    pub fn with_nodes(count: u64) -> Bench {
        let mut bench = Bench::new();
        bench.audit = false;
        let topology = bench.fleet.verified(&bench.fleet.topology(1, 3));
        bench.done(Command::SetTopology(topology));
        (0..count).for_each(|n| bench.enrol(n));
        bench.audit = true;
        bench.check();
        bench
    }

    pub fn site_of(n: u64) -> String {
        format!("s{}", n % 3 + 1)
    }

    pub fn enrol(&mut self, n: u64) {
        self.enrol_at(n, Some(site(&Bench::site_of(n))));
    }

    pub fn enrol_at(&mut self, n: u64, site: Option<protocol::SiteId>) {
        let enrolled = Enrolled {
            node: fixtures::node(n),
            hostname: format!("host-{n}"),
            os: "linux".into(),
            arch: "x86_64".into(),
            labels: BTreeMap::from([(
                "ring".into(),
                if n.is_multiple_of(4) { "test" } else { "main" }.into(),
            )]),
            site,
            serial: format!("{n:x}"),
            token: "t".into(),
        };
        self.handle(Event::Enrolled(enrolled));
    }

    pub fn handle(&mut self, event: Event) {
        self.conductor.handle(self.now, event);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(action) = self.conductor.poll_action() {
            match action {
                Action::Append(event) => self.ledger.push(event),
                Action::Issue(order) => {
                    assert_eq!(
                        self.ledger.last(),
                        Some(&LedgerEvent::Order(Box::new(order.clone())))
                    );
                    assert!(
                        self.issued
                            .last()
                            .is_none_or(|before| before.seq < order.seq)
                    );
                    order.check().expect("an order keeps its own rules");
                    self.issued.push(order);
                }
                Action::Answer(ticket, answer) => {
                    assert!(
                        self.answers.insert(ticket, answer).is_none(),
                        "answered twice"
                    );
                }
                Action::Acknowledge { ticket, marks, .. } => {
                    assert!(
                        self.marks.insert(ticket, marks).is_none(),
                        "acknowledged twice"
                    );
                }
                Action::Note { event, line } => self.notes.push((event, line)),
            }
        }
        if self.audit {
            self.check();
        }
    }

    /// The ledger folds to the same views, and the four counts add up after every event of it.
    pub fn check(&self) {
        let mut replayed = Conductor::new(self.config.clone());
        for event in &self.ledger {
            replayed.replay(event);
        }
        adds_up(&self.conductor);
        assert_eq!(replayed.rollouts(), self.conductor.rollouts());
        assert_eq!(lasting(&replayed), lasting(&self.conductor));
        assert_eq!(replayed.releases(), self.conductor.releases());
        assert_eq!(replayed.orders_head(), self.conductor.orders_head());
        assert_eq!(replayed.topology(), self.conductor.topology());
    }

    /// A restart: all that is left is the ledger.
    pub fn restart(&mut self) {
        self.conductor = Conductor::new(self.config.clone());
        for event in &self.ledger {
            self.conductor.replay(event);
            adds_up(&self.conductor);
        }
        self.conductor.resume(self.now);
        self.drain();
    }

    /// Lets time pass, serving every timeout on its way.
    pub fn wait(&mut self, seconds: u64) {
        let end = self.now.boot + Span::from_secs(seconds);
        loop {
            let due = self.conductor.poll_timeout().unwrap_or(Time::MAX);
            let next = Time(due.0.max(self.now.boot.0 + 1)).min(end);
            let step = next.since(self.now.boot);
            self.now = Now {
                boot: next,
                wall: self.now.wall + step,
            };
            self.conductor.handle_timeout(self.now);
            self.drain();
            if next == end {
                return;
            }
        }
    }

    pub fn command(&mut self, command: Command) -> Answer {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.handle(Event::Command(ticket, command));
        self.answers
            .remove(&ticket)
            .expect("every command is answered")
    }

    pub fn done(&mut self, command: Command) {
        let answer = self.command(command);
        assert_eq!(answer, Answer::Done);
    }

    pub fn refused(&mut self, command: Command) -> CommandError {
        match self.command(command) {
            Answer::Refused(why) => why,
            other => panic!("not refused but {other:?}"),
        }
    }

    pub fn publish(&mut self, version: &str, counter: u64) -> Verified<ReleaseManifest> {
        let release = self
            .fleet
            .verified(&self.fleet.release("app", version, counter));
        self.done(Command::Publish(release.clone()));
        release
    }

    pub fn proposal(&self, id: &str, release: Hash, waves: Vec<WaveDraft>) -> Proposal {
        Proposal {
            spec_version: 1,
            fleet: self.fleet.id(),
            rollout: rollout(id),
            release,
            proposer: self.fleet.proposer(),
            priority: Priority::Medium,
            targets: Targets::default(),
            waves,
            test: None,
            constraints: Default::default(),
            lease_ttl: Span::from_secs(60),
            not_after: EXPIRES,
        }
    }

    pub fn propose(&mut self, proposal: Proposal) -> Answer {
        let envelope = self.fleet.sign(&proposal);
        let salt = Hash::of(proposal.rollout.as_str().as_bytes());
        self.command(Command::Propose {
            proposal: Box::new(proposal),
            envelope,
            salt,
        })
    }

    pub fn plan(&mut self, proposal: Proposal) -> RolloutPlan {
        match self.propose(proposal) {
            Answer::Plan(plan) => *plan,
            other => panic!("no plan but {other:?}"),
        }
    }

    pub fn approve(&mut self, plan: &RolloutPlan) -> Verified<RolloutPlan> {
        let mut envelope = plan.to_envelope();
        let keys = self.fleet.keys(Role::Plans);
        for (n, key) in keys[1..].iter().enumerate() {
            envelope.sign(key);
            let progress = (n as u32 + 1, 2);
            let complete = self.fleet.trust().verify(&envelope).ok();
            let command = Command::Approve {
                rollout: plan.rollout.clone(),
                by: PublicKey(key.verifying_key().to_bytes()),
                envelope: envelope.clone(),
                progress,
                complete,
            };
            assert_eq!(
                self.command(command),
                Answer::Approvals(progress.0, progress.1)
            );
        }
        self.fleet
            .trust()
            .verify(&envelope)
            .expect("both operators signed")
    }

    /// A rollout of these waves, proposed, approved and started.
    pub fn start(&mut self, id: &str, waves: Vec<WaveDraft>) -> Verified<RolloutPlan> {
        let release = self.publish(&format!("{id}-1"), self.ledger.len() as u64 + 1);
        let proposal = self.proposal(id, release.digest(), waves);
        let plan = self.plan(proposal);
        let plan = self.approve(&plan);
        self.done(Command::Start(rollout(id)));
        plan
    }

    pub fn presence(&mut self, n: u64, site_name: &str) -> Presence {
        self.numbers += 1;
        Presence {
            contact: contact(n),
            site: Some(site(site_name)),
            roaming: false,
            seq: seq(self.numbers),
            orders_head: seq(0),
            leaving: false,
        }
    }

    pub fn status(&mut self, plan: &Verified<RolloutPlan>, n: u64, state: State) -> NodeStatus {
        self.numbers += 1;
        NodeStatus {
            fleet: self.fleet.id(),
            node: fixtures::node(n),
            rollout: plan.rollout.clone(),
            plan: plan.digest(),
            release: plan.release,
            wave: 0,
            seq: seq(self.numbers),
            state,
            reason: "as it goes".into(),
            entered_at: self.now.wall,
            attempt: 1,
            install_id: Hash([0; 32]),
            lan_bytes: 1,
            wan_bytes: 2,
            exit_code: None,
            output_tail: String::new(),
        }
    }

    pub fn uplink(&mut self, statuses: Vec<NodeStatus>) -> Vec<Mark> {
        let me = self.presence(0, "s1");
        self.uplink_of(me, statuses)
    }

    pub fn uplink_of(&mut self, me: Presence, statuses: Vec<NodeStatus>) -> Vec<Mark> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let keys: BTreeMap<NodeId, u64> = (0..60)
            .chain([300])
            .map(|n| (fixtures::node(n), n))
            .collect();
        let statuses = statuses
            .iter()
            .map(|s| {
                s.sign(&node_key(keys[&s.node]))
                    .verify(self.fleet.id())
                    .expect("well signed")
            })
            .collect();
        self.handle(Event::Uplink(Uplink {
            ticket,
            from: me.contact.node,
            me: Some(me),
            roster: None,
            statuses,
            stages: None,
        }));
        self.marks
            .remove(&ticket)
            .expect("every uplink is acknowledged")
    }

    pub fn report(&mut self, plan: &Verified<RolloutPlan>, nodes: &[u64], state: State) {
        let statuses = nodes.iter().map(|n| self.status(plan, *n, state)).collect();
        self.uplink(statuses);
    }

    pub fn view(&self, id: &str) -> RolloutView {
        self.conductor
            .rollout(&rollout(id))
            .expect("the rollout is there")
    }

    pub fn state(&self, id: &str) -> RolloutState {
        self.view(id).state
    }

    /// The kinds of orders since `from`, in order; bulletins left out.
    pub fn kinds(&self, from: usize) -> Vec<String> {
        let kind = |order: &Order| match &order.body {
            OrderBody::GoLease { wave, .. } => Some(format!("lease {wave}")),
            OrderBody::Halt { .. } => Some("halt".into()),
            OrderBody::Resume { .. } => Some("resume".into()),
            OrderBody::Recall { .. } => Some("recall".into()),
            OrderBody::Bulletin(_) => None,
        };
        self.issued[from..].iter().filter_map(kind).collect()
    }

    pub fn in_bulletin(&self, id: &str) -> bool {
        let bulletin = self.issued.iter().rev().find_map(|o| match &o.body {
            OrderBody::Bulletin(b) => Some(b),
            _ => None,
        });
        bulletin.is_some_and(|b| b.rollouts.iter().any(|r| r.rollout == rollout(id)))
    }

    /// The nodes of a wave, by number.
    pub fn wave(&self, plan: &RolloutPlan, wave: u32, count: u64) -> Vec<u64> {
        let at = |n: &u64| plan.wave_of(&fixtures::node(*n), Some(&site(&Bench::site_of(*n))));
        (0..count).filter(|n| at(n) == Some(wave)).collect()
    }

    pub fn recall(&self, plan: &Verified<RolloutPlan>) -> Verified<Recall> {
        self.fleet.recall(plan).1
    }
}

pub fn adds_up(conductor: &Conductor) {
    for view in conductor.rollouts() {
        assert_eq!(view.counts.total(), view.targets, "{}", view.rollout);
        let waves: u32 = view.waves.iter().map(|w| w.targets).sum();
        assert_eq!(waves, view.targets, "{}", view.rollout);
        for wave in &view.waves {
            assert_eq!(
                wave.counts.total(),
                wave.targets,
                "{} {}",
                view.rollout,
                wave.name
            );
        }
    }
}

fn lasting(conductor: &Conductor) -> Vec<NodeView> {
    let forget = |view| NodeView {
        last_seen: None,
        ..view
    };
    conductor.nodes().into_iter().map(forget).collect()
}
