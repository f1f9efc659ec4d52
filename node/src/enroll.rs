//! How a machine becomes a node: the token, the pinned server, the pinned root.

use std::path::Path;

use ed25519_dalek::SigningKey;
use protocol::FleetId;
use protocol::enroll::{EnrollReply, Token};

use crate::config::{ListenAsked, NodeConfig, Role};

/// What the installer was given.
#[derive(Clone, Debug)]
pub struct EnrollOptions {
    /// The coordinator, e.g. `https://10.0.0.1:7443`.
    pub coordinator: String,
    /// The token.
    pub token: Token,
    /// Digest of the fleet's first root, given apart from the token.
    pub root_digest: FleetId,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Where the node should listen.
    pub listen: ListenAsked,
}

/// Why a machine did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// Not built yet.
    #[error("not built yet")]
    NotYet,
}

/// Enrols this machine over HTTPS and makes `dir` a node directory. `node.json` is written last.
///
/// # Errors
/// One line each, with the culprit and the next step.
pub async fn enroll(dir: &Path, options: EnrollOptions) -> Result<NodeConfig, EnrollError> {
    let _ = (dir, options);
    Err(EnrollError::NotYet)
}

/// Makes `dir` the directory of a node with `key`, from a reply that is checked first: the root
/// against `pinned`, the certificate against root and key. The coordinator makes its origin with it.
///
/// # Errors
/// When the reply does not hold or the directory cannot be written.
pub fn adopt(
    dir: &Path,
    key: &SigningKey,
    reply: &EnrollReply,
    pinned: FleetId,
    role: Role,
    labels: Vec<(String, String)>,
    listen: ListenAsked,
) -> Result<NodeConfig, EnrollError> {
    let _ = (dir, key, reply, pinned, role, labels, listen);
    Err(EnrollError::NotYet)
}
