//! Connections: one to each peer that is asked, made on demand, kept while it is of use; and all
//! live ones, so that they end when a peer is not admitted any more.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use node_core::congestion::Link as Path;
use node_core::transport::{Transport, Transports};
use protocol::versioned::Versioned;
use protocol::wire::{Contact, Notice};
use protocol::{NodeId, Time};
use quinn::{Connection, Endpoint, Side, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::timeout;

use super::count::Tallies;
use super::credit::Credits;
use super::endpoint::client_config;
use super::tcp::{self, Cutter, Idle};
use crate::net::identity::{Identity, node_of_certificate};

/// Outgoing connections that are kept; above, the longest unused one is closed.
const OUTGOING_MAX: usize = 128;
/// Incoming connections; above, newcomers are refused until one ends.
pub(super) const INCOMING_MAX: usize = 512;
/// Incoming connections of one peer; it needs one. Above, its oldest is closed: most likely the peer
/// was killed and started again, and the old one has not timed out yet.
const INCOMING_PER_PEER_MAX: usize = 4;
/// A peer that does not shake hands by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Notices that wait for one peer; above, the oldest is lost.
const NOTICES_MAX: usize = 256;

/// Why a connection was closed, as the peer sees it.
pub(super) const GOODBYE: VarInt = VarInt::from_u32(0);
pub(super) const NOT_ADMITTED: VarInt = VarInt::from_u32(1);
pub(super) const TOO_MANY: VarInt = VarInt::from_u32(3);

/// Why a peer cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("it has no data address")]
    NoAddress,
    #[error("it did not answer in time")]
    Timeout,
    #[error("{0}")]
    Quic(String),
    #[error("over TCP: {0}")]
    Tcp(String),
}

impl ConnectError {
    /// Whether the peer may be reached another way.
    pub(super) fn is_of_the_way(&self) -> bool {
        match self {
            ConnectError::NoAddress => false,
            ConnectError::Timeout | ConnectError::Quic(_) | ConnectError::Tcp(_) => true,
        }
    }
}

/// All connections of an endpoint.
#[derive(Debug)]
pub(super) struct Peers {
    endpoint: Endpoint,
    own: IpAddr,
    identity: Arc<Identity>,
    tallies: Arc<Tallies>,
    credits: Arc<Credits>,
    patience: Duration,
    outgoing: Mutex<HashMap<NodeId, Arc<Peer>>>,
    idle: Idle,
    live: Mutex<HashMap<LiveId, Live>>,
    transports: Mutex<Transports>,
    begin: Instant,
    clock: AtomicU64,
    closed: watch::Sender<bool>,
}

/// A peer that is or was asked. Whoever uses the connection holds on to this.
#[derive(Debug, Default)]
pub(super) struct Peer {
    connection: tokio::sync::Mutex<Option<Connection>>,
    /// Whether the connection was made when the peer was new.
    narrow: AtomicBool,
    used: AtomicU64,
    notices: Mutex<Outbox>,
}

impl Peer {
    /// The peer is not new any more: so much may come ahead of our reading from now on.
    pub(super) fn widen(&self, connection: &Connection, bytes: u32) {
        if self.narrow.swap(false, Ordering::Relaxed) {
            connection.set_receive_window(bytes.into());
        }
    }
}

/// A connection in use.
pub(super) struct Link {
    /// Held so that the connection is not closed as unused.
    pub(super) peer: Arc<Peer>,
    pub(super) connection: Connection,
    /// Whether it was made just now, so that the peer was there a moment ago.
    pub(super) fresh: bool,
}

/// A connection that has not ended, in either direction.
#[derive(Debug)]
struct Live {
    node: NodeId,
    incoming: bool,
    since: Instant,
    how: How,
}

#[derive(Debug)]
enum How {
    Quic(Connection),
    Tcp(Cutter),
}

/// quinn's own number of a connection, or ours.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum LiveId {
    Quic(usize),
    Tcp(u64),
}

