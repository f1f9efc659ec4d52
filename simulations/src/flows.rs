//! Data transfers to the nodes of one part of the world, as fluid flows: every flow gets its max-min
//! fair share of the links it crosses, and no more than its own cap (Bertsekas & Gallager, Data
//! Networks, 6.5.2: progressive filling). What a source far away can give is a link of its own here,
//! whose rate the world sets (see [`crate::uplinks`]).

use std::collections::BTreeMap;

use node_core::contract::Ticket;
use protocol::Time;

use crate::shared::Place;

/// A link or a limit that flows share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Link {
    /// A node's own link, outward.
    Out(usize),
    /// A node's own link, inward.
    In(usize),
    /// The site's WAN, inward.
    Down,
    /// What a source far away gives to all nodes of the site together, because it is told to.
    Pace(Place),
    /// What another part's uplink has for this one.
    Share(usize),
}

/// Where a transfer comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A machine of the same site.
    Near(usize),
    /// A machine elsewhere: the bytes cross the WAN.
    Far(Place),
}

/// One transfer.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Who sends.
    pub from: Source,
    /// Who receives.
    pub to: usize,
    /// The receiver's name for it.
    pub ticket: Ticket,
    /// It takes no more than this, bytes a second.
    pub cap: Option<f64>,
    /// Bytes still to come of each part, in order; a part is a piece.
    pub parts: Vec<f64>,
    /// Parts that are whole.
    pub whole: usize,
    fresh: f64,
    rate: f64,
    links: Vec<usize>,
}

impl Flow {
    /// A transfer that has not begun.
    pub fn new(from: Source, to: usize, ticket: Ticket, cap: Option<f64>, parts: Vec<f64>) -> Flow {
        Flow {
            from,
            to,
            ticket,
            cap,
            parts,
            whole: 0,
            fresh: 0.0,
            rate: 0.0,
            links: Vec::new(),
        }
    }

    /// Whether its bytes cross the WAN.
    pub fn from_far(&self) -> bool {
        matches!(self.from, Source::Far(_))
    }

    fn crosses(&self) -> Vec<Link> {
        match self.from {
            Source::Near(from) => vec![Link::Out(from), Link::In(self.to)],
            Source::Far(place) => vec![
                Link::In(self.to),
                Link::Down,
                Link::Pace(place),
                Link::Share(place.part),
            ],
        }
    }

    /// Lets bytes flow for so long; whether a part became whole.
    fn run(&mut self, seconds: f64) -> bool {
        let mut bytes = self.rate * seconds;
        let before = self.whole;
        while let Some(part) = self.parts.get_mut(self.whole) {
            let taken = bytes.min(*part);
            *part -= taken;
            bytes -= taken;
            self.fresh += taken;
            // less than half a byte is an error of rounding
            if *part >= 0.5 {
                break;
            }
            self.whole += 1;
        }
        self.whole > before
    }
}

/// A link's rate (infinite without a limit), and what is left of it while shares are computed.
struct Shared {
    rate: f64,
    left: f64,
    users: u32,
}

/// All transfers to the nodes of a part.
#[derive(Default)]
pub struct Flows {
    flows: BTreeMap<u64, Flow>,
    numbers: BTreeMap<Link, usize>,
    links: Vec<Shared>,
    next: u64,
    at: Time,
    stale: bool,
    soonest: Option<Time>,
    whole: Vec<u64>,
    /// Since when, and what came from far since then.
    far: (Time, f64),
}

/// What a part takes from another, for the world's shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Use {
    /// The part that gives.
    pub from: usize,
    /// Bytes a second at this moment.
    pub rate: f64,
    /// Bytes a second that it could take at the most.
    pub most: f64,
}

impl Flows {
    /// Sets a link's rate, bytes a second; `None` for no limit. It holds from the last
    /// [`Flows::advance`] on.
    pub fn set_link(&mut self, link: Link, bytes_per_s: Option<f64>) {
        let rate = bytes_per_s.unwrap_or(f64::INFINITY);
        let number = self.link(link);
        if self.links[number].rate != rate {
            self.links[number].rate = rate;
            self.stale = true;
        }
    }

