//! What the conductor costs at the size of a large fleet: enrolment, a rollout, three statuses of every
//! node, and the reports of delegates that have nothing new. The same is done with a tenth of the
//! nodes, and the costs of one event are compared: where nothing depends on the size of the fleet, the
//! ratio is near 1 (what is left is the depth of ordered maps and the processor's caches). Seconds are
//! those of the processor.
//!
//! `cargo bench -p tidegate-coordinator-core --bench fleet [-- NODES]`

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::constraints::Constraints;
use protocol::feed::Roster;
use protocol::fixtures::{self, CREATED, EXPIRES, Fleet, contact, rollout, seq, site};
use protocol::plan::{Priority, Proposal, RolloutPlan, Targets};
use protocol::slots::SlotRules;
use protocol::status::{NodeStatus, State};
use protocol::trust::{Role, Statement};
use protocol::wire::Presence;
use protocol::{Hash, NodeId, Now, PublicKey, Span, Time, Verified};
use tidegate_coordinator_core::contract::{
    Action, Answer, Command, Config, Enrolled, Event, Uplink,
};
use tidegate_coordinator_core::forecast::Question;
use tidegate_coordinator_core::presets::Preset;
use tidegate_coordinator_core::{Conductor, Ticket};

const PER_SITE: u64 = 50;
/// Reports of each delegate without news.
const IDLE_REPORTS: u64 = 5;

struct Bench {
    fleet: Fleet,
    conductor: Conductor,
    ids: Vec<NodeId>,
    now: Now,
    spent: Duration,
    appended_bytes: usize,
    answer: Option<Answer>,
    tickets: u64,
}

