//! One rollout to a whole fleet: who is harmed before it is stopped.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use anyhow::{Context, Result};
use coordinator_core::Conductor;
use coordinator_core::contract::{
    Action, Answer, Command, Config, Enrolled, Event, RolloutState, Ticket,
};
use coordinator_core::engine::{RolloutEngine, Step};
use protocol::limits::BULLETIN_LIFE;
use protocol::plan::{Priority, Proposal, Targets};
use protocol::positions::position;
use protocol::status::State;
use protocol::trust::Role;
use protocol::{Hash, NodeId, Now, SiteId, Span, Time};
use rand_core::RngCore;

use super::rules::{COHORT, Rules};
use crate::content::Content;
use crate::fleet::{EXPIRES, Fleet, public};
use crate::scenario::{GrainSpec, ReleaseSpec, stream};

/// Nodes of a site.
const PER_SITE: u32 = 50;
/// Of a thousand nodes, those of the declared cohort.
const COHORT_MILLE: u64 = 20;
/// Of a thousand nodes, those on which any release fails.
const BASE_MILLE: u64 = 10;
/// Of a thousand nodes, those that are off when their leave comes.
const AWAY_MILLE: u64 = 50;
/// They come back within so long.
const AWAY: Span = Span::from_secs(8 * 3600);
/// A word between coordinator and node takes so long at most, either way.
const WORD: Span = Span::from_secs(30);
/// An installation with its health check takes between so long and so long.
const INSTALL: (Span, Span) = (Span::from_secs(120), Span::from_secs(1200));
/// Wall time of the beginning.
const BEGIN: Time = Time::from_secs(1_800_000_000);

/// What is wrong with a release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// It fails on every node.
    FullyBad,
    /// It fails on 5 % of the nodes, beside those on which any does.
    Regression5,
    /// It fails on 2 %.
    Regression2,
    /// Every node goes quiet after it reported its start.
    Silent,
    /// It fails on the nodes of the declared cohort.
    Cohort,
    /// Nothing.
    Good,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [
        Kind::FullyBad,
        Kind::Regression5,
        Kind::Regression2,
        Kind::Silent,
        Kind::Cohort,
        Kind::Good,
    ];
}

/// What came of a rollout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Nodes that started and on which the fault struck. Failures that any release has do not count.
    pub harmed: u32,
    /// It was stopped.
    pub stopped: bool,
    /// Nodes outside of the declared cohort, and of them those where the release is and works.
    pub others: (u32, u32),
    /// Virtual time at the end.
    pub end: Time,
}

/// A fleet, and a release to roll out to it.
pub struct Stage {
    conductor: Conductor,
    fleet: Fleet,
    release: Hash,
}

/// A rollout that begins, to be played with any fault.
pub struct Rollout {
    engine: RolloutEngine,
    seed: u64,
    /// Everyone, in the order in which leave is given: by wave, then by position.
    order: Vec<Place>,
    /// Where in that order a node stands.
    members: Vec<NodeId>,
}

#[derive(Clone, Copy)]
struct Place {
    wave: u32,
    at: u64,
    cohort: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// It has its content and its leave.
    Starts,
    /// Its word comes: it has started.
    Started,
    /// Its word comes: it works, or not.
    Ended { good: bool },
}

fn enrolled(number: u32) -> Result<Enrolled> {
    let site: SiteId = format!("s{}", number / PER_SITE).parse()?;
    // spread over the sites without a pattern
    let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let labels = match mixed % 1000 < COHORT_MILLE {
        true => BTreeMap::from([(COHORT.0.to_owned(), COHORT.1.to_owned())]),
        false => BTreeMap::new(),
    };
    Ok(Enrolled {
        node: NodeId(Hash::of(format!("gates node {number}").as_bytes()).0),
        hostname: String::new(),
        os: "linux".into(),
        arch: "x86_64".into(),
        labels,
        site: Some(site),
        serial: String::new(),
        token: "simulated".into(),
    })
}

