//! The office at work: who is told what, when, and what it does then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::index::{CheckedIndex, Index};
use protocol::pieces::PieceSet;
use protocol::wire::{Class, SiteMessage};
use protocol::{BlobRef, NodeId, Now, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::links::Flow;
use super::{Figures, Office};
use crate::contract::{Action, FetchOutcome, FrameOutcome, NodeRole, Ticket};
use crate::swarm::tests::world::{Release, contact, member, node_id, release_in_frames};
use crate::swarm::{Input, Output, Swarm, Want};

/// Transfers tell how far they are this often, milliseconds.
const PROGRESS_EVERY: u64 = 1_000;

#[derive(Clone)]
pub(super) enum What {
    Want(usize),
    Wake(usize),
    Tell(usize, Input),
    Begin(u64),
    Decoded(usize, Ticket, BlobRef, u32),
    Progress,
}

pub(super) struct Desk {
    pub(super) swarm: Swarm,
    pub(super) id: NodeId,
    pub(super) disk: BTreeMap<BlobRef, (PieceSet, BTreeMap<u32, f64>)>,
    pub(super) flows: BTreeSet<u64>,
    pub(super) serves: BTreeSet<u64>,
    pub(super) wake: Option<Time>,
    pub(super) events: usize,
    pub(super) asked_at: Time,
    pub(super) staged: Option<Time>,
}

pub(super) struct Running {
    pub(super) office: Office,
    pub(super) release: Release,
    pub(super) desks: Vec<Desk>,
    pub(super) of_node: BTreeMap<NodeId, usize>,
    pub(super) flows: BTreeMap<u64, Flow>,
    pub(super) crossing: BTreeSet<u64>,
    pub(super) due: BTreeSet<(u64, u64)>,
    pub(super) ends: BTreeMap<u64, u64>,
    pub(super) queue: BTreeMap<(u64, u64), What>,
    pub(super) now: u64,
    pub(super) count: u64,
    pub(super) by_kind: BTreeMap<&'static str, usize>,
    pub(super) wan_bytes: f64,
    pub(super) lan_bytes: f64,
    pub(super) rng: ChaCha8Rng,
    pub(super) quiet_since: u64,
    pub(super) longest_quiet: u64,
}

fn any_index() -> Arc<CheckedIndex> {
    let pack = BlobRef::of(b"");
    let index = Index {
        pack,
        chunks: Vec::new(),
        entries: Vec::new(),
        piece_cvs: vec![pack.root],
    };
    Arc::new(index.check().unwrap())
}

fn kind(input: &Input) -> &'static str {
    match input {
        Input::Claim(_) => "claim",
        Input::Notice(_, notice) => match notice {
            protocol::wire::Notice::Have { .. } => "have",
            protocol::wire::Notice::Won { .. } => "won",
            protocol::wire::Notice::Interested { .. } => "interested",
            #[allow(unreachable_patterns)]
            _ => "other notice",
        },
        Input::FetchProgress(..) => "progress",
        Input::FetchEnded(..) => "fetch ended",
        Input::FrameDecoded(..) => "decoded",
        _ => "other",
    }
}

impl Office {
    /// Runs until all have staged.
    pub fn run(self) -> Figures {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let base = rng.next_u64() >> 16;
        let release = release_in_frames(base, self.plain, self.coded, self.frame);
        let ids: Vec<NodeId> = (0..self.nodes).map(|n| node_id(base + n)).collect();
        let now = Now {
            boot: Time(1_000),
            wall: Time(1_000),
        };
        let desks = ids.iter().map(|id| {
            let seed = rng.next_u64();
            let mut swarm = Swarm::new(*id, NodeRole::Endpoint, self.tempo, self.grain, seed);
            let cap = self.capped.then_some(self.wan as u64);
            swarm.set_site(now, Some(("office".parse().unwrap(), cap)));
            swarm.set_origins(now, vec![contact(node_id(u64::MAX))]);
            let seen = ids.iter().filter(|other| *other != id);
            let seen: Vec<&NodeId> = seen
                .filter(|_| rng.next_u64() % 100 >= self.unseen)
                .collect();
            let known = |id: &&NodeId| (**id, member(**id, false));
            swarm.set_members(now, seen.iter().map(known));
            Desk {
                swarm,
                id: *id,
                disk: BTreeMap::new(),
                flows: BTreeSet::new(),
                serves: BTreeSet::new(),
                wake: None,
                events: 0,
                asked_at: Time(0),
                staged: None,
            }
        });
        let desks: Vec<Desk> = desks.collect();
        let mut running = Running {
            of_node: ids.iter().enumerate().map(|(n, id)| (*id, n)).collect(),
            office: self,
            release,
            desks,
            flows: BTreeMap::new(),
            crossing: BTreeSet::new(),
            due: BTreeSet::new(),
            ends: BTreeMap::new(),
            queue: BTreeMap::new(),
            now: 5_000,
            count: 0,
            by_kind: BTreeMap::new(),
            wan_bytes: 0.0,
            lan_bytes: 0.0,
            rng: ChaCha8Rng::seed_from_u64(self.seed ^ 77),
            quiet_since: 0,
            longest_quiet: 0,
        };
        for n in 0..running.desks.len() {
            let after = running.draw(self.spread.max(1));
            running.post(after, What::Want(n));
        }
        running.post(PROGRESS_EVERY, What::Progress);
        running.go();
        running.figures()
    }
}

