//! What-if: what a rollout would come to, before it is begun. Who is in which wave, when each site has
//! the bytes, when each wave opens and passes, who misses the deadline, and what would help.
//!
//! The plan is resolved by the same code as a proposal, and its waves are played by the very engine
//! that will run them (`course`); only the world around it is thought up. What is simplified:
//! - A site takes the bytes once (one without peers: for each node), for each platform that it has, at a steady
//!   rate: a fluid that shares
//!   each WAN link and the origin's uplink by max-min fairness (`wan`). There is no relay between sites.
//! - What other rollouts still have to bring to a site comes first, unless ours is of a higher priority.
//! - Inside a site a node has the bytes as soon as the site has them, plus one hop over its LAN.
//! - Every node that is heard of lately answers, installs in the same time and succeeds; others stay
//!   silent. So gates open as early as they can, never later.
//! - A WAN link has the rates of its schedule, hour by hour; a site without a rate, and nodes without
//!   a site, are held back by [`Assumptions::open_link_bytes_per_s`] alone.
//! - A node asks the plan's own constraints when it may start, by its zone; its user puts nothing off and its
//!   disk, power and link are as the plan asks.
//! - Restart slots are those of this plan alone. Of the starts a day that the fleet may see, others keep on the
//!   first day what they have claimed, and are through with it then.

mod advice;
mod course;
mod starts;
mod wan;

use std::collections::BTreeMap;

use protocol::manifest::{ReleaseManifest, release_name};
use protocol::plan::{Priority, Proposal, RolloutPlan};
use protocol::{Hash, Now, RolloutId, SiteId, Span, Time};
use serde::{Deserialize, Serialize};

use crate::conductor::Conductor;
use crate::contract::CommandError;
use crate::fleet::Fleet;
use crate::rollout::Rollout;

/// What is asked of a forecast, beside the plan.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Question {
    /// Wall time at which the rollout would start; none: now.
    pub start: Option<Time>,
    /// Wall time by which every target should have it; none: the plan's `not_after`.
    pub deadline: Option<Time>,
    /// What cannot be known.
    pub assumptions: Assumptions,
}

/// What a forecast takes for granted. The defaults are for links and machines as they are common.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Assumptions {
    /// What the origin sends in all, bytes a second; none: more than anybody takes.
    pub origin_bytes_per_s: Option<u64>,
    /// What a site without a rate in the topology takes, bytes a second.
    pub open_link_bytes_per_s: u64,
    /// What a node takes inside its site, bytes a second.
    pub lan_bytes_per_s: u64,
    /// Of a million bytes on a WAN link, those that carry payload; headers are the rest.
    pub payload_ppm: u32,
    /// From the start until the first byte comes: orders, plan, manifest, choice of fetchers.
    pub begins_after: Span,
    /// From the lease or the last byte, whichever is later, until the switch is done; the health
    /// check's soak comes on top.
    pub install: Span,
    /// From a change on a node until the coordinator knows of it, and from an order until nodes have it.
    pub word: Span,
}

impl Default for Assumptions {
    fn default() -> Assumptions {
        Assumptions {
            origin_bytes_per_s: None,
            open_link_bytes_per_s: 125_000_000,
            lan_bytes_per_s: 60_000_000,
            payload_ppm: 950_000,
            begins_after: Span::from_secs(3),
            install: Span::from_secs(60),
            word: Span::from_secs(2),
        }
    }
}

/// What a rollout would come to. All times are wall time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Forecast {
    /// The rollout.
    pub rollout: RolloutId,
    /// `product@version`.
    pub release: String,
    /// Targets.
    pub targets: u32,
    /// Of them, those that were not heard of lately; nothing is expected of them.
    pub unreachable: u32,
    /// It starts then.
    pub starts: Time,
    /// The last target that answers has it then; none: some never get it.
    pub completes: Option<Time>,
    /// The last wave passes then; none: not within the plan's time.
    pub finishes: Option<Time>,
    /// Every target should have it by then.
    pub deadline: Time,
    /// Targets that answer and would have it only after the deadline, or never.
    pub late: u32,
    /// The waves, in order.
    pub waves: Vec<WaveForecast>,
    /// The sites with targets, by name; nodes without a site come last.
    pub sites: Vec<SiteForecast>,
    /// What would help, the most nodes first.
    pub advice: Vec<Advice>,
    /// What was taken for granted.
    pub assumptions: Assumptions,
}

