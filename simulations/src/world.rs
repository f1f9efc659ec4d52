//! The world: virtual time, one queue of happenings, links, and who is where.
//!
//! Everything that takes time is a happening; everything that is drawn comes from the seed. The cores
//! are the real ones and see exactly what their bodies would tell them.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use anyhow::Result;
use node_core::contract::{Event, FetchReason, Grain, Ticket};
use protocol::envelope::Envelope;
use protocol::topology::{Site, Topology};
use protocol::wire::{Contact, ControlReply, ControlRequest, SiteMessage};
use protocol::{BlobRef, NodeId, Now, RolloutId, SiteId, Span, Time};
use rand_chacha::ChaCha8Rng;

use crate::checks::Checks;
use crate::content::Content;
use crate::desk::Desk;
use crate::effects::Effect;
use crate::fleet::{BEGINNING, Fleet};
use crate::flows::{Flows, Link};
use crate::machine::Machine;
use crate::scenario::{Scenario, below, stream};
use crate::traffic::Traffic;

/// Happenings that may wait at once, for each node.
const QUEUE_PER_NODE_MAX: usize = 20_000;
/// Progress of transfers is told this often.
const PROGRESS_EVERY: Span = Span::from_millis(250);
/// One way inside a site.
const LAN_DELAY: Span = Span::from_millis(1);

/// Something that happens at a moment.
pub(crate) enum Happening {
    /// A node's process starts.
    Boot(usize),
    /// A node's process dies.
    Kill(usize),
    /// A brain's timer may be due.
    Wake(usize),
    /// The conductor's timer may be due.
    WakeDesk,
    /// The coordinator's process dies; it comes back a little later.
    KillDesk,
    /// It comes back.
    BootDesk,
    /// A brain is told something, if it is still the same process.
    Tell(usize, u32, Box<Event>),
    /// An effect of a node comes to its end.
    Effect(usize, u32, Ticket, Effect),
    /// Gossip arrives.
    Gossip {
        from: usize,
        to: usize,
        message: Rc<SiteMessage>,
    },
    /// A request arrives; who asks, as which process, with which ticket.
    Request {
        from: (usize, u32, Ticket),
        to: NodeId,
        request: Box<ControlRequest>,
    },
    /// An answer arrives.
    Answer {
        to: (usize, u32, Ticket),
        reply: Option<Box<ControlReply>>,
    },
    /// The coordinator pushes an order.
    Push { to: usize, order: Rc<Envelope> },
    /// A connection is made.
    Link(usize, usize),
    /// A transfer begins.
    Begin(usize, u32, Ticket),
    /// Transfers tell how far they are.
    Progress,
    /// The operator looks.
    Operator,
}

/// The pretend world.
pub struct World {
    /// What was asked for.
    pub scenario: Scenario,
    /// Keys and beliefs.
    pub fleet: Fleet,
    /// The nodes; the last one is the origin.
    pub machines: Vec<Machine>,
    /// The coordinator.
    pub desk: Desk,
    /// Its contact.
    pub coordinator: Contact,
    /// The releases.
    pub contents: Vec<Content>,
    /// Transfers.
    pub flows: Flows,
    /// What was found.
    pub checks: Checks,
    /// What the coordinator's control plane carried.
    pub traffic: Traffic,
    /// Bytes that crossed each site's WAN inward, by site and release.
    pub wan: BTreeMap<(usize, usize), u64>,
    /// Bytes that crossed any WAN inward, by why they came that way.
    pub reasons: BTreeMap<FetchReason, u64>,
    /// Happenings so far.
    pub events: u64,
    /// Whether the story is over.
    pub over: bool,
    pub(crate) of_node: BTreeMap<NodeId, usize>,
    pub(crate) asked: BTreeMap<(usize, Ticket), (usize, u32, Ticket)>,
    pub(crate) draws: Draws,
    pub(crate) grain: Grain,
    pub(crate) story: crate::story::Story,
    pub(crate) started: BTreeSet<(RolloutId, NodeId)>,
    now: Time,
    queue: BTreeMap<(Time, u64), Happening>,
    queued: u64,
    progress_due: Option<Time>,
}

/// One stream of draws for each purpose.
pub(crate) struct Draws {
    pub gossip: ChaCha8Rng,
    pub effects: ChaCha8Rng,
    pub tickets: u64,
}

