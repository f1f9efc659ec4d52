//! The network's side: hands steps over and waits for their end, as long as it takes.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use node_core::contract::{FailureClass, Step, StepOutcome, Warrant};
use node_core::handover::{Ask, Errand, ROOTS_MAX, Resume, Said, failure, found, resume};
use protocol::Verified;
use protocol::manifest::ReleaseManifest;
use protocol::trust::{Root, Statement};
use tokio::net::UnixStream;

use super::{read, write};
use crate::store::records::Records;

/// Between two tries to reach the installer.
const RETRY: Duration = Duration::from_secs(1);

/// Hands steps over at one socket. Clones share what is known of it.
#[derive(Clone)]
pub struct Courier {
    socket: PathBuf,
    records: Arc<Records>,
    away: Arc<Mutex<Option<String>>>,
}

/// Where an exchange broke.
enum Broken {
    /// The step was not asked for.
    Unasked(io::Error),
    /// It may be under way.
    Asked(io::Error),
}

impl Courier {
    /// One that finds the installer at `socket` and the roots that it lacks in `records`.
    pub fn new(socket: PathBuf, records: Arc<Records>) -> Courier {
        Courier {
            socket,
            records,
            away: Arc::default(),
        }
    }

    /// Why a step waits for the installer, if one does: one line.
    pub fn away(&self) -> Option<String> {
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.clone()
    }

    /// Has a step taken. Where the installer is away it waits.
    pub async fn step(
        &self,
        release: &Verified<ReleaseManifest>,
        before: Option<&Verified<ReleaseManifest>>,
        warrant: Option<&Warrant>,
        step: Step,
    ) -> StepOutcome {
        let mut errand = errand(release, before, warrant, step);
        let mut detects = false;
        loop {
            match self.exchange(&mut errand).await {
                Ok(Said::Ended(outcome)) if detects => return found(outcome),
                Ok(Said::Ended(outcome)) => return outcome,
                Ok(Said::Refused(why)) => return StepOutcome::Failed(why),
                Ok(Said::Root(_)) => {
                    let line = "the installer answers another question".to_owned();
                    return StepOutcome::Failed(failure(FailureClass::Machine, line));
                }
                Err(Broken::Unasked(e)) => self.waits(&e),
                Err(Broken::Asked(e)) => {
                    self.waits(&e);
                    match resume(&errand.step) {
                        Resume::Again => {}
                        Resume::Detect => {
                            errand.step = Step::Detect;
                            detects = true;
                        }
                        Resume::Over(why) => return StepOutcome::Failed(why),
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    fn waits(&self, why: &io::Error) {
        let line = format!(
            "the privileged installer at {} does not answer ({why}): start it with 'tidegate-node installer'",
            self.socket.display()
        );
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.as_ref() != Some(&line) {
            tracing::warn!(event = "installer", "{line}");
            *away = Some(line);
        }
    }

    async fn exchange(&self, errand: &mut Box<Errand>) -> Result<Said, Broken> {
        let mut stream = self.greet().await.map_err(Broken::Unasked)?;
        *self.away.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let ask = Ask::Step(errand.clone());
        write(&mut stream, &ask).await.map_err(Broken::Asked)?;
        read(&mut stream).await.map_err(Broken::Asked)
    }

    /// A connection on which every root was handed over.
    async fn greet(&self) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let Said::Root(trusted) = read(&mut stream).await? else {
            return Err(io::Error::other("it does not greet"));
        };
        let records = self.records.clone();
        let roots = tokio::task::spawn_blocking(move || records.roots()).await?;
        let roots = roots.map_err(io::Error::other)?;
        let newer = roots.iter().filter(|root| {
            let root = serde_json::from_slice::<Root>(&root.payload);
            root.is_ok_and(|root| root.version > trusted)
        });
        for root in newer.take(ROOTS_MAX) {
            write(&mut stream, &Ask::Root(root.to_json())).await?;
            match read(&mut stream).await? {
                Said::Root(_) => {}
                Said::Refused(why) => return Err(io::Error::other(why.reason)),
                Said::Ended(_) => return Err(io::Error::other("it answers another question")),
            }
        }
        Ok(stream)
    }
}

fn errand(
    release: &Verified<ReleaseManifest>,
    before: Option<&Verified<ReleaseManifest>>,
    warrant: Option<&Warrant>,
    step: Step,
) -> Box<Errand> {
    fn json<T: Statement>(statement: &Verified<T>) -> Vec<u8> {
        statement.envelope().to_json()
    }
    Box::new(Errand {
        step,
        release: json(release),
        plan: warrant.map(|w| json(&w.plan)),
        lease: warrant.and_then(|w| w.lease.as_ref().map(json)),
        recall: warrant.and_then(|w| w.recall.as_ref().map(json)),
        before: before.map(json),
        site: warrant.and_then(|w| w.site.clone()),
    })
}
