//! The key and the certificates on disk.

use std::path::Path;

use ed25519_dalek::SigningKey;
use protocol::NodeId;
use rustls::pki_types::CertificateDer;

use super::IdentityError;

/// Reads an ed25519 key from PKCS#8 PEM; refuses a file that others may read.
pub fn load_key(path: &Path) -> Result<SigningKey, IdentityError> {
    let _ = path;
    unimplemented!()
}

/// Writes an ed25519 key as PKCS#8 PEM, mode 0600, atomically; durable on return.
pub fn save_key(path: &Path, key: &SigningKey) -> Result<(), IdentityError> {
    let _ = (path, key);
    unimplemented!()
}

pub(super) fn load_chain(
    path: &Path,
    key: &SigningKey,
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let _ = (path, key);
    unimplemented!()
}

pub(super) fn save_chain(
    path: &Path,
    chain: &[CertificateDer<'static>],
) -> Result<(), IdentityError> {
    let _ = (path, chain);
    unimplemented!()
}

/// The node whose ed25519 key is the certificate's subject key; says nothing about who signed it.
/// For peers whose chain TLS has already admitted (`quinn::Connection::peer_identity`).
pub fn node_of_certificate(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let _ = certificate;
    unimplemented!()
}
