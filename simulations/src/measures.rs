//! What is counted while the world runs, raw: when each node had a release, what crossed each WAN,
//! what the coordinator heard and said. Judged elsewhere.

use std::collections::BTreeMap;

use node_core::contract::{Event, FetchReason};
use protocol::Time;

/// What one part of the world counted.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// For each release, when the first node of the part heard of its rollout.
    pub told: Vec<Option<Time>>,
    /// For each release and machine, when every byte of it was there.
    pub staged: Vec<Vec<Option<Time>>>,
    /// For each release and machine, when the machine heard of a halt of its rollout.
    pub halted: Vec<Vec<Option<Time>>>,
    /// Payload bytes that crossed the site's WAN inward, by release.
    pub wan: Vec<u64>,
    /// Of these, what came from the origin.
    pub from_origin: Vec<u64>,
    /// All that crossed it, by why they came that way.
    pub reasons: BTreeMap<FetchReason, u64>,
    /// For each release, machines that switched to it although it does them harm.
    pub harmed: Vec<u32>,
    /// What the brains were told, by kind; `timer` is the time that they asked for.
    pub heard: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(machines: usize, releases: usize) -> Tally {
        Tally {
            told: vec![None; releases],
            staged: vec![vec![None; machines]; releases],
            halted: vec![vec![None; machines]; releases],
            wan: vec![0; releases],
            reasons: BTreeMap::new(),
            harmed: vec![0; releases],
            heard: BTreeMap::new(),
            from_origin: vec![0; releases],
        }
    }

    pub(crate) fn wan(&mut self, release: usize, origin: bool, reason: FetchReason, bytes: u64) {
        self.wan[release] += bytes;
        self.from_origin[release] += if origin { bytes } else { 0 };
        *self.reasons.entry(reason).or_default() += bytes;
    }

    pub(crate) fn heard(&mut self, kind: &'static str) {
        *self.heard.entry(kind).or_default() += 1;
    }

    pub(crate) fn told(&mut self, release: usize, at: Time) {
        self.told[release].get_or_insert(at);
    }

    pub(crate) fn staged(&mut self, release: usize, slot: usize, at: Time) {
        self.staged[release][slot].get_or_insert(at);
    }

    pub(crate) fn halted(&mut self, release: usize, slot: usize, at: Time) {
        self.halted[release][slot].get_or_insert(at);
    }
}

/// What the hub noted of one rollout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Milestones {
    /// When it was started.
    pub started: Time,
    /// When the coordinator gave the first halt.
    pub halted: Option<Time>,
}

/// What kind of thing a brain is told.
pub(crate) fn kind(event: &Event) -> &'static str {
    match event {
        Event::Presence(_) => "who is here",
        Event::Connected(_) | Event::Disconnected(_) => "connections",
        Event::Claim(_) => "claims",
        Event::Notice(..) => "notices",
        Event::Status(_) | Event::Receipt(_) => "statuses and receipts",
        Event::Order(..) => "orders",
        Event::Answered { .. } | Event::Asked { .. } => "questions and answers",
        Event::FetchProgress { .. } => "progress of fetches",
        Event::FetchEnded { .. } => "ends of fetches",
        Event::BlobOpened { .. }
        | Event::IndexRead { .. }
        | Event::Reused { .. }
        | Event::FramesRead { .. }
        | Event::FrameDecoded { .. } => "reading and decoding",
        Event::StepEnded { .. } => "steps",
        _ => "others",
    }
}