impl Live {
    fn close(&self, code: VarInt, reason: &[u8]) {
        match &self.how {
            How::Quic(connection) => connection.close(code, reason),
            How::Tcp(cutter) => cutter.cut(),
        }
    }
}

/// A TCP connection that is known to be live until this is dropped.
#[derive(Debug)]
pub(super) struct Tracked {
    peers: Weak<Peers>,
    id: LiveId,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some(peers) = self.peers.upgrade() {
            peers.live().remove(&self.id);
        }
    }
}

#[derive(Debug, Default)]
struct Outbox {
    waiting: VecDeque<Notice>,
    sending: bool,
}

impl Peers {
    /// `own`: the address that connections leave from, if it is one.
    pub(super) fn new(
        endpoint: Endpoint,
        own: IpAddr,
        identity: Arc<Identity>,
        tallies: Arc<Tallies>,
        credits: Arc<Credits>,
        patience: Duration,
    ) -> Peers {
        Peers {
            endpoint,
            own,
            identity,
            tallies,
            credits,
            patience,
            outgoing: Mutex::default(),
            idle: Idle::default(),
            live: Mutex::default(),
            transports: Mutex::default(),
            begin: Instant::now(),
            clock: AtomicU64::new(0),
            closed: watch::Sender::new(false),
        }
    }

    /// Closes everything, for good.
    pub(super) fn close(&self) {
        self.closed.send_replace(true);
        self.endpoint.close(GOODBYE, b"going");
        self.idle.close();
        for live in self.live().values() {
            live.close(GOODBYE, b"going");
        }
    }

