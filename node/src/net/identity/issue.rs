//! What the fleet's CA signs: node certificates, the API's server certificate, revocation lists.
//! Only the coordinator calls this; it stands here because the two sides of a format belong together.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ed25519_dalek::pkcs8::EncodePrivateKey;
use ed25519_dalek::{Signer, SigningKey};
use protocol::limits::REVOKED_MAX;
use protocol::{NodeId, Time};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension,
    DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, RemoteKeyPair, RevokedCertParams, SanType,
    SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use webpki::EndEntityCert;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::key::ed25519_subject;

/// An issuing CA: certificate and key. Both are ed25519, like everything here; an enterprise's own
/// CA may have signed the certificate with whatever it likes.
pub struct IssuingCa {
    certificate: CertificateDer<'static>,
    /// What stands above it up to an enterprise's root, which comes last.
    above: Vec<CertificateDer<'static>>,
    issuer: rcgen::Certificate,
    key: KeyPair,
}

/// Why something cannot be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The CA's certificate is not one that we can issue from.
    #[error("the CA certificate cannot be used: {0}")]
    Certificate(String),
    /// What was asked for makes no sense.
    #[error("cannot issue: {0}")]
    Request(String),
}

/// How long what is issued holds, Unix time in whole seconds (fractions are cut off).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// First moment.
    pub not_before: Time,
    /// Last moment; at most the end of the year 9999, which X.509 calls "never".
    pub not_after: Time,
}

/// 9999-12-31T23:59:59Z.
const NEVER: Time = Time::from_secs(253_402_300_799);

impl IssuingCa {
    /// Makes a self-signed issuing CA for a fleet.
    pub fn create(
        fleet: &str,
        key: &SigningKey,
        validity: Validity,
    ) -> Result<IssuingCa, IssueError> {
        let key = key_pair(key);
        let mut params = ca_params(&ca_name(fleet));
        set_validity(&mut params, validity)?;
        let issuer = params.self_signed(&key).map_err(request)?;
        Ok(IssuingCa {
            certificate: issuer.der().clone(),
            above: Vec::new(),
            issuer,
            key,
        })
    }

    /// The CA of a certificate that was saved (or signed by the enterprise's own CA) and its key.
    pub fn open(
        certificate: CertificateDer<'static>,
        key: &SigningKey,
    ) -> Result<IssuingCa, IssueError> {
        let refuse = |why: &str| IssueError::Certificate(why.to_owned());
        let (_, parsed) = X509Certificate::from_der(&certificate)
            .map_err(|_| refuse("it is not a certificate"))?;
        if !parsed.is_ca() {
            return Err(refuse("it is not a CA's"));
        }
        let held = EndEntityCert::try_from(&certificate)
            .map_err(|error| IssueError::Certificate(error.to_string()))?;
        if ed25519_subject(&held) != Some(key.verifying_key().to_bytes()) {
            return Err(refuse("it is for another key"));
        }
        let key = key_pair(key);
        let mut params = ca_params("");
        params.distinguished_name = name_of(&parsed)?;
        // Whoever verifies a chain by these finds ours where the CA's certificate has its own.
        let own_id = parsed
            .iter_extensions()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        if let Some(id) = own_id {
            params.key_identifier_method = KeyIdMethod::PreSpecified(id);
        }
        let issuer = params.self_signed(&key).map_err(request)?;
        // Issuer names are compared byte by byte, so ours must come out as theirs.
        let ours = EndEntityCert::try_from(issuer.der())
            .map_err(|error| IssueError::Certificate(error.to_string()))?;
        if ours.subject() != held.subject() {
            return Err(refuse(
                "its subject is written in a way that we cannot write",
            ));
        }
        Ok(IssuingCa {
            certificate,
            above: Vec::new(),
            issuer,
            key,
        })
    }

    /// The CA's certificate, as it stands in the root.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The same CA with what stands above it, an enterprise's root last.
    pub fn below(mut self, above: Vec<CertificateDer<'static>>) -> IssuingCa {
        self.above = above;
        self
    }

    /// When its certificate ends.
    pub fn ends(&self) -> Option<Time> {
        last_moment(&self.certificate)
    }

    /// When the first certificate of those above it ends; none if there is nothing above it.
    pub fn above_ends(&self) -> Option<Time> {
        self.above.iter().filter_map(last_moment).min()
    }

