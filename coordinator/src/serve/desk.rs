//! The desk: one thread that owns the conductor and its ledger.
//!
//! Everything that decides passes here, one after the other. The thread drains what waits, lets the
//! conductor decide, makes all its events durable in one commit, and only then carries out the rest:
//! signs and hands on orders, answers. So no answer and no order ever tells of something that a
//! crash could take back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use coordinator_core::Conductor;
use coordinator_core::contract::{
    Action, Answer, Command, Event, LedgerEvent, Ticket, Uplink, goes_to_all,
};
use node::driver::Clock;
use protocol::envelope::Envelope;
use protocol::limits;
use protocol::orders::{Mark, Order};
use protocol::trust::{Statement as _, Trust};
use tokio::sync::{mpsc, oneshot};

use super::certificates::Certificates;
use super::events::EventLog;
use super::signer::Signer;
use super::store::Store;
use crate::ledger::{Ledger, LedgerError, events};

/// The desk looks at its clock at least this often.
const LOOK_UP: Duration = Duration::from_secs(1);

/// The desk does not answer: it has too much to do, or the coordinator is stopping.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeskError {
    /// Too much waits.
    #[error("the coordinator is busy; try again")]
    Busy,
    /// It has stopped.
    #[error("the coordinator is stopping")]
    Stopped,
}

/// What a view may look at.
pub struct Insight<'a> {
    /// The fleet, its rollouts and orders.
    pub conductor: &'a Conductor,
    /// Certificates that were issued and revoked.
    pub certificates: &'a Certificates,
    /// Entries of the ledger, and its head.
    pub ledger: (u64, protocol::Hash),
    /// Root of the tree over them.
    pub ledger_root: protocol::Hash,
}

type Reply<T> = oneshot::Sender<T>;
type View = Box<dyn FnOnce(&Insight<'_>) + Send>;
/// A piece of work that needs the desk to itself; asks the conductor through it.
type Work = Box<dyn FnOnce(&mut Desk) + Send>;
type OnAnswer = Box<dyn FnOnce(&mut Desk, Answer) + Send>;

enum Ask {
    View(View),
    Work(Work),
    Tell(Box<Event>, Reply<()>),
    Uplink(Box<Uplink>, Reply<Acknowledged>),
    Stop,
}

/// An order on its way to the delegates that are connected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Push {
    /// As signed.
    pub order: Arc<Envelope>,
    /// Whether every delegate is to have it, not only those that carry their site's feed.
    pub to_all: bool,
}

/// What became of an uplink.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    /// The watermarks.
    pub marks: Vec<Mark>,
    /// False if who reported or its site's members have to be told anew.
    pub known: bool,
}

/// The way to the desk.
#[derive(Clone)]
pub struct DeskHandle {
    asks: SyncSender<Ask>,
}

impl DeskHandle {
    /// Looks at something once everything before it is durable.
    ///
    /// # Errors
    /// When the desk is busy or has stopped.
    pub async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Insight<'_>) -> T + Send + 'static,
    ) -> Result<T, DeskError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::View(Box::new(move |insight| {
            drop(reply.send(look(insight)))
        })))?;
        answer.await.map_err(|_| DeskError::Stopped)
    }

    /// An operator's command.
    ///
    /// # Errors
    /// When the desk is busy or has stopped.
    pub async fn command(&self, command: Command) -> Result<Answer, DeskError> {
        self.work(move |desk, reply| {
            desk.command(command, move |_, answer| drop(reply.send(answer)))
        })
        .await
    }

    /// Something that needs several steps at the desk without anybody in between; it ends by sending
    /// its reply.
    ///
    /// # Errors
    /// When the desk is busy or has stopped.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk, Reply<T>) + Send + 'static,
    ) -> Result<T, DeskError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Work(Box::new(move |desk| work(desk, reply))))?;
        answer.await.map_err(|_| DeskError::Stopped)
    }

    /// Tells the conductor of something; returns once it is durable.
    ///
    /// # Errors
    /// When the desk is busy or has stopped.
    pub async fn tell(&self, event: Event) -> Result<(), DeskError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Tell(Box::new(event), reply))?;
        answer.await.map_err(|_| DeskError::Stopped)
    }

    /// A delegate's report; answered once its statuses are durable.
    ///
    /// # Errors
    /// When the desk is busy or has stopped.
    pub async fn uplink(&self, uplink: Uplink) -> Result<Acknowledged, DeskError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Uplink(Box::new(uplink), reply))?;
        answer.await.map_err(|_| DeskError::Stopped)
    }

    /// Ends the desk after what waits before this.
    pub fn stop(&self) {
        // A full queue is no reason to stay: whoever drops the last handle ends the desk, too.
        let _ = self.asks.try_send(Ask::Stop);
    }

    fn ask(&self, ask: Ask) -> Result<(), DeskError> {
        self.asks.try_send(ask).map_err(|e| match e {
            TrySendError::Full(_) => DeskError::Busy,
            TrySendError::Disconnected(_) => DeskError::Stopped,
        })
    }
}