/// A wave.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WaveForecast {
    /// For people.
    pub name: String,
    /// Targets in it.
    pub targets: u32,
    /// Sites that have some of them.
    pub sites: u32,
    /// Targets by platform, `os/arch`.
    pub cohorts: BTreeMap<String, u32>,
    /// No earlier than this, by the plan.
    pub not_before: Time,
    /// Opens.
    pub opens: Option<Time>,
    /// The first of its targets starts: it has leave and bytes, and windows, freezes and slots let it.
    #[serde(default)]
    pub starts: Option<Time>,
    /// The last of its targets that answer has it.
    pub completes: Option<Time>,
    /// Its gate passes.
    pub passes: Option<Time>,
}

/// A site.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SiteForecast {
    /// Its name; none: nodes that are in no site.
    pub site: Option<SiteId>,
    /// Targets of each wave.
    pub waves: Vec<u32>,
    /// Targets that were not heard of lately.
    pub unreachable: u32,
    /// One copy of what it needs of this release: a carrier and an index for each of its platforms.
    pub carrier_bytes: u64,
    /// Copies that are expected to cross its WAN, in millionths: one, or without peers one for each node.
    pub wan_copies_ppm: u64,
    /// Bytes of this release that cross its WAN for itself.
    pub bytes: u64,
    /// The same with those for the sites whose traffic crosses its WAN too.
    pub link_bytes: u64,
    /// Bytes of other rollouts that come before.
    pub promised_bytes: u64,
    /// What its WAN takes, bytes a second at the sockets; none: no rate is known.
    pub wan_down_bytes_per_s: Option<u64>,
    /// It has the bytes; none: not within the plan's time.
    pub has_bytes: Option<Time>,
    /// Its last target that answers has it.
    pub completes: Option<Time>,
    /// Targets that answer and are late.
    pub late: u32,
}

impl SiteForecast {
    /// All targets.
    pub fn targets(&self) -> u32 {
        self.waves.iter().sum()
    }
}

/// What would help.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Advice {
    /// What stands in the way.
    pub cause: Cause,
    /// Targets whom it concerns.
    pub nodes: u32,
    /// Sites whom it concerns, those with most targets first, as many as one reads.
    pub sites: Vec<SiteId>,
    /// The rate of a WAN link with which the worst of them would be in time, bytes a second at the
    /// sockets; none: no rate helps.
    pub needs_bytes_per_s: Option<u64>,
    /// One line.
    pub help: String,
}

/// Why targets are late.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A site's own link.
    Wan,
    /// The origin's uplink.
    Origin,
    /// Their wave opens too late for the time that an install takes.
    Waves,
    /// A wave's gate never passes with those who answer.
    Gate,
    /// They were not heard of lately.
    Unreachable,
    /// A site's link is promised to other rollouts first.
    Promised,
    /// Maintenance windows, blackouts or quiet hours.
    Windows,
    /// A change freeze.
    Freeze,
    /// Too few nodes of a site may be unavailable at a time.
    Slots,
    /// What users are granted.
    User,
    /// The starts that a day may see.
    StartsPerDay,
}

impl Conductor {
    /// What a proposal would come to. Nothing is recorded, nothing changes; the salt decides who is
    /// drawn into which wave, so another one gives other nodes and nearly the same answer.
    ///
    /// # Errors
    /// As a proposal is refused.
    pub fn simulate(
        &self,
        proposal: &Proposal,
        salt: Hash,
        question: &Question,
    ) -> Result<Forecast, CommandError> {
        let (plan, release) = self.resolved(proposal, salt)?;
        Ok(self.forecast_of(&plan, release, question))
    }

    /// What a rollout would come to if it began now, by its plan.
    ///
    /// # Errors
    /// When there is no such rollout.
    pub fn forecast(
        &self,
        rollout: &RolloutId,
        question: &Question,
    ) -> Result<Forecast, CommandError> {
        let plan = self
            .plan(rollout)
            .ok_or_else(|| CommandError::NoRollout(rollout.clone()))?;
        let release = self
            .releases
            .get(&plan.release)
            .ok_or(CommandError::NoRelease(plan.release))?;
        Ok(self.forecast_of(plan, &release.value, question))
    }

    fn forecast_of(
        &self,
        plan: &RolloutPlan,
        release: &ReleaseManifest,
        question: &Question,
    ) -> Forecast {
        let fetching = |r: &&Rollout| r.is_alive() && r.plan.rollout != plan.rollout;
        let held = |r: &'_ Rollout| self.releases.get(&r.plan.release);
        let others: Vec<(&Rollout, &ReleaseManifest)> = self
            .rollouts
            .values()
            .filter(fetching)
            .filter_map(|r| Some((r, &held(r)?.value)))
            .collect();
        let cap = self.config.starts_per_day;
        of_plan(plan, release, &self.fleet, &others, cap, question, self.now)
    }
}

