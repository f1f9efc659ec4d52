//! The data plane: how bytes move between nodes.
//!
//! One quinn endpoint per node, bound to its own address, mutual TLS 1.3 without resumption. A
//! bidirectional stream carries one [`protocol::wire::DataRequest`] and its reply; a unidirectional
//! one carries one [`Notice`]. The same over TCP on the same port (`tcp`), which is cheaper inside a LAN
//! and stands in where UDP is blocked; `node_core::transport` chooses. Every group is verified before it is written (`codec`). What leaves
//! for a site is paced over all its nodes together (`pace`), gives way to others on a WAN (`manners`) and
//! is counted at the socket (`count`). What a peer may send before it is verified has a limit (`credit`).
//!
//! What is not here: which peer to ask for what, and what to make of a failure. The brain knows.

mod buffers;
mod codec;
mod count;
mod credit;
mod doors;
mod endpoint;
mod fetch;
mod manners;
mod marks;
mod pace;
mod peers;
mod places;
mod queue;
mod serve;
mod tcp;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use node_core::contract::{Door, FetchOutcome, Service, Ticket, Visit, Wanted};
use protocol::limits::{FETCHES_MAX, UPLOADS_PER_PEER_MAX};
use protocol::strangers::Knock;
use protocol::topology::{NodeRates, Topology};
use protocol::wire::{Class, Contact, Notice, Referral};
use protocol::{NodeId, SiteId};
use quinn::ServerConfig;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use self::buffers::{Buffers, RECEIVING_BYTES, SENDING_BYTES};
use self::count::Tallies;
use self::credit::Credits;
pub use self::credit::Wasted;
use self::doors::Doors;
pub use self::marks::Dscp;
use self::marks::Marks;
use self::pace::Paces;
use self::peers::Peers;
use self::places::Places;
use self::tcp::Listening;
use crate::net::identity::Identity;
use crate::store::blobs::{Blob, Blobs};

/// Where and how the data plane runs.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// The UDP address to bind, also the source of outgoing connections; port 0 takes a free one. TCP has
    /// the same port, if nothing else has it; else peers come over QUIC only.
    pub listen: SocketAddr,
    /// A fetch below this many bytes a second for `slow_after` is cut.
    pub slow_bytes_per_s: u64,
    /// See `slow_bytes_per_s`; also how long a peer may take to answer at all.
    pub slow_after: Duration,
    /// The same for fetches inside the site.
    pub slow_near_after: Duration,
    /// Requests served at the same time, of which one peer gets
    /// [`protocol::limits::UPLOADS_PER_PEER_MAX`]; one more is answered with `Busy`.
    pub uploads_max: usize,
    /// How packets are marked, by class.
    pub dscp: Dscp,
}

impl DataConfig {
    /// With the limits of [`protocol::limits`].
    pub fn new(listen: SocketAddr) -> DataConfig {
        DataConfig {
            listen,
            slow_bytes_per_s: protocol::limits::SLOW_BYTES_PER_S,
            slow_after: protocol::limits::SLOW_AFTER.as_duration(),
            slow_near_after: protocol::limits::SLOW_NEAR_AFTER.as_duration(),
            uploads_max: protocol::limits::UPLOADS_MAX,
            dscp: Dscp::default(),
        }
    }
}

/// Events that wait for the driver; a peer that sends more waits too.
const EVENTS_MAX: usize = 1024;

/// A node's data endpoint. Clones share it; when the last is dropped, its connections close.
#[derive(Clone, Debug)]
pub struct DataPlane {
    inner: Arc<Inner>,
    _open: Arc<Open>,
}

/// What the endpoint's tasks share.
#[derive(Debug)]
struct Inner {
    config: DataConfig,
    local: SocketAddr,
    server: ServerConfig,
    blobs: Blobs,
    sending: Buffers,
    receiving: Buffers,
    peers: Arc<Peers>,
    tallies: Arc<Tallies>,
    credits: Arc<Credits>,
    paces: Paces,
    marks: Arc<Marks>,
    doors: Arc<Doors>,
    uploads: Arc<Places<NodeId>>,
    fetches: Semaphore,
    wan_payload_in: AtomicU64,
    again: AtomicU64,
    events: mpsc::Sender<DataEvent>,
}

impl Inner {
    /// Somebody was not let in, if it was a stranger. Whoever knocks makes nobody wait.
    fn knocked(&self, address: IpAddr, knock: Option<Knock>) {
        if let Some(knock) = knock {
            let address = address.to_canonical();
            let node = None;
            let visit = Visit {
                node,
                address,
                knock,
            };
            let _ = self.events.try_send(DataEvent::Knocked(visit));
        }
    }

