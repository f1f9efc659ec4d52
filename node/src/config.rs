//! `node.json`: what a node was told when it was enrolled.
//!
//! It is written last at enrolment, so a directory that has it is a whole node.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use node_core::contract::NodeRole;
use protocol::wire::Contact;
use protocol::{FleetId, Hash, NodeId, SiteId, Time};
use serde::{Deserialize, Serialize};

use crate::net::data::Dscp;

/// The longest `node.json` that is read.
const CONFIG_MAX_BYTES: u64 = 1 << 20;

/// What a node was told when it was enrolled.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Format version, 1.
    pub spec_version: u32,
    /// Whose orders it takes: the digest of the first root.
    pub fleet: FleetId,
    /// Who it is.
    pub node: NodeId,
    /// What it is for.
    pub role: Role,
    /// For people.
    pub hostname: String,
    /// Labels as the installer set them.
    #[serde(default)]
    pub labels: Vec<(String, String)>,
    /// The site that the token was made for, for people; the topology decides.
    #[serde(default)]
    pub site: Option<SiteId>,
    /// Where it listens, and from where it connects.
    pub listen: Listen,
    /// Where delegates report, until a bulletin says otherwise.
    pub coordinators: Vec<Contact>,
    /// Nodes that hold every blob, until a bulletin says otherwise.
    pub origins: Vec<Contact>,
    /// The epoch of its own counters.
    pub epoch: u32,
    /// Wall time of the enrolment, by this machine's clock.
    pub enrolled: Time,
    /// Its IANA zone, if that is another than the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Whether its link is paid by the byte, if anybody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metered: Option<bool>,
    /// The ring that filters may ask for, such as `canary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring: Option<String>,
    /// What it would mean if the machine failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criticality: Option<Criticality>,
    /// Program and arguments that show a line to the machine's user; the line is added as the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<String>,
    /// Program and arguments that restart the machine, for releases that need it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<String>,
    /// The socket of the privileged process that installs in this one's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<PathBuf>,
    /// The product that is the agent itself: its releases are what `tidegate-node run` runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<SiteId>,
    /// How its data packets are marked, by class.
    #[serde(default, skip_serializing_if = "Dscp::is_empty")]
    pub dscp: Dscp,
    /// The machine that the directory belongs to, as a digest, if anything names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Hash>,
}

/// What it would mean if a machine failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Criticality {
    /// The enterprise's work stops.
    MissionCritical,
    /// One person's does.
    Standard,
    /// Hardly anybody notices.
    Low,
}

impl Criticality {
    /// As filters name it.
    pub fn name(self) -> &'static str {
        match self {
            Criticality::MissionCritical => "mission_critical",
            Criticality::Standard => "standard",
            Criticality::Low => "low",
        }
    }
}

/// What a node is for, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Fetches, installs, serves its site.
    #[default]
    Endpoint,
    /// Holds every blob and serves them; installs nothing.
    Origin,
}

impl From<Role> for NodeRole {
    fn from(role: Role) -> NodeRole {
        match role {
            Role::Endpoint => NodeRole::Endpoint,
            Role::Origin => NodeRole::Origin,
        }
    }
}

/// An address and the ports on it. They stay the same across restarts, so that others find the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listen {
    /// The address; unspecified means all of the machine's.
    pub address: IpAddr,
    /// TCP and QUIC port of the control plane.
    pub control_port: u16,
    /// UDP port of the data plane, and its TCP port.
    pub data_port: u16,
}

/// Where a node should listen, as asked for; ports that are 0 are picked from what is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListenAsked {
    /// The address; unspecified means all of the machine's.
    pub address: IpAddr,
    /// Port of the control plane, or 0.
    pub control_port: u16,
    /// Port of the data plane, or 0.
    pub data_port: u16,
}

impl Default for ListenAsked {
    fn default() -> ListenAsked {
        ListenAsked {
            address: Ipv4Addr::UNSPECIFIED.into(),
            control_port: 0,
            data_port: 0,
        }
    }
}