impl World {
    /// Makes the world of a scenario; nothing has happened yet.
    ///
    /// # Errors
    /// When the scenario's names are malformed.
    pub fn new(scenario: Scenario) -> Result<World> {
        let seed = scenario.seed;
        let count = scenario.nodes() as usize;
        // the origin and the coordinator have keys too
        let fleet = Fleet::new(seed, count as u32 + 2)?;
        let contents = scenario.releases.iter().enumerate();
        let contents = contents
            .map(|(n, spec)| Content::make(fleet.id(), n, spec, &scenario.grain))
            .collect::<Result<Vec<_>>>()?;
        let coordinator = contact(&fleet, count + 1);
        let origin = contact(&fleet, count);
        let mut machines = Vec::with_capacity(count + 1);
        let mut boots = stream(seed, "boots");
        let grain = scenario.grain.grain();
        let pace = (scenario.grain.tempo(), grain);
        for (site, spec) in scenario.sites.iter().enumerate() {
            for host in 0..spec.nodes {
                let place = Some((site, spec.name.parse::<SiteId>()?, host));
                machines.push(Machine::new(
                    &fleet,
                    machines.len(),
                    place,
                    pace,
                    &mut boots,
                ));
            }
        }
        machines.push(Machine::new(&fleet, count, None, pace, &mut boots));
        let of_node = machines.iter().map(|m| (m.node(), m.number)).collect();
        let mut flows = Flows::default();
        for machine in &machines {
            let rate = machine.site.map(|s| mbit(scenario.sites[s].lan_mbit));
            flows.set_link(Link::In(machine.number), rate);
            flows.set_link(Link::Out(machine.number), rate);
        }
        for (number, site) in scenario.sites.iter().enumerate() {
            flows.set_link(Link::Down(number), Some(mbit(site.wan_mbit)));
            flows.set_link(Link::Up(number), Some(mbit(site.wan_mbit)));
        }
        let desk = Desk::new(fleet.id(), origin.clone(), coordinator.clone());
        let draws = Draws {
            gossip: stream(seed, "gossip"),
            effects: stream(seed, "effects"),
            tickets: 0,
        };
        let mut world = World {
            fleet,
            machines,
            desk,
            coordinator,
            contents,
            flows,
            checks: Checks::default(),
            traffic: Traffic::default(),
            wan: BTreeMap::new(),
            reasons: BTreeMap::new(),
            events: 0,
            over: false,
            of_node,
            asked: BTreeMap::new(),
            draws,
            grain,
            story: crate::story::Story::default(),
            started: BTreeSet::new(),
            now: Time(0),
            queue: BTreeMap::new(),
            queued: 0,
            progress_due: None,
            scenario,
        };
        world.open();
        Ok(world)
    }

    fn open(&mut self) {
        let origin = self.machines.len() - 1;
        let contact = contact(&self.fleet, origin);
        let mut starts = stream(self.scenario.seed, "starts");
        self.desk_opens();
        for number in 0..self.machines.len() {
            self.machines[number].config.origins = vec![contact.clone()];
            self.machines[number].config.coordinators = vec![self.coordinator.clone()];
            let at = if number == origin {
                0
            } else {
                below(&mut starts, 2000)
            };
            self.at(Time(at), Happening::Boot(number));
        }
        let mut faults = stream(self.scenario.seed, "faults");
        let span = self.scenario.faults.until_s.max(2) * 1000 - 2000;
        for _ in 0..self.scenario.faults.crashes {
            let victim = below(&mut faults, origin as u64) as usize;
            self.at(
                Time(2000 + below(&mut faults, span)),
                Happening::Kill(victim),
            );
        }
        for _ in 0..self.scenario.faults.coordinator_crashes {
            self.at(Time(2000 + below(&mut faults, span)), Happening::KillDesk);
        }
        self.at(Time(1000), Happening::Operator);
    }

