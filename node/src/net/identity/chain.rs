//! An enterprise's own CA signs the fleet's issuing CA: what it is asked for, and what it gives back.
//!
//! Inside the fleet the root's list of issuing CAs decides, and nothing above them counts. The chain is for
//! machines outside, which know the enterprise's root alone; so it is taken only if such a machine would
//! believe a node's certificate by it. The one that is tried here is never handed out.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use protocol::limits::{CA_CHAIN_MAX, CA_CHAIN_MAX_BYTES};
use protocol::{NodeId, Span, Time};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::issue::{IssueError, IssuingCa, Validity};

/// Takes what the enterprise gave back for `key` (PEM, the issuing CA's certificate first and the enterprise's
/// root last). It must hold for `life` longer, as long as what is issued under it.
///
/// # Errors
/// What is wrong with it.
pub fn accept(
    pem: &[u8],
    key: &SigningKey,
    now: Time,
    life: Span,
) -> Result<IssuingCa, IssueError> {
    let chain = parse(pem)?;
    let [own, above @ ..] = &chain[..] else {
        return Err(refuse("it holds no certificate"));
    };
    let [between @ .., top] = above else {
        return Err(refuse(
            "the certificates above it are missing, up to the enterprise's root",
        ));
    };
    for (place, der) in chain.iter().enumerate() {
        authority(place, der, now, now + life)?;
    }
    let ca = IssuingCa::open(own.clone(), key)?.below(above.to_vec());
    let validity = Validity {
        not_before: now,
        not_after: now + life,
    };
    let node = NodeId(key.verifying_key().to_bytes());
    let tried = ca.node(node, 1, validity)?;
    let leaf = EndEntityCert::try_from(&tried).map_err(|e| refuse(&e.to_string()))?;
    let anchor = anchor_from_trusted_cert(top).map_err(|e| refuse(&e.to_string()))?;
    let intermediates: Vec<_> = [own].into_iter().chain(between).cloned().collect();
    let at = UnixTime::since_unix_epoch(Duration::from_millis(now.as_millis()));
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        let anchors = std::slice::from_ref(&anchor);
        let verified = leaf.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            anchors,
            &intermediates,
            at,
            usage,
            None,
            None,
        );
        verified.map_err(|e| {
            refuse(&format!(
                "a node's certificate would not be believed by it ({e})"
            ))
        })?;
    }
    Ok(ca)
}

/// A chain that was taken before: the issuing CA's certificate and those above it.
///
/// # Errors
/// When it is no list of certificates within the limits.
pub fn parse(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, IssueError> {
    if pem.len() > 2 * CA_CHAIN_MAX_BYTES {
        return Err(refuse(&format!("its {} bytes are too long", pem.len())));
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .take(CA_CHAIN_MAX + 1)
        .collect();
    let chain = chain.map_err(|_| refuse("it is no PEM of certificates"))?;
    let bytes: usize = chain.iter().map(|der| der.len()).sum();
    if chain.len() > CA_CHAIN_MAX || bytes > CA_CHAIN_MAX_BYTES {
        return Err(refuse(&format!(
            "it has more than {CA_CHAIN_MAX} certificates or {CA_CHAIN_MAX_BYTES} bytes"
        )));
    }
    Ok(chain)
}

/// Whether a certificate may stand at a place of the chain; so many authorities stand below it.
fn authority(place: usize, der: &[u8], now: Time, until: Time) -> Result<(), IssueError> {
    let wrong = |why: &str| refuse(&format!("certificate {} of it {why}", place + 1));
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| wrong("cannot be read"))?;
    let constraints = parsed.basic_constraints().ok().flatten();
    let constraints = constraints.filter(|found| found.value.ca);
    let constraints = constraints.ok_or_else(|| wrong("is not a CA's"))?;
    let longest = constraints.value.path_len_constraint;
    if longest.is_some_and(|longest| (longest as usize) < place) {
        return Err(wrong("allows no CA below it (path length)"));
    }
    let usage = parsed.key_usage().ok().flatten().map(|usage| usage.value);
    if usage.is_some_and(|usage| !usage.key_cert_sign()) {
        return Err(wrong("may not sign certificates"));
    }
    if place == 0 && usage.is_some_and(|usage| !usage.crl_sign()) {
        return Err(wrong("may not sign revocation lists"));
    }
    let seconds = |time: Time| i64::try_from(time.as_millis() / 1000).unwrap_or(i64::MAX);
    let validity = parsed.validity();
    if validity.not_before.timestamp() > seconds(now) {
        return Err(wrong("is not valid yet"));
    }
    if validity.not_after.timestamp() < seconds(now) {
        return Err(wrong("has expired"));
    }
    if validity.not_after.timestamp() < seconds(until) {
        return Err(wrong("ends before what is issued under it would"));
    }
    Ok(())
}

fn refuse(why: &str) -> IssueError {
    IssueError::Certificate(why.to_owned())
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
