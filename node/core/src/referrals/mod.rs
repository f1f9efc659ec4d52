//! The origin among sites that relay: it hands each piece out once, and refers later askers to a site
//! that has it.
//!
//! Every request of such a site waits here until something can give it its piece: a site that holds it
//! and has some of its WAN left, or, for what no site holds, the origin itself. Whoever brought a piece
//! into its site says so, and can be referred to from then on; so a piece spreads as a tree that grows
//! at every site that has it. Pieces that no site holds go to different sites side by side, because a
//! site is promised no more at once than its link carries: first come, first served, in the order of
//! asking. Who is referred in vain says to whom, and after the second time it is served by the origin.
//! Nothing here is needed to go on: what is forgotten (a restart, a blob too long unasked) is handed
//! out once more.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{
    REFERRAL_WAIT_MAX, REFERRALS_WAITING_MAX, SITES_MAX, SPREAD_PIECES_MAX, SPREADS_MAX,
    SPURNED_MAX,
};
use protocol::topology::{Site, Topology};
use protocol::wire::{Contact, Referral};
use protocol::{BlobRef, NodeId, Span, Time};

use crate::contract::{Action, Grain, Service, Ticket, Wanted};
use crate::outbox::Outbox;

mod links;
mod spread;
mod window;

#[cfg(test)]
mod tests;

use links::Links;
use spread::{Spread, Trip};
use window::Window;

/// A transfer between sites that takes so many times as long as promised, and so much more, is not
/// counted on any more.
const LATE: u64 = 3;
/// See [`LATE`].
const LATE_MORE: Span = Span::from_secs(5);
/// The same for one from here, whose uplink nobody promised.
const LATE_HERE: u64 = 20;
/// See [`LATE_HERE`].
const LATE_HERE_MORE: Span = Span::from_secs(60);
/// Who took all that was sent says within this that it holds it, or it does not.
const SAYS_SO: Span = Span::from_secs(2);
/// How long a transfer takes to which nobody gave a rate.
const UNRATED_TAKES: Span = Span::from_secs(2);
/// Sites that are looked through for one that can give a piece.
const GIVERS_LOOKED_AT: usize = 64;
/// A site's requests that are tried when it may take more.
const TRIED: usize = 16;

/// Requests are looked at again this often, so many at a time, though nothing happened.
const SWEEP_EVERY: Span = Span::from_secs(1);
/// See [`SWEEP_EVERY`].
const SWEPT: usize = 256;

/// So many of its site's own pieces may have to come, one after the other, before a request's turn.
const OWN_BEFORE: u64 = 8;
/// Younger requests of its site that are served before the oldest; then room is kept for that one.
const PASSED_MAX: u32 = 8;

/// A request that waits.
struct Asking {
    ticket: Ticket,
    from: Contact,
    site: usize,
    blob: BlobRef,
    pieces: Vec<u32>,
    spurned: Vec<NodeId>,
    since: Time,
    /// So many younger ones of its site were served while it was the oldest.
    passed: u32,
    /// Sites are no help to it: the origin gives it.
    in_vain: bool,
}

/// Something on its way into a site.
struct Voyage {
    to: usize,
    from: Option<usize>,
    node: NodeId,
    giver: Option<NodeId>,
    blob: BlobRef,
    pieces: Vec<u32>,
    rate: u64,
    begun: Time,
}

/// What the origin knows of the sites that relay.
pub(crate) struct Referrals {
    grain: Grain,
    links: Links,
    relays: BTreeSet<usize>,
    spreads: BTreeMap<BlobRef, Spread>,
    /// By the order of asking.
    asking: BTreeMap<u64, Asking>,
    tickets: BTreeMap<Ticket, u64>,
    of_site: BTreeMap<usize, BTreeSet<u64>>,
    voyages: BTreeMap<Trip, Voyage>,
    timers: BTreeSet<(Time, Trip)>,
    /// What is sent from here.
    serving: BTreeMap<Ticket, Trip>,
    window: Window,
    count: u64,
    /// Up to which request all were looked at again lately, and when the next are.
    swept: u64,
    sweep_at: Time,
}

