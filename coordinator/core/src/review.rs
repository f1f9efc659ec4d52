//! The review of a rollout: what came of it, over time, by site and by cohort, and why not more.
//!
//! A fold of what the conductor holds already. When a node was through is what its signed status says, by
//! the node's own clock, held between the rollout's start and now; so nothing here depends on how long the
//! ledger is, and a curve is as true as the clocks of its nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::limits::{REVIEW_FAILURES_MAX, REVIEW_NODES_MAX, REVIEW_POINTS_MAX};
use protocol::manifest::release_name;
use protocol::plan::Priority;
use protocol::status::{Bucket, Reachability, State, bucket};
use protocol::{NodeId, RolloutId, SiteId, Span, Time};
use serde::{Deserialize, Serialize};

use crate::conductor::Conductor;
use crate::contract::{Counts, RolloutState};
use crate::fleet::Node;
use crate::rollout::Rollout;
use crate::tally::{Target, has_failed};
use crate::timeframes::Promise;

/// Characters of an output's line that failures are grouped by.
const LINE_MAX_CHARS: usize = 200;

/// What came of a rollout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Review {
    /// The rollout.
    pub rollout: RolloutId,
    /// `product@version`.
    pub release: String,
    /// Our priority.
    pub priority: Priority,
    /// Where it stands.
    pub state: RolloutState,
    /// Why, in a sentence.
    pub why: String,
    /// When this was made.
    pub now: Time,
    /// When its first wave opened.
    pub started: Option<Time>,
    /// All targets.
    pub targets: u32,
    /// The four counts.
    pub counts: Counts,
    /// The waves, in order.
    pub waves: Vec<Part>,
    /// The sites, by name; last, if there are any, nodes without one.
    pub sites: Vec<Part>,
    /// The declared cohorts, and the nodes of none.
    pub cohorts: Vec<Part>,
    /// Failures, the most frequent first.
    pub failures: Vec<FailureGroup>,
    /// Failures that are in none of these groups.
    pub other_failures: u32,
    /// What crossed the WANs.
    pub traffic: Traffic,
    /// Whether it was in time.
    pub sla: Sla,
}

/// Some of the targets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Part {
    /// The wave's, site's or cohort's name.
    pub name: String,
    /// Targets in it.
    pub targets: u32,
    /// Their counts.
    pub counts: Counts,
    /// For a cohort: a safeguard holds it.
    pub held: bool,
    /// How many had the release by when, rising; at most [`REVIEW_POINTS_MAX`] points.
    pub completion: Vec<(Time, u32)>,
}

/// Failures that look the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailureGroup {
    /// Where the nodes ended.
    pub phase: String,
    /// Exit code of the failed step or check.
    pub exit_code: Option<i32>,
    /// The last line of the output, or the node's reason where there is none.
    pub line: String,
    /// How many.
    pub count: u32,
    /// Some of them.
    pub nodes: Vec<NodeId>,
}

/// What crossed the WANs, in payload bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Over the WANs of all sites.
    pub wan_bytes: u64,
    /// From peers inside the sites.
    pub lan_bytes: u64,
    /// What it would have been if each node that got content had fetched its whole carrier alone.
    pub alone_bytes: u64,
}

/// Whether a rollout was in time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sla {
    /// The plan's deadline, or what its priority gives from its start; none: no time was given.
    pub due: Option<Time>,
    /// The latest date: the plan's deadline, or what its priority gives from its start.
    #[serde(default)]
    pub latest: Option<Time>,
    /// Targets that had the release by then.
    pub in_time: u32,
    /// Targets that had it later.
    pub late: u32,
    /// Met, missed, or open.
    pub met: Option<bool>,
    /// In a sentence.
    pub why: String,
}

impl Conductor {
    /// The review of a rollout, as things are now.
    pub fn review(&self, rollout: &RolloutId) -> Option<Review> {
        let rollout = self.rollouts.get(rollout)?;
        Some(Reviewer::of(self, rollout).finish())
    }
}

/// Names and their targets while they are summed.
type Parts = BTreeMap<(bool, String), Sum>;

#[derive(Default)]
struct Sum {
    targets: u32,
    counts: Counts,
    done: Vec<Time>,
}

