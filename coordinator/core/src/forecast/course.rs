//! The course of the waves: the engine that will run the rollout is run here, in time that is made up.
//! It is told of every node what would be heard of it, and its own moves say when waves open and pass.

use std::collections::{BTreeMap, BTreeSet};

use protocol::manifest::ReleaseManifest;
use protocol::plan::RolloutPlan;
use protocol::status::State;
use protocol::{Hash, NodeId, Now, SiteId, Span, Time};

use super::starts::{Starts, Waits};
use super::{Assumptions, SiteForecast, WaveForecast, wan};
use crate::contract::{RolloutState, Verdict};
use crate::daily::day_of;
use crate::fleet::{Fleet, Node};
use crate::fold::enlisted;
use crate::moves::Move;
use crate::rollout::Rollout;

/// Targets of one site and wave: whatever comes, it comes to all of them at the same time.
struct Group {
    site: usize,
    wave: u32,
    nodes: Vec<NodeId>,
}

/// All targets, by site and wave.
pub(crate) struct Groups {
    names: Vec<Option<SiteId>>,
    groups: Vec<Group>,
}

/// How a wave goes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stand {
    pub opens: Option<Time>,
    /// The first of it starts.
    pub starts: Option<Time>,
    pub completes: Option<Time>,
    pub passes: Option<Time>,
}

/// When targets of one site and wave have the release, those that answer and go alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    pub site: usize,
    pub wave: u32,
    pub nodes: u32,
    /// None: they never get leave, or the bytes do not come, or no constraint lets them start, while the
    /// plan lasts.
    pub at: Option<Time>,
    /// They get leave; none: their wave does not open, or not for them.
    pub leave: Option<Time>,
    /// They have leave and bytes and could start.
    pub ready: Option<Time>,
    /// What they waited for beside that.
    pub waits: Option<Waits>,
    /// They had no leave yet though their wave was open: the day's starts were given.
    pub capped: bool,
}

/// How it goes.
pub(crate) struct Course {
    pub waves: Vec<Stand>,
    pub ends: Vec<End>,
    pub finishes: Option<Time>,
}

/// The bytes that a node needs of a release: its carrier with its index, and how to tell them from those
/// of another platform.
pub(crate) fn carried<'a>(release: &'a ReleaseManifest, node: &Node) -> Option<(&'a Hash, u64)> {
    let artifact = release.artifact_for(&node.os, &node.arch)?;
    let carrier = artifact.travels();
    Some((&carrier.root, carrier.length + artifact.index.length))
}

/// Whether nodes of a site share what they fetch; without a site nobody does.
pub(crate) fn has_peers(fleet: &Fleet, site: Option<&SiteId>) -> bool {
    let topology = fleet.topology.as_ref().map(|t| &t.value);
    let signed = site.map(|site| topology.and_then(|t| t.site(site)));
    signed.is_some_and(|signed| signed.is_none_or(|signed| !signed.no_peers))
}

impl Groups {
    /// Everyone whom a plan concerns now.
    pub fn of(plan: &RolloutPlan, fleet: &Fleet) -> Groups {
        let rollout = Rollout::proposed(plan.clone());
        let except: Vec<NodeId> = fleet.origins.iter().copied().collect();
        let mut by_place: BTreeMap<(bool, Option<&SiteId>, u32), Vec<NodeId>> = BTreeMap::new();
        for (id, wave) in enlisted(&rollout, fleet, &except) {
            let site = fleet.nodes.get(&id).and_then(|n| n.site.as_deref());
            let place = (site.is_none(), site, wave);
            by_place.entry(place).or_default().push(id);
        }
        let mut names: Vec<Option<SiteId>> = Vec::new();
        let mut groups = Vec::with_capacity(by_place.len());
        for ((_, site, wave), nodes) in by_place {
            if names.last().map(Option::as_ref) != Some(site) {
                names.push(site.cloned());
            }
            groups.push(Group {
                site: names.len() - 1,
                wave,
                nodes,
            });
        }
        Groups { names, groups }
    }

