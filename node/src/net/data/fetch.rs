//! Fetching groups from one peer.

use std::sync::Arc;

use node_core::contract::FetchOutcome;
use protocol::limits::REQUEST_RANGES_MAX;
use protocol::wire::{DataReply, DataRequest};
use quinn::VarInt;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::codec::{self, Patience, Stopped};
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
    let outcome = fetch(&inner, &job, &mut report, &mut cancel).await;
    report.flush();
    FetchEnd {
        outcome,
        bytes: report.total,
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
) -> FetchOutcome {
    let Ok(_place) = inner.fetches.acquire().await else {
        return FetchOutcome::Broken;
    };
    for groups in job.groups.chunks(REQUEST_RANGES_MAX) {
        let request = DataRequest {
            blob: job.blob.name(),
            groups: groups.to_vec(),
            class: job.class,
            max_bytes_per_s: job.max_bytes_per_s,
        };
        if !codec::is_sound(&request) {
            tracing::warn!(blob = %job.blob.name().root.short(), "a fetch names groups that are not in the blob");
            return FetchOutcome::NotHeld;
        }
        if let Err(outcome) = exchange(inner, job, &request, report, cancel).await {
            return outcome;
        }
    }
    let blob = job.blob.clone();
    match spawn_blocking(move || blob.seal_if_complete()).await {
        Ok(Ok(())) => FetchOutcome::Complete,
        Ok(Err(error)) => {
            tracing::warn!(%error, "a blob is whole but not durable");
            FetchOutcome::Storage
        }
        Err(_) => FetchOutcome::Broken,
    }
}

/// One request and its reply.
async fn exchange(
    inner: &Arc<Inner>,
    job: &FetchJob,
    request: &DataRequest,
    report: &mut Report,
    cancel: &mut watch::Receiver<bool>,
) -> Result<(), FetchOutcome> {
    let node = job.from.node;
    let broken = |error: &dyn std::fmt::Display| {
        tracing::debug!(%node, %error, "a fetch broke");
        FetchOutcome::Broken
    };
    let opening = async {
        let (peer, connection) = inner
            .peers
            .connect(&job.from)
            .await
            .map_err(|e| broken(&e))?;
        let (mut to, mut from) = connection.open_bi().await.map_err(|e| broken(&e))?;
        codec::write_request(&mut to, request)
            .await
            .map_err(|e| broken(&e))?;
        to.finish().map_err(|e| broken(&e))?;
        let reply = codec::read_reply(&mut from).await.map_err(|e| broken(&e))?;
        Ok::<_, FetchOutcome>((peer, connection, from, reply))
    };
    let opened = tokio::select! {
        biased;
        () = codec::cancelled(cancel) => return Err(FetchOutcome::Cancelled),
        opened = timeout(inner.config.slow_after, opening) => opened.map_err(|_| FetchOutcome::Slow)?,
    };
    let (_peer, connection, mut from, reply) = opened?;
    match reply {
        DataReply::Sending => {}
        DataReply::NotHeld => return Err(FetchOutcome::NotHeld),
        DataReply::Busy => return Err(FetchOutcome::Busy),
        DataReply::Refused => return Err(broken(&"the peer refused the request")),
    }
    let tally = inner.tallies.of(connection.remote_address().ip());
    let decoder = Decoder::new(job.blob.clone(), &request.groups);
    let received = codec::receive(&mut from, decoder, patience(inner, job), cancel, |bytes| {
        tally.add_payload_in(bytes);
        if job.wan {
            inner.add_wan_payload(bytes);
        }
        report.add(bytes);
    })
    .await;
    received.map_err(|stopped| {
        let _ = from.stop(ENOUGH);
        match stopped {
            Stopped::Cancelled => FetchOutcome::Cancelled,
            Stopped::Slow => FetchOutcome::Slow,
            Stopped::Broken(error) => broken(&error),
            Stopped::Fault(Fault::Poisoned | Fault::TooLong) => {
                tracing::warn!(%node, blob = %job.blob.name().root.short(), "a peer sent bytes that do not verify");
                FetchOutcome::Poisoned
            }
            Stopped::Fault(Fault::Store(error)) => {
                tracing::warn!(%error, "fetched groups cannot be written");
                FetchOutcome::Storage
            }
        }
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
