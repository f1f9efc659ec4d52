//! The loop that ties the brain to sockets and disks. No policy lives here: what came in is
//! verified ([`Intake`]) and handed to the brain, what the brain decides is carried out, action by
//! action, in its order.
//!
//! One task owns the brain. It waits for nothing but the disk (a [`Remember`](Action::Remember) is
//! durable before the next action begins); whatever else takes time runs beside it and comes back
//! through one bounded channel, into which the loop itself never sends.

mod clock;
mod effects;
mod incoming;
mod intake;
mod notes;
mod shelf;
pub mod status;
pub mod wishes;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use node_core::Brain;
use node_core::contract::{Action, Config, Event, Memory, Ticket, Visit};
use protocol::versioned::Versioned;
use protocol::wire::{ControlReply, ControlRequest};
use protocol::{BlobRef, Hash, NodeId, Time};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

pub use clock::{BOOT_ID, Clock, boot_id, issued_at, random_bytes};
pub use incoming::{directory as incoming_directory, watch as watch_incoming};
pub use intake::{Intake, Question, issuing_cas};
pub use shelf::Shelf;

use crate::facts::Facts;
use crate::net::control::peers::ip_of;
use crate::net::control::{Control, ControlEvent};
use crate::net::data::{DataEvent, DataPlane, FetchHandle};
use crate::net::identity::Identity;
use crate::reach::Reach;
use crate::store::records::{Change, Records, RecordsError};
use notes::Notes;
use status::{Report, Request};

/// Results of effects that wait for the loop; an effect that finds the channel full waits.
const INPUTS_MAX: usize = 1024;
/// Requests of peers that the brain has not answered yet; the oldest is dropped for a new one.
const ASKED_MAX: usize = 256;
/// Documents that are looked up for peers at the same time; more askers are turned away.
const LOOK_UPS_MAX: usize = 32;
/// Requests to peers under way; further ones wait for room.
const ASKS_MAX: usize = 64;
/// The loop looks at the boot clock at least this often: its own timers stand still in suspend.
const NAP: Duration = Duration::from_secs(1);
/// The machine's addresses are looked at this often.
const LOOK_AROUND: Duration = Duration::from_secs(5);
/// Between two tries to write when the disk refuses.
const DISK_RETRY: Duration = Duration::from_secs(2);
/// What was said last still leaves before the sockets close.
const FAREWELL: Duration = Duration::from_millis(150);
/// At the end, work on blobs that cannot be cut short is waited for this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that a driver drives with.
pub struct Parts {
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// What the brain is told at its start.
    pub config: Config,
    /// What it remembered.
    pub memory: Memory,
    /// Finds this machine's addresses.
    pub reach: Reach,
    /// Reads what the machine is like.
    pub facts: Facts,
    /// Program and arguments that show a line to the machine's user; none: nobody is told.
    pub notify: Vec<String>,
    /// The revocation list that is in force already.
    pub revocations: Option<Hash>,
    /// What believes statements.
    pub intake: Intake,
    /// Both clocks.
    pub clock: Arc<Clock>,
    /// The database.
    pub records: Arc<Records>,
    /// Blobs and installer.
    pub shelf: Shelf,
    /// The control plane.
    pub control: Control,
    /// Its events.
    pub control_events: mpsc::Receiver<ControlEvent>,
    /// The data plane.
    pub data: DataPlane,
    /// Its events.
    pub data_events: mpsc::Receiver<DataEvent>,
}

/// What comes back from an effect.
enum Input {
    /// An event for the brain as it is.
    Event(Box<Event>),
    /// An answer of a peer, not yet verified.
    Answer {
        ticket: Ticket,
        from: NodeId,
        question: Question,
        reply: Option<ControlReply>,
    },
}

