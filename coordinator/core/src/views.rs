//! What listings, `watch` and the web console are given, as plain data.

use std::collections::BTreeMap;

use protocol::feed::StageCounts;
use protocol::manifest::ReleaseManifest;
use protocol::status::{Bucket, State};
use protocol::{Hash, NodeId, RolloutId, Seq, SiteId, Span, Time};
use serde::{Deserialize, Serialize};

use crate::contract::{ByHand, RolloutState};
use crate::timeframes::Promise;

/// A rollout as listings and `watch` show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RolloutView {
    /// The rollout.
    pub rollout: RolloutId,
    /// `product@version`.
    pub release: String,
    /// Where it stands.
    pub state: RolloutState,
    /// Why, in a sentence.
    pub why: String,
    /// Digest of the plan.
    pub plan: Hash,
    /// Approvals that count, and how many must.
    pub approvals: (u32, u32),
    /// All targets.
    pub targets: u32,
    /// The four counts; they add up to `targets`.
    pub counts: Counts,
    /// What the open ones are at, as delegates last counted; adds up to `counts.open`.
    pub stages: StageCounts,
    /// The waves.
    pub waves: Vec<WaveView>,
    /// Targets on which people say to have installed the release by hand; in no count by that.
    #[serde(default)]
    pub by_hand: u32,
    /// By when it is to be through, once it began and if any time was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promise: Option<Promise>,
    /// What its next starts wait for, if that is a new day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// The four counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// The release is there and works.
    pub applied: u32,
    /// It is not, and was tried.
    pub failed: u32,
    /// Received, outcome open.
    pub open: u32,
    /// Not received.
    pub not_received: u32,
}

impl Counts {
    /// All four together.
    pub fn total(&self) -> u32 {
        self.applied + self.failed + self.open + self.not_received
    }
    /// Counts one more.
    pub fn add(&mut self, bucket: Bucket) {
        match bucket {
            Bucket::Applied => self.applied += 1,
            Bucket::Failed => self.failed += 1,
            Bucket::Open => self.open += 1,
            Bucket::NotReceived => self.not_received += 1,
            Bucket::Out => {}
        }
    }
}

/// A wave as listings show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WaveView {
    /// Counted from 0.
    pub number: u32,
    /// For people.
    pub name: String,
    /// `scheduled`, `running`, `soaking`, `passed`, `failed`.
    pub state: String,
    /// Targets in it.
    pub targets: u32,
    /// Their counts.
    pub counts: Counts,
    /// Opened at, wall time.
    pub opened_at: Option<Time>,
    /// Passed or failed at, wall time.
    pub ended_at: Option<Time>,
}

/// A release as listings show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReleaseView {
    /// `product@version`.
    pub name: String,
    /// Digest of the manifest.
    pub digest: Hash,
    /// The manifest.
    pub manifest: ReleaseManifest,
}

/// A site as listings show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiteView {
    /// Its name.
    pub site: SiteId,
    /// Whether the newest topology has it.
    pub known: bool,
    /// Enrolled nodes that are in it, revoked ones left out.
    pub nodes: u32,
    /// Those heard of lately.
    pub reachable: u32,
    /// Cap on what they take over the WAN now, bytes a second at the sockets; none: no cap.
    pub wan_down_bytes_per_s: Option<u64>,
}

/// A node as listings show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// For people.
    pub hostname: String,
    /// Its site.
    pub site: Option<SiteId>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What else it says of itself; see [`protocol::inventory::NAMES`].
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// Wall time of the last word of it.
    pub last_seen: Option<Time>,
    /// Whether its certificate was revoked.
    pub revoked: bool,
    /// Its newest status in each rollout.
    pub statuses: Vec<StatusView>,
    /// What people say to have installed on it by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by_hand: Vec<ByHand>,
}

/// A register as listings show it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusView {
    /// The rollout.
    pub rollout: RolloutId,
    /// The wave.
    pub wave: u32,
    /// The state.
    pub state: State,
    /// One line.
    pub reason: String,
    /// The register's number.
    pub seq: Seq,
    /// Payload bytes from peers in the site.
    pub lan_bytes: u64,
    /// Payload bytes over the site's WAN.
    pub wan_bytes: u64,
    /// Exit code of a failed step or check.
    pub exit_code: Option<i32>,
    /// End of its output.
    pub output_tail: String,
}

/// What the fleet answered about a release.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AssessmentView {
    /// Digest of the release.
    pub release: Hash,
    /// Since when nodes are asked, wall time.
    pub since: Time,
    /// Until when; what has ended is not shown.
    pub until: Time,
    /// Answers are spread over so long.
    pub within: Span,
    /// The answers.
    pub counts: NeedCounts,
    /// The same by site; none: nodes without one.
    pub sites: Vec<(Option<SiteId>, NeedCounts)>,
}

/// Answers of nodes; every enrolled node that was not revoked is in one count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NeedCounts {
    /// It is for them, and not installed.
    pub needs: u32,
    /// It is installed, or a newer one of its product is.
    pub already_installed: u32,
    /// It is not for them.
    pub not_applicable: u32,
    /// They did not say.
    pub no_answer: u32,
}
