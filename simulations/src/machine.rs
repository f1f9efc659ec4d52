//! A node's body in the pretend world: its brain, its disk, and how long each effect takes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use litemap::LiteMap;
use node_core::Brain;
use node_core::contract::{
    Action, Config, Door, Event, FetchOutcome, FetchReason, Memory, NodeRole, Record, RecordKey,
    Step, Ticket,
};
use protocol::constraints::Machine as Facts;
use protocol::pieces::PieceSet;
use protocol::{BlobRef, Hash, NodeId, Now, SiteId, Span, Time};
use rand_chacha::ChaCha8Rng;

use crate::checks::limits::Limited;
use crate::effects::Effect;
use crate::faults::Traits;
use crate::fleet::{BEGINNING, Document};
use crate::island::{Happening, Island};
use crate::measures;
use crate::scenario::below;
use crate::shared::{Place, Shared, address_bits};

/// A brain that is due again right after each so many timeouts never sleeps.
const SPINS_MAX: u32 = 20;
/// What a disk writes and reads in a second.
const DISK_BYTES_PER_MS: u64 = 200_000;
/// A machine's process starts so long after its boot clock.
const BOOTED_AFTER: Span = Span::from_secs(20);
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
    pub from: Place,
    pub cap: u64,
    pub flow: Option<u64>,
    pub reason: FetchReason,
    pub spurned: Vec<NodeId>,
}

/// A node.
pub struct Machine {
    /// Its number in the fleet.
    pub number: usize,
    /// What its brain is told once.
    pub config: Config,
    /// What is installed of each product.
    pub installed: BTreeMap<SiteId, Hash>,
    /// What it is like.
    pub traits: Traits,
    /// When it switched to each release.
    pub switched: BTreeMap<Hash, Time>,
    /// It never comes back.
    pub bricked: bool,
    /// It is not there, by what the seed drew.
    pub(crate) away: bool,
    /// Its next start is a start of the whole machine.
    pub(crate) restarts: bool,
    /// Questions that wait for an answer.
    pub(crate) asking: BTreeSet<Ticket>,
    /// The site in whose gossip it takes part.
    pub topic: Option<SiteId>,
    /// Control connections.
    pub links: BTreeSet<usize>,
    /// Documents that it verified.
    pub documents: LiteMap<Hash, Arc<Document>>,
    pub(crate) brain: Option<Brain>,
    /// As a source, what it gives to all nodes of a site together, bytes a second.
    pub(crate) paces: BTreeMap<usize, f64>,
    /// Its brain is asked before nodes of other sites are served.
    pub(crate) door: Door,
    address: IpAddr,
    process: u32,
    /// World time, in milliseconds, at which its boot clock stood at 0.
    boot_zero: i64,
    boots: u32,
    records: BTreeMap<RecordKey, Box<Record>>,
    pub(crate) disk: LiteMap<BlobRef, Stored>,
    pub(crate) fetches: LiteMap<Ticket, Fetch>,
    wake: Option<Time>,
    spins: u32,
}

