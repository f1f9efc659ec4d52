//! Who is admitted: one verdict for both planes.
//!
//! A peer is admitted by its leaf certificate alone: an issuing CA of the root signed it, it is valid
//! by the clock, it may be used by clients, its serial stands in no list of these CAs, and its
//! one name is the base32 of its key. What else a peer sends in its chain decides nothing, so a new
//! CA certificate over the same key costs no node its place.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use node_core::renewal::Issuer;
use protocol::limits::{ADMITTED_MAX, CONTROL_MAX_BYTES, CREDENTIALS_MAX_BYTES, ISSUING_CAS_MAX};
use protocol::{NodeId, PublicKey, Time};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tokio::sync::watch;
use webpki::{CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList};
use x509_parser::certificate::X509Certificate;
use x509_parser::num_bigint::BigUint;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::key::ed25519_subject;

/// The rules by which peers are admitted. Shared, and changed while connections live.
#[derive(Debug)]
pub struct Admission {
    issuers: ArcSwap<Vec<Issuing>>,
    /// Lists of CAs that were taken away: they refuse nobody, and what stood on them is no news.
    former: Mutex<Vec<Arc<List>>>,
    floor: AtomicU64,
    /// When our own certificate was issued: a system clock before this one is wrong.
    own_issued: AtomicU64,
    seen: Mutex<Seen>,
    changing: Mutex<()>,
    changed: watch::Sender<u64>,
    strangers: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Issuing {
    anchor: TrustAnchor<'static>,
    key: PublicKey,
    revocations: Option<Arc<List>>,
}

#[derive(Debug)]
struct List {
    /// Big-endian, without leading zeros.
    number: Vec<u8>,
    list: CertRevocationList<'static>,
}

/// The leaf that each admitted node showed last; the node unseen for longest falls out.
#[derive(Debug, Default)]
struct Seen {
    leaves: HashMap<NodeId, (CertificateDer<'static>, u64)>,
    order: BTreeMap<u64, NodeId>,
    turn: u64,
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
    /// It is past its end, by the clock.
    #[error("the certificate has expired: renew it with the coordinator")]
    Expired,
    /// It is not valid yet, by the clock.
    #[error("the certificate is not valid yet: check this machine's clock")]
    NotYetValid,
    /// Its serial stands in the revocation list.
    #[error("the certificate was revoked")]
    Revoked,
    /// It is not made out for a node.
    #[error("the certificate is not a node's: {0}")]
    WrongUse(String),
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

/// Why the rules cannot be changed as asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RulesError {
    /// Not a CA certificate, or not one with an ed25519 key.
    #[error("issuing CA {index} of the root cannot be used: {reason}")]
    Issuer {
        /// Its place in the list, from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// The list cannot be read.
    #[error("the revocation list is malformed: {0}")]
    Malformed(String),
    /// None of the issuing CAs signed the list.
    #[error("the revocation list was signed by no issuing CA of this fleet's root")]
    UnknownSigner,
    /// A newer list is held.
    #[error("the revocation list is older than the one in force")]
    Older,
}

/// What came of a revocation list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revocations {
    /// It is in force now.
    Taken,
    /// It was in force already.
    Held,
}

impl Admission {
    /// Admits whom one of these CAs (DER, from the root) certified. An empty list admits nobody.
    pub fn new(issuing_cas: Vec<CertificateDer<'static>>) -> Result<Admission, RulesError> {
        let issuers = issuers(&issuing_cas)?;
        Ok(Admission {
            issuers: ArcSwap::from_pointee(issuers),
            former: Mutex::default(),
            floor: AtomicU64::new(0),
            own_issued: AtomicU64::new(0),
            seen: Mutex::default(),
            changing: Mutex::default(),
            changed: watch::Sender::new(0),
            strangers: watch::Sender::new(0),
        })
    }

