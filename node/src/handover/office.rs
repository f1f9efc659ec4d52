//! The privileged process: believes nobody, verifies every document from its own root, asks the guard, and
//! takes the step by the same installer as a node that does it all in one process. One step at a time; a
//! step that was begun ends, also when whoever asked for it goes away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use node_core::contract::{Failure, FailureClass, Step, StepOutcome};
use node_core::guard::{Admitted, Case, Guard, GuardRecord, Refusal};
use node_core::handover::{Ask, CONNECTIONS_MAX, Errand, ROOTS_MAX, Said, failure};
use protocol::envelope::Envelope;
use protocol::limits::{ENVELOPE_MAX_BYTES, ROOT_WALK_MAX};
use protocol::manifest::{Install, ReleaseManifest};
use protocol::orders::Order;
use protocol::plan::{Recall, RolloutPlan};
use protocol::status::install_id;
use protocol::trust::{Role, Statement, Trust, TrustError};
use protocol::versioned::Versioned;
use protocol::{Hash, Verified};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore};

use super::settings::{InstallerSettings, SetUp};
use super::{bytes, read, write};
use crate::config::{ConfigError, write_durably};
use crate::driver::Clock;
use crate::install::{Content, Installer};
use crate::run::{RunError, chain, lock};
use crate::store::blobs::{Blobs, StoreError};

/// Whoever connects says what it wants within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why the installer did not start.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Its settings cannot be used.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// Its directory cannot be used.
    #[error(transparent)]
    Directory(#[from] RunError),
    /// Its copies cannot be kept.
    #[error(transparent)]
    Blobs(#[from] StoreError),
    /// What it remembered is damaged.
    #[error("{} is damaged ({why}): restore it from a backup; without it the installer forgets what may be gone back to", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The socket or a file cannot be made.
    #[error("{}: {source}", .path.display())]
    Io {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Serves the node of these settings until `end` is ready.
///
/// # Errors
/// One line each, with the culprit and the next step.
pub async fn serve(
    dir: &Path,
    set_up: Option<SetUp>,
    end: impl Future<Output = ()>,
) -> Result<(), HandoverError> {
    let settings = InstallerSettings::settle(dir, set_up)?;
    let _lock = lock(dir)?;
    let (socket, user) = (settings.socket.clone(), settings.user);
    let office = Arc::new(Mutex::new(Office::open(dir, settings)?));
    let listener = listen(&socket, user).map_err(|source| HandoverError::Io {
        path: socket.clone(),
        source,
    })?;
    tracing::info!(event = "started", "installer at {}", socket.display());
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let accept = async {
        loop {
            let place = room.clone().acquire_owned().await;
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: others need them more.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == user => {
                    let office = office.clone();
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(e) = attend(stream, office).await {
                            tracing::debug!("a connection ended: {e}");
                        }
                    });
                }
                Ok(peer) => {
                    let uid = peer.uid();
                    tracing::warn!(event = "scope", "user {uid} asked and is not served");
                }
                Err(e) => tracing::warn!(event = "scope", "nobody knows who asked: {e}"),
            }
        }
    };
    tokio::select! { () = accept => {}, () = end => {} }
    // A step that is under way ends first.
    let _office = office.lock().await;
    Ok(())
}

fn listen(socket: &Path, user: u32) -> io::Result<UnixListener> {
    use std::os::unix::fs::{PermissionsExt, chown};
    match fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    if rustix::process::geteuid().as_raw() != user {
        chown(socket, Some(user), None)?;
    }
    Ok(listener)
}

async fn attend(mut stream: UnixStream, office: Arc<Mutex<Office>>) -> io::Result<()> {
    let version = office.lock().await.root_version();
    write(&mut stream, &Said::Root(version)).await?;
    for _ in 0..=ROOTS_MAX {
        let asked = tokio::time::timeout(PATIENCE, read::<Ask>(&mut stream)).await?;
        let said = match asked {
            Ok(Ask::Root(root)) => office.lock().await.root(&root),
            Ok(Ask::Step(errand)) => {
                let office = office.clone();
                // On a task of its own: the step ends also when this connection does not last.
                let taken = tokio::spawn(async move { office.lock().await.take(*errand).await });
                let said = taken.await.map_err(io::Error::other)?;
                return write(&mut stream, &said).await;
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                refused("malformed", FailureClass::Release, e.to_string())
            }
            Err(e) => return Err(e),
        };
        write(&mut stream, &said).await?;
        if matches!(said, Said::Refused(_)) {
            return Ok(());
        }
    }
    Ok(())
}

fn refused(event: &'static str, class: FailureClass, why: String) -> Said {
    tracing::warn!(event, "refused: {why}");
    Said::Refused(failure(
        class,
        format!("the privileged installer refused: {why}"),
    ))
}