/// One node's loop.
pub struct Driver {
    brain: Brain,
    identity: Arc<Identity>,
    config: Config,
    reach: Reach,
    facts: Facts,
    notify: Vec<String>,
    wishes: BTreeMap<Ticket, oneshot::Sender<Result<String, String>>>,
    looked: Time,
    intake: Intake,
    clock: Arc<Clock>,
    records: Arc<Records>,
    shelf: Shelf,
    control: Control,
    control_events: mpsc::Receiver<ControlEvent>,
    data: DataPlane,
    data_events: mpsc::Receiver<DataEvent>,
    inputs: mpsc::Receiver<Input>,
    results: mpsc::Sender<Input>,
    asks: Arc<Semaphore>,
    look_ups: Arc<Semaphore>,
    /// Effects under way; they end with the loop.
    tasks: JoinSet<()>,
    fetches: BTreeMap<Ticket, FetchHandle>,
    asked: BTreeMap<Ticket, oneshot::Sender<Vec<u8>>>,
    asked_next: u64,
    pending: Vec<Change>,
    floor_kept: Time,
    notes: Notes,
    started: Time,
    stop: watch::Receiver<bool>,
}

impl Driver {
    /// A driver with a new brain. It stops once `stop` turns true.
    pub fn new(parts: Parts, stop: watch::Receiver<bool>) -> Driver {
        let (results, inputs) = mpsc::channel(INPUTS_MAX);
        let now = parts.clock.now();
        for record in &parts.memory.records {
            effects::in_force(record, &parts.data);
        }
        let mut brain = Brain::new(parts.config.clone(), parts.memory, now);
        brain.handle(now, Event::Root(parts.intake.root().clone()));
        if let Some(digest) = parts.revocations {
            brain.handle(now, Event::Revocations(digest));
        }
        let addresses = parts.reach.addresses(&parts.control.listen_addrs());
        brain.handle(now, Event::Addresses(addresses));
        brain.handle(now, Event::Machine(parts.facts.read()));
        Driver {
            brain,
            identity: parts.identity,
            config: parts.config,
            reach: parts.reach,
            facts: parts.facts,
            notify: parts.notify,
            wishes: BTreeMap::new(),
            looked: now.boot,
            intake: parts.intake,
            floor_kept: parts.clock.floor(),
            clock: parts.clock,
            records: parts.records,
            shelf: parts.shelf,
            control: parts.control,
            control_events: parts.control_events,
            data: parts.data,
            data_events: parts.data_events,
            inputs,
            results,
            asks: Arc::new(Semaphore::new(ASKS_MAX)),
            look_ups: Arc::new(Semaphore::new(LOOK_UPS_MAX)),
            tasks: JoinSet::new(),
            fetches: BTreeMap::new(),
            asked: BTreeMap::new(),
            asked_next: 0,
            pending: Vec::new(),
            notes: Notes::default(),
            started: now.wall,
            stop,
        }
    }

