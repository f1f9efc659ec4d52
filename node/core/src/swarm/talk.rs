//! What nodes of a site tell each other about a blob: interest, what they hold, claims.
//!
//! All of it are hints. They decide whom to ask, never what to believe.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{
    CLAIM_LEASE_MAX, CLAIM_PIECES_MAX, FETCHERS_MAX, INTEREST_AGAIN, INTERESTED_MAX,
    STRANGE_BLOBS_MAX,
};
use protocol::positions::rank;
use protocol::wire::{Claim, Notice};
use protocol::{BlobRef, Hash, NodeId, Span, Time};

use super::blob::{Asked, Blob};
use super::desk::Desk;
use super::news;
use super::owners::Clash;
use super::standing;

/// A notice that names more pieces than this is a `Have` instead.
const WON_PIECES_MAX: usize = 4096;
/// Claims of one blob that are remembered before it is wanted.
const STRANGE_CLAIMS_MAX: usize = 2 * FETCHERS_MAX;
/// So many better placed holders that I know of answer a claim; I keep quiet.
const ANSWERS_MAX: usize = 4;

/// What was said of blobs that this node does not track (yet): who asked for them, and who brings them.
#[derive(Default)]
pub(super) struct Strangers {
    askers: BTreeMap<BlobRef, BTreeSet<NodeId>>,
    claims: BTreeMap<Hash, BTreeMap<NodeId, (Time, Claim)>>,
}

impl Strangers {
    pub fn note(&mut self, blob: BlobRef, from: NodeId) {
        if self.askers.len() >= STRANGE_BLOBS_MAX && !self.askers.contains_key(&blob) {
            return;
        }
        let askers = self.askers.entry(blob).or_default();
        if askers.len() < INTERESTED_MAX {
            askers.insert(from);
        }
    }

    pub fn take(&mut self, blob: &BlobRef) -> BTreeSet<NodeId> {
        self.askers.remove(blob).unwrap_or_default()
    }

    /// Whoever wants the blob later knows by it that enough others bring it.
    pub fn note_claim(&mut self, now: Time, claim: &Claim) {
        let fresh = |(at, _): &(Time, Claim)| now.since(*at) < CLAIM_LEASE_MAX;
        if self.claims.len() >= STRANGE_BLOBS_MAX && !self.claims.contains_key(&claim.blob) {
            self.claims.retain(|_, claims| claims.values().any(fresh));
            if self.claims.len() >= STRANGE_BLOBS_MAX {
                return;
            }
        }
        let claims = self.claims.entry(claim.blob).or_default();
        claims.retain(|_, claim| fresh(claim));
        let short = claim.pieces.len() <= CLAIM_PIECES_MAX && claim.held;
        if short && (claims.len() < STRANGE_CLAIMS_MAX || claims.contains_key(&claim.node)) {
            claims.insert(claim.node, (now, claim.clone()));
        }
    }

    pub fn take_claims(&mut self, now: Time, blob: &Hash) -> Vec<Claim> {
        let claims = self.claims.remove(blob).unwrap_or_default();
        let fresh = claims
            .into_values()
            .filter(|(at, _)| now.since(*at) < CLAIM_LEASE_MAX);
        fresh.map(|(_, claim)| claim).collect()
    }

    pub fn forget(&mut self, node: &NodeId) {
        self.askers.retain(|_, askers| {
            askers.remove(node);
            !askers.is_empty()
        });
        self.claims.retain(|_, claims| {
            claims.remove(node);
            !claims.is_empty()
        });
    }
}

/// Tells the neighbours, and whoever brings the blob, that this node wants it; again from time to
/// time and ever more seldom, because notices may be lost.
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
    } else if !blob.met {
        blob.met = true;
        blob.turns.wan.due = true;
        desk.content_changed = true;
    }
    let neighbours = desk.grain.neighbours;
    let near = match blob.near.take() {
        Some(near) => near,
        None => desk.site.circle(&blob.name.root, neighbours),
    };
    let follows = blob.need.as_ref().is_some_and(|need| need.follow);
    for node in &near.own {
        keep_asking(desk, now, blob, node, follows);
    }
    for node in near.likely.difference(&near.own) {
        keep_asking(desk, now, blob, node, false);
    }
    let fetchers = blob.owners.fetchers().to_vec();
    for node in fetchers.iter().filter(|node| !near.own.contains(node)) {
        keep_asking(desk, now, blob, node, false);
    }
    if follows {
        follow_more(desk, now, blob, &fetchers, neighbours.div_ceil(2));
    }
    blob.near = Some(near);
}

