//! Who is given what next: the site that can best give it, the origin for what no site holds, or nobody yet.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use protocol::limits::REFERRAL_WAIT_MAX;
use protocol::wire::{Contact, Referral};
use protocol::{NodeId, Span, Time};

use super::spread::{Spread, Trip};
use super::{Asking, Referrals, SWEEP_EVERY, Voyage};
use crate::contract::Service;
use crate::outbox::Outbox;

/// A transfer between sites that takes so many times as long as promised, and so much more, is not
/// counted on any more.
const LATE: u64 = 3;
/// See [`LATE`].
const LATE_MORE: Span = Span::from_secs(5);
/// The same for one from here, whose uplink nobody promised.
const LATE_HERE: u64 = 20;
/// See [`LATE_HERE`].
const LATE_HERE_MORE: Span = Span::from_secs(60);
/// How long a transfer takes to which nobody gave a rate.
const UNRATED_TAKES: Span = Span::from_secs(2);
/// Sites that are looked through for one that can give a piece.
const GIVERS_LOOKED_AT: usize = 64;
/// Requests that a site is offered when it can give again. What waits behind them for long is swept up:
/// where the sites' uplinks are what everyone waits for, as many wait as may ask.
const OFFERED: usize = 64;
/// A site's requests that are tried when it may take more.
const TRIED: usize = 16;
/// See [`SWEEP_EVERY`].
const SWEPT: usize = 256;
/// So many of its site's own pieces may have to come, one after the other, before a request's turn.
pub(super) const OWN_BEFORE: u64 = 8;
/// Younger requests of its site that are served before the oldest; then room is kept for that one.
pub(super) const PASSED_MAX: u32 = 8;

impl Referrals {
    /// Gives a request what it asks for, if anybody can. True if it does not wait any more.
    pub(super) fn serve_if_possible(&mut self, now: Time, number: u64, out: &mut Outbox) -> bool {
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
            self.refer(now, number, from, rate, holder, out);
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

    /// Refers a request to a site that can give again, if it holds what is asked for.
    fn refer_if_possible(&mut self, now: Time, number: u64, from: usize, out: &mut Outbox) {
        let Some(asking) = self.asking.get(&number) else {
            return;
        };
        let Some(spread) = self.spreads.get(&asking.blob) else {
            return;
        };
        let to = asking.site;
        if asking.in_vain || to == from || !self.relays.contains(&from) {
            return;
        }
        let bytes = bytes(Some(spread), &asking.pieces);
        let wanted = self.links.room_in(to, bytes, self.keeps_room(to, number));
        let Some(rate) = wanted.and_then(|wanted| self.links.room_out(from, wanted)) else {
            return;
        };
        let mut pieces = asking.pieces.iter();
        let mut holder = || spread.at(now, *pieces.next()?, from, &asking.spurned);
        if let Some(first) = holder()
            && (1..asking.pieces.len()).all(|_| holder() == Some(first))
        {
            let holder = first.clone();
            self.refer(now, number, from, rate, holder, out);
        }
    }

    fn refer(
        &mut self,
        now: Time,
        number: u64,
        from: usize,
        rate: u64,
        holder: Contact,
        out: &mut Outbox,
    ) {
        self.begin(now, number, Some((from, holder.node)), rate);
        let referral = Referral {
            holders: vec![holder],
            max_bytes_per_s: rate,
        };
        self.answer(number, Service::Refer(referral), out);
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
                .max_by_key(|(rate, site, _)| (*rate, Reverse(*site)));
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
        if passed.is_none() {
            self.moved.insert(asking.site, now);
        }
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
    pub(super) fn end(&mut self, now: Time, trip: Trip, out: &mut Outbox) {
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
    pub(super) fn sweep(&mut self, now: Time, out: &mut Outbox) {
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
                // Where uplinks are what everyone waits for, the youngest wait for as long as the whole
                // takes: a line whose head moves is not waited in vain.
                let moved = self.moved.get(&asking.site).copied();
                let since = moved.map_or(asking.since, |moved| moved.max(asking.since));
                asking.in_vain |= now.since(since) > most;
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

    /// Refers who waits for what a site holds, first come, first served, as long as it can give.
    pub(super) fn give_more(&mut self, now: Time, site: usize, out: &mut Outbox) {
        if self.links.room_out(site, 0).is_none() {
            return;
        }
        let queues = self.spreads.values().flat_map(|spread| {
            let pieces = spread.waited_for(site).into_iter();
            pieces.filter_map(|piece| spread.waiting.get(&piece))
        });
        for number in oldest(queues, OFFERED) {
            self.refer_if_possible(now, number, site, out);
            if self.links.room_out(site, 0).is_none() {
                return;
            }
        }
    }

    /// Serves who waits for what no site holds.
    fn hand_out_more(&mut self, now: Time, out: &mut Outbox) {
        if !self.window.has_room() {
            return;
        }
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
}

/// The first of several queues that are each in order, at most `most`.
fn oldest<'a>(queues: impl Iterator<Item = &'a BTreeSet<u64>>, most: usize) -> Vec<u64> {
    let mut queues: Vec<_> = queues.map(BTreeSet::iter).collect();
    let heads = queues.iter_mut().enumerate();
    let mut heads: BinaryHeap<_> = heads
        .filter_map(|(at, queue)| Some(Reverse((*queue.next()?, at))))
        .collect();
    let mut oldest = Vec::new();
    while oldest.len() < most
        && let Some(Reverse((number, at))) = heads.pop()
    {
        oldest.push(number);
        heads.extend(queues[at].next().map(|next| Reverse((*next, at))));
    }
    oldest
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