    /// Lets the world run to its end.
    pub fn run(&mut self) {
        let end = Time::from_secs(self.scenario.duration_s);
        while !self.over {
            let happening = self.queue.first_key_value().map(|((at, _), _)| *at);
            let transfer = self.flows.next_whole();
            let Some(next) = happening
                .into_iter()
                .chain(transfer)
                .min()
                .filter(|t| *t <= end)
            else {
                return;
            };
            self.now = next;
            self.move_bytes();
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= next) {
                let happening = entry.remove();
                self.events += 1;
                self.happen(happening);
            }
            let most = QUEUE_PER_NODE_MAX * self.machines.len();
            if self.queue.len() > most {
                let what = format!("{} happenings wait", self.queue.len());
                self.checks.violated(self.clock(), what);
                return;
            }
        }
    }

    /// What the brains noted: milliseconds, event, line.
    pub fn notes(&self) -> &[(u64, &'static str, String)] {
        &self.story.notes
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

    /// Has something happen at a moment.
    pub(crate) fn at(&mut self, at: Time, happening: Happening) {
        self.queued += 1;
        self.queue
            .insert((at.max(self.now), self.queued), happening);
    }

    /// Has something happen after a while.
    pub(crate) fn after(&mut self, span: Span, happening: Happening) {
        self.at(self.now + span, happening);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Boot(n) => self.boot(n),
            Happening::Kill(n) => self.kill(n),
            Happening::Wake(n) => self.wake(n),
            Happening::WakeDesk => self.wake_desk(),
            Happening::KillDesk => self.kill_desk(),
            Happening::BootDesk => self.boot_desk(),
            Happening::Tell(n, process, event) => {
                if self.machines[n].is_process(process) {
                    self.tell(n, *event);
                }
            }
            Happening::Effect(n, process, ticket, effect) => {
                if self.machines[n].is_process(process) {
                    self.effect_ends(n, ticket, effect);
                }
            }
            Happening::Gossip { from, to, message } => self.gossip_arrives(from, to, &message),
            Happening::Request { from, to, request } => self.request_arrives(from, to, *request),
            Happening::Answer {
                to: (n, process, ticket),
                reply,
            } => {
                if self.machines[n].is_process(process) {
                    self.answer_arrives(n, ticket, reply.map(|r| *r));
                }
            }
            Happening::Push { to, order } => self.push_arrives(to, &order),
            Happening::Link(a, b) => self.link(a, b),
            Happening::Begin(n, process, ticket) => {
                if self.machines[n].is_process(process) {
                    self.begin_fetch(n, ticket);
                }
            }
            Happening::Progress => self.tell_progress(),
            Happening::Operator => self.operator(),
        }
    }

    /// One way between two nodes; the origin and the coordinator stand in the data centre.
    pub fn delay(&self, a: Option<usize>, b: Option<usize>) -> Span {
        if a == b {
            return LAN_DELAY;
        }
        let way = |site: Option<usize>| site.map_or(1, |s| self.scenario.sites[s].wan_delay_ms);
        Span(way(a) + way(b))
    }

    /// Which release a blob belongs to.
    pub fn release_of(&self, blob: &BlobRef) -> Option<usize> {
        self.contents.iter().position(|c| c.blobs().contains(blob))
    }

    // ---- transfers -----------------------------------------------------------------------------

    /// Transfers report regularly from now on, as long as there are any.
    pub(crate) fn watch_progress(&mut self) {
        if self.progress_due.is_none() {
            let due = self.now + PROGRESS_EVERY;
            self.progress_due = Some(due);
            self.at(due, Happening::Progress);
        }
    }

    fn tell_progress(&mut self) {
        self.progress_due = None;
        let numbers: Vec<u64> = self.flows.iter().map(|(n, _)| n).collect();
        for number in numbers {
            self.account(number);
        }
        if self.flows.iter().next().is_some() {
            self.watch_progress();
        }
    }

    /// Counts the bytes that came by a transfer, and tells its receiver.
    pub(crate) fn account(&mut self, number: u64) {
        let bytes = self.flows.take_fresh(number);
        let Some(flow) = self.flows.get(number) else {
            return;
        };
        let (to, wan) = (flow.to, flow.wan);
        let Some((ticket, blob, reason)) = self.machines[to].fetch_of(number) else {
            return;
        };
        self.count_wan(wan, &blob, reason, bytes);
        if bytes > 0 {
            self.tell(to, Event::FetchProgress { ticket, bytes });
        }
    }

    /// Counts bytes that came over a WAN.
    pub(crate) fn count_wan(
        &mut self,
        site: Option<usize>,
        blob: &BlobRef,
        reason: FetchReason,
        bytes: u64,
    ) {
        if let (Some(site), Some(release)) = (site, self.release_of(blob)) {
            *self.wan.entry((site, release)).or_default() += bytes;
            *self.reasons.entry(reason).or_default() += bytes;
        }
    }

    fn move_bytes(&mut self) {
        for (number, whole) in self.flows.advance(self.now) {
            let Some(to) = self.flows.get(number).map(|f| f.to) else {
                continue;
            };
            self.machines[to].pieces_whole(number, whole);
            self.account(number);
            // telling may have ended it
            let done = self
                .flows
                .get(number)
                .is_some_and(|f| f.whole == f.parts.len());
            if done {
                self.fetch_complete(to, number);
            }
        }
    }

    /// The topology of the scenario: site `n` is 10.n.0.0/16, capped at its link's rate.
    ///
    /// # Errors
    /// When a site's name is malformed.
    pub fn topology(&self) -> Result<Topology> {
        let site = |(n, spec): (usize, &crate::scenario::SiteSpec)| -> Result<Site> {
            Ok(Site {
                id: spec.name.parse()?,
                subnets: vec![
                    format!("10.{n}.0.0/16")
                        .parse()
                        .map_err(anyhow::Error::msg)?,
                ],
                parent: None,
                wan_down_bytes_per_s: Some(spec.wan_mbit * 125_000),
                wan_up_bytes_per_s: Some(spec.wan_mbit * 125_000),
            })
        };
        let sites = self
            .scenario
            .sites
            .iter()
            .enumerate()
            .map(site)
            .collect::<Result<_>>()?;
        let (fleet, created) = (self.fleet.id(), BEGINNING);
        Ok(Topology {
            spec_version: 1,
            fleet,
            version: 1,
            created,
            sites,
        })
    }
}

/// Megabits a second in bytes a second.
fn mbit(rate: u64) -> f64 {
    rate as f64 * 125_000.0
}

/// Where a node is reached: an address that nobody dials.
pub(crate) fn contact(fleet: &Fleet, number: usize) -> Contact {
    Contact {
        node: fleet.node(number),
        control: vec![format!("/memory/{number}")],
        data: Some(([127, 0, 0, 1], 1 + (number % 60_000) as u16).into()),
    }
}