    /// Whether a link has just this rate, see [`Flows::set_link`].
    pub fn has_rate(&self, link: Link, bytes_per_s: Option<f64>) -> bool {
        let rate = self.numbers.get(&link).map(|n| self.links[*n].rate);
        rate.unwrap_or(f64::INFINITY) == bytes_per_s.unwrap_or(f64::INFINITY)
    }

    /// Whether a link has a limit.
    pub fn is_limited(&self, link: Link) -> bool {
        let number = self.numbers.get(&link);
        number.is_some_and(|n| self.links[*n].rate.is_finite())
    }

    fn link(&mut self, link: Link) -> usize {
        let links = &mut self.links;
        *self.numbers.entry(link).or_insert_with(|| {
            links.push(Shared {
                rate: f64::INFINITY,
                left: 0.0,
                users: 0,
            });
            links.len() - 1
        })
    }

    /// Begins a transfer at the moment of the last [`Flows::advance`]; its number.
    pub fn begin(&mut self, mut flow: Flow) -> u64 {
        flow.links = flow.crosses().into_iter().map(|l| self.link(l)).collect();
        self.next += 1;
        self.flows.insert(self.next, flow);
        self.stale = true;
        self.next
    }

    /// Ends a transfer.
    pub fn end(&mut self, number: u64) -> Option<Flow> {
        self.stale = true;
        self.flows.remove(&number)
    }

    /// A transfer.
    pub fn get(&self, number: u64) -> Option<&Flow> {
        self.flows.get(&number)
    }

    /// The numbers of all transfers, rising.
    pub fn numbers(&self) -> Vec<u64> {
        self.flows.keys().copied().collect()
    }

    /// The numbers of those that cross the WAN, rising.
    pub fn far(&self) -> Vec<u64> {
        let far = self.flows.iter().filter(|(_, flow)| flow.from_far());
        far.map(|(number, _)| *number).collect()
    }

    /// When the next piece will be whole, in whole milliseconds.
    pub fn next_whole(&mut self) -> Option<Time> {
        self.share();
        self.soonest
    }

    /// Lets bytes flow until `now`. Must be called before anything is changed at that moment.
    pub fn advance(&mut self, now: Time) {
        self.share();
        let seconds = now.since(self.at).0 as f64 / 1000.0;
        if seconds <= 0.0 {
            return;
        }
        self.at = now;
        for (number, flow) in &mut self.flows {
            if flow.from_far() {
                self.far.1 += flow.rate * seconds;
            }
            if flow.run(seconds) {
                self.whole.push(*number);
            }
        }
        self.look_ahead();
    }

    /// Lets bytes flow until `now` if a piece is whole by then. Returns the transfers of which a
    /// piece became whole since they were last told, with the number of whole pieces.
    pub fn due(&mut self, now: Time) -> Vec<(u64, usize)> {
        if self.next_whole().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.advance(now);
        let mut whole = std::mem::take(&mut self.whole);
        whole.sort_unstable();
        whole.dedup();
        self.look_ahead();
        let of = |n: u64| self.flows.get(&n).map(|f| (n, f.whole));
        whole.into_iter().filter_map(of).collect()
    }

    /// Takes the count of bytes that came since it was last taken.
    pub fn take_fresh(&mut self, number: u64) -> u64 {
        let Some(flow) = self.flows.get_mut(&number) else {
            return 0;
        };
        let bytes = flow.fresh.round();
        flow.fresh -= bytes;
        bytes as u64
    }

    /// Takes the bytes that came from far since they were last taken, and since when.
    pub fn take_far(&mut self) -> (Time, f64) {
        std::mem::replace(&mut self.far, (self.at, 0.0))
    }

    /// What is taken from other parts now, by part.
    pub fn uses(&mut self) -> Vec<Use> {
        self.share();
        let mut uses: BTreeMap<usize, Use> = BTreeMap::new();
        let rate = |link: Link| {
            let number = self.numbers.get(&link);
            number.map_or(f64::INFINITY, |n| self.links[*n].rate)
        };
        for flow in self.flows.values() {
            let Source::Far(place) = flow.from else {
                continue;
            };
            let one = uses.entry(place.part).or_insert(Use {
                from: place.part,
                rate: 0.0,
                most: 0.0,
            });
            one.rate += flow.rate;
            one.most += flow
                .cap
                .unwrap_or(f64::INFINITY)
                .min(rate(Link::Pace(place)));
        }
        let down = rate(Link::Down);
        uses.into_values()
            .map(|u| Use {
                most: u.most.min(down),
                ..u
            })
            .collect()
    }

