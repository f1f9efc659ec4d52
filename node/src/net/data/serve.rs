//! Answering peers: requests from the blobs that are held, notices to the driver.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use node_core::congestion::{End, Link};
use protocol::NodeId;
use protocol::limits::{PACED_WRITE_MAX_BYTES, SLOW_BYTES_PER_S};
use protocol::strangers::Knock;
use protocol::wire::{Class, DataReply, DataRequest};
use quinn::{Connection, Incoming, SendStream, VarInt};
use tokio::io::AsyncWrite;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::buffers::Sink;
use super::codec::{self, ExchangeError, Gate};
use super::doors::{self, Answer};
use super::endpoint::{SEND_WINDOW_BYTES, over_wan};
use super::manners::Manners;
use super::pace::{Bucket, SitePace};
use super::peers::{INCOMING_MAX, NOT_ADMITTED, node_of};
use super::places::Place;
use super::{DataEvent, Inner};
use crate::net::knocks;
use crate::store::blobs::{Blob, Encoder};

/// Under a cap a connection holds so many bytes ahead of what its path takes, at least.
const AHEAD_MIN_BYTES: u64 = 4 << 10;
/// The error code of a stream that we cut.
const CUT: VarInt = VarInt::from_u32(1);

/// Takes connections until the endpoint closes.
pub(super) async fn accept(inner: Arc<Inner>) {
    let open = Arc::new(AtomicUsize::new(0));
    while let Some(incoming) = inner.peers.endpoint().accept().await {
        let room = Room::take(&open);
        if open.load(Ordering::Relaxed) > INCOMING_MAX {
            incoming.refuse();
            continue;
        }
        let inner = inner.clone();
        tokio::spawn(async move {
            if let Err(error) = connection(inner, incoming).await {
                tracing::debug!(%error, "an incoming data connection was not taken");
            }
            drop(room);
        });
    }
}

/// Room among the incoming connections, given back when dropped.
struct Room(Arc<AtomicUsize>);