/// Microseconds per event, by phase.
type Costs = Vec<(&'static str, f64)>;

impl Bench {
    fn new(nodes: u64) -> Bench {
        let fleet = Fleet::new(1);
        let conductor = Conductor::new(Config {
            fleet: fleet.id(),
            origins: vec![contact(u64::MAX)],
            coordinators: vec![contact(u64::MAX - 1)],
            root_version: 1,
            unreachable_after: Span::from_secs(60),
            bulletin_life: Span::from_secs(86_400),
            plans_threshold: 2,
            time_frames: Default::default(),
            starts_per_day: None,
        });
        let now = Now {
            boot: Time::from_secs(100),
            wall: CREATED,
        };
        let mut bench = Bench {
            fleet,
            conductor,
            ids: (0..nodes).map(fixtures::node).collect(),
            now,
            spent: Duration::ZERO,
            appended_bytes: 0,
            answer: None,
            tickets: 0,
        };
        bench.conductor.resume(now);
        bench.drain();
        bench
    }

    fn drain(&mut self) {
        while let Some(action) = self.conductor.poll_action() {
            match action {
                Action::Append(event) => {
                    self.appended_bytes +=
                        serde_json::to_vec(&event).map_or(0, |bytes| bytes.len());
                }
                Action::Answer(_, answer) => self.answer = Some(answer),
                _ => {}
            }
        }
    }

    /// Only the conductor's own time counts, not what the body does with its actions.
    fn handle(&mut self, event: Event) {
        self.now.boot = self.now.boot + Span(1);
        self.now.wall = self.now.wall + Span(1);
        let began = cpu();
        self.conductor.handle(self.now, event);
        let due = self.conductor.poll_timeout();
        if due.is_some_and(|at| at <= self.now.boot) {
            self.conductor.handle_timeout(self.now);
        }
        self.spent += cpu() - began;
        self.drain();
    }

    fn command(&mut self, command: Command) -> Answer {
        self.tickets += 1;
        self.handle(Event::Command(Ticket(self.tickets), command));
        self.answer.take().expect("every command is answered")
    }

    fn site_of(n: u64) -> String {
        format!("site-{}", n / PER_SITE)
    }

    fn sites(&self) -> u64 {
        (self.ids.len() as u64).div_ceil(PER_SITE)
    }

    fn measured(&mut self, events: u64, work: impl FnOnce(&mut Bench)) -> f64 {
        self.spent = Duration::ZERO;
        work(self);
        self.spent.as_secs_f64() * 1e6 / events.max(1) as f64
    }

    fn enrol_all(&mut self) {
        for n in 0..self.ids.len() as u64 {
            self.handle(Event::Enrolled(Enrolled {
                node: self.ids[n as usize],
                hostname: format!("host-{n}"),
                os: "linux".into(),
                arch: "x86_64".into(),
                labels: BTreeMap::from([("ring".into(), format!("r{}", n % 4))]),
                site: Some(site(&Bench::site_of(n))),
                serial: format!("{n:032x}"),
                token: "t".into(),
            }));
        }
    }

    fn proposal(&self, id: &str, release: Hash) -> Proposal {
        Proposal {
            spec_version: 1,
            fleet: self.fleet.id(),
            rollout: rollout(id),
            release,
            proposer: self.fleet.proposer(),
            priority: Priority::Medium,
            targets: Targets::default(),
            waves: Preset::Normal.waves(CREATED),
            test: None,
            constraints: Default::default(),
            lease_ttl: Span::from_secs(600),
            not_after: EXPIRES,
        }
    }

    /// All that may hold starts back, in one plan.
    fn held(&self, nodes: u32) -> Proposal {
        let release = self.conductor.releases()[0].digest;
        let mut proposal = self.proposal("held", release);
        proposal.test = Some(Preset::Normal.test());
        proposal.constraints = Constraints {
            zone: "Europe/Berlin".parse().expect("a zone"),
            windows: vec!["daily 20:00-06:00".parse().expect("hours")],
            slots: Some(SlotRules {
                per: None,
                max_unavailable: 5,
                lease: Span::from_secs(600),
            }),
            starts_per_day: Some(nodes / 4),
            ..Constraints::default()
        };
        proposal
    }

    fn start(&mut self, id: &str, counter: u64) -> Verified<RolloutPlan> {
        let release = self.fleet.verified(&self.fleet.release("app", id, counter));
        assert_eq!(
            self.command(Command::Publish(release.clone())),
            Answer::Done
        );
        let proposal = self.proposal(id, release.digest());
        let envelope = self.fleet.sign(&proposal);
        let salt = Hash::of(id.as_bytes());
        let answer = self.command(Command::Propose {
            proposal: Box::new(proposal),
            envelope,
            salt,
        });
        let Answer::Plan(plan) = answer else {
            panic!("no plan but {answer:?}")
        };
        let mut envelope = plan.to_envelope();
        for (n, key) in self.fleet.keys(Role::Plans)[1..].iter().enumerate() {
            envelope.sign(key);
            let complete = self.fleet.trust().verify(&envelope).ok();
            self.command(Command::Approve {
                rollout: rollout(id),
                by: PublicKey(key.verifying_key().to_bytes()),
                envelope: envelope.clone(),
                progress: (n as u32 + 1, 2),
                complete,
            });
        }
        let plan = self.fleet.trust().verify(&envelope).expect("signed");
        assert_eq!(self.command(Command::Start(rollout(id))), Answer::Done);
        plan
    }

    /// Every site's delegate reports its members, each with this state.
    fn report(&mut self, plan: Option<&Verified<RolloutPlan>>, state: State, number: u64) {
        for s in 0..self.sites() {
            let first = s * PER_SITE;
            let last = (first + PER_SITE).min(self.ids.len() as u64);
            let status = |n: u64| {
                let plan = plan?;
                let status = NodeStatus {
                    fleet: self.fleet.id(),
                    node: self.ids[n as usize],
                    rollout: plan.rollout.clone(),
                    plan: plan.digest(),
                    release: plan.release,
                    wave: 0,
                    seq: seq(number),
                    state,
                    reason: "as it goes".into(),
                    entered_at: self.now.wall,
                    attempt: 1,
                    install_id: Hash([0; 32]),
                    lan_bytes: 1,
                    wan_bytes: 2,
                    exit_code: None,
                    output_tail: String::new(),
                };
                let signed = status.sign(&fixtures::node_key(n));
                signed.verify(self.fleet.id()).ok()
            };
            let statuses = (first..last).filter_map(status).collect();
            self.tickets += 1;
            let me = Presence {
                contact: fixtures::contact(first),
                site: Some(site(&Bench::site_of(first))),
                roaming: false,
                seq: seq(number),
                orders_head: seq(0),
                leaving: false,
            };
            let mut joined = self.ids[first as usize..last as usize].to_vec();
            joined.sort_unstable();
            let roster = Roster {
                digest: Roster::digest(&joined),
                joined,
                left: Vec::new(),
                whole: true,
            };
            self.handle(Event::Uplink(Uplink {
                ticket: Ticket(self.tickets),
                from: me.contact.node,
                me: Some(me),
                roster: Some(roster),
                statuses,
                stages: None,
            }));
        }
    }
}

fn play(nodes: u64) -> Costs {
    let before = resident_bytes();
    let mut bench = Bench::new(nodes);
    let sites = bench.sites();
    let mut costs: Costs = Vec::new();
    costs.push(("enrolment", bench.measured(nodes, Bench::enrol_all)));
    let bytes = bench.appended_bytes;
    let mut plans = Vec::new();
    let started = bench.measured(1, |b| plans.push(b.start("r1", 1)));
    costs.push(("propose, approve, start: per node", started / nodes as f64));
    println!(
        "  {:>8} bytes of ledger for propose, approve, start",
        bench.appended_bytes - bytes
    );
    let mut total = 0.0;
    for (n, state) in [State::Received, State::Staged, State::Succeeded]
        .into_iter()
        .enumerate()
    {
        let cost = bench.measured(nodes, |b| {
            b.report(plans.first(), state, n as u64 + 10);
        });
        total += cost * nodes as f64 / 1e6;
        costs.push((["status 1", "status 2", "status 3"][n], cost));
    }
    println!("  {total:>8.2} s for {} statuses", 3 * nodes);
    let idle = bench.measured(sites * IDLE_REPORTS, |b| {
        (0..IDLE_REPORTS).for_each(|n| b.report(None, State::Received, n + 100));
    });
    costs.push(("report without news", idle));
    let view = bench.conductor.rollout(&rollout("r1")).expect("there");
    assert_eq!(view.targets as u64, nodes);
    assert_eq!(view.counts.applied as u64, nodes);
    let began = cpu();
    let shown = bench.conductor.sites();
    costs.push((
        "view of the sites: per site",
        (cpu() - began).as_secs_f64() * 1e6 / sites as f64,
    ));
    assert_eq!(shown.iter().map(|s| u64::from(s.nodes)).sum::<u64>(), nodes);
    let began = cpu();
    (0..10).for_each(|n| drop(bench.conductor.members_of(&site(&format!("site-{n}")))));
    costs.push((
        "members of a site",
        (cpu() - began).as_secs_f64() * 1e6 / 10.0,
    ));
    let began = cpu();
    let forecast = bench
        .conductor
        .forecast(&rollout("r1"), &Question::default());
    let forecast = forecast.expect("there");
    println!(
        "  {:>8.2} s for a forecast; it finishes after {} s",
        (cpu() - began).as_secs_f64(),
        forecast
            .finishes
            .map_or(0, |at| at.since(forecast.starts).0 / 1000)
    );
    let mut asked = Question::default();
    asked.assumptions.origin_bytes_per_s = Some(125_000_000);
    let began = cpu();
    let shared = bench.conductor.forecast(&rollout("r1"), &asked);
    println!(
        "  {:>8.2} s for one with an origin that is shared",
        (cpu() - began).as_secs_f64()
    );
    assert_eq!(shared.map(|f| f.targets), Ok(forecast.targets));
    let held = bench.held(nodes as u32);
    let began = cpu();
    let held = bench
        .conductor
        .simulate(&held, Hash::of(b"salt"), &Question::default());
    println!(
        "  {:>8.2} s for one with a test, windows, slots and a cap on starts a day",
        (cpu() - began).as_secs_f64()
    );
    let held = held.expect("resolvable");
    assert_eq!(held.targets, forecast.targets);
    assert!(held.finishes > forecast.finishes, "{:?}", held.advice);
    let one = resident_bytes();
    bench.start("r2", 2);
    let two = resident_bytes();
    println!(
        "  {:>8.0} bytes of memory per node with one rollout reported, {:.0} more for one just begun",
        one.saturating_sub(before) as f64 / nodes as f64,
        two.saturating_sub(one) as f64 / nodes as f64
    );
    costs
}

/// Time that this thread was on a processor: what else the machine does does not count.
fn cpu() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().nth(1));
    kib.and_then(|k| k.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|a| a.parse::<u64>().ok());
    let nodes = asked.unwrap_or(100_000);
    println!("{} nodes", nodes / 10);
    let small = play(nodes / 10);
    println!("{nodes} nodes");
    let large = play(nodes);
    println!("microseconds per event, and ratio to a tenth of the nodes:");
    for ((name, small), (_, large)) in small.iter().zip(&large) {
        println!("  {name:<34} {large:>8.2} {:>6.2}", large / small);
    }
}
