//! The exchange itself, over any pair of byte streams.
//!
//! A request is its length (four bytes, little endian) and a [`DataRequest`]. The reply is one byte
//! of [`DataReply`] and, if that is `Sending`, for each range in order the bao encoding of its
//! groups; then the stream ends. A notice is a whole unidirectional stream. Hashing and disks are
//! kept off the network's tasks: while one buffer is read or written, the other is worked on.

use std::io;
use std::time::Duration;

use protocol::limits::{
    NOTICE_MAX_BYTES, PACED_WRITE_MAX_BYTES, REFERRAL_MAX_BYTES, REFERRALS_MAX, REQUEST_MAX_BYTES,
    REQUEST_RANGES_MAX, SPURNED_MAX,
};
use protocol::pieces::Geometry;
use protocol::versioned::{DecodeError, Versioned};
use protocol::wire::{DataReply, DataRequest, Notice, Referral};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

mod receive;

pub(super) use receive::{Cut, Patience, Stopped, Terms, Won, receive};

use super::buffers::{Buffers, Sink};
use crate::store::blobs::Encoder;

/// A receiver that takes nothing for so long is dropped.
const STALL: Duration = Duration::from_secs(60);

/// Why an exchange failed. The culprit is the peer or the way to it unless said otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("what came is malformed: {0}")]
    Malformed(#[from] DecodeError),
    #[error("{0} bytes are announced, over the limit")]
    TooLong(usize),
}

pub(crate) async fn write_request(
    to: &mut (impl AsyncWrite + Unpin),
    request: &DataRequest,
) -> io::Result<()> {
    let body = request.to_bytes();
    let mut bytes = Vec::with_capacity(body.len() + 4);
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    to.write_all(&bytes).await?;
    to.flush().await
}

pub(crate) async fn read_request(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<DataRequest, ExchangeError> {
    let length = from.read_u32_le().await? as usize;
    if length > REQUEST_MAX_BYTES {
        return Err(ExchangeError::TooLong(length));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(DataRequest::from_bytes(&bytes)?)
}

/// Whether the ranges of a request are some, not too many, rising, apart and inside the blob.
pub(crate) fn is_sound(request: &DataRequest) -> bool {
    let groups = Geometry::of(request.blob.length).groups();
    let apart = request.groups.windows(2).all(|pair| pair[0].1 < pair[1].0);
    !request.groups.is_empty()
        && request.groups.len() <= REQUEST_RANGES_MAX
        && request.spurned.len() <= SPURNED_MAX
        && request
            .groups
            .iter()
            .all(|(start, end)| start < end && *end <= groups)
        && apart
}

pub(crate) async fn write_reply(
    to: &mut (impl AsyncWrite + Unpin),
    reply: DataReply,
) -> io::Result<()> {
    let kind = match &reply {
        DataReply::Sending => 0,
        DataReply::NotHeld => 1,
        DataReply::Busy => 2,
        DataReply::Refused => 3,
        DataReply::Queued => 4,
        DataReply::Referred(_) => 5,
    };
    to.write_u8(kind).await?;
    if let DataReply::Referred(referral) = reply {
        let bytes = referral.to_bytes();
        to.write_u16_le(bytes.len() as u16).await?;
        to.write_all(&bytes).await?;
    }
    to.flush().await
}

pub(crate) async fn read_reply(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<DataReply, ExchangeError> {
    match from.read_u8().await? {
        0 => Ok(DataReply::Sending),
        1 => Ok(DataReply::NotHeld),
        2 => Ok(DataReply::Busy),
        3 => Ok(DataReply::Refused),
        4 => Ok(DataReply::Queued),
        5 => {
            let length = usize::from(from.read_u16_le().await?);
            if length > REFERRAL_MAX_BYTES {
                return Err(ExchangeError::TooLong(length));
            }
            let mut bytes = vec![0; length];
            from.read_exact(&mut bytes).await?;
            let referral = Referral::from_bytes(&bytes)?;
            if referral.holders.len() > REFERRALS_MAX {
                return Err(DecodeError::Malformed { what: "Referral" }.into());
            }
            Ok(DataReply::Referred(referral))
        }
        _ => Err(DecodeError::Malformed { what: "DataReply" }.into()),
    }
}

/// Reads a stream to its end as one notice.
pub(crate) async fn read_notice(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Notice, ExchangeError> {
    let mut bytes = Vec::new();
    from.take(NOTICE_MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .await?;
    Ok(Notice::from_bytes(&bytes)?)
}

/// Asked before bytes are written.
pub(crate) trait Gate {
    /// Bytes that are best written at once.
    fn write_bytes(&self) -> usize;
    /// Waits until so many bytes may be written.
    fn open(&self, bytes: usize) -> impl Future<Output = ()> + Send;
}

/// Writes the whole encoding; `sent` hears of payload bytes once they are handed to the stream. What
/// the system has in memory is read right here, the rest on a thread that may wait for the disk.
pub(crate) async fn send(
    to: &mut impl Sink,
    mut encoder: Encoder,
    buffers: &Buffers,
    gate: &impl Gate,
    mut sent: impl FnMut(u64),
) -> io::Result<()> {
    let size = encoder.buffer_bytes(buffers.bytes());
    loop {
        let mut buffer = buffers.take(size);
        let filled = match encoder.fill_from_memory(buffer.room())? {
            Some(filled) => filled,
            None => {
                let filling = spawn_blocking(move || {
                    let result = encoder.fill(buffer.room());
                    (encoder, buffer, result)
                });
                let result;
                (encoder, buffer, result) = filling.await.map_err(io::Error::other)?;
                result?
            }
        };
        if filled == 0 {
            return Ok(());
        }
        let mut rest = buffer.freeze(filled);
        while !rest.is_empty() {
            let most = gate.write_bytes().clamp(1, PACED_WRITE_MAX_BYTES);
            let now = rest.split_to(most.min(rest.len()));
            gate.open(now.len()).await;
            timeout(STALL, to.put(now))
                .await
                .map_err(|_| io::ErrorKind::TimedOut)??;
        }
        sent(encoder.take_payload());
    }
}

/// Waits until the fetch is cancelled; for ever if nobody can cancel it any more.
pub(crate) async fn cancelled(cancel: &mut watch::Receiver<bool>) {
    if cancel.wait_for(|cancelled| *cancelled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
