//! What the seed drew happens: machines go and come, lines are cut, a LAN falls in two.

use node_core::contract::{Event, FetchOutcome, Ticket};
use protocol::Span;

use crate::faults::Mishap;
use crate::flows::{Link, Source};
use crate::island::{Happening, Island, mbit};
use crate::mail::Mail;
use crate::shared::Place;

/// A connection over which nothing comes is given up after this, as the data plane does.
pub(crate) const IDLE: Span = Span::from_secs(20);
/// The end of a connection inside the LAN is noticed after this.
const UNPLUGGED: Span = Span::from_secs(2);

impl Island {
    pub(crate) fn mishap(&mut self, mishap: Mishap) {
        match mishap {
            Mishap::Goes { slot, farewell } => {
                if farewell {
                    self.tell(slot, Event::Leaving);
                }
                self.kill(slot);
                self.machines[slot].away = true;
            }
            Mishap::Comes { slot, rebooted } => {
                let machine = &mut self.machines[slot];
                machine.away = false;
                machine.restarts |= rebooted;
                self.boot(slot);
            }
            Mishap::Wan { permille } => self.set_wan(permille),
            Mishap::Severed => self.sever(),
            Mishap::Splits => self.split(),
            // connections are made anew by whoever misses them
            Mishap::Joins => {}
        }
    }

    fn set_wan(&mut self, permille: u32) {
        let Some(site) = self.site() else { return };
        let rate = mbit(self.shared.sites[site].wan_mbit) * f64::from(permille) / 1000.0;
        self.flows.advance(self.time());
        self.flows.set_link(Link::Down, Some(rate));
    }

    /// Fetches from whoever cannot be reached any more come to nothing, which is noticed late.
    fn sever(&mut self) {
        let now = self.time();
        for n in 0..self.machines.len() {
            let fetches = self.machines[n].fetches.iter();
            let lost = fetches.filter(|(_, f)| !self.shared.reaches(self.part, f.from.part, now));
            let lost: Vec<Ticket> = lost.map(|(ticket, _)| *ticket).collect();
            for ticket in lost {
                self.stop_fetch(n, ticket);
                self.end_fetch(n, ticket, FetchOutcome::Broken, IDLE);
            }
        }
        let lost = self.served.all().map(|(_, asker)| *asker);
        let lost = lost.filter(|a| !self.shared.reaches(self.part, a.place.part, now));
        for asker in lost.collect::<Vec<_>>() {
            let outcome = FetchOutcome::Broken;
            self.send(asker.place.part, Span(0), Mail::Ended { asker, outcome });
        }
    }

    /// Whether a machine here reaches another machine.
    pub(crate) fn reaches(&self, n: usize, to: Place) -> bool {
        let now = self.time();
        match to.part == self.part {
            true => self.shared.fate.cuts().near(self.part, n, to.slot, now),
            false => self.shared.reaches(self.part, to.part, now),
        }
    }

    fn split(&mut self) {
        for n in 0..self.machines.len() {
            let links = self.machines[n].links.iter().copied();
            let lost: Vec<usize> = links
                .filter(|peer| !self.reaches(n, self.place(*peer)))
                .collect();
            for peer in lost {
                self.machines[n].links.remove(&peer);
                let process = self.machines[n].process();
                let event = Box::new(Event::Disconnected(self.machines[peer].node()));
                self.after(UNPLUGGED, Happening::Tell(n, process, event));
            }
        }
        for number in self.flows.numbers() {
            let Some(flow) = self.flows.get(number) else {
                continue;
            };
            let (to, ticket) = (flow.to, flow.ticket);
            let Source::Near(from) = flow.from else {
                continue;
            };
            if !self.reaches(to, self.place(from)) {
                self.stop_fetch(to, ticket);
                self.end_fetch(to, ticket, FetchOutcome::Broken, IDLE);
            }
        }
    }
}
