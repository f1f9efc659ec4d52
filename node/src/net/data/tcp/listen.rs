//! Connections of those who ask us: admitted within a time, few from each, closed when unused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use protocol::NodeId;
use protocol::limits::{
    TCP_HANDSHAKES_MAX, TCP_HANDSHAKES_PER_ADDRESS_MAX, TCP_INCOMING_MAX, TCP_PER_PEER_MAX,
    TCP_UNASKED,
};
use protocol::strangers::Knock;
use protocol::wire::{DATA_TCP_ALPN, DataReply};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{ASKS, Stream, TELLS, Wire, read_notice};
use crate::net::data::codec::{self, ExchangeError};
use crate::net::data::count::Tallies;
use crate::net::data::marks::Marks;
use crate::net::data::peers::Tracked;
use crate::net::data::places::Places;
use crate::net::data::serve::{self, Asker};
use crate::net::data::{DataConfig, DataError, DataEvent, Inner, endpoint};
use crate::net::identity::{Identity, node_of_certificate};
use crate::net::knocks;

/// After the system refused to hand a connection over, mostly for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Connections that the system keeps for us to take.
const BACKLOG: u32 = 128;
/// Ports that are tried until one is free for UDP and TCP alike.
const BIND_TRIES: usize = 16;

/// Both sockets, and where they are.
pub(crate) struct Bound {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) marks: Arc<Marks>,
    pub(crate) local: SocketAddr,
    pub(crate) listener: Option<TcpListener>,
}

/// Binds both on one port. Where TCP's is taken and the port is not ours to choose, QUIC stands alone.
pub(crate) fn bind(
    config: &DataConfig,
    identity: &Identity,
    tallies: &Arc<Tallies>,
) -> Result<Bound, DataError> {
    let address = config.listen;
    let mut tries = BIND_TRIES;
    loop {
        let (endpoint, marks) =
            endpoint::bind_marked(address, identity, tallies.clone(), config.dscp)?;
        let local = endpoint
            .local_addr()
            .map_err(|source| DataError::Bind { address, source })?;
        tries -= 1;
        let listener = match listener(local) {
            Ok(listener) => Some(listener),
            Err(_) if address.port() == 0 && tries > 0 => continue,
            Err(error) => {
                tracing::warn!(
                    "cannot listen on TCP {local}: {error}; peers use QUIC, which costs both ends \
                     more processor time: free the port and start the node again"
                );
                None
            }
        };
        return Ok(Bound {
            endpoint,
            marks,
            local,
            listener,
        });
    }
}

