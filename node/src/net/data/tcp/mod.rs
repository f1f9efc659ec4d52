//! The data plane over TCP: TLS 1.3 with the same certificates, admission and lack of resumption as over
//! QUIC, on the same port.
//!
//! A connection carries one exchange after the other. Each begins with a byte: [`ASKS`], then a request
//! and its reply as the codec has them; or [`TELLS`], then a notice's length (four bytes, little endian)
//! and the notice. Whoever has enough of a reply closes the connection. For more exchanges at the same
//! time there are more connections.

mod dial;
mod listen;
mod wire;

use std::io;

use bytes::Bytes;
use protocol::limits::NOTICE_MAX_BYTES;
use protocol::versioned::Versioned;
use protocol::wire::Notice;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsStream;

pub(super) use dial::{Idle, Lease};
pub(super) use listen::{Bound, Listening, accept, bind};
pub(super) use wire::{Cutter, Wire};

use super::buffers::Sink;
use super::codec::ExchangeError;
use super::serve::Reply;

/// An exchange begins: a request follows.
pub(super) const ASKS: u8 = 0;
/// An exchange begins: a notice follows, which is not answered.
pub(super) const TELLS: u8 = 1;

/// A connection after its handshake, of either side.
pub(super) type Stream = TlsStream<Wire>;

pub(super) async fn write_notice(
    to: &mut (impl AsyncWrite + Unpin),
    notice: &Notice,
) -> io::Result<()> {
    let body = notice.to_bytes();
    let mut bytes = vec![TELLS];
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&body);
    to.write_all(&bytes).await?;
    to.flush().await
}

/// Reads what follows [`TELLS`].
async fn read_notice(from: &mut (impl AsyncRead + Unpin)) -> Result<Notice, ExchangeError> {
    let length = from.read_u32_le().await? as usize;
    if length > NOTICE_MAX_BYTES {
        return Err(ExchangeError::TooLong(length));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(Notice::from_bytes(&bytes)?)
}

/// Flushed each time: TLS may keep back what the system did not take at once.
impl Sink for Stream {
    async fn put(&mut self, bytes: Bytes) -> io::Result<()> {
        self.write_all(&bytes).await?;
        self.flush().await
    }
}

impl Reply for Stream {
    /// Nothing may come before the reply is whole: if something does, the asker is gone or confused.
    async fn gone(&mut self) {
        let _ = self.read_u8().await;
    }

    fn mark(&mut self, dscp: u8) {
        self.get_ref().0.mark(dscp);
    }
}