    /// Drives until told to stop, then takes leave of the site.
    ///
    /// # Errors
    /// When the disk refuses to remember and the node is told to stop meanwhile.
    pub async fn drive(
        mut self,
        mut requests: mpsc::Receiver<Request>,
    ) -> Result<(), RecordsError> {
        let mut stop = self.stop.clone();
        self.perform().await?;
        loop {
            let wake = self.wake();
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(request) = requests.recv() => self.requested(request),
                Some(input) = self.inputs.recv() => self.take(input),
                Some(event) = self.control_events.recv() => self.heard(event),
                Some(event) = self.data_events.recv() => self.asked_for_data(event),
                () = tokio::time::sleep(wake) => {}
            }
            while self.tasks.try_join_next().is_some() {}
            let now = self.clock.now();
            if self.brain.poll_timeout().is_some_and(|at| at <= now.boot) {
                self.brain.handle_timeout(now);
            }
            if now.boot.since(self.looked).as_duration() > LOOK_AROUND {
                self.looked = now.boot;
                self.look_around();
            }
            self.perform().await?;
        }
        self.tell(Event::Leaving);
        self.perform().await?;
        tokio::time::sleep(FAREWELL).await;
        self.tasks.shutdown().await;
        self.data.shutdown().await;
        self.shelf.at_rest(PATIENCE).await;
        Ok(())
    }

    fn wake(&self) -> Duration {
        let boot = self.clock.now().boot;
        match self.brain.poll_timeout() {
            Some(at) => at.since(boot).as_duration().min(NAP),
            None => NAP,
        }
    }

    fn requested(&mut self, request: Request) {
        match request {
            Request::Report(reply) => {
                let _ = reply.send(self.report());
            }
            Request::Wish(rollout, wish, reply) => {
                let ticket = Ticket(self.asked_next);
                self.asked_next += 1;
                // Answered before the loop goes on, so there is never more than one.
                self.wishes.insert(ticket, reply);
                self.tell(Event::Wished {
                    ticket,
                    rollout,
                    wish,
                });
            }
            Request::Roots(roots, reply) => {
                let newer = self.intake.roots(&roots);
                self.tell_believed();
                let _ = reply.send(newer);
            }
        }
    }

    /// A machine that moved or changed says so.
    fn look_around(&mut self) {
        self.tell(Event::Machine(self.facts.read()));
        let listening = self.control.listen_addrs();
        let contact = self.reach.contact(&listening);
        if contact != self.config.contact && contact.data.is_some() {
            self.config.contact = contact.clone();
            self.tell(Event::Addresses(self.reach.addresses(&listening)));
            self.tell(Event::Moved(contact));
        }
    }

    fn tell(&mut self, event: Event) {
        self.brain.handle(self.clock.now(), event);
    }

    /// Hands on what the intake believed.
    fn tell_believed(&mut self) {
        self.pending.append(&mut self.intake.changes);
        for event in std::mem::take(&mut self.intake.events) {
            self.tell(event);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if let Event::FetchEnded { ticket, .. } | Event::FetchReferred { ticket, .. } =
                    &*event
                {
                    self.fetches.remove(ticket);
                }
                self.tell(*event);
            }
            Input::Answer {
                ticket,
                from,
                question,
                reply,
            } => {
                let reply = reply.map(|reply| self.intake.answer(from, question, reply));
                self.tell_believed();
                let reply = reply.map(Box::new);
                self.tell(Event::Answered { ticket, reply });
            }
        }
    }

    fn asked_for_data(&mut self, event: DataEvent) {
        match event {
            DataEvent::Notice(from, notice) => self.tell(Event::Notice(from, notice)),
            DataEvent::Wanted(wanted) => self.tell(Event::Wanted(Box::new(wanted))),
            DataEvent::Left(ticket) => self.tell(Event::Left(ticket)),
            DataEvent::Knocked(visit) => self.tell(Event::Knocked(visit)),
        }
    }

    fn heard(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Connected(node) => self.tell(Event::Connected(node)),
            ControlEvent::Disconnected(node) => self.tell(Event::Disconnected(node)),
            ControlEvent::Gossip { from, bytes } => {
                self.intake.gossip(from, &bytes);
                self.tell_believed();
            }
            ControlEvent::Request { from, bytes, reply } => {
                let request = self.intake.request(from, &bytes);
                self.tell_believed();
                match request {
                    Some(request) => self.asked(from, request, reply),
                    None => answer(reply, &ControlReply::Refused("malformed".into())),
                }
            }
            ControlEvent::Discovered(contact) => self.control.connect(contact),
            ControlEvent::Refused {
                peer,
                address,
                reason,
                knock,
                ..
            } => {
                self.notes.say("refused", reason);
                if let (Some(knock), Some(address)) = (knock, ip_of(&address)) {
                    let node = peer;
                    self.tell(Event::Knocked(Visit {
                        node,
                        address,
                        knock,
                    }));
                }
            }
        }
    }

    /// Documents and roots are answered from the store, everything else by the brain.
    fn asked(&mut self, from: NodeId, request: ControlRequest, reply: oneshot::Sender<Vec<u8>>) {
        match &request {
            ControlRequest::PullDocument { digest } => {
                let digest = *digest;
                self.look_up(reply, move |records| records.document(digest));
            }
            ControlRequest::PullRoot { version } => {
                let version = *version;
                self.look_up(reply, move |records| records.root(version));
            }
            ControlRequest::Locate { me }
            | ControlRequest::Guide { me, .. }
            | ControlRequest::Uplink { me: Some(me), .. }
            | ControlRequest::Greet { me, .. }
                if me.contact.node != from =>
            {
                let line = format!("{from} asked in another node's name");
                self.notes.say("scope", line);
                answer(reply, &ControlReply::Refused("not your name".into()));
            }
            _ => {
                let ticket = Ticket(self.asked_next);
                self.asked_next += 1;
                if self.asked.len() >= ASKED_MAX {
                    self.asked.pop_first();
                }
                self.asked.insert(ticket, reply);
                self.tell(Event::Asked {
                    ticket,
                    from,
                    request: Box::new(request),
                });
            }
        }
    }

    fn look_up(
        &self,
        reply: oneshot::Sender<Vec<u8>>,
        look: impl FnOnce(&Records) -> Result<Option<Vec<u8>>, RecordsError> + Send + 'static,
    ) {
        let Ok(room) = self.look_ups.clone().try_acquire_owned() else {
            answer(reply, &ControlReply::Refused("busy".into()));
            return;
        };
        let records = self.records.clone();
        tokio::task::spawn_blocking(move || {
            let _room = room;
            match look(&records) {
                Ok(found) => answer(reply, &ControlReply::Document(found)),
                Err(e) => {
                    tracing::warn!(event = "storage", "{e}");
                    answer(reply, &ControlReply::Refused("storage".into()));
                }
            }
        });
    }

    /// Carries out everything that the brain wants done.
    async fn perform(&mut self) -> Result<(), RecordsError> {
        while let Some(action) = self.brain.poll_action() {
            match action {
                Action::Remember(record) => {
                    effects::in_force(&record, &self.data);
                    self.pending.push(Change::Keep(record));
                }
                Action::Forget(key) => self.pending.push(Change::Forget(key)),
                action => {
                    self.commit().await?;
                    self.effect(action).await;
                }
            }
        }
        self.commit().await
    }

    /// Makes durable what is pending. A disk that refuses is tried again: the node remembers
    /// before it acts, so until then it does nothing.
    async fn commit(&mut self) -> Result<(), RecordsError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let floor = self.clock.floor();
        if floor != self.floor_kept {
            self.pending.push(Change::Floor(floor));
            self.floor_kept = floor;
        }
        let changes = Arc::new(std::mem::take(&mut self.pending));
        let mut stop = self.stop.clone();
        loop {
            let (records, batch) = (self.records.clone(), changes.clone());
            let written = tokio::task::spawn_blocking(move || records.apply(&batch)).await;
            let e = match written {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(e)) => e,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
            self.notes.say("storage", e.to_string());
            tokio::select! {
                () = tokio::time::sleep(DISK_RETRY) => {}
                _ = stop.wait_for(|stop| *stop) => return Err(e),
            }
        }
    }

    fn report(&self) -> Report {
        Report {
            node: self.config.node,
            fleet: self.config.fleet,
            pid: std::process::id(),
            agent: crate::install::agent::running(),
            started: self.started,
            contact: self.config.contact.clone(),
            root_version: self.intake.root().version,
            revocations: self.intake.revocations(),
            snapshot: self.brain.snapshot(self.clock.now()),
            traffic: status::Traffic::of(&self.data.counters()),
            installer: self.shelf.installer_away(),
            fetches: self.fetches.len(),
        }
    }
}

fn answer(reply: oneshot::Sender<Vec<u8>>, with: &ControlReply) {
    let bytes = with.to_bytes();
    let bytes = if bytes.len() > ControlReply::MAX_BYTES {
        ControlReply::Refused("the answer is too long".into()).to_bytes()
    } else {
        bytes
    };
    // The asker may have gone; then nobody wants the answer.
    let _ = reply.send(bytes);
}

/// A blob's name as `<root>.<length>`, the name of its file on its way in.
pub fn incoming_name(blob: BlobRef) -> String {
    format!("{}.{}", blob.root, blob.length)
}
