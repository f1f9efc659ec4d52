//! What came of the swarm's actions, and what peers said.

use protocol::limits::{RETRY_PATIENCE, STORAGE_RETRY_MAX};
use protocol::wire::{Claim, Notice};
use protocol::{BlobRef, NodeId, Span, Time};

use super::blob::{Blob, Files};
use super::desk::Desk;
use super::flights::Flight;
use super::trouble::Fault;
use super::{Input, Swarm, siblings, standing, talk};
use crate::contract::{Action, FetchOutcome, OnDisk, Ticket};

impl Swarm {
    pub(super) fn take(&mut self, now: Time, input: Input) {
        match input {
            Input::Claim(claim) => self.claim_heard(now, &claim),
            Input::Notice(from, notice) => self.notice_heard(now, from, notice),
            Input::PeerBanned(node) => self.shun(now, node),
            Input::BlobOpened(ticket, found) => self.blob_opened(now, ticket, found),
            Input::FetchProgress(ticket, bytes) => self.fetch_progress(now, ticket, bytes),
            Input::FetchEnded(ticket, outcome) => self.fetch_ended(now, ticket, outcome),
            Input::FetchReferred(ticket, referral) => self.referred(now, ticket, *referral),
            Input::IndexRead(ticket, index) => {
                let sound = index.is_some();
                self.desk.content_changed = true;
                let _ = self
                    .stagings
                    .values_mut()
                    .any(|s| s.index_read(&mut self.desk, ticket, sound));
            }
            Input::FramesRead(ticket, frames) => {
                self.desk.content_changed = true;
                for staging in self.stagings.values_mut() {
                    if staging.frames_read(&mut self.desk, ticket, frames.as_ref()) {
                        return;
                    }
                }
            }
            Input::Reused(ticket, have, _) => {
                self.desk.content_changed = true;
                let staging = self
                    .stagings
                    .values_mut()
                    .find_map(|s| s.reused(ticket).then_some(s.want.artifact.pack));
                if let Some(pack) = staging {
                    self.gained(pack, have.iter());
                }
            }
            Input::FrameDecoded(ticket, outcome) => {
                let desk = &mut self.desk;
                desk.content_changed = true;
                let decoded = self.stagings.values_mut().find_map(|s| {
                    s.frame_decoded(desk, now, ticket, outcome)
                        .map(|pieces| (s.want.artifact.pack, pieces))
                });
                if let Some((pack, pieces)) = decoded {
                    self.gained(pack, pieces);
                }
            }
        }
    }

    fn gained(&mut self, blob: BlobRef, pieces: impl Iterator<Item = u32>) {
        if let Some(blob) = self.blobs.get_mut(&blob) {
            for piece in pieces {
                blob.gain(&mut self.desk, piece);
            }
        }
    }

    fn claim_heard(&mut self, now: Time, claim: &Claim) {
        let from = BlobRef {
            root: claim.blob,
            length: 0,
        };
        let to = BlobRef {
            root: claim.blob,
            length: u64::MAX,
        };
        let mut tracked = false;
        for blob in self.blobs.range_mut(from..=to).map(|(_, blob)| blob) {
            talk::hear_claim(&mut self.desk, now, blob, claim);
            tracked = true;
        }
        if !tracked && self.desk.site.may_own(&claim.node) {
            self.strangers.note_claim(now, claim);
        }
    }

    fn notice_heard(&mut self, now: Time, from: NodeId, notice: Notice) {
        let (Notice::Have { blob: name, .. }
        | Notice::Won { blob: name, .. }
        | Notice::Interested { blob: name }
        | Notice::Asking { blob: name }
        | Notice::Took { blob: name }) = &notice
        else {
            return self.claim_told(now, from, &notice);
        };
        if from == self.desk.me() {
            return;
        }
        match self.blobs.get_mut(name) {
            Some(blob) => talk::hear(&mut self.desk, now, blob, from, notice),
            None => {
                if let Notice::Interested { blob } = notice {
                    self.strangers.note(blob, from);
                }
            }
        }
    }

