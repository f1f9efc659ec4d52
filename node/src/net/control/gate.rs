//! Admission as part of the transport.
//!
//! After the security handshake a peer has proven a key, not that it belongs. So before the swarm
//! sees the connection, the dialer opens its first substream and both ends talk on it:
//!
//! 1. each sends its credentials: `u16` length, then for each certificate, leaf first, `u16` length
//!    and DER (big-endian; at most `CREDENTIALS_MAX_BYTES` together);
//! 2. each judges the other's by [`Admission::admit_as`] the key that the handshake proved, and sends
//!    one byte: 0, or why not ([`Verdict`]);
//! 3. only when both bytes are 0 is the connection handed on.
//!
//! The second step is why a refused peer learns the reason, and why it never takes itself for
//! connected. What a peer opens or sends before its verdict waits unread in the muxer.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::poll_fn;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::PeerId;
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt};
use protocol::NodeId;
use protocol::limits::{ADMISSION_TIMEOUT, CREDENTIALS_MAX_BYTES};
use protocol::strangers::Knock;
use rustls::pki_types::CertificateDer;
use tokio::time::{Duration, timeout};

use super::peers;
use crate::net::identity::{Admission, AdmissionError, Chain, Identity};

/// Certificates in credentials; only the leaf decides.
const CERTIFICATES_MAX: usize = 8;
/// A refused peer gets this long to read why.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the gate needs of an identity.
#[derive(Clone)]
pub(super) struct Gate {
    chain: Arc<Chain>,
    admission: Arc<Admission>,
    patience: Duration,
}

/// Why a connection was not handed on.
#[derive(Debug, thiserror::Error)]
pub(super) enum GateError {
    /// We refused it.
    #[error("refused {peer}: {error}")]
    Refused { peer: NodeId, error: AdmissionError },
    /// It refused us.
    #[error("{peer} refused us: {verdict}")]
    RefusedByPeer { peer: NodeId, verdict: Verdict },
    /// It said nothing, or not in time.
    #[error("{peer} did not finish admission within {seconds} s")]
    Timeout { peer: NodeId, seconds: u64 },
    /// It did not keep to the protocol, or went away.
    #[error("{peer} broke admission off: {source}")]
    Broken { peer: NodeId, source: io::Error },
    /// Its key is not ed25519, so it is no node.
    #[error("{0} has no ed25519 key, so it is no node")]
    NoNode(PeerId),
}

/// The gate's error as the transport carries it. `Either`, in which libp2p wraps it, hides the error
/// itself and shows only its source.
#[derive(Debug, thiserror::Error)]
#[error("admission: {0}")]
pub(super) struct AtGate(#[source] GateError);

/// One byte on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Verdict(u8);

impl Verdict {
    const ADMITTED: Verdict = Verdict(0);

    fn of(result: &Result<(), AdmissionError>) -> Verdict {
        use AdmissionError as E;
        Verdict(match result {
            Ok(()) => 0,
            Err(E::Missing) => 1,
            Err(E::Malformed(_)) => 2,
            Err(E::UnknownIssuer) => 3,
            Err(E::Expired) => 4,
            Err(E::NotYetValid) => 5,
            Err(E::Revoked) => 6,
            Err(E::WrongUse(_) | E::WrongName | E::WrongNode { .. }) => 7,
            Err(E::NoIssuers) => 8,
        })
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            0 => "admitted",
            1 => "it saw no certificate of ours",
            2 => "our certificate is malformed",
            3 => "our certificate is of no CA that it knows",
            4 => "our certificate has expired",
            5 => "our certificate is not valid yet by its clock",
            6 => "our certificate was revoked",
            7 => "our certificate is not for our key",
            8 => "it knows no CA yet",
            _ => "for a reason that this version does not know",
        })
    }
}

impl GateError {
    /// The gate's error inside what the swarm reports, if it was the gate.
    pub(super) fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a GateError> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<GateError>() {
                return Some(found);
            }
            // An io::Error's source skips the error that it wraps.
            next = match error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
            {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    pub(super) fn peer(&self) -> Option<NodeId> {
        match self {
            GateError::Refused { peer, .. }
            | GateError::RefusedByPeer { peer, .. }
            | GateError::Timeout { peer, .. }
            | GateError::Broken { peer, .. } => Some(*peer),
            GateError::NoNode(_) => None,
        }
    }

    /// What the peer showed, if it was not let in. One that refused us we had let in.
    pub(super) fn knock(&self) -> Option<Knock> {
        match self {
            GateError::Refused { error, .. } if *error == AdmissionError::Missing => {
                Some(Knock::Bare)
            }
            GateError::Refused { .. } => Some(Knock::Refused),
            GateError::Timeout { .. } => Some(Knock::Bare),
            GateError::Broken { .. } | GateError::NoNode(_) => Some(Knock::Garbage),
            GateError::RefusedByPeer { .. } => None,
        }
    }

    /// Our own verdict, if it was one.
    pub(super) fn admission(&self) -> Option<AdmissionError> {
        match self {
            GateError::Refused { error, .. } => Some(error.clone()),
            _ => None,
        }
    }
}

impl Gate {
    pub(super) fn new(identity: &Identity) -> Gate {
        Gate {
            chain: identity.live_chain(),
            admission: identity.admission().clone(),
            patience: ADMISSION_TIMEOUT.as_duration(),
        }
    }

