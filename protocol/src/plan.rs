//! The rollout plan: which release, to whom, in which waves, behind which gates, by when.
//!
//! At proposal the coordinator resolves selectors to what everyone can check (node lists, sites,
//! position ranges) and draws the salt; the operators' threshold signs the result, so a node knows
//! its own wave from the signed plan alone, and the coordinator's key cannot move it.

use serde::{Deserialize, Serialize};

use crate::constraints::Constraints;
use crate::filter::Filter;
use crate::ids::{FleetId, Hash, NodeId, PublicKey, RolloutId, SiteId};
use crate::inventory::Subject;
use crate::limits::{COHORTS_MAX, PLAN_NODES_MAX, TEXT_MAX_BYTES, WAVES_MAX};
use crate::positions::position;
use crate::relations::Closure;
use crate::time::{Span, Time};
use crate::trust::{Statement, header};

/// A rollout plan, resolved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// The rollout.
    pub rollout: RolloutId,
    /// Rises when a rollout's plan is replaced.
    pub plan_version: u32,
    /// Digest of the release manifest.
    pub release: Hash,
    /// For people: the release's product.
    pub product: SiteId,
    /// For people: the release's version.
    pub version: SiteId,
    /// Who proposed it; this key's signature never counts.
    pub proposer: PublicKey,
    /// Our priority, which need not be the vendor's severity.
    pub priority: Priority,
    /// Drawn when the plan was resolved.
    pub salt: Hash,
    /// Who it concerns at all.
    pub targets: Targets,
    /// In order; a node belongs to the first wave that has it.
    pub waves: Vec<Wave>,
    /// Judges the outcomes of all waves together, beside each wave's own gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<SequentialTest>,
    /// When its nodes may start, beside waves and leases.
    #[serde(default, skip_serializing_if = "Constraints::is_empty")]
    pub constraints: Constraints,
    /// The releases on which it stands.
    #[serde(default, skip_serializing_if = "Closure::is_empty")]
    pub closure: Closure,
    /// A go-lease lives so long on the boot clock from its receipt.
    pub lease_ttl: Span,
    /// Resolved at.
    pub created: Time,
    /// No install of this plan starts after this.
    pub not_after: Time,
}

/// Our priority.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// With the next rollup or within a year.
    Low,
    /// Within a month to four.
    #[default]
    Medium,
    /// Within a week to a month.
    High,
    /// Within 24 hours.
    Emergency,
}

/// Who a rollout concerns.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Targets {
    /// Only these sites; empty means all nodes.
    pub sites: Vec<SiteId>,
    /// Never these nodes.
    pub exclusions: Vec<NodeId>,
    /// Only nodes that this is true of; none means all. Coordinator and node both evaluate it over what
    /// the node signed of itself last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
}

impl Targets {
    /// Whether a node that says this of itself is meant, as far as the filter goes.
    pub fn meets(&self, node: &Subject<'_>) -> bool {
        self.filter.as_ref().is_none_or(|f| f.matches(node))
    }
}

/// One step of a rollout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wave {
    /// For people.
    pub name: String,
    /// Who is in it.
    pub members: Members,
    /// No install of this wave starts before; nodes enforce it.
    pub not_before: Time,
    /// What must hold before the next wave opens.
    pub gate: Gate,
}

/// Who is in a wave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Members {
    /// These.
    Nodes(Vec<NodeId>),
    /// All of a site.
    Site(SiteId),
    /// All whose position is below this number.
    PositionBelow(u64),
    /// Whoever is left, later joiners too.
    Rest,
}

/// The test between a wave and the next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Gate {
    /// Of the outcomes, at least so many in a million are successes.
    pub min_success_ppm: u32,
    /// Outcomes that must be in before the ratio is judged; all of the wave if it is smaller.
    pub min_sample: u32,
    /// The ratio must hold for so long after the sample is in.
    pub soak: Span,
    /// A node that reported a start and then nothing for so long counts as failed.
    pub silence_after: Span,
}

