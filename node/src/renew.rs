//! The node's certificate is renewed by the node itself, over HTTPS to the server that it was enrolled
//! at, because a node whose certificate is over meets no peer any more. The key stays; the new
//! certificates are on disk before they are shown, and live connections keep what they have.
//!
//! The same way a node learns of roots when it meets nobody any more whose issuing CA it knows.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use node_core::renewal::{Crowd, Doubt, Issuer, Life};
use protocol::enroll::{RenewReply, RenewRequest, RootsReply};
use protocol::limits::ROOT_WALK_MAX;
use protocol::{FleetId, Hash, Span, Time};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::config::{ConfigError, write_durably};
use crate::driver::issued_at;
use crate::driver::status::Request;
use crate::enroll::{EnrollError, ask, certificates};
use crate::net::identity::Identity;

/// Machines sleep, and their timers with them: the clock is looked at this often.
const LOOK_UP: Span = Span::from_secs(60);
/// The longest `api.json` that is read.
const API_MAX_BYTES: u64 = 64 << 10;

/// Where the coordinator's API is, and by what it is known: `api.json` in a node's directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Api {
    /// Format version, 1.
    pub spec_version: u32,
    /// Such as `https://10.0.0.1:7700`.
    pub address: String,
    /// BLAKE3 of the DER of the certificate that the server must show.
    pub server_pin: Hash,
}

impl Api {
    /// A server.
    pub fn at(address: &str, server_pin: Hash) -> Api {
        Api {
            spec_version: 1,
            address: address.to_owned(),
            server_pin,
        }
    }

    /// Writes it durably.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn store(&self, dir: &Path) -> Result<(), ConfigError> {
        let json = serde_json::to_vec_pretty(self).expect("plain data");
        write_durably(&dir.join("api.json"), &json, 0o644)
    }

    /// Reads it, where nothing can be done without.
    ///
    /// # Errors
    /// When it cannot be read, is not understood, or is not there.
    pub(crate) fn needed(dir: &Path) -> Result<Api, ConfigError> {
        Api::load(dir)?.ok_or_else(|| ConfigError::Malformed {
            path: dir.join("api.json"),
            why: "it is missing".into(),
        })
    }

    /// Reads it; `None` if the node was enrolled before there was one.
    ///
    /// # Errors
    /// When it cannot be read or is not understood.
    pub fn load(dir: &Path) -> Result<Option<Api>, ConfigError> {
        let path = dir.join("api.json");
        let bytes = match fs::metadata(&path).map(|meta| meta.len()) {
            Ok(0..=API_MAX_BYTES) => fs::read(&path),
            Ok(_) => Err(io::Error::other("it is too long")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => Err(e),
        };
        let bytes = bytes.map_err(|source| ConfigError::Io {
            path: path.clone(),
            source,
        })?;
        let malformed = |why: String| ConfigError::Malformed {
            path: path.clone(),
            why,
        };
        let api: Api = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        match api.spec_version {
            1 => Ok(Some(api)),
            newer => Err(malformed(format!(
                "its version {newer} is newer than this program"
            ))),
        }
    }
}

/// Keeps a certificate for the node of `dir` at all times, for ever; `found` are roots for the driver.
pub(crate) async fn keep(
    dir: std::path::PathBuf,
    fleet: FleetId,
    crowd: Crowd,
    identity: Arc<Identity>,
    found: mpsc::Sender<Request>,
) {
    let admission = identity.admission().clone();
    let (mut changed, mut strangers) = (admission.changed(), admission.strangers());
    let started = Instant::now();
    let up = || Time(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
    let mut doubt = Doubt::of(&identity.node());
    let mut state = State::default();
    loop {
        let chain = identity.chain();
        let Some((leaf, life)) = chain.first().and_then(|leaf| Some((leaf, life(leaf)?))) else {
            return;
        };
        let now = admission.now();
        let issuer = state.learn(admission.issuer_of(leaf), now);
        let due = life.due(&identity.node(), issuer, state.learnt, crowd);
        let wait = due.since(now).max(state.again.since(up()));
        if wait == Span::ZERO {
            match renew(&dir, fleet, &identity, leaf).await {
                Ok(()) => {
                    state.failures = 0;
                    tracing::info!(event = "renewed", "the certificate is renewed");
                }
                Err(e) => {
                    state.failures += 1;
                    let left = life.not_after.since(now).0 / 86_400_000;
                    tracing::warn!(
                        event = "renewal",
                        "the certificate ({left} days left) is not renewed: {e}"
                    );
                }
            }
            // After a success, too: to a clock that is far ahead the new one is over.
            state.again = up() + life.pause(issuer, state.failures.max(1));
            continue;
        }
        let ask = doubt.ask_at().map_or(LOOK_UP, |at| at.since(up()));
        if ask == Span::ZERO {
            let learnt = learn(&dir, fleet, &identity, leaf, &found).await;
            let learnt = learnt.unwrap_or_else(|e| {
                tracing::warn!(event = "root", "the newest root is not learnt: {e}");
                false
            });
            doubt.asked(up(), learnt);
            continue;
        }
        tokio::select! {
            () = sleep(wait.min(ask).min(LOOK_UP).0) => {}
            ticked = changed.changed() => if ticked.is_err() { return },
            ticked = strangers.changed() => match ticked {
                Ok(()) => doubt.met(up()),
                Err(_) => return,
            },
        }
    }
}

/// What was found out about our own certificate's CA, and how renewal went with it.
struct State {
    issuer: Issuer,
    learnt: Time,
    failures: u32,
    /// Since the start.
    again: Time,
}

impl Default for State {
    fn default() -> State {
        State {
            issuer: Issuer::InUse,
            learnt: Time(0),
            failures: 0,
            again: Time(0),
        }
    }
}

impl State {
    fn learn(&mut self, issuer: Issuer, now: Time) -> Issuer {
        if issuer != self.issuer {
            *self = State {
                issuer,
                learnt: now,
                ..State::default()
            };
        }
        issuer
    }
}

async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms.max(1))).await;
}

