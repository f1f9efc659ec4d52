//! Bringing pieces over the site's WAN: once, in order, by their owners, at a share of the cap.

use std::collections::BTreeSet;

use protocol::limits::{
    CLAIM_LEASE_MAX, CLAIM_PIECES_MAX, CLAIM_WINDOW, EXPECT_WINDOW, FETCHERS_MAX, IDLE_LEASES,
    REFERRAL_WAIT_MAX, WAN_FETCHES_CAPPED_MAX, WAN_FETCHES_MAX, WAN_FETCHES_RELAY_MAX,
};
use protocol::pieces::PieceSet;
use protocol::wire::{Claim, Contact, Notice};
use protocol::{Span, Time};

use super::blob::Blob;
use super::desk::{Desk, Launch};
use super::owners::{Lease, Mine, fetcher_count};
use super::pick::tie;
use super::standing;
use crate::contract::FetchReason;

/// Pieces brought lately that a claim still names.
const BROUGHT_MAX: usize = 64;

/// Claims and fetches what this node owes the site, and watches over those who owe it the rest.
pub(super) fn pass(desk: &mut Desk, now: Time, blob: &mut Blob) {
    drop_what_is_here(desk, blob);
    if !blob.is_active() || !blob.need.as_ref().is_some_and(|need| need.wan) {
        return;
    }
    if now < blob.paused_until {
        desk.wake_at(blob.paused_until);
        return;
    }
    if desk.site.cap == Some(0) {
        // Nothing is to cross in these hours, and nobody owes anything.
        blob.owners.expect_only(&BTreeSet::new());
        return;
    }
    let may_from = desk.site.id.as_ref().map_or(now, |_| {
        let settled = desk.site.since + desk.tempo.settle + desk.tempo.claim_wait;
        blob.met_at.map_or(settled, |met| met.max(settled))
    });
    let mut missing = blob.lack.clone();
    missing.subtract(blob.holders.any());
    let missing: Vec<u32> = missing.iter().take(EXPECT_WINDOW).collect();
    if now < may_from {
        // Without knowing who is here there is no time to wait for.
        if !missing.is_empty() && may_from != Time::MAX {
            desk.wake_at(may_from);
        }
        return;
    }
    standing::watch(desk, now, blob, lease(desk, blob));
    resume(desk, now, blob, &missing);
    let own = judge_leases(desk, now, blob, &missing);
    claim(desk, now, blob, &own);
    if !missing.is_empty() {
        announce(desk, now, blob);
    }
    decline(desk, blob);
    fetch(desk, now, blob);
    // After it: what it began is to be renewed too.
    renew(desk, now, blob);
}

/// What a peer holds comes from the peer: groups that came over the WAN already are kept.
fn drop_what_is_here(desk: &mut Desk, blob: &mut Blob) {
    let here: Vec<u32> = blob
        .owners
        .mine()
        .keys()
        .copied()
        .filter(|p| blob.holders.any().contains(*p) || !blob.wants(*p))
        .collect();
    for piece in here {
        blob.owners.let_go(piece);
        blob.cancel(desk, |flight| flight.wan && flight.piece == piece);
        blob.turns.lan.due = true;
    }
}

/// What is half here and nobody else brings, this node goes on with: whoever began it in its stead would
/// bring it from its beginning.
fn resume(desk: &mut Desk, now: Time, blob: &mut Blob, missing: &[u32]) {
    if blob.begun.is_empty() || desk.site.roaming || blob.standing.is_back() {
        return;
    }
    let room = CLAIM_WINDOW.saturating_sub(blob.owners.mine().len());
    let fit = |piece: &u32| {
        let here = blob.holders.any().contains(*piece) || blob.owners.mine().contains_key(piece);
        blob.wants(*piece) && !here && !blob.owners.is_being_brought(*piece)
    };
    let again = blob.begun.iter().copied().filter(fit).collect();
    let (again, later) = blob.owners.put_off(now, again, missing);
    later.into_iter().for_each(|later| desk.wake_at(later));
    if again.is_empty() || room == 0 {
        return;
    }
    let ready = claim_ready(desk, now);
    for piece in again.into_iter().take(room) {
        blob.begun.remove(&piece);
        blob.owners.resume(piece, ready);
    }
    if desk.site.has_company() {
        blob.gossiped_at = now;
        let claim = my_claim(desk, now, blob);
        desk.gossip_claim(claim);
    }
}

