//! A plan's waves in a form that answers for one node in logarithmic time. The plan itself looks
//! through its lists, which is right for a node that asks once for itself, and too slow for a
//! coordinator that asks for everyone.

use std::collections::{BTreeMap, BTreeSet};

use protocol::plan::{Members, RolloutPlan};
use protocol::positions::position;
use protocol::{Hash, NodeId, SiteId};

/// Who is in which wave, as the plan has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Roster {
    salt: Hash,
    release: Hash,
    /// Empty: all.
    sites: BTreeSet<SiteId>,
    excluded: BTreeSet<NodeId>,
    named: BTreeMap<NodeId, u32>,
    of_site: BTreeMap<SiteId, u32>,
    /// Waves by position, in order, each with its bound.
    below: Vec<(u64, u32)>,
    rest: Option<u32>,
}

impl Roster {
    /// The roster of a plan.
    pub fn of(plan: &RolloutPlan) -> Roster {
        let mut roster = Roster {
            salt: plan.salt,
            release: plan.release,
            sites: plan.targets.sites.iter().cloned().collect(),
            excluded: plan.targets.exclusions.iter().copied().collect(),
            named: BTreeMap::new(),
            of_site: BTreeMap::new(),
            below: Vec::new(),
            rest: None,
        };
        for (number, wave) in (0u32..).zip(&plan.waves) {
            match &wave.members {
                Members::Nodes(nodes) => {
                    for node in nodes {
                        roster.named.entry(*node).or_insert(number);
                    }
                }
                Members::Site(site) => {
                    roster.of_site.entry(site.clone()).or_insert(number);
                }
                Members::PositionBelow(bound) => roster.below.push((*bound, number)),
                Members::Rest => roster.rest = roster.rest.or(Some(number)),
            }
        }
        roster
    }

    /// Whether a node's wave may depend on the site that it is in.
    pub fn asks_for_sites(&self) -> bool {
        !self.of_site.is_empty()
    }

    /// A node's place in the rollout.
    pub fn position(&self, node: &NodeId) -> u64 {
        position(&self.salt, &self.release, node)
    }

    /// The same as [`RolloutPlan::wave_of`].
    pub fn wave_of(&self, node: &NodeId, site: Option<&SiteId>) -> Option<u32> {
        let targeted = self.sites.is_empty() || site.is_some_and(|s| self.sites.contains(s));
        if !targeted || self.excluded.contains(node) {
            return None;
        }
        let by_position = || {
            let at = self.position(node);
            let has = |(bound, _): &&(u64, u32)| at < *bound;
            self.below.iter().find(has).map(|(_, wave)| *wave)
        };
        let waves = [
            self.named.get(node).copied(),
            site.and_then(|s| self.of_site.get(s)).copied(),
            by_position(),
            self.rest,
        ];
        waves.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::fixtures::{Fleet, node, site};

    fn members() -> impl Strategy<Value = Members> {
        prop_oneof![
            proptest::collection::vec(0u64..12, 0..5)
                .prop_map(|n| Members::Nodes(n.into_iter().map(node).collect())),
            (0u8..4).prop_map(|n| Members::Site(site(&format!("s{n}")))),
            any::<u64>().prop_map(Members::PositionBelow),
            Just(Members::Rest),
        ]
    }

    proptest! {
        #[test]
        fn the_roster_says_what_the_plan_says(
            waves in proptest::collection::vec(members(), 1..6),
            sites in proptest::collection::vec(0u8..4, 0..3),
            excluded in proptest::collection::vec(0u64..12, 0..3),
        ) {
            let fleet = Fleet::new(1);
            let release = fleet.verified(&fleet.release("app", "1", 1));
            let mut plan = fleet.plan("r", &release, Vec::new());
            let wave = plan.waves[0].clone();
            plan.waves = waves
                .into_iter()
                .map(|members| protocol::plan::Wave { members, ..wave.clone() })
                .collect();
            plan.targets.sites = sites.iter().map(|n| site(&format!("s{n}"))).collect();
            plan.targets.exclusions = excluded.into_iter().map(node).collect();
            let roster = Roster::of(&plan);
            for n in 0..14 {
                let at = [None, Some(site("s0")), Some(site("s1")), Some(site("s3"))];
                for site in &at {
                    let expected = plan.wave_of(&node(n), site.as_ref());
                    prop_assert_eq!(roster.wave_of(&node(n), site.as_ref()), expected);
                }
            }
        }
    }
}
