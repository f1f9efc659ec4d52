//! What the fleet's CA signs: node certificates, the API's server certificate, revocation lists.
//! Only the coordinator calls this; it stands here because the two sides of a format belong together.

use std::net::IpAddr;

use ed25519_dalek::SigningKey;
use protocol::{NodeId, Time};
use rustls::pki_types::CertificateDer;

/// An issuing CA: certificate and key.
pub struct IssuingCa {
    certificate: CertificateDer<'static>,
}

/// Why something cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The CA's certificate is not one that we can issue from.
    #[error("the CA certificate cannot be used: {0}")]
    Certificate(String),
    /// Start, end or name of what was asked for make no sense.
    #[error("cannot issue: {0}")]
    Request(String),
}

/// How long what is issued holds, Unix time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// First moment.
    pub not_before: Time,
    /// Last moment.
    pub not_after: Time,
}

impl IssuingCa {
    /// Makes a self-signed issuing CA for a fleet.
    pub fn create(
        fleet: &str,
        key: &SigningKey,
        validity: Validity,
    ) -> Result<IssuingCa, IssueError> {
        let _ = (fleet, key, validity);
        unimplemented!()
    }

    /// The CA of a certificate that was saved (or signed by the enterprise's own CA) and its key.
    pub fn open(
        certificate: CertificateDer<'static>,
        key: &SigningKey,
    ) -> Result<IssuingCa, IssueError> {
        let _ = (certificate, key);
        unimplemented!()
    }

    /// The CA's certificate, as it stands in the root.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A node's certificate. Serials are never used twice: the coordinator counts them in its ledger.
    pub fn node(
        &self,
        node: NodeId,
        serial: u64,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let _ = (node, serial, validity);
        unimplemented!()
    }

    /// A server's certificate for the HTTPS API, for DNS names and addresses. No node is admitted by it.
    pub fn server(
        &self,
        key: &SigningKey,
        names: &[String],
        addresses: &[IpAddr],
        serial: u64,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let _ = (key, names, addresses, serial, validity);
        unimplemented!()
    }

    /// A revocation list (DER) of all serials revoked so far. `number` rises with every list.
    pub fn revoke(
        &self,
        serials: &[u64],
        number: u64,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueError> {
        let _ = (serials, number, validity);
        unimplemented!()
    }
}

/// The private key of a server certificate as TLS wants it (PKCS#8).
pub fn private_key_der(key: &SigningKey) -> rustls::pki_types::PrivateKeyDer<'static> {
    let _ = key;
    unimplemented!()
}
