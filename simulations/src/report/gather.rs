//! From the world to the report.

use std::collections::BTreeMap;

use node_core::contract::FetchReason;
use protocol::status::{Bucket, Reachability, State, bucket};
use protocol::{RolloutId, Time};

use super::{Copies, Report, RolloutReport, SITES_LISTED_MAX, SiteReport, WaveReport};
use crate::checks::liveness::Outcome;
use crate::faults::Mishap;
use crate::figures::{Percentiles, Ways, crossing_s, round};
use crate::island::{Island, mbit};
use crate::world::World;

impl Report {
    /// What came of a world.
    pub fn of(world: &World) -> Report {
        let scenario = &world.shared.scenario;
        let desk = &world.hub.desk;
        let rollouts = world.hub.story.rollouts.len();
        let (spans, makespan_unfinished) = makespans(world);
        let (copies, site_details) = sites(world, &spans);
        let nodes = scenario.nodes();
        let per_node = desk.traffic.bytes() as f64 / f64::from(nodes.max(1));
        Report {
            scenario: scenario.name.clone(),
            seed: scenario.seed,
            nodes,
            sites: world.shared.sites.len() as u32,
            events: world.events(),
            virtual_seconds: seconds(world.time()),
            wall_seconds: None,
            wan_copies: copies,
            makespan_ratio: percentiles(spans.into_iter().flatten()),
            makespan_unfinished,
            origin_copies: origin_copies(world),
            halt_seconds_p999: halt_seconds(world),
            counts_true_seconds: counts_true_seconds(world),
            coordinator_bytes_per_node: round(per_node / rollouts.max(1) as f64),
            coordinator_traffic: desk.traffic.clone(),
            wan_bytes_by_reason: reasons(world),
            site_details,
            rollouts: (0..rollouts).filter_map(|n| rollout(world, n)).collect(),
            installed: installed(world),
            orders: desk.conductor.orders_head().n,
            ledger_entries: desk.ledger.len() as u64,
            forecasts: world.rehearsals(),
            violations: world.findings().lines(),
        }
    }
}

/// Since the world began.
pub(super) fn seconds(at: Time) -> f64 {
    at.0 as f64 / 1000.0
}

/// The sites, without the data centre.
fn islands(world: &World) -> impl Iterator<Item = &Island> {
    world.islands.iter().filter(|i| i.site().is_some())
}

/// For each node of a site, what became of a rollout on it.
fn outcomes<'a>(
    island: &'a Island,
    rollout: &'a RolloutId,
) -> impl Iterator<Item = (usize, Outcome)> + 'a {
    let slots = 0..island.machines.len();
    slots.map(|slot| (slot, island.watch.histories.outcome(slot, rollout)))
}

fn sites(world: &World, spans: &[Vec<f64>]) -> (Copies, Vec<SiteReport>) {
    let released = world.hub.story.rollouts.len();
    let mut all = Vec::new();
    let mut sites = Vec::new();
    let of_sites = islands(world).zip(&world.shared.sites).zip(spans);
    for ((island, spec), spans) in of_sites {
        let bytes = |release: usize| island.tally.wan[release];
        let of_carrier =
            |r: usize| round(bytes(r) as f64 / world.shared.contents[r].carrier.length as f64);
        let mine: Vec<f64> = (0..released).map(of_carrier).collect();
        if spec.nodes > 0 {
            all.extend(mine.iter().copied());
        }
        sites.push(SiteReport {
            site: spec.name.clone(),
            nodes: spec.nodes,
            wan_bytes: (0..released).map(bytes).sum(),
            wan_copies: mine,
            wan_mbit: spec.wan_mbit,
            makespan_worst: spans.iter().copied().reduce(f64::max).map(round),
        });
    }
    let copies = Copies {
        mean: round(all.iter().sum::<f64>() / all.len().max(1) as f64),
        worst: all.iter().copied().fold(0.0, f64::max),
    };
    if sites.len() > SITES_LISTED_MAX {
        let most = |site: &SiteReport| site.wan_copies.iter().copied().fold(0.0, f64::max);
        sites.sort_by(|a, b| most(b).total_cmp(&most(a)));
        sites.truncate(SITES_LISTED_MAX);
    }
    (copies, sites)
}

/// When a site's WAN carries how much: seconds, and bytes a second from then on.
fn wan_rates(world: &World, site: usize) -> Vec<(f64, f64)> {
    let full = mbit(world.shared.sites[site].wan_mbit);
    let mut rates = vec![(0.0, full)];
    for (at, mishap) in world.shared.fate.mishaps(site) {
        if let Mishap::Wan { permille } = mishap {
            rates.push((seconds(at), full * f64::from(permille) / 1000.0));
        }
    }
    rates
}

/// For each site what its nodes took, over T_min, and how many nodes never had all.
fn makespans(world: &World) -> (Vec<Vec<f64>>, u32) {
    let shared = &world.shared;
    let with_nodes = shared.sites.iter().filter(|s| s.nodes > 0).count();
    let (mut spans, mut unfinished) = (vec![Vec::new(); shared.sites.len()], 0);
    for (release, noted) in world.hub.story.milestones.iter().enumerate() {
        let content = &shared.contents[release];
        let ways = Ways {
            bytes: (content.carrier.length + content.index.length) as f64,
            origin: shared
                .scenario
                .origin
                .uplink_mbit
                .map_or(f64::INFINITY, mbit),
            sites: with_nodes as f64,
            relay: relay(world),
        };
        for (site, island) in islands(world).enumerate() {
            let rates = wan_rates(world, site);
            let wan_s = crossing_s(ways.bytes, seconds(noted.started), &rates);
            let least = ways.t_min(wan_s, mbit(shared.sites[site].lan_mbit));
            for (slot, staged) in island.tally.staged[release].iter().enumerate() {
                let reach = island.watch.histories.reach(slot);
                let until = staged.unwrap_or(world.time());
                if !reach.covers(noted.started, until) {
                    continue;
                }
                match staged {
                    Some(at) => {
                        spans[site].push(round(seconds(*at) - seconds(noted.started)) / least)
                    }
                    None => unfinished += 1,
                }
            }
        }
    }
    (spans, unfinished)
}

