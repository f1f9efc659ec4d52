//! A node's body in the pretend world: its brain, its disk, and how long each effect takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use node_core::Brain;
use node_core::contract::{
    Action, Config, Event, FetchOutcome, FetchReason, Grain, Memory, NodeRole, Record, RecordKey,
    Step, Tempo, Ticket,
};
use protocol::envelope::Envelope;
use protocol::pieces::PieceSet;
use protocol::{BlobRef, Hash, NodeId, Now, SiteId, Span, Time};
use rand_chacha::ChaCha8Rng;

use crate::effects::Effect;
use crate::fleet::{BEGINNING, Fleet};
use crate::flows::Link;
use crate::scenario::below;
use crate::world::{Happening, World, contact};

/// A brain that is due again right after each so many timeouts never sleeps.
const SPINS_MAX: u32 = 20;
/// What a disk writes and reads in a second.
const DISK_BYTES_PER_MS: u64 = 200_000;
/// A node that died comes back after this.
const DOWN: Span = Span::from_secs(5);
/// A connection that broke is noticed after this.
pub(crate) const NOTICED: Span = Span::from_millis(100);

/// What of a blob is on disk.
pub(crate) struct Stored {
    pub have: PieceSet,
    /// Bytes of pieces that are not whole.
    pub partial: BTreeMap<u32, u64>,
}

/// A fetch under way.
pub(crate) struct Fetch {
    pub blob: BlobRef,
    pub pieces: Vec<u32>,
    pub from: usize,
    pub cap: u64,
    pub flow: Option<u64>,
    pub reason: FetchReason,
}

/// A node.
pub struct Machine {
    /// Its number in the world.
    pub number: usize,
    /// Its site's number; none for the origin.
    pub site: Option<usize>,
    /// Its site's name.
    pub site_name: Option<SiteId>,
    /// What its brain is told once.
    pub config: Config,
    /// What is installed.
    pub current: Option<Hash>,
    /// The site in whose gossip it takes part.
    pub topic: Option<SiteId>,
    /// Control connections.
    pub links: BTreeSet<usize>,
    /// Documents that it verified.
    pub documents: BTreeMap<Hash, Envelope>,
    pub(crate) brain: Option<Brain>,
    address: IpAddr,
    process: u32,
    boot_offset: u64,
    records: BTreeMap<RecordKey, Record>,
    pub(crate) disk: BTreeMap<BlobRef, Stored>,
    pub(crate) fetches: BTreeMap<Ticket, Fetch>,
    wake: Option<Time>,
    spins: u32,
}

impl Machine {
    /// A machine whose process has not started.
    pub fn new(
        fleet: &Fleet,
        number: usize,
        place: Option<(usize, SiteId, u32)>,
        (tempo, grain): (Tempo, Grain),
        boots: &mut ChaCha8Rng,
    ) -> Machine {
        let address = place
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST, |(site, _, host)| {
                Ipv4Addr::new(10, *site as u8, (host / 250) as u8, (host % 250 + 1) as u8)
            });
        let node = fleet.node(number);
        let config = Config {
            node,
            fleet: fleet.id(),
            role: if place.is_some() {
                NodeRole::Endpoint
            } else {
                NodeRole::Origin
            },
            os: "linux".into(),
            arch: "x86_64".into(),
            contact: contact(fleet, number),
            epoch: 1,
            boot_id: Hash::of(format!("boot of {number}").as_bytes()),
            coordinators: Vec::new(),
            origins: Vec::new(),
            tempo,
            grain,
            seed: below(boots, u64::MAX),
        };
        Machine {
            number,
            site: place.as_ref().map(|p| p.0),
            site_name: place.map(|p| p.1),
            config,
            current: None,
            topic: None,
            links: BTreeSet::new(),
            documents: BTreeMap::new(),
            brain: None,
            address: address.into(),
            process: 0,
            boot_offset: below(boots, 100_000_000),
            records: BTreeMap::new(),
            disk: BTreeMap::new(),
            fetches: BTreeMap::new(),
            wake: None,
            spins: 0,
        }
    }

    /// Its id.
    pub fn node(&self) -> NodeId {
        self.config.node
    }

    /// Whether this is still the process that it was.
    pub fn is_process(&self, process: u32) -> bool {
        self.brain.is_some() && self.process == process
    }

    /// Which of its processes runs.
    pub fn process(&self) -> u32 {
        self.process
    }

    /// Its clocks: every machine has booted at another time.
    pub fn clock(&self, world: Time) -> Now {
        Now {
            boot: Time(world.0 + self.boot_offset),
            wall: BEGINNING + Span(world.0),
        }
    }

    /// Lays a whole blob on its disk.
    pub fn lay(&mut self, blob: BlobRef) {
        let have = PieceSet::full(self.config.grain.cut(blob.length).pieces());
        self.disk.insert(
            blob,
            Stored {
                have,
                partial: BTreeMap::new(),
            },
        );
    }

    /// Whether every piece of a blob is there.
    pub fn holds(&self, blob: &BlobRef) -> bool {
        self.disk.get(blob).is_some_and(|s| s.have.is_full())
    }

    /// The fetch that a transfer serves.
    pub fn fetch_of(&self, flow: u64) -> Option<(Ticket, BlobRef, FetchReason)> {
        self.fetches
            .iter()
            .find(|(_, f)| f.flow == Some(flow))
            .map(|(t, f)| (*t, f.blob, f.reason))
    }

    /// The first pieces of a transfer became whole.
    pub fn pieces_whole(&mut self, flow: u64, whole: usize) {
        let Some(fetch) = self.fetches.values().find(|f| f.flow == Some(flow)) else {
            return;
        };
        let Some(stored) = self.disk.get_mut(&fetch.blob) else {
            return;
        };
        for piece in fetch.pieces.iter().take(whole) {
            stored.have.insert(*piece);
            stored.partial.remove(piece);
        }
    }

    /// Bytes that each piece of a fetch lacks.
    pub(crate) fn missing(&self, fetch: &Fetch) -> Vec<f64> {
        let cut = self.config.grain.cut(fetch.blob.length);
        let stored = self.disk.get(&fetch.blob);
        let left = |piece: &u32| {
            let range = cut.piece_range(*piece);
            match stored {
                Some(s) if s.have.contains(*piece) => 0,
                Some(s) => range.end - range.start - s.partial.get(piece).copied().unwrap_or(0),
                None => range.end - range.start,
            }
        };
        fetch.pieces.iter().map(|p| left(p) as f64).collect()
    }

    /// Whether its process runs and these pieces are whole.
    pub(crate) fn holds_pieces(&self, blob: &BlobRef, pieces: &[u32]) -> bool {
        self.brain.is_some()
            && self
                .disk
                .get(blob)
                .is_some_and(|s| pieces.iter().all(|p| s.have.contains(*p)))
    }
}

