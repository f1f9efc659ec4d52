//! Guests: nodes of other sites that take pieces from this one, because the origin referred them here.
//!
//! The origin cuts what a site gives out of what its WAN carries; here is only the last word: whether
//! both sites may, and no more at once than one node bears.

use std::collections::BTreeSet;

use protocol::limits::GUESTS_MAX;

use crate::contract::{Action, Service, Ticket};
use crate::outbox::Outbox;

/// Those who are being served.
#[derive(Default)]
pub(crate) struct Guests(BTreeSet<Ticket>);

impl Guests {
    /// Somebody asks, from a site to which this one `may` give.
    pub(crate) fn wanted(&mut self, may: bool, ticket: Ticket, out: &mut Outbox) {
        let service = if !may {
            Service::Refuse
        } else if self.0.len() >= GUESTS_MAX {
            Service::Busy
        } else {
            self.0.insert(ticket);
            // The asker keeps to the rate that the origin promised it.
            Service::Send { max_bytes_per_s: 0 }
        };
        out.push(Action::Serve { ticket, service });
    }

    /// Somebody is gone, or has what it asked for.
    pub(crate) fn left(&mut self, ticket: Ticket) {
        self.0.remove(&ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_come_from_sites_that_may_and_not_too_many_at_once() {
        let (mut guests, mut out) = (Guests::default(), Outbox::default());
        let mut answer = |guests: &mut Guests, may, n| {
            guests.wanted(may, Ticket(n), &mut out);
            match out.pop() {
                Some(Action::Serve { service, .. }) => service,
                other => panic!("{other:?}"),
            }
        };
        let sends = Service::Send { max_bytes_per_s: 0 };
        assert_eq!(answer(&mut guests, false, 0), Service::Refuse);
        for n in 1..=GUESTS_MAX as u64 {
            assert_eq!(answer(&mut guests, true, n), sends);
        }
        assert_eq!(answer(&mut guests, true, 99), Service::Busy);
        guests.left(Ticket(1));
        assert_eq!(answer(&mut guests, true, 99), sends);
    }
}
