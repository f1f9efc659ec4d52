//! The control plane: one libp2p swarm per node, in a task of its own, behind admission.
//!
//! It carries bytes and knows nothing of policy: gossip on one topic (the node's site), requests with
//! replies, and connections that are kept because somebody wants them. QUIC and TCP (noise, yamux)
//! stand side by side; a contact's addresses are tried in its order.
//!
//! **Who is met.** Every peer in an event has been admitted in the transport (`gate.rs` has the
//! protocol). A refused one appears only as [`ControlEvent::Refused`]. When admission changes, and
//! every few minutes, live connections are judged again and closed.
//!
//! **What may be lost.** Gossip: a late joiner misses it, a full queue drops its oldest. So whatever
//! matters is also pulled by a request. Requests are never lost silently: they have an answer or an
//! error. Gossip is signed by its author's key, but the author need not have met us: only what is
//! signed inside is to be believed.
//!
//! **Whose connection it is.** The end that dialled a connection decides how long it is wanted:
//! [`Control::connect`] keeps it for good, a request for a minute. The other end never closes it,
//! except on revocation. When both dial at the same time both connections stay; gossip uses one.
//!
//! **What it costs.** Sixteen swarms in one site, all connected with all: 0 to 40 ms of CPU in 10 s when
//! nothing is said, and about 15 ms a node and second when each gossips 300 bytes a second (unoptimised
//! build; signatures of copies that come by several ways are most of it).

mod behaviour;
mod codec;
mod gate;
mod keeping;
mod outbox;
pub mod peers;
mod requests;
mod swarm;
mod transport;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use protocol::NodeId;
use protocol::limits::{
    CONNECTIONS_MAX, CONTACTS_MAX, CONTROL_EVENTS_MAX, CONTROL_MAX_BYTES, CONTROL_REQUEST_TIMEOUT,
    GOSSIP_MAX_BYTES,
};
use protocol::strangers::Knock;
use protocol::wire::Contact;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::identity::{AdmissionError, Identity};
use swarm::{Command, Task};

/// Commands that wait for the swarm; then gossip is dropped and requests wait.
const COMMANDS_MAX: usize = 256;

/// How a control plane is set up.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Where to listen: `/ip4/…/udp/…/quic-v1` and `/ip4/…/tcp/…`. Dialled connections leave from
    /// these addresses.
    pub listen: Vec<Multiaddr>,
    /// Look for peers on the segment by multicast.
    pub mdns: bool,
    /// Admitted connections at the same time; [`CONNECTIONS_MAX`] for a node.
    pub connections: u32,
}

impl ControlConfig {
    /// TCP and QUIC on one address and port number; port 0 lets the system choose one for each. TCP
    /// stands first and so is tried first: it is cheaper for both ends, and a closed port says so.
    pub fn at(address: SocketAddr) -> ControlConfig {
        let ip = match address.ip() {
            IpAddr::V4(ip) => Multiaddr::from(ip),
            IpAddr::V6(ip) => Multiaddr::from(ip),
        };
        let tcp = ip.clone().with(Protocol::Tcp(address.port()));
        let quic = ip
            .with(Protocol::Udp(address.port()))
            .with(Protocol::QuicV1);
        ControlConfig {
            listen: vec![tcp, quic],
            mdns: false,
            connections: CONNECTIONS_MAX,
        }
    }
}

/// What happens on the control plane. Peers in it have been admitted.
#[derive(Debug)]
pub enum ControlEvent {
    /// The first connection with a node is up.
    Connected(NodeId),
    /// The last connection with a node is gone.
    Disconnected(NodeId),
    /// Gossip on the topic that was joined.
    Gossip {
        /// Who wrote it (signed; it may have come through others).
        from: NodeId,
        /// At most [`protocol::limits::GOSSIP_MAX_BYTES`].
        bytes: Vec<u8>,
    },
    /// A node asks. A dropped `reply` ends the asker's wait with an error.
    Request {
        /// Who asks.
        from: NodeId,
        /// At most [`protocol::limits::CONTROL_MAX_BYTES`].
        bytes: Vec<u8>,
        /// Takes at most [`protocol::limits::CONTROL_MAX_BYTES`].
        reply: oneshot::Sender<Vec<u8>>,
    },
    /// Multicast told of a node; it is admitted or refused when it is connected to.
    Discovered(Contact),
    /// A peer was refused at the door.
    Refused {
        /// Who it claimed to be; `None` if it could not even prove a key.
        peer: Option<NodeId>,
        /// Its address.
        address: String,
        /// Why; `None` if it never got as far as showing (or taking) credentials.
        error: Option<AdmissionError>,
        /// The whole story in one line.
        reason: String,
        /// What it showed, if it came to our door and we did not let it in.
        knock: Option<Knock>,
    },
}