fn percentiles(values: impl Iterator<Item = f64>) -> Option<Percentiles> {
    Percentiles::of(values.collect()).map(|p| Percentiles {
        p50: round(p.p50),
        p99: round(p.p99),
        p999: round(p.p999),
    })
}

/// What the sites together may give to one another, bytes a second.
fn relay(world: &World) -> f64 {
    let sites = &world.shared.sites;
    let relays = sites.iter().filter(|s| s.relay && s.nodes > 0);
    let rates: Vec<f64> = relays.map(|s| mbit(s.up_mbit())).collect();
    // one alone has nobody to give to
    rates.iter().filter(|_| rates.len() > 1).sum()
}

fn origin_copies(world: &World) -> Option<f64> {
    let released = 0..world.hub.story.rollouts.len();
    let carrier = |r: usize| world.shared.contents[r].carrier.length as f64;
    let given = |r: usize| islands(world).map(|i| i.tally.from_origin[r]).sum::<u64>();
    let copies = released.map(|r| round(given(r) as f64 / carrier(r)));
    copies.reduce(f64::max)
}

fn halt_seconds(world: &World) -> Option<f64> {
    let mut all = Vec::new();
    for (release, noted) in world.hub.story.milestones.iter().enumerate() {
        let Some(halted) = noted.halted else { continue };
        for island in islands(world) {
            for (slot, heard) in island.tally.halted[release].iter().enumerate() {
                let reach = island.watch.histories.reach(slot);
                if reach.covers(halted, heard.unwrap_or(world.time())) {
                    let heard = heard.map(|at| seconds(at) - seconds(halted));
                    all.push(heard.unwrap_or(f64::INFINITY));
                }
            }
        }
    }
    let p999 = Percentiles::of(all)?.p999;
    p999.is_finite().then_some(round(p999))
}

fn counts_true_seconds(world: &World) -> Option<f64> {
    let mut most = None;
    for id in &world.hub.story.rollouts {
        let (mut applied, mut failed, mut last) = (0, 0, Time(0));
        for (_, outcome) in islands(world).flat_map(|island| outcomes(island, id)) {
            let Some((at, state)) = outcome.ended else {
                continue;
            };
            last = last.max(at);
            match bucket(state, Reachability::Reachable) {
                Bucket::Applied => applied += 1,
                Bucket::Failed => failed += 1,
                _ => {}
            }
        }
        let known = world.hub.audit.counted_since(id, applied, failed)?;
        most = Some(round(seconds(known) - seconds(last)).max(most.unwrap_or(0.0)));
    }
    most
}

fn reasons(world: &World) -> BTreeMap<FetchReason, u64> {
    let mut reasons = BTreeMap::new();
    for (reason, bytes) in world.islands.iter().flat_map(|i| &i.tally.reasons) {
        *reasons.entry(*reason).or_default() += bytes;
    }
    reasons
}

fn installed(world: &World) -> BTreeMap<String, u32> {
    let releases = world.hub.desk.conductor.releases().into_iter();
    let names: BTreeMap<_, _> = releases.map(|r| (r.digest, r.name)).collect();
    let mut installed = BTreeMap::new();
    for machine in islands(world).flat_map(|i| &i.machines) {
        let there = machine.installed.values();
        let mut there: Vec<String> = there.filter_map(|d| names.get(d).cloned()).collect();
        if there.is_empty() {
            there.push("nothing".into());
        }
        for name in there {
            *installed.entry(name).or_default() += 1;
        }
    }
    installed
}

fn rollout(world: &World, number: usize) -> Option<RolloutReport> {
    let id = &world.hub.story.rollouts[number];
    let view = world.hub.desk.conductor.rollout(id)?;
    let wall = |at: Time| at.since(crate::fleet::BEGINNING).0 as f64 / 1000.0;
    let started = |wave: u32| {
        let starts = islands(world).filter_map(|i| i.watch.starts.get(&(id.clone(), wave)));
        starts.sum()
    };
    let waves = view.waves.into_iter().map(|w| WaveReport {
        started: started(w.number),
        name: w.name,
        state: w.state,
        targets: w.targets,
        counts: w.counts,
        opened_s: w.opened_at.map(wall),
        ended_s: w.ended_at.map(wall),
    });
    let waves: Vec<WaveReport> = waves.collect();
    let ends = islands(world).flat_map(|island| outcomes(island, id));
    let rolled_back = ends.filter(|(_, o)| failed(*o)).count() as u32;
    Some(RolloutReport {
        release: view.release,
        state: view.state,
        why: view.why,
        counts: view.counts,
        attempted: waves.iter().map(|w| w.started).sum(),
        harmed: world.islands.iter().map(|i| i.tally.harmed[number]).sum(),
        rolled_back,
        waves,
    })
}

/// Whether a node began to switch and came to a bad end.
fn failed(outcome: Outcome) -> bool {
    let bad = |state: State| bucket(state, Reachability::Reachable) == Bucket::Failed;
    outcome.started.is_some() && outcome.ended.is_some_and(|(_, state)| bad(state))
}
