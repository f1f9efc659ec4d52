//! What nodes of a site tell each other about a blob: interest, what they hold, claims.
//!
//! All of it are hints. They decide whom to ask, never what to believe.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{CLAIM_PIECES_MAX, INTEREST_AGAIN, INTERESTED_MAX, STRANGE_BLOBS_MAX};
use protocol::positions::rank;
use protocol::wire::{Claim, Notice};
use protocol::{BlobRef, NodeId, Span, Time};

use super::blob::Blob;
use super::desk::Desk;
use super::owners::Clash;

/// A notice that names more pieces than this is a `Have` instead.
const WON_PIECES_MAX: usize = 4096;
/// So many better placed holders that I know of answer a claim; I keep quiet.
const ANSWERS_MAX: usize = 4;

/// Who asked for blobs that this node does not track (yet).
#[derive(Default)]
pub(super) struct Strangers(BTreeMap<BlobRef, BTreeSet<NodeId>>);

impl Strangers {
    pub fn note(&mut self, blob: BlobRef, from: NodeId) {
        if self.0.len() >= STRANGE_BLOBS_MAX && !self.0.contains_key(&blob) {
            return;
        }
        let askers = self.0.entry(blob).or_default();
        if askers.len() < INTERESTED_MAX {
            askers.insert(from);
        }
    }

    pub fn take(&mut self, blob: &BlobRef) -> BTreeSet<NodeId> {
        self.0.remove(blob).unwrap_or_default()
    }

    pub fn forget(&mut self, node: &NodeId) {
        self.0.retain(|_, askers| {
            askers.remove(node);
            !askers.is_empty()
        });
    }
}

/// Tells the neighbours, and whoever brings the blob, that this node wants it; again from time to
/// time, because notices may be lost.
pub(super) fn introduce(desk: &mut Desk, now: Time, blob: &mut Blob) {
    if !blob.is_active() || desk.site.members.is_empty() {
        return;
    }
    if blob.met_at.is_none() {
        // They told their interest before this node had any.
        let early = blob.interested.iter().filter(|node| desk.site.serves(node));
        for node in early {
            blob.owners.heard(now, *node);
        }
        blob.met_at = Some(now + Span(desk.tempo.claim_wait.0 * 2));
    }
    let met = blob.met_at.unwrap_or(now);
    if now < met {
        desk.wake_at(met);
    }
    let mut near = blob
        .near
        .take()
        .unwrap_or_else(|| desk.site.neighbours(&blob.name.root));
    near.extend(
        blob.owners
            .fetchers()
            .iter()
            .filter(|node| desk.site.members.contains_key(node)),
    );
    for node in &near {
        let again = blob.asked.get(node).map(|at| *at + INTEREST_AGAIN);
        match again {
            Some(again) if now < again => desk.wake_at(again),
            _ => ask(desk, now, blob, node),
        }
    }
    blob.near = Some(near);
}

fn ask(desk: &mut Desk, now: Time, blob: &mut Blob, node: &NodeId) {
    blob.asked.insert(*node, now);
    desk.wake_at(now + INTEREST_AGAIN);
    desk.notify(node, Notice::Interested { blob: blob.name });
}

/// Sends what was won since the last time to those who want it.
pub(super) fn tell(desk: &mut Desk, now: Time, blob: &mut Blob) {
    if blob.won.is_empty() {
        return;
    }
    let due = blob.told_at + desk.tempo.have;
    if blob.told_at != Time(0) && now < due {
        desk.wake_at(due);
        return;
    }
    blob.told_at = now;
    let pieces = std::mem::take(&mut blob.won);
    if desk.site.roaming {
        return;
    }
    let name = blob.name;
    let notice = if pieces.len() > WON_PIECES_MAX {
        Notice::Have {
            blob: name,
            pieces: blob.have.clone(),
        }
    } else {
        Notice::Won { blob: name, pieces }
    };
    let sated: BTreeSet<NodeId> = blob
        .holders
        .sets()
        .filter(|(_, set)| set.is_full())
        .map(|(n, _)| *n)
        .collect();
    for node in blob.interested.difference(&sated) {
        desk.notify(node, notice.clone());
    }
}

