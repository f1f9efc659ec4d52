//! Who knocked at this node's doors and is no node: kept for a moment, then told upward.
//!
//! A node tells the first delegate of its site, inside the LAN, and a delegate tells the coordinator what it
//! saw and heard: so one machine that knocks at every door of a site costs its WAN a message a minute. A
//! machine is named by the key that it proved and its address. Who proved no key is not noted where a node of
//! the fleet is known to live: that one's handshake may just have gone wrong.

use core::net::IpAddr;
use std::collections::BTreeMap;

use protocol::limits::{STRANGERS_GATHER, STRANGERS_INTERVAL, STRANGERS_MAX};
use protocol::strangers::{Knock, Stranger};
use protocol::wire::{Contact, ControlReply, ControlRequest};
use protocol::{NodeId, Now, Span, Time};

use crate::contract::{Action, Ticket};
use crate::outbox::Outbox;

/// The pause after a telling that failed doubles so many times.
const DOUBLES_MAX: u32 = 4;

/// Somebody at a door, as the body saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Visit {
    /// Whose key it proved to have.
    pub node: Option<NodeId>,
    /// From where.
    pub address: IpAddr,
    /// What it showed.
    pub knock: Knock,
}

/// Those that were not told yet.
#[derive(Default)]
pub(crate) struct Strangers {
    seen: BTreeMap<(Option<NodeId>, IpAddr), Stranger>,
    asked: Option<(Ticket, NodeId, Vec<Stranger>)>,
    /// When to tell; none if there is nobody to tell of.
    due: Option<Time>,
    not_before: Time,
    failures: u32,
}

impl Strangers {
    /// Somebody knocked at a door of this node.
    pub(crate) fn knocked(&mut self, me: NodeId, visit: &Visit, now: Now) {
        let stranger = Stranger {
            node: visit.node,
            address: visit.address,
            knock: visit.knock,
            seen_by: me,
            first: now.wall,
            last: now.wall,
            times: 1,
        };
        self.note(stranger, now);
    }

    /// A node of the site tells whom it saw.
    pub(crate) fn heard(&mut self, seen: Vec<Stranger>, now: Now) {
        for mut stranger in seen.into_iter().take(STRANGERS_MAX) {
            stranger.last = stranger.last.min(now.wall);
            stranger.first = stranger.first.min(stranger.last);
            self.note(stranger, now);
        }
    }

