//! The UDP socket and how QUIC runs on it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use protocol::NodeId;
use protocol::limits::{STREAMS_PER_PEER_MAX, UNVERIFIED_MAX_BYTES};
use protocol::wire::DATA_ALPN;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator,
    Endpoint, EndpointConfig, IdleTimeout, Runtime, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::DataError;
use super::count::{CountingSocket, Tallies};
use super::manners::Manners;
use super::marks::{Dscp, Marks};
use crate::net::identity::{Identity, crypto_provider};

/// Asked of the system for the socket, each way; with less, bursts are lost.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Unacknowledged bytes of one connection that a source keeps.
pub(super) const SEND_WINDOW_BYTES: u64 = 8 << 20;
/// Bytes that an asker lets come ahead of its reading: of one stream, of one connection.
const FETCH_STREAM_WINDOW_BYTES: u32 = 8 << 20;
pub(super) const FETCH_WINDOW_BYTES: u32 = 16 << 20;
/// Of a connection to a node that gave nothing yet: a group and what proves it fit, and what is read makes room
/// for as much again.
const NEW_WINDOW_BYTES: u32 = UNVERIFIED_MAX_BYTES as u32 / 2;
/// The same for whoever is asked: requests and notices are short.
const ASKED_STREAM_WINDOW_BYTES: u32 = 64 << 10;
const ASKED_WINDOW_BYTES: u32 = 512 << 10;
/// Notices that a peer may have under way.
const NOTICE_STREAMS_MAX: u32 = 16;
/// A silent peer is given up after this long; the asker keeps its connections alive in between.
const IDLE_MS: u32 = 20_000;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Over a WAN the asker puts an acknowledgement off for no longer than this: put off for 25 ms, as is
/// usual, it would look like a queue.
const ACK_DELAY_MAX: Duration = Duration::from_millis(2);
/// Handshakes that wait to be looked at.
const INCOMING_MAX: usize = 256;

/// Binds an endpoint that marks nothing.
pub(super) fn bind(
    listen: SocketAddr,
    identity: &Identity,
    tallies: Arc<Tallies>,
) -> Result<Endpoint, DataError> {
    Ok(bind_marked(listen, identity, tallies, Dscp::default())?.0)
}

/// Binds the endpoint. Outgoing connections leave from the same address.
pub(super) fn bind_marked(
    listen: SocketAddr,
    identity: &Identity,
    tallies: Arc<Tallies>,
    dscp: Dscp,
) -> Result<(Endpoint, Arc<Marks>), DataError> {
    let failed = |source| DataError::Bind {
        address: listen,
        source,
    };
    let socket = open_socket(listen).map_err(failed)?;
    let marks = Arc::new(Marks::new(dscp, &socket));
    let inner: Arc<dyn AsyncUdpSocket> = TokioRuntime.wrap_udp_socket(socket).map_err(failed)?;
    let endpoint = Endpoint::new_with_abstract_socket(
        endpoint_config(identity),
        Some(server_config(identity)?),
        Arc::new(CountingSocket::new(inner, tallies, marks.clone())),
        Arc::new(TokioRuntime),
    )
    .map_err(failed)?;
    Ok((endpoint, marks))
}

/// With keys that follow from the node's own, so that after a crash the new process can tell peers of
/// the old one at once that their connections are gone (RFC 9000, section 10.3).
fn endpoint_config(identity: &Identity) -> EndpointConfig {
    let secret = identity.key().to_bytes();
    let key = blake3::derive_key("tidegate data plane 2026-11 stateless reset", &secret);
    let mut config = EndpointConfig::new(Arc::new(ResetKey(key)));
    config.cid_generator(|| {
        let mut key = [0; 32];
        let random = crypto_provider().secure_random;
        random.fill(&mut key).expect("the system has random bytes");
        Box::new(ConnectionIds { key, count: 0 })
    });
    config
}

/// Signs reset tokens with keyed BLAKE3.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature: [u8; 32] = signature.try_into().map_err(|_| CryptoError)?;
        // Compared in constant time.
        if blake3::keyed_hash(&self.0, data) == signature {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}

/// Unpredictable connection ids. quinn's own are only recognised by the process that made them, which
/// would keep it from resetting those of its predecessor.
#[derive(Debug)]
struct ConnectionIds {
    key: [u8; 32],
    count: u64,
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.count += 1;
        let hash = blake3::keyed_hash(&self.key, &self.count.to_le_bytes());
        ConnectionId::new(&hash.as_bytes()[..self.cid_len()])
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
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

/// For connections from whoever asks, near or not.
pub(super) fn server_config(identity: &Identity) -> Result<ServerConfig, DataError> {
    let tls = identity.tls_server(DATA_ALPN);
    let quic = QuicServerConfig::try_from(tls).map_err(|e| DataError::Tls(e.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(quic));
    config
        .transport_config(Arc::new(asked_transport()))
        .max_incoming(INCOMING_MAX);
    Ok(config)
}

/// For one connection over a WAN.
pub(super) fn over_wan(near: &ServerConfig, manners: Arc<Manners>) -> ServerConfig {
    let mut prompt = AckFrequencyConfig::default();
    prompt.max_ack_delay(Some(ACK_DELAY_MAX));
    let mut transport = asked_transport();
    transport
        .congestion_controller_factory(manners)
        .ack_frequency_config(Some(prompt));
    let mut config = near.clone();
    config.transport_config(Arc::new(transport));
    config
}

fn asked_transport() -> TransportConfig {
    let mut transport = transport();
    transport
        .max_concurrent_bidi_streams(STREAMS_PER_PEER_MAX.into())
        .max_concurrent_uni_streams(NOTICE_STREAMS_MAX.into())
        .stream_receive_window(ASKED_STREAM_WINDOW_BYTES.into())
        .receive_window(ASKED_WINDOW_BYTES.into());
    transport
}

/// For a connection to a node and no other; one that is new lets little come ahead of its reading at first.
pub(super) fn client_config(
    identity: &Identity,
    expected: NodeId,
    is_new: bool,
) -> Result<ClientConfig, DataError> {
    let tls = identity.tls_client(expected, DATA_ALPN);
    let quic = QuicClientConfig::try_from(tls).map_err(|e| DataError::Tls(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    let window = if is_new {
        NEW_WINDOW_BYTES
    } else {
        FETCH_WINDOW_BYTES
    };
    let mut transport = transport();
    transport
        .max_concurrent_bidi_streams(0u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .stream_receive_window(FETCH_STREAM_WINDOW_BYTES.into())
        .receive_window(window.into())
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
