//! `tidegate serve`: the running coordinator.

use std::path::PathBuf;

use crate::directory::{DirectoryError, Settings};

/// How a coordinator runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServeOptions {
    /// The coordinator's directory.
    pub dir: PathBuf,
    /// Run an origin as a child process, by this executable's hidden subcommand.
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
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A running coordinator.
pub struct Running {
    settings: Settings,
}

impl Running {
    /// As in `coordinator.json`, with the addresses that are really in use.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
    /// Stops gracefully: answers what is under way, closes the ledger, stops the origin unless told
    /// to keep it.
    pub async fn shutdown(self) {
        unimplemented!()
    }
    /// Ends when the coordinator cannot go on (the ledger's disk is full, …).
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn failed(&mut self) -> ServeError {
        unimplemented!()
    }
}

/// Starts the coordinator of a directory: ledger verified and replayed, listeners bound, origin up.
///
/// # Errors
/// When the directory, the ledger or an address is not as it should be.
pub async fn start(_options: ServeOptions) -> Result<Running, ServeError> {
    unimplemented!()
}
