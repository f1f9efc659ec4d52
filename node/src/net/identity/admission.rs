//! Who is admitted: one verdict for both planes.

use protocol::{NodeId, Time};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

/// The rules by which peers are admitted. Shared, and changed while connections live.
#[derive(Debug)]
pub struct Admission {
    changed: watch::Sender<u64>,
}

/// Why a peer is not admitted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdmissionError {
    /// It showed no certificate.
    #[error("no certificate was shown: the peer is not enrolled")]
    Missing,
    /// Not a certificate, or not one of ours.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// Signed by no issuing CA of our root.
    #[error("the certificate was issued by no CA of this fleet's root")]
    UnknownIssuer,
    /// It is past its end, by the floored clock.
    #[error("the certificate has expired: renew it with the coordinator")]
    Expired,
    /// It is not valid yet, by the floored clock.
    #[error("the certificate is not valid yet: check this machine's clock")]
    NotYetValid,
    /// Its serial stands in the revocation list.
    #[error("the certificate was revoked")]
    Revoked,
    /// Its name is not the base32 of its key.
    #[error("the certificate's name is not its key's node id")]
    WrongName,
    /// It is admitted, but it is another node than the one expected.
    #[error("the certificate is for node {found}, expected {expected}")]
    WrongNode {
        /// Whose key spoke.
        expected: NodeId,
        /// Whose certificate was shown.
        found: NodeId,
    },
    /// No issuing CA is known, so nobody is admitted.
    #[error("no issuing CA is known yet: nobody can be admitted")]
    NoIssuers,
}

/// What came of a revocation list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revocations {
    /// It is in force now.
    Taken,
    /// The same or a newer one of this CA was held already.
    Held,
}

impl Admission {
    /// Admits whom one of these CAs (DER, from the root) certified. An empty list admits nobody.
    pub fn new(issuing_cas: Vec<CertificateDer<'static>>) -> Result<Admission, AdmissionError> {
        let _ = issuing_cas;
        unimplemented!()
    }

    /// The verdict about a chain (leaf first; only the leaf and our own CAs count).
    pub fn admit(&self, chain: &[CertificateDer<'_>]) -> Result<NodeId, AdmissionError> {
        let _ = chain;
        unimplemented!()
    }

    /// Replaces the issuing CAs. Revocation lists of CAs that stay, stay.
    pub fn set_issuing_cas(&self, cas: Vec<CertificateDer<'static>>) -> Result<(), AdmissionError> {
        let _ = cas;
        unimplemented!()
    }

    /// Takes a revocation list (DER) once one of the issuing CAs has signed it. A list that is not
    /// newer than the held one (by its number) changes nothing.
    pub fn set_revocations(&self, der: &[u8]) -> Result<Revocations, AdmissionError> {
        let _ = der;
        unimplemented!()
    }

    /// The clock never judges by a time before this one (the newest signed time seen).
    pub fn floor_time(&self, wall: Time) {
        let _ = wall;
        unimplemented!()
    }

    /// The time that certificates are judged by: the system's, or the floor if that is later.
    pub fn now(&self) -> Time {
        unimplemented!()
    }

    /// Ticks whenever a peer that was admitted might no longer be.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The verdict about a node that was admitted before, by the certificate that it showed last;
    /// `None` if it is not remembered. Used to close live connections after a change.
    pub fn readmit(&self, node: &NodeId) -> Option<Result<(), AdmissionError>> {
        let _ = node;
        unimplemented!()
    }

    /// Whether a node that was admitted before has been revoked since.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.readmit(node) == Some(Err(AdmissionError::Revoked))
    }
}
