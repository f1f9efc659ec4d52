//! Fetches: from a brain's wish to a flow, and back to what is on disk. Bytes from another part of
//! the world flow at the receiver's end; the source says first whether it holds them, and when it
//! dies.

use std::collections::{BTreeMap, BTreeSet};

use node_core::contract::{Event, FetchOutcome, Ticket};
use protocol::limits::{SLOW_AFTER, SLOW_NEAR_AFTER};
use protocol::{BlobRef, NodeId, SiteId, Span};

use crate::checks::limits::Limited;
use crate::flows::{Flow, Link, Source};
use crate::island::{Happening, Island, mbit};
use crate::machine::{Fetch, NOTICED};
use crate::mail::{Asker, Mail};
use crate::mishaps::IDLE;
use crate::scenario::Lie;
use crate::shared::{LAN_DELAY, Place};

/// Bytes of a group: what of a piece is kept when a transfer ends early.
const GROUP: u64 = protocol::limits::GROUP_BYTES;

/// Fetches of other parts that machines here serve.
#[derive(Default)]
pub(crate) struct Served {
    fetches: BTreeSet<(usize, Asker)>,
    /// The parts that take, with the number of their fetches.
    takers: BTreeMap<usize, u32>,
}

impl Served {
    fn insert(&mut self, slot: usize, asker: Asker) {
        if self.fetches.insert((slot, asker)) {
            *self.takers.entry(asker.place.part).or_default() += 1;
        }
    }