impl Stage {
    /// A fleet of so many nodes.
    ///
    /// # Errors
    /// When its statements are not sound, which is a mistake in this file.
    pub fn new(nodes: u32) -> Result<Stage> {
        let fleet = Fleet::new(1, 0)?;
        let mut conductor = Conductor::new(Config {
            fleet: fleet.id(),
            origins: Vec::new(),
            coordinators: Vec::new(),
            root_version: 1,
            unreachable_after: Span::from_secs(180),
            bulletin_life: BULLETIN_LIFE,
            plans_threshold: 2,
            time_frames: Default::default(),
            starts_per_day: None,
        });
        let now = Now {
            boot: Time(1),
            wall: BEGIN,
        };
        conductor.resume(now);
        for number in 0..nodes {
            conductor.handle(now, Event::Enrolled(enrolled(number)?));
            while conductor.poll_action().is_some() {}
        }
        let spec = ReleaseSpec {
            product: "app".into(),
            version: "1.0".into(),
            pack_mib: 1,
            carrier_mib: 1,
            ..ReleaseSpec::default()
        };
        let content = Content::make(fleet.id(), 0, &spec, &GrainSpec::default())?;
        let envelope = fleet.sign(&content.manifest);
        let release = fleet.believe(&envelope).context("an unsound release")?;
        let publish = Command::Publish(release);
        conductor.handle(now, Event::Command(Ticket(1), publish));
        let mut answers = std::iter::from_fn(|| conductor.poll_action());
        let done = answers.any(|a| a == Action::Answer(Ticket(1), Answer::Done));
        anyhow::ensure!(done, "the release is not published");
        Ok(Stage {
            conductor,
            fleet,
            release: envelope.digest(),
        })
    }

    /// A rollout by these rules, drawn by the seed.
    ///
    /// # Errors
    /// When it cannot be proposed to this fleet.
    pub fn rollout(&self, rules: Rules, seed: u64) -> Result<Rollout> {
        let proposer = self.fleet.keys(Role::Plans).next().context("no operator")?;
        let proposal = Proposal {
            spec_version: 1,
            fleet: self.fleet.id(),
            rollout: "trial".parse()?,
            release: self.release,
            proposer: public(proposer),
            priority: Priority::Medium,
            targets: Targets::default(),
            waves: rules.waves(BEGIN),
            test: rules.test(),
            constraints: Default::default(),
            lease_ttl: Span::from_secs(3600),
            not_after: EXPIRES,
        };
        let salt = Hash::of(format!("gates salt {seed}").as_bytes());
        let engine = self.conductor.engine(&proposal, salt)?;
        let plan = engine.plan();
        let cohort = self.cohort();
        let mut all: Vec<(Place, NodeId)> = engine
            .targets()
            .map(|(node, wave)| {
                let at = position(&plan.salt, &plan.release, &node);
                let cohort = cohort.contains(&node);
                (Place { wave, at, cohort }, node)
            })
            .collect();
        all.sort_by_key(|(place, node)| (place.wave, place.at, *node));
        let (order, members) = all.into_iter().unzip();
        Ok(Rollout {
            engine,
            seed,
            order,
            members,
        })
    }

    fn cohort(&self) -> std::collections::BTreeSet<NodeId> {
        let nodes = self.conductor.nodes().into_iter();
        let carries = |labels: &BTreeMap<String, String>| labels.contains_key(COHORT.0);
        nodes
            .filter(|n| carries(&n.labels))
            .map(|n| n.node)
            .collect()
    }
}

/// What was drawn for one node.
#[derive(Clone, Copy)]
struct Fate {
    /// From its leave to its start.
    word: Span,
    install: Span,
    /// Words up take so long.
    up: Span,
    fails_anyhow: bool,
    struck: bool,
}

impl Rollout {
    /// Plays it with this fault until it is stopped or over.
    pub fn play(&self, kind: Kind) -> Outcome {
        Play {
            rollout: self,
            kind,
            engine: self.engine.clone(),
            fates: self.fates(kind),
            heap: BinaryHeap::new(),
            leave: 0,
            cohort_held: None,
            stopped: None,
            harmed: 0,
            others: 0,
        }
        .run()
    }

    fn fates(&self, kind: Kind) -> Vec<Fate> {
        let mut draws = stream(self.seed, "gates: fates");
        let mut mille = |of: u64| draws.next_u64() % 1000 < of;
        let mut fates = Vec::with_capacity(self.order.len());
        let mut times = stream(self.seed, "gates: times");
        let mut within = |span: Span| Span(times.next_u64() % span.0.max(1));
        for place in &self.order {
            let away = mille(AWAY_MILLE);
            let (fails_anyhow, draw) = (mille(BASE_MILLE), mille(50));
            // the 2 % are some of the 5 %
            let less = mille(400);
            let (late, word) = (within(AWAY), within(WORD));
            fates.push(Fate {
                word: Span(word.0 + if away { late.0 } else { 0 }),
                install: Span(INSTALL.0.0 + within(Span(INSTALL.1.0 - INSTALL.0.0)).0),
                up: within(WORD),
                fails_anyhow,
                struck: match kind {
                    Kind::FullyBad | Kind::Silent => true,
                    Kind::Regression5 => draw,
                    Kind::Regression2 => draw && less,
                    Kind::Cohort => place.cohort,
                    Kind::Good => false,
                },
            });
        }
        fates
    }
}

