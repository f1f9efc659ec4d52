//! What listings, `watch` and the web console show. Folds into plain data; decides nothing.

use std::collections::BTreeMap;

use protocol::manifest::{ReleaseManifest, release_name};
use protocol::{NodeId, SiteId, Time};

use crate::contract::{Config, NodeView, ReleaseView, RolloutView, SiteView, StatusView, WaveView};
use crate::feeds::Feeds;
use crate::fleet::{Fleet, Held, Node};
use crate::rollout::Rollout;

pub(crate) fn rollout(rollout: &Rollout, feeds: &Feeds, config: &Config) -> RolloutView {
    let tally = rollout.tally();
    let waves = rollout
        .waves
        .iter()
        .enumerate()
        .map(|(number, stand)| WaveView {
            number: number as u32,
            name: rollout.plan.waves[number].name.clone(),
            state: rollout.wave_state(number).to_owned(),
            targets: stand.tally.targets,
            counts: stand.tally.counts,
            opened_at: stand.opened_at,
            ended_at: stand.ended_at,
        });
    RolloutView {
        rollout: rollout.plan.rollout.clone(),
        release: release_name(&rollout.plan.product, &rollout.plan.version),
        state: rollout.state,
        why: rollout.why.clone(),
        plan: rollout.digest,
        approvals: (rollout.approved_by.len() as u32, config.plans_threshold),
        targets: tally.targets,
        counts: tally.counts,
        stages: feeds.stages(&rollout.plan.rollout, tally.counts.open),
        waves: waves.collect(),
        by_hand: 0,
        promise: None,
        waits: None,
    }
}

pub(crate) fn node(id: &NodeId, node: &Node, fleet: &Fleet) -> NodeView {
    let statuses = node.statuses.iter().map(|register| StatusView {
        rollout: (*register.rollout).clone(),
        wave: register.wave,
        state: register.state,
        reason: register.reason.to_string(),
        seq: register.seq,
        lan_bytes: register.lan_bytes,
        wan_bytes: register.wan_bytes,
        exit_code: register.exit_code(),
        output_tail: register.output_tail().to_owned(),
    });
    NodeView {
        node: *id,
        hostname: node.hostname.to_string(),
        site: node.site.as_deref().cloned(),
        labels: (*node.labels).clone(),
        attributes: (*node.attributes).clone(),
        last_seen: fleet.heard(id).map(|heard| heard.wall),
        revoked: node.revoked,
        statuses: statuses.collect(),
        by_hand: Vec::new(),
    }
}

pub(crate) fn release(held: &Held<ReleaseManifest>) -> ReleaseView {
    ReleaseView {
        name: release_name(&held.value.product, &held.value.version),
        digest: held.digest,
        manifest: held.value.clone(),
    }
}

/// The sites as they stand at a wall time.
pub(crate) fn sites(fleet: &Fleet, at: Time) -> Vec<SiteView> {
    let mut sites: BTreeMap<SiteId, SiteView> = BTreeMap::new();
    let empty = |site: &SiteId| SiteView {
        site: site.clone(),
        known: false,
        nodes: 0,
        reachable: 0,
        wan_down_bytes_per_s: None,
    };
    for site in fleet.topology.iter().flat_map(|t| &t.value.sites) {
        let view = sites
            .entry(site.id.clone())
            .or_insert_with(|| empty(&site.id));
        view.known = true;
        view.wan_down_bytes_per_s = site.rates(at).down;
    }
    for (site, population) in &fleet.sites {
        let view = sites.entry((**site).clone()).or_insert_with(|| empty(site));
        (view.nodes, view.reachable) = (population.nodes, population.reachable);
    }
    sites.into_values().collect()
}
