//! What machines are like, when they are on, and which of them lie, as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Length;

/// Values of an attribute with their shares, which need not add up to a hundred.
pub type Shares = BTreeMap<String, u32>;

/// What all machines have in common.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MachineSpec {
    /// A process that died comes back after this.
    pub boot_s: Length,
    /// A machine that restarts is away for so long, unless a release says otherwise.
    pub restart_s: Length,
    /// So many of a hundred have no room for a release.
    pub full_disk_percent: u32,
    /// So many of a hundred have a wrong clock on the wall.
    pub skewed_percent: u32,
    /// Wrong by so much, ahead or behind; clocks since boot are right.
    pub skew_s: Length,
}

impl Default for MachineSpec {
    fn default() -> MachineSpec {
        MachineSpec {
            boot_s: Length::Fixed(5.0),
            restart_s: Length::Usual {
                median_s: 45.0,
                p99_s: 180.0,
            },
            full_disk_percent: 0,
            skewed_percent: 0,
            skew_s: Length::Between {
                from_s: 60.0,
                to_s: 7200.0,
            },
        }
    }
}

/// Machines that people carry home. They have the label `form = laptop`, the others `form = desktop`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaptopSpec {
    /// So many of a hundred nodes are such.
    pub percent: u32,
    /// They come at about this hour of their site's day.
    pub on_h: u32,
    /// They go at about this one; past midnight if it is smaller.
    pub off_h: u32,
    /// Each day's coming and going lies within so many minutes on either side.
    #[serde(default = "thirty")]
    pub spread_min: u32,
    /// Of a hundred goings, so many are without a word: the lid is closed.
    #[serde(default = "fifty")]
    pub abrupt_percent: u32,
}

/// Nodes that leave and come back at any time.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChurnSpec {
    /// Of a hundred nodes, so many leave in an hour.
    pub percent_per_hour: u32,
    /// They are away for so long.
    pub away_s: Length,
    /// None leaves after this second.
    pub until_s: u64,
}

/// Nodes that do not do what they say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiarSpec {
    /// What they do.
    pub how: Lie,
    /// So many of a hundred nodes.
    pub percent: u32,
    /// Only in these sites; none: in all.
    #[serde(default)]
    pub sites: Vec<String>,
}

/// How a node lies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// What it serves fails verification.
    WrongBytes,
    /// It accepts a fetch and sends nothing.
    Stall,
    /// It says that it holds everything.
    FalseHaves,
    /// It reports success and installs nothing.
    FalseSuccess,
    /// It reports failure, whatever it installed.
    FalseFailure,
}

fn thirty() -> u32 {
    30
}
fn fifty() -> u32 {
    50
}
