//! A pretend site: swarms, an origin, a WAN and a LAN with rates and delays, in virtual time.
//!
//! It moves in steps of a few milliseconds and keeps every byte on account. It checks at each step
//! what must hold at any moment: fetches are bounded, and ask for what is missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::manifest::{Artifact, Carrier, CarrierKind};
use protocol::pieces::{Geometry, PieceSet};
use protocol::wire::{Class, Contact, Presence};
use protocol::{BlobRef, Hash, NodeId, Now, Seq, Span, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::body::Transfer;
use crate::contract::{FetchReason, FrameMap, FrameOutcome, Grain, NodeRole, Tempo};
use crate::swarm::{Input, Member, Output, Progress, Swarm, Want};

pub const STEP: u64 = 5;
pub const FRAME: u64 = 8 << 20;

/// What the world does to a node's disk or bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Nature {
    #[default]
    Honest,
    /// Serves wrong bytes.
    Poisoner,
    /// Says that it holds, and sends nothing.
    Staller,
}

#[derive(Default)]
pub struct Disk {
    pub have: PieceSet,
    pub(super) partial: BTreeMap<u32, u64>,
}

pub struct Node {
    pub id: NodeId,
    pub swarm: Option<Swarm>,
    pub disk: BTreeMap<BlobRef, Disk>,
    pub nature: Nature,
    pub roaming: bool,
    pub staged: BTreeMap<Hash, Time>,
    pub failed: Vec<(Hash, String, bool)>,
    pub banned: Vec<NodeId>,
    pub decoded: usize,
    /// Until then its disk refuses writes.
    pub sick_until: Time,
    pub dropped: Vec<BlobRef>,
    pub fetches: Vec<(BlobRef, u32, FetchReason)>,
    pub progress: Option<Progress>,
    pub timeouts: usize,
    pub(super) lives: u64,
}

pub(super) enum Mail {
    Input(Input),
    /// What the node takes for its site changed.
    Members,
}

/// What a release consists of, for the world.
#[derive(Clone)]
pub struct Release {
    pub digest: Hash,
    pub artifact: Artifact,
    pub frames: FrameMap,
    /// Pack pieces that reuse brings.
    pub reusable: BTreeSet<u32>,
    pub broken_index: bool,
}

pub struct World {
    pub now: Time,
    pub nodes: Vec<Node>,
    pub cap: Option<u64>,
    pub wan_rate: f64,
    pub lan_rate: f64,
    pub origin_up: bool,
    /// So many decodes to come fail, and how.
    pub bad_decodes: usize,
    pub bad_decode: FrameOutcome,
    pub origin: Contact,
    pub wan_bytes: BTreeMap<BlobRef, u64>,
    pub lan_bytes: BTreeMap<BlobRef, u64>,
    /// WAN bytes of a blob by node.
    pub wan_by_node: BTreeMap<(BlobRef, usize), u64>,
    pub most_promised: u64,
    pub gossiped: usize,
    pub releases: Vec<Release>,
    pub site: Option<&'static str>,
    pub tempo: Tempo,
    /// The first does not see the second.
    pub blind: BTreeSet<(usize, usize)>,
    pub(super) visible: BTreeSet<usize>,
    pub(super) transfers: Vec<Transfer>,
    pub(super) mail: Vec<(Time, u64, usize, u64, Mail)>,
    pub(super) sent: u64,
    pub(super) rng: ChaCha8Rng,
}

pub fn node_id(n: u64) -> NodeId {
    NodeId(*blake3_of(n).as_bytes())
}

fn blake3_of(n: u64) -> Hash {
    Hash::of(&n.to_le_bytes())
}

pub fn contact(node: NodeId) -> Contact {
    Contact {
        node,
        control: [].into(),
        data: Some("127.0.0.1:1".parse().unwrap()),
    }
}

/// A member that others see.
pub fn member(node: NodeId, roaming: bool) -> Member {
    Member(Arc::new(Presence {
        contact: contact(node),
        site: None,
        roaming,
        seq: Seq::default(),
        orders_head: Seq::default(),
        leaving: false,
    }))
}

/// A release of `plain` bytes that its carrier brings down to `coded`.
pub fn release(name: u64, plain: u64, coded: u64) -> Release {
    release_in_frames(name, plain, coded, FRAME)
}

/// The same in frames of this many plain bytes.
pub fn release_in_frames(name: u64, plain: u64, coded: u64, frame: u64) -> Release {
    let blob = |kind: u64, length| BlobRef {
        root: blake3_of(name << 8 | kind),
        length,
    };
    let carrier = blob(3, coded);
    let count = plain.div_ceil(frame);
    let head = 4 + 16 + 4 * count;
    let at = |i: u64| head + (coded - head) * i / count.max(1);
    Release {
        digest: blake3_of(name << 8),
        artifact: Artifact {
            os: "any".into(),
            arch: "any".into(),
            index: blob(1, 100_000),
            pack: blob(2, plain),
            carriers: vec![Carrier {
                kind: CarrierKind::Full,
                blob: carrier,
            }],
            group_log2: 4,
            disk_bytes: plain,
        },
        frames: FrameMap {
            coded: (0..count).map(|i| (at(i), at(i + 1))).collect(),
            frame_plain: frame,
        },
        reusable: BTreeSet::new(),
        broken_index: false,
    }
}

