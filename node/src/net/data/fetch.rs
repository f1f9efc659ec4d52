//! Fetching groups from one peer.

use std::io;
use std::sync::Arc;

use node_core::contract::FetchOutcome;
use protocol::limits::REQUEST_RANGES_MAX;
use protocol::wire::{DataReply, DataRequest, Referral};
use quinn::{Connection, RecvStream, VarInt};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::codec::{self, ExchangeError, Patience, Stopped};
use super::peers::{GOODBYE, Link, Peer};
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
    for groups in job.groups.chunks(REQUEST_RANGES_MAX) {
        let request = DataRequest {
            blob: job.blob.name(),
            groups: groups.to_vec(),
            class: job.class,
            max_bytes_per_s: job.max_bytes_per_s,
            spurned: job.spurned.clone(),
        };
        if !codec::is_sound(&request) {
            tracing::warn!(blob = %job.blob.name().root.short(), "a fetch names groups that are not in the blob");
            return Ok(FetchOutcome::NotHeld);
        }
        exchange(inner, job, &request, report, cancel).await?;
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

/// A request that the peer has taken.
struct Taken {
    /// Keeps the connection from being closed as unused.
    _peer: Arc<Peer>,
    connection: Connection,
    from: RecvStream,
}

/// Asks for groups. A connection that was kept from before may have died unnoticed (the peer was
/// killed and started again), so losing one of those before the reply is no reason to give up.
async fn ask(
    inner: &Arc<Inner>,
    job: &FetchJob,
    request: &DataRequest,
    report: &Report,
) -> Result<Taken, Stop> {
    let node = job.from.node;
    let broken = |error: &dyn std::fmt::Display| {
        tracing::debug!(%node, %error, "a fetch broke");
        Stop::Outcome(FetchOutcome::Broken)
    };
    loop {
        let link = inner
            .peers
            .connect(&job.from)
            .await
            .map_err(|e| broken(&e))?;
        let before = link.connection.stats().udp_rx.datagrams;
        let exchange = async {
            let (mut to, mut from) = link.connection.open_bi().await.map_err(io::Error::from)?;
            codec::write_request(&mut to, request).await?;
            to.finish().map_err(io::Error::from)?;
            let reply = codec::read_reply(&mut from).await?;
            Ok::<_, ExchangeError>((from, reply))
        };
        let mut replied = timeout(inner.config.slow_after, exchange).await;
        while let Ok(Ok((mut from, DataReply::Queued))) = replied {
            report.waits();
            let reply = timeout(inner.config.slow_after, codec::read_reply(&mut from)).await;
            replied = reply.map(|reply| reply.map(|reply| (from, reply)));
        }
        match replied {
            Ok(Ok((from, DataReply::Sending))) => {
                let Link {
                    peer, connection, ..
                } = link;
                return Ok(Taken {
                    _peer: peer,
                    connection,
                    from,
                });
            }
            Ok(Ok((_, DataReply::NotHeld))) => return Err(FetchOutcome::NotHeld.into()),
            Ok(Ok((_, DataReply::Busy | DataReply::Queued))) => {
                return Err(FetchOutcome::Busy.into());
            }
            Ok(Ok((_, DataReply::Referred(referral)))) => return Err(Stop::Referred(referral)),
            Ok(Ok((_, DataReply::Refused))) => return Err(broken(&"the peer refused the request")),
            Ok(Err(error)) => {
                if link.fresh || link.connection.close_reason().is_none() {
                    return Err(broken(&error));
                }
            }
            Err(_) => {
                if link.connection.stats().udp_rx.datagrams == before {
                    link.connection.close(GOODBYE, b"silent");
                }
                return Err(FetchOutcome::Slow.into());
            }
        }
    }
}

/// One request and its reply.
async fn exchange(
    inner: &Arc<Inner>,
    job: &FetchJob,
    request: &DataRequest,
    report: &mut Report,
    cancel: &mut watch::Receiver<bool>,
) -> Result<(), Stop> {
    let node = job.from.node;
    let taken = tokio::select! {
        biased;
        () = codec::cancelled(cancel) => return Err(FetchOutcome::Cancelled.into()),
        taken = ask(inner, job, request, report) => taken?,
    };
    let Taken {
        _peer,
        connection,
        mut from,
    } = taken;
    let _marked = inner.marks.begin(connection.remote_address(), job.class);
    let tally = inner.tallies.of(connection.remote_address().ip());
    let decoder = Decoder::new(job.blob.clone(), &request.groups);
    let patience = patience(inner, job);
    let won = |bytes| {
        tally.add_payload_in(bytes);
        if job.wan {
            inner.add_wan_payload(bytes);
        }
        report.add(bytes);
    };
    let received =
        codec::receive(&mut from, decoder, &inner.receiving, patience, cancel, won).await;
    received.map_err(|stopped| {
        let _ = from.stop(ENOUGH);
        let outcome = match stopped {
            Stopped::Cancelled => FetchOutcome::Cancelled,
            Stopped::Slow => FetchOutcome::Slow,
            Stopped::Broken(error) => {
                tracing::debug!(%node, %error, "a fetch broke");
                FetchOutcome::Broken
            }
            Stopped::Fault(Fault::Poisoned | Fault::TooLong) => {
                tracing::warn!(%node, blob = %job.blob.name().root.short(), "a peer sent bytes that do not verify");
                FetchOutcome::Poisoned
            }
            Stopped::Fault(Fault::Store(error)) => {
                tracing::warn!(%error, "fetched groups cannot be written");
                FetchOutcome::Storage
            }
        };
        outcome.into()
    })
}

/// What we ask for slowly may come slowly.
fn patience(inner: &Inner, job: &FetchJob) -> Patience {
    let mut rate = inner.config.slow_bytes_per_s;
    if job.max_bytes_per_s > 0 {
        rate = rate.min(job.max_bytes_per_s / 2);
    }
    let window = inner.config.slow_after;
    Patience {
        bytes: (rate as f64 * window.as_secs_f64()) as u64,
        window,
    }
}