/// What the desk works with.
pub struct Parts {
    /// Replayed and resumed by the desk.
    pub conductor: Conductor,
    /// Open and verified.
    pub ledger: Ledger,
    /// Rebuilt from the same ledger.
    pub certificates: Certificates,
    /// Recalls that wait for signatures.
    pub store: Arc<Store>,
    /// Whose signatures count.
    pub trust: Trust,
    /// Signs orders.
    pub signer: Arc<Signer>,
    /// Both clocks.
    pub clock: Arc<Clock>,
    /// The live view.
    pub log: Arc<EventLog>,
    /// Orders for delegates that are connected.
    pub pushes: mpsc::Sender<Push>,
}

/// The desk itself; see the module.
pub struct Desk {
    pub(super) parts: Parts,
    next_ticket: u64,
    commands: BTreeMap<Ticket, OnAnswer>,
    uplinks: BTreeMap<Ticket, Reply<Acknowledged>>,
    told: Vec<Reply<()>>,
}

/// Starts the desk. The receiver hears why, if it cannot go on.
pub fn open(
    parts: Parts,
) -> (
    DeskHandle,
    oneshot::Receiver<LedgerError>,
    std::thread::JoinHandle<()>,
) {
    let (asks, waiting) = sync_channel(limits::DESK_WAITING_MAX);
    let (failed, failure) = oneshot::channel();
    let mut desk = Desk {
        parts,
        next_ticket: 1,
        commands: BTreeMap::new(),
        uplinks: BTreeMap::new(),
        told: Vec::new(),
    };
    let thread = std::thread::Builder::new()
        .name("desk".into())
        .spawn(move || {
            if let Err(error) = desk.run(&waiting) {
                tracing::error!(event = "ledger", "{error}");
                let _ = failed.send(error);
            }
        });
    (
        DeskHandle { asks },
        failure,
        thread.expect("a thread can be made"),
    )
}

