//! What operators do beside rolling out: at a moment, or when something is so.

use serde::Deserialize;

/// Something that an operator does once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorSpec {
    /// What.
    #[serde(rename = "do")]
    pub act: Act,
    /// With the rollout of this release, `version` or `product@version`.
    pub release: String,
    /// At this second; or when what follows is so, whichever is named.
    #[serde(default)]
    pub at_s: Option<u64>,
    /// When so many nodes have the release.
    #[serde(default)]
    pub when_applied: Option<u32>,
    /// When so many nodes failed.
    #[serde(default)]
    pub when_failed: Option<u32>,
    /// When this wave opened.
    #[serde(default)]
    pub when_wave: Option<String>,
    /// So many seconds later.
    #[serde(default)]
    pub after_s: u64,
}

/// What an operator does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// No new starts until resume.
    Pause,
    /// Go on.
    Resume,
    /// Stop for good; what is installed stays.
    Halt,
    /// Take back what was installed.
    Recall,
}

impl OperatorSpec {
    /// Whether it speaks of this release.
    pub fn means(&self, product: &str, version: &str) -> bool {
        self.release == version || self.release == format!("{product}@{version}")
    }
}
