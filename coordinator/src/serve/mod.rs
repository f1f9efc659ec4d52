//! `tidegate serve`: the running coordinator.
//!
//! `desk` owns the brain and the ledger; around it stand the HTTP API ([`crate::api`]), the control
//! plane (`control`) and the origin's supervisor (`origin`). None of them decides anything.

mod api_tokens;
mod approvals;
mod certificates;
mod control;
mod desk;
mod endings;
mod enrolment;
mod events;
mod foreign;
pub(crate) mod issuing;
mod lifts;
mod origin;
mod revoking;
mod roots;
mod sightings;
mod signer;
mod start;
mod store;
mod uploads;
mod waiting;
mod witnesses;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use node::driver::Clock;
use node::net::control::StartError;
use node::net::identity::Identity;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

pub(crate) use api_tokens::{AccessError, accesses, new_access, revoke_access};
pub(crate) use approvals::{ApprovalError, approve, pending_recall, recall, signed_by};
pub(crate) use desk::{DeskError, DeskHandle, Insight};
pub(crate) use endings::warnings;
pub(crate) use enrolment::{EnrolmentError, enroll, new_token, rejoin, renew, roots_for};
pub(crate) use events::EventLog;
pub(crate) use foreign::{machines as foreign_machines, report as foreign_report};
pub(crate) use lifts::{halt_in_force, lift};
pub(crate) use revoking::{RevokeError, draft as draft_revocation, revoke, revoke_many};
pub(crate) use roots::{RootError, Roots, publish as publish_root};
pub(crate) use sightings::Sightings;
pub(crate) use signer::Signer;
pub(crate) use start::lock;
pub use start::start;
pub(crate) use store::{Store, StoreError, TokenError};
pub(crate) use uploads::{UploadError, presence, receive, settled};
pub(crate) use waiting::{admit, waiting};

use crate::directory::{Directory, DirectoryError, Settings};
use crate::ledger::LedgerError;

/// What is under way has so long to end when the coordinator stops.
const GRACE: Duration = Duration::from_secs(5);

/// How a coordinator runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServeOptions {
    /// The coordinator's directory.
    pub dir: PathBuf,
    /// Who runs the origin.
    pub origin: OriginMode,
    /// Leave the origin running on a graceful shutdown.
    pub keep_origin: bool,
}

/// Who runs the origin.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum OriginMode {
    /// A child process of this executable: `internal-node --dir DIR/origin --role origin`.
    #[default]
    Child,
    /// Somebody else, or nobody.
    Elsewhere,
}

/// Why the coordinator does not run. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Another coordinator.
    #[error("a coordinator runs in {dir} already (process {pid}); stop it first")]
    Running {
        /// The directory.
        dir: PathBuf,
        /// Its process id.
        pid: String,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The store beside it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address.
    #[error("the API cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// An address of the control plane.
    #[error("the control plane does not start: {0}")]
    Control(#[from] StartError),
    /// Keys or certificates.
    #[error("{0}")]
    Keys(String),
    /// The desk's thread ended.
    #[error("the coordinator's desk ended; see the log")]
    Desk,
}

/// What all rooms share.
pub(crate) struct House {
    pub(crate) dir: Directory,
    pub(crate) settings: Settings,
    pub(crate) api_token: String,
    pub(crate) roots: Roots,
    pub(crate) issuing: issuing::Issuing,
    pub(crate) identity: Arc<Identity>,
    pub(crate) signer: Arc<Signer>,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) log: Arc<EventLog>,
    pub(crate) sightings: Sightings,
    pub(crate) witnesses: witnesses::Asks,
    pub(crate) desk: DeskHandle,
    pub(crate) origin_pid: watch::Receiver<Option<u32>>,
}

/// A running coordinator.
pub struct Running {
    house: Arc<House>,
    keep_origin: bool,
    origin: Option<origin::Supervisor>,
    stop: watch::Sender<bool>,
    api: JoinHandle<()>,
    control: JoinHandle<()>,
    desk: Option<std::thread::JoinHandle<()>>,
    failure: oneshot::Receiver<LedgerError>,
    _lock: std::fs::File,
}

impl Running {
    /// As in `coordinator.json`.
    pub fn settings(&self) -> &Settings {
        &self.house.settings
    }

    /// Stops gracefully: answers what is under way, closes the ledger, stops the origin unless told
    /// to keep it.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        let _ = tokio::time::timeout(GRACE, &mut self.api).await;
        self.api.abort();
        let _ = tokio::time::timeout(GRACE, &mut self.control).await;
        self.control.abort();
        closed(self.house.settings.control).await;
        self.house.desk.stop();
        if let Some(origin) = self.origin.take() {
            origin.end(self.keep_origin).await;
        }
        let desk = self.desk.take();
        drop(self);
        if let Some(desk) = desk {
            // The thread closes the ledger as it ends.
            let _ = tokio::task::spawn_blocking(move || desk.join()).await;
        }
    }

    /// Ends when the coordinator cannot go on (the ledger's disk is full, …).
    pub async fn failed(&mut self) -> ServeError {
        match (&mut self.failure).await {
            Ok(error) => error.into(),
            Err(_) => ServeError::Desk,
        }
    }
}

/// Waits until the control plane's socket is gone: QUIC closes it in a task of its own, and whoever
/// starts the coordinator again at once would find its port in use.
async fn closed(control: SocketAddr) {
    let gone = async {
        while std::net::UdpSocket::bind(control).is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = tokio::time::timeout(GRACE, gone).await;
}
