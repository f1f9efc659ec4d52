//! Fetching groups from one peer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node_core::congestion::Link as Path;
use node_core::contract::FetchOutcome;
use node_core::transport::Transport;
use protocol::limits::REQUEST_RANGES_MAX;
use protocol::wire::{DataReply, DataRequest, Referral};
use quinn::{Connection, RecvStream, VarInt};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::codec::{self, Cut, ExchangeError, Patience, Stopped, Terms, Won};
use super::credit::{Credit, Wasted};
use super::endpoint::FETCH_WINDOW_BYTES;
use super::peers::{ConnectError, GOODBYE, Link, Peer};
use super::tcp::{self, Lease};
use super::{FetchEnd, FetchJob, Inner};
use crate::store::blobs::{Decoder, Fault};

/// The error code of a stream that we do not want to read to its end.
const ENOUGH: VarInt = VarInt::from_u32(2);

/// Runs a fetch to its end.
pub(super) async fn run(
    inner: Arc<Inner>,
    job: FetchJob,
    progress: mpsc::Sender<u64>,
    mut cancel: watch::Receiver<bool>,
) -> FetchEnd {
    let mut report = Report {
        progress,
        unreported: 0,
        total: 0,
    };
    let (outcome, referral) = match fetch(&inner, &job, &mut report, &mut cancel).await {
        Ok(outcome) | Err(Stop::Outcome(outcome)) => (outcome, None),
        Err(Stop::Referred(referral)) => (FetchOutcome::NotHeld, Some(referral)),
    };
    report.flush();
    FetchEnd {
        outcome,
        referral,
        bytes: report.total,
    }
}

/// Why a fetch does not go on.
enum Stop {
    Outcome(FetchOutcome),
    Referred(Referral),
}

impl From<FetchOutcome> for Stop {
    fn from(outcome: FetchOutcome) -> Stop {
        Stop::Outcome(outcome)
    }
}

/// Payload bytes on their way to the driver; what a full channel does not take waits.
struct Report {
    progress: mpsc::Sender<u64>,
    unreported: u64,
    total: u64,
}

impl Report {
    fn add(&mut self, bytes: u64) {
        self.unreported += bytes;
        self.total += bytes;
        self.flush();
    }

    /// Nothing came, and it goes on.
    fn waits(&self) {
        let _ = self.progress.try_send(0);
    }

    fn flush(&mut self) {
        if self.unreported > 0 && self.progress.try_send(self.unreported).is_ok() {
            self.unreported = 0;
        }
    }
}

async fn fetch(
    inner: &Arc<Inner>,
    job: &FetchJob,
    report: &mut Report,
    cancel: &mut watch::Receiver<bool>,
) -> Result<FetchOutcome, Stop> {
    let Ok(_place) = inner.fetches.acquire().await else {
        return Ok(FetchOutcome::Broken);
    };
    let Some(credit) = inner.credits.of(job.from.node) else {
        tracing::debug!(node = %job.from.node, "nothing is fetched from a barred peer");
        return Ok(FetchOutcome::Broken);
    };
    let mut groups = job.groups.clone();
    while !groups.is_empty() {
        let mut first = tokio::select! {
            biased;
            () = codec::cancelled(cancel) => return Err(FetchOutcome::Cancelled.into()),
            first = credit.first() => first,
        };
        if credit.is_spoiled() {
            return Ok(FetchOutcome::Broken);
        }
        let request = DataRequest {
            blob: job.blob.name(),
            groups: next_groups(&mut groups, first.is_some()),
            class: job.class,
            max_bytes_per_s: job.max_bytes_per_s,
            spurned: job.spurned.clone(),
        };
        if !codec::is_sound(&request) {
            tracing::warn!(blob = %job.blob.name().root.short(), "a fetch names groups that are not in the blob");
            return Ok(FetchOutcome::NotHeld);
        }
        exchange(inner, job, &request, (&credit, &mut first), report, cancel).await?;
    }
    let blob = job.blob.clone();
    Ok(
        match spawn_blocking(move || blob.seal_if_complete()).await {
            Ok(Ok(())) => FetchOutcome::Complete,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a blob is whole but not durable");
                FetchOutcome::Storage
            }
            Err(_) => FetchOutcome::Broken,
        },
    )
}