    /// Nobody claims for another.
    fn claim_told(&mut self, now: Time, from: NodeId, notice: &Notice) {
        if let Notice::Claimed(claim) = notice
            && claim.node == from
        {
            self.claim_heard(now, claim);
        }
    }

    fn blob_opened(&mut self, now: Time, ticket: Ticket, found: Option<OnDisk>) {
        let Some(blob) = self
            .blobs
            .values_mut()
            .find(|blob| blob.files == Files::Opening(ticket))
        else {
            return;
        };
        let Some(OnDisk { have, begun }) = found else {
            blob.files = Files::Failed(pause_writing(blob, now));
            blob.turns.open.due = true;
            self.desk.content_changed = true;
            return;
        };
        blob.files = Files::Open;
        blob.storage_fails = 0;
        blob.have.union(&have);
        let cut = begun.into_iter().filter(|piece| *piece < blob.cut.pieces());
        blob.begun.extend(cut);
        if blob.name.length == 0 {
            blob.have.insert(0);
        }
        blob.count_lack();
        blob.turns.all();
        self.desk.content_changed = true;
        talk::tell_all(&mut self.desk, blob);
    }

    fn fetch_progress(&mut self, now: Time, ticket: Ticket, bytes: u64) {
        let Some(flight) = self.desk.flights.get_mut(ticket) else {
            return;
        };
        flight.moved = now;
        if bytes == 0 {
            return;
        }
        flight.brought = true;
        self.progressed = true;
        if let Some(blob) = self.blobs.get_mut(&flight.blob) {
            *blob.bytes.entry(flight.reason).or_default() += bytes;
        }
    }

    fn fetch_ended(&mut self, now: Time, ticket: Ticket, outcome: FetchOutcome) {
        let Some(flight) = self.desk.flights.remove(ticket) else {
            return;
        };
        let Some(blob) = self.blobs.get_mut(&flight.blob) else {
            return;
        };
        if flight.wan && !flight.cancelled {
            blob.owners.let_go(flight.piece);
        }
        if flight.brought && outcome != FetchOutcome::Complete {
            blob.begin(flight.piece);
        }
        let desk = &mut self.desk;
        desk.room_made = true;
        blob.lands(desk, flight.piece);
        if flight.by.is_some() {
            siblings::ended(blob, &flight, outcome);
        }
        match outcome {
            FetchOutcome::Complete => {
                if !flight.wan {
                    let took = now.since(flight.started).0;
                    blob.lan_ms = (blob.lan_ms * 3 + took) / 4;
                    standing::thank(desk, now, blob, &flight.from);
                }
                desk.trouble.clear(flight.from, flight.blob);
                blob.owners.trust(&flight.from);
                blob.storage_fails = 0;
                if flight.wan {
                    blob.brought.push_back((now, flight.piece));
                    standing::brought(desk, now, blob, flight.piece);
                    siblings::tell_origin(desk, blob.name, &flight);
                }
                blob.gain(desk, flight.piece);
            }
            FetchOutcome::Cancelled => {}
            FetchOutcome::Busy => {
                let jitter = desk.draw(u64::from(flight.piece) << 8 | 3);
                desk.trouble
                    .note(now, flight.from, flight.blob, Fault::Busy, jitter);
            }
            FetchOutcome::NotHeld | FetchOutcome::Slow | FetchOutcome::Broken => {
                if outcome == FetchOutcome::NotHeld && !flight.wan {
                    not_held(desk, now, blob, &flight);
                }
                let fault = if outcome == FetchOutcome::Slow {
                    Fault::Slow
                } else {
                    Fault::Failed
                };
                if fault == Fault::Slow {
                    let (from, blob) = (flight.from, flight.blob);
                    desk.act(Action::Note {
                        event: "slow",
                        line: format!("{from} gave too little of blob {blob}; asking others"),
                    });
                }
                if source_failed(desk, now, &flight, fault) {
                    self.distrust(now, flight.from);
                }
            }
            FetchOutcome::Poisoned => {
                blob.tainted.insert(flight.piece);
                self.poisoned(now, &flight);
            }
            FetchOutcome::Storage => {
                if now >= blob.paused_until {
                    blob.paused_until = pause_writing(blob, now);
                }
                desk.content_changed = true;
            }
        }
    }

