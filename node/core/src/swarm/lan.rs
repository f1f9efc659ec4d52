//! Taking pieces inside the site.

use protocol::limits::{
    ENDGAME_AFTER, FETCHES_MAX, FETCHES_PER_PEER_MAX, LAN_UNDER_WAY_BYTES, WAN_FETCHES_MAX,
};
use protocol::pieces::PieceSet;
use protocol::{NodeId, Span, Time};

use super::blob::Blob;
use super::desk::{Desk, Launch};
use super::pick::{Source, rarest_first};
use crate::contract::FetchReason;

const LAN_FETCHES_MAX: usize = FETCHES_MAX - WAN_FETCHES_MAX;
/// Over so many peers what is under way inside the site is spread.
const LAN_PEERS: usize = 7;

/// Asks peers for what they hold and this node lacks.
pub(super) fn pass(desk: &mut Desk, now: Time, blob: &mut Blob) {
    if !blob.is_active() {
        return;
    }
    if now < blob.paused_until {
        desk.wake_at(blob.paused_until);
        return;
    }
    let mut needed = blob.lack.clone();
    needed.intersect(blob.holders.any());
    if needed.is_empty() {
        return;
    }
    let under_way = desk.flights.count(false);
    let most = fetches_max(blob);
    let slots = most.saturating_sub(under_way);
    if slots == 0 {
        return;
    }
    let mut idle = needed.clone();
    idle.subtract(&blob.flying);
    let picks = if idle.is_empty() {
        second_holders(desk, now, blob, &needed, slots)
    } else {
        let mut sources = askable(desk, now, blob);
        let draw = desk.draw(1);
        let held_by = |piece| blob.holders.count(piece);
        rarest_first(idle.iter(), held_by, &mut sources, slots, draw)
    };
    for (piece, node) in picks {
        let Some(from) = desk.site.contact(&node).cloned() else {
            continue;
        };
        let (name, class) = (blob.name, blob.class());
        blob.flying.insert(piece);
        idle.remove(piece);
        desk.launch(
            now,
            Launch {
                blob: name,
                class,
                piece,
                from,
                wan: false,
                reason: FetchReason::Peer,
                rate: 0,
                by: None,
                spurned: Vec::new(),
            },
        );
    }
    if idle.is_empty() {
        // The end-game may have to begin though nothing happens.
        let first = desk.flights.live(blob.name).map(|(_, f)| f.started).min();
        let patience = Span(ENDGAME_AFTER.0.max(blob.lan_ms * 4));
        if let Some(later) = first.map(|first| first + patience).filter(|at| *at > now) {
            desk.wake_at(later);
        }
    }
}

/// So many fetches at once that they keep the LAN busy: large pieces one after the other, because
/// only whole ones can be handed on.
fn fetches_max(blob: &Blob) -> usize {
    let fill = LAN_UNDER_WAY_BYTES / blob.cut.piece_bytes();
    (fill as usize).clamp(FETCHES_PER_PEER_MAX, LAN_FETCHES_MAX)
}

/// Holders that may be given another fetch now. Paused ones wake the swarm when their pause ends.
fn askable<'a>(desk: &mut Desk, now: Time, blob: &'a Blob) -> Vec<Source<'a>> {
    let mut sources = Vec::new();
    let per_peer = fetches_max(blob)
        .div_ceil(LAN_PEERS)
        .min(FETCHES_PER_PEER_MAX);
    for (node, held) in blob.holders.sets() {
        if !desk.site.serves(node) {
            continue;
        }
        if let Some(until) = desk.trouble.paused(now, *node, blob.name) {
            desk.wake_at(until);
            continue;
        }
        let load = desk.flights.from(node);
        sources.push(Source {
            node: *node,
            held,
            free: per_peer.saturating_sub(load),
            load,
        });
    }
    sources
}

/// The end-game: everything that can be asked for is asked for, so what takes much longer than others
/// took is asked of a second holder; whoever comes second is cancelled.
fn second_holders(
    desk: &mut Desk,
    now: Time,
    blob: &Blob,
    needed: &PieceSet,
    slots: usize,
) -> Vec<(u32, NodeId)> {
    let patience = Span(ENDGAME_AFTER.0.max(blob.lan_ms * 4));
    let flights: Vec<(u32, NodeId, Time)> = desk
        .flights
        .live(blob.name)
        .filter(|(_, f)| needed.contains(f.piece))
        .map(|(_, f)| (f.piece, f.from, f.started))
        .collect();
    let mut picks = Vec::new();
    let mut sources = None;
    for (piece, first, started) in &flights {
        if picks.len() == slots || flights.iter().filter(|(p, ..)| p == piece).count() > 1 {
            continue;
        }
        if now < *started + patience {
            desk.wake_at(*started + patience);
            continue;
        }
        let sources = sources.get_or_insert_with(|| askable(desk, now, blob));
        let second = sources
            .iter_mut()
            .filter(|source| {
                source.node != *first && source.free > 0 && source.held.contains(*piece)
            })
            .min_by_key(|source| source.load);
        if let Some(source) = second {
            source.free -= 1;
            source.load += 1;
            picks.push((*piece, source.node));
        }
    }
    picks
}
