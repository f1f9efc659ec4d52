//! TLS 1.3 with admission on both sides.
//!
//! The provider is always passed explicitly: with ring compiled in beside aws-lc-rs, rustls' own
//! defaults panic. AES-128 comes first (1.4 times ChaCha20 here). Nothing is ever resumed, because a
//! resumed session shows no certificate and so would outlive a revocation.

use std::sync::{Arc, OnceLock};

use protocol::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::admission::{Admission, AdmissionError};
use super::{Chain, Identity, issue};

/// aws-lc-rs with the TLS 1.3 suites in our order of preference.
pub fn crypto_provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        use aws_lc_rs::cipher_suite::{
            TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
        };
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites = vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(provider)
    };
    PROVIDER.get_or_init(make).clone()
}

pub(super) fn server(identity: &Identity, alpn: &[u8]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(Arc::new(Door::new(identity, None)))
        .with_cert_resolver(Arc::new(Credentials::of(identity)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}

pub(super) fn client(identity: &Identity, expected: NodeId, alpn: &[u8]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Door::new(identity, Some(expected))))
        .with_client_cert_resolver(Arc::new(Credentials::of(identity)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Arc::new(config)
}

/// Shows the certificates that are in force when a handshake asks for them.
#[derive(Debug)]
struct Credentials {
    chain: Arc<Chain>,
    key: Arc<dyn SigningKey>,
}

impl Credentials {
    fn of(identity: &Identity) -> Credentials {
        let key = crypto_provider()
            .key_provider
            .load_private_key(issue::private_key_der(identity.key()))
            .expect("an ed25519 key in PKCS#8 is known to every provider");
        Credentials {
            chain: identity.live_chain(),
            key,
        }
    }

    fn now(&self) -> Arc<CertifiedKey> {
        let chain = self.chain.load().to_vec();
        Arc::new(CertifiedKey::new(chain, self.key.clone()))
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

impl ResolvesClientCert for Credentials {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Asks [`Admission`] about whoever comes, and the provider about the handshake's signature.
#[derive(Debug)]
struct Door {
    admission: Arc<Admission>,
    expected: Option<NodeId>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Door {
    fn new(identity: &Identity, expected: Option<NodeId>) -> Door {
        Door {
            admission: identity.admission().clone(),
            expected,
            algorithms: crypto_provider().signature_verification_algorithms,
        }
    }

    fn admit(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let chain = std::slice::from_ref(leaf);
        match self.expected {
            Some(expected) => self.admission.admit_as(expected, chain),
            None => self.admission.admit(chain).map(|_| ()),
        }
        .map_err(|refusal| Error::InvalidCertificate(alert(refusal)))
    }

    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

/// The refusals that TLS has alerts for keep them; the others travel inside.
fn alert(refusal: AdmissionError) -> CertificateError {
    match refusal {
        AdmissionError::Revoked => CertificateError::Revoked,
        AdmissionError::Expired => CertificateError::Expired,
        AdmissionError::NotYetValid => CertificateError::NotValidYet,
        AdmissionError::UnknownIssuer => CertificateError::UnknownIssuer,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    }
}

impl ServerCertVerifier for Door {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.admit(leaf).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Door {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.admit(leaf).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
