//! The control plane: one libp2p swarm, behind admission.

use std::sync::Arc;

use libp2p::Multiaddr;
use protocol::NodeId;
use protocol::wire::Contact;
use tokio::sync::{mpsc, oneshot};

use super::identity::{AdmissionError, Identity};

/// How a control plane is set up.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Where to listen: `/ip4/…/udp/…/quic-v1` and `/ip4/…/tcp/…`. Dialled connections leave from
    /// these addresses.
    pub listen: Vec<Multiaddr>,
    /// Look for peers on the segment by multicast.
    pub mdns: bool,
}

impl ControlConfig {
    /// QUIC on the UDP port and TCP on the TCP port of one address; port 0 lets the system choose.
    pub fn at(address: std::net::SocketAddr) -> ControlConfig {
        let _ = address;
        unimplemented!()
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
pub struct Control {}

impl Control {
    /// Starts a swarm in a task of its own; returns once it listens.
    pub async fn start(
        config: ControlConfig,
        identity: Arc<Identity>,
    ) -> Result<(Control, mpsc::Receiver<ControlEvent>), StartError> {
        let _ = (config, identity);
        unimplemented!()
    }

    /// Joins one topic and leaves the one before; `None` only leaves.
    pub fn join(&self, topic: Option<String>) {
        let _ = topic;
        unimplemented!()
    }

    /// Gossips on the joined topic. Lost if there is none, or if no neighbour is connected.
    pub fn publish(&self, bytes: Vec<u8>) {
        let _ = bytes;
        unimplemented!()
    }

    /// Keeps a connection to `contact` until [`Control::disconnect`], trying again with backoff.
    pub fn connect(&self, contact: Contact) {
        let _ = contact;
        unimplemented!()
    }

    /// No longer keeps the connection with a node, and closes it.
    pub fn disconnect(&self, node: NodeId) {
        let _ = node;
        unimplemented!()
    }

    /// Asks a node, connecting if need be.
    pub async fn request(&self, to: Contact, bytes: Vec<u8>) -> Result<Vec<u8>, RequestError> {
        let _ = (to, bytes);
        unimplemented!()
    }

    /// Where the swarm listens, with the ports that the system chose, for a [`Contact`].
    pub fn listen_addrs(&self) -> Vec<Multiaddr> {
        unimplemented!()
    }
}