impl Sum {
    fn part(self, name: String, held: bool) -> Part {
        let Sum {
            targets,
            counts,
            mut done,
        } = self;
        done.sort_unstable();
        let steps = done.len().div_ceil(REVIEW_POINTS_MAX).max(1);
        let last = done.len();
        let points = done
            .iter()
            .zip(1..)
            .filter(|(_, n)| n % steps == 0 || *n == last);
        Part {
            name,
            targets,
            counts,
            held,
            completion: points.map(|(at, n)| (*at, n as u32)).collect(),
        }
    }
}

struct Reviewer<'a> {
    conductor: &'a Conductor,
    rollout: &'a Rollout,
    started: Option<Time>,
    waves: Vec<Sum>,
    sites: Parts,
    cohorts: Vec<Sum>,
    failures: BTreeMap<Look, (u32, Vec<NodeId>)>,
    traffic: Traffic,
    done: Vec<Time>,
}

impl<'a> Reviewer<'a> {
    fn of(conductor: &'a Conductor, rollout: &'a Rollout) -> Reviewer<'a> {
        let cohorts = rollout.plan.test.as_ref().map_or(0, |t| t.cohorts.len());
        let sums = |n: usize| (0..n).map(|_| Sum::default()).collect();
        let mut reviewer = Reviewer {
            conductor,
            rollout,
            started: rollout.waves.first().and_then(|w| w.opened_at),
            waves: sums(rollout.waves.len()),
            sites: Parts::new(),
            cohorts: sums(cohorts + 1),
            failures: BTreeMap::new(),
            traffic: Traffic::default(),
            done: Vec::new(),
        };
        for (id, target) in &rollout.targets {
            reviewer.add(id, target);
        }
        reviewer
    }

    fn add(&mut self, id: &NodeId, target: &Target) {
        let node = self.conductor.fleet.nodes.get(id);
        let register = node.and_then(|n| n.statuses.get(&self.rollout.plan.rollout));
        let in_bucket = bucket(target.state, Reachability::Reachable);
        let applied = in_bucket == Bucket::Applied;
        let at = register
            .map(|r| self.clamp(r.entered_at))
            .filter(|_| applied);
        let site = (
            target.traits.site.is_none(),
            name_of(target.traits.site.as_ref()),
        );
        let (none, of) = (self.cohorts.len() - 1, target.traits.cohorts);
        let cohorts = self.cohorts.iter_mut().enumerate();
        let cohorts = cohorts.filter(|(n, _)| match *n < none {
            true => of & (1 << n) != 0,
            false => of == 0,
        });
        let waves = self.waves.get_mut(target.wave as usize).into_iter();
        let parts = cohorts.map(|(_, sum)| sum).chain(waves);
        for sum in parts.chain([self.sites.entry(site).or_default()]) {
            sum.targets += 1;
            sum.counts.add(in_bucket);
            sum.done.extend(at);
        }
        self.done.extend(at);
        let Some(register) = register else { return };
        self.traffic.wan_bytes += register.wan_bytes;
        self.traffic.lan_bytes += register.lan_bytes;
        if register.wan_bytes + register.lan_bytes > 0 {
            let alone = node.map_or(0, |node| self.carrier_bytes(node));
            self.traffic.alone_bytes += alone;
        }
        if has_failed(target) {
            let phase = phase(target.state).to_owned();
            let told = match in_bucket {
                Bucket::Failed => last_line(register.output_tail()).unwrap_or(&register.reason),
                _ => "a person reported a problem",
            };
            let line = told.chars().take(LINE_MAX_CHARS).collect();
            let group = self.failures.entry((phase, register.exit_code(), line));
            let (count, nodes) = group.or_default();
            *count += 1;
            if nodes.len() < REVIEW_NODES_MAX {
                nodes.push(*id);
            }
        }
    }

    /// A node's clock cannot make it end before the start, or in the future.
    fn clamp(&self, at: Time) -> Time {
        at.max(self.started.unwrap_or(at))
            .min(self.conductor.now.wall)
    }

    fn carrier_bytes(&self, node: &Node) -> u64 {
        let release = self.conductor.releases.get(&self.rollout.plan.release);
        let artifact = release.and_then(|r| r.value.artifact_for(&node.os, &node.arch));
        artifact.map_or(0, |a| a.travels().length)
    }

    fn finish(self) -> Review {
        let (rollout, now) = (self.rollout, self.conductor.now.wall);
        let tally = rollout.tally();
        let frames = &self.conductor.config.time_frames;
        let started = self.started;
        let promise = started.and_then(|at| Promise::of(frames, &rollout.plan, at));
        let due = rollout.plan.constraints.deadline;
        let due = due.or(promise.map(|promise| promise.target));
        let latest = promise.map(|promise| promise.latest);
        let sla = sla(due, latest, &tally.counts, &self.done, now);
        let names = rollout.plan.waves.iter().map(|w| w.name.clone());
        let waves = self.waves.into_iter().zip(names);
        let sites = self.sites.into_iter();
        let declared = rollout.plan.test.iter().flat_map(|t| &t.cohorts);
        let names = declared
            .map(ToString::to_string)
            .chain(["none of these".to_owned()]);
        let held = rollout
            .evidence
            .as_ref()
            .map(|e| e.held())
            .unwrap_or_default();
        let cohorts = (0u32..).zip(self.cohorts).zip(names);
        let (failures, other_failures) = groups(self.failures);
        Review {
            rollout: rollout.plan.rollout.clone(),
            release: release_name(&rollout.plan.product, &rollout.plan.version),
            priority: rollout.plan.priority,
            state: rollout.state,
            why: rollout.why.clone(),
            now,
            started: self.started,
            targets: tally.targets,
            counts: tally.counts,
            waves: waves.map(|(sum, name)| sum.part(name, false)).collect(),
            sites: sites
                .map(|((_, name), sum)| sum.part(name, false))
                .collect(),
            cohorts: cohorts
                .map(|((n, sum), name)| sum.part(name, held.contains(&n)))
                .collect(),
            failures,
            other_failures,
            traffic: self.traffic,
            sla,
        }
    }
}

