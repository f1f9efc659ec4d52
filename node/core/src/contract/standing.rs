//! What the brain says of itself, for people.

use super::FetchReason;
use crate::pulls::Trips;
use protocol::Now;
use protocol::RolloutId;
use protocol::Seq;
use protocol::SiteId;
use protocol::status::State;
use serde::Serialize;
use std::collections::BTreeMap;

/// One line of where a node stands, for `status` and `why`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Standing {
    /// The rollout.
    pub rollout: RolloutId,
    /// The release, as people write it.
    pub release: String,
    /// The node's wave, counted from 0.
    pub wave: Option<u32>,
    /// Its state.
    pub state: State,
    /// One line: what it waits for and until when.
    pub why: String,
    /// Payload bytes still to come before it is staged, if known.
    pub missing_bytes: Option<u64>,
    /// Payload bytes by reason.
    pub bytes: BTreeMap<FetchReason, u64>,
}

/// The brain in a nutshell, for `status --json` and live displays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Snapshot {
    /// At which moment.
    #[serde(skip)]
    pub now: Now,
    /// The site the node counts itself to.
    pub site: Option<SiteId>,
    /// Members in view, this node included.
    pub members: usize,
    /// Whether others of its site are there and none of them can be reached: the network keeps its clients
    /// apart, and each brings its own copy over the WAN.
    pub isolated: bool,
    /// Whether it is one of its site's delegates.
    pub delegate: bool,
    /// The highest order it has.
    pub orders_head: Seq,
    /// What it asked others for since it started.
    pub trips: Trips,
    /// Rollouts that concern it.
    pub standings: Vec<Standing>,
}
