//! A part of the world that runs by itself: a site, or the data centre with the origin. It has its
//! own queue, machines, transfers and streams of draws, and hears of the others by [`Letter`] only;
//! so parts run side by side, and nothing depends on which ran first.

use std::collections::BTreeMap;
use std::sync::Arc;

use node_core::contract::{Event, FetchReason, Ticket};
use protocol::orders::Mark;
use protocol::zones::Clock;
use protocol::{BlobRef, Now, Span, Time};
use rand_chacha::ChaCha8Rng;

use crate::checks::findings::Rule;
use crate::checks::watch::Watch;
use crate::doors::Doors;
use crate::effects::Effect;
use crate::faults::Mishap;
use crate::fetches::Served;
use crate::fleet::BEGINNING;
use crate::flows::{Flows, Link};
use crate::losses::Losses;
use crate::machine::Machine;
use crate::mail::{Asker, Letter, Mail};
use crate::measures::Tally;
use crate::queue::Queue;
use crate::scenario::{below, stream};
use crate::shared::{Place, Shared};

/// Happenings that may wait at once, for each node.
const QUEUE_PER_NODE_MAX: usize = 20_000;
/// Happenings that may wait besides in the data centre, for each site that turns to it.
const QUEUE_PER_SITE_MAX: usize = 200;
/// Notes of one part that are kept.
const NOTES_MAX: usize = 500;

/// Something that happens at a moment; machines by their slot in this part.
pub(crate) enum Happening {
    /// A node's process starts.
    Boot(usize),
    /// A brain's timer may be due.
    Wake(usize),
    /// A brain is told something, if it is still the same process.
    Tell(usize, u32, Box<Event>),
    /// An effect of a node comes to its end.
    Effect(usize, u32, Ticket, Box<Effect>),
    /// Gossip arrives at all who are so many hops away.
    Gossip { to: Vec<u32>, event: Arc<Event> },
    /// A connection is made.
    Link(usize, usize),
    /// A transfer inside the site begins.
    Begin(usize, u32, Ticket),
    /// Transfers tell how far they are.
    Progress,
    /// Who waits at a door is told so.
    Waits(usize, Ticket),
    /// A transfer over which nothing came is given up.
    Stalled(usize, u32, Ticket),
    /// A question was not answered in time.
    Unanswered(usize, u32, Ticket),
    /// Something that the seed drew.
    Mishap(Mishap),
    /// A letter is opened.
    Mail(Box<Mail>),
}

/// A part of the world.
pub struct Island {
    /// What everyone knows.
    pub shared: Arc<Shared>,
    /// Its number: the site's, or [`Shared::centre`].
    pub part: usize,
    /// Its nodes.
    pub machines: Vec<Machine>,
    /// Transfers to its nodes.
    pub flows: Flows,
    /// What was found.
    pub watch: Watch,
    /// What was counted.
    pub tally: Tally,
    /// Happenings so far.
    pub events: u64,
    /// What the brains noted: milliseconds, event, line.
    pub notes: Vec<(u64, &'static str, String)>,
    pub(crate) asked: BTreeMap<(usize, Ticket), Asker>,
    /// The registers that uplinks under way have brought.
    pub(crate) brought: BTreeMap<(usize, Ticket), Vec<Option<Mark>>>,
    pub(crate) served: Served,
    pub(crate) doors: Doors,
    pub(crate) draws: Draws,
    now: Time,
    queue: Queue<Happening>,
    progress_due: bool,
    outbox: Vec<Letter>,
    sent: u64,
}

/// One stream of draws for each purpose.
pub(crate) struct Draws {
    pub gossip: ChaCha8Rng,
    pub effects: ChaCha8Rng,
    pub control: Losses,
    pub tickets: u64,
}

impl Island {
    /// A part in which nothing has happened yet.
    pub fn new(shared: Arc<Shared>, part: usize) -> Island {
        let seed = shared.scenario.seed;
        let of = |purpose: &str| stream(seed, &format!("{purpose} of part {part}"));
        let spec = shared.sites.get(part);
        let count = spec.map_or(1, |s| s.nodes as usize);
        let (mut boots, mut starts) = (of("boots"), of("starts"));
        let machines: Vec<Machine> = (0..count)
            .map(|slot| Machine::new(&shared, Place { part, slot }, &mut boots))
            .collect();
        let mut flows = Flows::default();
        if let Some(spec) = spec {
            flows.set_link(Link::Down, Some(mbit(spec.wan_mbit)));
            for slot in 0..count {
                flows.set_link(Link::In(slot), Some(mbit(spec.lan_mbit)));
                flows.set_link(Link::Out(slot), Some(mbit(spec.lan_mbit)));
            }
        }
        let nodes = machines.iter().map(Machine::node).collect();
        let first = shared.number(Place { part, slot: 0 });
        let cap = spec.map(|spec| mbit(spec.wan_mbit));
        let clock = spec.and_then(|spec| Clock::of(spec.clock.as_ref()?));
        let clock = clock.unwrap_or_else(Clock::utc);
        let watch = Watch::new(first, nodes, shared.names.get(part).cloned(), cap);
        let watch = watch.with_clock(clock);
        let mut island = Island {
            part,
            machines,
            flows,
            watch,
            tally: Tally::new(count, shared.contents.len()),
            events: 0,
            notes: Vec::new(),
            asked: BTreeMap::new(),
            brought: BTreeMap::new(),
            served: Served::default(),
            doors: Doors::default(),
            draws: Draws {
                gossip: of("gossip"),
                effects: of("effects"),
                control: Losses::new(of("control")),
                tickets: 0,
            },
            now: Time(0),
            queue: Queue::default(),
            progress_due: false,
            outbox: Vec::new(),
            sent: 0,
            shared,
        };
        if let Some(site) = island.site() {
            for (at, mishap) in island.shared.clone().fate.mishaps(site) {
                island.at(at, Happening::Mishap(mishap));
            }
        }
        for slot in 0..count {
            let at = match island.site() {
                Some(_) => below(&mut starts, 2000),
                None => 0,
            };
            island.at(Time(at), Happening::Boot(slot));
        }
        island
    }

