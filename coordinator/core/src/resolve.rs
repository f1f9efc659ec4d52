//! From what a person proposes to what everyone can check.
//!
//! Counts become node lists, spread over the sites; percentages become position ranges that cut the
//! fleet of the moment exactly; labels become node lists; sites stay sites. Whoever is left, and who
//! joins later and fits nowhere else, falls into the rest wave, which is added if none is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::limits::PLAN_NODES_MAX;
use protocol::manifest::ReleaseManifest;
use protocol::plan::{Members, Proposal, RolloutPlan, Selector, Wave};
use protocol::positions::position;
use protocol::relations::Closure;
use protocol::trust::Statement;
use protocol::{Hash, NodeId, Now, SiteId};

use crate::fleet::{Fleet, Node};

struct Candidate<'a> {
    id: NodeId,
    at: u64,
    node: &'a Node,
}

/// Resolves a proposal against the fleet of the moment.
///
/// # Errors
/// One line: which wave, which limit, or what is empty.
pub(crate) fn resolve(
    proposal: &Proposal,
    (release, closure): (&ReleaseManifest, Closure),
    salt: Hash,
    fleet: &Fleet,
    now: Now,
) -> Result<RolloutPlan, String> {
    if proposal.not_after <= now.wall {
        return Err("its not_after has passed; give a later one".into());
    }
    if release.expires <= now.wall {
        return Err(format!(
            "release {}@{} has expired",
            release.product, release.version
        ));
    }
    if let Some(zone) = proposal.constraints.unknown_zones().first() {
        return Err(format!(
            "the IANA database has no zone {zone}; zones are written like Europe/Berlin"
        ));
    }
    check_sites(proposal, fleet)?;
    let all = candidates(proposal, &salt, fleet);
    if all.is_empty() {
        let what = match &proposal.targets.filter {
            Some(filter) => format!(" of which {filter:?} is true", filter = filter.to_string()),
            None => String::new(),
        };
        return Err(format!(
            "no enrolled node is concerned{what}; enrol nodes or widen the targets"
        ));
    }
    let mut left: Vec<&Candidate> = all.iter().collect();
    let mut waves = Vec::with_capacity(proposal.waves.len() + 1);
    for (number, draft) in proposal.waves.iter().enumerate() {
        let fail = |what: String| format!("wave {} ({:?}) {what}", number + 1, draft.name);
        if waves.iter().any(|w: &Wave| w.members == Members::Rest) {
            return Err(fail(
                "stands behind the rest wave, which has everyone".into(),
            ));
        }
        let members = select(&draft.select, &all, &left).map_err(fail)?;
        left.retain(|c| !has(&members, c));
        waves.push(Wave {
            name: draft.name.clone(),
            members,
            not_before: draft.not_before,
            gate: draft.gate.clone(),
        });
    }
    if let Some(last) = waves.last().filter(|w| w.members != Members::Rest) {
        let rest = Wave {
            name: "rest".into(),
            members: Members::Rest,
            ..last.clone()
        };
        waves.push(rest);
    }
    let plan = RolloutPlan {
        spec_version: RolloutPlan::SPEC_VERSION,
        fleet: proposal.fleet,
        rollout: proposal.rollout.clone(),
        plan_version: 1,
        release: proposal.release,
        product: release.product.clone(),
        version: release.version.clone(),
        proposer: proposal.proposer,
        priority: proposal.priority,
        salt,
        targets: proposal.targets.clone(),
        waves,
        test: proposal.test.clone(),
        constraints: proposal.constraints.clone(),
        closure,
        lease_ttl: proposal.lease_ttl,
        created: now.wall,
        not_after: proposal.not_after,
    };
    plan.check()?;
    Ok(plan)
}

fn check_sites(proposal: &Proposal, fleet: &Fleet) -> Result<(), String> {
    let named = proposal.waves.iter().filter_map(|w| match &w.select {
        Selector::Site(site) => Some(site),
        _ => None,
    });
    let in_topology = fleet.topology.iter().flat_map(|t| &t.value.sites);
    let known: BTreeSet<&SiteId> = in_topology.map(|s| &s.id).collect();
    for site in proposal.targets.sites.iter().chain(named) {
        if !known.contains(site) && !fleet.sites.contains_key(site) {
            return Err(format!(
                "there is no site {site}; `tidegate sites` lists them"
            ));
        }
    }
    Ok(())
}