/// Takes what one request asks for: of a peer that is new a single group, else as much as it may name.
fn next_groups(groups: &mut Vec<(u64, u64)>, is_new: bool) -> Vec<(u64, u64)> {
    match groups.first_mut() {
        Some((start, end)) if is_new && *start < *end => {
            let one = (*start, *start + 1);
            *start += 1;
            if start == end {
                groups.remove(0);
            }
            vec![one]
        }
        _ => groups
            .drain(..groups.len().min(REQUEST_RANGES_MAX))
            .collect(),
    }
}

/// A request that the peer has taken: its groups come.
enum Taken {
    Quic {
        /// Keeps the connection from being closed as unused.
        _peer: Arc<Peer>,
        connection: Connection,
        from: RecvStream,
    },
    Tcp(Lease),
}

impl Taken {
    fn remote(&self) -> SocketAddr {
        match self {
            Taken::Quic { connection, .. } => connection.remote_address(),
            Taken::Tcp(lease) => lease.address,
        }
    }
}

/// Why a request was not taken.
enum NotTaken {
    /// The peer was not reached this way.
    Unreached(ExchangeError),
    /// It was, and that is that.
    Stop(Stop),
}

impl From<ConnectError> for NotTaken {
    fn from(error: ConnectError) -> NotTaken {
        if error.is_of_the_way() {
            NotTaken::Unreached(io::Error::other(error).into())
        } else {
            tracing::debug!(%error, "a fetch broke");
            NotTaken::Stop(FetchOutcome::Broken.into())
        }
    }
}

/// Asks for groups, over the transport that fits the link, or else over the other one.
async fn ask(
    inner: &Arc<Inner>,
    job: &FetchJob,
    request: &DataRequest,
    waiting: &mut Waiting<'_>,
) -> Result<Taken, Stop> {
    let path = if job.wan { Path::Far } else { Path::Near };
    let node = job.from.node;
    let first = inner.peers.first_transport(&node, path);
    for transport in [first, first.other()] {
        let asked = match transport {
            Transport::Quic => ask_over_quic(inner, job, request, waiting).await,
            Transport::Tcp => ask_over_tcp(inner, job, request, waiting).await,
        };
        match asked {
            Ok(taken) => {
                inner.peers.got_through(node, transport, transport != first);
                return Ok(taken);
            }
            Err(NotTaken::Stop(stop)) => return Err(stop),
            Err(NotTaken::Unreached(error)) => {
                tracing::debug!(%node, ?transport, %error, "a peer is not reached");
            }
        }
    }
    Err(FetchOutcome::Broken.into())
}

/// Who waits for a reply.
struct Waiting<'a> {
    report: &'a Report,
    credit: &'a Credit,
    /// The turn to ask a new peer.
    first: &'a mut Option<OwnedSemaphorePermit>,
    patience: Duration,
}

/// Why there is no reply.
enum NoReply {
    Broken(ExchangeError),
    Late,
}

impl Waiting<'_> {
    /// Asks, and reads the reply from the stream that `asking` gives. As long as the peer says that it
    /// queued the request others may ask it too.
    async fn reply<R: AsyncRead + Unpin>(
        &mut self,
        asking: impl Future<Output = Result<R, ExchangeError>>,
    ) -> Result<(R, DataReply), NoReply> {
        let mut until = Instant::now() + self.patience;
        let late = |_| NoReply::Late;
        let asked = timeout_at(until, asking).await.map_err(late)?;
        let mut from = asked.map_err(NoReply::Broken)?;
        loop {
            let reply = timeout_at(until, codec::read_reply(&mut from)).await;
            match reply.map_err(late)?.map_err(NoReply::Broken)? {
                DataReply::Queued => {
                    self.report.waits();
                    *self.first = None;
                    until = Instant::now() + self.patience;
                }
                reply => return Ok((from, reply)),
            }
        }
    }
}