    /// Its site's number; none for the data centre.
    pub fn site(&self) -> Option<usize> {
        (self.part < self.shared.centre()).then_some(self.part)
    }

    /// Where one of its machines stands.
    pub fn place(&self, slot: usize) -> Place {
        Place {
            part: self.part,
            slot,
        }
    }

    /// The machine of a node, if it is one of this part.
    pub fn slot_of(&self, node: &protocol::NodeId) -> Option<usize> {
        let place = self.shared.place(node)?;
        (place.part == self.part).then_some(place.slot)
    }

    /// When it has something to do next.
    pub fn next_at(&mut self) -> Option<Time> {
        let whole = self.flows.next_whole();
        self.queue.next_at().into_iter().chain(whole).min()
    }

    /// Takes what came from other parts, in the order in which it lies.
    pub fn take(&mut self, letters: impl IntoIterator<Item = Letter>) {
        for letter in letters {
            self.queue.push(
                letter.at.max(self.now),
                Happening::Mail(Box::new(letter.what)),
            );
        }
    }

    /// Runs until just before `end`, and returns what it sends to other parts.
    pub fn run(&mut self, end: Time) -> Vec<Letter> {
        while let Some(next) = self.next_at().filter(|at| *at < end) {
            self.now = next;
            self.move_bytes();
            while let Some(happening) = self.queue.pop_until(next) {
                self.events += 1;
                self.happen(happening);
            }
            if self.queue.len() > self.queue_max() {
                let what = format!("{} happenings wait", self.queue.len());
                self.watch.found.violated(self.now, Rule::Limits, what);
                self.queue = Queue::default();
            }
        }
        std::mem::take(&mut self.outbox)
    }

    fn queue_max(&self) -> usize {
        let served = match self.site() {
            Some(_) => 0,
            None => self.shared.sites.len(),
        };
        QUEUE_PER_NODE_MAX * self.machines.len() + QUEUE_PER_SITE_MAX * served
    }

    /// Virtual time since the beginning.
    pub fn time(&self) -> Time {
        self.now
    }

    /// The world's clocks.
    pub fn clock(&self) -> Now {
        Now {
            boot: self.now,
            wall: BEGINNING + Span(self.now.0),
        }
    }

    /// Has something happen here at a moment.
    pub(crate) fn at(&mut self, at: Time, happening: Happening) {
        self.queue.push(at.max(self.now), happening);
    }

    /// Has something happen here after a while.
    pub(crate) fn after(&mut self, span: Span, happening: Happening) {
        self.at(self.now + span, happening);
    }

    /// Sends to another part, or to this one; it takes the way between them, and `more`.
    pub(crate) fn send(&mut self, to: usize, more: Span, what: Mail) {
        let way = self.shared.delay(self.part, to);
        let mut at = self.now + Span(way.0 + more.0);
        if to == self.part {
            return self.at(at, Happening::Mail(Box::new(what)));
        }
        let fate = self
            .draws
            .control
            .of(&self.shared, self.part, to, self.now, &what);
        let Some(later) = fate else { return };
        at = at + later;
        self.sent += 1;
        self.outbox.push(Letter {
            at,
            from: self.part,
            number: self.sent,
            to,
            what,
        });
    }

