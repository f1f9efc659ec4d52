//! Connections: one to each peer that is asked, made on demand, kept while it is of use; and all
//! live ones, so that they end when a peer is not admitted any more.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use protocol::NodeId;
use protocol::limits::BAN;
use protocol::versioned::Versioned;
use protocol::wire::{Contact, Notice};
use quinn::{Connection, Endpoint, Side, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::endpoint::client_config;
use crate::net::identity::{Identity, node_of_certificate};

/// Outgoing connections that are kept; above, the longest unused one is closed.
const OUTGOING_MAX: usize = 128;
/// Incoming connections; above, newcomers are refused until one ends.
pub(super) const INCOMING_MAX: usize = 512;
/// Incoming connections of one peer; it needs one. Above, its oldest is closed: most likely the peer
/// was killed and started again, and the old one has not timed out yet.
const INCOMING_PER_PEER_MAX: usize = 4;
/// Peers that are banned; above, the oldest ban ends early.
const BANS_MAX: usize = 1024;
/// A peer that does not shake hands by then is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Notices that wait for one peer; above, the oldest is lost.
const NOTICES_MAX: usize = 256;

/// Why a connection was closed, as the peer sees it.
pub(super) const GOODBYE: VarInt = VarInt::from_u32(0);
pub(super) const NOT_ADMITTED: VarInt = VarInt::from_u32(1);
pub(super) const BANNED: VarInt = VarInt::from_u32(2);
pub(super) const TOO_MANY: VarInt = VarInt::from_u32(3);

/// Why a peer cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("it has no data address")]
    NoAddress,
    #[error("it is banned")]
    Banned,
    #[error("it did not answer in time")]
    Timeout,
    #[error("{0}")]
    Quic(String),
}

/// All connections of an endpoint.
#[derive(Debug)]
pub(super) struct Peers {
    endpoint: Endpoint,
    identity: Arc<Identity>,
    patience: Duration,
    outgoing: Mutex<HashMap<NodeId, Arc<Peer>>>,
    live: Mutex<HashMap<usize, Live>>,
    bans: Mutex<VecDeque<(NodeId, Instant)>>,
    clock: AtomicU64,
}

/// A peer that is or was asked. Whoever uses the connection holds on to this.
#[derive(Debug, Default)]
pub(super) struct Peer {
    connection: tokio::sync::Mutex<Option<Connection>>,
    used: AtomicU64,
    notices: Mutex<Outbox>,
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
    connection: Connection,
    since: Instant,
}

#[derive(Debug, Default)]
struct Outbox {
    waiting: VecDeque<Notice>,
    sending: bool,
}

impl Peers {
    pub(super) fn new(endpoint: Endpoint, identity: Arc<Identity>, patience: Duration) -> Peers {
        Peers {
            endpoint,
            identity,
            patience,
            outgoing: Mutex::default(),
            live: Mutex::default(),
            bans: Mutex::default(),
            clock: AtomicU64::new(0),
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
        if self.is_banned(&to.node) {
            return Err(ConnectError::Banned);
        }
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
        let config = client_config(&self.identity, to.node)
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
        let id = connection.stable_id();
        let one = Live {
            node,
            connection: connection.clone(),
            since: Instant::now(),
        };
        let before = self
            .live
            .lock()
            .expect("no panic under this lock")
            .insert(id, one);
        debug_assert!(before.is_none());
        let (peers, connection) = (Arc::downgrade(self), connection.clone());
        tokio::spawn(async move {
            connection.closed().await;
            if let Some(peers) = peers.upgrade() {
                peers
                    .live
                    .lock()
                    .expect("no panic under this lock")
                    .remove(&id);
            }
        });
        // The rules may have changed between the handshake and now.
        if !self.is_admitted(&node) || self.is_banned(&node) {
            self.close_where(|other| *other == node, NOT_ADMITTED);
        }
    }

    /// Closes the oldest connections that a peer opened to us until there is room for one more.
    pub(super) fn make_room_for(&self, node: &NodeId) {
        let live = self.live.lock().expect("no panic under this lock");
        let incoming = |one: &&Live| one.node == *node && one.connection.side() == Side::Server;
        let mut theirs: Vec<&Live> = live.values().filter(incoming).collect();
        theirs.sort_unstable_by_key(|one| one.since);
        let too_many = (theirs.len() + 1).saturating_sub(INCOMING_PER_PEER_MAX);
        for one in &theirs[..too_many] {
            one.connection.close(TOO_MANY, b"too many connections");
        }
    }

    pub(super) fn close_revoked(&self) {
        self.close_where(|node| !self.is_admitted(node), NOT_ADMITTED);
    }

    fn is_admitted(&self, node: &NodeId) -> bool {
        !matches!(self.identity.admission().readmit(node), Some(Err(_)))
    }

    fn close_where(&self, whom: impl Fn(&NodeId) -> bool, code: VarInt) {
        let live = self.live.lock().expect("no panic under this lock");
        for Live {
            node, connection, ..
        } in live.values().filter(|one| whom(&one.node))
        {
            tracing::info!(%node, "a data connection is closed: not admitted any more");
            connection.close(code, b"not admitted");
        }
    }

    pub(super) fn ban(&self, node: NodeId) {
        let mut bans = self.bans.lock().expect("no panic under this lock");
        bans.retain(|(banned, until)| *banned != node && *until > Instant::now());
        if bans.len() >= BANS_MAX {
            bans.pop_front();
        }
        bans.push_back((node, Instant::now() + BAN.as_duration()));
        drop(bans);
        self.close_where(|other| *other == node, BANNED);
    }

    pub(super) fn is_banned(&self, node: &NodeId) -> bool {
        let bans = self.bans.lock().expect("no panic under this lock");
        bans.iter()
            .any(|(banned, until)| banned == node && *until > Instant::now())
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

    async fn send_notice(
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
}

/// Who is at the other end, as TLS has admitted it.
pub(super) fn node_of(connection: &Connection) -> Option<NodeId> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    node_of_certificate(chain.first()?)
}