/// Where few want the blob the own neighbours may all have none of it: then those who bring it, and
/// others who are known to want it, are followed too.
fn follow_more(desk: &mut Desk, now: Time, blob: &mut Blob, fetchers: &[NodeId], enough: usize) {
    let knows = |blob: &Blob, node: &NodeId| {
        blob.owners.is_known(node) || blob.holders.sets().any(|(holder, _)| holder == node)
    };
    let followed = |blob: &Blob, node: &NodeId| blob.asked.get(node).is_some_and(|a| a.follow);
    let mut count = blob
        .asked
        .iter()
        .filter(|(node, asked)| asked.follow && knows(blob, node))
        .count();
    if count >= enough {
        return;
    }
    let others: Vec<NodeId> = blob.owners.known().copied().collect();
    for node in fetchers.iter().chain(&others) {
        if count >= enough {
            return;
        }
        if desk.site.members.contains_key(node) && !followed(blob, node) {
            ask(desk, now, blob, node, true);
            count += 1;
        }
    }
}

/// Whoever was asked is a member: a member that goes is struck from the list.
fn keep_asking(desk: &mut Desk, now: Time, blob: &mut Blob, node: &NodeId, follow: bool) {
    match blob.asked.get(node) {
        Some(asked) if asked.follow || !follow => {
            let again = asked.at + Span(INTEREST_AGAIN.0 << (2 * (asked.times - 1).min(3)));
            let follow = asked.follow;
            if now < again {
                desk.wake_at(again);
            } else {
                ask(desk, now, blob, node, follow);
            }
        }
        _ if !desk.site.members.contains_key(node) => {}
        _ => ask(desk, now, blob, node, follow),
    }
}

fn ask(desk: &mut Desk, now: Time, blob: &mut Blob, node: &NodeId, follow: bool) {
    let times = blob.asked.get(node).map_or(0, |asked| asked.times) + 1;
    let asked = Asked {
        at: now,
        times,
        follow,
    };
    blob.asked.insert(*node, asked);
    desk.wake_at(now + Span(INTEREST_AGAIN.0 << (2 * (times - 1).min(3))));
    let name = blob.name;
    let notice = if follow {
        Notice::Interested { blob: name }
    } else {
        Notice::Asking { blob: name }
    };
    desk.notify(node, notice);
}