impl Running {
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.rng.next_u64() % below
    }

    pub(super) fn post(&mut self, after: u64, what: What) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), what);
    }

    fn go(&mut self) {
        let f = self.needed();
        let end = self.now + (f / self.office.wan * 1000.0 * 4.0) as u64 + 60_000;
        while self.desks.iter().any(|d| d.staged.is_none()) {
            let event = self.queue.first_key_value().map(|((at, _), _)| *at);
            let flow = self.due.first().map(|(at, _)| *at);
            let Some(next) = event.into_iter().chain(flow).min() else {
                panic!("nothing happens any more")
            };
            assert!(next < end, "not staged in {} s", end / 1000);
            self.now = next;
            while let Some((at, number)) = self.due.first().copied().filter(|(at, _)| *at <= next) {
                self.due.remove(&(at, number));
                self.ended(number, FetchOutcome::Complete);
            }
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= next) {
                let what = entry.remove();
                self.happen(what);
            }
        }
    }

    fn clock(&self) -> Now {
        Now {
            boot: Time(self.now),
            wall: Time(self.now),
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Want(n) => {
                let want = Want {
                    release: self.release.digest,
                    artifact: self.release.artifact.clone(),
                    class: Class::Normal,
                    donors: Vec::new(),
                };
                let now = self.clock();
                self.desks[n].asked_at = now.boot;
                self.desks[n].swarm.want(now, want);
                self.carry_out(n);
            }
            What::Wake(n) => {
                if self.desks[n].wake != Some(Time(self.now)) {
                    return;
                }
                self.desks[n].wake = None;
                let now = self.clock();
                if self.desks[n]
                    .swarm
                    .poll_timeout()
                    .is_some_and(|at| at <= now.boot)
                {
                    *self.by_kind.entry("wake").or_default() += 1;
                    self.desks[n].events += 1;
                    self.desks[n].swarm.handle_timeout(now);
                    let wake = self.desks[n].swarm.poll_timeout();
                    assert!(wake.is_none_or(|wake| wake > now.boot), "woken in the past");
                }
                self.carry_out(n);
            }
            What::Tell(n, input) => self.tell(n, input),
            What::Begin(number) => self.begin(number),
            What::Decoded(n, ticket, pack, frame) => {
                let cut = self.office.grain.cut(pack.length);
                let plain = u64::from(frame) * self.release.frames.frame_plain;
                let disk = &mut self.desks[n].disk.get_mut(&pack).expect("an open pack").0;
                for piece in cut.pieces_of_bytes(plain..plain + self.release.frames.frame_plain) {
                    disk.insert(piece);
                }
                self.tell(n, Input::FrameDecoded(ticket, FrameOutcome::Decoded));
            }
            What::Progress => {
                let numbers: Vec<u64> = self.flows.keys().copied().collect();
                for number in numbers {
                    self.advance(number);
                    let Some(flow) = self.flows.get_mut(&number) else {
                        continue;
                    };
                    let bytes = std::mem::take(&mut flow.fresh) as u64;
                    let (to, ticket) = (flow.to, flow.ticket);
                    if bytes > 0 {
                        self.tell(to, Input::FetchProgress(ticket, bytes));
                    }
                }
                self.post(PROGRESS_EVERY, What::Progress);
            }
        }
    }

    pub(super) fn tell(&mut self, n: usize, input: Input) {
        *self.by_kind.entry(kind(&input)).or_default() += 1;
        self.desks[n].events += 1;
        let now = self.clock();
        self.desks[n].swarm.handle(now, input);
        self.carry_out(n);
    }

    fn carry_out(&mut self, n: usize) {
        while let Some(output) = self.desks[n].swarm.poll_output() {
            match output {
                Output::Action(action) => self.act(n, action),
                Output::Staged(_) => self.desks[n].staged = Some(Time(self.now)),
                Output::Failed(_, failure) => panic!("{failure:?}"),
                Output::Progress { .. } => {}
            }
        }
        if let Some(at) = self.desks[n].swarm.poll_timeout() {
            let at = Time(at.0.max(self.now + 1));
            if self.desks[n].wake.is_none_or(|wake| at < wake) {
                self.desks[n].wake = Some(at);
                self.post(at.0 - self.now, What::Wake(n));
            }
        }
    }

    fn act(&mut self, n: usize, action: Action) {
        let soon = 1 + self.draw(4);
        match action {
            Action::OpenBlob { ticket, blob } => {
                let pieces = self.office.grain.cut(blob.length).pieces();
                let empty = || (PieceSet::empty(pieces), BTreeMap::new());
                let have = self.desks[n]
                    .disk
                    .entry(blob)
                    .or_insert_with(empty)
                    .0
                    .clone();
                self.post(
                    soon,
                    What::Tell(n, Input::BlobOpened(ticket, Some(have.into()))),
                );
            }
            Action::Fetch {
                ticket,
                from,
                blob,
                pieces,
                max_bytes_per_s,
                ..
            } => {
                let from = self.of_node.get(&from.node).copied();
                let [piece] = pieces[..] else {
                    panic!("one piece")
                };
                let limit = if max_bytes_per_s == 0 {
                    f64::INFINITY
                } else {
                    max_bytes_per_s as f64
                };
                self.count += 1;
                let number = self.count;
                let flow = Flow {
                    to: n,
                    from,
                    ticket,
                    blob,
                    piece,
                    limit,
                    left: 0.0,
                    fresh: 0.0,
                    rate: 0.0,
                    at: 0.0,
                    begun: false,
                };
                self.flows.insert(number, flow);
                self.desks[n].flows.insert(number);
                let wait = if from.is_some() { 2 } else { self.office.rtt };
                self.post(wait, What::Begin(number));
            }
            Action::CancelFetch(ticket) => {
                let number = self.desks[n]
                    .flows
                    .iter()
                    .find(|f| self.flows[f].ticket == ticket);
                if let Some(number) = number.copied() {
                    self.ended(number, FetchOutcome::Cancelled);
                }
            }
            Action::ReadIndex { ticket, .. } => {
                let index = Some(any_index());
                self.post(5, What::Tell(n, Input::IndexRead(ticket, index)));
            }
            Action::ReadFrames { ticket, .. } => {
                let frames = Some(self.release.frames.clone().into());
                self.post(2, What::Tell(n, Input::FramesRead(ticket, frames)));
            }
            Action::Decode {
                ticket,
                pack,
                frame,
                ..
            } => {
                let ms = self.release.frames.frame_plain / 200_000;
                self.post(ms, What::Decoded(n, ticket, pack, frame));
            }
            Action::Notify { to, notice } => {
                let from = self.desks[n].id;
                let to = self.of_node[&to.node];
                self.post(soon, What::Tell(to, Input::Notice(from, notice)));
            }
            Action::Gossip(SiteMessage::Claim(claim)) => {
                for to in (0..self.desks.len()).filter(|to| *to != n) {
                    let hop = 2 + self.draw(12);
                    self.post(hop, What::Tell(to, Input::Claim(claim.clone())));
                }
            }
            other => panic!("the swarm asked for {other:?}"),
        }
    }

    // ---- figures -----------------------------------------------------------------------------

    fn needed(&self) -> f64 {
        (self.release.artifact.index.length + self.release.artifact.full_carrier().unwrap().length)
            as f64
    }

    fn figures(self) -> Figures {
        let f = self.needed();
        let bound = f / self.office.wan;
        let took = |d: &Desk| {
            let staged = d.staged.expect("all have staged");
            staged.since(d.asked_at).0 as f64 / 1000.0 / bound
        };
        let mut ratios: Vec<f64> = self.desks.iter().map(took).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |part: f64| ratios[((ratios.len() - 1) as f64 * part).ceil() as usize];
        let nodes = self.desks.len();
        let events: usize = self.desks.iter().map(|d| d.events).sum();
        Figures {
            events: events as f64 / nodes as f64,
            events_most: self.desks.iter().map(|d| d.events).max().unwrap(),
            by_kind: self.by_kind.iter().map(|(k, n)| (*k, n / nodes)).collect(),
            copies: self.wan_bytes / f,
            lan: self.lan_bytes / (f * (nodes as f64 - 1.0)),
            ratio: [at(0.5), at(0.99), at(1.0)],
            longest_quiet: self.longest_quiet as f64 / 1000.0,
        }
    }
}