/// Ranks, and returns which of the missing pieces fall to this node.
fn judge_leases(desk: &mut Desk, now: Time, blob: &mut Blob, missing: &[u32]) -> Vec<u32> {
    let me = desk.me();
    let count = fetcher_count(desk.site.cap, blob.cut.pieces());
    let lease = lease(desk, blob);
    let patience = idle_patience(desk, blob);
    loop {
        let candidate = (!desk.site.roaming && !blob.standing.is_back()).then_some(me);
        let (site, trouble) = (&desk.site, &desk.trouble);
        let serves = |node: &_| {
            let shunned = trouble.is_banned(now, node) || trouble.is_distrusted(now, node);
            site.may_own(node) && !shunned
        };
        if blob
            .owners
            .rank_again(candidate, blob.announced, count, serves)
        {
            blob.declined = PieceSet::empty(blob.cut.pieces());
            blob.decline_due = true;
            blob.turns.introduce.due = true;
        }
        let mut own = Vec::new();
        let mut awaited = BTreeSet::new();
        for &piece in missing {
            if blob.owners.mine().contains_key(&piece) {
                continue;
            }
            let owner = blob.owners.owner(piece, me);
            if owner == me {
                own.push(piece);
            } else {
                awaited.insert(owner);
            }
        }
        let mut lapsed = false;
        for owner in &awaited {
            match blob.owners.expect(now, *owner, lease, patience) {
                Lease::Until(until) => desk.wake_at(until),
                Lease::Lapsed => lapsed = true,
            }
        }
        blob.owners.expect_only(&awaited);
        if !lapsed {
            let busy =
                awaited.len() + usize::from(!own.is_empty() || !blob.owners.mine().is_empty());
            let all = blob.owners.fetchers().len();
            blob.sharers = if missing.len() < EXPECT_WINDOW {
                busy
            } else {
                all
            };
            let (own, later) = blob.owners.put_off(now, own, missing);
            later.into_iter().for_each(|later| desk.wake_at(later));
            return own;
        }
    }
}

/// How long a fetcher that is silent is believed: as long as a piece takes when all fetchers share the
/// link, because renewing claims more often than pieces come only costs messages.
fn lease(desk: &Desk, blob: &Blob) -> Span {
    let least = desk.tempo.claim_lease;
    let Some(cap) = desk.site.cap else {
        return least;
    };
    let at_once = (FETCHERS_MAX * WAN_FETCHES_CAPPED_MAX * 1_000) as u64;
    let piece = blob.cut.piece_bytes().saturating_mul(at_once) / cap.max(1);
    Span(piece.clamp(least.0, CLAIM_LEASE_MAX.0.max(least.0)))
}

/// How long a fetcher that shows nothing is believed: many leases, or as long as a piece takes at its
/// share of a very thin link. Where sites relay it waits for others' uplinks at the origin, in a line in which
/// whoever took over would stand last.
fn idle_patience(desk: &Desk, blob: &Blob) -> Span {
    if desk.site.relay {
        return REFERRAL_WAIT_MAX;
    }
    let slowest = desk.site.cap.map_or(0, |cap| {
        let share = (cap / FETCHERS_MAX as u64).max(1);
        blob.cut
            .piece_bytes()
            .saturating_mul(4_000 * WAN_FETCHES_CAPPED_MAX as u64)
            / share
    });
    Span((desk.tempo.claim_lease.0 * IDLE_LEASES).max(slowest))
}

/// A fetcher says once that it is one: those who cannot know it from their neighbours rank it, and
/// those who hold the blob answer.
fn announce(desk: &mut Desk, now: Time, blob: &mut Blob) {
    if !blob.announced && desk.site.has_company() && blob.owners.fetchers().contains(&desk.me()) {
        blob.announced = true;
        blob.owners.view_changed();
        if blob.gossiped_at != now {
            blob.gossiped_at = now;
            let claim = my_claim(desk, now, blob);
            desk.gossip_claim(claim);
        }
    }
}

/// Says which pieces the others must not expect of this node though it ranks first for them: it does
/// not need them (it copied the chunks, or takes another form).
fn decline(desk: &mut Desk, blob: &mut Blob) {
    let me = desk.me();
    let Some(need) = blob
        .need
        .as_ref()
        .filter(|need| need.settled && blob.decline_due)
    else {
        return;
    };
    if !desk.site.has_company() || !blob.owners.fetchers().contains(&me) {
        return;
    }
    let mut pieces = Vec::new();
    for piece in 0..blob.cut.pieces() {
        let nobodys = !need.pieces.contains(piece) && !blob.have.contains(piece);
        if nobodys && blob.declined.insert(piece) && blob.owners.owner(piece, me) == me {
            pieces.push(piece);
        }
        if pieces.len() == CLAIM_PIECES_MAX {
            break;
        }
    }
    blob.decline_due = pieces.len() == CLAIM_PIECES_MAX;
    if !pieces.is_empty() {
        desk.gossip_claim(Claim {
            node: me,
            blob: blob.name.root,
            pieces,
            held: false,
            under_way: 0,
        });
    }
}