/// What the installer knows and holds.
struct Office {
    dir: PathBuf,
    settings: InstallerSettings,
    roots: Vec<Envelope>,
    trust: Option<Trust>,
    guard: Guard,
    clock: Clock,
    blobs: Blobs,
    installer: Installer,
}

impl Office {
    fn open(dir: &Path, settings: InstallerSettings) -> Result<Office, HandoverError> {
        let damaged = |path: &Path, why: String| HandoverError::Damaged {
            path: path.to_owned(),
            why,
        };
        let path = dir.join("roots.json");
        let roots: Vec<Envelope> = match load(&path, ROOT_WALK_MAX * ENVELOPE_MAX_BYTES)? {
            Some(json) => {
                serde_json::from_slice(&json).map_err(|e| damaged(&path, e.to_string()))?
            }
            None => Vec::new(),
        };
        let trust = match roots.split_first() {
            Some((first, rest)) => Some(
                chain(first.clone(), rest.to_vec(), settings.fleet)
                    .map_err(|e| damaged(&path, e.to_string()))?,
            ),
            None => None,
        };
        let path = dir.join("guard");
        let record = match load(&path, GuardRecord::MAX_BYTES)? {
            Some(bytes) => {
                GuardRecord::from_bytes(&bytes).map_err(|e| damaged(&path, e.to_string()))?
            }
            None => GuardRecord::default(),
        };
        let store = dir.join("copies");
        let blobs = Blobs::open(&store)?;
        private(&store)?;
        // What a killed process had copied.
        for blob in blobs.complete() {
            blobs.drop_blob(&blob.root)?;
        }
        let installer = Installer::new(dir.join("install")).with_restart(settings.restart.clone());
        Ok(Office {
            dir: dir.to_owned(),
            roots,
            trust,
            clock: Clock::new(record.floor),
            guard: Guard::new(settings.node, record),
            settings,
            blobs,
            installer,
        })
    }

    fn root_version(&self) -> u64 {
        let trust = self.trust.as_ref();
        trust.map_or(0, |trust| trust.root().version)
    }

    /// Takes the root behind the newest.
    fn root(&mut self, json: &[u8]) -> Said {
        let before = self.trust.as_ref().map(|trust| trust.root().clone());
        if self.roots.len() >= ROOT_WALK_MAX {
            return refused("too_long", FailureClass::Machine, "too many roots".into());
        }
        let walked = Envelope::from_json(json)
            .map_err(TrustError::from)
            .and_then(|envelope| {
                let trust = match self.trust.clone() {
                    None => Trust::pin(envelope.clone(), self.settings.fleet)?,
                    Some(mut trust) => {
                        trust.update(envelope.clone())?;
                        trust
                    }
                };
                Ok((trust, envelope))
            });
        let (trust, envelope) = match walked {
            Ok(walked) => walked,
            Err(e) => return refused(e.event(), FailureClass::Machine, e.to_string()),
        };
        let roots = [self.roots.clone(), vec![envelope]].concat();
        if before.is_some_and(|root| root.retires(trust.root(), Role::Coordinator)) {
            self.guard.forget_orders();
            self.clock.reset();
        }
        let json = serde_json::to_vec(&roots).expect("envelopes are plain data");
        let kept = write_durably(&self.dir.join("roots.json"), &json, 0o600);
        if let Err(e) = kept.and_then(|()| self.remember()) {
            return refused("storage", FailureClass::Machine, e.to_string());
        }
        (self.trust, self.roots) = (Some(trust), roots);
        Said::Root(self.root_version())
    }

    fn remember(&self) -> Result<(), ConfigError> {
        write_durably(
            &self.dir.join("guard"),
            &self.guard.record().to_bytes(),
            0o600,
        )
    }

    async fn take(&mut self, errand: Errand) -> Said {
        match self.step(errand).await {
            Ok(outcome) => Said::Ended(outcome),
            Err(said) => said,
        }
    }

    fn verified<T: Statement>(&self, json: &[u8]) -> Result<Verified<T>, Said> {
        let trust = self.trust.as_ref().ok_or_else(|| {
            let why = "no root was handed over".to_owned();
            refused("root_digest", FailureClass::Machine, why)
        })?;
        let verified = Envelope::from_json(json)
            .map_err(TrustError::from)
            .and_then(|envelope| trust.verify(&envelope));
        verified.map_err(|e| refused(e.event(), FailureClass::Release, e.to_string()))
    }

    /// A document without which the guard decides; what is not believed was not handed over.
    fn perhaps<T: Statement>(&self, json: Option<&Vec<u8>>) -> Option<Verified<T>> {
        self.verified(json?).ok()
    }

