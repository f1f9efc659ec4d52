//! What this node lacks and asks for: orders, documents, roots. One question at a time for each,
//! with a growing pause after every answer that did not help.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use protocol::wire::{Contact, ControlRequest, Presence};
use protocol::{Hash, NodeId, Now, Seq, Span, Time};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde::Serialize;

use crate::contract::{Action, Ticket};
use crate::outbox::Outbox;

/// Gossip usually brings what is missing within this time.
const PATIENCE: Span = Span::from_millis(300);
/// Pause after the first answer that did not help; it doubles.
const BACKOFF_MIN: Span = Span::from_millis(200);
/// Who is asked for orders and says nothing for so long is let be, and somebody else is asked: a halt
/// does not wait until a lost question is given up.
const ORDERS_PATIENCE: Span = Span::from_secs(1);
/// The longest pause.
const BACKOFF_MAX: Span = Span::from_secs(10);
/// A node of a site turns to the coordinator with every so many-th try only.
const TRIES_BEFORE_COORDINATOR: u32 = 6;

/// What a node asked others for since its start: orders, documents, roots, guides.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Trips {
    /// Questions.
    pub requests: u32,
    /// Round trips one after the other: questions that were under way at the same time share one.
    pub rounds: u32,
}

/// Something that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Wanted {
    /// Root metadata of this version.
    Root(u64),
    /// Orders after the head.
    Orders,
    /// A document.
    Document(Hash),
    /// Who nearby may have the topology.
    Guides,
}

/// Whom to ask.
pub(crate) struct Sources {
    /// Whether this node carries its site's feed: it brings documents into the site.
    pub(crate) carries: bool,
    /// This node, as it says who it is.
    pub(crate) me: Presence,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Contacts of the coordinator.
    pub(crate) coordinators: Vec<Contact>,
    /// The site's delegates without this node, the one that carries the feed first.
    pub(crate) delegates: Vec<Contact>,
    /// Members of the site that told of orders which this node lacks.
    pub(crate) ahead: Vec<Contact>,
    /// Members of the site without this node.
    pub(crate) members: Vec<Contact>,
    /// Orders are asked for after this.
    pub(crate) after: Seq,
}

/// An answer that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pulled {
    /// What was asked for.
    pub(crate) wanted: Wanted,
    /// Who answered or should have.
    pub(crate) from: NodeId,
    /// For orders: after which number.
    pub(crate) after: Seq,
}

struct Pull {
    asked: Option<Asked>,
    tries: u32,
    next: Time,
}

struct Asked {
    ticket: Ticket,
    /// Which round trip after the start it is part of.
    round: u32,
    from: NodeId,
    after: Seq,
    /// When it is asked for again, whether an answer came or not.
    patience: Time,
}

impl Pull {
    /// When it is asked for next.
    fn due(&self) -> Time {
        self.asked
            .as_ref()
            .map_or(self.next, |asked| asked.patience)
    }
}

/// All open questions.
pub(crate) struct Pulls {
    open: BTreeMap<Wanted, Pull>,
    trips: Trips,
    rng: ChaCha8Rng,
}