    fn add_wan_payload(&self, bytes: u64) {
        self.wan_payload_in.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Closes the endpoint when dropped, which ends its tasks.
#[derive(Debug)]
struct Open(Arc<Peers>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Why the endpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The address cannot be bound.
    #[error("cannot listen on UDP {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The TLS configuration does not fit QUIC.
    #[error("the TLS configuration cannot carry QUIC: {0}")]
    Tls(String),
}

/// What the data plane tells the driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DataEvent {
    /// An admitted peer sent a notice.
    Notice(NodeId, Notice),
    /// A node of another site asks; answer with [`DataPlane::serve`]. Comes only after
    /// [`DataPlane::doorkeep`].
    Wanted(Wanted),
    /// Who asked is gone, or has what it was given.
    Left(Ticket),
    /// Somebody was not let in. Told as far as there is room among the other events.
    Knocked(Visit),
}

/// What to fetch from whom.
#[derive(Clone, Debug)]
pub struct FetchJob {
    /// The peer; its data address must be known.
    pub from: Contact,
    /// The blob, open here.
    pub blob: Arc<Blob>,
    /// Groups `[start, end)`, rising, not touching. More than fit one request are asked for in several.
    pub groups: Vec<(u64, u64)>,
    /// How urgent.
    pub class: Class,
    /// Take no more than this, bytes a second; 0: no limit.
    pub max_bytes_per_s: u64,
    /// Over the WAN, as the brain sees it: its payload is counted in [`Counters::wan_payload_in`].
    pub wan: bool,
    /// To these the source referred us in vain.
    pub spurned: Vec<NodeId>,
}

/// A fetch under way. Dropping it does not stop the fetch.
#[derive(Clone, Debug)]
pub struct FetchHandle {
    cancel: watch::Sender<bool>,
}

impl FetchHandle {
    /// Stops the fetch; it ends with `Cancelled` unless it ended already.
    pub fn cancel(&self) {
        self.cancel.send_replace(true);
    }
}

/// How a fetch ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchEnd {
    /// How; `NotHeld` also if the source referred us to somebody else.
    pub outcome: FetchOutcome,
    /// To whom it did.
    pub referral: Option<Referral>,
    /// Payload bytes that were verified and written.
    pub bytes: u64,
}

/// Bytes between this node and one remote site.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SiteCount {
    /// Datagram bytes received at the socket.
    pub socket_in: u64,
    /// Datagram bytes sent at the socket.
    pub socket_out: u64,
    /// Payload bytes of groups that verified.
    pub payload_in: u64,
    /// Payload bytes of groups handed to connections.
    pub payload_out: u64,
}

/// Bytes by remote site since the start; `None` is every address outside the topology.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// By remote site.
    pub sites: BTreeMap<Option<SiteId>, SiteCount>,
    /// Payload bytes of verified groups of fetches that the brain called WAN.
    pub wan_payload_in: u64,
    /// Payload bytes of verified groups that were here already when they came.
    pub again: u64,
    /// Bytes that were of no use, by the peer that sent them.
    pub wasted: BTreeMap<NodeId, Wasted>,
}

impl DataPlane {
    /// Binds the endpoint and serves from `blobs`. Events come through the returned channel.
    ///
    /// # Errors
    /// When the address cannot be bound (it is named).
    pub async fn bind(
        config: DataConfig,
        identity: Arc<Identity>,
        blobs: Blobs,
    ) -> Result<(DataPlane, mpsc::Receiver<DataEvent>), DataError> {
        let tallies = Arc::new(Tallies::default());
        let tcp::Bound {
            endpoint,
            marks,
            local,
            listener,
        } = tcp::bind(&config, &identity, &tallies)?;
        let server = endpoint::server_config(&identity)?;
        let listening = Listening::new(&identity);
        let credits = Arc::new(Credits::default());
        let peers = Arc::new(Peers::new(
            endpoint,
            local.ip(),
            identity,
            tallies.clone(),
            credits.clone(),
            config.slow_after,
        ));
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let inner = Arc::new(Inner {
            local,
            server,
            blobs,
            sending: Buffers::of(SENDING_BYTES),
            receiving: Buffers::of(RECEIVING_BYTES),
            peers: peers.clone(),
            paces: Paces::new(tallies.clone()),
            marks,
            tallies,
            credits,
            doors: Arc::default(),
            uploads: Places::new(config.uploads_max, UPLOADS_PER_PEER_MAX),
            fetches: Semaphore::new(FETCHES_MAX),
            wan_payload_in: AtomicU64::new(0),
            again: AtomicU64::new(0),
            events,
            config,
        });
        tokio::spawn(serve::accept(inner.clone()));
        if let Some(listener) = listener {
            tokio::spawn(tcp::accept(inner.clone(), listener, listening));
        }
        tokio::spawn(follow_admission(Arc::downgrade(&peers)));
        Ok((
            DataPlane {
                inner,
                _open: Arc::new(Open(peers)),
            },
            receiver,
        ))
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local
    }