impl World {
    // ---- life ----------------------------------------------------------------------------------

    pub(crate) fn boot(&mut self, n: usize) {
        let time = self.time();
        let root = self.fleet.root().clone();
        let machine = &mut self.machines[n];
        if machine.brain.is_some() {
            return;
        }
        machine.process += 1;
        machine.wake = None;
        let now = machine.clock(time);
        let memory = Memory {
            records: machine.records.values().cloned().collect(),
        };
        machine.brain = Some(Brain::new(machine.config.clone(), memory, now));
        let address = machine.address;
        self.tell(n, Event::Root(root));
        self.tell(n, Event::Addresses(vec![address]));
    }

    pub(crate) fn kill(&mut self, n: usize) {
        if self.machines[n].brain.take().is_none() {
            return;
        }
        self.machines[n].topic = None;
        let tickets: Vec<Ticket> = self.machines[n].fetches.keys().copied().collect();
        tickets
            .into_iter()
            .for_each(|ticket| self.stop_fetch(n, ticket));
        let served: Vec<u64> = self
            .flows
            .iter()
            .filter(|(_, f)| f.from == n)
            .map(|(number, _)| number)
            .collect();
        for number in served {
            let Some(to) = self.flows.get(number).map(|f| f.to) else {
                continue;
            };
            if let Some((ticket, ..)) = self.machines[to].fetch_of(number) {
                self.stop_fetch(to, ticket);
                self.end_fetch(to, ticket, FetchOutcome::Broken, NOTICED);
            }
        }
        for peer in std::mem::take(&mut self.machines[n].links) {
            self.unlinked(peer, n);
        }
        self.drop_questions(n);
        self.after(DOWN, Happening::Boot(n));
    }

    pub(crate) fn tell(&mut self, n: usize, event: Event) {
        let now = self.machines[n].clock(self.time());
        if let Some(brain) = self.machines[n].brain.as_mut() {
            brain.handle(now, event);
            self.drain(n);
        }
    }

    pub(crate) fn wake(&mut self, n: usize) {
        // an earlier one took this one's place, and is over
        if self.machines[n].wake != Some(self.time()) {
            return;
        }
        self.machines[n].wake = None;
        let now = self.machines[n].clock(self.time());
        if let Some(brain) = self.machines[n].brain.as_mut() {
            let due = brain.poll_timeout().is_some_and(|at| at <= now.boot);
            if due {
                brain.handle_timeout(now);
            }
            self.drain(n);
            let timeout = self.machines[n]
                .brain
                .as_ref()
                .and_then(Brain::poll_timeout);
            let spins = due && timeout.is_some_and(|at| at <= now.boot);
            let machine = &mut self.machines[n];
            machine.spins = if spins { machine.spins + 1 } else { 0 };
            if machine.spins == SPINS_MAX {
                let what = format!("{} wants to be woken over and over", machine.node());
                self.checks.violated(self.clock(), what);
            }
        }
    }