    pub(crate) fn remove(&mut self, slot: usize, asker: Asker) {
        if !self.fetches.remove(&(slot, asker)) {
            return;
        }
        if let Some(count) = self.takers.get_mut(&asker.place.part) {
            *count -= 1;
            if *count == 0 {
                self.takers.remove(&asker.place.part);
            }
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &(usize, Asker)> {
        self.fetches.iter()
    }

    fn of(&self, slot: usize) -> Vec<Asker> {
        let mine = self.fetches.iter().filter(|(s, _)| *s == slot);
        mine.map(|(_, asker)| *asker).collect()
    }
}

impl Island {
    /// A brain wishes to fetch.
    pub(crate) fn fetch(&mut self, n: usize, ticket: Ticket, from: &NodeId, wish: Fetch) {
        let Some(source) = self.shared.place(from) else {
            return self.end_fetch(n, ticket, FetchOutcome::Broken, NOTICED);
        };
        let machine = &mut self.machines[n];
        let (blob, pieces) = (wish.blob, wish.pieces.clone());
        let spurned = wish.spurned.clone();
        let fetch = Fetch {
            from: source,
            ..wish
        };
        machine.fetches.insert(ticket, fetch);
        let fetches = machine.fetches.values();
        let with_peer = fetches.filter(|f| f.from == source).count();
        let all = machine.fetches.len();
        let process = machine.process();
        let now = self.time();
        self.watch.holds(now, n, Limited::Fetches, all);
        self.watch
            .holds(now, n, Limited::FetchesWithPeer, with_peer);
        if !self.reaches(n, source) {
            self.machines[n].fetches.remove(&ticket);
            return self.end_fetch(n, ticket, FetchOutcome::Broken, IDLE);
        }
        if source.part == self.part {
            let round_trip = Span(2 * LAN_DELAY.0);
            return self.after(round_trip, Happening::Begin(n, process, ticket));
        }
        let asker = Asker {
            place: self.place(n),
            process,
            ticket,
        };
        let slot = source.slot;
        let what = Mail::Open {
            slot,
            asker,
            blob,
            pieces,
            spurned,
        };
        self.send(source.part, Span(0), what);
    }

    pub(crate) fn begin_near(&mut self, n: usize, ticket: Ticket) {
        let Some(fetch) = self.machines[n].fetches.get(&ticket) else {
            return;
        };
        let slot = fetch.from.slot;
        if !self.reaches(n, self.place(slot)) {
            self.machines[n].fetches.remove(&ticket);
            return self.end_fetch(n, ticket, FetchOutcome::Broken, IDLE);
        }
        match self.refusal(slot, &fetch.blob, &fetch.pieces) {
            None => self.begin(n, ticket, Source::Near(slot)),
            Some(outcome) => {
                self.machines[n].fetches.remove(&ticket);
                self.end_fetch(n, ticket, outcome, Span(1));
            }
        }
    }

    /// Why a machine does not serve these pieces, if it does not.
    fn refusal(&self, slot: usize, blob: &BlobRef, pieces: &[u32]) -> Option<FetchOutcome> {
        let source = &self.machines[slot];
        if source.holds_pieces(blob, pieces) {
            None
        } else if source.brain.is_some() {
            Some(FetchOutcome::NotHeld)
        } else {
            Some(FetchOutcome::Broken)
        }
    }

    fn begin(&mut self, n: usize, ticket: Ticket, from: Source) {
        let place = match from {
            Source::Near(slot) => self.place(slot),
            Source::Far(place) => place,
        };
        match self.shared.lie(place) {
            Some(Lie::WrongBytes) => {
                // the first group that comes is wrong
                self.stop_fetch(n, ticket);
                return self.end_fetch(n, ticket, FetchOutcome::Poisoned, Span(5));
            }
            Some(Lie::Stall) => {
                let process = self.machines[n].process();
                let after = match from {
                    Source::Near(_) => SLOW_NEAR_AFTER,
                    Source::Far(_) => SLOW_AFTER,
                };
                return self.after(after, Happening::Stalled(n, process, ticket));
            }
            _ => {}
        }
        self.flows.advance(self.time());
        let Some(fetch) = self.machines[n].fetches.get(&ticket) else {
            return;
        };
        let parts = self.machines[n].missing(fetch);
        let cap = (fetch.cap > 0).then_some(fetch.cap as f64);
        let number = self.flows.begin(Flow::new(from, n, ticket, cap, parts));
        if let Some(fetch) = self.machines[n].fetches.get_mut(&ticket) {
            fetch.flow = Some(number);
        }
        if let Source::Far(_) = from {
            self.watch_progress();
        }
    }

    /// Nothing came for too long.
    pub(crate) fn stalled(&mut self, n: usize, ticket: Ticket) {
        if self.machines[n].fetches.contains_key(&ticket) {
            self.stop_fetch(n, ticket);
            let outcome = FetchOutcome::Slow;
            self.tell(n, Event::FetchEnded { ticket, outcome });
        }
    }

    // ---- across the WAN ------------------------------------------------------------------------

    /// Someone of another part is to be served by a machine here, with no more than `cap` bytes a second.
    pub(crate) fn open_far(
        &mut self,
        slot: usize,
        asker: Asker,
        blob: &BlobRef,
        pieces: &[u32],
        cap: u64,
    ) {
        if let Some(outcome) = self.refusal(slot, blob, pieces) {
            return self.send(asker.place.part, Span(1), Mail::Ended { asker, outcome });
        }
        self.served.insert(slot, asker);
        let pace = self.machines[slot].paces.get(&asker.place.part).copied();
        let takers = self.served.takers.len();
        // what goes from site to site was cut out of the giver's uplink beforehand
        let takers = self.site().map_or(takers, |_| 1);
        let share = self.uplink().map(|rate| rate / takers as f64);
        self.send(
            asker.place.part,
            Span(0),
            Mail::Opened {
                asker,
                pace,
                share,
                cap,
            },
        );
    }

    /// Bytes a second that this part can give to others, if there is a limit.
    pub fn uplink(&self) -> Option<f64> {
        match self.site() {
            Some(site) => Some(mbit(self.shared.sites[site].up_mbit())),
            None => self.shared.scenario.origin.uplink_mbit.map(mbit),
        }
    }

    /// The source has the bytes of a fetch ready.
    pub(crate) fn begin_far(
        &mut self,
        asker: Asker,
        pace: Option<f64>,
        share: Option<f64>,
        cap: u64,
    ) {
        let (n, ticket) = (asker.place.slot, asker.ticket);
        let machine = &mut self.machines[n];
        let known = machine.is_process(asker.process);
        let fetch = machine.fetches.get_mut(&ticket).filter(|_| known);
        let Some(fetch) = fetch else {
            return;
        };
        let from = fetch.from;
        fetch.cap = [fetch.cap, cap]
            .into_iter()
            .filter(|c| *c > 0)
            .min()
            .unwrap_or(0);
        self.flows.advance(self.time());
        self.flows.set_link(Link::Pace(from), pace);
        // until the world looks at the source again
        if !self.flows.uses().iter().any(|u| u.from == from.part) {
            self.flows.set_link(Link::Share(from.part), share);
        }
        self.begin(n, ticket, Source::Far(from));
    }

    /// The source does not send, or not any more.
    pub(crate) fn ended_far(&mut self, asker: Asker, outcome: FetchOutcome) {
        let (n, ticket) = (asker.place.slot, asker.ticket);
        let machine = &self.machines[n];
        if machine.is_process(asker.process) && machine.fetches.contains_key(&ticket) {
            self.stop_fetch(n, ticket);
            self.tell(n, Event::FetchEnded { ticket, outcome });
        }
    }

    /// A machine died: what it sent breaks off.
    pub(crate) fn break_served(&mut self, n: usize) {
        for number in self.flows.numbers() {
            let flow = self.flows.get(number);
            let from_here = |f: &&Flow| f.from == Source::Near(n);
            let Some((to, ticket)) = flow.filter(from_here).map(|f| (f.to, f.ticket)) else {
                continue;
            };
            self.stop_fetch(to, ticket);
            self.end_fetch(to, ticket, FetchOutcome::Broken, NOTICED);
        }
        for asker in self.served.of(n) {
            self.served.remove(n, asker);
            let outcome = FetchOutcome::Broken;
            self.send(asker.place.part, NOTICED, Mail::Ended { asker, outcome });
        }
    }

    fn close(&mut self, n: usize, ticket: Ticket, from: Place) {
        if from.part != self.part {
            let asker = Asker {
                place: self.place(n),
                process: self.machines[n].process(),
                ticket,
            };
            let slot = from.slot;
            self.send(from.part, Span(0), Mail::Close { slot, asker });
        }
    }

    /// A source is told what to give to a site's nodes together.
    pub(crate) fn pace(&mut self, n: usize, site: &SiteId, bytes_per_s: Option<u64>) {
        // inside a site nothing is paced, and its WAN's rate is the world's
        let Some(to) = self.shared.site(site).filter(|to| *to != self.part) else {
            return;
        };
        let rate = bytes_per_s.map(|b| b as f64);
        match rate {
            Some(rate) => self.machines[n].paces.insert(to, rate),
            None => self.machines[n].paces.remove(&to),
        };
        let source = self.place(n);
        self.send(to, Span(0), Mail::Paced { source, rate });
    }

    // ---- ends ----------------------------------------------------------------------------------

    /// Every piece of a transfer is whole.
    pub(crate) fn fetch_complete(&mut self, n: usize, ticket: Ticket, number: u64) {
        self.flows.end(number);
        if let Some(fetch) = self.machines[n].fetches.remove(&ticket) {
            self.close(n, ticket, fetch.from);
        }
        let outcome = FetchOutcome::Complete;
        self.tell(n, Event::FetchEnded { ticket, outcome });
    }

    /// Ends a transfer early: whole groups stay.
    pub(crate) fn stop_fetch(&mut self, n: usize, ticket: Ticket) {
        self.flows.advance(self.time());
        let Some(fetch) = self.machines[n].fetches.remove(&ticket) else {
            return;
        };
        self.close(n, ticket, fetch.from);
        let Some(number) = fetch.flow else { return };
        let bytes = self.flows.take_fresh(number);
        let Some(flow) = self.flows.end(number) else {
            return;
        };
        if flow.from_far() {
            self.count_wan(fetch.from, &fetch.blob, fetch.reason, bytes);
        }
        let cut = self.machines[n].config.grain.cut(fetch.blob.length);
        let Some(stored) = self.machines[n].disk.get_mut(&fetch.blob) else {
            return;
        };
        // pieces that became whole in this very moment
        for piece in fetch.pieces.iter().take(flow.whole) {
            stored.have.insert(*piece);
            stored.partial.remove(piece);
        }
        if let (Some(piece), Some(left)) =
            (fetch.pieces.get(flow.whole), flow.parts.get(flow.whole))
        {
            let range = cut.piece_range(*piece);
            let came = (range.end - range.start).saturating_sub(left.ceil() as u64) / GROUP * GROUP;
            let held = stored.partial.entry(*piece).or_default();
            *held = came.max(*held);
        }
    }

    pub(crate) fn end_fetch(
        &mut self,
        n: usize,
        ticket: Ticket,
        outcome: FetchOutcome,
        after: Span,
    ) {
        let process = self.machines[n].process();
        let event = Box::new(Event::FetchEnded { ticket, outcome });
        self.after(after, Happening::Tell(n, process, event));
    }

    // ---- measures ------------------------------------------------------------------------------

    /// Notes it if a fetch made a blob whole.
    pub(crate) fn look_for_whole(&mut self, n: usize, ticket: Ticket) {
        let fetch = self.machines[n].fetches.get(&ticket);
        let whole = fetch.is_some_and(|f| self.machines[n].holds(&f.blob));
        if whole {
            self.look_for_staged(n);
        }
    }

    /// Notes for each release whose every byte is here when that came to be.
    pub(crate) fn look_for_staged(&mut self, n: usize) {
        let now = self.time();
        for (release, content) in self.shared.contents.iter().enumerate() {
            let machine = &self.machines[n];
            if machine.holds(&content.pack) && machine.holds(&content.index) {
                self.tally.staged(release, n, now);
            }
        }
    }
}