/// A connection that was kept from before may have died unnoticed (the peer was killed and started
/// again), so losing one of those before the reply is no reason to give up.
async fn ask_over_quic(
    inner: &Arc<Inner>,
    job: &FetchJob,
    request: &DataRequest,
    waiting: &mut Waiting<'_>,
) -> Result<Taken, NotTaken> {
    loop {
        let link = inner.peers.connect(&job.from).await?;
        if !waiting.credit.is_new() {
            link.peer.widen(&link.connection, FETCH_WINDOW_BYTES);
        }
        let before = link.connection.stats().udp_rx.datagrams;
        let asking = async {
            let (mut to, from) = link.connection.open_bi().await.map_err(io::Error::from)?;
            codec::write_request(&mut to, request).await?;
            to.finish().map_err(io::Error::from)?;
            Ok(from)
        };
        match waiting.reply(asking).await {
            Ok((from, reply)) => {
                stop_at(reply).map_err(NotTaken::Stop)?;
                let Link {
                    peer, connection, ..
                } = link;
                return Ok(Taken::Quic {
                    _peer: peer,
                    connection,
                    from,
                });
            }
            Err(NoReply::Broken(error)) => {
                if link.fresh || link.connection.close_reason().is_none() {
                    tracing::debug!(node = %job.from.node, %error, "a fetch broke");
                    return Err(NotTaken::Stop(FetchOutcome::Broken.into()));
                }
            }
            Err(NoReply::Late) => {
                if link.connection.stats().udp_rx.datagrams == before {
                    link.connection.close(GOODBYE, b"silent");
                }
                return Err(NotTaken::Stop(FetchOutcome::Slow.into()));
            }
        }
    }
}

/// The same: whoever listens there may be full, or no node at all, until it has replied once.
async fn ask_over_tcp(
    inner: &Arc<Inner>,
    job: &FetchJob,
    request: &DataRequest,
    waiting: &mut Waiting<'_>,
) -> Result<Taken, NotTaken> {
    loop {
        let mut lease = inner.peers.dial(&job.from).await?;
        let dscp = inner.config.dscp.of(job.class);
        lease.stream.get_ref().0.mark(dscp);
        let stream = &mut lease.stream;
        let asking = async {
            stream.write_u8(tcp::ASKS).await?;
            codec::write_request(stream, request).await?;
            Ok(stream)
        };
        let replied = waiting.reply(asking).await.map(|(_, reply)| reply);
        match replied {
            Ok(reply) => match stop_at(reply) {
                Ok(()) => return Ok(Taken::Tcp(lease)),
                Err(stop) => {
                    inner.peers.keep(lease);
                    return Err(NotTaken::Stop(stop));
                }
            },
            Err(NoReply::Broken(error)) if lease.fresh => return Err(NotTaken::Unreached(error)),
            Err(NoReply::Broken(_)) => {}
            Err(NoReply::Late) => {
                inner.peers.idle().forget(&job.from.node);
                return Err(NotTaken::Stop(FetchOutcome::Slow.into()));
            }
        }
    }
}

/// Goes on only if the groups come.
fn stop_at(reply: DataReply) -> Result<(), Stop> {
    Err(match reply {
        DataReply::Sending => return Ok(()),
        DataReply::NotHeld => FetchOutcome::NotHeld.into(),
        DataReply::Busy | DataReply::Queued => FetchOutcome::Busy.into(),
        DataReply::Referred(referral) => Stop::Referred(referral),
        DataReply::Refused => {
            tracing::debug!("a fetch broke: the peer refused the request");
            FetchOutcome::Broken.into()
        }
    })
}