impl Pulls {
    /// No questions; `seed` spreads who asks whom and when.
    pub(crate) fn new(seed: u64) -> Pulls {
        Pulls {
            open: BTreeMap::new(),
            trips: Trips::default(),
            rng: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// From now on exactly these are wanted. A question that is under way is not taken back.
    pub(crate) fn set(&mut self, wanted: &BTreeSet<Wanted>, now: Now) {
        self.open
            .retain(|w, pull| wanted.contains(w) || pull.asked.is_some());
        for want in wanted {
            if !self.open.contains_key(want) {
                let patience = if *want == Wanted::Orders {
                    PATIENCE
                } else {
                    Span::ZERO
                };
                let next = Time(now.boot.0 + patience.0 + self.jitter(PATIENCE));
                self.open.insert(
                    *want,
                    Pull {
                        asked: None,
                        tries: 0,
                        next,
                    },
                );
            }
        }
    }

    /// Asks what is due.
    pub(crate) fn ask(&mut self, now: Now, sources: &Sources, out: &mut Outbox) {
        let is_due = |p: &Pull| p.due() <= now.boot;
        let documents = |w: &Wanted| matches!(w, Wanted::Document(_));
        // Documents that nobody was asked for yet go along with the first of them, in one round trip.
        let along = self.open.iter().any(|(w, p)| documents(w) && is_due(p));
        let new = |w: &Wanted, p: &Pull| along && documents(w) && p.asked.is_none() && p.tries == 0;
        let due = self.open.iter().filter(|(w, p)| is_due(p) || new(w, p));
        let mut due: Vec<(Time, Wanted)> = due.map(|(w, p)| (p.due(), *w)).collect();
        due.sort_unstable();
        for (_, wanted) in due {
            let silent = |p: &mut Pull| p.tries += u32::from(p.asked.take().is_some());
            self.open.get_mut(&wanted).map(silent);
            let tries = self.open[&wanted].tries;
            let to = self.choose(wanted, tries, sources);
            let jitter = self.jitter(BACKOFF_MIN);
            let Some(pull) = self.open.get_mut(&wanted) else {
                continue;
            };
            let Some(to) = to else {
                pull.tries += 1;
                pull.next = backoff(now, pull.tries, jitter);
                continue;
            };
            let request = match wanted {
                Wanted::Root(version) => ControlRequest::PullRoot { version },
                Wanted::Orders => ControlRequest::PullOrders {
                    after: sources.after,
                },
                Wanted::Document(digest) => ControlRequest::PullDocument { digest },
                Wanted::Guides => ControlRequest::Guide {
                    me: sources.me.clone(),
                    addresses: sources.addresses.clone(),
                },
            };
            let ticket = out.ticket();
            // The way to the coordinator is long, and the connection that is made for it ends with the answer.
            let near = !sources.coordinators.iter().any(|c| c.node == to.node);
            self.trips.requests += 1;
            pull.asked = Some(Asked {
                ticket,
                round: self.trips.rounds + 1,
                from: to.node,
                after: sources.after,
                patience: match wanted {
                    Wanted::Orders if near => now.boot + ORDERS_PATIENCE,
                    _ => Time::MAX,
                },
            });
            out.push(Action::Ask {
                ticket,
                to,
                request: Box::new(request),
                own_statuses: Vec::new(),
            });
        }
    }

    /// An answer came, or will not come. What it brought was taken in before; if it is still wanted,
    /// it is asked for again after a pause.
    pub(crate) fn answered(&mut self, ticket: Ticket, now: Now) -> Option<Pulled> {
        let jitter = self.jitter(BACKOFF_MIN);
        let asked_by = |p: &Pull| p.asked.as_ref().is_some_and(|a| a.ticket == ticket);
        let (wanted, pull) = self.open.iter_mut().find(|(_, p)| asked_by(p))?;
        let Asked {
            from, after, round, ..
        } = pull.asked.take()?;
        self.trips.rounds = self.trips.rounds.max(round);
        pull.tries += 1;
        pull.next = backoff(now, pull.tries, jitter);
        Some(Pulled {
            wanted: *wanted,
            from,
            after,
        })
    }

    /// What it asked for so far.
    pub(crate) fn trips(&self) -> Trips {
        self.trips
    }

    /// Whether somebody is being asked for this.
    pub(crate) fn is_asking(&self, wanted: Wanted) -> bool {
        self.open.get(&wanted).is_some_and(|p| p.asked.is_some())
    }

    /// When the next question is due.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let due = self.open.values().map(Pull::due).min();
        due.filter(|at| *at != Time::MAX)
    }

    fn choose(&mut self, wanted: Wanted, tries: u32, sources: &Sources) -> Option<Contact> {
        let members: &[Contact] = match wanted {
            Wanted::Orders => &sources.ahead,
            _ => &sources.members,
        };
        // The feed brings orders; who carries it asks the members when it is down.
        let coordinators_turn = match (wanted, sources.carries) {
            (Wanted::Guides, _) => true,
            (Wanted::Orders, true) => false,
            (_, true) => tries.is_multiple_of(2),
            (_, false) => tries % TRIES_BEFORE_COORDINATOR == TRIES_BEFORE_COORDINATOR - 1,
        };
        // Documents come into the site by a delegate. Its word is worth a second try: among the members
        // they spread slowly as long as one alone has them, and who waits too long asks the coordinator.
        let delegates_turn = wanted != Wanted::Orders && tries.is_multiple_of(2);
        let turn = (tries / 2) as usize % sources.delegates.len().max(1);
        let delegate = sources.delegates.get(turn..=turn).unwrap_or_default();
        let turns: [&[Contact]; 3] = if coordinators_turn {
            let others = if wanted == Wanted::Guides {
                &[]
            } else {
                members
            };
            [&sources.coordinators, others, &[]]
        } else if delegates_turn {
            [delegate, members, &sources.coordinators]
        } else {
            [members, &sources.delegates, &sources.coordinators]
        };
        let pool = turns.into_iter().find(|pool| !pool.is_empty())?;
        let i = self.rng.next_u32() as usize % pool.len();
        pool.get(i).cloned()
    }

    fn jitter(&mut self, below: Span) -> u64 {
        u64::from(self.rng.next_u32()) % below.0.max(1)
    }
}

fn backoff(now: Now, tries: u32, jitter: u64) -> Time {
    let pause = BACKOFF_MIN
        .0
        .saturating_mul(1 << tries.min(16))
        .min(BACKOFF_MAX.0);
    Time(now.boot.0 + pause + jitter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{contact, seq};

    fn sources(carries: bool) -> Sources {
        Sources {
            carries,
            me: Presence {
                contact: contact(3),
                site: None,
                roaming: false,
                seq: seq(1),
                orders_head: seq(3),
                leaving: false,
            },
            addresses: Vec::new(),
            coordinators: vec![contact(100)],
            delegates: vec![contact(1)],
            ahead: vec![contact(1)],
            members: vec![contact(1), contact(2)],
            after: seq(3),
        }
    }

    fn asked(out: &mut Outbox) -> Vec<(Ticket, NodeId)> {
        let mut asked = Vec::new();
        while let Some(action) = out.pop() {
            if let Action::Ask { ticket, to, .. } = action {
                asked.push((ticket, to.node));
            }
        }
        asked
    }

    #[test]
    fn one_question_at_a_time_with_growing_pauses_and_the_coordinator_last() {
        let mut pulls = Pulls::new(7);
        let mut out = Outbox::default();
        let mut now = Now::default();
        let want = BTreeSet::from([Wanted::Document(Hash::of(b"plan"))]);
        let mut whom = Vec::new();
        for _ in 0..12 {
            pulls.set(&want, now);
            now.boot = now.boot.max(pulls.timeout().unwrap());
            pulls.ask(now, &sources(false), &mut out);
            pulls.ask(now, &sources(false), &mut out);
            let [(ticket, node)] = asked(&mut out)[..] else {
                panic!("one question")
            };
            whom.push(node);
            assert_eq!(pulls.answered(ticket, now).unwrap().from, node);
        }
        assert_eq!(whom[0], contact(1).node, "a delegate has it first");
        let coordinator = contact(100).node;
        let turns: Vec<_> = (0..12).filter(|i| whom[*i] == coordinator).collect();
        assert_eq!(turns, [5, 11]);
        pulls.set(&BTreeSet::new(), now);
        assert_eq!(pulls.timeout(), None);
    }

    /// A plan that a delegate fetched over a slow WAN went from hand to hand for so long that most of the
    /// site turned to the coordinator: whoever had asked the delegate too early never asked it again.
    #[test]
    fn who_asked_a_delegate_too_early_asks_again_before_it_turns_to_the_coordinator() {
        let mut pulls = Pulls::new(7);
        let mut out = Outbox::default();
        let mut now = Now::default();
        let want = BTreeSet::from([Wanted::Document(Hash::of(b"plan"))]);
        let mut sources = sources(false);
        sources.members = (1..=50).map(contact).collect();
        sources.delegates = vec![contact(1), contact(2)];
        pulls.set(&want, now);
        let mut whom = Vec::new();
        for _ in 0..5 {
            now.boot = now.boot.max(pulls.timeout().unwrap());
            pulls.ask(now, &sources, &mut out);
            let [(ticket, node)] = asked(&mut out)[..] else {
                panic!("one question")
            };
            whom.push(node);
            pulls.answered(ticket, now);
        }
        let [first, second] = [1, 2].map(|n| contact(n).node);
        assert_eq!([whom[0], whom[2], whom[4]], [first, second, first]);
    }

    #[test]
    fn orders_are_pulled_from_those_who_are_ahead() {
        let mut pulls = Pulls::new(7);
        let mut out = Outbox::default();
        pulls.set(&BTreeSet::from([Wanted::Orders]), Now::default());
        let now = Now {
            boot: Time::from_secs(9),
            wall: Time(0),
        };
        pulls.ask(now, &sources(false), &mut out);
        let [(_, node)] = asked(&mut out)[..] else {
            panic!("one question")
        };
        assert_eq!(node, contact(1).node);
    }

    #[test]
    fn what_is_wanted_at_once_is_asked_for_at_once_and_is_one_round_trip() {
        let mut pulls = Pulls::new(7);
        let mut out = Outbox::default();
        let mut now = Now::default();
        let want: BTreeSet<Wanted> = (0..24u8)
            .map(|n| Wanted::Document(Hash::of(&[n])))
            .collect();
        for round in 1..=3 {
            pulls.set(&want, now);
            now.boot = pulls.timeout().unwrap();
            pulls.ask(now, &sources(false), &mut out);
            let asked = asked(&mut out);
            assert_eq!(asked.len(), 24);
            for (ticket, _) in asked {
                pulls.answered(ticket, now);
            }
            let requests = 24 * round;
            assert_eq!(
                pulls.trips(),
                Trips {
                    requests,
                    rounds: round
                }
            );
            pulls.set(&BTreeSet::new(), now);
        }
    }

    /// The question was lost, and a halt came only when it was given up, ten seconds later.
    #[test]
    fn who_says_nothing_about_orders_is_not_waited_for() {
        let mut pulls = Pulls::new(7);
        let mut out = Outbox::default();
        let mut now = Now::default();
        pulls.set(&BTreeSet::from([Wanted::Orders]), now);
        now.boot = pulls.timeout().unwrap();
        pulls.ask(now, &sources(false), &mut out);
        let [(lost, _)] = asked(&mut out)[..] else {
            panic!("one question")
        };
        assert_eq!(pulls.timeout(), Some(now.boot + ORDERS_PATIENCE));
        now.boot = now.boot + ORDERS_PATIENCE;
        pulls.ask(now, &sources(false), &mut out);
        let [(ticket, _)] = asked(&mut out)[..] else {
            panic!("another question")
        };
        assert_eq!(pulls.answered(lost, now), None, "too late");
        assert!(pulls.is_asking(Wanted::Orders));
        assert_eq!(pulls.answered(ticket, now).unwrap().wanted, Wanted::Orders);
    }
}