impl World {
    pub fn new(nodes: u64, seed: u64) -> World {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let base = rng.next_u64() >> 16;
        let nodes = (0..nodes)
            .map(|n| Node {
                id: node_id(base + n),
                swarm: None,
                disk: BTreeMap::new(),
                nature: Nature::Honest,
                roaming: false,
                staged: BTreeMap::new(),
                failed: Vec::new(),
                banned: Vec::new(),
                decoded: 0,
                sick_until: Time(0),
                dropped: Vec::new(),
                fetches: Vec::new(),
                progress: None,
                timeouts: 0,
                lives: 0,
            })
            .collect();
        World {
            now: Time(1_000),
            nodes,
            cap: Some(2_000_000),
            wan_rate: 2_000_000.0,
            lan_rate: 12_500_000.0,
            origin_up: true,
            bad_decodes: 0,
            bad_decode: FrameOutcome::Wrong,
            origin: contact(node_id(u64::MAX)),
            wan_bytes: BTreeMap::new(),
            lan_bytes: BTreeMap::new(),
            wan_by_node: BTreeMap::new(),
            most_promised: 0,
            gossiped: 0,
            releases: Vec::new(),
            site: Some("berlin"),
            tempo: Tempo::default(),
            blind: BTreeSet::new(),
            visible: BTreeSet::new(),
            transfers: Vec::new(),
            mail: Vec::new(),
            sent: 0,
            rng,
        }
    }

    fn clock(&self) -> Now {
        Now {
            boot: self.now,
            wall: self.now,
        }
    }

    /// The node comes up; its site sees it a moment later.
    pub fn start(&mut self, n: usize) {
        let seed = self.rng.next_u64();
        let now = self.clock();
        let mut swarm = Swarm::new(
            self.nodes[n].id,
            NodeRole::Endpoint,
            self.tempo,
            Grain::default(),
            seed,
        );
        swarm.set_site(now, self.site.map(|site| (site.parse().unwrap(), self.cap)));
        swarm.set_roaming(now, self.nodes[n].roaming);
        swarm.set_origins(now, vec![self.origin.clone()]);
        self.nodes[n].swarm = Some(swarm);
        self.nodes[n].lives += 1;
        self.visible.insert(n);
        self.views_change(Span(20));
    }

