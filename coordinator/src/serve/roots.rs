//! The chain of roots that the coordinator stands on, and how it takes a new one without a restart.
//!
//! The chain is written first, then believed here, then the brain is told, which issues a bulletin
//! under the new keys. Nodes that knew the old keys only find an order that they cannot believe, ask
//! for the next root, and walk.

use std::sync::{Arc, PoisonError, RwLock};

use coordinator_core::contract::Event;
use ed25519_dalek::SigningKey;
use node::config::write_durably;
use node::driver::issuing_cas;
use node::net::identity::issue::IssuingCa;
use node::net::identity::{Admission, load_key};
use protocol::Hash;
use protocol::envelope::Envelope;
use protocol::limits::ROOT_WALK_MAX;
use protocol::trust::{Role, Root, Trust, TrustError};
use tokio::sync::oneshot;

use super::desk::{Desk, DeskError};
use super::{House, issuing};
use crate::directory::Directory;
use crate::keys;

/// The chain as it is believed now; swapped as a whole.
pub(crate) struct Roots(RwLock<Arc<Chain>>);

/// Every root, rising, and what follows from the newest.
pub(crate) struct Chain {
    pub(crate) envelopes: Vec<Envelope>,
    pub(crate) trust: Trust,
}

impl Roots {
    pub(crate) fn new(envelopes: Vec<Envelope>, trust: Trust) -> Roots {
        Roots(RwLock::new(Arc::new(Chain { envelopes, trust })))
    }

    /// The chain now. Whoever needs it twice for one purpose keeps it.
    pub(crate) fn now(&self) -> Arc<Chain> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, chain: Chain) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(chain);
    }
}

/// Why a root is not taken. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error(transparent)]
    Desk(#[from] DeskError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("the chain has {ROOT_WALK_MAX} roots, and nodes walk no further; start a new fleet")]
    TooLong,
    #[error("{0}")]
    Keys(String),
    #[error("the new root cannot be kept: {0}")]
    Disk(String),
}

/// Takes the next root into force. Gives its version.
///
/// # Errors
/// When it does not follow, names no online key that lies here, or the disk fails; nothing changed then.
pub(crate) async fn publish(house: &Arc<House>, envelope: Envelope) -> Result<u64, RootError> {
    let held = house.clone();
    let work = move |desk: &mut Desk, reply: oneshot::Sender<_>| {
        // Whoever asked may have gone away meanwhile.
        let _ = reply.send(publish_at(desk, &held, envelope));
    };
    house.desk.work(work).await?
}

fn publish_at(desk: &mut Desk, house: &House, envelope: Envelope) -> Result<u64, RootError> {
    let chain = house.roots.now();
    // Sent again, because the answer was lost: nothing to do.
    if chain.envelopes.last().map(Envelope::digest) == Some(envelope.digest()) {
        return Ok(chain.trust.root().version);
    }
    if chain.envelopes.len() >= ROOT_WALK_MAX {
        return Err(RootError::TooLong);
    }
    let mut trust = chain.trust.clone();
    trust.update(envelope.clone())?;
    let root = trust.root().clone();
    let online = online_key(&house.dir, &root).map_err(RootError::Keys)?;
    let cas = issuing_cas(&root);
    let ca = Arc::new(issuing::next(&house.dir, &root).map_err(RootError::Keys)?);
    // Tried before anything is written.
    Admission::new(cas.clone()).map_err(|e| RootError::Keys(e.to_string()))?;
    let mut envelopes = chain.envelopes.clone();
    envelopes.push(envelope.clone());
    let json = serde_json::to_vec_pretty(&envelopes).expect("envelopes are plain data");
    write_durably(&house.dir.root_file(), &json, 0o644)
        .map_err(|e| RootError::Disk(e.to_string()))?;
    let kept = desk.parts.certificates.trust_issuers(cas, ca.clone());
    kept.map_err(RootError::Keys)?;
    settle_online_key(&house.dir, &online);
    let list = change_issuer(desk, house, ca);
    house.signer.set_key(online);
    house.roots.set(Chain {
        envelopes,
        trust: trust.clone(),
    });
    desk.parts.trust = trust;
    let threshold = |role| root.role(role).map_or(1, |role| role.threshold);
    let event = Event::Root {
        version: root.version,
        plans_threshold: threshold(Role::Plans),
        envelope,
    };
    let now = desk.parts.clock.now();
    desk.parts.conductor.handle(now, event);
    if let Some(list) = list {
        desk.parts.conductor.handle(now, Event::Revocations(list));
    }
    let line = format!("root {} is in force", root.version);
    desk.parts.log.note(now.wall, "root", &line);
    Ok(root.version)
}

/// Puts an issuing CA in use. Gives the revocation list that it signed, if it is another one than before.
fn change_issuer(desk: &mut Desk, house: &House, ca: Arc<IssuingCa>) -> Option<Hash> {
    let before = house.issuing.now();
    if before.certificate() == ca.certificate() {
        return None;
    }
    issuing::settle(&house.dir, &ca);
    house.issuing.set(ca.clone());
    let now = desk.parts.clock.now().wall;
    let note = |why: String| house.log.note(now, "issuing_ca", &why);
    // At the next start it is tried again.
    issuing::keep_own(&house.dir, &house.identity, &ca)
        .unwrap_or_else(|e| note(format!("the coordinator has no certificate of it yet: {e}")));
    note("another issuing CA is in use: the nodes move to it".into());
    desk.parts.certificates.renew_list().map_err(&note).ok()
}

/// The online key that a root names: the one in use, or the next one that was made for it.
///
/// # Errors
/// One line, when neither is named.
pub(super) fn online_key(dir: &Directory, root: &Root) -> Result<SigningKey, String> {
    let role = root.role(Role::Coordinator);
    let named = |key: &SigningKey| {
        let public = keys::public(key);
        role.is_some_and(|role| role.keys.contains(&public))
    };
    let current = load_key(&dir.online_key_file());
    match (&current, load_key(&dir.next_online_key_file())) {
        (Ok(key), _) if named(key) => Ok(key.clone()),
        (_, Ok(next)) if named(&next) => Ok(next),
        (Err(e), _) => Err(e.to_string()),
        _ => Err(format!(
            "{} is not a key of the root's coordinator role; restore the right one, or make the next with `tidegate root online-key`",
            dir.online_key_file().display()
        )),
    }
}

/// The next key that came into force takes the place of the one before. If that fails it is found
/// where it lies.
pub(super) fn settle_online_key(dir: &Directory, online: &SigningKey) {
    let next = dir.next_online_key_file();
    if load_key(&next).is_ok_and(|key| key == *online) {
        let _ = std::fs::rename(next, dir.online_key_file());
    }
}