/// All that this node has in hand of a blob: what is under way, what it brought so lately that not all
/// can know it, and what waits.
fn my_claim(desk: &Desk, now: Time, blob: &mut Blob) -> Claim {
    let lately = Span(lease(desk, blob).0 * 2);
    let old = |(at, _): &(Time, u32)| now.since(*at) > lately;
    while blob.brought.len() > BROUGHT_MAX || blob.brought.front().is_some_and(old) {
        blob.brought.pop_front();
    }
    let mine = blob.owners.mine().iter();
    let (flying, waiting): (Vec<_>, Vec<_>) =
        mine.partition(|(_, mine)| !matches!(mine, Mine::Waiting(_)));
    let piece = |(piece, _): (&u32, &Mine)| *piece;
    let mut pieces: Vec<u32> = flying.into_iter().map(piece).collect();
    pieces.extend(blob.brought.iter().map(|(_, piece)| *piece));
    let under_way = pieces.len() as u32;
    pieces.extend(waiting.into_iter().map(piece));
    Claim {
        node: desk.me(),
        blob: blob.name.root,
        pieces,
        held: true,
        under_way,
    }
}

/// Claims the next pieces of its own, a window at a time.
fn claim(desk: &mut Desk, now: Time, blob: &mut Blob, own: &[u32]) {
    let held = blob.owners.mine().len();
    let window = CLAIM_WINDOW.min(standing::room(desk, blob));
    if held > CLAIM_WINDOW / 2 || held >= window || own.is_empty() {
        return;
    }
    if let Err(until) = next_origin(desk, now, blob) {
        until.into_iter().for_each(|until| desk.wake_at(until));
        return;
    }
    let new: Vec<u32> = own.iter().copied().take(window - held).collect();
    let ready = claim_ready(desk, now);
    for piece in &new {
        blob.owners.claim(*piece, ready);
    }
    if desk.site.has_company() {
        blob.gossiped_at = now;
        let claim = my_claim(desk, now, blob);
        desk.gossip_claim(claim);
    }
}

/// When what is claimed now may be begun.
fn claim_ready(desk: &Desk, now: Time) -> Time {
    match desk.site.has_company() {
        true => now + desk.tempo.claim_wait,
        false => now,
    }
}

/// Claims are renewed while bytes flow. Who does not know of them is told at once, alone; one whom this
/// node has not seen hears the next renewal.
fn renew(desk: &mut Desk, now: Time, blob: &mut Blob) {
    let lease = lease(desk, blob);
    let brought = blob.brought.back().map(|(at, _)| *at);
    let lately = brought.is_some_and(|at| now.since(at) < Span(lease.0 * 2));
    if blob.owners.mine().is_empty() && !lately || !desk.site.has_company() {
        blob.remind.clear();
        return;
    }
    let wait = desk.tempo.claim_wait;
    if !blob.remind.is_empty() {
        let due = blob.reminded_at.max(blob.gossiped_at) + wait;
        if now < due {
            desk.wake_at(due);
        } else {
            blob.reminded_at = now;
            let claim = my_claim(desk, now, blob);
            for node in std::mem::take(&mut blob.remind) {
                desk.notify(&node, Notice::Claimed(claim.clone()));
            }
        }
    }
    let alive = |moved: Time| now.since(moved) < Span(lease.0 * 3);
    // What it brought lately is on its way through the site: until then nobody is to bring it anew.
    let (mut waits, mut flows) = (false, lately);
    for (_, flight) in desk.flights.live(blob.name).filter(|(_, f)| f.wan) {
        waits = true;
        flows |= alive(flight.moved);
    }
    if waits && !flows {
        // Bytes may come again without anything else happening.
        desk.wake_at(now + Span(lease.0 / 2));
    }
    if !flows {
        return;
    }
    let again = blob.gossiped_at + Span(lease.0 / 2);
    if now < again {
        desk.wake_at(again);
        return;
    }
    blob.gossiped_at = now;
    desk.wake_at(now + Span(lease.0 / 2));
    let claim = my_claim(desk, now, blob);
    desk.gossip_claim(claim);
}