impl Referrals {
    pub(crate) fn new(grain: Grain) -> Referrals {
        Referrals {
            grain,
            links: Links::default(),
            relays: BTreeSet::new(),
            spreads: BTreeMap::new(),
            asking: BTreeMap::new(),
            tickets: BTreeMap::new(),
            of_site: BTreeMap::new(),
            voyages: BTreeMap::new(),
            timers: BTreeSet::new(),
            serving: BTreeMap::new(),
            window: Window::default(),
            count: 0,
            swept: 0,
            sweep_at: Time(0),
        }
    }

    /// The sites are these now, with these rates inward and outward. True if any may relay.
    pub(crate) fn set_sites(
        &mut self,
        topology: &Topology,
        rates: impl Fn(&Site) -> (Option<u64>, Option<u64>),
    ) -> bool {
        self.relays.clear();
        for site in topology
            .sites
            .iter()
            .filter(|site| site.relay)
            .take(SITES_MAX)
        {
            let (down, up) = rates(site);
            let number = self.links.set(&site.id, down, up);
            self.relays.insert(number);
        }
        self.relays.len() > 1
    }

    /// A node of a site asks.
    pub(crate) fn wanted(&mut self, now: Time, wanted: Wanted, out: &mut Outbox) {
        let Wanted {
            ticket,
            from,
            site,
            blob,
            pieces,
            spurned,
        } = wanted;
        let relays = |site: &usize| self.relays.contains(site);
        let site = self.links.number(&site).filter(relays);
        let cut = self.grain.cut(blob.length);
        let sound = pieces.iter().all(|piece| *piece < cut.pieces());
        let Some(site) = site.filter(|_| sound && !pieces.is_empty() && from.data.is_some()) else {
            return serve(out, ticket, 0);
        };
        let waits = self.of_site.get(&site).map_or(0, BTreeSet::len);
        if waits >= REFERRALS_WAITING_MAX {
            let service = Service::Busy;
            return out.push(Action::Serve { ticket, service });
        }
        if !self.follow(now, blob) {
            return serve(out, ticket, 0);
        }
        if self.asking.is_empty() {
            self.sweep_at = now + SWEEP_EVERY;
        }
        let Some(spread) = self.spreads.get_mut(&blob) else {
            return;
        };
        spread.asked = now;
        if !spread.know(&from, site) {
            return serve(out, ticket, 0);
        }
        let mut over: Vec<Trip> = Vec::new();
        for piece in &pieces {
            // Who asks again did not get what was under way to it.
            over.extend(spread.trips.get(&(*piece, from.node)).copied());
            for node in &spurned {
                spread.failed(now, node, *piece);
            }
        }
        over.dedup();
        self.count += 1;
        let number = self.count;
        spread.waiting.entry(pieces[0]).or_default().insert(number);
        let asking = Asking {
            in_vain: spurned.len() >= SPURNED_MAX,
            ticket,
            from,
            site,
            blob,
            pieces,
            spurned,
            since: now,
            passed: 0,
        };
        self.asking.insert(number, asking);
        self.tickets.insert(ticket, number);
        self.of_site.entry(site).or_default().insert(number);
        for trip in over {
            self.end(now, trip, out);
        }
        self.serve_if_possible(now, number, out);
    }

    /// Who asked is gone, or has what it was sent.
    pub(crate) fn left(&mut self, now: Time, ticket: Ticket) {
        if let Some(trip) = self.serving.remove(&ticket) {
            self.timers.insert((now + SAYS_SO, trip));
        }
        if let Some(number) = self.tickets.get(&ticket).copied() {
            self.forget(number);
        }
    }

    /// A node brought pieces into its site.
    pub(crate) fn won(
        &mut self,
        now: Time,
        node: NodeId,
        blob: BlobRef,
        pieces: &[u32],
        out: &mut Outbox,
    ) {
        let Some(spread) = self.spreads.get_mut(&blob) else {
            return;
        };
        let Some(site) = spread.site_of(&node) else {
            return;
        };
        let mut over = Vec::new();
        for piece in pieces {
            over.extend(spread.trips.get(&(*piece, node)).copied());
            spread.holds(&node, *piece);
        }
        over.dedup();
        for trip in over {
            self.end(now, trip, out);
        }
        self.give_more(now, site, out);
    }

