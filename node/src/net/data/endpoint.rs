//! The UDP socket and how QUIC runs on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::NodeId;
use protocol::limits::STREAMS_PER_PEER_MAX;
use protocol::wire::DATA_ALPN;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, Runtime, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::DataError;
use super::count::{CountingSocket, Tallies};
use crate::net::identity::Identity;

/// Asked of the system for the socket, each way; with less, bursts are lost.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Unacknowledged bytes of one connection that a source keeps.
const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// Bytes that an asker lets come ahead of its reading: of one stream, of one connection.
const FETCH_STREAM_WINDOW_BYTES: u32 = 8 << 20;
const FETCH_WINDOW_BYTES: u32 = 16 << 20;
/// The same for whoever is asked: requests and notices are short.
const ASKED_STREAM_WINDOW_BYTES: u32 = 64 << 10;
const ASKED_WINDOW_BYTES: u32 = 512 << 10;
/// Notices that a peer may have under way.
const NOTICE_STREAMS_MAX: u32 = 16;
/// A silent peer is given up after this long; the asker keeps its connections alive in between.
const IDLE_MS: u32 = 20_000;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Handshakes that wait to be looked at.
const INCOMING_MAX: usize = 256;

/// Binds the endpoint. Outgoing connections leave from the same address.
pub(super) fn bind(
    listen: SocketAddr,
    identity: &Identity,
    tallies: Arc<Tallies>,
) -> Result<Endpoint, DataError> {
    let failed = |source| DataError::Bind {
        address: listen,
        source,
    };
    let socket = open_socket(listen).map_err(failed)?;
    let inner: Arc<dyn AsyncUdpSocket> = TokioRuntime.wrap_udp_socket(socket).map_err(failed)?;
    Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        Some(server_config(identity)?),
        Arc::new(CountingSocket::new(inner, tallies)),
        Arc::new(TokioRuntime),
    )
    .map_err(failed)
}

fn open_socket(listen: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    // The system cuts what it does not grant; then transfers are slower, not wrong.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    tracing::debug!(
        %listen,
        asked = SOCKET_BUFFER_BYTES,
        receive = socket.recv_buffer_size().unwrap_or(0),
        send = socket.send_buffer_size().unwrap_or(0),
        "socket buffers granted"
    );
    socket.bind(&listen.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn server_config(identity: &Identity) -> Result<ServerConfig, DataError> {
    let tls = identity.tls_server(DATA_ALPN);
    let quic = QuicServerConfig::try_from(tls).map_err(|e| DataError::Tls(e.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    let mut transport = transport();
    transport
        .max_concurrent_bidi_streams(STREAMS_PER_PEER_MAX.into())
        .max_concurrent_uni_streams(NOTICE_STREAMS_MAX.into())
        .stream_receive_window(ASKED_STREAM_WINDOW_BYTES.into())
        .receive_window(ASKED_WINDOW_BYTES.into());
    config
        .transport_config(Arc::new(transport))
        .max_incoming(INCOMING_MAX);
    Ok(config)
}

/// For a connection to a node and no other.
pub(super) fn client_config(
    identity: &Identity,
    expected: NodeId,
) -> Result<ClientConfig, DataError> {
    let tls = identity.tls_client(expected, DATA_ALPN);
    let quic = QuicClientConfig::try_from(tls).map_err(|e| DataError::Tls(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    let mut transport = transport();
    transport
        .max_concurrent_bidi_streams(0u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(FETCH_STREAM_WINDOW_BYTES.into())
        .receive_window(FETCH_WINDOW_BYTES.into())
        .keep_alive_interval(Some(KEEP_ALIVE));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// What both sides share. The MTU is searched up to 1,452 bytes (quinn's default): beyond 6,500
/// segmentation offload fails silently, and the paths in between do not carry it anyway.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))));
    transport
}