    /// The sites, with what they hold and need.
    pub fn sites(
        &self,
        plan: &RolloutPlan,
        release: &ReleaseManifest,
        fleet: &Fleet,
    ) -> Vec<SiteForecast> {
        let topology = fleet.topology.iter().flat_map(|t| &t.value.sites);
        let rates: BTreeMap<&SiteId, Option<u64>> =
            topology.map(|s| (&s.id, s.wan_down_bytes_per_s)).collect();
        let blank = |name: &Option<SiteId>| SiteForecast {
            site: name.clone(),
            waves: vec![0; plan.waves.len()],
            wan_down_bytes_per_s: name.as_ref().and_then(|n| rates.get(n).copied().flatten()),
            ..SiteForecast::default()
        };
        let mut sites: Vec<SiteForecast> = self.names.iter().map(blank).collect();
        let mut blobs: Vec<BTreeSet<&Hash>> = vec![BTreeSet::new(); sites.len()];
        for group in &self.groups {
            let site = &mut sites[group.site];
            site.waves[group.wave as usize] += group.nodes.len() as u32;
            for node in group.nodes.iter().filter_map(|id| fleet.nodes.get(id)) {
                site.unreachable += u32::from(!node.reachable);
                let Some((blob, bytes)) = carried(release, node) else {
                    continue;
                };
                let first = blobs[group.site].insert(blob);
                site.carrier_bytes += if first { bytes } else { 0 };
                if first || !has_peers(fleet, site.site.as_ref()) {
                    site.bytes += bytes;
                }
            }
        }
        for site in &mut sites {
            let copies = u128::from(site.bytes) * 1_000_000 / u128::from(site.carrier_bytes.max(1));
            site.wan_copies_ppm = copies as u64;
        }
        wan::add_up(&mut sites, fleet);
        sites
    }

    /// The waves, with who is in them.
    pub fn waves(&self, plan: &RolloutPlan, fleet: &Fleet) -> Vec<WaveForecast> {
        let blank = |wave: &protocol::plan::Wave| WaveForecast {
            name: wave.name.clone(),
            not_before: wave.not_before,
            ..WaveForecast::default()
        };
        let mut waves: Vec<WaveForecast> = plan.waves.iter().map(blank).collect();
        let mut cohorts: Vec<BTreeMap<(&str, &str), u32>> = vec![BTreeMap::new(); waves.len()];
        for group in &self.groups {
            let wave = &mut waves[group.wave as usize];
            wave.targets += group.nodes.len() as u32;
            wave.sites += 1;
            for node in group.nodes.iter().filter_map(|id| fleet.nodes.get(id)) {
                let cohort = (node.os.as_str(), node.arch.as_str());
                *cohorts[group.wave as usize].entry(cohort).or_default() += 1;
            }
        }
        for (wave, counts) in waves.iter_mut().zip(cohorts) {
            let named = |((os, arch), n): ((&str, &str), u32)| (format!("{os}/{arch}"), n);
            wave.cohorts = counts.into_iter().map(named).collect();
        }
        waves
    }
}

/// What a course's time is made of.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// It begins then.
    pub start: Time,
    /// From the start on a node until it is through.
    pub install: Span,
    /// The fleet's cap on starts a day, with what other rollouts claim of the first.
    pub cap: Option<(u32, u32)>,
}

