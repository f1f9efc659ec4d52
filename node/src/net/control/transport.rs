//! QUIC and TCP (noise, yamux) behind the gate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::TryFutureExt;
use futures::future::BoxFuture;
use libp2p::core::Transport;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, OrTransport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::Version;
use libp2p::tcp::tokio::TcpStream;
use libp2p::{Multiaddr, PeerId, noise, quic, tcp, yamux};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::gate::Gate;
use super::peers::tcp_address;
use crate::net::identity::Identity;

/// A TCP connection must stand by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes of noise and yamux, together.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Unacknowledged for so long, a TCP connection is given up, so that a vanished peer is noticed.
const TCP_SILENCE: Duration = Duration::from_secs(10);

/// Both transports, with admission. `sources` are the addresses that the swarm listens on.
pub(super) fn build(
    identity: &Identity,
    sources: Vec<IpAddr>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, String> {
    let keypair = identity.libp2p_keypair();
    let gate = Gate::new(identity);
    let noise = noise::Config::new(&keypair).map_err(|error| error.to_string())?;

    let tcp = BoundTcp::new(sources)
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(UPGRADE_TIMEOUT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));

    let mut config = quic::Config::new(&keypair);
    // A machine that vanishes is noticed as soon as with TCP. Nodes on busy machines are late.
    config.max_idle_timeout = TCP_SILENCE.as_millis() as u32;
    config.keep_alive_interval = TCP_SILENCE / 3;
    config.max_concurrent_stream_limit = 64;
    config.max_stream_data = 1 << 20;
    config.max_connection_data = 8 << 20;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));

    let either = OrTransport::new(tcp, quic).map(|either, _| either.into_inner());
    Ok(either
        .and_then(move |(peer, muxer), end| gate.pass(peer, muxer, end.is_dialer()))
        .boxed())
}

/// TCP whose outgoing connections leave from the address that we listen on.
///
/// libp2p's own port reuse binds to the wildcard address, so that the kernel chooses the source. Sites
/// are told by addresses, so ours must be the one that we are known by.
struct BoundTcp {
    inner: tcp::tokio::Transport,
    sources: Vec<IpAddr>,
}

impl BoundTcp {
    fn new(sources: Vec<IpAddr>) -> BoundTcp {
        let sources = sources
            .into_iter()
            .filter(|ip| !ip.is_unspecified())
            .collect();
        BoundTcp {
            inner: tcp::tokio::Transport::new(tcp::Config::new()),
            sources,
        }
    }

    fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let fits =
            |ip: &&IpAddr| ip.is_ipv4() == to.is_ipv4() && ip.is_loopback() == to.is_loopback();
        self.sources.iter().find(fits).copied()
    }
}

impl Transport for BoundTcp {
    type Output = TcpStream;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<TcpStream>>;
    type Dial = BoxFuture<'static, io::Result<TcpStream>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let to = tcp_address(&address)
            .filter(|to| to.port() != 0 && !to.ip().is_unspecified())
            .ok_or(TransportError::MultiaddrNotSupported(address))?;
        let source = self.source(to.ip());
        Ok(Box::pin(connect(source, to)))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        Pin::new(&mut self.inner).poll(cx).map(|event| {
            event.map_upgrade(|upgrade| -> Self::ListenerUpgrade {
                Box::pin(upgrade.and_then(|stream| async { watch(stream) }))
            })
        })
    }
}

async fn connect(source: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_nodelay(true)?;
    if let Some(ip) = source {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    let stream = timeout(CONNECT_TIMEOUT, socket.connect(to))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??;
    watch(TcpStream(stream))
}

/// Lets the kernel notice a peer that vanished: yamux asks nothing of an idle connection.
fn watch(stream: TcpStream) -> io::Result<TcpStream> {
    let keepalive = socket2::TcpKeepalive::new().with_time(TCP_SILENCE / 2);
    #[cfg(not(windows))]
    let keepalive = keepalive.with_interval(TCP_SILENCE / 6).with_retries(3);
    socket2::SockRef::from(&stream.0).set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    rustix::net::sockopt::set_tcp_user_timeout(&stream.0, TCP_SILENCE.as_millis() as u32)?;
    Ok(stream)
}
