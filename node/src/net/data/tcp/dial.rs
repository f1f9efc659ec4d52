//! Connections that are asked over: made on demand, kept for a while after an exchange.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use protocol::NodeId;
use protocol::limits::{TCP_CONNECT_TIMEOUT, TCP_IDLE, TCP_IDLE_MAX};
use protocol::wire::{Contact, DATA_TCP_ALPN};
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Stream, Wire};
use crate::net::data::count::Tallies;
use crate::net::data::peers::{ConnectError, Peers, Tracked};

/// A connection for one exchange. Dropping it closes it; [`Peers::keep`] saves it for the next.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) stream: Box<Stream>,
    pub(crate) node: NodeId,
    pub(crate) address: SocketAddr,
    /// Whether it was made just now, so that the peer was there a moment ago.
    pub(crate) fresh: bool,
    _tracked: Tracked,
}

/// Connections that wait for their next exchange.
#[derive(Debug, Default)]
pub(crate) struct Idle(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// The longest unused first.
    leases: Vec<(Lease, Instant)>,
    /// Whether a task closes those that waited for too long.
    watched: bool,
}

impl Idle {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("no panic under this lock")
    }

    fn take(&self, to: &Contact) -> Option<Lease> {
        let fits = |lease: &Lease| lease.node == to.node && Some(lease.address) == to.data;
        loop {
            let mut waiting = self.waiting();
            let place = waiting.leases.iter().rposition(|(one, _)| fits(one))?;
            let (mut lease, _) = waiting.leases.remove(place);
            drop(waiting);
            if lease.stream.get_mut().0.rest() {
                return Some(lease);
            }
        }
    }

    /// Closes those to a peer that has gone silent.
    pub(crate) fn forget(&self, node: &NodeId) {
        let mut waiting = self.waiting();
        let (gone, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut waiting.leases)
            .into_iter()
            .partition(|(lease, _)| lease.node == *node);
        waiting.leases = rest;
        drop(waiting);
        drop(gone);
    }

    /// Whether somebody has to see to it that it is closed in time.
    fn put(&self, lease: Lease) -> bool {
        let mut waiting = self.waiting();
        waiting.leases.push((lease, Instant::now()));
        let oldest = (waiting.leases.len() > TCP_IDLE_MAX).then(|| waiting.leases.remove(0));
        let unwatched = !std::mem::replace(&mut waiting.watched, true);
        drop(waiting);
        drop(oldest);
        unwatched
    }

    /// Closes those that were not used for `unused`; whether any are left to watch.
    fn close_old(&self, unused: Duration) -> bool {
        let mut waiting = self.waiting();
        let is_old = |(_, since): &&(Lease, Instant)| since.elapsed() >= unused;
        let old = waiting.leases.iter().take_while(is_old).count();
        let old: Vec<_> = waiting.leases.drain(..old).collect();
        waiting.watched = !waiting.leases.is_empty();
        let left = waiting.watched;
        drop(waiting);
        drop(old);
        left
    }

    /// Closes all.
    pub(crate) fn close(&self) {
        let all = std::mem::take(&mut self.waiting().leases);
        drop(all);
    }
}

impl Peers {
    /// A connection to the peer over TCP. Whether the peer admits us shows in its first reply.
    pub(crate) async fn dial(self: &Arc<Self>, to: &Contact) -> Result<Lease, ConnectError> {
        let address = to.data.ok_or(ConnectError::NoAddress)?;
        if let Some(mut lease) = self.idle().take(to) {
            lease.fresh = false;
            return Ok(lease);
        }
        let patience = self.patience().min(TCP_CONNECT_TIMEOUT.as_duration());
        let stream = timeout(patience, self.shake_hands(to.node, address))
            .await
            .map_err(|_| ConnectError::Timeout)?
            .map_err(|e| ConnectError::Tcp(e.to_string()))?;
        let cutter = stream.get_ref().0.cutter();
        Ok(Lease {
            stream: Box::new(stream),
            node: to.node,
            address,
            fresh: true,
            _tracked: self.track_tcp(to.node, cutter, false),
        })
    }

    async fn shake_hands(&self, node: NodeId, address: SocketAddr) -> std::io::Result<Stream> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Sites are known by their addresses.
        let own = self.own_address();
        if !own.is_unspecified() && own.is_ipv4() == address.is_ipv4() {
            socket.bind(SocketAddr::new(own, 0))?;
        }
        let tallies: Arc<Tallies> = self.tallies().clone();
        let wire = Wire::new(socket.connect(address).await?, tallies)?;
        let name = ServerName::try_from(node.to_string()).map_err(std::io::Error::other)?;
        let tls = self.identity().tls_client(node, DATA_TCP_ALPN);
        let stream = TlsConnector::from(tls).connect(name, wire).await?;
        Ok(stream.into())
    }

    /// Saves a connection for the next exchange, if it is fit for one.
    pub(crate) fn keep(self: &Arc<Self>, mut lease: Lease) {
        if !lease.stream.get_mut().0.rest() {
            return;
        }
        if self.idle().put(lease) {
            let peers = Arc::downgrade(self);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(TCP_IDLE.as_duration() / 4).await;
                    let left = peers
                        .upgrade()
                        .is_some_and(|peers| peers.idle().close_old(TCP_IDLE.as_duration()));
                    if !left {
                        return;
                    }
                }
            });
        }
    }
}