/// One request and its reply.
async fn exchange(
    inner: &Arc<Inner>,
    job: &FetchJob,
    request: &DataRequest,
    (credit, first): (&Arc<Credit>, &mut Option<OwnedSemaphorePermit>),
    report: &mut Report,
    cancel: &mut watch::Receiver<bool>,
) -> Result<(), Stop> {
    let mut waiting = Waiting {
        report,
        credit,
        first,
        patience: slow_after(inner, job),
    };
    let taken = tokio::select! {
        biased;
        () = codec::cancelled(cancel) => return Err(FetchOutcome::Cancelled.into()),
        () = credit.spoiled() => return Err(FetchOutcome::Broken.into()),
        taken = ask(inner, job, request, &mut waiting) => taken?,
    };
    let _marked = match taken {
        Taken::Quic { .. } => inner.marks.begin(taken.remote(), job.class),
        Taken::Tcp(_) => None,
    };
    let tally = inner.tallies.of(taken.remote().ip());
    let decoder = Decoder::new(job.blob.clone(), &request.groups);
    let terms = Terms {
        buffers: &inner.receiving,
        patience: patience(inner, job),
        credit,
        pace: &inner.paces.own(job.wan).down,
        class: job.class,
    };
    let won = |new: Won| {
        tally.add_payload_in(new.payload);
        inner.again.fetch_add(new.again, Ordering::Relaxed);
        if job.wan {
            inner.add_wan_payload(new.payload);
        }
        report.add(new.payload);
    };
    let received = match taken {
        Taken::Quic { mut from, .. } => {
            let received = codec::receive(&mut from, decoder, &terms, cancel, won).await;
            if received.is_err() {
                let _ = from.stop(ENOUGH);
            }
            received
        }
        Taken::Tcp(mut lease) => {
            let from = &mut lease.stream;
            let received = codec::receive(from, decoder, &terms, cancel, won).await;
            if received.is_ok() {
                inner.peers.keep(lease);
            }
            received
        }
    };
    received.map_err(|cut| cut_short(inner, job, credit, cut).into())
}

/// A reply ended early: what to call it, and whom its bytes are put down to.
fn cut_short(inner: &Inner, job: &FetchJob, credit: &Arc<Credit>, cut: Cut) -> FetchOutcome {
    let node = job.from.node;
    let Cut { why, wasted } = cut;
    let (outcome, of): (_, fn(&mut Wasted) -> &mut u64) = match why {
        Stopped::Cancelled => (FetchOutcome::Cancelled, |w| &mut w.dropped),
        Stopped::Slow => (FetchOutcome::Slow, |w| &mut w.stalls),
        Stopped::Broken(error) => {
            tracing::debug!(%node, %error, "a fetch broke");
            (FetchOutcome::Broken, |w| &mut w.breaks)
        }
        Stopped::Spoiled => (FetchOutcome::Broken, |w| &mut w.lies),
        Stopped::Fault(Fault::Poisoned | Fault::TooLong) => {
            tracing::warn!(%node, blob = %job.blob.name().root.short(), "a peer sent bytes that do not verify");
            inner.credits.spoil(node, credit);
            (FetchOutcome::Poisoned, |w| &mut w.lies)
        }
        Stopped::Fault(Fault::Store(error)) => {
            tracing::warn!(%error, "fetched groups cannot be written");
            (FetchOutcome::Storage, |w| &mut w.dropped)
        }
    };
    inner.credits.waste(node, |all| *of(all) += wasted);
    outcome
}

fn slow_after(inner: &Inner, job: &FetchJob) -> Duration {
    if job.wan {
        inner.config.slow_after
    } else {
        inner.config.slow_near_after
    }
}

/// What we ask for slowly may come slowly.
fn patience(inner: &Inner, job: &FetchJob) -> Patience {
    let mut rate = inner.config.slow_bytes_per_s;
    if job.max_bytes_per_s > 0 {
        rate = rate.min(job.max_bytes_per_s / 2);
    }
    let window = slow_after(inner, job);
    Patience {
        bytes: (rate as f64 * window.as_secs_f64()) as u64,
        window,
    }
}