impl Machine {
    /// A machine whose process has not started.
    pub fn new(shared: &Shared, place: Place, boots: &mut ChaCha8Rng) -> Machine {
        let number = shared.number(place);
        let endpoint = place.part < shared.centre();
        let address = match endpoint {
            true => Ipv4Addr::from_bits(address_bits(place.part, place.slot + 1)),
            false => Ipv4Addr::LOCALHOST,
        };
        let config = Config {
            node: shared.fleet.node(number),
            fleet: shared.fleet.id(),
            role: match endpoint {
                true => NodeRole::Endpoint,
                false => NodeRole::Origin,
            },
            os: "linux".into(),
            arch: "x86_64".into(),
            attributes: Default::default(),
            labels: match endpoint {
                true => shared.labels(number),
                false => Default::default(),
            },
            contact: shared.contact(number),
            epoch: 1,
            boot_id: Hash::of(format!("boot of {number}").as_bytes()),
            coordinators: vec![shared.coordinator.clone()],
            origins: vec![shared.origin.clone()],
            tempo: shared.scenario.grain.tempo(),
            grain: shared.scenario.grain.grain(),
            agent: None,
            seed: below(boots, u64::MAX),
        };
        Machine {
            number,
            config,
            installed: BTreeMap::new(),
            traits: match endpoint {
                true => shared.fate.traits(place.part, place.slot),
                false => Traits::default(),
            },
            switched: BTreeMap::new(),
            bricked: false,
            away: false,
            restarts: false,
            asking: BTreeSet::new(),
            topic: None,
            links: BTreeSet::new(),
            documents: LiteMap::new(),
            brain: None,
            paces: BTreeMap::new(),
            door: Door::Open,
            address: address.into(),
            process: 0,
            boot_zero: -(below(boots, 100_000_000) as i64),
            boots: 0,
            records: BTreeMap::new(),
            disk: LiteMap::new(),
            fetches: LiteMap::new(),
            wake: None,
            spins: 0,
        }
    }

