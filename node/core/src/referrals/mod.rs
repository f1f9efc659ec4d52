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
    REFERRALS_WAITING_MAX, SITES_MAX, SPREAD_PIECES_MAX, SPREADS_MAX, SPURNED_MAX,
};
use protocol::topology::{Site, Topology};
use protocol::wire::Contact;
use protocol::{BlobRef, NodeId, Span, Time};

use crate::contract::{Action, Grain, Service, Ticket, Wanted};
use crate::outbox::Outbox;

mod deciding;
mod links;
mod spread;
mod window;

#[cfg(test)]
mod tests;

use links::Links;
use spread::{Spread, Trip};
use window::Window;

/// Who took all that was sent says within this that it holds it, or it does not.
const SAYS_SO: Span = Span::from_secs(2);

/// Requests are looked at again this often, so many at a time, though nothing happened.
const SWEEP_EVERY: Span = Span::from_secs(1);

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
    /// When a site's oldest request was last given what it asks for.
    moved: BTreeMap<usize, Time>,
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
            moved: BTreeMap::new(),
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
        let site = spread.site_of(&node);
        let mut over = Vec::new();
        for piece in pieces {
            over.extend(spread.trips.get(&(*piece, node)).copied());
            spread.holds(&node, *piece);
        }
        over.dedup();
        for trip in over {
            self.end(now, trip, out);
        }
        if let Some(site) = site {
            self.give_more(now, site, out);
        }
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