impl Desk {
    fn run(&mut self, waiting: &Receiver<Ask>) -> Result<(), LedgerError> {
        self.parts.conductor.resume(self.parts.clock.now());
        if let Some(list) = self.parts.certificates.list() {
            let digest = list.digest;
            self.parts
                .conductor
                .handle(self.parts.clock.now(), Event::Revocations(digest));
        }
        self.perform()?;
        loop {
            let first = match waiting.recv_timeout(self.until_timeout()) {
                Ok(ask) => Some(ask),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let mut views = Vec::new();
            for ask in first
                .into_iter()
                .chain(waiting.try_iter())
                .take(limits::DESK_BATCH_MAX)
            {
                match ask {
                    Ask::View(view) => views.push(view),
                    Ask::Work(work) => work(self),
                    Ask::Tell(event, reply) => {
                        self.parts.conductor.handle(self.parts.clock.now(), *event);
                        self.told.push(reply);
                    }
                    Ask::Uplink(mut uplink, reply) => {
                        uplink.ticket = self.ticket();
                        self.uplinks.insert(uplink.ticket, reply);
                        let event = Event::Uplink(*uplink);
                        self.parts.conductor.handle(self.parts.clock.now(), event);
                    }
                    Ask::Stop => return self.perform(),
                }
            }
            let now = self.parts.clock.now();
            if self
                .parts
                .conductor
                .poll_timeout()
                .is_some_and(|at| at <= now.boot)
            {
                self.parts.conductor.handle_timeout(now);
            }
            self.perform()?;
            let ledger = (self.parts.ledger.entries(), self.parts.ledger.head());
            let insight = Insight {
                conductor: &self.parts.conductor,
                certificates: &self.parts.certificates,
                ledger,
                ledger_root: self.parts.ledger.root(),
            };
            views.into_iter().for_each(|view| view(&insight));
        }
    }

    fn until_timeout(&self) -> Duration {
        let now = self.parts.clock.now().boot;
        let until = self
            .parts
            .conductor
            .poll_timeout()
            .map(|at| at.since(now).as_duration());
        until.map_or(LOOK_UP, |until| until.min(LOOK_UP))
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Hands a command to the conductor; `then` gets its answer once everything that it entails is
    /// durable.
    pub(super) fn command(
        &mut self,
        command: Command,
        then: impl FnOnce(&mut Desk, Answer) + Send + 'static,
    ) {
        let ticket = self.ticket();
        self.commands.insert(ticket, Box::new(then));
        self.parts
            .conductor
            .handle(self.parts.clock.now(), Event::Command(ticket, command));
    }

    /// Carries out what the conductor decided, until it has nothing more to say.
    fn perform(&mut self) -> Result<(), LedgerError> {
        loop {
            let actions: Vec<Action> =
                std::iter::from_fn(|| self.parts.conductor.poll_action()).collect();
            if actions.is_empty() {
                break;
            }
            // Appends are made durable together, before anything else is begun.
            let (appends, rest): (Vec<_>, Vec<_>) = actions
                .into_iter()
                .partition(|a| matches!(a, Action::Append(_)));
            let appends = appends.into_iter().filter_map(|a| {
                if let Action::Append(event) = a {
                    Some(event)
                } else {
                    None
                }
            });
            self.append(&appends.collect::<Vec<_>>())?;
            rest.into_iter().for_each(|action| self.carry_out(action));
        }
        self.parts.certificates.settled();
        for reply in self.told.drain(..) {
            // Whoever asked may have gone away meanwhile.
            let _ = reply.send(());
        }
        Ok(())
    }

    fn append(&mut self, happened: &[LedgerEvent]) -> Result<(), LedgerError> {
        if happened.is_empty() {
            return Ok(());
        }
        let now = self.parts.clock.now();
        let head = self.parts.ledger.append(
            happened
                .iter()
                .map(|event| events::draft(event, now.wall))
                .collect(),
        )?;
        self.parts.clock.raise(now.wall);
        for event in happened {
            self.parts.certificates.take_in(event, now.wall);
        }
        let entries = self.parts.ledger.entries();
        let told = Event::LedgerHead { head, entries };
        self.parts.conductor.handle(now, told);
        if happened.iter().any(|e| {
            matches!(
                e,
                LedgerEvent::Revoked { .. }
                    | LedgerEvent::Barred { .. }
                    | LedgerEvent::Warranted { .. }
            )
        }) {
            match self.parts.certificates.renew_list() {
                Ok(list) => self.parts.conductor.handle(now, Event::Revocations(list)),
                Err(error) => self.parts.log.note(now.wall, "revocations", &error),
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Append(_) => unreachable!("appended before"),
            Action::Issue(order) => self.issue(&order),
            Action::Acknowledge {
                ticket,
                marks,
                known,
            } => {
                if let Some(reply) = self.uplinks.remove(&ticket) {
                    let _ = reply.send(Acknowledged { marks, known });
                }
            }
            Action::Answer(ticket, answer) => {
                if let Some(then) = self.commands.remove(&ticket) {
                    then(self, answer);
                }
            }
            Action::Note { event, line } => {
                self.parts
                    .log
                    .note(self.parts.clock.now().wall, event, &line)
            }
        }
    }

    fn issue(&mut self, order: &Order) {
        let mut envelope = order.to_envelope();
        self.parts.signer.sign(&mut envelope);
        // Whoever misses a push fetches the order with its next uplink.
        let to_all = goes_to_all(order);
        let order = Arc::new(envelope);
        let _ = self.parts.pushes.try_send(Push { order, to_all });
    }
}