impl Room {
    fn take(open: &Arc<AtomicUsize>) -> Room {
        open.fetch_add(1, Ordering::Relaxed);
        Room(open.clone())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(inner: Arc<Inner>, incoming: Incoming) -> Result<(), String> {
    let own = incoming.local_ip().unwrap_or(inner.local.ip());
    let remote = incoming.remote_address().ip();
    let link = link_between(&inner, own, remote);
    let manners = Manners::of(link);
    let connecting = match link {
        Link::Near => incoming.accept(),
        Link::Far => incoming.accept_with(Arc::new(over_wan(&inner.server, manners.clone()))),
    };
    let connecting = connecting.map_err(|e| e.to_string())?;
    let handshake = timeout(inner.config.slow_after, connecting).await;
    let connection = handshake
        .map_err(|_| "the handshake took too long")?
        .map_err(|e| {
            inner.knocked(remote, knocks::over_quic(&e));
            e.to_string()
        })?;
    let Some(node) = node_of(&connection) else {
        connection.close(NOT_ADMITTED, b"not admitted");
        inner.knocked(remote, Some(Knock::Refused));
        return Err("the peer showed no node's certificate".to_owned());
    };
    inner.peers.make_room_for(&node);
    inner.peers.track(node, &connection);
    tokio::join!(
        requests(&inner, &connection, node, &manners),
        notices(&inner, &connection, node)
    );
    Ok(())
}

/// What lies between us and whoever asks, by the newest topology.
fn link_between(inner: &Inner, own: IpAddr, remote: IpAddr) -> Link {
    let tallies = [own, remote].map(|address| inner.tallies.of(address));
    let [own, remote] = [(own, &tallies[0]), (remote, &tallies[1])].map(|(address, tally)| End {
        address,
        site: tally.site.as_ref(),
    });
    Link::between(own, remote)
}

async fn requests(
    inner: &Arc<Inner>,
    connection: &Connection,
    node: NodeId,
    manners: &Arc<Manners>,
) {
    let remote = connection.remote_address();
    let asker = Arc::new(Asker {
        node,
        own: connection.local_ip().unwrap_or(inner.local.ip()),
        remote,
        data: Some(remote),
    });
    // quinn bounds how many of these streams are open at the same time.
    while let Ok((mut to, mut from)) = connection.accept_bi().await {
        let (inner, asker) = (inner.clone(), asker.clone());
        let (connection, manners) = (connection.clone(), manners.clone());
        tokio::spawn(async move {
            let over = OverQuic {
                connection: &connection,
                manners: &manners,
            };
            match exchange(&inner, &asker, over, (&mut to, &mut from)).await {
                Ok(()) => drop(to.finish()),
                Err(error) => {
                    tracing::debug!(peer = %asker.remote, %error, "a request was cut");
                    let _ = to.reset(CUT);
                }
            }
        });
    }
}

async fn notices(inner: &Arc<Inner>, connection: &Connection, node: NodeId) {
    while let Ok(mut stream) = connection.accept_uni().await {
        match timeout(inner.config.slow_after, codec::read_notice(&mut stream)).await {
            Ok(Ok(notice)) => {
                if inner
                    .events
                    .send(DataEvent::Notice(node, notice))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Ok(Err(error)) => tracing::debug!(%node, %error, "a notice is dropped"),
            Err(_) => {
                tracing::debug!(%node, "a notice took too long");
                let _ = stream.stop(CUT);
            }
        }
    }
}

/// Who asks, and from where to where.
pub(super) struct Asker {
    pub(super) node: NodeId,
    /// Our address that was asked.
    pub(super) own: IpAddr,
    pub(super) remote: SocketAddr,
    /// Where the asker can be asked itself, if that shows.
    pub(super) data: Option<SocketAddr>,
}

/// Where a reply goes.
pub(super) trait Reply: AsyncWrite + Sink + Unpin {
    /// Ends if nobody waits for the reply any more.
    fn gone(&mut self) -> impl Future<Output = ()> + Send;
    /// Marks what leaves from now on, where the connection is the reply's alone.
    fn mark(&mut self, dscp: u8);
}

impl Reply for SendStream {
    async fn gone(&mut self) {
        let _ = self.stopped().await;
    }

    /// Packets are marked one by one: see [`super::marks`].
    fn mark(&mut self, _dscp: u8) {}
}

/// Reads one request from a stream and answers it.
async fn exchange(
    inner: &Arc<Inner>,
    asker: &Asker,
    over: OverQuic<'_>,
    (to, from): (&mut SendStream, &mut quinn::RecvStream),
) -> Result<(), ExchangeError> {
    let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
    let request = timeout(inner.config.slow_after, codec::read_request(from))
        .await
        .map_err(|_| late())?;
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(peer = %asker.remote, %error, "a request is refused");
            return Ok(codec::write_reply(to, DataReply::Refused).await?);
        }
    };
    let _ = to.set_priority(match request.class {
        Class::Background => -1,
        Class::Normal => 0,
        Class::Emergency => 1,
    });
    answer(inner, asker, Some(over), request, to).await
}

/// What a QUIC connection lets be set.
#[derive(Clone, Copy)]
pub(super) struct OverQuic<'a> {
    connection: &'a Connection,
    manners: &'a Arc<Manners>,
}

/// Answers a request.
pub(super) async fn answer(
    inner: &Arc<Inner>,
    asker: &Asker,
    over: Option<OverQuic<'_>>,
    request: DataRequest,
    to: &mut impl Reply,
) -> Result<(), ExchangeError> {
    if !codec::is_sound(&request) {
        return Ok(codec::write_reply(to, DataReply::Refused).await?);
    }
    let (limit, _guest) = match doors::ask(inner, asker, &request, to).await? {
        Answer::Send(limit, guest) => (limit, guest),
        Answer::Reply(reply) => return Ok(codec::write_reply(to, reply).await?),
    };
    let (blob, _place) = match admit(inner, asker.node, &request).await {
        Ok(admitted) => admitted,
        Err(reply) => return Ok(codec::write_reply(to, reply).await?),
    };
    let _serving = over.map(|over| over.manners.serve(request.class));
    let _marked = over.and_then(|_| inner.marks.begin(asker.remote, request.class));
    to.mark(inner.config.dscp.of(request.class));
    codec::write_reply(to, DataReply::Sending).await?;
    let remote = asker.remote.ip();
    let gate = SendGate::new(
        inner,
        asker,
        over.map(|over| over.connection.clone()),
        request.class,
        [request.max_bytes_per_s, limit],
    );
    let tally = inner.tallies.of(remote);
    let encoder = Encoder::new(blob, &request.groups);
    codec::send(to, encoder, &inner.sending, &gate, |bytes| {
        tally.add_payload_out(bytes)
    })
    .await?;
    Ok(())
}

