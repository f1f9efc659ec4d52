//! From the world to the figures that pictures show.

use protocol::plan::RolloutPlan;

use super::gather::seconds;
use super::{Report, RolloutReport};
use crate::plots::{Pictures, RolloutCurves, WaveCurves};
use crate::world::World;

impl Pictures {
    /// The figures of a world, of which the report was made.
    pub fn of(world: &World, report: &Report) -> Pictures {
        let (scenario, seed) = (&report.scenario, report.seed);
        let (nodes, sites) = (report.nodes, report.sites);
        let (bytes_in, bytes_out) = world.hub.desk.rates();
        Pictures {
            title: format!("{scenario}: {nodes} nodes in {sites} sites, seed {seed}"),
            rollouts: rollouts(world, report),
            copies: copies(world),
            bytes_in,
            bytes_out,
        }
    }
}

fn copies(world: &World) -> Vec<(String, f64)> {
    let released = world.hub.story.rollouts.len();
    let sites = world.islands.iter().zip(&world.shared.sites);
    let sites = sites.filter(|(_, spec)| spec.nodes > 0);
    let most = sites.map(|(island, spec)| {
        let contents = world.shared.contents.iter().take(released);
        let crossed = island.tally.wan.iter().zip(contents);
        let copies = crossed.map(|(bytes, c)| *bytes as f64 / c.carrier.length as f64);
        (spec.name.clone(), copies.fold(0.0, f64::max))
    });
    most.collect()
}

fn rollouts(world: &World, report: &Report) -> Vec<RolloutCurves> {
    let told = world.hub.story.rollouts.iter().zip(&report.rollouts);
    let curves = told.filter_map(|(id, told)| {
        let plan = world.hub.desk.conductor.plan(id)?;
        Some(curves(world, plan, told))
    });
    curves.collect()
}

fn curves(world: &World, plan: &RolloutPlan, told: &RolloutReport) -> RolloutCurves {
    let waves = told.waves.iter().zip(&plan.waves).enumerate();
    let mut waves: Vec<WaveCurves> = waves
        .map(|(number, (told, wave))| WaveCurves {
            name: told.name.clone(),
            targets: told.targets,
            opened: told.opened_s,
            applied: Vec::new(),
            started: told.started,
            harmed: 0,
            threshold: (
                f64::from(wave.gate.min_success_ppm) / 10_000.0,
                wave.gate.min_sample,
            ),
            outcomes: world.hub.audit.outcomes(&plan.rollout, number),
        })
        .collect();
    let number = world.shared.release_number(&plan.release);
    for island in &world.islands {
        let watch = &island.watch;
        for (slot, node) in watch.nodes().iter().enumerate() {
            let outcome = watch.histories.outcome(slot, &plan.rollout);
            // nobody has to be asked for a wave who has nothing to show in it
            if outcome.applied.is_none() && outcome.started.is_none() {
                continue;
            }
            let wave = plan.wave_of(node, watch.site());
            let Some(curve) = wave.and_then(|wave| waves.get_mut(wave as usize)) else {
                continue;
            };
            curve.applied.extend(outcome.applied.map(seconds));
            let harmed = number.is_some_and(|number| island.is_harmed(slot, number));
            curve.harmed += u32::from(harmed);
        }
    }
    let release = told.release.clone();
    waves
        .iter_mut()
        .for_each(|w| w.applied.sort_by(f64::total_cmp));
    RolloutCurves { release, waves }
}
