//! What listings, `watch` and the web console show. Folds into plain data; decides nothing.

use std::collections::BTreeMap;

use protocol::manifest::{ReleaseManifest, release_name};
use protocol::status::Reachability;
use protocol::{NodeId, Now, SiteId, Span};

use crate::contract::{Config, NodeView, ReleaseView, RolloutView, SiteView, StatusView, WaveView};
use crate::fleet::{Fleet, Held, Node};
use crate::rollout::Rollout;

pub(crate) fn rollout(rollout: &Rollout, config: &Config) -> RolloutView {
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
        waves: waves.collect(),
    }
}

pub(crate) fn node(id: &NodeId, node: &Node) -> NodeView {
    let statuses = node.statuses.iter().map(|(rollout, status)| StatusView {
        rollout: rollout.clone(),
        wave: status.wave,
        state: status.state,
        reason: status.reason.clone(),
        seq: status.seq,
        lan_bytes: status.lan_bytes,
        wan_bytes: status.wan_bytes,
        exit_code: status.exit_code,
        output_tail: status.output_tail.clone(),
    });
    NodeView {
        node: *id,
        hostname: node.enrolled.hostname.clone(),
        site: node.site.clone(),
        labels: node.enrolled.labels.clone(),
        last_seen: node.heard.map(|heard| heard.wall),
        revoked: node.revoked,
        statuses: statuses.collect(),
    }
}

pub(crate) fn release(held: &Held<ReleaseManifest>) -> ReleaseView {
    ReleaseView {
        name: release_name(&held.value.product, &held.value.version),
        digest: held.digest,
        manifest: held.value.clone(),
    }
}

pub(crate) fn sites(fleet: &Fleet, now: Now, unreachable_after: Span) -> Vec<SiteView> {
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
        view.wan_down_bytes_per_s = site.wan_down_bytes_per_s;
    }
    for (_, node) in fleet.all_admitted() {
        let Some(site) = &node.site else { continue };
        let view = sites.entry(site.clone()).or_insert_with(|| empty(site));
        view.nodes += 1;
        let heard = Fleet::reachability(node, now, unreachable_after);
        view.reachable += u32::from(heard == Reachability::Reachable);
    }
    sites.into_values().collect()
}