    pub fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.start(n));
        self.run(1_500);
    }

    /// Tells every node that runs.
    pub(super) fn tell_all(&mut self, tell: impl Fn(&mut Swarm, Now)) {
        let now = self.clock();
        for n in 0..self.nodes.len() {
            if let Some(swarm) = self.nodes[n].swarm.as_mut() {
                tell(swarm, now);
                self.carry_out(n);
            }
        }
    }

    /// SIGKILL: its transfers break; its site notices within seconds.
    pub fn kill(&mut self, n: usize) {
        self.nodes[n].swarm = None;
        self.nodes[n].lives += 1;
        self.visible.remove(&n);
        self.transfers.retain(|t| t.to != n);
        self.views_change(Span(5_000));
    }

    /// From now on each node misses so many in a hundred of the others.
    pub fn blur_views(&mut self, percent: u64) {
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                if self.rng.next_u64() % 100 < percent {
                    self.blind.insert((from, to));
                }
            }
        }
    }

    pub(super) fn views_change(&mut self, after: Span) {
        for to in 0..self.nodes.len() {
            let jitter = self.rng.next_u64() % 20;
            self.post(Span(after.0 + jitter), to, Mail::Members);
        }
    }

    pub fn want(&mut self, n: usize, release: &Release, class: Class) {
        if self.releases.iter().all(|r| r.digest != release.digest) {
            self.releases.push(release.clone());
        }
        let donor = (BlobRef::of(b"old index"), BlobRef::of(b"old pack"));
        let donors = if release.reusable.is_empty() {
            Vec::new()
        } else {
            vec![donor]
        };
        let want = Want {
            release: release.digest,
            artifact: release.artifact.clone(),
            class,
            donors,
        };
        let now = self.clock();
        self.nodes[n]
            .swarm
            .as_mut()
            .expect("a node that runs")
            .want(now, want);
        self.carry_out(n);
    }

    pub fn want_all(&mut self, release: &Release) {
        (0..self.nodes.len()).for_each(|n| self.want(n, release, Class::Normal));
    }

    pub fn unwant(&mut self, n: usize, release: &Release, keep: bool) {
        let now = self.clock();
        self.nodes[n]
            .swarm
            .as_mut()
            .expect("a node that runs")
            .unwant(now, release.digest, keep);
        self.carry_out(n);
    }

    /// Puts a whole blob on a node's disk.
    pub fn give(&mut self, n: usize, blob: BlobRef) {
        let have = PieceSet::full(Geometry::of(blob.length).pieces());
        self.nodes[n].disk.insert(
            blob,
            Disk {
                have,
                partial: BTreeMap::new(),
            },
        );
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.now + Span(ms);
        while self.now < end {
            self.step();
        }
    }

    /// Runs until every node that runs has staged the release; panics after `secs` seconds.
    pub fn run_until_staged(&mut self, release: &Release, secs: u64) -> Time {
        let end = self.now + Span::from_secs(secs);
        while !self
            .nodes
            .iter()
            .all(|n| n.swarm.is_none() || n.staged.contains_key(&release.digest))
        {
            assert!(
                self.now < end,
                "not staged after {secs} s: {}",
                self.report(release)
            );
            self.step();
        }
        self.now
    }

    pub fn report(&self, release: &Release) -> String {
        let stand = |(i, n): (usize, &Node)| {
            let swarm = n.swarm.as_ref()?;
            let staged = n.staged.contains_key(&release.digest);
            let progress = swarm.progress(&release.digest);
            Some(format!(
                "\n{i}: staged {staged}, {progress:?}, wakes {:?} at {:?}",
                swarm.poll_timeout(),
                self.now
            ))
        };
        self.nodes.iter().enumerate().filter_map(stand).collect()
    }

    /// How often the carrier crossed the WAN.
    pub fn copies(&self, blob: &BlobRef) -> f64 {
        self.wan_bytes.get(blob).copied().unwrap_or(0) as f64 / blob.length as f64
    }

    pub(super) fn post(&mut self, after: Span, to: usize, mail: Mail) {
        self.sent += 1;
        let lives = self.nodes[to].lives;
        self.mail
            .push((self.now + after, self.sent, to, lives, mail));
    }

    fn step(&mut self) {
        self.now = self.now + Span(STEP);
        let now = self.now;
        let mut due: Vec<_> = self.mail.extract_if(.., |mail| mail.0 <= now).collect();
        due.sort_by_key(|mail| (mail.0, mail.1));
        for (_, _, to, lives, mail) in due {
            if matches!(mail, Mail::Members) || self.nodes[to].lives == lives {
                self.deliver(to, mail);
            }
        }
        self.move_bytes();
        for n in 0..self.nodes.len() {
            let clock = self.clock();
            let node = &mut self.nodes[n];
            if let Some(swarm) = node
                .swarm
                .as_mut()
                .filter(|s| s.poll_timeout().is_some_and(|t| t <= clock.boot))
            {
                node.timeouts += 1;
                swarm.handle_timeout(clock);
                let wake = swarm.poll_timeout();
                assert!(
                    wake.is_none_or(|wake| wake > self.now),
                    "{n} wants to be woken in the past"
                );
                self.carry_out(n);
            }
        }
    }

    fn deliver(&mut self, to: usize, mail: Mail) {
        let clock = self.clock();
        let members = self.members_for(to);
        let Some(swarm) = self.nodes[to].swarm.as_mut() else {
            return;
        };
        match mail {
            Mail::Input(input) => swarm.handle(clock, input),
            Mail::Members => swarm.set_members(clock, members.into_iter()),
        }
        self.carry_out(to);
    }

    fn members_for(&self, n: usize) -> BTreeMap<NodeId, Member> {
        let others = self
            .visible
            .iter()
            .filter(|other| **other != n && !self.blind.contains(&(n, **other)))
            .map(|other| &self.nodes[*other]);
        others
            .map(|node| (node.id, member(node.id, node.roaming)))
            .collect()
    }

    pub(super) fn index_of(&self, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *id)
    }

    fn carry_out(&mut self, n: usize) {
        while let Some(output) = self.nodes[n].swarm.as_mut().and_then(Swarm::poll_output) {
            match output {
                Output::Action(action) => self.act(n, action),
                Output::Staged(release) => self.check_staged(n, release),
                Output::Failed(release, failure) => {
                    self.nodes[n].failed.push((
                        release,
                        failure.reason,
                        failure.class != crate::contract::FailureClass::Release,
                    ));
                }
                Output::Progress { progress, .. } => self.nodes[n].progress = Some(progress),
            }
        }
    }

    fn check_staged(&mut self, n: usize, digest: Hash) {
        let release = self
            .releases
            .iter()
            .find(|r| r.digest == digest)
            .expect("a release of this world");
        for blob in [&release.artifact.index, &release.artifact.pack] {
            assert!(
                self.nodes[n].disk[blob].have.is_full(),
                "staged, but {blob} is not whole"
            );
        }
        assert!(
            self.nodes[n].staged.insert(digest, self.now).is_none(),
            "staged twice"
        );
    }
}
