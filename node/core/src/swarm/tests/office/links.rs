//! Bytes on their way: each link is shared evenly by what crosses it.

use std::collections::BTreeSet;

use protocol::BlobRef;

use super::running::{Running, What};
use crate::contract::{FetchOutcome, Ticket};
use crate::swarm::Input;

/// One piece on its way.
pub(super) struct Flow {
    pub(super) to: usize,
    pub(super) from: Option<usize>,
    pub(super) ticket: Ticket,
    pub(super) blob: BlobRef,
    pub(super) piece: u32,
    pub(super) limit: f64,
    pub(super) left: f64,
    pub(super) fresh: f64,
    pub(super) rate: f64,
    pub(super) at: f64,
    pub(super) begun: bool,
}

impl Running {
    // ---- bytes -------------------------------------------------------------------------------

    pub(super) fn begin(&mut self, number: u64) {
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        let (blob, piece) = (flow.blob, flow.piece);
        let held = flow
            .from
            .is_none_or(|s| self.desks[s].disk[&blob].0.contains(piece));
        if !held {
            return self.ended(number, FetchOutcome::NotHeld);
        }
        let range = self.office.grain.cut(blob.length).piece_range(piece);
        let partial = self.desks[flow.to].disk[&blob].1.get(&piece).copied();
        flow.left = (range.end - range.start) as f64 - partial.unwrap_or(0.0);
        (flow.at, flow.begun) = (self.now as f64, true);
        match flow.from {
            Some(from) => {
                self.desks[from].serves.insert(number);
            }
            None => {
                if self.crossing.is_empty() && self.wan_bytes > 0.0 {
                    self.longest_quiet = self.longest_quiet.max(self.now - self.quiet_since);
                }
                self.crossing.insert(number);
            }
        }
        self.share(number);
    }

    /// Brings a flow's bytes up to now.
    pub(super) fn advance(&mut self, number: u64) {
        let Some(flow) = self.flows.get_mut(&number) else {
            return;
        };
        let bytes = ((self.now as f64 - flow.at) / 1000.0 * flow.rate).min(flow.left);
        flow.at = self.now as f64;
        flow.left -= bytes;
        flow.fresh += bytes;
        if flow.from.is_none() {
            self.wan_bytes += bytes;
        } else {
            self.lan_bytes += bytes;
        }
    }

    /// New rates for all that share a link with this flow.
    pub(super) fn share(&mut self, number: u64) {
        let flow = &self.flows[&number];
        let touched: BTreeSet<u64> = match flow.from {
            None => self.crossing.iter().copied().collect(),
            Some(from) => {
                let at_target = self.desks[flow.to].flows.iter();
                self.desks[from]
                    .serves
                    .iter()
                    .chain(at_target)
                    .copied()
                    .collect()
            }
        };
        let mut limits: Vec<f64> = self.crossing.iter().map(|f| self.flows[f].limit).collect();
        limits.sort_by(f64::total_cmp);
        let (mut left, mut level) = (self.office.wan, 0.0);
        for (i, limit) in limits.iter().enumerate() {
            level = left / (limits.len() - i) as f64;
            if *limit > level {
                break;
            }
            left -= limit;
        }
        for number in touched {
            if !self.flows[&number].begun {
                continue;
            }
            self.advance(number);
            let flow = &self.flows[&number];
            let rate = match flow.from {
                None => flow.limit.min(level),
                Some(from) => {
                    let lan = |n: &usize| {
                        let lan = |f: &&u64| self.flows[f].from.is_some() && self.flows[f].begun;
                        self.desks[*n].flows.iter().filter(lan).count().max(1) as f64
                    };
                    let out = self.office.lan / self.desks[from].serves.len().max(1) as f64;
                    out.min(self.office.lan / lan(&flow.to))
                }
            };
            let flow = self.flows.get_mut(&number).unwrap();
            flow.rate = rate;
            let end = self.now + ((flow.left / rate * 1000.0).ceil() as u64).max(1);
            if let Some(before) = self.ends.insert(number, end) {
                self.due.remove(&(before, number));
            }
            self.due.insert((end, number));
        }
    }

    pub(super) fn ended(&mut self, number: u64, outcome: FetchOutcome) {
        self.advance(number);
        if let Some(end) = self.ends.remove(&number) {
            self.due.remove(&(end, number));
        }
        let begun = self.flows[&number].begun;
        let (to, from) = (self.flows[&number].to, self.flows[&number].from);
        self.desks[to].flows.remove(&number);
        if let Some(from) = from {
            self.desks[from].serves.remove(&number);
        }
        self.crossing.remove(&number);
        if begun {
            self.share(number);
        }
        if let Some(end) = self.ends.remove(&number) {
            self.due.remove(&(end, number));
        }
        if self.crossing.is_empty() && from.is_none() {
            self.quiet_since = self.now;
        }
        let flow = self.flows.remove(&number).unwrap();
        let cut = self.office.grain.cut(flow.blob.length);
        let disk = self.desks[to].disk.get_mut(&flow.blob).unwrap();
        if outcome == FetchOutcome::Complete {
            disk.0.insert(flow.piece);
        } else if begun {
            let range = cut.piece_range(flow.piece);
            let came = ((range.end - range.start) as f64 - flow.left).max(0.0);
            let partial = disk.1.entry(flow.piece).or_default();
            *partial = partial.max(came);
        }
        let ended = Input::FetchEnded(flow.ticket, outcome);
        if outcome == FetchOutcome::Cancelled {
            self.post(1, What::Tell(to, ended));
        } else {
            self.tell(to, ended);
        }
    }
}
