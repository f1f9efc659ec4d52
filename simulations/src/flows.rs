//! Data transfers as fluid flows: every flow gets its max-min fair share of the links it crosses, and
//! no more than its own cap (Bertsekas & Gallager, Data Networks, 6.5.2: progressive filling).

use std::collections::BTreeMap;

use protocol::Time;

/// A link or a limit that flows share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Link {
    /// A node's own link, outward.
    Out(usize),
    /// A node's own link, inward.
    In(usize),
    /// A site's WAN, outward.
    Up(usize),
    /// A site's WAN, inward.
    Down(usize),
    /// What a source gives to all nodes of a site together.
    Pace(usize, usize),
}

/// One transfer.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
    /// The links that it crosses.
    pub links: Vec<Link>,
    /// It takes no more than this, bytes a second.
    pub cap: Option<f64>,
    /// Bytes still to come of each part, in order; a part is a piece.
    pub parts: Vec<f64>,
    /// Parts that are whole.
    pub whole: usize,
    /// The site whose WAN it crosses inward.
    pub wan: Option<usize>,
    /// Bytes that came, since last asked.
    pub fresh: f64,
    rate: f64,
}

impl Flow {
    /// A transfer that has not begun.
    pub fn new(
        from: usize,
        to: usize,
        links: Vec<Link>,
        cap: Option<f64>,
        parts: Vec<f64>,
    ) -> Flow {
        Flow {
            from,
            to,
            links,
            cap,
            parts,
            whole: 0,
            wan: None,
            fresh: 0.0,
            rate: 0.0,
        }
    }
}

/// All transfers under way.
#[derive(Default)]
pub struct Flows {
    flows: BTreeMap<u64, Flow>,
    capacity: BTreeMap<Link, f64>,
    next: u64,
    at: Time,
    stale: bool,
}

impl Flows {
    /// Sets a link's rate, bytes a second; `None` for no limit.
    pub fn set_link(&mut self, link: Link, bytes_per_s: Option<f64>) {
        match bytes_per_s {
            Some(rate) => self.capacity.insert(link, rate),
            None => self.capacity.remove(&link),
        };
        self.stale = true;
    }

    /// Begins a transfer; its number.
    pub fn begin(&mut self, flow: Flow) -> u64 {
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

    /// All transfers, by number.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Flow)> {
        self.flows.iter().map(|(n, f)| (*n, f))
    }

    /// When the next piece will be whole, in whole milliseconds.
    pub fn next_whole(&mut self) -> Option<Time> {
        self.share();
        let left = |flow: &Flow| {
            let part = flow.parts.get(flow.whole)?;
            (flow.rate > 0.0).then(|| (part / flow.rate * 1000.0).ceil().max(1.0) as u64)
        };
        self.flows
            .values()
            .filter_map(left)
            .min()
            .map(|ms| Time(self.at.0 + ms))
    }

    /// Lets bytes flow until `now`. Returns the transfers of which a piece became whole, with the
    /// number of whole pieces.
    pub fn advance(&mut self, now: Time) -> Vec<(u64, usize)> {
        self.share();
        let seconds = now.since(self.at).0 as f64 / 1000.0;
        self.at = now;
        let mut whole = Vec::new();
        for (number, flow) in &mut self.flows {
            let mut bytes = flow.rate * seconds;
            let before = flow.whole;
            while let Some(part) = flow.parts.get_mut(flow.whole) {
                let taken = bytes.min(*part);
                *part -= taken;
                bytes -= taken;
                flow.fresh += taken;
                // less than half a byte is an error of rounding
                if *part >= 0.5 {
                    break;
                }
                flow.whole += 1;
            }
            if flow.whole > before {
                whole.push((*number, flow.whole));
            }
        }
        whole
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

    fn share(&mut self) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        // links that have a limit and are crossed, numbered
        let mut numbers: BTreeMap<Link, usize> = BTreeMap::new();
        let mut left: Vec<f64> = Vec::new();
        let mut open: Vec<(&mut Flow, Vec<usize>)> = Vec::with_capacity(self.flows.len());
        for flow in self.flows.values_mut() {
            let mut crossed = Vec::with_capacity(flow.links.len());
            for link in &flow.links {
                let Some(rate) = self.capacity.get(link) else {
                    continue;
                };
                let number = *numbers.entry(*link).or_insert_with(|| {
                    left.push(*rate);
                    left.len() - 1
                });
                crossed.push(number);
            }
            open.push((flow, crossed));
        }
        let mut users = vec![0u32; left.len()];
        while !open.is_empty() {
            users.fill(0);
            open.iter()
                .flat_map(|(_, links)| links)
                .for_each(|link| users[*link] += 1);
            let fair: Vec<f64> = left
                .iter()
                .zip(&users)
                .map(|(rate, n)| rate / f64::from(*n))
                .collect();
            let of = |flow: &Flow, links: &[usize]| {
                let shares = links.iter().map(|link| fair[*link]);
                shares.chain(flow.cap).fold(f64::INFINITY, f64::min)
            };
            let lowest = open
                .iter()
                .map(|(f, l)| of(f, l))
                .fold(f64::INFINITY, f64::min);
            // without any limit a transfer takes no time worth telling
            let rate = lowest.clamp(0.0, 1e12);
            let mut taken = vec![0.0; left.len()];
            open.retain_mut(|(flow, links)| {
                let fixed = of(flow, links) <= lowest * (1.0 + 1e-9);
                if fixed {
                    flow.rate = rate;
                    links.iter().for_each(|link| taken[*link] += rate);
                }
                !fixed
            });
            left.iter_mut()
                .zip(taken)
                .for_each(|(rate, taken)| *rate = (*rate - taken).max(0.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(links: &[Link], cap: Option<f64>, bytes: f64) -> Flow {
        Flow::new(0, 1, links.to_vec(), cap, vec![bytes])
    }

    #[test]
    fn shares_are_max_min_fair() {
        let (wan, slow) = (Link::Down(0), Link::In(7));
        let mut flows = Flows::default();
        flows.set_link(wan, Some(900.0));
        flows.set_link(slow, Some(100.0));
        let a = flows.begin(flow(&[wan], None, 1e9));
        let b = flows.begin(flow(&[wan, slow], None, 1e9));
        let c = flows.begin(flow(&[wan], Some(50.0), 1e9));
        let d = flows.begin(flow(&[wan], None, 1e9));
        flows.share();
        let rate = |n| flows.get(n).map(|f| f.rate.round());
        assert_eq!(
            [a, b, c, d].map(rate),
            [375.0, 100.0, 50.0, 375.0].map(Some)
        );
    }

    #[test]
    fn pieces_become_whole_in_order_and_in_time() {
        let mut flows = Flows::default();
        flows.set_link(Link::Down(0), Some(1000.0));
        let n = flows.begin(Flow::new(
            0,
            1,
            vec![Link::Down(0)],
            None,
            vec![500.0, 250.0],
        ));
        assert_eq!(flows.next_whole(), Some(Time(500)));
        assert_eq!(flows.advance(Time(500)), [(n, 1)]);
        assert_eq!(flows.take_fresh(n), 500);
        assert_eq!(flows.next_whole(), Some(Time(750)));
        assert_eq!(flows.advance(Time(800)), [(n, 2)]);
        assert_eq!(flows.take_fresh(n), 250);
    }
}