/// Says all that is held, to everyone who asked so far.
pub(super) fn tell_all(desk: &mut Desk, blob: &Blob) {
    for node in &blob.interested {
        answer(desk, blob, node);
    }
}

fn answer(desk: &mut Desk, blob: &Blob, node: &NodeId) {
    if blob.is_open() && !blob.have.is_empty() && !desk.site.roaming {
        desk.notify(
            node,
            Notice::Have {
                blob: blob.name,
                pieces: blob.have.clone(),
            },
        );
    }
}

/// A peer spoke about a blob that this node tracks.
pub(super) fn hear(desk: &mut Desk, now: Time, blob: &mut Blob, from: NodeId, notice: Notice) {
    let member = desk.site.members.contains_key(&from);
    let serves = desk.site.serves(&from) && !desk.trouble.is_banned(now, &from);
    match notice {
        Notice::Interested { .. } => {
            if blob.interested.len() < INTERESTED_MAX {
                blob.interested.insert(from);
            }
            if member {
                meet(desk, now, blob, from);
            }
        }
        // What a peer that keeps failing says it holds counts again after its pause.
        _ if !serves
            || desk.trouble.fails(from, blob.name) >= protocol::limits::RETRY_PATIENCE
                && desk.trouble.paused(now, from, blob.name).is_some() => {}
        Notice::Have { pieces, .. } => {
            let won = !pieces.is_empty();
            if blob.holders.replace(from, pieces) && won {
                blob.owners.showed(now, &from);
                forget_arrived(blob);
            }
        }
        Notice::Won { pieces, .. } => {
            for piece in pieces {
                blob.holders.add(from, piece);
                if blob.holders.holds(&from, piece) {
                    blob.owners.arrived(piece);
                }
            }
            blob.owners.showed(now, &from);
        }
    }
}

fn forget_arrived(blob: &mut Blob) {
    let here: Vec<u32> = blob.holders.any().iter().collect();
    for piece in here {
        blob.owners.arrived(piece);
    }
}

/// Somebody in the site wants the blob: say what is here, and that I want it too.
pub(super) fn meet(desk: &mut Desk, now: Time, blob: &mut Blob, node: NodeId) {
    answer(desk, blob, &node);
    if blob.need.is_none() || blob.have.is_full() {
        return;
    }
    if desk.site.serves(&node)
        && !desk.trouble.is_banned(now, &node)
        && blob.owners.heard(now, node)
    {
        blob.remind = true;
    }
    let lately = blob
        .asked
        .get(&node)
        .is_some_and(|at| now < *at + Span(desk.tempo.claim_wait.0 * 2));
    if blob.is_active() && !lately {
        ask(desk, now, blob, &node);
    }
}

/// A claim was gossiped. Whoever has what is claimed says so, and whoever has it in hand claims again.
pub(super) fn hear_claim(desk: &mut Desk, now: Time, blob: &mut Blob, claim: &Claim) {
    let from = claim.node;
    if !desk.site.serves(&from) || desk.trouble.is_banned(now, &from) {
        return;
    }
    let mut claim = claim.clone();
    claim.pieces.truncate(CLAIM_PIECES_MAX);
    let held = |piece: &u32| blob.have.contains(*piece);
    if claim.held
        && (claim.pieces.is_empty() || claim.pieces.iter().any(held))
        && is_mine_to_answer(desk, blob, &claim)
    {
        answer(desk, blob, &from);
    }
    claim.pieces.retain(|piece| !held(piece));
    if blob.owners.claimed(now, &claim, desk.me()) == Clash::Mine {
        blob.remind = true;
    }
}

fn is_mine_to_answer(desk: &Desk, blob: &Blob, claim: &Claim) -> bool {
    let place = |node: &NodeId| rank("answer", &claim.node.0, node);
    let mine = place(&desk.me());
    let holds = |set: &protocol::pieces::PieceSet| match claim.pieces.first() {
        Some(piece) => set.contains(*piece),
        None => !set.is_empty(),
    };
    blob.holders
        .sets()
        .filter(|(node, set)| holds(set) && place(node) < mine)
        .count()
        < ANSWERS_MAX
}
