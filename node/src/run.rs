//! A node from its directory to its end: locks, opens, listens, drives, leaves.

use std::path::Path;

use node_core::contract::Tempo;

/// How a node is run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Intervals; the default in production.
    pub tempo: Tempo,
    /// Announce and listen by multicast as well.
    pub mdns: bool,
}

/// Why a node did not start or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Not built yet.
    #[error("not built yet")]
    NotYet,
}

/// Runs the node of `dir` until SIGTERM or SIGINT. Its role stands in `node.json`.
///
/// # Errors
/// One line each, with the culprit and the next step.
pub async fn run(dir: &Path, options: RunOptions) -> Result<(), RunError> {
    let _ = (dir, options);
    Err(RunError::NotYet)
}