/// Answers for a plan as it stands, against the fleet of the moment.
fn of_plan(
    plan: &RolloutPlan,
    release: &ReleaseManifest,
    fleet: &Fleet,
    others: &[(&Rollout, &ReleaseManifest)],
    starts_per_day: Option<u32>,
    question: &Question,
    now: Now,
) -> Forecast {
    let start = question.start.unwrap_or(now.wall).max(now.wall);
    let groups = course::Groups::of(plan, fleet);
    let mut sites = groups.sites(plan, release, fleet);
    for (other, manifest) in others {
        if comes_first(other.plan.priority, plan.priority) {
            promise(&mut sites, other, manifest, fleet);
        }
    }
    let supply = wan::supply(&sites, fleet, start, plan.not_after, &question.assumptions);
    for (site, at) in sites.iter_mut().zip(&supply.has_bytes) {
        site.has_bytes = at.filter(|at| *at < plan.not_after);
    }
    let soak = release.health_check.as_ref().map_or(Span::ZERO, |c| c.soak);
    let install = Span(question.assumptions.install.0 + soak.0);
    let claimed = others.iter().map(|(other, _)| other.claimed()).sum();
    let urgent = plan.priority == Priority::Emergency;
    let cap = starts_per_day.filter(|_| !urgent).map(|cap| (cap, claimed));
    let course = course::play(
        &groups,
        plan,
        fleet,
        &sites,
        course::Pace {
            start,
            install,
            cap,
        },
        &question.assumptions,
    );
    let deadline = question.deadline.unwrap_or(plan.not_after);
    let mut waves = groups.waves(plan, fleet);
    for (wave, stand) in waves.iter_mut().zip(&course.waves) {
        (wave.opens, wave.starts) = (stand.opens, stand.starts);
        (wave.completes, wave.passes) = (stand.completes, stand.passes);
    }
    for end in &course.ends {
        let site = &mut sites[end.site];
        let late = end.at.is_none_or(|at| at > deadline);
        site.late += if late { end.nodes } else { 0 };
        site.completes = site.completes.max(end.at);
    }
    let never = course.ends.iter().any(|end| end.at.is_none());
    let last = course.ends.iter().filter_map(|end| end.at).max();
    let mut forecast = Forecast {
        rollout: plan.rollout.clone(),
        release: release_name(&plan.product, &plan.version),
        targets: sites.iter().map(SiteForecast::targets).sum(),
        unreachable: sites.iter().map(|s| s.unreachable).sum(),
        starts: start,
        completes: last.filter(|_| !never),
        finishes: course.finishes,
        deadline,
        late: sites.iter().map(|s| s.late).sum(),
        waves,
        sites,
        advice: Vec::new(),
        assumptions: question.assumptions.clone(),
    };
    forecast.advice = advice::advise(&forecast, &course, &supply, install);
    forecast
}

fn comes_first(other: Priority, ours: Priority) -> bool {
    other >= ours
}

/// Adds what another rollout still has to bring to each site: all of it while nobody there has it
/// staged, nothing once somebody has.
fn promise(sites: &mut [SiteForecast], other: &Rollout, release: &ReleaseManifest, fleet: &Fleet) {
    use protocol::status::State as S;
    let lacks = |state: S| matches!(state, S::NotReceived | S::Received | S::Downloading);
    // by site: platforms that are wanted, and whether somebody has them
    let mut wanted: BTreeMap<Option<&SiteId>, BTreeMap<&Hash, (u64, bool)>> = BTreeMap::new();
    for (id, target) in &other.targets {
        let Some(node) = fleet.admitted(id) else {
            continue;
        };
        let Some((blob, bytes)) = course::carried(release, node) else {
            continue;
        };
        let site = node.site.as_deref();
        let blobs = wanted.entry(site).or_default();
        if course::has_peers(fleet, site) {
            let had = &mut blobs.entry(blob).or_insert((bytes, false)).1;
            *had |= !lacks(target.state);
        } else if lacks(target.state) {
            blobs.entry(blob).or_insert((0, false)).0 += bytes;
        }
    }
    for site in sites {
        let blobs = wanted.get(&site.site.as_ref());
        let open = blobs.into_iter().flat_map(|b| b.values()).filter(|b| !b.1);
        site.promised_bytes += open.map(|b| b.0).sum::<u64>();
    }
}