    /// When [`Referrals::tick`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let sweep = (!self.asking.is_empty()).then_some(self.sweep_at);
        let first = self.timers.first().map(|(at, _)| *at);
        first.into_iter().chain(sweep).min()
    }

    /// What is late is not counted on any more.
    pub(crate) fn tick(&mut self, now: Time, out: &mut Outbox) {
        if now >= self.sweep_at {
            self.sweep(now, out);
        }
        while let Some((at, trip)) = self.timers.first().copied() {
            if at > now {
                return;
            }
            self.timers.remove(&(at, trip));
            self.end(now, trip, out);
        }
    }

    // ---- deciding ------------------------------------------------------------------------------

    /// Gives a request what it asks for, if anybody can. True if it does not wait any more.
    fn serve_if_possible(&mut self, now: Time, number: u64, out: &mut Outbox) -> bool {
        let Some(asking) = self.asking.get(&number) else {
            return true;
        };
        let Some(spread) = self.spreads.get(&asking.blob) else {
            return true;
        };
        let (to, piece) = (asking.site, asking.pieces[0]);
        let bytes = bytes(Some(spread), &asking.pieces);
        let Some(wanted) = self.links.room_in(to, bytes, self.keeps_room(to, number)) else {
            return false;
        };
        let in_vain = asking.in_vain;
        if !in_vain && spread.is_elsewhere(piece, to, &asking.spurned) {
            let Some((from, rate, holder)) = self.giver(now, asking, spread, wanted) else {
                return false;
            };
            let node = holder.node;
            let referral = Referral {
                holders: vec![holder],
                max_bytes_per_s: rate,
            };
            self.begin(now, number, Some((from, node)), rate);
            self.answer(number, Service::Refer(referral), out);
            return true;
        }
        if !in_vain && spread.first.contains_key(&piece) {
            return false;
        }
        if !in_vain && !self.window.has_room() {
            return false;
        }
        self.begin(now, number, None, wanted);
        let max_bytes_per_s = wanted;
        self.answer(number, Service::Send { max_bytes_per_s }, out);
        true
    }

    /// Whether room in a site is kept from a request for its oldest, which was passed over again and
    /// again: who holds its piece had nothing left whenever the site had room.
    fn keeps_room(&self, site: usize, number: u64) -> bool {
        let oldest = self.oldest(site).filter(|oldest| *oldest != number);
        let oldest = oldest.and_then(|oldest| self.asking.get(&oldest));
        oldest.is_some_and(|oldest| oldest.passed >= PASSED_MAX)
    }

    fn oldest(&self, site: usize) -> Option<u64> {
        self.of_site.get(&site)?.first().copied()
    }

    /// The site that can best give what is asked for, at which rate, and the node to ask there.
    fn giver(
        &self,
        now: Time,
        asking: &Asking,
        spread: &Spread,
        wanted: u64,
    ) -> Option<(usize, u64, Contact)> {
        let (piece, spurned) = (asking.pieces[0], &asking.spurned[..]);
        let all = |node: &Contact, site| {
            asking.pieces[1..]
                .iter()
                .all(|piece| spread.at(now, *piece, site, spurned) == Some(node))
        };
        if let Some(listed) = spread.listed(now, piece, asking.site, spurned) {
            let best = listed
                .into_iter()
                .filter(|(site, holder)| self.relays.contains(site) && all(holder, *site))
                .filter_map(|(site, holder)| {
                    let rate = self.links.room_out(site, wanted)?;
                    Some((rate, site, holder))
                })
                .max_by_key(|(rate, site, _)| (*rate, core::cmp::Reverse(*site)));
            return best.map(|(rate, site, holder)| (site, rate, holder.clone()));
        }
        self.links
            .givers()
            .filter(|site| *site != asking.site && self.relays.contains(site))
            .take(GIVERS_LOOKED_AT)
            .find_map(|site| {
                let holder = spread.at(now, piece, site, spurned)?;
                let rate = self.links.room_out(site, wanted)?;
                all(holder, site).then(|| (site, rate, holder.clone()))
            })
    }

    fn begin(&mut self, now: Time, number: u64, giver: Option<(usize, NodeId)>, rate: u64) {
        let Some(asking) = self.asking.get(&number) else {
            return;
        };
        let Some(spread) = self.spreads.get_mut(&asking.blob) else {
            return;
        };
        self.count += 1;
        let trip = self.count;
        let oldest = self.of_site.get(&asking.site).and_then(BTreeSet::first);
        let passed = oldest.copied().filter(|oldest| *oldest != number);
        let from = giver.map(|(site, _)| site);
        let node = asking.from.node;
        for piece in &asking.pieces {
            spread.trips.insert((*piece, node), trip);
            if giver.is_none() && spread.is_nowhere(*piece) {
                spread.first.entry(*piece).or_insert(trip);
            }
        }
        if giver.is_none() {
            self.window.begin();
        }
        let takes = takes(bytes(Some(spread), &asking.pieces), rate);
        let late = match giver {
            Some(_) => Span(takes.0 * LATE + LATE_MORE.0),
            None => Span(takes.0 * LATE_HERE + LATE_HERE_MORE.0),
        };
        self.timers.insert((now + late, trip));
        if giver.is_none() {
            self.serving.insert(asking.ticket, trip);
        }
        self.links.take(asking.site, from, rate);
        let voyage = Voyage {
            to: asking.site,
            from,
            node,
            giver: giver.map(|(_, node)| node),
            blob: asking.blob,
            pieces: asking.pieces.clone(),
            rate,
            begun: now,
        };
        self.voyages.insert(trip, voyage);
        if let Some(passed) = passed.and_then(|passed| self.asking.get_mut(&passed)) {
            passed.passed += 1;
        }
    }

    /// A transfer came to its end, one way or the other.
    fn end(&mut self, now: Time, trip: Trip, out: &mut Outbox) {
        let Some(voyage) = self.voyages.remove(&trip) else {
            return;
        };
        let (to, from, rate) = (voyage.to, voyage.from, voyage.rate);
        self.links.end(to, from, rate);
        self.serving.retain(|_, served| *served != trip);
        if let Some(spread) = self.spreads.get_mut(&voyage.blob) {
            for piece in &voyage.pieces {
                spread.trips.remove(&(*piece, voyage.node));
                if spread.first.get(piece) == Some(&trip) {
                    spread.first.remove(piece);
                }
            }
            if voyage.giver.is_none() {
                let takes = takes(bytes(Some(spread), &voyage.pieces), rate);
                self.window.end(now.since(voyage.begun), takes);
            }
        }
        self.look_again(now, to, from, out);
    }

    /// A site may take more, and another, or the origin, may give more.
    fn look_again(&mut self, now: Time, to: usize, from: Option<usize>, out: &mut Outbox) {
        let waiting = self.of_site.get(&to);
        let waiting: Vec<u64> = waiting.into_iter().flatten().copied().take(TRIED).collect();
        for number in waiting {
            if !self.serve_if_possible(now, number, out) && self.is_full(to, number) {
                break;
            }
        }
        match from {
            Some(site) => self.give_more(now, site, out),
            None => self.hand_out_more(now, out),
        }
    }

    /// Looks at some of the requests though nothing happened that concerns them: a holder may be trusted
    /// again, and who waited for very long gets it here.
    fn sweep(&mut self, now: Time, out: &mut Outbox) {
        self.sweep_at = now + SWEEP_EVERY;
        let next = self.asking.range(self.swept + 1..).take(SWEPT);
        let numbers: Vec<u64> = next.map(|(number, _)| *number).collect();
        self.swept = match numbers.len() {
            SWEPT => numbers[SWEPT - 1],
            _ => 0,
        };
        for number in numbers {
            if let Some(asking) = self.asking.get_mut(&number) {
                // On a thin link it is the site's own pieces that are waited for.
                let bytes = bytes(self.spreads.get(&asking.blob), &asking.pieces);
                let takes = takes(bytes, self.links.slot(asking.site, bytes));
                let most = Span(REFERRAL_WAIT_MAX.0 + OWN_BEFORE * takes.0);
                asking.in_vain |= now.since(asking.since) > most;
            }
            self.serve_if_possible(now, number, out);
        }
    }

    fn is_full(&self, site: usize, number: u64) -> bool {
        let asking = self.asking.get(&number);
        asking.is_some_and(|asking| {
            let bytes = bytes(self.spreads.get(&asking.blob), &asking.pieces);
            self.links.room_in(site, bytes, false).is_none()
        })
    }

    /// Serves who waits for what a site holds, first come, first served, as long as it can give.
    fn give_more(&mut self, now: Time, site: usize, out: &mut Outbox) {
        let mut waiting: Vec<u64> = Vec::new();
        for spread in self.spreads.values() {
            for piece in spread.waited_for(site) {
                waiting.extend(spread.waiting.get(&piece).into_iter().flatten());
            }
        }
        waiting.sort_unstable();
        for number in waiting {
            if self.links.room_out(site, 0).is_none() {
                return;
            }
            self.serve_if_possible(now, number, out);
        }
    }

    /// Serves who waits for what no site holds.
    fn hand_out_more(&mut self, now: Time, out: &mut Outbox) {
        let mut waiting: Vec<u64> = Vec::new();
        for spread in self.spreads.values() {
            let few = spread
                .waiting
                .iter()
                .filter(|(piece, _)| spread.is_rare(**piece) && !spread.first.contains_key(*piece));
            waiting.extend(few.flat_map(|(_, numbers)| numbers));
        }
        waiting.sort_unstable();
        let elsewhere = |number: &u64| {
            let asking = self.asking.get(number);
            asking.is_some_and(|a| {
                let spread = self.spreads.get(&a.blob);
                spread.is_some_and(|s| s.is_elsewhere(a.pieces[0], a.site, &a.spurned))
            })
        };
        waiting.retain(|number| !elsewhere(number));
        for number in waiting {
            if !self.window.has_room() {
                return;
            }
            self.serve_if_possible(now, number, out);
        }
    }

    // ---- bookkeeping ---------------------------------------------------------------------------

    /// Whether a blob's spreading is followed, or can be from now on.
    fn follow(&mut self, now: Time, blob: BlobRef) -> bool {
        if self.spreads.contains_key(&blob) {
            return true;
        }
        let cut = self.grain.cut(blob.length);
        if cut.pieces() > SPREAD_PIECES_MAX {
            return false;
        }
        if self.spreads.len() >= SPREADS_MAX {
            let idle = self.spreads.iter().filter(|(_, spread)| spread.is_idle());
            let oldest = idle.min_by_key(|(_, spread)| spread.asked);
            let Some(oldest) = oldest.map(|(blob, _)| *blob) else {
                return false;
            };
            self.spreads.remove(&oldest);
        }
        let mut spread = Spread::new(cut);
        spread.asked = now;
        self.spreads.insert(blob, spread);
        true
    }

    fn answer(&mut self, number: u64, service: Service, out: &mut Outbox) {
        if let Some(ticket) = self.forget(number) {
            out.push(Action::Serve { ticket, service });
        }
    }

    fn forget(&mut self, number: u64) -> Option<Ticket> {
        let asking = self.asking.remove(&number)?;
        self.tickets.remove(&asking.ticket);
        if let Some(of_site) = self.of_site.get_mut(&asking.site) {
            of_site.remove(&number);
        }
        if let Some(spread) = self.spreads.get_mut(&asking.blob) {
            let piece = asking.pieces[0];
            if let Some(waiting) = spread.waiting.get_mut(&piece) {
                waiting.remove(&number);
                if waiting.is_empty() {
                    spread.waiting.remove(&piece);
                }
            }
        }
        Some(asking.ticket)
    }
}

fn serve(out: &mut Outbox, ticket: Ticket, max_bytes_per_s: u64) {
    let service = Service::Send { max_bytes_per_s };
    out.push(Action::Serve { ticket, service });
}

fn bytes(spread: Option<&Spread>, pieces: &[u32]) -> u64 {
    let Some(spread) = spread else { return 0 };
    let bytes = |piece: &u32| {
        let range = spread.cut.piece_range(*piece);
        range.end - range.start
    };
    pieces.iter().map(bytes).sum()
}

fn takes(bytes: u64, rate: u64) -> Span {
    match rate {
        0 => UNRATED_TAKES,
        rate => Span(bytes.saturating_mul(1_000) / rate),
    }
}
