//! The course of the waves: the engine that will run the rollout is run here, in time that is made up.
//! It is told of every node what would be heard of it, and its own moves say when waves open and pass.

use std::collections::{BTreeMap, BTreeSet};

use protocol::manifest::ReleaseManifest;
use protocol::plan::RolloutPlan;
use protocol::status::State;
use protocol::{Hash, NodeId, Now, SiteId, Span, Time};

use super::{Assumptions, SiteForecast, WaveForecast, wan};
use crate::contract::{RolloutState, Verdict};
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
    pub completes: Option<Time>,
    pub passes: Option<Time>,
}

/// When targets of one site and wave have the release, those that answer.
pub(crate) struct End {
    pub site: usize,
    pub wave: u32,
    pub nodes: u32,
    /// None: their wave does not open, or the bytes do not come, while the plan lasts.
    pub at: Option<Time>,
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

/// Plays a plan from `start` on.
pub(crate) fn play(
    groups: &Groups,
    plan: &RolloutPlan,
    fleet: &Fleet,
    sites: &[SiteForecast],
    start: Time,
    install: Span,
    assumptions: &Assumptions,
) -> Course {
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
    let answering: Vec<Vec<NodeId>> = groups
        .groups
        .iter()
        .map(|g| g.nodes.iter().filter(reachable).copied().collect())
        .collect();
    let mut ended: Vec<Option<Time>> = vec![None; groups.groups.len()];
    // groups whose outcome the coordinator hears of, by when
    let mut heard: BTreeSet<(Time, usize)> = BTreeSet::new();
    let mut now = start;
    loop {
        while let Some(next) = engine.next_move(at(now)) {
            match next {
                Move::Open(wave) => {
                    engine.fold_opened(wave, now);
                    course.waves[wave as usize].opens = Some(now);
                    let ours = groups
                        .groups
                        .iter()
                        .enumerate()
                        .filter(|g| g.1.wave == wave);
                    for (number, group) in ours {
                        let told = now + assumptions.word;
                        let ready = sites[group.site].has_bytes.map(|at| at.max(told));
                        ended[number] = ready.map(|at| at + install);
                        let heard_at = ended[number].map(|at| at + assumptions.word);
                        heard.extend(heard_at.map(|at| (at, number)));
                    }
                }
                Move::Pass { wave, .. } => {
                    engine.fold_verdict(wave, Verdict::Pass, now);
                    course.waves[wave as usize].passes = Some(now);
                }
                // leases are renewed all along; nothing here hangs on them
                Move::Lease { below, .. } => {
                    engine.fold_lease(below, at(now).boot);
                    engine.lease_given_until(Time::MAX);
                }
                Move::Clear { cohort, .. } => engine.fold_cleared(cohort),
                Move::Finish => {
                    engine.fold_state(RolloutState::Finished, "");
                    course.finishes = Some(now);
                }
                Move::Dawn(day) => engine.fold_dawn(day),
                Move::Expire => engine.fold_state(RolloutState::Aborted, ""),
                // nobody fails or falls silent here, and nothing is taken back
                Move::Fail { .. }
                | Move::HoldCohort { .. }
                | Move::Silence(_)
                | Move::TakenBack => break,
            }
        }
        let wakes = engine
            .wakes_at(at(now))
            .map(|boot| start + boot.since(Time(1)));
        let hears = heard.first().map(|(at, _)| *at);
        let Some(next) = wakes.into_iter().chain(hears).min() else {
            break;
        };
        now = next.max(now + Span(1));
        if now > plan.not_after || course.finishes.is_some() {
            break;
        }
        while let Some((due, number)) = heard.first().copied()
            && due <= now
        {
            heard.remove(&(due, number));
            for node in &answering[number] {
                engine.fold_target_state(node, State::Succeeded, at(now).boot);
            }
        }
    }
    for ((group, at), answering) in groups.groups.iter().zip(ended).zip(&answering) {
        let at = at.filter(|at| *at < plan.not_after);
        let wave = &mut course.waves[group.wave as usize];
        if !answering.is_empty() {
            wave.completes = wave.completes.max(at);
        }
        course.ends.push(End {
            site: group.site,
            wave: group.wave,
            nodes: answering.len() as u32,
            at,
        });
    }
    course.ends.retain(|end| end.nodes > 0);
    course
}
