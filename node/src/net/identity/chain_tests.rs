//! An enterprise's PKI made with rcgen, as it should be and as it should not.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256,
};

use super::*;
use crate::net::identity::fixture::{key, node};

const YEAR: Span = Span::from_secs(365 * 86_400);
const NOW: Time = Time::from_secs(1_800_000_000);

/// A CA of the enterprise.
struct Authority {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn at(time: Time) -> std::time::Duration {
    std::time::Duration::from_secs(time.as_millis() / 1000)
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + at(Time(NOW.0 - YEAR.0));
    params.not_after = epoch + at(NOW + Span(5 * YEAR.0));
    params
}

fn ends(params: &mut CertificateParams, end: Time) {
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + at(end);
}

impl Authority {
    fn root(change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = params("Enterprise Root");
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Authority { certificate, key }
    }

    fn below(&self, change: impl FnOnce(&mut CertificateParams)) -> Authority {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = params("Enterprise Issuing");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.certificate, &self.key);
        Authority {
            certificate: certificate.unwrap(),
            key,
        }
    }

    /// Signs the issuing CA of a fleet's key.
    fn signs(&self, key: &SigningKey, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = params("Tidegate issuing CA a");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        change(&mut params);
        let signed = params.signed_by(
            &super::super::issue::Subject::of(key),
            &self.certificate,
            &self.key,
        );
        signed.unwrap().pem()
    }

    fn pem(&self) -> String {
        self.certificate.pem()
    }
}

fn taken(pem: &str) -> Result<IssuingCa, String> {
    accept(pem.as_bytes(), &key(1), NOW, YEAR).map_err(|e| e.to_string())
}

fn refused(pem: &str, why: &str) {
    let line = taken(pem).map(drop).unwrap_err();
    assert!(line.contains(why), "{line:?} is not about {why:?}");
}

#[test]
fn what_an_enterprise_signed_is_taken_with_the_chain_for_others() {
    let root = Authority::root(|_| {});
    let ca = taken(&(root.signs(&key(1), |_| {}) + &root.pem())).unwrap();
    assert_eq!(
        ca.chain(),
        [ca.certificate().clone()],
        "the root is known to who believes it"
    );

    // An enterprise writes the subject as it likes.
    let between = root.below(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)));
    let named = between.signs(&key(1), |p| {
        p.distinguished_name
            .push(DnType::OrganizationName, "Example");
        p.distinguished_name.push(DnType::CountryName, "DE");
        p.key_identifier_method = rcgen::KeyIdMethod::Sha384;
    });
    let ca = taken(&(named + &between.pem() + &root.pem())).unwrap();
    let shown = ca.chain();
    assert_eq!(shown[1..], [between.certificate.der().clone()]);

    // A machine that knows the enterprise's root alone believes a node; and so do nodes, by the fleet's root.
    let validity = Validity {
        not_before: NOW,
        not_after: NOW + YEAR,
    };
    let leaf = ca.node(node(2), 2, validity).unwrap();
    let leaf_parsed = EndEntityCert::try_from(&leaf).unwrap();
    let anchors = [anchor_from_trusted_cert(root.certificate.der()).unwrap()];
    let verified = leaf_parsed.verify_for_usage(
        ALL_VERIFICATION_ALGS,
        &anchors,
        &shown,
        UnixTime::since_unix_epoch(at(NOW)),
        KeyUsage::client_auth(),
        None,
        None,
    );
    verified.unwrap();
    let rules = crate::net::identity::Admission::new(vec![shown[0].clone()]).unwrap();
    rules.own_issued(NOW);
    assert_eq!(rules.admit(&[leaf]), Ok(node(2)));
    let list = ca.revoke(&[2], 1, validity).unwrap();
    rules.set_revocations(&list).unwrap();
    assert!(rules.is_revoked(&node(2)));
    // What stands in the certificate as its key's identifier stands in what it issues.
    let (_, own) = X509Certificate::from_der(&shown[0]).unwrap();
    let own = own
        .iter_extensions()
        .find_map(|e| match e.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => {
                Some(id.0.to_vec())
            }
            _ => None,
        });
    let leaf = ca.node(node(2), 3, validity).unwrap();
    assert!(leaf.windows(20).any(|part| Some(part) == own.as_deref()));
}