fn name_of(site: Option<&Arc<SiteId>>) -> String {
    site.map_or_else(|| "no site".into(), |s| s.to_string())
}

/// Where a node that counts as failed ended, for people.
fn phase(state: State) -> &'static str {
    match state {
        State::Failed => "install",
        State::RollingBack => "rolling back",
        State::RolledBack => "rolled back",
        State::RollbackFailed => "rollback failed",
        State::MissingReport => "went silent",
        _ => "reported by people",
    }
}

fn last_line(output: &str) -> Option<&str> {
    output.lines().map(str::trim).rfind(|line| !line.is_empty())
}

/// Phase, exit code and line.
type Look = (String, Option<i32>, String);
type Group = (Look, (u32, Vec<NodeId>));

fn groups(failures: BTreeMap<Look, (u32, Vec<NodeId>)>) -> (Vec<FailureGroup>, u32) {
    let mut groups: Vec<Group> = failures.into_iter().collect();
    groups.sort_by(|a, b| b.1.0.cmp(&a.1.0).then_with(|| a.0.cmp(&b.0)));
    let rest = groups.split_off(groups.len().min(REVIEW_FAILURES_MAX));
    let group = |((phase, exit_code, line), (count, nodes)): Group| FailureGroup {
        phase,
        exit_code,
        line,
        count,
        nodes,
    };
    let others = rest.iter().map(|(_, (count, _))| count).sum();
    (groups.into_iter().map(group).collect(), others)
}

fn sla(due: Option<Time>, latest: Option<Time>, counts: &Counts, done: &[Time], now: Time) -> Sla {
    let Some(end) = due else {
        return Sla {
            due,
            latest,
            in_time: counts.applied,
            late: 0,
            met: None,
            why: "no time was given".into(),
        };
    };
    let late = done.iter().filter(|at| **at > end).count() as u32;
    let missing = counts.total() - counts.applied;
    let met = match (late + missing, missing, now > end) {
        (0, ..) => Some(true),
        (_, _, true) => Some(false),
        (_, 0, false) => Some(late == 0),
        _ => None,
    };
    let part = |n: u32, what: &str| (n > 0).then(|| format!("{n} {what}"));
    let parts = [
        part(late, "were late"),
        part(counts.failed, "failed"),
        part(counts.open, "are open"),
        part(counts.not_received, "were never reached"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    let all = counts.total();
    let why = match met {
        Some(true) => format!("all {all} were in time"),
        Some(false) => format!("of {all}, {}", parts.join(", ")),
        None => {
            let left = Span(end.since(now).0).as_millis() / 60_000;
            format!("{left} minutes are left; of {all}, {}", parts.join(", "))
        }
    };
    Sla {
        due,
        latest,
        in_time: counts.applied.saturating_sub(late),
        late,
        met,
        why,
    }
}
