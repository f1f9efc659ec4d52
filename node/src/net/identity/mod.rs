//! Who a node is, and whom it admits.
//!
//! A node is its ed25519 key: the key is its [`NodeId`], its libp2p identity and the subject key of
//! its certificate, whose one DNS name is the id in base32. The fleet's issuing CA signs the
//! certificate at enrolment ([`issue`]). Whether a peer is admitted is decided in one place,
//! [`Admission::admit`], for the control plane (on a connection's first substream) and for the data
//! plane (inside mutual TLS, `tls.rs`) alike.

mod admission;
pub mod chain;
pub mod issue;
mod key;
mod tls;

#[cfg(test)]
pub mod fixture;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ed25519_dalek::SigningKey;
use protocol::NodeId;
use rustls::pki_types::CertificateDer;

pub use admission::{Admission, AdmissionError, Revocations, RulesError};
pub(crate) use key::load_chain as certificates_in;
pub use key::{load_key, node_of_certificate, save_key};
pub use node_core::renewal::Issuer;
pub use tls::crypto_provider;

/// A node's key file inside its directory: PKCS#8 PEM, mode 0600.
pub const KEY_FILE: &str = "node.key";
/// A node's certificates inside its directory: PEM, leaf first.
pub const CERTIFICATES_FILE: &str = "certificates.pem";

/// Certificates, leaf first, that may be replaced while connections live: what is opened from then on
/// shows the new ones.
pub type Chain = ArcSwap<Vec<CertificateDer<'static>>>;

/// A node's key, the certificates that speak for it, and whom it admits.
#[derive(Debug)]
pub struct Identity {
    key: SigningKey,
    chain: Arc<Chain>,
    admission: Arc<Admission>,
}

/// Why an identity cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} does not hold {what}: restore it or enrol the node again")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
    },
    /// The key file can be read by others than its owner.
    #[error("{path} may be read by others (mode {mode:o}): set it to 0600")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The certificate is made out for another key.
    #[error("the certificate in {path} is for node {found}, the key is node {key}: enrol again")]
    WrongKey {
        /// The certificates' file.
        path: PathBuf,
        /// The certificate's node.
        found: String,
        /// The key's node.
        key: NodeId,
    },
}

impl Identity {
    /// An identity from its parts. The chain is not judged here: peers do that.
    pub fn new(
        key: SigningKey,
        chain: Vec<CertificateDer<'static>>,
        admission: Arc<Admission>,
    ) -> Identity {
        Identity {
            key,
            chain: Arc::new(Chain::from_pointee(chain)),
            admission,
        }
    }

    /// The identity that was saved in `dir`.
    pub fn load(dir: &Path, admission: Arc<Admission>) -> Result<Identity, IdentityError> {
        let key = load_key(&dir.join(KEY_FILE))?;
        let chain = key::load_chain(&dir.join(CERTIFICATES_FILE), &key)?;
        Ok(Identity::new(key, chain, admission))
    }

    /// Writes key and certificates to `dir`: atomically, durable on return.
    pub fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        save_key(&dir.join(KEY_FILE), &self.key)?;
        key::save_chain(&dir.join(CERTIFICATES_FILE), &self.chain())
    }

    /// Who this is.
    pub fn node(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }

    /// The key.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> Arc<Vec<CertificateDer<'static>>> {
        self.chain.load_full()
    }

    /// The certificates as they are from now on, for those who show them again and again.
    pub fn live_chain(&self) -> Arc<Chain> {
        self.chain.clone()
    }

    /// Takes certificates of a later issue: written to `dir` first, then shown to whoever is met next.
    ///
    /// # Errors
    /// When they are for another key, or cannot be written.
    pub fn renew(
        &self,
        dir: &Path,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<(), IdentityError> {
        let path = dir.join(CERTIFICATES_FILE);
        let found = chain.first().and_then(node_of_certificate);
        if found != Some(self.node()) {
            return Err(IdentityError::WrongKey {
                path,
                found: found.map_or_else(|| "nobody".into(), |node| node.to_string()),
                key: self.node(),
            });
        }
        key::save_chain(&path, &chain)?;
        self.chain.store(Arc::new(chain));
        Ok(())
    }

    /// Whom this node admits; shared by both planes and changed at run time.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// The key as libp2p has it.
    pub fn libp2p_keypair(&self) -> libp2p::identity::Keypair {
        libp2p::identity::Keypair::ed25519_from_bytes(self.key.to_bytes())
            .expect("32 bytes are an ed25519 seed")
    }

    /// TLS 1.3 that asks the client for a certificate and admits it, without tickets.
    pub fn tls_server(&self, alpn: &[u8]) -> Arc<rustls::ServerConfig> {
        tls::server(self, alpn)
    }

    /// TLS 1.3 that shows our certificate and takes no one but `expected`, without resumption.
    /// A refused client sees its own handshake succeed: a connection counts after the first reply.
    pub fn tls_client(&self, expected: NodeId, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
        tls::client(self, expected, alpn)
    }
}
