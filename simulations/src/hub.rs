//! The part of the world that has no machines: the coordinator, the operators, and who checks them.

use std::sync::Arc;

use protocol::{Now, Span, Time};

use crate::checks::audit::Audit;
use crate::desk::Desk;
use crate::fleet::BEGINNING;
use crate::losses::Losses;
use crate::mail::{Letter, Mail};
use crate::measures::Milestones;
use crate::queue::Queue;
use crate::scenario::stream;
use crate::shared::Shared;
use crate::story::Story;

/// Something that happens at a moment.
pub(crate) enum Happening {
    /// The conductor's timer may be due.
    Wake,
    /// The coordinator's process dies; it comes back a little later.
    Kill(Span),
    /// It comes back.
    Boot,
    /// A push was not answered.
    PushAgain(u64),
    /// The operator looks.
    Operator,
    /// A letter is opened.
    Mail(Box<Mail>),
}

/// The coordinator and the operators.
pub struct Hub {
    /// What everyone knows.
    pub shared: Arc<Shared>,
    /// The coordinator.
    pub desk: Desk,
    /// What the operators do.
    pub story: Story,
    /// What was found.
    pub audit: Audit,
    /// Happenings so far.
    pub events: u64,
    /// Whether the story is over.
    pub over: bool,
    now: Time,
    queue: Queue<Happening>,
    outbox: Vec<Letter>,
    sent: u64,
    losses: Losses,
}

impl Hub {
    /// A hub in which the nodes are enrolled, and nothing else has happened.
    pub fn new(shared: Arc<Shared>) -> Hub {
        let (origin, coordinator) = (shared.origin.clone(), shared.coordinator.clone());
        let mut hub = Hub {
            desk: Desk::new(shared.fleet.id(), origin, coordinator),
            story: Story::new(shared.fate.calm()),
            audit: Audit::default(),
            events: 0,
            over: false,
            now: Time(0),
            queue: Queue::default(),
            outbox: Vec::new(),
            sent: 0,
            losses: Losses::new(stream(shared.scenario.seed, "control of the coordinator")),
            shared,
        };
        hub.desk_opens();
        for (at, down) in hub.shared.clone().fate.coordinator_deaths() {
            hub.at(at, Happening::Kill(down));
        }
        hub.at(Time(1000), Happening::Operator);
        hub
    }

    /// When it has something to do next.
    pub fn next_at(&self) -> Option<Time> {
        self.queue.next_at()
    }

    /// Takes what came from other parts, in the order in which it lies.
    pub fn take(&mut self, letters: impl IntoIterator<Item = Letter>) {
        for letter in letters {
            self.at(letter.at, Happening::Mail(Box::new(letter.what)));
        }
    }

    /// Runs until just before `end`, and returns what it sends to other parts.
    pub fn run(&mut self, end: Time) -> Vec<Letter> {
        while let Some(next) = self.next_at().filter(|at| *at < end && !self.over) {
            self.now = next;
            while let Some(happening) = self.queue.pop_until(next) {
                self.events += 1;
                self.happen(happening);
            }
        }
        std::mem::take(&mut self.outbox)
    }

    /// Virtual time since the beginning.
    pub fn time(&self) -> Time {
        self.now
    }

    /// The coordinator's clocks, which are the world's.
    pub fn clock(&self) -> Now {
        Now {
            boot: self.now,
            wall: BEGINNING + Span(self.now.0),
        }
    }

    pub(crate) fn at(&mut self, at: Time, happening: Happening) {
        self.queue.push(at.max(self.now), happening);
    }

    pub(crate) fn after(&mut self, span: Span, happening: Happening) {
        self.at(self.now + span, happening);
    }

    /// Sends to another part; it takes the way between them.
    pub(crate) fn send(&mut self, to: usize, what: Mail) {
        let hub = self.shared.hub();
        let Some(later) = self.losses.of(&self.shared, hub, to, self.now, &what) else {
            return;
        };
        self.sent += 1;
        self.outbox.push(Letter {
            at: self.now + self.shared.delay(hub, to) + later,
            from: hub,
            number: self.sent,
            to,
            what,
        });
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake => self.wake_desk(),
            Happening::Kill(down) => self.kill_desk(down),
            Happening::Boot => self.boot_desk(),
            Happening::PushAgain(number) => self.push_again(number),
            Happening::Operator => self.operator(),
            Happening::Mail(mail) => match *mail {
                Mail::Request { from, request, .. } => self.desk_asked(from, *request),
                Mail::Gone { place } => self.desk.hung_up(place),
                Mail::Pushed { number } => self.desk.push_came(number),
                _ => {}
            },
        }
    }

    /// The coordinator gave a halt.
    pub(crate) fn halted(&mut self, rollout: &protocol::RolloutId) {
        let now = self.now;
        if let Some(noted) = self.milestones(rollout) {
            noted.halted.get_or_insert(now);
        }
    }

    fn milestones(&mut self, rollout: &protocol::RolloutId) -> Option<&mut Milestones> {
        let number = self.story.rollouts.iter().position(|id| id == rollout)?;
        self.story.milestones.get_mut(number)
    }
}
