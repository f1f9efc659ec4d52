//! The issuing CA was stolen: another one takes its place, and the thief finds no way to it.

use std::path::Path;

use data_encoding::HEXLOWER;
use node::net::identity::Issuer;
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Admission, load_key};
use protocol::enroll::RenewRequest;
use protocol::trust::Root;
use rustls::pki_types::CertificateDer;

use super::*;
use crate::cli::args::trust::Root as Command;
use crate::serve::issuing::named;

/// What lay at the coordinator.
struct Thief {
    ca: IssuingCa,
}

fn id(key: &SigningKey) -> NodeId {
    NodeId(keys::public(key).0)
}

impl Thief {
    fn of(town: &Town) -> Thief {
        let dir = town.dir();
        let certificate = std::fs::read(dir.ca_certificate_file()).unwrap();
        let key = load_key(&dir.ca_key_file()).unwrap();
        let ca = IssuingCa::open(certificate.into(), &key).unwrap();
        Thief { ca }
    }

    /// A certificate that he makes himself, hex.
    fn makes(&self, node: NodeId, serial: u64) -> String {
        let validity = Validity {
            not_before: now(),
            not_after: now() + Span::from_secs(1 << 20),
        };
        HEXLOWER.encode(&self.ca.node(node, serial, validity).unwrap())
    }
}

impl Town {
    fn cas(&self) -> Vec<String> {
        self.newest().issuing_cas
    }

    fn newest(&self) -> Root {
        let chain = std::fs::read(self.dir().root_file()).unwrap();
        let chain: Vec<Envelope> = serde_json::from_slice(&chain).unwrap();
        serde_json::from_slice(&chain.last().unwrap().payload).unwrap()
    }

    /// Makes the next CA here; gives its certificate, hex.
    async fn next_ca(&self) -> String {
        let out = self.temp.path().join("ca.der");
        self.make(None, None, Some(&out)).await.unwrap();
        HEXLOWER.encode(&std::fs::read(out).unwrap())
    }

    async fn make(
        &self,
        csr: Option<&Path>,
        signed: Option<&Path>,
        out: Option<&Path>,
    ) -> Result<(), String> {
        let make = Command::IssuingCa(crate::cli::args::trust::IssuingCa {
            dir: self.dir().path().to_owned(),
            out: out.map(Path::to_owned),
            csr: csr.map(Path::to_owned),
            signed: signed.map(Path::to_owned),
        });
        let made = crate::cli::root::run(make).await;
        made.map_err(|e| format!("{e:#}"))
    }

    /// A root that names these CAs.
    async fn name(&self, cas: &[&String]) -> Result<u64, ApiError> {
        let mut root = self.newest();
        root.version += 1;
        root.fleet = Some(self.fleet);
        root.issuing_cas = cas.iter().map(|ca| (*ca).clone()).collect();
        let mut envelope = root.to_envelope();
        envelope.sign(&self.key("root"));
        self.client.publish_root(&envelope).await
    }

    fn asks(&self, key: &SigningKey, certificate: &str) -> RenewRequest {
        let mut request = RenewRequest {
            spec_version: 1,
            fleet: self.fleet,
            node: id(key),
            certificate: certificate.into(),
            proof: String::new(),
        };
        request.prove(key);
        request
    }

    /// The next certificate, hex, or the status of the refusal.
    async fn renews(&self, key: &SigningKey, certificate: &str) -> Result<String, u16> {
        match self.client.renew(&self.asks(key, certificate)).await {
            Ok(reply) => Ok(reply.certificates[0].clone()),
            refused => Err(refusal(refused).0),
        }
    }

    async fn learns(&self, key: &SigningKey) -> Result<usize, u16> {
        match self.client.roots_for(&self.asks(key, "")).await {
            Ok(reply) => Ok(reply.roots.len()),
            refused => Err(refusal(refused).0),
        }
    }
}

fn issuer(cas: &[String], certificate: &str) -> Issuer {
    let der = |hex: &String| CertificateDer::from(HEXLOWER.decode(hex.as_bytes()).unwrap());
    let rules = Admission::new(cas.iter().map(der).collect()).unwrap();
    rules.issuer_of(&der(&certificate.to_owned()))
}