/// Why a node directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Nobody enrolled it.
    #[error("{} is not a node directory (no node.json): enrol the machine with 'tidegate-node enroll'", .0.display())]
    NotEnrolled(PathBuf),
    /// The file is there and not understood.
    #[error("{} is not understood ({why}): enrol the machine again in an empty directory", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Settings of the privileged installer.
    #[error("{}: {why}", .path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The machine refused.
    #[error("{} cannot be read or written: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No port was free.
    #[error("no free port on {address}: {source}")]
    NoPort {
        /// The address.
        address: IpAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl NodeConfig {
    /// Where it stands below a node directory.
    pub fn path(dir: &Path) -> PathBuf {
        dir.join("node.json")
    }

    /// Reads it.
    ///
    /// # Errors
    /// When the directory is not enrolled, or the file is unreadable or not understood.
    pub fn load(dir: &Path) -> Result<NodeConfig, ConfigError> {
        let path = NodeConfig::path(dir);
        let malformed = |why: String| ConfigError::Malformed {
            path: path.clone(),
            why,
        };
        let length = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(ConfigError::NotEnrolled(dir.to_owned()));
            }
            Err(source) => return Err(ConfigError::Io { path, source }),
        };
        if length > CONFIG_MAX_BYTES {
            return Err(malformed(format!("{length} bytes")));
        }
        let bytes = fs::read(&path).map_err(|source| ConfigError::Io {
            path: path.clone(),
            source,
        })?;
        let config: NodeConfig =
            serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        if config.spec_version != 1 {
            return Err(malformed(format!(
                "its version {} is newer than this program",
                config.spec_version
            )));
        }
        config.dscp.check().map_err(malformed)?;
        Ok(config)
    }

    /// Writes it durably, all or nothing.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn store(&self, dir: &Path) -> Result<(), ConfigError> {
        let json = serde_json::to_vec_pretty(self).expect("a config is plain data");
        write_durably(&NodeConfig::path(dir), &json, 0o644)
    }
}

impl ListenAsked {
    /// Fixes the ports: those asked for, or ones that are free for TCP and UDP.
    ///
    /// # Errors
    /// When the address is not this machine's or nothing is free.
    pub fn settle(self) -> Result<Listen, ConfigError> {
        let address = self.address;
        let refuse = |source| ConfigError::NoPort { address, source };
        let settle = |port, taken| match port {
            0 => free_port(address, taken).map_err(refuse),
            port => Ok(port),
        };
        let control_port = settle(self.control_port, self.data_port)?;
        let data_port = settle(self.data_port, control_port)?;
        Ok(Listen {
            address,
            control_port,
            data_port,
        })
    }
}