/// Everyone whom the proposal concerns, lowest position first.
fn candidates<'a>(proposal: &Proposal, salt: &Hash, fleet: &'a Fleet) -> Vec<Candidate<'a>> {
    let sites: BTreeSet<&SiteId> = proposal.targets.sites.iter().collect();
    let excluded: BTreeSet<&NodeId> = proposal.targets.exclusions.iter().collect();
    let targeted = |node: &Node| {
        sites.is_empty()
            || node
                .site
                .as_deref()
                .is_some_and(|site| sites.contains(site))
    };
    let mut all: Vec<_> = fleet
        .all_admitted()
        .filter(|(id, node)| targeted(node) && !excluded.contains(id))
        .filter(|(_, node)| proposal.targets.meets(&node.subject()))
        .map(|(id, node)| Candidate {
            id: *id,
            at: position(salt, &proposal.release, id),
            node,
        })
        .collect();
    all.sort_by_key(|c| (c.at, c.id));
    all
}

fn select(selector: &Selector, all: &[Candidate], left: &[&Candidate]) -> Result<Members, String> {
    match selector {
        Selector::Count(0) => Err("asks for no nodes; ask for one or more".into()),
        Selector::Count(_) if left.is_empty() => Err("has nobody left to take".into()),
        Selector::Count(n) => named(spread(left, *n as usize)),
        Selector::Percent(p) if !(1..=100).contains(p) => {
            Err(format!("asks for {p} percent; 1 to 100 can be had"))
        }
        Selector::Percent(100) => Ok(Members::Rest),
        Selector::Percent(p) => {
            let last = (all.len() * *p as usize).div_ceil(100).max(1) - 1;
            let bound = all[last].at.saturating_add(1);
            Ok(Members::PositionBelow(bound))
        }
        Selector::Site(site) => match left.iter().any(|c| c.node.site.as_deref() == Some(site)) {
            true => Ok(Members::Site(site.clone())),
            false => Err(format!("has nobody: site {site} has no node that is left")),
        },
        Selector::Label { key, value } => {
            let chosen: Vec<NodeId> = left
                .iter()
                .filter(|c| c.node.labels.get(key) == Some(value))
                .map(|c| c.id)
                .collect();
            if chosen.is_empty() {
                return Err(format!(
                    "has nobody: no node that is left carries {key}={value}"
                ));
            }
            named(chosen)
        }
        Selector::Rest => Ok(Members::Rest),
    }
}

fn named(mut nodes: Vec<NodeId>) -> Result<Members, String> {
    if nodes.len() > PLAN_NODES_MAX {
        let count = nodes.len();
        return Err(format!(
            "names {count} nodes one by one, and {PLAN_NODES_MAX} is the limit; use a percentage"
        ));
    }
    nodes.sort_unstable();
    Ok(Members::Nodes(nodes))
}

/// `count` nodes in turn from each site, lowest position first; the site that begins is the one with
/// the lowest position, so it is not always the same.
fn spread(left: &[&Candidate], count: usize) -> Vec<NodeId> {
    let mut by_site: BTreeMap<Option<&SiteId>, VecDeque<&Candidate>> = BTreeMap::new();
    for candidate in left {
        by_site
            .entry(candidate.node.site.as_deref())
            .or_default()
            .push_back(candidate);
    }
    let mut queues: Vec<_> = by_site.into_values().collect();
    queues.sort_by_key(|q| q.front().map(|c| (c.at, c.id)));
    let mut chosen = Vec::with_capacity(count.min(left.len()));
    while chosen.len() < count && queues.iter().any(|q| !q.is_empty()) {
        for queue in &mut queues {
            if chosen.len() < count
                && let Some(candidate) = queue.pop_front()
            {
                chosen.push(candidate.id);
            }
        }
    }
    chosen
}

fn has(members: &Members, candidate: &Candidate) -> bool {
    match members {
        Members::Nodes(nodes) => nodes.binary_search(&candidate.id).is_ok(),
        Members::Site(site) => candidate.node.site.as_deref() == Some(site),
        Members::PositionBelow(bound) => candidate.at < *bound,
        Members::Rest => true,
    }
}