#[tokio::test]
async fn nodes_move_to_the_next_ca_and_what_a_thief_made_does_not() {
    let mut town = Town::new().await;
    let (stays, away, revoked, his) = (
        keys::generate(),
        keys::generate(),
        keys::generate(),
        keys::generate(),
    );
    let first = town.certified(&stays).await;
    let before = town.certified(&away).await;
    let lost = town.certified(&revoked).await;
    town.client.revoke(id(&revoked), "lost").await.unwrap();
    let list = town.client.audit_head().await.unwrap().entries;
    let thief = Thief::of(&town);
    let serial = Admission::claims(&HEXLOWER.decode(before.as_bytes()).unwrap().into());
    let serial = serial.unwrap().1;
    let forged = [
        (&his, thief.makes(id(&his), 4711)),
        (&his, thief.makes(id(&his), serial)),
        (&his, thief.makes(id(&away), serial)),
        (&revoked, thief.makes(id(&revoked), 4712)),
        (&revoked, lost),
    ];
    let refuse_him = async |town: &Town, when: &str| {
        for (key, certificate) in &forged {
            let refused = town.renews(key, certificate).await;
            assert_eq!(refused, Err(403), "{when}");
        }
        assert_eq!(town.learns(&his).await, Err(403), "{when}");
        assert_eq!(town.learns(&revoked).await, Err(403), "{when}");
    };
    refuse_him(&town, "before").await;

    let old = town.cas()[0].clone();
    let next = town.next_ca().await;
    assert_eq!(town.name(&[&old, &next]).await.unwrap(), 2);
    refuse_him(&town, "while both are listed").await;
    let moved = town.renews(&stays, &first).await.unwrap();
    assert_eq!(issuer(&town.cas(), &first), Issuer::Older);
    assert_eq!(issuer(&town.cas(), &moved), Issuer::InUse);
    town.restart().await;

    assert_eq!(town.name(&[&next]).await.unwrap(), 3);
    refuse_him(&town, "after").await;
    assert_eq!(issuer(&town.cas(), &before), Issuer::Gone);
    let back = town.renews(&away, &before).await.unwrap();
    assert_eq!(issuer(&town.cas(), &back), Issuer::InUse);
    assert_eq!(town.learns(&away).await, Ok(3));
    // What was enrolled since is of the new CA, and its key alone lies here.
    let new = town.certified(&keys::generate()).await;
    assert_eq!(issuer(&town.cas(), &new), Issuer::InUse);
    let dir = town.dir();
    assert!(!dir.next_ca_key_file().exists() && !dir.next_ca_certificate_file().exists());
    assert_eq!(
        std::fs::read(dir.ca_certificate_file()).unwrap(),
        HEXLOWER.decode(next.as_bytes()).unwrap()
    );
    let own = std::fs::read(dir.peer_dir().join("certificates.pem")).unwrap();
    town.restart().await;
    let after = std::fs::read(dir.peer_dir().join("certificates.pem")).unwrap();
    assert_eq!(own, after, "its own certificate was of the new CA already");
    refuse_him(&town, "after a restart").await;
    assert!(town.client.audit_head().await.unwrap().entries > list);
    assert_eq!(town.client.status().await.unwrap().nodes, 4);
    town.close().await;
}

#[tokio::test]
async fn a_root_whose_ca_in_use_lies_elsewhere_is_refused() {
    let mut town = Town::new().await;
    let old = town.cas()[0].clone();
    let validity = Validity {
        not_before: now(),
        not_after: now() + Span::from_secs(1 << 20),
    };
    let stranger = IssuingCa::create("fleet", &keys::generate(), validity).unwrap();
    let stranger = HEXLOWER.encode(stranger.certificate());
    for cas in [&[&stranger][..], &[&old, &stranger], &[]] {
        let (status, line) = refusal(town.name(cas).await);
        assert_eq!(status, 409, "{line}");
        assert!(line.contains("root issuing-ca"), "{line}");
    }
    assert_eq!(town.newest().version, 1, "nothing changed");
    // One that issues elsewhere may stand there, as long as ours is in use.
    assert_eq!(town.name(&[&stranger, &old]).await.unwrap(), 2);
    town.restart().await;
    town.certified(&keys::generate()).await;
    town.close().await;
}

/// However far the change of files came before the machine stopped, the CA in use is found.
#[tokio::test]
async fn a_change_that_was_cut_short_is_ended_at_the_next_start() {
    let mut town = Town::new().await;
    let old = town.cas()[0].clone();
    let next = town.next_ca().await;
    let dir = town.dir();
    let files = [
        dir.ca_key_file(),
        dir.ca_certificate_file(),
        dir.next_ca_key_file(),
        dir.next_ca_certificate_file(),
    ];
    let before = files.each_ref().map(|file| std::fs::read(file).unwrap());
    town.name(&[&old, &next]).await.unwrap();
    town.close().await;
    for renamed in [&[][..], &[0], &[0, 1]] {
        for (file, bytes) in files.iter().zip(&before) {
            node::config::write_durably(file, bytes, 0o600).unwrap();
        }
        for place in renamed {
            std::fs::rename(&files[place + 2], &files[*place]).unwrap();
        }
        let found = named(&dir, &town.newest()).unwrap();
        assert_eq!(HEXLOWER.encode(found.certificate()), next);
        town.open().await;
        let new = town.certified(&keys::generate()).await;
        assert_eq!(issuer(&town.cas(), &new), Issuer::InUse);
        town.close().await;
        assert!(!dir.next_ca_key_file().exists());
    }
}