/// Tells of what was won those who want it and, as far as is known, lack it: in waves.
pub(super) fn tell(desk: &mut Desk, now: Time, blob: &mut Blob) {
    let Some(due) = blob.news.due() else {
        return;
    };
    let beat = blob.told_at + desk.tempo.have;
    let due = if blob.told_at == Time(0) {
        due
    } else {
        due.max(beat)
    };
    if now < due {
        desk.wake_at(due);
        return;
    }
    blob.told_at = now;
    if desk.site.roaming {
        blob.news.clear();
        return;
    }
    let next = now + Span(blob.lan_ms.max(desk.tempo.have.0));
    let most = news::most(blob.cut.piece_bytes(), blob.lan_ms, desk.tempo.have);
    let draw = desk.draw(5);
    let (interested, holders) = (&blob.interested, &blob.holders);
    let lack = |piece| {
        let nodes = interested.iter();
        nodes.filter(move |node| !holders.holds(node, piece))
    };
    for (node, pieces) in blob.news.wave(next, most, draw, lack) {
        let blob_name = blob.name;
        let notice = if pieces.len() <= WON_PIECES_MAX {
            Notice::Won {
                blob: blob_name,
                pieces,
            }
        } else {
            Notice::Have {
                blob: blob_name,
                pieces: blob.have.clone(),
            }
        };
        desk.notify(&node, notice);
    }
    if let Some(due) = blob.news.due() {
        desk.wake_at(due.max(now + desk.tempo.have));
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
    match notice {
        Notice::Interested { .. } => {
            if blob.interested.len() < INTERESTED_MAX {
                blob.interested.insert(from);
            }
            meet(desk, now, blob, from, true);
        }
        Notice::Asking { .. } => meet(desk, now, blob, from, false),
        Notice::Claimed(claim) => hear_claim(desk, now, blob, &claim),
        Notice::Took { .. } if desk.trouble.is_banned(now, &from) => {}
        Notice::Took { .. } => standing::taken(desk, now, blob),
        // What a peer that keeps failing says it holds counts again after its pause.
        _ if !desk.site.serves(&from)
            || desk.trouble.is_banned(now, &from)
            || desk.trouble.is_distrusted(now, &from) => {}
        Notice::Have { .. } if desk.trouble.is_boaster(now, &from) => {}
        Notice::Have { pieces, .. } => {
            let won = !pieces.is_empty();
            let before = blob.holders.any().clone();
            let believed = blob.holders.replace(from, pieces);
            let mut gone = before.clone();
            gone.subtract(blob.holders.any());
            if !gone.is_empty() {
                // Taken back: it has to come another way.
                blob.turns.wan.due = true;
                desk.content_changed = true;
            }
            if believed && won {
                blob.owners.showed(now, &from);
                let mut new = blob.holders.any().clone();
                new.subtract(&before);
                for piece in new.iter() {
                    blob.owners.arrived(piece);
                }
                here_now(desk, blob, !new.is_empty());
            }
        }
        Notice::Won { pieces, .. } => {
            let (mut first, mut useful) = (false, false);
            for piece in pieces {
                first |= !blob.holders.any().contains(piece);
                useful |= blob.wants(piece);
                blob.holders.add(from, piece);
                if blob.holders.holds(&from, piece) {
                    blob.owners.arrived(piece);
                }
            }
            blob.owners.showed(now, &from);
            if first {
                here_now(desk, blob, true);
            }
            blob.turns.lan.due |= useful;
        }
    }
}

/// The site has pieces that it had not, or holders of them.
fn here_now(desk: &mut Desk, blob: &mut Blob, first: bool) {
    blob.turns.lan.due = true;
    if first {
        blob.turns.wan.due = true;
        desk.content_changed |= blob.need.is_some();
    }
}

/// Somebody wants the blob: say what is here, and that I want it too.
pub(super) fn meet(desk: &mut Desk, now: Time, blob: &mut Blob, node: NodeId, follows: bool) {
    if !desk.site.members.contains_key(&node) {
        return;
    }
    answer(desk, blob, &node);
    if blob.need.is_none() || blob.have.is_full() {
        return;
    }
    if desk.site.serves(&node)
        && !desk.trouble.is_banned(now, &node)
        && blob.owners.heard(now, node)
    {
        blob.remind.insert(node);
        blob.turns.wan.due = true;
        blob.turns.introduce.due = true;
    }
    let asked = blob.asked.get(&node);
    let lately = asked.is_some_and(|a| now < a.at + Span(desk.tempo.claim_wait.0 * 2));
    let follow = asked.is_some_and(|a| a.follow) || follows && wants_followers(desk, blob);
    if blob.is_active() && !lately {
        ask(desk, now, blob, &node, follow);
        blob.turns.introduce.due = true;
    }
}

fn wants_followers(desk: &Desk, blob: &Blob) -> bool {
    blob.need.as_ref().is_some_and(|need| need.follow)
        && blob.asked.values().filter(|a| a.follow).count() < 2 * desk.grain.neighbours
}

/// A claim was gossiped. Whoever has what is claimed says so, and whoever has it in hand claims again.
pub(super) fn hear_claim(desk: &mut Desk, now: Time, blob: &mut Blob, claim: &Claim) {
    let from = claim.node;
    if !desk.site.may_own(&from) || desk.trouble.is_banned(now, &from) {
        return;
    }
    let mut claim = claim.clone();
    claim.pieces.truncate(CLAIM_PIECES_MAX);
    let held = |piece: &u32| blob.have.contains(*piece);
    let waits = claim.pieces.iter().skip(claim.under_way as usize);
    if claim.held
        && (claim.pieces.is_empty() || waits.into_iter().any(held))
        && is_mine_to_answer(desk, blob, &claim)
    {
        answer(desk, blob, &from);
    }
    if blob.have.is_full() {
        return;
    }
    let mine = blob.owners.mine().len();
    let (have, near) = (&blob.have, blob.holders.any());
    let here = |piece| have.contains(piece) || near.contains(piece);
    if blob.owners.claimed(now, &claim, desk.me(), here) == Clash::Mine {
        blob.remind.insert(from);
        blob.turns.wan.due = true;
    }
    if blob.owners.mine().len() < mine {
        // What I yielded and had begun.
        let mine: BTreeSet<u32> = blob.owners.mine().keys().copied().collect();
        blob.cancel(desk, |flight| flight.wan && !mine.contains(&flight.piece));
    }
    if blob.owners.is_stale() || blob.owners.brings(&desk.me()) {
        blob.turns.wan.due = true;
        blob.turns.introduce.due = true;
    }
}

fn is_mine_to_answer(desk: &Desk, blob: &Blob, claim: &Claim) -> bool {
    let place = |node: &NodeId| rank("answer", &claim.node.0, node);
    let mine = place(&desk.me());
    let waits = claim.pieces.get(claim.under_way as usize);
    let holds = |set: &protocol::pieces::PieceSet| match waits {
        Some(piece) => set.contains(*piece),
        None => !set.is_empty(),
    };
    blob.holders
        .sets()
        .filter(|(node, set)| holds(set) && place(node) < mine)
        .count()
        < ANSWERS_MAX
}