    fn drain(&mut self, n: usize) {
        let mut count = 0;
        while let Some(action) = self.machines[n].brain.as_mut().and_then(Brain::poll_action) {
            self.perform(n, action);
            count += 1;
        }
        if count > 0 {
            let who = self.machines[n].node().short();
            self.checks.actions(self.clock(), &who, count);
        }
        let (world, offset) = (self.time(), self.machines[n].boot_offset);
        let timeout = self.machines[n]
            .brain
            .as_ref()
            .and_then(Brain::poll_timeout);
        if let Some(at) = timeout {
            let at = Time(at.0.saturating_sub(offset)).max(world + Span(1));
            if self.machines[n].wake.is_none_or(|wake| at < wake) {
                self.machines[n].wake = Some(at);
                self.at(at, Happening::Wake(n));
            }
        }
    }

    // ---- actions -------------------------------------------------------------------------------

    fn perform(&mut self, n: usize, action: Action) {
        match action {
            Action::Remember(record) => {
                self.machines[n].records.insert(record.key(), *record);
            }
            Action::Forget(key) => {
                self.machines[n].records.remove(&key);
            }
            Action::Gossip(message) => self.gossip(n, message),
            Action::GossipStatus(status) => {
                let signed = self.fleet.sign_status(n, &status);
                self.gossip(n, protocol::wire::SiteMessage::Status(signed));
            }
            Action::JoinSite(site) => self.machines[n].topic = site,
            Action::Connect(to) => self.connect(n, &to.node),
            Action::Disconnect(node) => self.disconnect(n, &node),
            Action::Ask {
                ticket,
                to,
                request,
                own_statuses,
            } => {
                self.ask(n, ticket, to.node, request, &own_statuses);
            }
            Action::Reply { ticket, reply } => self.replied(n, ticket, reply),
            Action::Notify { to, notice } => self.notify(n, &to.node, notice),
            Action::OpenBlob { ticket, blob } => self.takes(n, ticket, 2, Effect::Open(blob)),
            Action::DropBlob(blob) => {
                self.machines[n].disk.remove(&blob);
            }
            Action::Fetch {
                ticket,
                from,
                blob,
                pieces,
                max_bytes_per_s,
                reason,
                ..
            } => {
                let wish = Fetch {
                    blob,
                    pieces,
                    from: n,
                    cap: max_bytes_per_s,
                    flow: None,
                    reason,
                };
                self.fetch(n, ticket, &from.node, wish);
            }
            Action::CancelFetch(ticket) => {
                if self.machines[n].fetches.contains_key(&ticket) {
                    self.stop_fetch(n, ticket);
                    self.end_fetch(n, ticket, FetchOutcome::Cancelled, Span(1));
                }
            }
            Action::ReadIndex { ticket, index, .. } => {
                self.takes(n, ticket, 5, Effect::ReadIndex(index));
            }
            Action::Reuse { ticket, pack, .. } => self.takes(n, ticket, 10, Effect::Reuse(pack)),
            Action::ReadFrames {
                ticket, carrier, ..
            } => {
                self.takes(n, ticket, 2, Effect::ReadFrames(carrier));
            }
            Action::Decode {
                ticket,
                pack,
                frame,
                ..
            } => {
                let plain = self.scenario.grain.frame_plain() / DISK_BYTES_PER_MS;
                self.takes(n, ticket, plain, Effect::Decode(pack, frame));
            }
            Action::Step {
                ticket,
                release,
                before,
                step,
                ..
            } => {
                let millis = match step {
                    Step::WriteSlot => release.artifacts[0].disk_bytes / DISK_BYTES_PER_MS,
                    Step::CheckHealth => 100,
                    _ => 20,
                };
                if step == Step::Switch {
                    self.check_switch(n, &release.digest());
                }
                let before = before.map(|b| b.digest());
                self.takes(
                    n,
                    ticket,
                    millis,
                    Effect::Step(release.digest(), before, step),
                );
            }
            Action::Pace { site, bytes_per_s } => {
                let sites = &self.scenario.sites;
                if let Some(s) = sites.iter().position(|spec| spec.name == site.as_str()) {
                    self.flows
                        .set_link(Link::Pace(n, s), bytes_per_s.map(|b| b as f64));
                }
            }
            Action::Ban { peer, event } => {
                let line = format!("{} bans {} ({event})", self.machines[n].node(), peer);
                self.checks.violated(self.clock(), line);
            }
            Action::Note { event, line } => {
                let line = format!("{}: {line}", self.machines[n].node().short());
                self.story.note(self.time(), event, line);
            }
        }
    }

    fn check_switch(&mut self, n: usize, release: &Hash) {
        let plan = self.desk.conductor.rollouts().into_iter().find_map(|view| {
            let plan = self.desk.conductor.plan(&view.rollout)?;
            (plan.release == *release).then(|| (plan.clone(), view.plan))
        });
        let (now, node, site) = (self.clock(), self.machines[n].node(), self.site_name(n));
        match plan {
            Some((plan, digest)) => {
                if self.started.insert((plan.rollout.clone(), node)) {
                    self.checks
                        .switch(now, &node, site.as_ref(), &plan, &digest);
                }
            }
            None => self
                .checks
                .violated(now, format!("{node} switches without a rollout")),
        }
    }
}