/// A restored ledger takes machines in again that it does not know, by the word of their CA. Should that have
/// been stolen, they do not come along to the next one.
#[tokio::test]
async fn who_was_taken_in_after_a_restore_does_not_move_to_the_next_ca() {
    let mut town = Town::new().await;
    let (honest, his) = (keys::generate(), keys::generate());
    let mine = town.certified(&honest).await;
    let thief = Thief::of(&town);
    town.close().await;
    crate::backup::restore(&town.dir(), None).unwrap();
    town.open().await;
    let made = thief.makes(id(&his), 4711);
    let given = town.renews(&his, &made).await.unwrap();

    let (old, next) = (town.cas()[0].clone(), town.next_ca().await);
    town.name(&[&old, &next]).await.unwrap();
    let other = keys::generate();
    let later = thief.makes(id(&other), 4712);
    for root in [2, 3] {
        for (key, certificate) in [(&his, &made), (&his, &given), (&other, &later)] {
            assert_eq!(town.renews(key, certificate).await, Err(403), "root {root}");
        }
        let moved = town.renews(&honest, &mine).await.unwrap();
        assert_eq!(issuer(&town.cas(), &moved), Issuer::InUse);
        if root == 2 {
            town.name(&[&next]).await.unwrap();
        }
    }
    town.close().await;
}

/// An enterprise's root of an hour's making.
fn enterprise() -> (rcgen::Certificate, rcgen::KeyPair) {
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Enterprise Root");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    (params.self_signed(&key).unwrap(), key)
}

/// What the enterprise signs for the key that a request names.
fn signed(csr: &Path, by: &(rcgen::Certificate, rcgen::KeyPair)) -> String {
    struct Asked(Vec<u8>);
    impl rcgen::PublicKeyData for Asked {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ED25519
        }
    }
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_file(csr).unwrap();
    // An ed25519 key stands behind its OID and the head of a bit string (RFC 8410).
    let oid = [0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let at = der.windows(oid.len()).position(|w| w == oid).unwrap() + oid.len();
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Fleet CA");
    params
        .distinguished_name
        .push(rcgen::DnType::OrganizationName, "Example");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let asked = Asked(der[at..at + 32].to_vec());
    let made = params.signed_by(&asked, &by.0, &by.1).unwrap();
    made.pem() + &by.0.pem()
}

#[tokio::test]
async fn an_enterprise_signs_the_issuing_ca_in_two_steps() {
    let mut town = Town::new().await;
    let file = |name: &str| town.temp.path().join(name);
    let (csr, again, pem, out) = (
        file("ca.csr"),
        file("2.csr"),
        file("ca.pem"),
        file("ca.der"),
    );
    let early = town.make(None, Some(&pem), Some(&out)).await.unwrap_err();
    assert!(early.contains("--csr first"), "{early}");
    town.make(Some(&csr), None, None).await.unwrap();
    town.make(Some(&again), None, None).await.unwrap();
    assert_eq!(std::fs::read(&csr).unwrap(), std::fs::read(&again).unwrap());
    let alone = town.make(None, None, Some(&out)).await.unwrap_err();
    assert!(alone.contains("--signed"), "{alone}");

    let enterprise = enterprise();
    let chain = signed(&csr, &enterprise);
    let one = chain.find("-----END").unwrap();
    for bad in [
        &chain[..one],
        &signed(&csr, &self::enterprise())[..one + 40],
        "no PEM",
    ] {
        std::fs::write(&pem, bad).unwrap();
        let refused = town.make(None, Some(&pem), Some(&out)).await.unwrap_err();
        assert!(refused.contains("ca.pem"), "{refused}");
        assert!(!out.exists() && !town.dir().next_ca_chain_file().exists());
    }
    std::fs::write(&pem, &chain).unwrap();
    town.make(None, Some(&pem), Some(&out)).await.unwrap();
    let next = HEXLOWER.encode(&std::fs::read(&out).unwrap());
    let old = town.cas()[0].clone();
    town.name(&[&old, &next]).await.unwrap();

    // Before and after a restart, and out of a backup, it issues what the enterprise's root vouches for.
    for state in ["published", "restarted", "restored"] {
        let key = keys::generate();
        let token = town.token(1, Span::from_secs(3600)).await;
        let reply = town.client.enroll(&request(&token, &key)).await.unwrap();
        assert_eq!(reply.certificates[1], next, "{state}");
        let ders = reply
            .certificates
            .iter()
            .map(|hex| CertificateDer::from(HEXLOWER.decode(hex.as_bytes()).unwrap()));
        let ders: Vec<_> = ders.collect();
        let anchors = [webpki::anchor_from_trusted_cert(enterprise.0.der()).unwrap()];
        let verified = webpki::EndEntityCert::try_from(&ders[0])
            .unwrap()
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &anchors,
                &ders[1..],
                rustls::pki_types::UnixTime::now(),
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map(drop);
        assert_eq!(verified, Ok(()), "{state}");
        town.close().await;
        if state == "restarted" {
            let backup = town.temp.path().join("backup");
            crate::backup::backup(&town.dir(), &backup).unwrap();
            std::fs::remove_dir_all(town.dir().ca_dir()).unwrap();
            crate::backup::restore(&town.dir(), Some(&backup)).unwrap();
        }
        town.open().await;
    }
    town.close().await;
}