    /// The verdict about a chain, leaf first.
    pub fn admit(&self, chain: &[CertificateDer<'_>]) -> Result<NodeId, AdmissionError> {
        let leaf = chain.first().ok_or(AdmissionError::Missing)?;
        let node = self.meet(leaf)?;
        self.remember(node, leaf);
        Ok(node)
    }

    /// The verdict about a chain that must be `expected`'s.
    pub fn admit_as(
        &self,
        expected: NodeId,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), AdmissionError> {
        let leaf = chain.first().ok_or(AdmissionError::Missing)?;
        let found = self.meet(leaf)?;
        if found != expected {
            return Err(AdmissionError::WrongNode { expected, found });
        }
        self.remember(found, leaf);
        Ok(())
    }

    /// Replaces the issuing CAs. Revocation lists of CAs whose key stays, stay.
    pub fn set_issuing_cas(&self, cas: Vec<CertificateDer<'static>>) -> Result<(), RulesError> {
        let mut new = issuers(&cas)?;
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.issuers.load();
        for issuer in &mut new {
            issuer.revocations = old
                .iter()
                .find(|held| held.key == issuer.key)
                .and_then(|held| held.revocations.clone());
        }
        let gone = old.iter().filter(|o| !new.iter().any(|n| n.key == o.key));
        let gone: Vec<_> = gone
            .filter_map(|issuer| issuer.revocations.clone())
            .collect();
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.extend(gone);
        let surplus = former.len().saturating_sub(ISSUING_CAS_MAX);
        former.drain(..surplus);
        drop(former);
        self.issuers.store(Arc::new(new));
        self.tick();
        Ok(())
    }

    /// Takes a revocation list (DER) once one of the issuing CAs has signed it; refuses one with a
    /// lower number than the list in force.
    pub fn set_revocations(&self, der: &[u8]) -> Result<Revocations, RulesError> {
        let Signed {
            tbs,
            signature,
            number,
        } = split(der)?;
        let list: CertRevocationList<'static> = OwnedCertRevocationList::from_der(der)
            .map_err(|error| RulesError::Malformed(error.to_string()))?
            .into();
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut issuers = self.issuers.load().as_ref().clone();
        let issuer = issuers
            .iter_mut()
            .find(|issuer| {
                issuer.anchor.subject.as_ref() == list.issuer()
                    && protocol::envelope::verify(issuer.key, tbs, signature)
            })
            .ok_or(RulesError::UnknownSigner)?;
        if let Some(held) = &issuer.revocations {
            match rank(&number).cmp(&rank(&held.number)) {
                std::cmp::Ordering::Less => return Err(RulesError::Older),
                std::cmp::Ordering::Equal => return Ok(Revocations::Held),
                std::cmp::Ordering::Greater => {}
            }
        }
        issuer.revocations = Some(Arc::new(List { number, list }));
        self.issuers.store(Arc::new(issuers));
        self.tick();
        Ok(Revocations::Taken)
    }

    /// The newest signed time seen (Unix time). It stands in for a system clock that is clearly wrong.
    pub fn floor_time(&self, wall: Time) {
        self.floor.fetch_max(wall.as_millis(), Ordering::Relaxed);
    }

    /// Our own certificate was issued then (Unix time): a system clock before it is wrong.
    pub fn own_issued(&self, at: Time) {
        self.own_issued.fetch_max(at.as_millis(), Ordering::Relaxed);
    }

    /// The keys behind the floor lost their role: what they signed floors nothing any more.
    pub fn reset_floor(&self) {
        self.floor.store(0, Ordering::Relaxed);
    }

    /// The time (Unix time) that certificates are judged by: the system's. Only a system clock that
    /// lies before our own certificate gives way to the newest signed time, because whoever holds the
    /// online key could date one order far ahead and end every connection by it.
    pub fn now(&self) -> Time {
        let system = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| {
                u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
            });
        let own_issued = self.own_issued.load(Ordering::Relaxed);
        if system >= own_issued {
            return Time(system);
        }
        Time(own_issued.max(self.floor.load(Ordering::Relaxed)))
    }

    /// Ticks whenever a peer that was admitted might no longer be.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Ticks whenever somebody comes whose certificate no CA of our root issued: a stranger, or a sign of a
    /// root that we have not seen.
    pub fn strangers(&self) -> watch::Receiver<u64> {
        self.strangers.subscribe()
    }

    /// Where the CA that issued a certificate stands.
    pub fn issuer_of(&self, leaf: &CertificateDer<'_>) -> Issuer {
        let issuers = self.issuers.load();
        let issued = |issuer: &Issuing| issuer.issued(leaf);
        match issuers.split_last() {
            Some((in_use, _)) if issued(in_use) => Issuer::InUse,
            Some((_, older)) if older.iter().any(issued) => Issuer::Older,
            _ => Issuer::Gone,
        }
    }

    /// Where the CA of the certificate stands that an admitted node showed last.
    pub fn issuer_of_node(&self, node: &NodeId) -> Option<Issuer> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let leaf = seen.leaves.get(node)?.0.clone();
        drop(seen);
        Some(self.issuer_of(&leaf))
    }

    /// The verdict about a node that was admitted before, by the certificate that it showed last;
    /// `None` if it is not remembered. Used to close live connections after a change.
    pub fn readmit(&self, node: &NodeId) -> Option<Result<(), AdmissionError>> {
        let leaf = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.leaves.get(node)?.0.clone()
        };
        Some(self.judge(&leaf).map(|_| ()))
    }