/// Why a request has no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// No address of the contact could be connected to in time.
    #[error("{node} cannot be reached: {reason}")]
    Unreachable {
        /// Whom.
        node: NodeId,
        /// What the last attempt said.
        reason: String,
    },
    /// It is there but did not answer in time.
    #[error("{0} did not answer in time")]
    Timeout(NodeId),
    /// The connection ended, or the peer dropped or refused the request.
    #[error("{node} ended the request: {reason}")]
    Ended {
        /// Who.
        node: NodeId,
        /// How.
        reason: String,
    },
    /// The request is longer than [`protocol::limits::CONTROL_MAX_BYTES`].
    #[error("a request of {0} bytes is too long")]
    TooLong(usize),
    /// This control plane has been shut down, or too much waits in its queue.
    #[error("the control plane is closed or overloaded")]
    Closed,
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The swarm cannot be made.
    #[error("cannot set the control plane up: {0}")]
    Setup(String),
}

/// A handle on the control plane; the swarm ends when the last clone is dropped.
#[derive(Clone)]
pub struct Control {
    node: NodeId,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// What is wanted is state and not a queue: nothing of it can be lost or come in the wrong order.
#[derive(Default)]
struct Shared {
    wishes: Mutex<Wishes>,
    news: Notify,
    listen: ArcSwap<Listen>,
}

#[derive(Default)]
struct Wishes {
    topic: Option<String>,
    contacts: BTreeMap<NodeId, Contact>,
}

#[derive(Default)]
struct Listen {
    all: Vec<Multiaddr>,
    told: Vec<Multiaddr>,
}

impl Control {
    /// Starts a swarm in a task of its own; returns once it listens.
    pub async fn start(
        config: ControlConfig,
        identity: Arc<Identity>,
    ) -> Result<(Control, mpsc::Receiver<ControlEvent>), StartError> {
        let (commands, asked) = mpsc::channel(COMMANDS_MAX);
        let (happens, events) = mpsc::channel(CONTROL_EVENTS_MAX);
        let shared = Arc::new(Shared::default());
        let task = Task::start(config, &identity, shared.clone(), asked, happens).await?;
        tokio::spawn(task.run());
        Ok((
            Control {
                node: identity.node(),
                commands,
                shared,
            },
            events,
        ))
    }

    /// Joins one topic and leaves the one before; `None` only leaves.
    pub fn join(&self, topic: Option<String>) {
        self.shared.wishes().topic = topic;
        self.shared.news.notify_one();
    }

    /// Gossips on the joined topic, at most [`GOSSIP_MAX_BYTES`]. Lost if there is no topic, if no
    /// neighbour is in it, if the same bytes were gossiped within two minutes, or in a full queue.
    pub fn publish(&self, bytes: Vec<u8>) {
        if bytes.len() > GOSSIP_MAX_BYTES {
            tracing::error!(bytes = bytes.len(), "gossip is too long and is dropped");
        } else if self.commands.try_send(Command::Publish(bytes)).is_err() {
            tracing::debug!("gossip is dropped: too much waits for the swarm");
        }
    }

    /// Keeps a connection to `contact` until [`Control::disconnect`], trying again with backoff (up
    /// to half a minute). A contact of the same node replaces the one before.
    pub fn connect(&self, contact: Contact) {
        if contact.node == self.node {
            return;
        }
        let mut wishes = self.shared.wishes();
        if wishes.contacts.len() >= CONTACTS_MAX && !wishes.contacts.contains_key(&contact.node) {
            tracing::warn!(node = %contact.node, "not kept connected: {CONTACTS_MAX} others are");
            return;
        }
        wishes.contacts.insert(contact.node, contact);
        drop(wishes);
        self.shared.news.notify_one();
    }

    /// No longer keeps the connection with a node, and closes it if it was dialled here. One that the
    /// node dialled stays: it is the node's.
    pub fn disconnect(&self, node: NodeId) {
        self.shared.wishes().contacts.remove(&node);
        self.shared.news.notify_one();
    }

    /// Asks a node, connecting if need be.
    pub async fn request(&self, to: Contact, bytes: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        if bytes.len() > CONTROL_MAX_BYTES {
            return Err(RequestError::TooLong(bytes.len()));
        }
        let node = to.node;
        let (answer, answered) = oneshot::channel();
        let ask = async {
            let command = Command::Request { to, bytes, answer };
            self.commands
                .send(command)
                .await
                .map_err(|_| RequestError::Closed)?;
            answered.await.unwrap_or(Err(RequestError::Closed))
        };
        // Connecting has its own, shorter, timeouts; this is the end of all of them together.
        timeout(2 * CONTROL_REQUEST_TIMEOUT.as_duration(), ask)
            .await
            .unwrap_or(Err(RequestError::Timeout(node)))
    }

    /// Where the swarm listens, with the ports that the system chose, for a [`Contact`]. If it
    /// listens on all interfaces, loopback is left out.
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        self.shared.listen.load().told.clone()
    }
}

impl Shared {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_listen(&self, all: Vec<Multiaddr>, hide_loopback: bool) {
        let mut told = all.clone();
        if hide_loopback && !all.iter().all(is_loopback) {
            told.retain(|address| !is_loopback(address));
        }
        self.listen.store(Arc::new(Listen { all, told }));
    }
}

fn is_loopback(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        _ => false,
    }
}
