//! A fleet for tests: an issuing CA and identities out of small numbers.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use protocol::{NodeId, Time};
use rustls::pki_types::CertificateDer;

use super::issue::{IssuingCa, Validity};
use super::{Admission, Identity};

/// From 2020 to 2100.
pub const LONG: Validity = Validity {
    not_before: Time::from_secs(1_577_836_800),
    not_after: Time::from_secs(4_102_444_800),
};
/// Over since 2021.
pub const OVER: Validity = Validity {
    not_before: Time::from_secs(1_577_836_800),
    not_after: Time::from_secs(1_609_459_200),
};

/// A fleet's CA.
pub struct TestFleet {
    /// The CA.
    pub ca: IssuingCa,
}

impl TestFleet {
    /// A fleet; another name is another fleet.
    pub fn new(name: &str) -> TestFleet {
        let key = SigningKey::from_bytes(blake3::hash(name.as_bytes()).as_bytes());
        TestFleet {
            ca: IssuingCa::create(name, &key, LONG).unwrap(),
        }
    }

    /// Admits this fleet's nodes; every call gives rules of their own.
    pub fn admission(&self) -> Arc<Admission> {
        Arc::new(Admission::new(vec![self.ca.certificate().clone()]).unwrap())
    }

    /// The certificate of node `n`, with serial `n + 1`.
    pub fn certificate(&self, n: u8, validity: Validity) -> CertificateDer<'static> {
        self.ca.node(node(n), u64::from(n) + 1, validity).unwrap()
    }

    /// Node `n` with rules of its own.
    pub fn identity(&self, n: u8) -> Arc<Identity> {
        self.identity_with(
            n,
            vec![self.certificate(n, LONG), self.ca.certificate().clone()],
        )
    }

    /// Node `n` with a chain of the test's choice.
    pub fn identity_with(&self, n: u8, chain: Vec<CertificateDer<'static>>) -> Arc<Identity> {
        Arc::new(Identity::new(key(n), chain, self.admission()))
    }

    /// A list that revokes these nodes.
    pub fn revocations(&self, nodes: &[u8], number: u64) -> Vec<u8> {
        let serials: Vec<u64> = nodes.iter().map(|n| u64::from(*n) + 1).collect();
        self.ca.revoke(&serials, number, LONG).unwrap()
    }
}

/// The key of node `n`.
pub fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(blake3::hash(&[n]).as_bytes())
}

/// The id of node `n`.
pub fn node(n: u8) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}