/// A sequential test of a rollout's outcomes: is the share of failures rather `expected_ppm` or
/// `unacceptable_ppm`? It goes on across the waves; after each verdict for the release it begins anew.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SequentialTest {
    /// Failures in a million outcomes that any release has.
    pub expected_ppm: u32,
    /// Failures in a million outcomes at which the release must be stopped.
    pub unacceptable_ppm: u32,
    /// How often in a million a verdict stops a release that fails as expected. Declared cohorts share
    /// one half of it, the test of all the other.
    pub false_halt_ppm: u32,
    /// How often in a million a verdict lets go on what must be stopped.
    pub missed_ppm: u32,
    /// Until the first verdict at most so many nodes may be at it at a time; each verdict doubles it.
    pub in_flight_max: u32,
    /// Cohorts that are judged for themselves, before the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cohorts: Vec<Cohort>,
}

/// Nodes that have something in common: a driver, a model, a build of the operating system.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Cohort {
    /// The label's name, or an attribute's as filters name it.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl core::fmt::Display for Cohort {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}={}", self.key, self.value)
    }
}

impl SequentialTest {
    /// The cohorts of a node that says this of itself, one bit each.
    pub fn cohorts_of(&self, node: &Subject<'_>) -> u16 {
        let has = |c: &Cohort| {
            node.labels.get(&c.key) == Some(&c.value)
                || node.value(&c.key) == Some(c.value.as_str())
        };
        let bits = self.cohorts.iter().take(COHORTS_MAX).enumerate();
        bits.fold(0, |bits, (n, c)| bits | u16::from(has(c)) << n)
    }

    fn check(&self) -> Result<(), String> {
        let rises = 0 < self.expected_ppm && self.expected_ppm < self.unacceptable_ppm;
        if !rises || self.unacceptable_ppm >= 1_000_000 {
            return Err("a test needs 0 < expected < unacceptable < all".into());
        }
        let errs = |ppm: u32| (1..=500_000).contains(&ppm);
        if !errs(self.false_halt_ppm) || !errs(self.missed_ppm) || self.in_flight_max == 0 {
            return Err("a test's error rates or its nodes in flight are out of range".into());
        }
        if self.cohorts.len() > COHORTS_MAX {
            return Err(format!("a test has at most {COHORTS_MAX} cohorts"));
        }
        let long = |c: &Cohort| c.key.len().max(c.value.len()) > TEXT_MAX_BYTES;
        match self.cohorts.iter().any(long) {
            true => Err("a cohort's label is too long".into()),
            false => Ok(()),
        }
    }
}

impl RolloutPlan {
    /// Whether a wave is a handful of nodes that the plan names one by one: everything that they
    /// report is worth its way.
    pub fn is_handful(&self, wave: u32) -> bool {
        let members = self.waves.get(wave as usize).map(|w| &w.members);
        matches!(members, Some(Members::Nodes(_)))
    }

    /// The nodes that its waves name one by one.
    pub fn named(&self) -> impl Iterator<Item = &NodeId> {
        self.waves.iter().flat_map(|wave| match &wave.members {
            Members::Nodes(nodes) => &nodes[..],
            _ => &[],
        })
    }

    /// The number of the wave that has `node`, counted from 0; `None` if the plan does not concern it.
    /// [`Targets::meets`] is asked apart from this.
    pub fn wave_of(&self, node: &NodeId, site: Option<&SiteId>) -> Option<u32> {
        let targeted =
            self.targets.sites.is_empty() || site.is_some_and(|s| self.targets.sites.contains(s));
        if !targeted || self.targets.exclusions.contains(node) {
            return None;
        }
        let at = position(&self.salt, &self.release, node);
        let has = |members: &Members| match members {
            Members::Nodes(nodes) => nodes.contains(node),
            Members::Site(s) => site == Some(s),
            Members::PositionBelow(bound) => at < *bound,
            Members::Rest => true,
        };
        self.waves
            .iter()
            .position(|wave| has(&wave.members))
            .map(|i| i as u32)
    }
}