    pub(crate) fn note(&mut self, event: &'static str, line: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push((self.now.0, event, line));
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Boot(n) => self.boot(n),
            Happening::Wake(n) => self.wake(n),
            Happening::Tell(n, process, event) => {
                if self.machines[n].is_process(process) {
                    self.tell(n, *event);
                }
            }
            Happening::Effect(n, process, ticket, effect) => {
                if self.machines[n].is_process(process) {
                    self.effect_ends(n, ticket, *effect);
                }
            }
            Happening::Gossip { to, event } => {
                self.events += to.len() as u64 - 1;
                for n in to {
                    self.tell(n as usize, (*event).clone());
                }
            }
            Happening::Link(a, b) => self.link(a, b),
            Happening::Begin(n, process, ticket) => {
                if self.machines[n].is_process(process) {
                    self.begin_near(n, ticket);
                }
            }
            Happening::Progress => self.tell_progress(),
            Happening::Waits(n, ticket) => self.still_waits(n, ticket),
            Happening::Stalled(n, process, ticket) => {
                if self.machines[n].is_process(process) {
                    self.stalled(n, ticket);
                }
            }
            Happening::Unanswered(n, process, ticket) => {
                if self.machines[n].is_process(process) {
                    self.answer_arrives(n, ticket, None);
                }
            }
            Happening::Mishap(mishap) => self.mishap(mishap),
            Happening::Mail(mail) => self.open_mail(*mail),
        }
    }

    fn open_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Request { from, to, request } => self.request_arrives(from, &to, request),
            Mail::Answer { to, reply } => {
                if self.machines[to.place.slot].is_process(to.process) {
                    self.answer_arrives(to.place.slot, to.ticket, reply);
                }
            }
            Mail::Document { to, found } => self.document_arrives(to, found),
            Mail::Push {
                slot,
                number,
                order,
            } => self.push_arrives(slot, number, &order),
            Mail::Notice { slot, from, notice } => self.tell(slot, Event::Notice(from, *notice)),
            Mail::Open {
                slot,
                asker,
                blob,
                pieces,
                spurned,
            } => self.knocks(slot, asker, blob, pieces, spurned),
            Mail::Opened {
                asker,
                pace,
                share,
                cap,
            } => self.begin_far(asker, pace, share, cap),
            Mail::Queued { asker } => self.queued_far(asker),
            Mail::Referred { asker, referral } => self.referred_far(asker, referral),
            Mail::Close { slot, asker } => {
                self.served.remove(slot, asker);
                self.goes(slot, asker);
            }
            Mail::Ended { asker, outcome } => self.ended_far(asker, outcome),
            Mail::Paced { source, rate } => {
                self.flows.advance(self.now);
                self.flows.set_link(Link::Pace(source), rate);
            }
            Mail::Lay { release } => {
                for blob in self.shared.contents[release].blobs() {
                    self.machines.iter_mut().for_each(|m| m.lay(blob));
                }
            }
            Mail::Lost { slot } => {
                self.tell(slot, Event::Disconnected(self.shared.coordinator.node));
            }
            Mail::Gone { .. } | Mail::Pushed { .. } => {}
        }
    }

    // ---- transfers -----------------------------------------------------------------------------

    /// Transfers over the WAN report regularly from now on, as long as there are any: their leases hang
    /// on it. One inside the site is told of when a piece is whole.
    pub(crate) fn watch_progress(&mut self) {
        if !std::mem::replace(&mut self.progress_due, true) {
            let every = self.shared.scenario.grain.progress();
            self.after(every, Happening::Progress);
        }
    }

    fn tell_progress(&mut self) {
        self.progress_due = false;
        self.flows.advance(self.now);
        let (from, bytes) = self.flows.take_far();
        self.watch.over_wan(from, self.now, bytes);
        for number in self.flows.far() {
            self.account(number);
        }
        if !self.flows.far().is_empty() {
            self.watch_progress();
        }
    }

    /// Counts the bytes that came by a transfer, and tells its receiver.
    pub(crate) fn account(&mut self, number: u64) {
        let bytes = self.flows.take_fresh(number);
        let Some(flow) = self.flows.get(number) else {
            return;
        };
        let (to, wan, ticket) = (flow.to, flow.from_far(), flow.ticket);
        let Some(fetch) = self.machines[to].fetches.get(&ticket) else {
            return;
        };
        let (from, blob, reason) = (fetch.from, fetch.blob, fetch.reason);
        if wan {
            self.count_wan(from, &blob, reason, bytes);
        }
        if bytes > 0 {
            self.tell(to, Event::FetchProgress { ticket, bytes });
        }
    }

    /// Counts bytes that came over the WAN.
    pub(crate) fn count_wan(
        &mut self,
        from: Place,
        blob: &BlobRef,
        reason: FetchReason,
        bytes: u64,
    ) {
        let origin = from.part == self.shared.centre();
        if let Some(release) = self.shared.release_of(blob) {
            self.tally.wan(release, origin, reason, bytes);
        }
    }

    fn move_bytes(&mut self) {
        for (number, whole) in self.flows.due(self.now) {
            let Some(flow) = self.flows.get(number) else {
                continue;
            };
            let (to, ticket, done) = (flow.to, flow.ticket, whole == flow.parts.len());
            self.machines[to].pieces_whole(ticket, whole);
            self.look_for_whole(to, ticket);
            self.account(number);
            // telling may have ended it
            if done && self.flows.get(number).is_some() {
                self.fetch_complete(to, ticket, number);
            }
        }
    }
}

/// Megabits a second in bytes a second.
pub(crate) fn mbit(rate: u64) -> f64 {
    rate as f64 * 125_000.0
}