    /// Whether an enterprise's CA signed it.
    pub fn is_signed_by_another(&self) -> bool {
        is_signed_by_another(&self.certificate)
    }

    /// What is shown beside a certificate that it issued: its own, and those between it and the
    /// enterprise's root.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        let between = self
            .above
            .split_last()
            .map_or(&[][..], |(_, between)| between);
        let own = std::iter::once(&self.certificate);
        own.chain(between).cloned().collect()
    }

    /// What an enterprise's CA is asked to sign (PKCS #10, PEM): a CA that issues to nodes alone.
    ///
    /// # Errors
    /// When the name cannot be written.
    pub fn request(fleet: &str, key: &SigningKey) -> Result<String, IssueError> {
        let mut params = ca_params(&ca_name(fleet));
        params.is_ca = IsCa::NoCa;
        // basicConstraints: a CA, with no other below it.
        let content = vec![0x30, 0x06, 0x01, 0x01, 0xff, 0x02, 0x01, 0x00];
        let mut constraints = CustomExtension::from_oid_content(&[2, 5, 29, 19], content);
        constraints.set_criticality(true);
        params.custom_extensions = vec![constraints];
        let signed = params.serialize_request(&key_pair(key)).map_err(request)?;
        signed.pem().map_err(request)
    }

    /// A node's certificate: its name is its id in base32. No serial (from 1) is used twice: the
    /// coordinator counts them in its ledger.
    pub fn node(
        &self,
        node: NodeId,
        serial: u64,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, IssueError> {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let text = node.to_string();
        let params = leaf_params(&text, serial, validity, vec![ClientAuth, ServerAuth])?;
        self.leaf(params, vec![dns(&text)?], &Subject(node.0))
    }

    /// A server's certificate for the HTTPS API, for DNS names and addresses. It admits nobody as a
    /// node.
    pub fn server(
        &self,
        key: &SigningKey,
        names: &[String],
        addresses: &[IpAddr],
        serial: u64,
        validity: Validity,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let mut subjects = names
            .iter()
            .map(|name| dns(name))
            .collect::<Result<Vec<_>, _>>()?;
        subjects.extend(addresses.iter().copied().map(SanType::IpAddress));
        let usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let params = leaf_params("Tidegate coordinator", serial, validity, usages)?;
        self.leaf(params, subjects, &Subject(key.verifying_key().to_bytes()))
    }

    /// A revocation list (DER) of all serials revoked so far. `number` rises with every list.
    pub fn revoke(
        &self,
        serials: &[u64],
        number: u64,
        validity: Validity,
    ) -> Result<Vec<u8>, IssueError> {
        if serials.len() > REVOKED_MAX {
            let why = format!("{} revoked serials are over {REVOKED_MAX}", serials.len());
            return Err(IssueError::Request(why));
        }
        let (from, to) = seconds(validity)?;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: serial_number(*serial),
            revocation_time: epoch + from,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: epoch + from,
            next_update: epoch + to,
            crl_number: serial_number(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: self.issuer.params().key_identifier_method.clone(),
        };
        let list = params.signed_by(&self.issuer, &self.key).map_err(request)?;
        Ok(list.der().to_vec())
    }

    /// A certificate whose name is not its key's: what only a faulty CA issues.
    #[cfg(test)]
    pub(super) fn crossed(
        &self,
        name: NodeId,
        key: NodeId,
        serial: u64,
        validity: Validity,
    ) -> CertificateDer<'static> {
        let text = name.to_string();
        let usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let params = leaf_params(&text, serial, validity, usages).unwrap();
        self.leaf(params, vec![dns(&text).unwrap()], &Subject(key.0))
            .unwrap()
    }

    fn leaf(
        &self,
        mut params: CertificateParams,
        subjects: Vec<SanType>,
        key: &Subject,
    ) -> Result<CertificateDer<'static>, IssueError> {
        params.subject_alt_names = subjects;
        let leaf = params
            .signed_by(key, &self.issuer, &self.key)
            .map_err(request)?;
        Ok(leaf.der().clone())
    }
}

impl fmt::Debug for IssuingCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuingCa").finish_non_exhaustive()
    }
}

/// A private key as TLS wants it (PKCS#8).
pub fn private_key_der(key: &SigningKey) -> PrivateKeyDer<'static> {
    let der = key.to_pkcs8_der().expect("an ed25519 key is plain data");
    PrivatePkcs8KeyDer::from(der.as_bytes().to_vec()).into()
}