    /// The serial number of the certificate that an admitted node showed last.
    pub fn serial_of(&self, node: &NodeId) -> Option<u64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let leaf = seen.leaves.get(node)?.0.clone();
        drop(seen);
        let (_, leaf) = X509Certificate::from_der(&leaf).ok()?;
        small(&leaf.serial)
    }

    /// What a revocation list says that one of the issuing CAs signed: its number, and the serials on it.
    /// Puts nothing in force.
    ///
    /// # Errors
    /// When it is no list, or signed by nobody who may.
    pub fn listed(&self, der: &[u8]) -> Result<(u64, Vec<u64>), RulesError> {
        let signed = split(der)?;
        let known = |i: &Issuing| protocol::envelope::verify(i.key, signed.tbs, signed.signature);
        if !self.issuers.load().iter().any(known) {
            return Err(RulesError::UnknownSigner);
        }
        let malformed = || RulesError::Malformed("a number is too long".to_owned());
        let (_, list) = CertificateRevocationList::from_der(der).map_err(|_| malformed())?;
        let number = list.crl_number().and_then(small).ok_or_else(malformed)?;
        let revoked = list.iter_revoked_certificates();
        let serials = revoked.map(|entry| small(&entry.user_certificate).ok_or_else(malformed));
        Ok((number, serials.collect::<Result<_, _>>()?))
    }

    /// How many of these serial numbers stand on no list that is or was in force.
    pub fn unlisted(&self, serials: &[u64]) -> usize {
        let issuers = self.issuers.load();
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = |serial: &u64| {
            let number = serial.to_be_bytes();
            let number = &number[number.iter().take_while(|byte| **byte == 0).count()..];
            // As DER has it: the first bit is the sign.
            let signed = [&[0][..], number].concat();
            let number = match number.first() {
                Some(0..=0x7f) => number,
                _ => &signed,
            };
            let lists = issuers.iter().filter_map(|i| i.revocations.as_ref());
            lists
                .chain(former.iter())
                .any(|held| matches!(held.list.find_serial(number), Ok(Some(_))))
        };
        serials.iter().filter(|serial| !listed(serial)).count()
    }

    /// Whether a node that was admitted before has been revoked since.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.readmit(node) == Some(Err(AdmissionError::Revoked))
    }

    /// Whose key a certificate proves, with its serial number, though its time may be over: good for
    /// asking for the next one, and for nothing else.
    ///
    /// # Errors
    /// When no issuing CA signed it, or it was revoked.
    pub fn proves(&self, leaf: &CertificateDer<'_>) -> Result<(NodeId, u64), AdmissionError> {
        let malformed = || AdmissionError::Malformed("not a certificate".to_owned());
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| malformed())?;
        let end = parsed.validity().not_after.timestamp();
        let end = Time::from_secs(u64::try_from(end).map_err(|_| malformed())?);
        let node = self.judge_at(leaf, end.min(self.now()))?;
        Ok((node, small(&parsed.serial).ok_or_else(malformed)?))
    }

    /// Whom a certificate names and its serial number, whoever issued it: a claim, to be held against a
    /// record of what was issued.
    ///
    /// # Errors
    /// When it is no node's certificate.
    pub fn claims(leaf: &CertificateDer<'_>) -> Result<(NodeId, u64), AdmissionError> {
        let malformed = || AdmissionError::Malformed("not a node's certificate".to_owned());
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| malformed())?;
        let certificate = EndEntityCert::try_from(leaf).map_err(verdict)?;
        let key = ed25519_subject(&certificate).ok_or_else(malformed)?;
        let serial = small(&parsed.serial).ok_or_else(malformed)?;
        Ok((NodeId(key), serial))
    }

    fn meet(&self, leaf: &CertificateDer<'_>) -> Result<NodeId, AdmissionError> {
        let verdict = self.judge(leaf);
        if verdict == Err(AdmissionError::UnknownIssuer) {
            self.strangers.send_modify(|n| *n += 1);
        }
        verdict
    }

    fn judge(&self, leaf: &CertificateDer<'_>) -> Result<NodeId, AdmissionError> {
        self.judge_at(leaf, self.now())
    }

    fn judge_at(&self, leaf: &CertificateDer<'_>, at: Time) -> Result<NodeId, AdmissionError> {
        if leaf.len() > CREDENTIALS_MAX_BYTES {
            return Err(AdmissionError::Malformed("too long".to_owned()));
        }
        let certificate = EndEntityCert::try_from(leaf).map_err(verdict)?;
        let issuers = self.issuers.load();
        let now = UnixTime::since_unix_epoch(Duration::from_millis(at.as_millis()));
        let mut refusal = AdmissionError::NoIssuers;
        let mut signed = false;
        for issuer in issuers.iter() {
            match certificate.verify_for_usage(
                &[webpki::aws_lc_rs::ED25519],
                std::slice::from_ref(&issuer.anchor),
                &[],
                now,
                KeyUsage::client_auth(),
                None,
                None,
            ) {
                Ok(_) => {
                    signed = true;
                    break;
                }
                Err(error) => {
                    let error = verdict(error);
                    if matches!(
                        refusal,
                        AdmissionError::NoIssuers | AdmissionError::UnknownIssuer
                    ) {
                        refusal = error;
                    }
                }
            }
        }
        if !signed {
            return Err(refusal);
        }
        // No serial is given out twice, so each list is about the certificates of all.
        for held in issuers.iter().filter_map(|i| i.revocations.as_ref()) {
            match held.list.find_serial(certificate.serial()) {
                Ok(None) => {}
                Ok(Some(_)) => return Err(AdmissionError::Revoked),
                Err(error) => return Err(AdmissionError::Malformed(error.to_string())),
            }
        }
        let key = ed25519_subject(&certificate)
            .ok_or_else(|| AdmissionError::WrongUse("its key is not ed25519".to_owned()))?;
        let node = NodeId(key);
        let mut names = certificate.valid_dns_names();
        match (names.next(), names.next()) {
            (Some(name), None) if name == node.to_string() => Ok(node),
            _ => Err(AdmissionError::WrongName),
        }
    }

    fn remember(&self, node: NodeId, leaf: &CertificateDer<'_>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.put(node, leaf);
    }

    fn tick(&self) {
        self.changed.send_modify(|n| *n += 1);
    }
}