    /// Takes a connection through admission and hands it on.
    pub(super) async fn pass(
        self,
        peer: PeerId,
        mut muxer: StreamMuxerBox,
        dialer: bool,
    ) -> Result<(PeerId, StreamMuxerBox), AtGate> {
        let node = peers::node_of(&peer).ok_or(AtGate(GateError::NoNode(peer)))?;
        match timeout(self.patience, self.talk(node, &mut muxer, dialer)).await {
            Ok(Ok(())) => Ok((peer, muxer)),
            Ok(Err(error)) => Err(AtGate(error)),
            Err(_) => {
                let seconds = self.patience.as_secs();
                Err(AtGate(GateError::Timeout {
                    peer: node,
                    seconds,
                }))
            }
        }
    }

    async fn talk(
        &self,
        peer: NodeId,
        muxer: &mut StreamMuxerBox,
        dialer: bool,
    ) -> Result<(), GateError> {
        let broken = |source| GateError::Broken { peer, source };
        let mut stream = poll_fn(|cx| {
            drive(muxer, cx)?;
            let opened = if dialer {
                muxer.poll_outbound_unpin(cx)
            } else {
                muxer.poll_inbound_unpin(cx)
            };
            opened.map_err(io::Error::other)
        })
        .await
        .map_err(broken)?;
        let end = driven(muxer, self.exchange(peer, &mut stream))
            .await
            .map_err(broken)?;
        match &end {
            Ok(()) => driven(muxer, stream.close())
                .await
                .flatten()
                .map_err(broken)?,
            Err(GateError::Refused { .. }) => {
                let _ = timeout(FAREWELL, driven(muxer, farewell(stream))).await;
            }
            Err(_) => {}
        }
        end
    }

    /// The whole conversation on the first substream.
    async fn exchange<S>(&self, peer: NodeId, stream: &mut S) -> Result<(), GateError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let broken = |source| GateError::Broken { peer, source };
        let credentials = encode(&self.chain.load());
        send(stream, &credentials).await.map_err(broken)?;
        let theirs = receive(stream).await.map_err(broken)?;
        let ours = match decode(&theirs) {
            Some(chain) => self.admission.admit_as(peer, &chain),
            None => Err(AdmissionError::Malformed("not credentials".to_owned())),
        };
        let said = say(stream, Verdict::of(&ours)).await;
        if let Err(error) = ours {
            return Err(GateError::Refused { peer, error });
        }
        let mut verdict = [0];
        let heard = stream.read_exact(&mut verdict).await;
        said.and(heard).map_err(broken)?;
        match Verdict(verdict[0]) {
            Verdict::ADMITTED => Ok(()),
            verdict => Err(GateError::RefusedByPeer { peer, verdict }),
        }
    }
}

/// Waits until the peer has read why and hangs up.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> io::Result<()> {
    stream.close().await?;
    let mut rest = [0; 64];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Runs a conversation while the muxer under it is polled; fails if the connection does first.
async fn driven<F: Future>(muxer: &mut StreamMuxerBox, talk: F) -> io::Result<F::Output> {
    let mut talk = pin!(talk);
    poll_fn(|cx| {
        if let Poll::Ready(end) = talk.as_mut().poll(cx) {
            return Poll::Ready(Ok(end));
        }
        let Err(lost) = drive(muxer, cx) else {
            return Poll::Pending;
        };
        // What came in with the connection's end is still to be read.
        match talk.as_mut().poll(cx) {
            Poll::Ready(end) => Poll::Ready(Ok(end)),
            Poll::Pending => Poll::Ready(Err(lost)),
        }
    })
    .await
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, verdict: Verdict) -> io::Result<()> {
    stream.write_all(&[verdict.0]).await?;
    stream.flush().await
}

/// A muxer makes no progress, and notices no loss, unless it is polled.
fn drive(muxer: &mut StreamMuxerBox, cx: &mut Context<'_>) -> io::Result<()> {
    while let Poll::Ready(event) = muxer.poll_unpin(cx) {
        event.map_err(io::Error::other)?;
    }
    Ok(())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, body: &[u8]) -> io::Result<()> {
    let length = u16::try_from(body.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > CREDENTIALS_MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "credentials are too long",
        ));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// Certificates that do not fit are left out from the end: only the leaf decides.