/// Asks the coordinator for roots and hands them to the driver, which believes them or not. Whether there
/// was a newer one.
async fn learn(
    dir: &Path,
    fleet: FleetId,
    identity: &Identity,
    leaf: &CertificateDer<'_>,
    found: &mpsc::Sender<Request>,
) -> Result<bool, EnrollError> {
    let api = Api::needed(dir)?;
    let request = request(fleet, identity, leaf);
    let reply: RootsReply = ask(&api, "/v1/roots", &request).await?;
    if reply.spec_version != 1 || reply.roots.len() > ROOT_WALK_MAX {
        return Err(EnrollError::Reply("it is no chain of roots".into()));
    }
    let (answer, taken) = oneshot::channel();
    // The driver ends with the node, and this with it.
    let _ = found.send(Request::Roots(reply.roots, answer)).await;
    Ok(taken.await.unwrap_or(false))
}

fn request(fleet: FleetId, identity: &Identity, leaf: &CertificateDer<'_>) -> RenewRequest {
    let mut request = RenewRequest {
        spec_version: 1,
        fleet,
        node: identity.node(),
        certificate: data_encoding::HEXLOWER.encode(leaf),
        proof: String::new(),
    };
    request.prove(identity.key());
    request
}

async fn renew(
    dir: &Path,
    fleet: FleetId,
    identity: &Identity,
    leaf: &CertificateDer<'_>,
) -> Result<(), EnrollError> {
    let api = Api::needed(dir)?;
    let request = request(fleet, identity, leaf);
    let reply: RenewReply = ask(&api, "/v1/renew", &request).await?;
    let chain = certificates(&reply.certificates)?;
    let ends = |leaf: &CertificateDer<'_>| life(leaf).map(|life| life.not_after);
    let next = chain.first();
    let admission = identity.admission();
    let moved = next.is_some_and(|next| admission.issuer_of(next) == Issuer::InUse)
        && admission.issuer_of(leaf) != Issuer::InUse;
    let later = next.and_then(&ends) > ends(leaf);
    if reply.spec_version != 1 || !(later || moved) {
        return Err(EnrollError::Reply("it brings no later certificate".into()));
    }
    identity.renew(dir, chain)?;
    if let Some(leaf) = identity.chain().first() {
        identity.admission().own_issued(issued_at(leaf));
    }
    Ok(())
}

/// From when and until when a certificate holds.
fn life(certificate: &CertificateDer<'_>) -> Option<Life> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let at = |seconds: i64| Some(Time::from_secs(u64::try_from(seconds).ok()?));
    Some(Life {
        not_before: at(parsed.validity().not_before.timestamp())?,
        not_after: at(parsed.validity().not_after.timestamp())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::identity::fixture::{LONG, OVER, TestFleet, node};

    #[test]
    fn where_the_api_is_is_read_and_written_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.json");
        assert_eq!(Api::load(dir.path()).unwrap(), None);
        let api = Api::at("https://10.0.0.1:7700", Hash::of(b"certificate"));
        api.store(dir.path()).unwrap();
        let samples = [("1.json".to_owned(), fs::read(&path).unwrap())];
        crate::golden::check("api", &samples, |bytes| {
            fs::write(&path, bytes).unwrap();
            let api = Api::load(dir.path()).map_err(|e| e.to_string())?;
            api.expect("there").store(dir.path()).unwrap();
            fs::read(&path).map_err(|e| e.to_string())
        });
        fs::write(&path, r#"{"spec_version":2,"address":"","server_pin":""}"#).unwrap();
        assert!(Api::load(dir.path()).is_err());
    }

    /// A certificate that is over still proves the key, for renewal alone; a revoked one proves nothing.
    #[test]
    fn what_is_over_proves_the_key_and_what_is_revoked_does_not() {
        let fleet = TestFleet::new("a");
        let rules = fleet.admission();
        let over = fleet.certificate(1, OVER);
        assert!(rules.admit(std::slice::from_ref(&over)).is_err());
        assert_eq!(rules.proves(&over).unwrap(), (node(1), 2));
        assert!(TestFleet::new("b").admission().proves(&over).is_err());
        rules.set_revocations(&fleet.revocations(&[1], 1)).unwrap();
        assert!(rules.proves(&over).is_err());
    }

    #[test]
    fn renewed_certificates_are_on_disk_and_shown_and_never_another_nodes() {
        let fleet = TestFleet::new("a");
        let dir = tempfile::tempdir().unwrap();
        let identity = fleet.identity_with(1, vec![fleet.certificate(1, OVER)]);
        identity.save(dir.path()).unwrap();
        let other = vec![fleet.certificate(2, LONG)];
        assert!(identity.renew(dir.path(), other).is_err());
        let new = vec![fleet.certificate(1, LONG), fleet.ca.certificate().clone()];
        identity.renew(dir.path(), new.clone()).unwrap();
        assert_eq!(*identity.chain(), new);
        let loaded = Identity::load(dir.path(), fleet.admission()).unwrap();
        assert_eq!(*loaded.chain(), new);
    }
}
