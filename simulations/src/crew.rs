//! The threads that run the parts of the world. Each has parts of its own and runs those that have
//! something to do; who has which changes nothing in what comes of it.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use protocol::Time;

use crate::flows::{Link, Use};
use crate::island::Island;
use crate::mail::Letter;
use crate::uplinks::Grant;

/// What a crew is to do.
pub struct Order {
    /// All ran until just before this.
    pub since: Time,
    /// Run until just before this.
    pub until: Time,
    /// What came for its parts, sorted.
    pub letters: Vec<Letter>,
    /// What its parts may take of others from now on.
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
}

/// The parts of the world that one thread runs.
struct Watch {
    islands: BTreeMap<usize, (Island, Option<Time>)>,
}

impl Watch {
    fn new(islands: Vec<Island>) -> Watch {
        let islands = islands.into_iter().map(|mut island| {
            let next = island.next_at();
            (island.part, (island, next))
        });
        Watch {
            islands: islands.collect(),
        }
    }

    fn run(&mut self, order: Order) -> Done {
        let mut done = Done::default();
        for letter in order.letters {
            if let Some((island, next)) = self.islands.get_mut(&letter.to) {
                *next = Some(next.map_or(letter.at, |at| at.min(letter.at)));
                island.take([letter]);
            }
        }
        for Grant { to, from, rate } in order.grants {
            if let Some((island, next)) = self.islands.get_mut(&to) {
                island.flows.advance(order.since);
                island.flows.set_link(Link::Share(from), rate);
                *next = island.next_at();
            }
        }
        for (island, next) in self.islands.values_mut() {
            if next.is_some_and(|at| at < order.until) {
                done.letters.extend(island.run(order.until));
                *next = island.next_at();
            }
            done.next = done.next.into_iter().chain(*next).min();
            if order.looks {
                let uses = island.flows.uses();
                done.uses
                    .extend(uses.into_iter().map(|one| (island.part, one)));
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
    /// Hands the parts out in turn.
    pub fn new<'s>(scope: &'s Scope<'s, '_>, islands: Vec<Island>, threads: usize) -> Crew {
        if threads <= 1 {
            let watch = Watch::new(islands);
            return Crew::Alone(Box::new(Alone { watch, done: None }));
        }
        let mut shares: Vec<Vec<Island>> = (0..threads).map(|_| Vec::new()).collect();
        for (n, island) in islands.into_iter().enumerate() {
            shares[n % threads].push(island);
        }
        let hands = shares.into_iter().map(|share| {
            let ((orders, ordered), (report, reports)) = (channel::<Order>(), channel());
            let (give_back, parts) = channel();
            scope.spawn(move || {
                let mut watch = Watch::new(share);
                while let Ok(order) = ordered.recv() {
                    if report.send(watch.run(order)).is_err() {
                        return;
                    }
                }
                let islands = watch.islands.into_values().map(|(island, _)| island);
                // whoever asked may be gone
                drop(give_back.send(islands.collect()));
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
                since: order.since,
                until: order.until,
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
        }
        all.uses.sort_by_key(|(part, one)| (*part, one.from));
        all
    }

    /// Gives the parts back, rising.
    pub fn disband(self) -> Vec<Island> {
        let hands = match self {
            Crew::Alone(alone) => {
                let islands = alone.watch.islands.into_values();
                return islands.map(|(island, _)| island).collect();
            }
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
