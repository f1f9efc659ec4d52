//! A message behind its length.

use std::io;

use protocol::versioned::Versioned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Writes a message.
///
/// # Errors
/// When the other side went away, or the message is over its limit.
pub async fn write<M: Versioned>(to: &mut (impl AsyncWrite + Unpin), said: &M) -> io::Result<()> {
    let bytes = said.to_bytes();
    if bytes.len() > M::MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a message is over its limit",
        ));
    }
    to.write_all(&(bytes.len() as u32).to_le_bytes()).await?;
    to.write_all(&bytes).await?;
    to.flush().await
}

/// Reads a message; no more than its limit is ever held.
///
/// # Errors
/// When the other side went away, or what it says is too long or not understood.
pub async fn read<M: Versioned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let refuse = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length);
    if length as usize > M::MAX_BYTES {
        return Err(refuse(format!("too_long: a message of {length} bytes")));
    }
    let mut bytes = Vec::new();
    let taken = from.take(length.into()).read_to_end(&mut bytes).await?;
    if taken < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    M::from_bytes(&bytes).map_err(|e| refuse(e.to_string()))
}
