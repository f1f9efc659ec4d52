//! Counting bytes where they count: at the socket, by remote site.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use protocol::SiteId;
use protocol::topology::Topology;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::SiteCount;
use super::marks::Marks;

/// Addresses whose site is remembered; beyond that the memory, which is only a cache, starts anew.
const ADDRESSES_MAX: usize = 16_384;

/// What was counted for one remote site, or for all addresses outside the topology.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) site: Option<SiteId>,
    socket_in: AtomicU64,
    socket_out: AtomicU64,
    payload_in: AtomicU64,
    payload_out: AtomicU64,
}

impl Tally {
    pub(crate) fn socket_out(&self) -> u64 {
        self.socket_out.load(Ordering::Relaxed)
    }

    pub(crate) fn add_socket_in(&self, bytes: u64) {
        self.socket_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_socket_out(&self, bytes: u64) {
        self.socket_out.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_payload_in(&self, bytes: u64) {
        self.payload_in.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_payload_out(&self, bytes: u64) {
        self.payload_out.fetch_add(bytes, Ordering::Relaxed);
    }

    fn count(&self) -> SiteCount {
        SiteCount {
            socket_in: self.socket_in.load(Ordering::Relaxed),
            socket_out: self.socket_out.load(Ordering::Relaxed),
            payload_in: self.payload_in.load(Ordering::Relaxed),
            payload_out: self.payload_out.load(Ordering::Relaxed),
        }
    }
}

/// All tallies, and which address belongs to which by the newest topology.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    topology: Option<Arc<Topology>>,
    by_address: HashMap<IpAddr, Arc<Tally>>,
    by_site: BTreeMap<Option<SiteId>, Arc<Tally>>,
}

impl Tallies {
    pub(crate) fn set_topology(&self, topology: Arc<Topology>) {
        let mut state = self.state.lock().expect("no panic under this lock");
        state.topology = Some(topology);
        state.by_address.clear();
    }

    /// The tally of the site that an address lies in.
    pub(crate) fn of(&self, address: IpAddr) -> Arc<Tally> {
        let mut state = self.state.lock().expect("no panic under this lock");
        if let Some(tally) = state.by_address.get(&address) {
            return tally.clone();
        }
        let canonical = address.to_canonical();
        let site = state
            .topology
            .as_ref()
            .and_then(|t| t.site_of(canonical))
            .map(|s| s.id.clone());
        let tally = state.of_site(site);
        if state.by_address.len() >= ADDRESSES_MAX {
            state.by_address.clear();
        }
        state.by_address.insert(address, tally.clone());
        tally
    }

    /// The tally of a site.
    pub(crate) fn of_site(&self, site: SiteId) -> Arc<Tally> {
        self.state
            .lock()
            .expect("no panic under this lock")
            .of_site(Some(site))
    }

    pub(crate) fn counts(&self) -> BTreeMap<Option<SiteId>, SiteCount> {
        let state = self.state.lock().expect("no panic under this lock");
        state
            .by_site
            .iter()
            .map(|(site, tally)| (site.clone(), tally.count()))
            .collect()
    }
}

impl State {
    fn of_site(&mut self, site: Option<SiteId>) -> Arc<Tally> {
        let new = || {
            Arc::new(Tally {
                site: site.clone(),
                ..Tally::default()
            })
        };
        self.by_site.entry(site.clone()).or_insert_with(new).clone()
    }
}

/// A UDP socket that counts the bytes of its datagrams by the remote address, and marks them.
#[derive(Debug)]
pub(crate) struct CountingSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    tallies: Arc<Tallies>,
    marks: Arc<Marks>,
}

impl CountingSocket {
    pub(super) fn new(
        inner: Arc<dyn AsyncUdpSocket>,
        tallies: Arc<Tallies>,
        marks: Arc<Marks>,
    ) -> CountingSocket {
        CountingSocket {
            inner,
            tallies,
            marks,
        }
    }
}

impl AsyncUdpSocket for CountingSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if !self.marks.send(transmit) {
            self.inner.try_send(transmit)?;
        }
        let tally = self.tallies.of(transmit.destination.ip());
        tally.add_socket_out(transmit.contents.len() as u64);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        for one in &meta[..received] {
            let tally = self.tallies.of(one.addr.ip());
            tally.add_socket_in(one.len as u64);
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
