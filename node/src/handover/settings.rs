//! `installer.json`: whom the privileged process serves, fixed at its first start.

use std::fs;
use std::path::{Path, PathBuf};

use protocol::{FleetId, NodeId};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, NodeConfig, write_durably};

/// The longest file that is read.
const SETTINGS_MAX_BYTES: u64 = 64 << 10;

/// What is said at the first start.
#[derive(Clone, Debug)]
pub struct SetUp {
    /// The directory of the node, which holds its blobs.
    pub node_dir: PathBuf,
    /// The user who runs the node, by number.
    pub user: u32,
    /// Where the installer listens.
    pub socket: PathBuf,
}

/// Whom the installer serves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstallerSettings {
    /// Format version, 1.
    pub spec_version: u32,
    /// Whose releases it installs: the digest of the first root.
    pub fleet: FleetId,
    /// The node that plans must name.
    pub node: NodeId,
    /// The directory of the node.
    pub node_dir: PathBuf,
    /// The user who may ask.
    pub user: u32,
    /// Where it listens.
    pub socket: PathBuf,
    /// Program and arguments that restart the machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
}

impl InstallerSettings {
    fn path(dir: &Path) -> PathBuf {
        dir.join("installer.json")
    }

    /// Reads what was fixed at the first start, or fixes it now. What the node's own file says counts
    /// that one time.
    ///
    /// # Errors
    /// When the file is not understood, says otherwise than `set_up`, or is missing with nothing to fix.
    pub fn settle(dir: &Path, set_up: Option<SetUp>) -> Result<InstallerSettings, ConfigError> {
        let path = InstallerSettings::path(dir);
        let malformed = |why: String| ConfigError::Settings {
            path: path.clone(),
            why,
        };
        let io = |source| ConfigError::Io {
            path: path.clone(),
            source,
        };
        if !path.exists() {
            let first = "the first start needs --node-dir, --user and --socket";
            let set_up = set_up.ok_or_else(|| malformed(first.into()))?;
            let node = NodeConfig::load(&set_up.node_dir)?;
            let settings = InstallerSettings {
                spec_version: 1,
                fleet: node.fleet,
                node: node.node,
                node_dir: set_up.node_dir,
                user: set_up.user,
                socket: set_up.socket,
                restart: node.restart,
            };
            fs::create_dir_all(dir).map_err(io)?;
            let json = serde_json::to_vec_pretty(&settings).expect("settings are plain data");
            write_durably(&path, &json, 0o600)?;
            return Ok(settings);
        }
        if fs::metadata(&path).map_err(io)?.len() > SETTINGS_MAX_BYTES {
            return Err(malformed("it is too long".into()));
        }
        let json = fs::read(&path).map_err(io)?;
        let settings: InstallerSettings =
            serde_json::from_slice(&json).map_err(|e| malformed(e.to_string()))?;
        if settings.spec_version != 1 {
            return Err(malformed("it is newer than this program".into()));
        }
        let other = |said: &SetUp| {
            (&said.node_dir, said.user, &said.socket)
                != (&settings.node_dir, settings.user, &settings.socket)
        };
        if set_up.as_ref().is_some_and(other) {
            let why = "it was set up otherwise; edit it or leave the arguments away";
            return Err(malformed(why.into()));
        }
        Ok(settings)
    }
}
