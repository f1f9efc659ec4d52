//! How a release is rolled out.

use anyhow::{Result, bail};
use protocol::plan::{Gate, Selector, WaveDraft};
use protocol::{Span, Time};
use serde::Deserialize;

use super::{ConstraintSpec, TestSpec};

/// A rollout.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// A lease's life in seconds.
    pub lease_ttl_s: u64,
    /// The waves; one without a selector is the rest.
    pub waves: Vec<WaveSpec>,
    /// Judges the outcomes of all waves together; none: only gates do.
    #[serde(default)]
    pub test: Option<TestSpec>,
    /// When nodes may start, beside waves and leases.
    #[serde(default)]
    pub constraints: ConstraintSpec,
}

/// A wave.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaveSpec {
    /// For people.
    pub name: String,
    /// So many nodes.
    pub count: Option<u32>,
    /// So many of a hundred.
    pub percent: Option<u32>,
    /// All of a site.
    pub site: Option<String>,
    /// All that carry a label now, `name=value`: an attribute of the scenario, or `form`.
    pub label: Option<String>,
    /// Of the outcomes, at least so many of a hundred are good.
    pub success_percent: u32,
    /// Outcomes that must be in.
    pub sample: u32,
    /// The ratio must hold so long.
    pub soak_s: u64,
    /// Silence after a reported start counts as failure after so many seconds.
    #[serde(default = "ten_minutes")]
    pub silence_s: u64,
}

fn ten_minutes() -> u64 {
    600
}

impl WaveSpec {
    /// Who is in it.
    ///
    /// # Errors
    /// When it says more than one thing, a label without a value, or a malformed site.
    pub fn selector(&self) -> Result<Selector> {
        Ok(match (self.count, self.percent, &self.site, &self.label) {
            (Some(n), None, None, None) => Selector::Count(n),
            (None, Some(p), None, None) => Selector::Percent(p),
            (None, None, Some(site), None) => Selector::Site(site.parse()?),
            (None, None, None, Some(label)) => {
                let Some((key, value)) = label.split_once('=') else {
                    bail!(
                        "wave {}: label {label:?} is not written name=value",
                        self.name
                    );
                };
                let (key, value) = (key.to_owned(), value.to_owned());
                Selector::Label { key, value }
            }
            (None, None, None, None) => Selector::Rest,
            _ => bail!(
                "wave {} says more than one of count, percent, site and label",
                self.name
            ),
        })
    }

    /// The wave as an operator proposes it.
    ///
    /// # Errors
    /// See [`WaveSpec::selector`].
    pub fn draft(&self, not_before: Time) -> Result<WaveDraft> {
        Ok(WaveDraft {
            name: self.name.clone(),
            select: self.selector()?,
            not_before,
            gate: Gate {
                min_success_ppm: self.success_percent * 10_000,
                min_sample: self.sample,
                soak: Span::from_secs(self.soak_s),
                silence_after: Span::from_secs(self.silence_s),
            },
        })
    }
}