#[test]
fn what_outsiders_would_not_believe_is_refused() {
    let root = Authority::root(|_| {});
    let fine = root.signs(&key(1), |_| {});
    let with_root = |signed: String| signed + &root.pem();
    refused("", "no certificate");
    refused("-----BEGIN CERTIFICATE-----\nAAAA", "PEM");
    refused(&fine, "missing");
    refused(&(fine.clone() + &fine), "path length");
    refused(&with_root(root.signs(&key(2), |_| {})), "another key");
    refused(
        &with_root(root.signs(&key(1), |p| p.is_ca = IsCa::NoCa)),
        "not a CA",
    );
    let over = |p: &mut CertificateParams| ends(p, Time(NOW.0 - 1_000));
    refused(
        &with_root(root.signs(&key(1), over)),
        "certificate 1 of it has expired",
    );
    let short = |p: &mut CertificateParams| ends(p, Time(NOW.0 + YEAR.0 / 2));
    refused(&with_root(root.signs(&key(1), short)), "ends before");
    let early =
        |p: &mut CertificateParams| p.not_before = p.not_after - std::time::Duration::from_secs(9);
    refused(&with_root(root.signs(&key(1), early)), "not valid yet");
    let no_sign = |p: &mut CertificateParams| p.key_usages = vec![KeyUsagePurpose::CrlSign];
    refused(
        &with_root(root.signs(&key(1), no_sign)),
        "may not sign certificates",
    );
    let no_lists = |p: &mut CertificateParams| p.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    refused(
        &with_root(root.signs(&key(1), no_lists)),
        "revocation lists",
    );
    let elsewhere = |p: &mut CertificateParams| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".into())],
            excluded_subtrees: Vec::new(),
        });
    };
    refused(&with_root(root.signs(&key(1), elsewhere)), "believed");

    // Another root of the same name did not sign it.
    let other = Authority::root(|_| {});
    refused(&(fine.clone() + &other.pem()), "believed");
    // Who allows no CA below has none, wherever it stands.
    let tight = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let narrow = Authority::root(tight);
    refused(
        &(narrow.signs(&key(1), |_| {}) + &narrow.pem()),
        "certificate 2 of it allows no CA",
    );
    let between = root.below(tight);
    refused(
        &(between.signs(&key(1), |_| {}) + &between.pem() + &root.pem()),
        "path length",
    );
    let between = root.below(|p| p.is_ca = IsCa::NoCa);
    refused(
        &(between.signs(&key(1), |_| {}) + &between.pem() + &root.pem()),
        "certificate 2 of it is not a CA",
    );
    let old = root.below(over);
    refused(
        &(old.signs(&key(1), |_| {}) + &old.pem() + &root.pem()),
        "certificate 2 of it has expired",
    );
    let many = fine.clone() + &root.pem().repeat(CA_CHAIN_MAX);
    refused(&many, "more than");
    refused(&"x".repeat(1 << 20), "too long");
}

/// Damaged bytes are refused or mean the same chain; nothing panics.
#[test]
fn damaged_chains_are_refused() {
    let root = Authority::root(|_| {});
    let pem = root.signs(&key(1), |_| {}) + &root.pem();
    let honest = taken(&pem).unwrap();
    let mut seed = 7_u64;
    for _ in 0..2_000 {
        let mut bytes = pem.clone().into_bytes();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let place = (seed >> 20) as usize % bytes.len();
        bytes[place] ^= 1 << (seed % 7);
        if let Ok(ca) = accept(&bytes, &key(1), NOW, YEAR) {
            assert_eq!(ca.chain(), honest.chain());
        }
    }
}

/// The kind of a name's part was changed to one that no name has, and the writer of certificates panicked: so
/// each bit of the issuing CA's certificate is turned once.
#[test]
fn no_bit_of_a_certificate_makes_it_panic() {
    let root = Authority::root(|_| {});
    let ours = parse(root.signs(&key(1), |_| {}).as_bytes()).unwrap();
    let above = parse(root.pem().as_bytes()).unwrap();
    let honest = ours[0].to_vec();
    assert!(IssuingCa::open(ours[0].clone(), &key(1)).is_ok());
    let mut unwritable = 0;
    for bit in 0..honest.len() * 8 {
        let mut der = honest.clone();
        der[bit / 8] ^= 1 << (bit % 8);
        // Who opens it alone does not ask who signed it; the whole chain does.
        let alone = IssuingCa::open(der.clone().into(), &key(1)).err();
        let why = alone.map(|error| error.to_string()).unwrap_or_default();
        unwritable += u32::from(why.contains("a kind that we do not write"));
        let pem = super::super::key::pem(&[der.into(), above[0].clone()]);
        assert!(accept(pem.as_bytes(), &key(1), NOW, YEAR).is_err(), "{bit}");
    }
    assert!(unwritable > 0);
}

#[test]
fn an_enterprise_can_read_what_it_is_asked_for() {
    use x509_parser::certification_request::X509CertificationRequest;
    let pem = IssuingCa::request("a", &key(1)).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
    let (_, asked) = X509CertificationRequest::from_der(&pem.contents).unwrap();
    let info = &asked.certification_request_info;
    assert_eq!(info.subject.to_string(), "CN=Tidegate issuing CA a");
    assert_eq!(
        info.subject_pki.subject_public_key.data[..],
        key(1).verifying_key().to_bytes()
    );
    let wants: Vec<_> = asked.requested_extensions().into_iter().flatten().collect();
    let ca = wants.iter().any(|e| matches!(e, x509_parser::extensions::ParsedExtension::BasicConstraints(c) if c.ca && c.path_len_constraint == Some(0)));
    assert!(ca, "{wants:?}");
}
