//! A TCP socket that counts its bytes by the remote address, reads ahead, and can be cut from elsewhere.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Shutdown};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::net::data::count::Tallies;

/// Read from the system at once, at first and at most; twice as much each time that so much was there. TLS
/// asks for 4 KiB at a time, and each question would be a system call.
const AHEAD_MIN_BYTES: usize = 4 << 10;
const AHEAD_MAX_BYTES: usize = 128 << 10;

/// What TLS runs on.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Arc<TcpStream>,
    remote: IpAddr,
    tallies: Arc<Tallies>,
    ahead: Vec<u8>,
    /// What of `ahead` is there and not asked for yet.
    unread: std::ops::Range<usize>,
}

/// Ends a connection from outside, whatever is under way on it.
#[derive(Clone, Debug)]
pub(crate) struct Cutter(Arc<TcpStream>);

impl Cutter {
    pub(crate) fn cut(&self) {
        // It fails if the peer was faster.
        let _ = socket2::SockRef::from(&*self.0).shutdown(Shutdown::Both);
    }
}

impl Wire {
    pub(crate) fn new(socket: TcpStream, tallies: Arc<Tallies>) -> io::Result<Wire> {
        // Requests and the ends of replies are short and waited for.
        socket.set_nodelay(true)?;
        Ok(Wire {
            remote: socket.peer_addr()?.ip(),
            socket: Arc::new(socket),
            tallies,
            ahead: Vec::new(),
            unread: 0..0,
        })
    }

    pub(crate) fn cutter(&self) -> Cutter {
        Cutter(self.socket.clone())
    }

    /// Gives back what reading ahead takes; whether the connection may be used again, which it may not
    /// if anything came that nobody asked for, be it its end.
    pub(crate) fn rest(&mut self) -> bool {
        let all_was_asked_for = self.unread.is_empty();
        (self.ahead, self.unread) = (Vec::new(), 0..0);
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut byte = [0];
        let mut peeked = ReadBuf::new(&mut byte);
        let peek = self.socket.poll_peek(&mut context, &mut peeked);
        all_was_asked_for && peek.is_pending()
    }

    /// Marks what leaves from now on. Where the system refuses, it leaves unmarked.
    pub(crate) fn mark(&self, dscp: u8) {
        let class = dscp << 2;
        let marked = if self.remote.is_ipv4() {
            rustix::net::sockopt::set_ip_tos(&*self.socket, class)
        } else {
            rustix::net::sockopt::set_ipv6_tclass(&*self.socket, class.into())
        };
        if let Err(error) = marked {
            tracing::debug!(%error, "a TCP connection is not marked");
        }
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unread.end == self.ahead.len() {
            let more = (self.ahead.len() * 2).clamp(AHEAD_MIN_BYTES, AHEAD_MAX_BYTES);
            self.ahead.resize(more, 0);
        }
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            match self.socket.try_read(&mut self.ahead) {
                Ok(read) => {
                    self.tallies.of(self.remote).add_socket_in(read as u64);
                    self.unread = 0..read;
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_out(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            match write(&self.socket) {
                Ok(written) => {
                    let tally = self.tallies.of(self.remote);
                    tally.add_socket_out(written as u64);
                    return Poll::Ready(Ok(written));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            ready!(self.poll_ahead(cx))?;
        }
        let now = self.unread.len().min(buf.remaining());
        let begin = self.unread.start;
        buf.put_slice(&self.ahead[begin..begin + now]);
        self.unread.start += now;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |socket| socket.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_out(cx, |socket| socket.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_has_the_mark_of_its_last_class() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let wire = Wire::new(TcpStream::connect(to).await.unwrap(), Arc::default()).unwrap();
        for dscp in [10, 0, 63] {
            wire.mark(dscp);
            let class = rustix::net::sockopt::ip_tos(&*wire.socket).unwrap();
            assert_eq!(class >> 2, dscp);
        }
    }
}