    fn note(&mut self, stranger: Stranger, now: Now) {
        let key = (stranger.node, stranger.address);
        if let Some(held) = self.seen.get_mut(&key) {
            held.join(&stranger);
            return;
        }
        if self.seen.len() >= STRANGERS_MAX {
            let oldest = self.seen.iter().min_by_key(|(_, held)| held.last);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.seen.remove(&oldest);
            }
        }
        self.seen.insert(key, stranger);
        let soon = (now.boot + STRANGERS_GATHER).max(self.not_before);
        self.due = self.due.or(Some(soon));
    }

    /// Which of so many is to be told: another one after each failure.
    pub(crate) fn turn(&self, of: usize) -> usize {
        self.failures as usize % of.max(1)
    }

    /// When there is something to tell.
    pub(crate) fn timeout(&self) -> Option<Time> {
        self.due.filter(|_| self.asked.is_none())
    }

    /// Tells it to `to`, if there is anybody to tell.
    pub(crate) fn tell(&mut self, to: Option<Contact>, now: Now, out: &mut Outbox) {
        let pause = STRANGERS_INTERVAL.0 << self.failures.min(DOUBLES_MAX);
        self.not_before = now.boot + Span(pause);
        let Some(to) = to else {
            self.due = Some(self.not_before);
            return;
        };
        self.due = None;
        let told: Vec<Stranger> = std::mem::take(&mut self.seen).into_values().collect();
        if told.is_empty() {
            return;
        }
        let ticket = out.ticket();
        self.asked = Some((ticket, to.node, told.clone()));
        out.push(Action::Ask {
            ticket,
            to,
            request: Box::new(ControlRequest::Strangers(told)),
            own_statuses: Vec::new(),
        });
    }

    /// An answer came, or will not come; who was asked if it was this room's. What was not taken is told
    /// again.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        reply: Option<&ControlReply>,
        now: Now,
    ) -> Option<NodeId> {
        let (_, asked, told) = self.asked.take_if(|(asked, ..)| *asked == ticket)?;
        if matches!(reply, Some(ControlReply::Done)) {
            self.failures = 0;
        } else {
            self.failures += 1;
            told.into_iter()
                .for_each(|stranger| self.note(stranger, now));
        }
        self.due = self.due.map(|at| at.max(self.not_before));
        Some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protocol::fixtures::{contact, node};

    #[derive(Default)]
    struct Bench {
        strangers: Strangers,
        out: Outbox,
        now: Now,
    }

    impl Bench {
        fn knock(&mut self, from: u8) {
            let visit = Visit {
                node: None,
                address: [10, 0, 0, from].into(),
                knock: Knock::Bare,
            };
            self.strangers.knocked(node(1), &visit, self.now);
        }

        /// Waits until there is something to tell, and tells it to `to`.
        fn tell(&mut self, to: u64) -> (Ticket, Vec<Stranger>) {
            self.now.boot = self.strangers.timeout().expect("something to tell");
            self.strangers
                .tell(Some(contact(to)), self.now, &mut self.out);
            match self.out.pop() {
                Some(Action::Ask {
                    ticket, request, ..
                }) => match *request {
                    ControlRequest::Strangers(told) => (ticket, told),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            }
        }

        fn answer(&mut self, ticket: Ticket, reply: Option<ControlReply>) {
            let asked = self.strangers.answered(ticket, reply.as_ref(), self.now);
            assert_eq!(asked, Some(contact(9).node));
        }
    }

    #[test]
    fn a_machine_that_knocks_a_thousand_times_is_told_of_once_a_minute() {
        let mut bench = Bench::default();
        let mut told = Vec::new();
        let end = Time(0) + Span(5 * STRANGERS_INTERVAL.0);
        while bench.now.boot < end {
            bench.knock(7);
            if bench
                .strangers
                .timeout()
                .is_some_and(|at| at <= bench.now.boot)
            {
                let (ticket, list) = bench.tell(9);
                assert_eq!(list.len(), 1);
                told.push(list[0].times);
                bench.answer(ticket, Some(ControlReply::Done));
            }
            bench.now.boot = bench.now.boot + Span::from_millis(100);
        }
        assert!((4..=6).contains(&told.len()), "{told:?}");
        assert!(
            told[0] < told[1],
            "the first time soon, then gathered: {told:?}"
        );
    }

    #[test]
    fn what_was_not_taken_is_told_again_after_growing_pauses() {
        let mut bench = Bench::default();
        bench.knock(7);
        let mut pauses = Vec::new();
        for reply in [
            None,
            Some(ControlReply::Refused("old".into())),
            None,
            None,
            None,
            None,
            None,
        ] {
            let (ticket, told) = bench.tell(9);
            assert_eq!((told.len(), told[0].times), (1, 1));
            bench.answer(ticket, reply);
            bench.knock(8);
            bench.strangers.seen.remove(&(None, [10, 0, 0, 8].into()));
            let next = bench.strangers.timeout().expect("it is told again");
            pauses.push(next.since(bench.now.boot).0 / STRANGERS_INTERVAL.0);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 16, 16]);
        let (ticket, _) = bench.tell(9);
        bench.answer(ticket, Some(ControlReply::Done));
        assert_eq!(bench.strangers.timeout(), None, "nothing is left to tell");
    }

    #[test]
    fn without_anybody_to_tell_it_waits() {
        let mut bench = Bench::default();
        bench.knock(7);
        bench.now.boot = bench.strangers.timeout().expect("due");
        bench.strangers.tell(None, bench.now, &mut bench.out);
        assert!(bench.out.pop().is_none());
        let at = bench.strangers.timeout().expect("it asks again");
        assert_eq!(at, bench.now.boot + STRANGERS_INTERVAL);
    }

    proptest! {
        /// Whatever knocks, and whatever a member tells: the table and what is told of it keep to the limit.
        #[test]
        fn nobody_fills_the_table(steps in prop::collection::vec((any::<bool>(), any::<u16>(), 0u64..100), 0..400)) {
            let mut bench = Bench::default();
            for (own, address, after) in steps {
                bench.now.boot = bench.now.boot + Span::from_millis(after);
                bench.now.wall = bench.now.boot;
                let address = IpAddr::from([10, 0, (address >> 8) as u8, address as u8]);
                if own {
                    let visit = Visit { node: None, address, knock: Knock::Garbage };
                    bench.strangers.knocked(node(1), &visit, bench.now);
                } else {
                    let stranger = Stranger {
                        node: Some(node(7)), address, knock: Knock::Refused, seen_by: node(2),
                        first: Time(0), last: bench.now.wall, times: u32::MAX,
                    };
                    let last = bench.now.wall;
                    bench.strangers.heard(vec![stranger; 3], bench.now);
                    prop_assert!(bench.strangers.seen.values().any(|s| s.last == last), "the newest is kept");
                }
                prop_assert!(bench.strangers.seen.len() <= STRANGERS_MAX);
                if bench.strangers.timeout().is_some_and(|at| at <= bench.now.boot) {
                    let (ticket, told) = bench.tell(9);
                    prop_assert!(told.len() <= STRANGERS_MAX);
                    bench.answer(ticket, None);
                }
            }
        }
    }
}