    async fn step(&mut self, errand: Errand) -> Result<StepOutcome, Said> {
        let release: Verified<ReleaseManifest> = self.verified(&errand.release)?;
        let Some(plan) = &errand.plan else {
            if errand.step != Step::Detect {
                let why = "threshold: a step without a plan".to_owned();
                return Err(refused("threshold", FailureClass::Release, why));
            }
            let id = release.digest();
            return Ok(self.perform(id, &release, None, None, Step::Detect).await);
        };
        let plan: Verified<RolloutPlan> = self.verified(plan)?;
        let lease: Option<Verified<Order>> = self.perhaps(errand.lease.as_ref());
        let recall: Option<Verified<Recall>> = self.perhaps(errand.recall.as_ref());
        let before: Option<Verified<ReleaseManifest>> = self.perhaps(errand.before.as_ref());
        if let Some(lease) = &lease {
            self.guard.saw(lease.issued);
            self.clock.raise(lease.issued);
        }
        let case = Case {
            plan: &plan,
            release: &release,
            lease: lease.as_ref(),
            recall: recall.as_ref(),
            site: errand.site.as_ref(),
        };
        let step = errand.step;
        let refuse = |why: Refusal| refused("installer", why.class(), format!("{why} ({step:?})"));
        let wall = self.clock.now().wall;
        let known = self.guard.record().clone();
        let admitted = self.guard.admit(wall, &step, case).map_err(refuse)?;
        let (product, rollout, digest) = (&release.product, &plan.rollout, release.digest());
        let expected = self.guard.before(product, rollout, digest);
        let before = before.filter(|before| Some(before.digest()) == expected);
        let needs = matches!(step, Step::RollBack | Step::CleanUp);
        if needs && admitted == Admitted::Take && expected.is_some() && before.is_none() {
            self.guard = Guard::new(self.settings.node, known);
            return Err(refuse(Refusal::Before));
        }
        if *self.guard.record() != known {
            let kept = self.remember();
            kept.map_err(|e| refused("storage", FailureClass::Machine, e.to_string()))?;
        }
        if admitted == Admitted::Done {
            return Ok(StepOutcome::Done);
        }
        let content = match self.content(&release, &step).await {
            Ok(content) => content,
            Err(why) => return Ok(StepOutcome::Failed(why)),
        };
        let copied = content.is_some();
        let id = install_id(&self.settings.node, &digest, rollout);
        let outcome = self
            .perform(id, &release, before.as_ref(), content, step.clone())
            .await;
        if copied {
            bytes::drop_copies(&self.blobs, &release);
        }
        self.guard.ended(product, rollout, &step, &outcome);
        let kept = self.remember();
        kept.map_err(|e| refused("storage", FailureClass::Machine, e.to_string()))?;
        Ok(outcome)
    }

    async fn perform(
        &self,
        id: Hash,
        release: &Verified<ReleaseManifest>,
        before: Option<&Verified<ReleaseManifest>>,
        content: Option<Content>,
        step: Step,
    ) -> StepOutcome {
        let name = format!("{}@{}", release.product, release.version);
        tracing::info!(event = "step", "{name}: {step:?}");
        self.installer
            .step(id, release, before, content, step)
            .await
    }

    /// A copy of the content that the step needs, whole and verified.
    async fn content(
        &self,
        release: &Verified<ReleaseManifest>,
        step: &Step,
    ) -> Result<Option<Content>, Failure> {
        let undoes = *step == Step::RollBack && matches!(release.install, Install::Command { .. });
        if *step != Step::WriteSlot && !undoes {
            return Ok(None);
        }
        let (from, blobs) = (self.settings.node_dir.clone(), self.blobs.clone());
        let copied = release.clone();
        let taken = tokio::task::spawn_blocking(move || bytes::take(&from, &blobs, &copied));
        match taken.await {
            Ok(Ok(content)) => Ok(Some(content)),
            // Its unpacked files may still be there.
            Ok(Err(_)) if undoes => Ok(None),
            Ok(Err(why)) => {
                bytes::drop_copies(&self.blobs, release);
                tracing::warn!(event = "poisoned", "refused: {why}");
                Err(failure(FailureClass::Machine, why))
            }
            Err(broken) => Err(failure(FailureClass::Machine, broken.to_string())),
        }
    }
}

fn load(path: &Path, most: usize) -> Result<Option<Vec<u8>>, HandoverError> {
    let io = |source| HandoverError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(found) if found.len() <= most as u64 => fs::read(path).map(Some).map_err(io),
        Ok(_) => Err(io(io::Error::other("it is longer than it can be"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(e)),
    }
}

fn private(dir: &Path) -> Result<(), HandoverError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(|source| {
        HandoverError::Io {
            path: dir.to_owned(),
            source,
        }
    })
}