struct Play<'a> {
    rollout: &'a Rollout,
    kind: Kind,
    engine: RolloutEngine,
    fates: Vec<Fate>,
    heap: BinaryHeap<Reverse<(Time, u32, What)>>,
    /// Nodes that were given leave, in order.
    leave: usize,
    /// Since when the cohort is held.
    cohort_held: Option<Time>,
    /// Since when nobody shall start.
    stopped: Option<Time>,
    harmed: u32,
    others: u32,
}

impl Play<'_> {
    fn run(mut self) -> Outcome {
        let mut now = Time(1);
        self.steps(now);
        loop {
            let wake = self.engine.wakes_at(clock(now));
            let due = self.heap.peek().map(|Reverse((at, ..))| *at);
            let over = self.stopped.is_some() || self.engine.state() == RolloutState::Finished;
            // who is under way when all is over is harmed all the same
            let Some(next) = wake.filter(|_| !over).into_iter().chain(due).min() else {
                break;
            };
            now = next.max(now);
            let mut told = !over && wake.is_some_and(|at| at <= now);
            while let Some(Reverse((at, node, what))) = self.heap.peek().copied()
                && at <= now
            {
                self.heap.pop();
                told |= self.happens(now, node, what);
            }
            if told && self.stopped.is_none() {
                self.steps(now);
            }
        }
        let cohort = self.rollout.order.iter().filter(|p| p.cohort).count() as u32;
        Outcome {
            harmed: self.harmed,
            stopped: self.stopped.is_some(),
            others: (self.rollout.order.len() as u32 - cohort, self.others),
            end: now,
        }
    }

    /// True if the coordinator heard of it.
    fn happens(&mut self, now: Time, node: u32, what: What) -> bool {
        let place = self.rollout.order[node as usize];
        let fate = self.fates[node as usize];
        let id = &self.rollout.members[node as usize];
        match what {
            What::Starts => {
                // a halt and a hold need their time to come
                let came = |since: Option<Time>| since.is_some_and(|at| at + fate.up <= now);
                if came(self.stopped) || (place.cohort && came(self.cohort_held)) {
                    return false;
                }
                self.harmed += u32::from(fate.struck);
                let silent = fate.struck && self.kind == Kind::Silent;
                self.heap
                    .push(Reverse((now + fate.up, node, What::Started)));
                if !silent {
                    let good = !fate.struck && !fate.fails_anyhow;
                    let end = now + fate.install + fate.up;
                    self.heap.push(Reverse((end, node, What::Ended { good })));
                }
                false
            }
            What::Started => {
                self.engine.heard(clock(now), id, State::Installing);
                true
            }
            What::Ended { good } => {
                self.others += u32::from(good && !place.cohort);
                let state = if good {
                    State::Succeeded
                } else {
                    State::RolledBack
                };
                self.engine.heard(clock(now), id, state);
                true
            }
        }
    }

    fn steps(&mut self, now: Time) {
        while let Some(step) = self.engine.step(clock(now)) {
            match step {
                Step::Lease { wave, below, .. } => self.lease(now, wave, below),
                Step::CohortHeld(_) => self.cohort_held = Some(now),
                Step::Held(_) | Step::Aborted => {
                    self.stopped = Some(now);
                    return;
                }
                Step::Finished | Step::Went => {}
            }
        }
    }

    fn lease(&mut self, now: Time, wave: u32, below: Option<u64>) {
        let order = &self.rollout.order;
        while let Some(place) = order.get(self.leave)
            && (place.wave < wave
                || place.wave == wave && below.is_none_or(|below| place.at < below))
        {
            let at = now + self.fates[self.leave].word;
            self.heap
                .push(Reverse((at, self.leave as u32, What::Starts)));
            self.leave += 1;
        }
    }
}

fn clock(boot: Time) -> Now {
    Now {
        boot,
        wall: BEGIN + Span(boot.0),
    }
}