    fn look_ahead(&mut self) {
        let left = |flow: &Flow| {
            let part = flow.parts.get(flow.whole)?;
            (flow.rate > 0.0).then(|| (part / flow.rate * 1000.0).ceil().max(1.0) as u64)
        };
        let soonest = self.flows.values().filter_map(left).min();
        self.soonest = soonest.map(|ms| Time(self.at.0 + ms));
        if !self.whole.is_empty() {
            self.soonest = Some(self.at);
        }
    }

    fn share(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        for link in &mut self.links {
            link.left = link.rate;
            link.users = 0;
        }
        let links = &mut self.links;
        let mut open: Vec<&mut Flow> = self.flows.values_mut().collect();
        for flow in &open {
            flow.links.iter().for_each(|link| links[*link].users += 1);
        }
        while !open.is_empty() {
            let of = |flow: &Flow, links: &[Shared]| {
                let shares = flow.links.iter().map(|link| {
                    let link = &links[*link];
                    link.left / f64::from(link.users)
                });
                shares.chain(flow.cap).fold(f64::INFINITY, f64::min)
            };
            let lowest = open.iter().map(|f| of(f, links));
            let lowest = lowest.fold(f64::INFINITY, f64::min);
            // without any limit a transfer takes no time worth telling
            let rate = lowest.clamp(0.0, 1e12);
            let (fixed, rest): (Vec<_>, Vec<_>) = open
                .into_iter()
                .partition(|flow| of(flow, links) <= lowest * (1.0 + 1e-9));
            for flow in fixed {
                flow.rate = rate;
                for link in &flow.links {
                    let link = &mut links[*link];
                    link.left = (link.left - rate).max(0.0);
                    link.users -= 1;
                }
            }
            open = rest;
        }
        self.look_ahead();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Place = Place { part: 9, slot: 0 };

    fn far(to: usize, cap: Option<f64>, parts: &[f64]) -> Flow {
        Flow::new(Source::Far(ORIGIN), to, Ticket(1), cap, parts.to_vec())
    }

    #[test]
    fn shares_are_max_min_fair() {
        let mut flows = Flows::default();
        flows.set_link(Link::Down, Some(900.0));
        flows.set_link(Link::In(7), Some(100.0));
        let begun = [far(1, None, &[1e9]), far(7, None, &[1e9])];
        let begun: Vec<u64> = begun.into_iter().map(|f| flows.begin(f)).collect();
        let capped = flows.begin(far(2, Some(50.0), &[1e9]));
        let last = flows.begin(far(3, None, &[1e9]));
        flows.share();
        let rate = |n: u64| flows.get(n).map(|f| f.rate.round());
        assert_eq!(
            [begun[0], begun[1], capped, last].map(rate),
            [375.0, 100.0, 50.0, 375.0].map(Some)
        );
        let uses = flows.uses();
        assert_eq!((uses[0].from, uses[0].rate.round()), (9, 900.0));
    }

    #[test]
    fn a_transfer_inside_the_site_does_not_cross_its_wan() {
        let mut flows = Flows::default();
        flows.set_link(Link::Down, Some(10.0));
        flows.set_link(Link::Out(0), Some(1000.0));
        let near = Flow::new(Source::Near(0), 1, Ticket(1), None, vec![500.0]);
        flows.begin(near);
        assert_eq!(flows.next_whole(), Some(Time(500)));
    }

    #[test]
    fn pieces_become_whole_in_order_and_in_time() {
        let mut flows = Flows::default();
        flows.set_link(Link::Down, Some(1000.0));
        let n = flows.begin(far(1, None, &[500.0, 250.0]));
        assert_eq!(flows.next_whole(), Some(Time(500)));
        assert_eq!(flows.due(Time(500)), [(n, 1)]);
        assert_eq!(flows.take_fresh(n), 500);
        assert_eq!(flows.next_whole(), Some(Time(750)));
        assert_eq!(flows.due(Time(600)), []);
        flows.advance(Time(760));
        assert_eq!(flows.next_whole(), Some(Time(760)), "not told yet");
        assert_eq!(flows.due(Time(800)), [(n, 2)]);
        assert_eq!(flows.take_fresh(n), 250);
    }
}