    /// Whether it is not there, by what the seed drew.
    pub fn is_away(&self) -> bool {
        self.away
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

    /// Its clocks: every machine has booted at another time, and some are wrong about the day.
    pub fn clock(&self, world: Time) -> Now {
        let wall = (BEGINNING.0 + world.0) as i64 + self.traits.skew_ms;
        Now {
            boot: Time((world.0 as i64 - self.boot_zero).max(0) as u64),
            wall: Time(wall.max(0) as u64),
        }
    }

    /// World time at which its boot clock shows `boot`.
    fn world(&self, boot: Time) -> Time {
        let boot = i64::try_from(boot.0).unwrap_or(i64::MAX);
        Time(boot.saturating_add(self.boot_zero).max(0) as u64)
    }

    /// The whole machine starts: its boot clock begins anew, and so does what hangs on it.
    fn restart(&mut self, world: Time) {
        self.boots += 1;
        self.boot_zero = world.0 as i64 - BOOTED_AFTER.0 as i64;
        let name = format!("boot {} of {}", self.boots, self.number);
        self.config.boot_id = Hash::of(name.as_bytes());
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

    /// The first pieces of a fetch became whole.
    pub fn pieces_whole(&mut self, ticket: Ticket, whole: usize) {
        let Some(fetch) = self.fetches.get(&ticket) else {
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

impl Island {
    // ---- life ----------------------------------------------------------------------------------

    pub(crate) fn boot(&mut self, n: usize) {
        let time = self.time();
        let root = self.shared.fleet.root().clone();
        let machine = &mut self.machines[n];
        if machine.brain.is_some() || machine.away || machine.bricked {
            return;
        }
        let rebooted = std::mem::take(&mut machine.restarts);
        if rebooted {
            machine.restart(time);
        }
        machine.process += 1;
        machine.wake = None;
        let now = machine.clock(time);
        let memory = Memory {
            records: machine.records.values().map(|r| (**r).clone()).collect(),
        };
        machine.brain = Some(Brain::new(machine.config.clone(), memory, now));
        self.watch.came_up(time, n, rebooted);
        let address = self.machines[n].address;
        self.tell(n, Event::Root(root));
        let clock = self
            .shared
            .sites
            .get(self.part)
            .and_then(|s| s.clock.clone());
        if clock.is_some() {
            let facts = Facts {
                zone: clock,
                ..Facts::default()
            };
            self.tell(n, Event::Machine(facts));
        }
        self.tell(n, Event::Addresses(vec![address]));
    }

    /// Its process dies; someone starts it again, or nobody.
    pub(crate) fn kill(&mut self, n: usize) {
        if self.machines[n].brain.take().is_none() {
            return;
        }
        self.watch.went_down(self.time(), n);
        self.machines[n].topic = None;
        let tickets: Vec<Ticket> = self.machines[n].fetches.keys().copied().collect();
        tickets
            .into_iter()
            .for_each(|ticket| self.stop_fetch(n, ticket));
        self.machines[n].door = Door::Open;
        self.break_served(n);
        self.shut_door(n);
        for peer in std::mem::take(&mut self.machines[n].links) {
            self.unlinked(peer, n);
        }
        self.machines[n].asking.clear();
        self.drop_questions(n);
        self.hang_up(n);
    }

    pub(crate) fn tell(&mut self, n: usize, event: Event) {
        self.note_order(n, &event);
        self.tally.heard(measures::kind(&event));
        let now = self.machines[n].clock(self.time());
        if self.machines[n].brain.is_some() {
            self.watch.told(self.time(), now, n, &event);
        }
        if let Some(brain) = self.machines[n].brain.as_mut() {
            brain.handle(now, event);
            self.drain(n);
        }
    }

    /// The checkers look at a switch before it is made.
    fn switch_begins(&mut self, n: usize, release: &Hash) {
        let machine = &self.machines[n];
        let content = self.shared.contents.iter().find(|c| c.digest == *release);
        let on_disk = content.is_some_and(|c| machine.holds(&c.pack) && machine.holds(&c.index));
        let now = machine.clock(self.time());
        let labels = &machine.config.labels;
        let at = (self.time(), now);
        self.watch.switches(at, n, labels, release, on_disk);
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
                self.tally.heard("timer");
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
                let (now, spins) = (self.time(), SPINS_MAX as usize + 1);
                self.watch.holds(now, n, Limited::Spins, spins);
            }
        }
    }

    fn drain(&mut self, n: usize) {
        let mut count = 0;
        while let Some(action) = self.machines[n].brain.as_mut().and_then(Brain::poll_action) {
            self.perform(n, action);
            count += 1;
        }
        let world = self.time();
        self.watch.holds(world, n, Limited::Actions, count);
        let timeout = self.machines[n]
            .brain
            .as_ref()
            .and_then(Brain::poll_timeout);
        if let Some(at) = timeout {
            let at = self.machines[n].world(at).max(world + Span(1));
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
                self.watch.remembered(self.time(), n, &record);
                self.machines[n].records.insert(record.key(), record);
            }
            Action::Forget(key) => {
                self.machines[n].records.remove(&key);
            }
            Action::Gossip(message) => self.gossip(n, message),
            Action::GossipStatus(status) => {
                let number = self.machines[n].number;
                let signed = self.shared.fleet.sign_status(number, &status);
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
            Action::Reply { ticket, reply } => self.replied(n, ticket, *reply),
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
                spurned,
                ..
            } => {
                let wish = Fetch {
                    blob,
                    pieces,
                    from: self.place(n),
                    cap: max_bytes_per_s,
                    flow: None,
                    reason,
                    spurned,
                };
                self.fetch(n, ticket, &from.node, wish);
            }
            Action::Doorkeep(door) => self.machines[n].door = door,
            Action::Serve { ticket, service } => self.serve_far(n, ticket, service),
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
                let plain = self.shared.scenario.grain.frame_plain() / DISK_BYTES_PER_MS;
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
                    Step::Switch => 20 + self.extra_switch(&release.digest()),
                    _ => 20,
                };
                if step == Step::Switch {
                    self.switch_begins(n, &release.digest());
                }
                let before = before.map(|b| b.digest());
                self.takes(
                    n,
                    ticket,
                    millis,
                    Effect::Step(release.digest(), before, step),
                );
            }
            Action::Pace { site, bytes_per_s } => self.pace(n, &site, bytes_per_s),
            Action::Ban { peer, event } => {
                if let Some(place) = self.shared.place(&peer) {
                    let (peer, lies) = (self.shared.number(place), self.shared.lie(place));
                    self.watch
                        .banned(self.time(), n, (peer, lies.is_some()), event);
                }
            }
            // These machines have no users.
            Action::GiveNotice { .. } | Action::Granted { .. } | Action::PaceSelf(_) => {}
            Action::Note { event, line } => {
                let line = format!("{}: {line}", self.machines[n].node().short());
                self.note(event, line);
            }
        }
    }
}