fn ca_name(fleet: &str) -> String {
    format!("Tidegate issuing CA {fleet}")
}

/// A certificate's subject, as rcgen has it: issuer names are compared byte by byte.
fn name_of(certificate: &X509Certificate<'_>) -> Result<DistinguishedName, IssueError> {
    let refuse = |why: &str| IssueError::Certificate(format!("its subject {why}"));
    let mut name = DistinguishedName::new();
    for attribute in certificate.subject().iter_attributes() {
        let oid = attribute.attr_type().iter();
        let oid: Vec<u64> = oid.map(Iterator::collect).unwrap_or_default();
        // X.660 has three roots, and the writer of certificates panics at a fourth.
        if !matches!(oid[..], [0..=2, 0..=39, ..]) {
            return Err(refuse("has a part of a kind that we do not write"));
        }
        let text = attribute.as_str().map_err(|_| refuse("is no text"))?;
        let value = match attribute.attr_value().tag() {
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            Tag::PrintableString => DnValue::PrintableString(text.try_into().map_err(request)?),
            Tag::Ia5String => DnValue::Ia5String(text.try_into().map_err(request)?),
            _ => return Err(refuse("is in an alphabet that we do not write")),
        };
        let kind = DnType::CustomDnType(oid);
        if name.get(&kind).is_some() {
            return Err(refuse("has a part twice"));
        }
        name.push(kind, value);
    }
    Ok(name)
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(
    name: &str,
    serial: u64,
    validity: Validity,
    usages: Vec<ExtendedKeyUsagePurpose>,
) -> Result<CertificateParams, IssueError> {
    if serial == 0 {
        return Err(IssueError::Request("serials start at 1".to_owned()));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(name);
    params.serial_number = Some(serial_number(serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages;
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, validity)?;
    Ok(params)
}

/// When a certificate ends; none if it is no certificate.
pub fn last_moment(certificate: &CertificateDer<'static>) -> Option<Time> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let end = parsed.validity().not_after.timestamp();
    Some(Time::from_secs(u64::try_from(end).ok()?))
}

/// Whether a certificate names somebody else as its issuer.
pub fn is_signed_by_another(certificate: &CertificateDer<'_>) -> bool {
    let parsed = X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, parsed)| parsed.issuer() != parsed.subject())
}

fn set_validity(params: &mut CertificateParams, validity: Validity) -> Result<(), IssueError> {
    let (from, to) = seconds(validity)?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + from;
    params.not_after = epoch + to;
    Ok(())
}

fn seconds(validity: Validity) -> Result<(Duration, Duration), IssueError> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    if not_before >= not_after || not_after > NEVER {
        let why = "it must end after it starts, and before the year 10000";
        return Err(IssueError::Request(why.to_owned()));
    }
    let whole = |time: Time| Duration::from_secs(time.as_millis() / 1000);
    Ok((whole(not_before), whole(not_after)))
}

fn common_name(name: &str) -> DistinguishedName {
    let mut out = DistinguishedName::new();
    out.push(DnType::CommonName, name);
    out
}

fn dns(name: &str) -> Result<SanType, IssueError> {
    let refuse = || IssueError::Request(format!("{name:?} is not a DNS name"));
    Ok(SanType::DnsName(name.try_into().map_err(|_| refuse())?))
}

fn serial_number(n: u64) -> SerialNumber {
    SerialNumber::from(n)
}

fn request(error: rcgen::Error) -> IssueError {
    IssueError::Request(error.to_string())
}

fn key_pair(key: &SigningKey) -> KeyPair {
    let signer = RawSigner {
        public: key.verifying_key().to_bytes(),
        key: key.clone(),
    };
    KeyPair::from_remote(Box::new(signer)).expect("a remote key is taken as it is")
}

/// Signs with dalek, so that rcgen's own key formats stay out of the house.
struct RawSigner {
    key: SigningKey,
    public: [u8; 32],
}

impl RemoteKeyPair for RawSigner {
    fn public_key(&self) -> &[u8] {
        &self.public
    }
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_bytes().to_vec())
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

pub(super) struct Subject([u8; 32]);

#[cfg(test)]
impl Subject {
    pub(super) fn of(key: &SigningKey) -> Subject {
        Subject(key.verifying_key().to_bytes())
    }
}

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &SignatureAlgorithm {
        &PKCS_ED25519
    }
}
