//! The threads that run the parts of the world, the one that asks among them. Each has a share of the
//! parts, whose memory its core has near, and whoever is through with its share takes from the other end of
//! another's: who ran what changes nothing in what comes of it.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

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
    /// What came for the parts, sorted.
    pub letters: Vec<Letter>,
    /// What parts may take of others from now on, rising by part.
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

/// All threads together.
pub struct Crew<'s> {
    bench: Arc<Bench>,
    hands: Vec<Hand<'s>>,
    /// When each part has something to do next; [`Time::MAX`]: never.
    nexts: Vec<Time>,
    round: Round,
}

/// One thread beside the one that asks.
struct Hand<'s> {
    rounds: Sender<Round>,
    reports: Receiver<Report>,
    thread: ScopedJoinHandle<'s, ()>,
}

/// What all threads reach.
struct Bench {
    shared: Arc<Shared>,
    parts: Vec<Mutex<Part>>,
    /// What is to be done in a round, a share for each thread.
    shares: Vec<Mutex<VecDeque<Task>>>,
}

/// A part, and until just before when it ran.
struct Part {
    island: Island,
    ran: Time,
}

/// What holds for all tasks of a round.
#[derive(Clone, Copy, Default)]
struct Round {
    until: Time,
    reach: Reach,
    end: Time,
    looks: bool,
}

/// What one part is to do.
struct Task {
    part: usize,
    next: Time,
    letters: Vec<Letter>,
    grants: Vec<Grant>,
}

/// What came of a thread's tasks.
#[derive(Default)]
struct Report {
    letters: Vec<Letter>,
    uses: Vec<(usize, Use)>,
    nexts: Vec<(usize, Time)>,
}

/// A thread that panicked is reported when it is joined; until then its parts are as it left them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bench {
    /// Does what there is to do in a round, beginning with one's own share.
    fn work(&self, own: usize, round: Round) -> Report {
        let mut report = Report::default();
        while let Some(task) = self.take(own) {
            self.run(task, round, &mut report);
        }
        report
    }

    fn take(&self, own: usize) -> Option<Task> {
        let mine = lock(&self.shares[own]).pop_front();
        let others = || {
            let others = (1..self.shares.len()).map(|n| (own + n) % self.shares.len());
            others
                .filter_map(|other| lock(&self.shares[other]).pop_back())
                .next()
        };
        mine.or_else(others)
    }

    fn run(&self, task: Task, round: Round, report: &mut Report) {
        let mut part = lock(&self.parts[task.part]);
        let Part { island, ran } = &mut *part;
        debug_assert!(
            task.letters.iter().all(|letter| letter.at >= *ran),
            "a letter from the past"
        );
        island.take(task.letters);
        let has = |grant: &Grant| island.flows.has_rate(Link::Share(grant.from), grant.rate);
        let granted: Vec<Grant> = task.grants.into_iter().filter(|g| !has(g)).collect();
        if task.next < round.until || !granted.is_empty() {
            let until = round.reach.of(&self.shared, task.part).min(round.end);
            *ran = until.max(*ran);
            report.letters.extend(island.run(*ran));
            // what follows from a grant may come sooner than what was to come: the others do not
            // run past it, because this part ran as far as it may
            for Grant { from, rate, .. } in granted {
                island.flows.advance(*ran);
                island.flows.set_link(Link::Share(from), rate);
            }
            let next = island.next_at().unwrap_or(Time::MAX);
            report.nexts.push((task.part, next));
        }
        if round.looks {
            let uses = island.flows.uses().into_iter();
            report.uses.extend(uses.map(|one| (task.part, one)));
        }
    }
}

impl<'s> Crew<'s> {
    /// Has the parts, which rise from 0, run by so many threads.
    pub fn new(
        scope: &'s Scope<'s, '_>,
        shared: &Arc<Shared>,
        mut islands: Vec<Island>,
        threads: usize,
    ) -> Crew<'s> {
        let nexts = islands.iter_mut().map(|island| island.next_at());
        let nexts = nexts.map(|next| next.unwrap_or(Time::MAX)).collect();
        let parts = islands.into_iter().map(|island| Part {
            island,
            ran: Time(0),
        });
        let bench = Arc::new(Bench {
            shared: shared.clone(),
            parts: parts.map(Mutex::new).collect(),
            shares: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
        });
        let hands = (1..threads).map(|own| {
            let (rounds, told) = channel::<Round>();
            let (report, reports) = channel();
            let bench = bench.clone();
            let thread = scope.spawn(move || {
                while let Ok(round) = told.recv() {
                    // whoever asked may be gone
                    report.send(bench.work(own, round)).ok();
                }
            });
            Hand {
                rounds,
                reports,
                thread,
            }
        });
        Crew {
            hands: hands.collect(),
            bench,
            nexts,
            round: Round::default(),
        }
    }

    /// Has all begin; [`Crew::report`] takes part and waits for them.
    pub fn order(&mut self, order: Order) {
        self.round = Round {
            until: order.until,
            reach: order.reach,
            end: order.end,
            looks: order.looks,
        };
        let count = self.bench.shares.len();
        let mut shares: Vec<VecDeque<Task>> = (0..count).map(|_| VecDeque::new()).collect();
        let mut letters = order.letters.into_iter().peekable();
        let mut grants = order.grants.into_iter().peekable();
        for (part, next) in self.nexts.iter_mut().enumerate() {
            let mut own_letters = Vec::new();
            while let Some(letter) = letters.next_if(|letter| letter.to == part) {
                *next = letter.at.min(*next);
                own_letters.push(letter);
            }
            let mut own_grants = Vec::new();
            while let Some(grant) = grants.next_if(|grant| grant.to == part) {
                own_grants.push(grant);
            }
            if *next < order.until
                || order.looks
                || !own_letters.is_empty()
                || !own_grants.is_empty()
            {
                shares[part % count].push_back(Task {
                    part,
                    next: *next,
                    letters: own_letters,
                    grants: own_grants,
                });
            }
        }
        for (place, share) in self.bench.shares.iter().zip(shares) {
            *lock(place) = share;
        }
        for hand in &self.hands {
            // a thread that panicked is noticed at its report
            hand.rounds.send(self.round).ok();
        }
    }

    /// What came of the last order; none if a thread panicked.
    pub fn report(&mut self) -> Option<Done> {
        let mut reports = vec![self.bench.work(0, self.round)];
        for hand in &self.hands {
            reports.push(hand.reports.recv().ok()?);
        }
        let mut done = Done::default();
        for report in reports {
            done.letters.extend(report.letters);
            done.uses.extend(report.uses);
            for (part, next) in report.nexts {
                self.nexts[part] = next;
            }
        }
        done.uses.sort_by_key(|(part, one)| (*part, one.from));
        for (part, next) in self.nexts.iter().enumerate() {
            if *next < Time::MAX {
                done.next = done.next.into_iter().chain([*next]).min();
                done.reach.has(&self.bench.shared, part, *next);
            }
        }
        Some(done)
    }

    /// Gives the parts back, rising; a thread's panic goes on here.
    pub fn disband(self) -> Vec<Island> {
        for hand in self.hands {
            drop((hand.rounds, hand.reports));
            if let Err(panic) = hand.thread.join() {
                resume_unwind(panic);
            }
        }
        let bench = Arc::into_inner(self.bench);
        let parts = bench.into_iter().flat_map(|bench| bench.parts);
        let parts = parts.map(|part| part.into_inner().unwrap_or_else(PoisonError::into_inner));
        parts.map(|part| part.island).collect()
    }
}
