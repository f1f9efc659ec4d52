//! What the pretend bodies do: disks, decoders, and bytes that flow at their rates.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::index::{CheckedIndex, Index};
use protocol::limits::{FETCHES_MAX, FETCHES_PER_PEER_MAX, GROUP_BYTES, SLOW_NEAR_AFTER};
use protocol::pieces::{Geometry, PieceSet};
use protocol::wire::SiteMessage;
use protocol::{BlobRef, NodeId, Span, Time};
use rand_core::RngCore;

use super::world::{FRAME, Mail, Nature, Release, STEP, World};
use crate::contract::{Action, FetchOutcome, FetchReason, FrameOutcome, OnDisk, Ticket};
use crate::swarm::Input;

/// One piece on its way.
pub(super) struct Transfer {
    pub(super) to: usize,
    ticket: Ticket,
    from: Option<usize>,
    blob: BlobRef,
    piece: u32,
    rate: u64,
    done: f64,
    credited: u64,
    started: Time,
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

impl World {
    pub(super) fn act(&mut self, n: usize, action: Action) {
        let soon = Span(1 + self.rng.next_u64() % 4);
        match action {
            Action::OpenBlob { ticket, blob } => {
                let pieces = Geometry::of(blob.length).pieces();
                let sick = self.now < self.nodes[n].sick_until;
                let disk = self.nodes[n].disk.entry(blob).or_default();
                if disk.have.len() != pieces {
                    disk.have = PieceSet::empty(pieces);
                }
                let found = (!sick).then(|| OnDisk {
                    have: disk.have.clone(),
                    begun: disk.partial.keys().copied().collect(),
                });
                self.answer(soon, n, Input::BlobOpened(ticket, found));
            }
            Action::DropBlob(blob) => {
                self.nodes[n].disk.remove(&blob);
                self.nodes[n].dropped.push(blob);
            }
            Action::Fetch {
                ticket,
                from,
                blob,
                pieces,
                wan,
                reason,
                max_bytes_per_s,
                ..
            } => {
                self.begin(
                    n,
                    ticket,
                    from.node,
                    blob,
                    &pieces,
                    wan,
                    reason,
                    max_bytes_per_s,
                );
            }
            Action::CancelFetch(ticket) => {
                if let Some(i) = self
                    .transfers
                    .iter()
                    .position(|t| t.to == n && t.ticket == ticket)
                {
                    self.transfers.remove(i);
                    self.answer(soon, n, Input::FetchEnded(ticket, FetchOutcome::Cancelled));
                }
            }
            Action::ReadIndex { ticket, index, .. } => {
                assert!(
                    self.nodes[n].disk[&index].have.is_full(),
                    "an index is read before it is whole"
                );
                let broken = self
                    .releases
                    .iter()
                    .any(|r| r.artifact.index == index && r.broken_index);
                self.answer(soon, n, Input::IndexRead(ticket, (!broken).then(any_index)));
            }
            Action::Reuse { ticket, pack, .. } => {
                let reusable = self.of_pack(&pack).reusable.clone();
                let disk = self.nodes[n].disk.get_mut(&pack).expect("an open pack");
                for piece in reusable {
                    disk.have.insert(piece);
                }
                let have = disk.have.clone();
                self.answer(Span(30), n, Input::Reused(ticket, have, 1));
            }
            Action::ReadFrames {
                ticket,
                carrier,
                pack,
            } => {
                assert!(
                    self.nodes[n].disk[&carrier].have.contains(0),
                    "a table is read before it is here"
                );
                let frames = self.of_pack(&pack).frames.clone().into();
                self.answer(soon, n, Input::FramesRead(ticket, Some(frames)));
            }
            Action::Decode {
                ticket,
                carrier,
                pack,
                frame,
                ..
            } => self.decode(n, ticket, carrier, pack, frame),
            Action::Notify { to, notice } => {
                let from = self.nodes[n].id;
                if let Some(to) = self.index_of(&to.node) {
                    self.post(soon, to, Mail::Input(Input::Notice(from, notice)));
                }
            }
            Action::Gossip(SiteMessage::Claim(claim)) => {
                self.gossiped += 1;
                for to in (0..self.nodes.len()).filter(|to| *to != n) {
                    let hop = Span(2 + self.rng.next_u64() % 12);
                    self.post(hop, to, Mail::Input(Input::Claim(claim.clone())));
                }
            }
            Action::Ban { peer, .. } => self.nodes[n].banned.push(peer),
            Action::Note { .. } => {}
            other => panic!("the swarm asked for {other:?}"),
        }
    }

