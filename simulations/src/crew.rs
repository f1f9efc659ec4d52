//! The threads that run the parts of the world. Each has parts of its own and runs those that have
//! something to do; who has which changes nothing in what comes of it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use protocol::Time;

use crate::flows::{Link, Use};
use crate::island::Island;
use crate::mail::Letter;
use crate::reach::Reach;
use crate::shared::Shared;
use crate::uplinks::Grant;

/// What a crew is to do.
pub struct Order {
    /// Parts that have nothing to do before this are left alone.
    pub until: Time,
    /// How far those that have may run.
    pub reach: Reach,
    /// No part runs any further.
    pub end: Time,
    /// What came for its parts, sorted.
    pub letters: Vec<Letter>,
    /// What its parts may take of others from now on, rising by part.
    pub grants: Vec<Grant>,
    /// Say what the parts take of others.
    pub looks: bool,
}

/// What came of it.
#[derive(Default)]
pub struct Done {
    /// What the parts send.
    pub letters: Vec<Letter>,
    /// What they take of others, rising by part.
    pub uses: Vec<(usize, Use)>,
    /// When the next of them has something to do.
    pub next: Option<Time>,
    /// How far others may run without hearing of what they have yet to do.
    pub reach: Reach,
}

/// The parts of the world that one thread runs.
struct Watch {
    shared: Arc<Shared>,
    islands: Vec<Island>,
    /// Apart from the islands, because every one is looked at again and again and few of them run.
    states: Vec<State>,
    /// So many threads have parts.
    count: usize,
}

/// How far a part is.
#[derive(Clone, Copy)]
struct State {
    part: usize,
    /// When it has something to do next; [`Time::MAX`]: never.
    next: Time,
    /// It ran until just before this.
    ran: Time,
}

impl Watch {
    /// Has every `count`th part.
    fn new(shared: Arc<Shared>, mut islands: Vec<Island>, count: usize) -> Watch {
        let states = islands.iter_mut().map(|island| State {
            part: island.part,
            next: island.next_at().unwrap_or(Time::MAX),
            ran: Time(0),
        });
        Watch {
            states: states.collect(),
            shared,
            islands,
            count,
        }
    }

    fn run(&mut self, order: Order) -> Done {
        let mut done = Done::default();
        for letter in order.letters {
            let number = letter.to / self.count;
            if let (Some(island), Some(state)) =
                (self.islands.get_mut(number), self.states.get_mut(number))
            {
                debug_assert!(letter.at >= state.ran, "a letter from the past");
                state.next = state.next.min(letter.at);
                island.take([letter]);
            }
        }
        let mut grants = order.grants.into_iter().peekable();
        for (state, island) in self.states.iter_mut().zip(&mut self.islands) {
            let mut granted = Vec::new();
            while let Some(grant) = grants.next_if(|grant| grant.to == state.part) {
                if !island.flows.has_rate(Link::Share(grant.from), grant.rate) {
                    granted.push(grant);
                }
            }
            if state.next < order.until || !granted.is_empty() {
                let until = order.reach.of(&self.shared, state.part).min(order.end);
                state.ran = until.max(state.ran);
                done.letters.extend(island.run(state.ran));
                // what follows from a grant may come sooner than what was to come: the others do not
                // run past it, because this part ran as far as it may
                for Grant { from, rate, .. } in granted {
                    island.flows.advance(state.ran);
                    island.flows.set_link(Link::Share(from), rate);
                }
                state.next = island.next_at().unwrap_or(Time::MAX);
            }
            if state.next < Time::MAX {
                done.next = done.next.into_iter().chain([state.next]).min();
                done.reach.has(&self.shared, state.part, state.next);
            }
            if order.looks {
                let uses = island.flows.uses();
                let uses = uses.into_iter().map(|one| (state.part, one));
                done.uses.extend(uses);
            }
        }
        done
    }
}

/// The threads.
pub enum Crew {
    /// None beside the one that asks.
    Alone(Box<Alone>),
    /// Some, each with its channel.
    Many(Vec<Hand>),
}

/// A crew that is not one.
pub struct Alone {
    watch: Watch,
    done: Option<Done>,
}

/// One thread.
pub struct Hand {
    orders: Sender<Order>,
    reports: Receiver<Done>,
    parts: Receiver<Vec<Island>>,
}

impl Crew {
    /// Hands the parts, which rise from 0, out in turn.
    pub fn new<'s>(
        scope: &'s Scope<'s, '_>,
        shared: &Arc<Shared>,
        islands: Vec<Island>,
        threads: usize,
    ) -> Crew {
        if threads <= 1 {
            let watch = Watch::new(shared.clone(), islands, 1);
            return Crew::Alone(Box::new(Alone { watch, done: None }));
        }
        let mut shares: Vec<Vec<Island>> = (0..threads).map(|_| Vec::new()).collect();
        for (n, island) in islands.into_iter().enumerate() {
            shares[n % threads].push(island);
        }
        let hands = shares.into_iter().map(|share| {
            let ((orders, ordered), (report, reports)) = (channel::<Order>(), channel());
            let (give_back, parts) = channel();
            let shared = shared.clone();
            scope.spawn(move || {
                let mut watch = Watch::new(shared, share, threads);
                while let Ok(order) = ordered.recv() {
                    if report.send(watch.run(order)).is_err() {
                        return;
                    }
                }
                // whoever asked may be gone
                drop(give_back.send(watch.islands));
            });
            Hand {
                orders,
                reports,
                parts,
            }
        });
        Crew::Many(hands.collect())
    }

    /// Has all run; [`Crew::report`] waits for them.
    pub fn order(&mut self, order: Order) {
        let hands = match self {
            Crew::Alone(alone) => {
                alone.done = Some(alone.watch.run(order));
                return;
            }
            Crew::Many(hands) => hands,
        };
        let count = hands.len();
        let mut orders: Vec<Order> = (0..count)
            .map(|_| Order {
                until: order.until,
                reach: order.reach,
                end: order.end,
                letters: Vec::new(),
                grants: Vec::new(),
                looks: order.looks,
            })
            .collect();
        for letter in order.letters {
            orders[letter.to % count].letters.push(letter);
        }
        for grant in order.grants {
            orders[grant.to % count].grants.push(grant);
        }
        for (hand, order) in hands.iter().zip(orders) {
            // a thread that panicked is noticed when it is joined
            drop(hand.orders.send(order));
        }
    }

    /// What came of the last order.
    pub fn report(&mut self) -> Done {
        let hands = match self {
            Crew::Alone(alone) => return alone.done.take().unwrap_or_default(),
            Crew::Many(hands) => hands,
        };
        let mut all = Done::default();
        for done in hands.iter().filter_map(|hand| hand.reports.recv().ok()) {
            all.letters.extend(done.letters);
            all.uses.extend(done.uses);
            all.next = all.next.into_iter().chain(done.next).min();
            all.reach.join(done.reach);
        }
        all.uses.sort_by_key(|(part, one)| (*part, one.from));
        all
    }

    /// Gives the parts back, rising.
    pub fn disband(self) -> Vec<Island> {
        let hands = match self {
            Crew::Alone(alone) => return alone.watch.islands,
            Crew::Many(hands) => hands,
        };
        let back = |hand: Hand| {
            drop(hand.orders);
            hand.parts.recv().unwrap_or_default()
        };
        let mut islands: Vec<Island> = hands.into_iter().flat_map(back).collect();
        islands.sort_by_key(|island| island.part);
        islands
    }
}
