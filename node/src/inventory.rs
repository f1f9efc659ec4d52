//! What a node knows of its machine.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::config::{ConfigError, NodeConfig};

/// What a node knows of its machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Inventory {
    /// Operating system, as `std::env::consts::OS` has it.
    pub os: String,
    /// Architecture, as `std::env::consts::ARCH` has it.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
    /// Name of the machine now.
    pub hostname: String,
    /// The node's id.
    pub node: String,
    /// The fleet's id.
    pub fleet: String,
    /// Labels as the installer set them.
    pub labels: BTreeMap<String, String>,
    /// Where it listens, control plane then data plane.
    pub addresses: Vec<String>,
    /// This program's version.
    pub version: String,
}

/// Name of this machine, for people.
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Takes the inventory.
///
/// # Errors
/// When the directory is not a node's.
pub fn take(dir: &Path) -> Result<Inventory, ConfigError> {
    let config = NodeConfig::load(dir)?;
    let address = |port| std::net::SocketAddr::new(config.listen.address, port).to_string();
    Ok(Inventory {
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        hostname: hostname(),
        node: config.node.to_string(),
        fleet: config.fleet.to_string(),
        labels: config.labels.iter().cloned().collect(),
        addresses: vec![
            address(config.listen.control_port),
            address(config.listen.data_port),
        ],
        version: env!("CARGO_PKG_VERSION").into(),
    })
}