    fn of_pack(&self, pack: &BlobRef) -> &Release {
        self.releases
            .iter()
            .find(|r| r.artifact.pack == *pack)
            .expect("a pack of this world")
    }

    /// Everything that is on its way to or from this node.
    pub(super) fn break_transfers(&mut self, n: usize) {
        let its = |t: &mut Transfer| t.to == n || t.from == Some(n);
        let broken: Vec<Transfer> = self.transfers.extract_if(.., its).collect();
        for t in broken {
            let end = Input::FetchEnded(t.ticket, FetchOutcome::Broken);
            self.answer(Span(5), t.to, end);
        }
    }

    /// The limits of all that is under way over the WAN.
    pub(super) fn wan_rates(&self) -> Vec<u64> {
        let wan = self.transfers.iter().filter(|t| t.from.is_none());
        wan.map(|t| t.rate).collect()
    }

    fn answer(&mut self, after: Span, n: usize, input: Input) {
        self.post(after, n, Mail::Input(input));
    }

    fn decode(&mut self, n: usize, ticket: Ticket, carrier: BlobRef, pack: BlobRef, frame: u32) {
        let (start, end) = self.of_pack(&pack).frames.coded[frame as usize];
        let cut = Geometry::of(pack.length);
        let coded = Geometry::of(carrier.length).pieces_of_bytes(start..end);
        let node = &mut self.nodes[n];
        assert!(
            coded
                .clone()
                .all(|piece| node.disk[&carrier].have.contains(piece)),
            "frame {frame} is not whole"
        );
        if self.bad_decodes > 0 {
            self.bad_decodes -= 1;
            self.answer(Span(20), n, Input::FrameDecoded(ticket, self.bad_decode));
            return;
        }
        let plain = u64::from(frame) * FRAME;
        for piece in cut.pieces_of_bytes(plain..plain + FRAME) {
            node.disk
                .get_mut(&pack)
                .expect("an open pack")
                .have
                .insert(piece);
        }
        node.decoded += 1;
        self.answer(
            Span(20),
            n,
            Input::FrameDecoded(ticket, FrameOutcome::Decoded),
        );
    }

    #[allow(clippy::too_many_arguments)]
    fn begin(
        &mut self,
        n: usize,
        ticket: Ticket,
        from: NodeId,
        blob: BlobRef,
        pieces: &[u32],
        wan: bool,
        reason: FetchReason,
        rate: u64,
    ) {
        assert_eq!(pieces.len(), 1);
        let piece = pieces[0];
        assert!(
            !self.nodes[n].banned.contains(&from),
            "a banned peer is asked"
        );
        assert!(
            !self.nodes[n].disk[&blob].have.contains(piece),
            "{piece} of {blob} is here already"
        );
        assert_eq!(wan, from == self.origin.node);
        assert_eq!(
            wan,
            reason != FetchReason::Peer,
            "a WAN's bytes have a WAN's reason"
        );
        let mine = self.transfers.iter().filter(|t| t.to == n);
        let server = self.index_of(&from);
        assert!(mine.clone().count() < FETCHES_MAX);
        assert!(wan || mine.filter(|t| t.from == server).count() < FETCHES_PER_PEER_MAX);
        self.nodes[n].fetches.push((blob, piece, reason));
        let up = server.map_or(self.origin_up, |s| self.nodes[s].swarm.is_some());
        if !up {
            self.answer(Span(50), n, Input::FetchEnded(ticket, FetchOutcome::Broken));
            return;
        }
        if self.now < self.nodes[n].sick_until {
            self.answer(Span(5), n, Input::FetchEnded(ticket, FetchOutcome::Storage));
            return;
        }
        let (done, started) = (
            self.nodes[n].disk[&blob]
                .partial
                .get(&piece)
                .copied()
                .unwrap_or(0),
            self.now,
        );
        let done = done as f64;
        let credited = done as u64;
        self.transfers.push(Transfer {
            to: n,
            ticket,
            from: server,
            blob,
            piece,
            rate,
            done,
            credited,
            started,
        });
    }

