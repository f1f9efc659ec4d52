//! The issuing CA in use: the last one that the root names. When a root names the next one, which was made
//! here by `tidegate root issuing-ca`, it takes the place of the other: what is issued from then on is
//! issued under it, and it signs the list of what was revoked, whichever CA had issued that.

use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use node::driver::issuing_cas;
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Identity, Issuer, chain, load_key};
use node::renew::Api;
use protocol::Hash;
use protocol::trust::Root;
use rustls::pki_types::CertificateDer;

use crate::directory::{Directory, Settings};
use crate::init::{CA_LIFE, SKEW, serial, wall};

/// Digits by which a certificate is told from others.
const SHORT: usize = 16;

/// The CA in use; swapped as a whole.
pub(crate) struct Issuing(ArcSwap<IssuingCa>);

impl Issuing {
    pub(super) fn new(ca: Arc<IssuingCa>) -> Issuing {
        Issuing(ArcSwap::new(ca))
    }

    /// The CA now.
    pub(crate) fn now(&self) -> Arc<IssuingCa> {
        self.0.load_full()
    }

    pub(super) fn set(&self, ca: Arc<IssuingCa>) {
        self.0.store(ca);
    }
}

/// What people call a certificate: the first digits of its BLAKE3.
pub(crate) fn short(der: &[u8]) -> String {
    let digest = Hash::of(der).to_string();
    digest[..SHORT.min(digest.len())].to_owned()
}

/// What a node is given: its certificate, and those above it.
pub(super) fn credentials(ca: &IssuingCa, leaf: &CertificateDer<'_>) -> Vec<String> {
    let above = ca.chain();
    let all = std::iter::once(leaf).chain(&above);
    all.map(|der| HEXLOWER.encode(der)).collect()
}

/// The last CA of those that a root names whose key lies here.
///
/// # Errors
/// One line, when there is none.
pub(crate) fn named(dir: &Directory, root: &Root) -> Result<IssuingCa, String> {
    let keys = [dir.next_ca_key_file(), dir.ca_key_file()];
    let keys: Vec<_> = keys.iter().filter_map(|file| load_key(file).ok()).collect();
    let files = [dir.next_ca_certificate_file(), dir.ca_certificate_file()];
    let here: Vec<_> = files.iter().filter_map(|f| std::fs::read(f).ok()).collect();
    let cas = issuing_cas(root).into_iter().rev();
    let mut cas = cas.filter(|ca| here.iter().any(|held| held[..] == ca[..]));
    let opened = cas.find_map(|ca| {
        let mut by_key = keys.iter().map(|key| IssuingCa::open(ca.clone(), key));
        by_key.find_map(Result::ok)
    });
    let opened = opened.map(|ca| {
        // A chain that is of another CA, or of none, is left where it lies.
        let mut chains = [dir.next_ca_chain_file(), dir.ca_chain_file()]
            .into_iter()
            .filter_map(|file| chain::parse(&std::fs::read(file).ok()?).ok());
        match chains.find(|chain| chain.first() == Some(ca.certificate())) {
            Some(chain) => ca.below(chain[1..].to_vec()),
            None => ca,
        }
    });
    opened.ok_or_else(|| {
        format!(
            "{} is no issuing CA of the root, or its key is not here; restore the right one, or make the next with `tidegate root issuing-ca`",
            dir.ca_certificate_file().display()
        )
    })
}

/// The CA that a coming root puts in use.
///
/// # Errors
/// One line, when it lies elsewhere.
pub(super) fn next(dir: &Directory, root: &Root) -> Result<IssuingCa, String> {
    let ca = named(dir, root)?;
    if issuing_cas(root).last() != Some(ca.certificate()) {
        return Err("the last issuing CA of the new root is not this coordinator's; make one with `tidegate root issuing-ca` and add it".into());
    }
    Ok(ca)
}

/// The next CA that came into use takes the place of the one before, whose key is gone then. If that fails
/// it is found where it lies.
pub(super) fn settle(dir: &Directory, ca: &IssuingCa) {
    let certificate = dir.next_ca_certificate_file();
    if std::fs::read(&certificate).is_ok_and(|next| next[..] == ca.certificate()[..]) {
        let _ = std::fs::rename(dir.next_ca_key_file(), dir.ca_key_file());
        let _ = std::fs::rename(dir.next_ca_chain_file(), dir.ca_chain_file());
        let _ = std::fs::rename(certificate, dir.ca_certificate_file());
    }
}

/// The coordinator's own certificate as a peer is always of the CA in use.
///
/// # Errors
/// One line, when it cannot be issued or written.
pub(super) fn keep_own(dir: &Directory, identity: &Identity, ca: &IssuingCa) -> Result<(), String> {
    let chain = identity.chain();
    let issuer = chain
        .first()
        .map(|leaf| identity.admission().issuer_of(leaf));
    if issuer == Some(Issuer::InUse) {
        return Ok(());
    }
    let now = wall();
    let validity = Validity {
        not_before: now - SKEW,
        not_after: now + CA_LIFE,
    };
    let leaf = ca.node(identity.node(), serial(), validity);
    let leaf = leaf.map_err(|e| e.to_string())?;
    let chain = std::iter::once(leaf).chain(ca.chain()).collect();
    let renewed = identity.renew(&dir.peer_dir(), chain);
    renewed.map_err(|e| e.to_string())
}

/// An origin that was made before origins renewed their certificates learns where to ask.
pub(super) fn tell_origin(dir: &Directory, settings: &Settings) -> Result<(), String> {
    let origin = dir.origin_dir();
    if !origin.exists() || origin.join("api.json").exists() {
        return Ok(());
    }
    let api = Api::at(
        &format!("https://{}", settings.public_api()),
        settings.server_pin,
    );
    api.store(&origin).map_err(|e| e.to_string())
}
