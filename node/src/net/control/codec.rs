//! Requests and replies as bytes: a `u32` length, big-endian, and at most `CONTROL_MAX_BYTES`.
//!
//! All peers' long requests share one allowance of memory while they are read, so that many of them at
//! once wait for each other; short ones never wait.

use std::io;
use std::sync::Arc;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use protocol::limits::{CONTROL_MAX_BYTES, CONTROL_WAITING_MAX_BYTES};
use tokio::sync::{Semaphore, SemaphorePermit};

/// What is reserved before the bytes are there: a length alone costs its sender nothing.
const RESERVE_BYTES: usize = 16 << 10;

/// Requests up to this length are read without asking for room.
const SHORT_BYTES: usize = 64 << 10;
/// Room is counted in this unit.
const ROOM_UNIT_BYTES: usize = 1 << 10;

/// See the module.
#[derive(Clone)]
pub struct Bytes {
    room: Arc<Semaphore>,
}

impl Default for Bytes {
    fn default() -> Bytes {
        let room = Semaphore::new(CONTROL_WAITING_MAX_BYTES / ROOM_UNIT_BYTES);
        Bytes {
            room: Arc::new(room),
        }
    }
}

impl Bytes {
    async fn room_for(&self, length: usize) -> io::Result<Option<SemaphorePermit<'_>>> {
        if length <= SHORT_BYTES {
            return Ok(None);
        }
        let units = u32::try_from(length.div_ceil(ROOM_UNIT_BYTES)).map_err(io::Error::other)?;
        self.room
            .acquire_many(units)
            .await
            .map(Some)
            .map_err(io::Error::other)
    }
}

impl Codec for Bytes {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let length = read_length(io).await?;
        let _room = self.room_for(length).await?;
        read_body(io, length).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        let length = read_length(io).await?;
        read_body(io, length).await
    }

    async fn write_request<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &body).await
    }

    async fn write_response<T>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        body: Vec<u8>,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &body).await
    }
}

async fn read_length<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<usize> {
    let mut length = [0; 4];
    io.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > CONTROL_MAX_BYTES {
        Err(too_long(length))
    } else {
        Ok(length)
    }
}

async fn read_body<T: AsyncRead + Unpin>(io: &mut T, length: usize) -> io::Result<Vec<u8>> {
    let mut body = Vec::with_capacity(length.min(RESERVE_BYTES));
    io.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

async fn write<T: AsyncWrite + Unpin>(io: &mut T, body: &[u8]) -> io::Result<()> {
    if body.len() > CONTROL_MAX_BYTES {
        return Err(too_long(body.len()));
    }
    io.write_all(&(body.len() as u32).to_be_bytes()).await?;
    io.write_all(body).await?;
    io.close().await
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{length} bytes are over {CONTROL_MAX_BYTES}"),
    )
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
        let protocol = StreamProtocol::new("/test");
        Bytes::default().read_request(&protocol, io).await
    }

    #[test]
    fn bytes_come_back_and_false_lengths_are_refused() {
        for body in [vec![], vec![7; 1], vec![9; CONTROL_MAX_BYTES]] {
            let mut wire = Cursor::new(Vec::new());
            block_on(write(&mut wire, &body)).unwrap();
            let wire = wire.into_inner();
            assert_eq!(block_on(read(&mut Cursor::new(&wire))).unwrap(), body);
            assert!(block_on(read(&mut Cursor::new(&wire[..wire.len() - 1]))).is_err());
        }
        assert!(block_on(read(&mut Cursor::new(u32::MAX.to_be_bytes()))).is_err());
        let over = (CONTROL_MAX_BYTES as u32 + 1).to_be_bytes();
        assert!(block_on(read(&mut Cursor::new(over))).is_err());
        let long = vec![0; CONTROL_MAX_BYTES + 1];
        assert!(block_on(write(&mut Cursor::new(Vec::new()), &long)).is_err());
    }

    #[test]
    fn a_frame_is_read_and_written_as_ever() {
        let framed = |body: &[u8]| {
            let mut wire = Cursor::new(Vec::new());
            block_on(write(&mut wire, body)).unwrap();
            wire.into_inner()
        };
        let samples = [
            ("empty.bin".to_owned(), framed(b"")),
            ("body.bin".to_owned(), framed(&[7; 300])),
        ];
        crate::golden::check("control-frame", &samples, |bytes| {
            let body = block_on(read(&mut Cursor::new(bytes))).map_err(|e| e.to_string())?;
            Ok(framed(&body))
        });
    }
}