    pub(super) fn move_bytes(&mut self) {
        let seconds = STEP as f64 / 1000.0;
        let crossing = self
            .transfers
            .iter()
            .filter(|t| t.from.is_none())
            .count()
            .max(1) as f64;
        let mut load: BTreeMap<usize, f64> = BTreeMap::new();
        for t in &self.transfers {
            *load.entry(t.from.unwrap_or(usize::MAX)).or_default() += 1.0;
        }
        let crossing_now = self.transfers.iter().filter(|t| t.from.is_none());
        let promised = crossing_now.map(|t| t.rate).max().unwrap_or(0);
        self.most_promised = self.most_promised.max(promised);
        let mut ended = Vec::new();
        for (i, t) in self.transfers.iter_mut().enumerate() {
            let outcome = match t.from {
                None if !self.origin_up => Some(FetchOutcome::Broken),
                Some(s) if self.nodes[s].swarm.is_none() => Some(FetchOutcome::Broken),
                Some(s) if self.nodes[s].nature == Nature::Poisoner => Some(FetchOutcome::Poisoned),
                Some(s) if self.nodes[s].nature == Nature::Staller => {
                    (self.now.since(t.started) >= SLOW_NEAR_AFTER).then_some(FetchOutcome::Slow)
                }
                Some(s)
                    if !self.nodes[s]
                        .disk
                        .get(&t.blob)
                        .is_some_and(|d| d.have.contains(t.piece)) =>
                {
                    Some(FetchOutcome::NotHeld)
                }
                _ => None,
            };
            if outcome.is_some()
                || t.from
                    .is_some_and(|s| self.nodes[s].nature == Nature::Staller)
            {
                outcome
                    .into_iter()
                    .for_each(|outcome| ended.push((i, outcome)));
                continue;
            }
            let rate = match t.from {
                Some(s) => self.lan_rate / load[&s],
                None if t.rate > 0 => (self.wan_rate / crossing).min(t.rate as f64),
                None => self.wan_rate / crossing,
            };
            t.done += rate * seconds;
            let range = Geometry::of(t.blob.length).piece_range(t.piece);
            let whole = range.end - range.start;
            let now_done = if t.done >= whole as f64 {
                whole
            } else {
                t.done as u64 / GROUP_BYTES * GROUP_BYTES
            };
            let new = now_done.saturating_sub(t.credited);
            if new > 0 {
                t.credited = now_done;
                let table = if t.from.is_none() {
                    &mut self.wan_bytes
                } else {
                    &mut self.lan_bytes
                };
                *table.entry(t.blob).or_default() += new;
                if t.from.is_none() {
                    *self.wan_by_node.entry((t.blob, t.to)).or_default() += new;
                }
                let disk = self.nodes[t.to]
                    .disk
                    .get_mut(&t.blob)
                    .expect("an open blob");
                let partial = disk.partial.entry(t.piece).or_default();
                *partial = (*partial).max(now_done);
                self.sent += 1;
                let lives = self.nodes[t.to].lives;
                let progress = Mail::Input(Input::FetchProgress(t.ticket, new));
                self.mail.push((self.now, self.sent, t.to, lives, progress));
            }
            if now_done == whole {
                let disk = self.nodes[t.to]
                    .disk
                    .get_mut(&t.blob)
                    .expect("an open blob");
                disk.have.insert(t.piece);
                disk.partial.remove(&t.piece);
                ended.push((i, FetchOutcome::Complete));
            }
        }
        for (i, outcome) in ended.into_iter().rev() {
            let t = self.transfers.remove(i);
            self.answer(Span(0), t.to, Input::FetchEnded(t.ticket, outcome));
        }
    }
}