/// The blob and a place among the uploads, or why not.
async fn admit(
    inner: &Arc<Inner>,
    node: NodeId,
    request: &DataRequest,
) -> Result<(Arc<Blob>, Place<NodeId>), DataReply> {
    let place = inner.uploads.take(node).ok_or(DataReply::Busy)?;
    let (blobs, root) = (inner.blobs.clone(), request.blob.root);
    let blob = spawn_blocking(move || blobs.get(&root))
        .await
        .ok()
        .flatten();
    blob.filter(|blob| {
        blob.name() == request.blob
            && request
                .groups
                .iter()
                .all(|(start, end)| blob.holds(*start..*end))
    })
    .map(|blob| (blob, place))
    .ok_or(DataReply::NotHeld)
}

/// Everything that slows down what we send in answer to one request.
struct SendGate {
    /// The asker's site.
    theirs: Option<Arc<SitePace>>,
    /// Our own site's WAN.
    ours: Option<Arc<SitePace>>,
    /// What this node itself keeps to.
    own: Arc<SitePace>,
    /// The asker's own wish.
    wish: Option<Bucket>,
    class: Class,
    connection: Option<Connection>,
}

impl SendGate {
    fn new(
        inner: &Inner,
        asker: &Asker,
        connection: Option<Connection>,
        class: Class,
        limits: [u64; 2],
    ) -> SendGate {
        let [theirs, ours] =
            [asker.remote.ip(), asker.own].map(|address| inner.tallies.of(address));
        let same_site = theirs.site.is_some() && theirs.site == ours.site;
        let pace = |site: &Option<_>| {
            site.as_ref()
                .filter(|_| !same_site)
                .map(|site| inner.paces.of(site))
        };
        SendGate {
            theirs: pace(&theirs.site),
            ours: pace(&ours.site),
            own: inner.paces.own(!same_site).up.clone(),
            wish: limits
                .into_iter()
                .filter_map(wished)
                .min()
                .map(|rate| Bucket::new(rate, 0)),
            class,
            connection,
        }
    }

    fn paces(&self) -> impl Iterator<Item = &Arc<SitePace>> {
        let sites = [&self.theirs, &self.ours].into_iter().flatten();
        sites.chain([&self.own])
    }

    /// What is written under a cap shall leave soon: what waits in the connection has paid already, and
    /// would still come after the cap was lowered.
    fn keep_little(&self) {
        let Some(connection) = &self.connection else {
            return;
        };
        let window = connection.stats().path.cwnd.saturating_mul(2);
        let window = window.clamp(AHEAD_MIN_BYTES, SEND_WINDOW_BYTES);
        connection.set_send_window(window);
    }
}

/// A wish for less than a fetch must bring is no wish to fetch, but to keep a place.
fn wished(max_bytes_per_s: u64) -> Option<u64> {
    (max_bytes_per_s > 0).then_some(max_bytes_per_s.max(SLOW_BYTES_PER_S))
}

impl Gate for SendGate {
    fn write_bytes(&self) -> usize {
        let sites = self.paces().filter_map(|pace| pace.write_bytes());
        let wish = self.wish.as_ref().map(Bucket::write_bytes);
        sites.chain(wish).min().unwrap_or(PACED_WRITE_MAX_BYTES)
    }

    async fn open(&self, bytes: usize) {
        if self.paces().any(|pace| pace.write_bytes().is_some()) {
            self.keep_little();
        }
        if let Some(wish) = &self.wish {
            wish.take(bytes).await;
        }
        self.own.take(bytes, false, self.class).await;
        if let Some(ours) = &self.ours {
            ours.take(bytes, false, self.class).await;
        }
        if let Some(theirs) = &self.theirs {
            theirs.take(bytes, true, self.class).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_keeps_no_place_for_ever() {
        assert_eq!(wished(0), None);
        assert_eq!(wished(1), Some(SLOW_BYTES_PER_S));
        assert_eq!(wished(250_000), Some(250_000));
    }
}