    /// Waits until everything is closed.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut closed = self.closed.subscribe();
        async move {
            // Nobody is left to close it.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }

    pub(super) fn own_address(&self) -> IpAddr {
        self.own
    }

    pub(super) fn tallies(&self) -> &Arc<Tallies> {
        &self.tallies
    }

    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<LiveId, Live>> {
        self.live.lock().expect("no panic under this lock")
    }

    fn transports(&self) -> std::sync::MutexGuard<'_, Transports> {
        self.transports.lock().expect("no panic under this lock")
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Connections that live, over QUIC and over TCP.
    #[cfg(test)]
    pub(super) fn alive(&self) -> (usize, usize) {
        let live = self.live();
        let quic = live.keys().filter(|id| matches!(id, LiveId::Quic(_)));
        let quic = quic.count();
        (quic, live.len() - quic)
    }

    /// Which transport to try first.
    pub(super) fn first_transport(&self, peer: &NodeId, path: Path) -> Transport {
        self.transports().first(self.now(), peer, path)
    }

    /// The peer answered over `transport`, where the other one had `failed` just before.
    pub(super) fn got_through(&self, peer: NodeId, transport: Transport, failed: bool) {
        let mut transports = self.transports();
        transports.worked(&peer, transport);
        if failed {
            tracing::debug!(node = %peer, by = ?transport, "a peer is reached another way");
            transports.went_around(self.now(), peer, transport.other());
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A live connection to the peer. Whether the peer admits us shows in its first reply.
    pub(super) async fn connect(self: &Arc<Self>, to: &Contact) -> Result<Link, ConnectError> {
        let address = to.data.ok_or(ConnectError::NoAddress)?;
        let peer = self.peer(to.node);
        let mut slot = peer.connection.lock().await;
        if let Some(live) = slot
            .as_ref()
            .filter(|c| c.close_reason().is_none() && c.remote_address() == address)
        {
            let connection = live.clone();
            drop(slot);
            return Ok(Link {
                peer,
                connection,
                fresh: false,
            });
        }
        let is_new = self.credits.is_new(&to.node);
        let config = client_config(&self.identity, to.node, is_new)
            .map_err(|e| ConnectError::Quic(e.to_string()))?;
        let connecting = self
            .endpoint
            .connect_with(config, address, &to.node.to_string())
            .map_err(|e| ConnectError::Quic(e.to_string()))?;
        let connection = timeout(self.patience.min(CONNECT_TIMEOUT), connecting)
            .await
            .map_err(|_| ConnectError::Timeout)?
            .map_err(|e| ConnectError::Quic(e.to_string()))?;
        self.track(to.node, &connection);
        *slot = Some(connection.clone());
        peer.narrow.store(is_new, Ordering::Relaxed);
        drop(slot);
        Ok(Link {
            peer,
            connection,
            fresh: true,
        })
    }

    fn peer(&self, node: NodeId) -> Arc<Peer> {
        let mut outgoing = self.outgoing.lock().expect("no panic under this lock");
        let peer = outgoing.entry(node).or_default().clone();
        peer.used.store(
            self.clock.fetch_add(1, Ordering::Relaxed),
            Ordering::Relaxed,
        );
        if outgoing.len() > OUTGOING_MAX {
            let unused = outgoing
                .iter()
                .filter(|(_, peer)| Arc::strong_count(peer) == 1);
            let oldest = unused
                .min_by_key(|(_, peer)| peer.used.load(Ordering::Relaxed))
                .map(|(node, _)| *node);
            if let Some(gone) = oldest.and_then(|oldest| outgoing.remove(&oldest))
                && let Ok(Some(connection)) = gone.connection.try_lock().as_deref()
            {
                connection.close(GOODBYE, b"unused");
            }
        }
        peer
    }

    /// Remembers a live connection until it ends.
    pub(super) fn track(self: &Arc<Self>, node: NodeId, connection: &Connection) {
        let id = LiveId::Quic(connection.stable_id());
        let how = How::Quic(connection.clone());
        self.remember(id, node, how, connection.side() == Side::Server);
        let (peers, connection) = (Arc::downgrade(self), connection.clone());
        tokio::spawn(async move {
            connection.closed().await;
            if let Some(peers) = peers.upgrade() {
                peers.live().remove(&id);
            }
        });
    }

    /// The same for a TCP connection, until the answer is dropped.
    pub(super) fn track_tcp(
        self: &Arc<Self>,
        node: NodeId,
        cutter: Cutter,
        incoming: bool,
    ) -> Tracked {
        let id = LiveId::Tcp(self.clock.fetch_add(1, Ordering::Relaxed));
        self.remember(id, node, How::Tcp(cutter), incoming);
        let peers = Arc::downgrade(self);
        Tracked { peers, id }
    }

    fn remember(&self, id: LiveId, node: NodeId, how: How, incoming: bool) {
        let one = Live {
            node,
            incoming,
            since: Instant::now(),
            how,
        };
        let before = self.live().insert(id, one);
        debug_assert!(before.is_none());
        // The rules may have changed between the handshake and now.
        if !self.is_admitted(&node) {
            self.close_where(|other| *other == node, NOT_ADMITTED);
        }
        if *self.closed.borrow() {
            self.close_where(|_| true, GOODBYE);
        }
    }

    /// Closes the oldest QUIC connections that a peer opened to us until there is room for one more.
    pub(super) fn make_room_for(&self, node: &NodeId) {
        let is_quic = |how: &How| matches!(how, How::Quic(_));
        self.close_oldest(node, INCOMING_PER_PEER_MAX, is_quic);
    }

    /// The same for TCP, where a peer has as many as this.
    pub(super) fn make_room_tcp(&self, node: &NodeId, max: usize) {
        self.close_oldest(node, max, |how| matches!(how, How::Tcp(_)));
    }

    fn close_oldest(&self, node: &NodeId, max: usize, kind: impl Fn(&How) -> bool) {
        let live = self.live();
        let theirs = |one: &&Live| one.node == *node && one.incoming && kind(&one.how);
        let mut theirs: Vec<&Live> = live.values().filter(theirs).collect();
        theirs.sort_unstable_by_key(|one| one.since);
        let too_many = (theirs.len() + 1).saturating_sub(max);
        for one in &theirs[..too_many] {
            one.close(TOO_MANY, b"too many connections");
        }
    }

    pub(super) fn close_revoked(&self) {
        self.close_where(|node| !self.is_admitted(node), NOT_ADMITTED);
    }

    fn is_admitted(&self, node: &NodeId) -> bool {
        !matches!(self.identity.admission().readmit(node), Some(Err(_)))
    }

    fn close_where(&self, whom: impl Fn(&NodeId) -> bool, code: VarInt) {
        let live = self.live();
        for one in live.values().filter(|one| whom(&one.node)) {
            tracing::info!(node = %one.node, "a data connection is closed: not admitted any more");
            one.close(code, b"not admitted");
        }
    }

    /// Queues a notice; one task per peer sends them in order as long as there are any.
    pub(super) fn notify(self: &Arc<Self>, to: Contact, notice: Notice) {
        let peer = self.peer(to.node);
        let mut outbox = peer.notices.lock().expect("no panic under this lock");
        if outbox.waiting.len() >= NOTICES_MAX {
            tracing::warn!(node = %to.node, "too many notices wait for a peer: the oldest is lost");
            outbox.waiting.pop_front();
        }
        outbox.waiting.push_back(notice);
        if !std::mem::replace(&mut outbox.sending, true) {
            drop(outbox);
            let peers = self.clone();
            tokio::spawn(async move { peers.send_notices(to, peer).await });
        }
    }

    async fn send_notices(self: Arc<Self>, to: Contact, peer: Arc<Peer>) {
        loop {
            let next = {
                let mut outbox = peer.notices.lock().expect("no panic under this lock");
                let next = outbox.waiting.pop_front();
                outbox.sending = next.is_some();
                next
            };
            let Some(notice) = next else { return };
            let sent = timeout(self.patience, self.send_notice(&to, &notice)).await;
            if let Ok(Err(error)) | Err(error) = sent.map_err(|_| ConnectError::Timeout) {
                tracing::debug!(node = %to.node, %error, "notices are lost");
                let mut outbox = peer.notices.lock().expect("no panic under this lock");
                outbox.waiting.clear();
            }
        }
    }

    /// Over QUIC, and over TCP to whom QUIC does not reach.
    async fn send_notice(
        self: &Arc<Self>,
        to: &Contact,
        notice: &Notice,
    ) -> Result<(), ConnectError> {
        let first = self.first_transport(&to.node, Path::Far);
        match self.send_over(first, to, notice).await {
            Err(error) if error.is_of_the_way() => {
                self.send_over(first.other(), to, notice).await?;
                self.got_through(to.node, first.other(), true);
                Ok(())
            }
            sent => sent,
        }
    }

    async fn send_over(
        self: &Arc<Self>,
        transport: Transport,
        to: &Contact,
        notice: &Notice,
    ) -> Result<(), ConnectError> {
        match transport {
            Transport::Quic => self.send_over_quic(to, notice).await,
            Transport::Tcp => self.send_over_tcp(to, notice).await,
        }
    }

    async fn send_over_quic(
        self: &Arc<Self>,
        to: &Contact,
        notice: &Notice,
    ) -> Result<(), ConnectError> {
        let quic = |e: &dyn std::fmt::Display| ConnectError::Quic(e.to_string());
        let link = self.connect(to).await?;
        let mut stream = link.connection.open_uni().await.map_err(|e| quic(&e))?;
        stream
            .write_all(&notice.to_bytes())
            .await
            .map_err(|e| quic(&e))?;
        stream.finish().map_err(|e| quic(&e))
    }

    async fn send_over_tcp(
        self: &Arc<Self>,
        to: &Contact,
        notice: &Notice,
    ) -> Result<(), ConnectError> {
        let mut lease = self.dial(to).await?;
        tcp::write_notice(&mut lease.stream, notice)
            .await
            .map_err(|e| ConnectError::Tcp(e.to_string()))?;
        self.keep(lease);
        Ok(())
    }
}

/// Who is at the other end, as TLS has admitted it.
pub(super) fn node_of(connection: &Connection) -> Option<NodeId> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    node_of_certificate(chain.first()?)
}