fn encode(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for certificate in chain.iter().take(CERTIFICATES_MAX) {
        let Ok(length) = u16::try_from(certificate.len()) else {
            break;
        };
        if out.len() + 2 + certificate.len() > CREDENTIALS_MAX_BYTES {
            break;
        }
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(certificate);
    }
    out
}

fn decode(mut body: &[u8]) -> Option<Vec<CertificateDer<'_>>> {
    let mut chain = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_first_chunk::<2>()?;
        let (certificate, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        if chain.len() == CERTIFICATES_MAX {
            return None;
        }
        chain.push(CertificateDer::from(certificate));
        body = rest;
    }
    Some(chain)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use libp2p::core::muxing::StreamMuxerEvent;
    use proptest::prelude::*;

    use super::*;
    use crate::net::identity::fixture::{TestFleet, node};

    /// One end of the conversation, scripted, against the real gate of node 1 that expects node 2.
    async fn against(script: Vec<u8>) -> Result<(), GateError> {
        let gate = Gate::new(&TestFleet::new("a").identity(1));
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let mut ours = Compat(ours);
        let mut theirs = Compat(theirs);
        theirs.write_all(&script).await.unwrap();
        theirs.close().await.unwrap();
        gate.exchange(node(2), &mut ours).await
    }

    /// tokio's duplex pipe with the traits of `futures`.
    struct Compat(tokio::io::DuplexStream);

    impl AsyncRead for Compat {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let mut buf = tokio::io::ReadBuf::new(buf);
            let pinned = Pin::new(&mut self.0);
            match tokio::io::AsyncRead::poll_read(pinned, cx, &mut buf) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            }
        }
    }

    impl AsyncWrite for Compat {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.0), cx, buf)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.0), cx)
        }
        fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut self.0), cx)
        }
    }

    fn spoken(body: &[u8], verdict: &[u8]) -> Vec<u8> {
        let mut out = (body.len() as u16).to_be_bytes().to_vec();
        out.extend_from_slice(body);
        out.extend_from_slice(verdict);
        out
    }

    #[tokio::test]
    async fn the_conversation_admits_refuses_and_hears_refusals() {
        let fleet = TestFleet::new("a");
        let good = encode(&fleet.identity(2).chain());
        against(spoken(&good, &[0])).await.unwrap();
        let refused = against(spoken(&good, &[6])).await.unwrap_err();
        assert!(
            matches!(
                refused,
                GateError::RefusedByPeer {
                    verdict: Verdict(6),
                    ..
                }
            ),
            "{refused}"
        );
        let other = against(spoken(&encode(&fleet.identity(3).chain()), &[0]))
            .await
            .unwrap_err();
        let expected = AdmissionError::WrongNode {
            expected: node(2),
            found: node(3),
        };
        assert_eq!(other.admission(), Some(expected));
        let bare = against(spoken(&[], &[0])).await.unwrap_err();
        assert_eq!(bare.admission(), Some(AdmissionError::Missing));
        let long = against([0xff, 0xff].into()).await.unwrap_err();
        assert!(matches!(long, GateError::Broken { .. }), "{long}");
        let short = against(spoken(&good, &[])).await.unwrap_err();
        assert!(matches!(short, GateError::Broken { .. }), "{short}");
    }

    /// A connection on which nothing ever happens.
    struct Silent;

    impl libp2p::core::StreamMuxer for Silent {
        type Substream = Compat;
        type Error = io::Error;
        fn poll_inbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Compat>> {
            Poll::Pending
        }
        fn poll_outbound(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<Compat>> {
            Poll::Pending
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up() {
        for dialer in [true, false] {
            let mut gate = Gate::new(&TestFleet::new("a").identity(1));
            gate.patience = Duration::from_millis(20);
            let peer = peers::peer_of(&node(2)).unwrap();
            let end = gate.pass(peer, StreamMuxerBox::new(Silent), dialer).await;
            assert!(
                matches!(end, Err(AtGate(GateError::Timeout { .. }))),
                "{end:?}"
            );
        }
    }

    /// As libp2p's: its source is that of what it holds.
    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Either(AtGate);

    #[test]
    fn the_gates_error_is_found_inside_the_swarms() {
        let inner = GateError::Refused {
            peer: node(1),
            error: AdmissionError::Revoked,
        };
        let outer = io::Error::other(io::Error::other(Either(AtGate(inner))));
        assert_eq!(
            GateError::find(&outer).unwrap().admission(),
            Some(AdmissionError::Revoked)
        );
        assert!(GateError::find(&io::Error::other("else")).is_none());
    }

    proptest! {
        #[test]
        fn credentials_decode_to_themselves_and_garbage_never_panics(
            chain in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..=8),
            garbage in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
            let wire = encode(&chain);
            prop_assert_eq!(decode(&wire), Some(chain));
            let _ = decode(&garbage);
        }
    }
}

#[cfg(test)]
#[path = "gate_golden.rs"]
mod golden_bytes;