    /// Starts a fetch. Payload bytes since the last report go to `progress`; what a full channel does
    /// not take comes with the next report, or is only in [`FetchEnd::bytes`]. `Complete` means verified and written, and for the
    /// blob's last group durable and claimed.
    pub fn fetch(
        &self,
        job: FetchJob,
        progress: mpsc::Sender<u64>,
    ) -> (FetchHandle, JoinHandle<FetchEnd>) {
        let cancel = watch::Sender::new(false);
        let run = fetch::run(self.inner.clone(), job, progress, cancel.subscribe());
        (FetchHandle { cancel }, tokio::spawn(run))
    }

    /// Sends a notice in the background, in order per peer; lost if the peer cannot be reached.
    pub fn notify(&self, to: Contact, notice: Notice) {
        self.inner.peers.notify(to, notice);
    }

    /// Caps what is sent to all nodes of a remote site together, bytes a second at the socket, also
    /// for requests under way; for the own site: what is sent over its WAN. `None`: no cap.
    pub fn set_pace(&self, site: SiteId, bytes_per_s: Option<u64>) {
        self.inner.paces.set(site, bytes_per_s);
    }

    /// Caps what this node itself moves, whoever is at the other end, also what is under way.
    pub fn set_own_pace(&self, rates: NodeRates) {
        self.inner.paces.set_own(rates);
    }

    /// Whom it serves from now on; at first everybody.
    pub fn doorkeep(&self, door: Door) {
        self.inner.doors.keep(door);
    }

    /// Answers [`DataEvent::Wanted`].
    pub fn serve(&self, ticket: Ticket, service: Service) {
        self.inner.doors.answer(ticket, service);
    }

    /// Maps addresses to sites, for pacing and counting.
    pub fn set_topology(&self, topology: Arc<Topology>) {
        self.inner.tallies.set_topology(topology);
    }

    /// What was counted so far.
    pub fn counters(&self) -> Counters {
        Counters {
            sites: self.inner.tallies.counts(),
            wan_payload_in: self.inner.wan_payload_in.load(Ordering::Relaxed),
            again: self.inner.again.load(Ordering::Relaxed),
            wasted: self.inner.credits.wasted(),
        }
    }

    /// Closes live connections with nodes that are not admitted any more. Happens by itself when
    /// the admission rules change.
    pub fn close_revoked(&self) {
        self.inner.peers.close_revoked();
    }

    /// Fetches nothing more from a peer for [`protocol::limits::BAN`]; what is under way ends. It is served
    /// and heard as before.
    pub fn bar(&self, peer: NodeId) {
        self.inner.credits.bar(peer);
    }

    /// Closes all connections and waits until peers know.
    pub async fn shutdown(&self) {
        self.inner.peers.close();
        self.inner.peers.endpoint().wait_idle().await;
    }
}

/// An endpoint with the socket, TLS and transport settings of the data plane and nothing on top, and
/// what it needs to connect to `peer`: the yardstick that transfers are measured against.
///
/// # Errors
/// As [`DataPlane::bind`].
pub fn bare_endpoint(
    listen: SocketAddr,
    identity: &Identity,
    peer: NodeId,
) -> Result<(quinn::Endpoint, quinn::ClientConfig), DataError> {
    let endpoint = endpoint::bind(listen, identity, Arc::default())?;
    Ok((endpoint, endpoint::client_config(identity, peer, false)?))
}

/// Closes connections whenever the rules of admission change.
async fn follow_admission(peers: std::sync::Weak<Peers>) {
    let Some(mut changed) = peers
        .upgrade()
        .map(|peers| peers.identity().admission().changed())
    else {
        return;
    };
    while changed.changed().await.is_ok() {
        let Some(peers) = peers.upgrade() else { return };
        peers.close_revoked();
    }
}

#[cfg(test)]
mod tests;
