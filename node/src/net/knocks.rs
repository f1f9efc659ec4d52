//! What whoever was not let in had shown: told apart from a peer whose connection just broke, who is no
//! stranger. Datagrams that are no QUIC are dropped unread, since anybody may have sent them.

use std::error::Error;
use std::io;

use libp2p::core::upgrade::NegotiationError;
use protocol::strangers::Knock;

/// TLS alerts with which we end a handshake: RFC 8446, section 6.2.
const BAD_CERTIFICATE: u64 = 42;
const UNKNOWN_CA: u64 = 48;
const CERTIFICATE_REQUIRED: u64 = 116;
/// QUIC's error codes of TLS alerts begin here: RFC 9001, section 4.8.
const CRYPTO: u64 = 0x100;

/// Of a handshake over TCP that failed here.
pub(super) fn over_tcp(error: &io::Error) -> Option<Knock> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    match tls {
        rustls::Error::NoCertificatesPresented => Some(Knock::Bare),
        rustls::Error::InvalidCertificate(_) => Some(Knock::Refused),
        // It refused us.
        rustls::Error::AlertReceived(_) => None,
        _ => Some(Knock::Garbage),
    }
}

/// Of a handshake over QUIC that failed.
pub(super) fn over_quic(error: &quinn::ConnectionError) -> Option<Knock> {
    // All else is the peer's doing, or nobody's.
    let quinn::ConnectionError::TransportError(error) = error else {
        return None;
    };
    Some(match u64::from(error.code).checked_sub(CRYPTO) {
        Some(CERTIFICATE_REQUIRED) => Knock::Bare,
        Some(BAD_CERTIFICATE..=UNKNOWN_CA) => Knock::Refused,
        _ => Knock::Garbage,
    })
}

/// Of a connection for messages that failed before its peer had proved a key.
pub(super) fn before_a_key(error: &(dyn Error + 'static)) -> Option<Knock> {
    use io::ErrorKind as K;
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        let lost = io.is_some_and(|io| {
            matches!(
                io.kind(),
                K::UnexpectedEof
                    | K::ConnectionReset
                    | K::ConnectionAborted
                    | K::BrokenPipe
                    | K::NotConnected
            )
        });
        // So it ends, too, when the peer hangs up before it has asked for any protocol.
        let failed = error.downcast_ref::<NegotiationError>();
        if lost || matches!(failed, Some(NegotiationError::Failed)) {
            return None;
        }
        // An io::Error's source skips the error that it wraps.
        next = match io.and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    Some(Knock::Garbage)
}