fn listener(local: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match local {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The connections of a process that was killed a moment ago do not keep the port.
    socket.set_reuseaddr(true)?;
    socket.bind(local)?;
    socket.listen(BACKLOG)
}

/// What the listener keeps count of, and its half of TLS.
pub(crate) struct Listening {
    tls: TlsAcceptor,
    handshakes: Arc<Places<IpAddr>>,
    connections: Arc<Places<NodeId>>,
}

impl Listening {
    pub(crate) fn new(identity: &Identity) -> Listening {
        Listening {
            tls: identity.tls_server(DATA_TCP_ALPN).into(),
            handshakes: Places::new(TCP_HANDSHAKES_MAX, TCP_HANDSHAKES_PER_ADDRESS_MAX),
            // Of one peer the oldest makes room, so it never has more.
            connections: Places::new(TCP_INCOMING_MAX, TCP_INCOMING_MAX),
        }
    }
}

/// Takes connections until the endpoint closes.
pub(crate) async fn accept(inner: Arc<Inner>, listener: TcpListener, listening: Listening) {
    let listening = Arc::new(listening);
    let closed = inner.peers.closed();
    tokio::pin!(closed);
    loop {
        let accepted = tokio::select! {
            () = &mut closed => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, remote)) => {
                // Dropped if there is no place, which closes it.
                if let Some(place) = listening.handshakes.take(remote.ip()) {
                    let (inner, listening) = (inner.clone(), listening.clone());
                    tokio::spawn(async move {
                        let admitted = admit(&inner, &listening, socket).await;
                        drop(place);
                        match admitted {
                            Ok(admitted) => exchanges(&inner, admitted, remote).await,
                            Err(error) => {
                                tracing::debug!(%remote, %error, "an incoming TCP connection was not taken");
                            }
                        }
                    });
                } else {
                    tracing::debug!(%remote, "too many TCP handshakes are under way: one more is not begun");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a TCP connection cannot be taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// A connection of an admitted peer, and its place among all.
struct Admitted {
    stream: Stream,
    node: NodeId,
    own: IpAddr,
    tracked: Tracked,
    _place: crate::net::data::places::Place<NodeId>,
}

async fn admit(
    inner: &Arc<Inner>,
    listening: &Listening,
    socket: TcpStream,
) -> Result<Admitted, String> {
    let text = |error: std::io::Error| error.to_string();
    let own = socket.local_addr().map_err(text)?.ip();
    let remote = socket.peer_addr().map_err(text)?.ip();
    let wire = Wire::new(socket, inner.tallies.clone()).map_err(text)?;
    let stream = timeout(inner.config.slow_after, listening.tls.accept(wire))
        .await
        .map_err(|_| "the handshake took too long")?
        .map_err(|error| {
            inner.knocked(remote, knocks::over_tcp(&error));
            text(error)
        })?;
    let certificate = stream.get_ref().1.peer_certificates();
    let node = certificate.and_then(|chain| node_of_certificate(chain.first()?));
    let node = node.ok_or_else(|| {
        inner.knocked(remote, Some(Knock::Refused));
        "the peer showed no node's certificate"
    })?;
    inner.peers.make_room_tcp(&node, TCP_PER_PEER_MAX);
    let place = listening.connections.take(node);
    let place = place.ok_or("there are too many already")?;
    let cutter = stream.get_ref().0.cutter();
    Ok(Admitted {
        stream: stream.into(),
        node,
        own,
        tracked: inner.peers.track_tcp(node, cutter, true),
        _place: place,
    })
}

/// One exchange after the other, until the peer or an error ends it.
async fn exchanges(inner: &Arc<Inner>, admitted: Admitted, remote: SocketAddr) {
    let Admitted {
        mut stream,
        node,
        own,
        tracked,
        ..
    } = admitted;
    let asker = Asker {
        node,
        own,
        remote,
        data: None,
    };
    loop {
        let begin = timeout(TCP_UNASKED.as_duration(), stream.read_u8()).await;
        let done = match begin {
            Ok(Ok(ASKS)) => answer(inner, &asker, &mut stream).await,
            Ok(Ok(TELLS)) => hear(inner, node, &mut stream).await,
            Ok(Ok(_)) => Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into()),
            Ok(Err(_)) | Err(_) => break,
        };
        if let Err(error) = done {
            tracing::debug!(%node, %remote, %error, "a TCP connection is closed");
            break;
        }
    }
    drop(tracked);
}

/// Reads one request and answers it. What is no request is refused, and is the last thing heard.
async fn answer(
    inner: &Arc<Inner>,
    asker: &Asker,
    stream: &mut Stream,
) -> Result<(), ExchangeError> {
    match timeout(inner.config.slow_after, codec::read_request(stream)).await {
        Ok(Ok(request)) => serve::answer(inner, asker, None, request, stream).await,
        Ok(Err(error)) => {
            codec::write_reply(stream, DataReply::Refused).await?;
            Err(error)
        }
        Err(_) => Err(late()),
    }
}

async fn hear(inner: &Arc<Inner>, node: NodeId, stream: &mut Stream) -> Result<(), ExchangeError> {
    let notice = timeout(inner.config.slow_after, read_notice(stream))
        .await
        .map_err(|_| late())??;
    let event = DataEvent::Notice(node, notice);
    let gone = |_| std::io::Error::from(std::io::ErrorKind::NotConnected).into();
    inner.events.send(event).await.map_err(gone)
}

fn late() -> ExchangeError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
