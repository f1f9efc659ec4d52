//! Taking pieces inside the site.

use protocol::Time;
use protocol::limits::{ENDGAME_AFTER, FETCHES_MAX, FETCHES_PER_PEER_MAX, WAN_FETCHES_MAX};

use super::blob::Blob;
use super::desk::{Desk, Launch};
use super::pick::{Source, rarest_first};
use crate::contract::FetchReason;

const LAN_FETCHES_MAX: usize = FETCHES_MAX - WAN_FETCHES_MAX;

/// Asks peers for what they hold and this node lacks.
pub(super) fn pass(desk: &mut Desk, now: Time, blob: &mut Blob) {
    if !blob.is_active() {
        return;
    }
    if now < blob.paused_until {
        desk.wake_at(blob.paused_until);
        return;
    }
    let needed: Vec<u32> = blob
        .lacking()
        .filter(|piece| blob.holders.any().contains(*piece))
        .collect();
    if needed.is_empty() {
        return;
    }
    let slots = LAN_FETCHES_MAX.saturating_sub(desk.flights.count(false));
    let mut sources = askable(desk, now, blob);
    let draw = desk.draw();
    let flying: Vec<u32> = desk
        .flights
        .live(blob.name)
        .map(|(_, flight)| flight.piece)
        .collect();
    let idle = needed
        .iter()
        .copied()
        .filter(|piece| !flying.contains(piece));
    let picks = rarest_first(
        idle,
        |piece| blob.holders.count(piece),
        &mut sources,
        slots,
        draw,
    );
    let last = picks.is_empty() && needed.iter().all(|piece| flying.contains(piece));
    let picks = if last && slots > 0 {
        second_holders(desk, now, blob, slots)
    } else {
        picks
    };
    for (piece, node) in picks {
        let Some(from) = desk.site.contact(&node).cloned() else {
            continue;
        };
        let reason = if blob.tainted.contains(&piece) {
            FetchReason::VerificationFailed
        } else {
            FetchReason::Peer
        };
        let (name, class) = (blob.name, blob.class());
        desk.launch(
            now,
            Launch {
                blob: name,
                class,
                piece,
                from,
                wan: false,
                reason,
                rate: 0,
            },
        );
    }
}

/// Holders that may be given another fetch now. Paused ones wake the swarm when their pause ends.
fn askable<'a>(desk: &mut Desk, now: Time, blob: &'a Blob) -> Vec<Source<'a>> {
    let mut sources = Vec::new();
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
            free: FETCHES_PER_PEER_MAX.saturating_sub(load),
            load,
        });
    }
    sources
}

/// The end-game: everything that can be asked for is asked for, so what takes long is asked of a
/// second holder; whoever comes second is cancelled.
fn second_holders(
    desk: &mut Desk,
    now: Time,
    blob: &Blob,
    slots: usize,
) -> Vec<(u32, protocol::NodeId)> {
    let flights: Vec<(u32, protocol::NodeId, Time)> = desk
        .flights
        .live(blob.name)
        .map(|(_, f)| (f.piece, f.from, f.started))
        .collect();
    let mut picks = Vec::new();
    let mut sources = askable(desk, now, blob);
    for (piece, first, started) in &flights {
        if picks.len() == slots || flights.iter().filter(|(p, ..)| p == piece).count() > 1 {
            continue;
        }
        if now < *started + ENDGAME_AFTER {
            desk.wake_at(*started + ENDGAME_AFTER);
            continue;
        }
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
