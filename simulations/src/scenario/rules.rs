//! The rules of a plan beside its waves: the sequential test with its cohorts, and when nodes may start.

use anyhow::{Context, Result, bail};
use coordinator_core::presets::Preset;
use protocol::constraints::{Constraints, Freeze, PastDeadline};
use protocol::hours::Hours;
use protocol::plan::{Cohort, SequentialTest};
use protocol::zones::Zone;
use protocol::{Span, Time};
use serde::Deserialize;

/// The sequential test of a plan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// Whose test it is: `careful`, `normal`, `fast` or `emergency`.
    pub preset: String,
    /// Cohorts that are judged for themselves, `name=value`: attributes of the scenario.
    #[serde(default)]
    pub cohorts: Vec<String>,
    /// Other than the preset's: so many may be at it at a time until the first verdict.
    #[serde(default)]
    pub in_flight_max: Option<u32>,
}

/// When nodes may start, as an operator writes it; see [`Constraints`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConstraintSpec {
    /// Whose clock hours mean: an IANA zone; without it each site's.
    pub zone: Zone,
    /// Starts only in these hours.
    pub windows: Vec<Hours>,
    /// No starts in these.
    pub blackouts: Vec<Hours>,
    /// No starts in these either, and no notices; past the deadline they hold nobody.
    pub quiet: Vec<Hours>,
    /// No starts while one of these holds.
    pub freezes: Vec<Freeze>,
    /// So many seconds after the proposal every node should have started.
    pub deadline_s: Option<u64>,
    /// What windows are worth after the deadline.
    pub past_deadline: PastDeadline,
    /// The starts of a wave are spread evenly over so many seconds.
    pub spread_s: u64,
}

impl TestSpec {
    /// The test as the plan has it.
    ///
    /// # Errors
    /// When the preset or a cohort is not written as one.
    pub fn test(&self) -> Result<SequentialTest> {
        let mut test = self.preset.parse::<Preset>()?.test();
        test.in_flight_max = self.in_flight_max.unwrap_or(test.in_flight_max);
        test.cohorts = self.pairs().map(cohort).collect::<Result<_>>()?;
        Ok(test)
    }

    /// The cohorts' names and values; none where there is no `=`.
    pub(super) fn pairs(&self) -> impl Iterator<Item = Option<(&str, &str)>> {
        self.cohorts.iter().map(|text| text.split_once('='))
    }
}

fn cohort(pair: Option<(&str, &str)>) -> Result<Cohort> {
    let Some((key, value)) = pair else {
        bail!("rollout.test: a cohort is written name=value");
    };
    let (key, value) = (key.to_owned(), value.to_owned());
    Ok(Cohort { key, value })
}

impl ConstraintSpec {
    /// The constraints of a plan that is proposed at this wall time.
    pub fn constraints(&self, proposed: Time) -> Constraints {
        let deadline = self.deadline_s.map(|s| proposed + Span::from_secs(s));
        Constraints {
            zone: self.zone.clone(),
            windows: self.windows.clone(),
            blackouts: self.blackouts.clone(),
            quiet: self.quiet.clone(),
            freezes: self.freezes.clone(),
            deadline,
            past_deadline: self.past_deadline,
            spread: Span::from_secs(self.spread_s),
            ..Constraints::default()
        }
    }

    /// Whether nodes may have to wait for an hour of the day.
    pub fn waits(&self) -> bool {
        !(self.windows.is_empty()
            && self.blackouts.is_empty()
            && self.quiet.is_empty()
            && self.freezes.is_empty())
    }

    /// What a plan with these would be refused for.
    pub(super) fn check(&self) -> Result<()> {
        let checked = self.constraints(Time(0)).check();
        checked
            .map_err(anyhow::Error::msg)
            .context("rollout.constraints")
    }
}