/// A port that is free for TCP and UDP, and another one than `taken`.
fn free_port(address: IpAddr, taken: u16) -> std::io::Result<u16> {
    use std::net::{TcpListener, UdpSocket};
    // Held, so that the system does not offer the same again.
    let mut held = Vec::new();
    loop {
        let tcp = TcpListener::bind((address, 0))?;
        let port = tcp.local_addr()?.port();
        held.push(tcp);
        match UdpSocket::bind((address, port)) {
            Ok(_) if port != taken => return Ok(port),
            Err(error) if held.len() >= 64 => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Writes a file so that after a crash either the old or the new one stands, whole.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ConfigError> {
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |source| ConfigError::Io {
        path: path.to_owned(),
        source,
    };
    let mut fresh = path.to_owned().into_os_string();
    fresh.push(".new");
    let fresh = std::path::PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&fresh, path).map_err(failed)?;
    fs::File::open(directory_of(path))
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}

/// Where a file's name stands. A bare name's parent is empty, and stands in the working directory.
pub fn directory_of(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The story: `tidegate token --installer FILE` wrote the file and said that it could not.
    #[test]
    fn a_bare_name_stands_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
        assert_eq!(directory_of(Path::new("dir/file")), Path::new("dir"));
        assert_eq!(directory_of(Path::new("/file")), Path::new("/"));
    }

    pub(crate) fn sample(dir: &Path) -> NodeConfig {
        let listen = ListenAsked {
            address: Ipv4Addr::LOCALHOST.into(),
            ..Default::default()
        }
        .settle()
        .unwrap();
        let config = NodeConfig {
            spec_version: 1,
            fleet: FleetId([1; 32]),
            node: NodeId([2; 32]),
            role: Role::Endpoint,
            hostname: "box".into(),
            labels: vec![("ring".into(), "canary".into())],
            site: None,
            listen,
            coordinators: Vec::new(),
            origins: Vec::new(),
            epoch: 0,
            enrolled: Time::from_secs(1),
            zone: None,
            metered: None,
            ring: None,
            criticality: None,
            notify: Vec::new(),
            restart: Vec::new(),
            installer: None,
            agent: None,
            dscp: Dscp::default(),
            machine: None,
        };
        config.store(dir).unwrap();
        config
    }

    #[test]
    fn comes_back_as_written_and_leaves_no_scratch_file() {
        let dir = tempfile::tempdir().unwrap();
        let config = sample(dir.path());
        assert_eq!(NodeConfig::load(dir.path()).unwrap(), config);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_ne!(config.listen.control_port, config.listen.data_port);
    }

    #[test]
    fn a_config_is_read_and_written_as_ever() {
        let dir = tempfile::tempdir().unwrap();
        let least = NodeConfig {
            listen: Listen {
                address: Ipv4Addr::new(127, 1, 0, 1).into(),
                control_port: 4001,
                data_port: 4002,
            },
            ..sample(dir.path())
        };
        let whole = NodeConfig {
            role: Role::Origin,
            site: Some("s1".parse().unwrap()),
            listen: Listen {
                address: std::net::Ipv6Addr::LOCALHOST.into(),
                ..least.listen
            },
            coordinators: vec![protocol::fixtures::contact(1)],
            origins: vec![Contact {
                data: None,
                ..protocol::fixtures::contact(2)
            }],
            epoch: 3,
            ..least.clone()
        };
        let laptop = NodeConfig {
            zone: Some("Europe/Berlin".into()),
            metered: Some(true),
            notify: vec!["notify-send".into(), "Tidegate".into()],
            ..least.clone()
        };
        let marked = NodeConfig {
            dscp: Dscp {
                background: 1,
                ..Dscp::default()
            },
            ..least.clone()
        };
        let write = |config: &NodeConfig| {
            config.store(dir.path()).unwrap();
            fs::read(NodeConfig::path(dir.path())).unwrap()
        };
        let bound = NodeConfig {
            machine: Some(Hash::of(b"machine")),
            ..least.clone()
        };
        let restarts = NodeConfig {
            restart: vec!["systemctl".into(), "reboot".into()],
            ..least.clone()
        };
        let pair = NodeConfig {
            installer: Some("/run/tidegate/installer.sock".into()),
            ..least.clone()
        };
        let samples = [
            ("pair.json".into(), write(&pair)),
            ("restarts.json".into(), write(&restarts)),
            ("bound.json".into(), write(&bound)),
            ("endpoint.json".into(), write(&least)),
            ("laptop.json".into(), write(&laptop)),
            ("marked.json".into(), write(&marked)),
            ("origin.json".into(), write(&whole)),
        ];
        crate::golden::check("node-config", &samples, |bytes| {
            fs::write(NodeConfig::path(dir.path()), bytes).unwrap();
            let config = NodeConfig::load(dir.path()).map_err(|e| e.to_string())?;
            Ok(write(&config))
        });
    }

    #[test]
    fn says_what_is_wrong_with_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        assert!(
            NodeConfig::load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("tidegate-node enroll")
        );
        fs::write(NodeConfig::path(dir.path()), b"{").unwrap();
        assert!(matches!(
            NodeConfig::load(dir.path()),
            Err(ConfigError::Malformed { .. })
        ));
        let mut config = sample(dir.path());
        config.spec_version = 9;
        config.store(dir.path()).unwrap();
        assert!(
            NodeConfig::load(dir.path())
                .unwrap_err()
                .to_string()
                .contains("newer than this program")
        );
    }
}