/// Plays a plan.
pub(crate) fn play(
    groups: &Groups,
    plan: &RolloutPlan,
    fleet: &Fleet,
    sites: &[SiteForecast],
    pace: Pace,
    assumptions: &Assumptions,
) -> Course {
    let Pace {
        start,
        install,
        cap,
    } = pace;
    let reachable = |id: &&NodeId| fleet.nodes.get(*id).is_some_and(|n| n.reachable);
    let mut engine = Rollout::proposed(plan.clone());
    // who has to be done without shall be seen now, not after a day
    engine.absent_after = Span(u64::MAX);
    engine.fold_state(RolloutState::Ready, "");
    for group in &groups.groups {
        for node in &group.nodes {
            let traits = fleet.nodes.get(node).map(|n| engine.traits(n));
            let traits = traits.unwrap_or_default();
            engine.fold_joined(*node, group.wave, traits, State::NotReceived, Time(0));
        }
    }
    engine.fold_state(RolloutState::Running, "");
    let at = |wall: Time| Now {
        boot: Time(1) + wall.since(start),
        wall,
    };
    let mut course = Course {
        waves: vec![Stand::default(); plan.waves.len()],
        ends: Vec::new(),
        finishes: None,
    };
    let mut nodes: BTreeMap<NodeId, (usize, u32)> = BTreeMap::new();
    for group in &groups.groups {
        let answering = group.nodes.iter().filter(reachable);
        nodes.extend(answering.map(|id| (*id, (group.site, group.wave))));
    }
    let mut starts = Starts::of(plan, install);
    let mut ends: BTreeMap<End, u32> = BTreeMap::new();
    let (mut now, mut capped) = (start, false);
    // what the coordinator hears, by when
    let mut heard: BTreeMap<Time, Vec<(NodeId, State)>> = BTreeMap::new();
    loop {
        loop {
            // what the fleet's day leaves
            engine.daily.left_of_fleet = cap.map(|(cap, others)| {
                let first = day_of(now) == day_of(start);
                let others = if first { others } else { 0 };
                cap.saturating_sub(others + engine.claimed())
            });
            let Some(next) = engine.next_move(at(now)) else {
                break;
            };
            let given = match next {
                Move::Open(wave) => {
                    engine.fold_opened(wave, now);
                    course.waves[wave as usize].opens = Some(now);
                    let ours = |g: &&Group| g.wave == wave && plan.test.is_none();
                    let ours = groups.groups.iter().filter(ours);
                    ours.flat_map(|g| g.nodes.iter().copied()).collect()
                }
                Move::Pass { wave, .. } => {
                    engine.fold_verdict(wave, Verdict::Pass, now);
                    course.waves[wave as usize].passes = Some(now);
                    Vec::new()
                }
                Move::Lease { below, .. } => {
                    let given = engine.fold_lease(below, at(now).boot);
                    engine.lease_given(at(now).boot);
                    // leases are renewed all along; nothing here hangs on them
                    engine.lease_given_until(Time::MAX);
                    given
                }
                Move::Clear { cohort, .. } => {
                    engine.fold_cleared(cohort);
                    Vec::new()
                }
                Move::Finish => {
                    engine.fold_state(RolloutState::Finished, "");
                    course.finishes = Some(now);
                    Vec::new()
                }
                Move::Dawn(day) => {
                    engine.fold_dawn(day);
                    Vec::new()
                }
                Move::Expire => {
                    engine.fold_state(RolloutState::Aborted, "");
                    Vec::new()
                }
                // a long install is no silence
                Move::Silence(nodes) => {
                    for node in nodes {
                        engine.fold_target_state(&node, State::Verifying, at(now).boot);
                    }
                    Vec::new()
                }
                // nobody fails here, and nothing is taken back
                Move::Fail { .. } | Move::HoldCohort { .. } | Move::TakenBack => break,
            };
            for id in given {
                let (Some((site, wave)), Some(node)) = (nodes.remove(&id), fleet.nodes.get(&id))
                else {
                    continue;
                };
                let told = now + assumptions.word;
                let ready = sites[site].has_bytes.map(|at| at.max(told));
                let (start, waits) = ready.map_or((None, None), |ready| starts.start(node, ready));
                let end = start
                    .map(|at| at + install)
                    .filter(|at| *at < plan.not_after);
                if let (Some(start), Some(end)) = (start, end) {
                    let word = assumptions.word;
                    heard
                        .entry(start + word)
                        .or_default()
                        .push((id, State::Installing));
                    heard
                        .entry(end + word)
                        .or_default()
                        .push((id, State::Succeeded));
                }
                let end = End {
                    site,
                    wave,
                    nodes: 0,
                    at: end,
                    leave: Some(now),
                    ready,
                    waits,
                    capped,
                };
                *ends.entry(end).or_default() += 1;
            }
        }
        capped |= engine.capped_until().is_some();
        let wakes = engine
            .wakes_at(at(now))
            .map(|boot| start + boot.since(Time(1)));
        let hears = heard.first_key_value().map(|(at, _)| *at);
        let Some(next) = wakes.into_iter().chain(hears).min() else {
            break;
        };
        now = next.max(now + Span(1));
        if now > plan.not_after || course.finishes.is_some() {
            break;
        }
        while let Some(due) = heard.first_entry().filter(|due| *due.key() <= now) {
            for (node, state) in due.remove() {
                engine.fold_target_state(&node, state, at(now).boot);
            }
        }
    }
    for (site, wave) in nodes.into_values() {
        let never = End {
            site,
            wave,
            nodes: 0,
            at: None,
            leave: None,
            ready: None,
            waits: None,
            capped,
        };
        *ends.entry(never).or_default() += 1;
    }
    for (end, nodes) in ends {
        let wave = &mut course.waves[end.wave as usize];
        wave.starts = match (wave.starts, end.at) {
            (known, Some(at)) => Some(known.map_or(at - install, |s: Time| s.min(at - install))),
            (known, None) => known,
        };
        wave.completes = wave.completes.max(end.at);
        course.ends.push(End { nodes, ..end });
    }
    course
}