    /// A peer that sends wrong bytes is no source any more: what it says it holds is not believed. The last origin that is left is only
    /// left alone for a while: without it a damaged disk there would stop the fleet for an hour.
    fn poisoned(&mut self, now: Time, flight: &Flight) {
        let trouble = &self.desk.trouble;
        let others = |node: &NodeId| *node != flight.from && !trouble.is_banned(now, node);
        if flight.wan
            && flight.by.is_none()
            && !self
                .desk
                .site
                .origins
                .iter()
                .any(|origin| others(&origin.node))
        {
            let line = format!(
                "origin {} sent wrong bytes of blob {}; asking it again later",
                flight.from, flight.blob
            );
            self.desk.act(Action::Note {
                event: "poisoned",
                line,
            });
            let jitter = self.desk.draw(u64::from(flight.piece) << 8 | 3);
            self.desk
                .trouble
                .note(now, flight.from, flight.blob, Fault::Failed, jitter);
            return;
        }
        self.desk.act(Action::Ban {
            peer: flight.from,
            event: "poisoned",
        });
        self.shun(now, flight.from);
    }

    /// A peer that keeps failing counts as holding nothing and owning nothing, of whatever blob, so that
    /// its pieces come another way.
    fn distrust(&mut self, now: Time, node: NodeId) {
        self.desk.trouble.distrust(now, node);
        self.desk
            .cancel(|flight| flight.from == node && !flight.wan);
        for blob in self.blobs.values_mut() {
            blob.holders.forget(&node);
            blob.owners.distrust(node);
            blob.count_flying(&self.desk);
            blob.turns.all();
        }
    }

    fn shun(&mut self, now: Time, node: NodeId) {
        self.desk.trouble.ban(now, node);
        for blob in self.blobs.values_mut() {
            blob.holders.forget(&node);
            blob.owners.shun(&node);
        }
        self.forget_source(now, &node);
        self.desk.cancel(|flight| flight.from == node);
        self.look_anew();
    }
}

/// A peer does not hold what it said it holds. Once that is a slip: a node that was killed may have lost
/// something. Twice, and whatever else it said is as little worth.
fn not_held(desk: &mut Desk, now: Time, blob: &mut Blob, flight: &Flight) {
    if !blob.holders.holds(&flight.from, flight.piece) {
        return;
    }
    blob.holders.remove(&flight.from, flight.piece);
    if desk.trouble.caught(now, flight.from) {
        blob.holders.forget(&flight.from);
    }
    blob.turns.wan.due = true;
}

/// A source failed. True if it is a peer that keeps failing, or lets a fetch starve: inside a site
/// nobody who works takes so long.
fn source_failed(desk: &mut Desk, now: Time, flight: &Flight, fault: Fault) -> bool {
    let jitter = desk.draw(u64::from(flight.piece) << 8 | 3);
    let fails = desk
        .trouble
        .note(now, flight.from, flight.blob, fault, jitter);
    // What is on its way or in the site counts when forms are chosen, and now less of it is.
    desk.content_changed = true;
    !flight.wan && (fails >= RETRY_PATIENCE || fault == Fault::Slow)
}

/// This machine cannot write: until when nothing is fetched. The pause doubles.
fn pause_writing(blob: &mut Blob, now: Time) -> Time {
    let span = Span((1_000 << blob.storage_fails.min(16)).min(STORAGE_RETRY_MAX.0));
    blob.storage_fails += 1;
    now + span
}