impl Statement for RolloutPlan {
    header!("application/vnd.tidegate.plan+json", Plans);
    fn excluded(&self) -> Vec<PublicKey> {
        vec![self.proposer]
    }
    fn check(&self) -> Result<(), String> {
        if self.waves.is_empty() || self.waves.len() > WAVES_MAX {
            return Err(format!("a plan has 1 to {WAVES_MAX} waves"));
        }
        if self.named().count() + self.targets.exclusions.len() > PLAN_NODES_MAX {
            return Err(format!(
                "a plan names at most {PLAN_NODES_MAX} nodes one by one"
            ));
        }
        self.test.iter().try_for_each(SequentialTest::check)?;
        self.constraints.check()?;
        self.closure.check()?;
        if self.test.is_none() && !self.constraints.spread.is_zero() {
            return Err("starts are spread by a plan's sequential test, and it has none".into());
        }
        if self.test.is_none() && self.constraints.starts_per_day.is_some() {
            return Err(
                "starts a day are capped by a plan's sequential test, and it has none".into(),
            );
        }
        if self.lease_ttl == Span::ZERO {
            return Err("a lease must live for some time".into());
        }
        if self
            .waves
            .iter()
            .any(|w| w.gate.min_success_ppm > 1_000_000 || w.name.len() > TEXT_MAX_BYTES)
        {
            return Err("a wave's gate or name is out of range".into());
        }
        if self
            .waves
            .windows(2)
            .any(|w| w[1].not_before < w[0].not_before)
        {
            return Err("a later wave may not start before an earlier one".into());
        }
        Ok(())
    }
}

/// What an operator proposes; the coordinator resolves it to a [`RolloutPlan`]. Signed by the
/// proposer, whose key must be one of the `plans` role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// The rollout's id; the proposer picks it.
    pub rollout: RolloutId,
    /// Digest of the release manifest.
    pub release: Hash,
    /// Who proposes.
    pub proposer: PublicKey,
    /// Our priority.
    pub priority: Priority,
    /// Who it concerns at all.
    pub targets: Targets,
    /// In order. A rest wave is added if none is there.
    pub waves: Vec<WaveDraft>,
    /// See [`RolloutPlan::test`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<SequentialTest>,
    /// See [`RolloutPlan::constraints`].
    #[serde(default, skip_serializing_if = "Constraints::is_empty")]
    pub constraints: Constraints,
    /// See [`RolloutPlan::lease_ttl`].
    pub lease_ttl: Span,
    /// See [`RolloutPlan::not_after`].
    pub not_after: Time,
}

/// A wave as a person asks for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaveDraft {
    /// For people.
    pub name: String,
    /// Who should be in it.
    pub select: Selector,
    /// No install of this wave starts before.
    pub not_before: Time,
    /// What must hold before the next wave opens.
    pub gate: Gate,
}

/// Who should be in a wave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// So many nodes, spread over the sites, lowest position first.
    Count(u32),
    /// So many of a hundred, counted from the start of the rollout (25 after 5 adds 20).
    Percent(u32),
    /// All of a site.
    Site(SiteId),
    /// All that carry a label now.
    Label {
        /// The label's name.
        key: String,
        /// Its value.
        value: String,
    },
    /// Whoever is left.
    Rest,
}

impl Statement for Proposal {
    header!("application/vnd.tidegate.proposal+json", Plans);
    fn check(&self) -> Result<(), String> {
        if self.waves.is_empty() || self.waves.len() > WAVES_MAX {
            return Err(format!("a proposal has 1 to {WAVES_MAX} waves"));
        }
        self.test.iter().try_for_each(SequentialTest::check)?;
        self.constraints.check()
    }
}

/// A recall: the release is taken back where it was installed. Signed by the `plans` threshold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recall {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// The rollout that is taken back.
    pub rollout: RolloutId,
    /// Digest of its plan.
    pub plan: Hash,
    /// Who asked for it; this key must sign and its signature never counts.
    pub proposer: PublicKey,
    /// Why, for people.
    pub reason: String,
    /// Made at.
    pub created: Time,
}

impl Statement for Recall {
    header!("application/vnd.tidegate.recall+json", Plans);
    fn excluded(&self) -> Vec<PublicKey> {
        vec![self.proposer]
    }
    fn signs_too(&self) -> Option<PublicKey> {
        Some(self.proposer)
    }
}