impl Issuing {
    fn issued(&self, leaf: &CertificateDer<'_>) -> bool {
        X509Certificate::from_der(leaf).is_ok_and(|(_, parsed)| {
            let tbs = parsed.tbs_certificate.as_ref();
            protocol::envelope::verify(self.key, tbs, &parsed.signature_value.data)
        })
    }
}

impl Seen {
    fn put(&mut self, node: NodeId, leaf: &CertificateDer<'_>) {
        self.turn += 1;
        let last = self
            .leaves
            .insert(node, (leaf.clone().into_owned(), self.turn));
        if let Some((_, turn)) = last {
            self.order.remove(&turn);
        }
        self.order.insert(self.turn, node);
        while self.order.len() > ADMITTED_MAX {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.leaves.remove(&oldest);
        }
    }
}

fn issuers(cas: &[CertificateDer<'static>]) -> Result<Vec<Issuing>, RulesError> {
    let one = |(index, der): (usize, &CertificateDer<'static>)| {
        let refuse = |reason: String| RulesError::Issuer { index, reason };
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|e| refuse(e.to_string()))?;
        let key = EndEntityCert::try_from(der)
            .ok()
            .and_then(|certificate| ed25519_subject(&certificate))
            .ok_or_else(|| refuse("its key is not ed25519".to_owned()))?;
        Ok(Issuing {
            anchor: anchor.to_owned(),
            key: PublicKey(key),
            revocations: None,
        })
    };
    cas.iter().enumerate().map(one).collect()
}

/// A list taken apart.
struct Signed<'a> {
    tbs: &'a [u8],
    signature: &'a [u8],
    number: Vec<u8>,
}

fn split(der: &[u8]) -> Result<Signed<'_>, RulesError> {
    if der.len() > CONTROL_MAX_BYTES {
        return Err(RulesError::Malformed(format!(
            "{} bytes are too long",
            der.len()
        )));
    }
    let malformed = |what: &str| RulesError::Malformed(what.to_owned());
    let (rest, list) =
        CertificateRevocationList::from_der(der).map_err(|_| malformed("not a DER list"))?;
    if !rest.is_empty() {
        return Err(malformed("bytes follow the list"));
    }
    let number = list
        .crl_number()
        .ok_or_else(|| malformed("it has no number"))?
        .to_bytes_be();
    if number.len() > 20 {
        return Err(malformed("its number is too long"));
    }
    // The value borrows from the input, not from the parsed list.
    let tbs =
        subslice(der, list.tbs_cert_list.as_ref()).ok_or_else(|| malformed("not one piece"))?;
    let signature =
        subslice(der, &list.signature_value.data).ok_or_else(|| malformed("not one piece"))?;
    Ok(Signed {
        tbs,
        signature,
        number,
    })
}

fn subslice<'a>(whole: &'a [u8], part: &[u8]) -> Option<&'a [u8]> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    whole.get(start..start.checked_add(part.len())?)
}

fn small(number: &BigUint) -> Option<u64> {
    u64::try_from(number).ok()
}

/// Numbers without leading zeros compare by length first.
fn rank(number: &[u8]) -> (usize, &[u8]) {
    (number.len(), number)
}

fn verdict(error: webpki::Error) -> AdmissionError {
    match error {
        webpki::Error::CertExpired { .. } => AdmissionError::Expired,
        webpki::Error::CertNotValidYet { .. } => AdmissionError::NotYetValid,
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
            AdmissionError::UnknownIssuer
        }
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::CaUsedAsEndEntity => {
            AdmissionError::WrongUse(error.to_string())
        }
        other => AdmissionError::Malformed(other.to_string()),
    }
}