/// Fetches claimed pieces whose wait is over, in order, within this node's share of the cap.
fn fetch(desk: &mut Desk, now: Time, blob: &mut Blob) {
    let (mut begun, mut ready, mut flying) = (Vec::new(), Vec::new(), 0);
    for (piece, mine) in blob.owners.mine() {
        match mine {
            Mine::Waiting(until) if *until > now => desk.wake_at(*until),
            Mine::Waiting(_) => ready.push(*piece),
            Mine::Resumed(until) if *until > now => desk.wake_at(*until),
            Mine::Interrupted | Mine::Resumed(_) => begun.push(*piece),
            Mine::Flying => flying += 1,
        }
    }
    let me = desk.me();
    let claimed = ready.len();
    ready.retain(|piece| {
        let mine = blob.owners.owner(*piece, me) == me;
        if !mine {
            // Enough others bring the blob, or this node may own nothing any more.
            blob.owners.let_go(*piece);
        }
        mine
    });
    if ready.len() < claimed {
        let claim = my_claim(desk, now, blob);
        desk.gossip_claim(claim);
    }
    begun.append(&mut ready);
    let ready = begun;
    let most = fetches_max(desk, blob);
    let mut free = most
        .saturating_sub(desk.flights.count(true))
        .min(standing::room(desk, blob).saturating_sub(flying))
        .min(ready.len());
    for piece in ready {
        if free == 0 {
            return;
        }
        let from = match next_origin(desk, now, blob) {
            Ok(from) => from,
            Err(until) => {
                until.into_iter().for_each(|until| desk.wake_at(until));
                return;
            }
        };
        let Some(rate) = share(desk, blob, free as u64) else {
            return;
        };
        let reason = reason(desk, blob, piece);
        let spurned = blob.spurned.get(&piece).cloned().unwrap_or_default();
        let (name, class) = (blob.name, blob.class());
        blob.owners.fly(piece);
        blob.flying.insert(piece);
        desk.launch(
            now,
            Launch {
                blob: name,
                class,
                piece,
                from,
                wan: true,
                reason,
                rate,
                by: None,
                spurned,
            },
        );
        free -= 1;
    }
}

/// So many fetches over the WAN that it is never idle. Pieces that take long come one by one: they
/// are sooner whole, so that the site can hand them on, and while one fetcher waits for its next
/// piece the others have the link.
fn fetches_max(desk: &Desk, blob: &Blob) -> usize {
    match desk.site.cap {
        // Most of them wait at the origin for somebody who can give them.
        _ if desk.site.relay => WAN_FETCHES_RELAY_MAX,
        None => WAN_FETCHES_MAX,
        Some(cap) if blob.cut.piece_bytes() > cap && blob.sharers > 1 => 1,
        Some(_) => WAN_FETCHES_CAPPED_MAX,
    }
}

/// What the next of `fetches` may take, bytes a second. A single source paces the site as a whole, so
/// each may take all that the others leave. Several do not know of each other: then it is an even part
/// of what is left of this node's share. 0: no limit; `None`: nothing is left.
fn share(desk: &Desk, blob: &Blob, fetches: u64) -> Option<u64> {
    let Some(cap) = desk.site.cap else {
        return Some(0);
    };
    if desk.site.origins.len() == 1 {
        return Some(cap.max(1));
    }
    let sharers = if desk.site.alone {
        desk.site.crowd
    } else {
        blob.sharers
    };
    let share = (cap / sharers.max(1) as u64).max(1);
    let left = share.saturating_sub(desk.flights.wan_rate());
    (left > share / 8 || left == share).then_some((left / fetches.max(1)).max(1))
}

fn reason(desk: &Desk, blob: &Blob, piece: u32) -> FetchReason {
    if blob.tainted.contains(&piece) {
        FetchReason::VerificationFailed
    } else if desk.site.alone {
        FetchReason::Policy
    } else if !desk.site.has_company() || desk.site.roaming {
        FetchReason::NoPeer
    } else if blob.owners.is_taken_over(piece, &desk.me()) {
        FetchReason::LeaseExpired
    } else {
        FetchReason::FirstCopy
    }
}

/// An origin that is not paused, any of them; else when one will be.
fn next_origin(desk: &mut Desk, now: Time, blob: &Blob) -> Result<Contact, Option<Time>> {
    let draw = desk.draw(2);
    let mut next: Option<Time> = None;
    let mut best: Option<(u64, &Contact)> = None;
    for (i, origin) in desk.site.origins.iter().enumerate() {
        if origin.data.is_none() || desk.trouble.is_banned(now, &origin.node) {
            continue;
        }
        if let Some(until) = desk.trouble.paused(now, origin.node, blob.name) {
            next = Some(next.map_or(until, |next| next.min(until)));
        } else if best.is_none_or(|(weight, _)| tie(draw, i as u64) < weight) {
            best = Some((tie(draw, i as u64), origin));
        }
    }
    best.map(|(_, origin)| origin.clone()).ok_or(next)
}
