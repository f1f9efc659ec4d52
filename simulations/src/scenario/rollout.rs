//! How a release is rolled out.

use anyhow::{Result, bail};
use protocol::plan::{Gate, Selector, WaveDraft};
use protocol::{Span, Time};
use serde::Deserialize;

/// A rollout.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// A lease's life in seconds.
    pub lease_ttl_s: u64,
    /// The waves; one without a selector is the rest.
    pub waves: Vec<WaveSpec>,
}

/// A wave.
#[derive(Clone, Debug, Deserialize)]
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

impl RolloutSpec {
    /// The waves as an operator proposes them.
    ///
    /// # Errors
    /// When a site's name is malformed.
    pub fn drafts(&self, not_before: Time) -> Result<Vec<WaveDraft>> {
        let draft = |wave: &WaveSpec| -> Result<WaveDraft> {
            let select = match (wave.count, wave.percent, &wave.site) {
                (Some(n), None, None) => Selector::Count(n),
                (None, Some(p), None) => Selector::Percent(p),
                (None, None, Some(site)) => Selector::Site(site.parse()?),
                (None, None, None) => Selector::Rest,
                _ => bail!("wave {} has more than one selector", wave.name),
            };
            let gate = Gate {
                min_success_ppm: wave.success_percent * 10_000,
                min_sample: wave.sample,
                soak: Span::from_secs(wave.soak_s),
                silence_after: Span::from_secs(wave.silence_s),
            };
            Ok(WaveDraft {
                name: wave.name.clone(),
                select,
                not_before,
                gate,
            })
        };
        self.waves.iter().map(draft).collect()
    }
}
