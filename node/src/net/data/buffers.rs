//! Buffers that come back, so that their memory is asked of the system once, and the streams that
//! take them as they are.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
#[cfg(test)]
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// What is read for a peer at once.
pub(crate) const SENDING_BYTES: usize = 256 << 10;
/// What may have come while the bytes before it are verified and written, which takes long where
/// processors are scarce. Two of these per fetch.
pub(crate) const RECEIVING_BYTES: usize = 1 << 20;
/// Bytes of idle buffers of a kind that are kept; more are given back to the system.
const IDLE_MAX_BYTES: usize = 16 << 20;

/// Idle buffers of one size. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    bytes: usize,
    idle: Arc<Mutex<Vec<Box<[u8]>>>>,
}

impl Buffers {
    /// Keeps buffers of `bytes`.
    pub(crate) fn of(bytes: usize) -> Buffers {
        let idle = Arc::default();
        Buffers { bytes, idle }
    }

    /// Bytes of a buffer.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A buffer of so many bytes, full of whatever; it comes back when it is dropped, unless it is
    /// shorter than others.
    pub(crate) fn take(&self, bytes: usize) -> Buffer {
        let kept = (bytes == self.bytes)
            .then(|| self.idle.lock().expect("no panic under this lock").pop())
            .flatten();
        Buffer {
            bytes: kept.unwrap_or_else(|| vec![0; bytes].into()),
            filled: 0,
            home: self.clone(),
        }
    }
}

/// A buffer and how much of it counts.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    filled: usize,
    home: Buffers,
}

impl Buffer {
    /// All of it, to be filled from the front.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// What counts, as bytes that can be shared; the buffer comes back after the last of them.
    pub(crate) fn freeze(mut self, filled: usize) -> Bytes {
        self.filled = filled.min(self.bytes.len());
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() == self.home.bytes {
            let mut idle = self.home.idle.lock().expect("no panic under this lock");
            if (idle.len() + 1) * self.home.bytes <= IDLE_MAX_BYTES {
                idle.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

/// A stream that takes whole buffers.
pub(crate) trait Sink: Send {
    /// Waits until the stream has taken all of `bytes`.
    fn put(&mut self, bytes: Bytes) -> impl Future<Output = io::Result<()>> + Send;
}

/// quinn keeps the buffer until the peer has it, and copies nothing.
impl Sink for quinn::SendStream {
    async fn put(&mut self, bytes: Bytes) -> io::Result<()> {
        Ok(self.write_chunk(bytes).await?)
    }
}

#[cfg(test)]
/// Any other stream copies what it takes.
pub(crate) struct Copying<'a, W>(pub(crate) &'a mut W);

#[cfg(test)]
impl<W: AsyncWrite + Unpin + Send> Sink for Copying<'_, W> {
    async fn put(&mut self, bytes: Bytes) -> io::Result<()> {
        self.0.write_all(&bytes).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_after_the_last_of_its_bytes_and_few_are_kept() {
        let buffers = Buffers::of(SENDING_BYTES);
        let idle = || buffers.idle.lock().unwrap().len();
        let mut buffer = buffers.take(SENDING_BYTES);
        buffer.room()[..3].copy_from_slice(b"abc");
        let all = buffer.freeze(3);
        let part = all.slice(1..);
        drop(all);
        assert_eq!((&part[..], idle()), (&b"bc"[..], 0));
        drop(part);
        assert_eq!(idle(), 1);
        let max = IDLE_MAX_BYTES / SENDING_BYTES;
        let many: Vec<Buffer> = (0..2 * max).map(|_| buffers.take(SENDING_BYTES)).collect();
        assert_eq!(idle(), 0);
        drop(many);
        drop(buffers.take(10));
        assert_eq!(idle(), max);
    }
}
