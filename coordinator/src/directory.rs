//! The coordinator's directory: where everything lies, and `coordinator.json`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use coordinator_core::timeframes::{Frame, TimeFrames};
use protocol::plan::Priority;
use protocol::wire::Contact;
use protocol::{FleetId, Hash, NodeId, Span};
use serde::{Deserialize, Serialize};

use crate::cli::units::span;

/// See [`Settings::certificate_life`].
const CERTIFICATE_LIFE: Span = Span::from_secs(365 * 86_400);

/// Why a directory is not a coordinator's. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Not there.
    #[error("{0} does not exist; make it with `tidegate init --dir {0}`")]
    Missing(PathBuf),
    /// Something else is there.
    #[error(
        "{0} is not a coordinator's directory (it has no coordinator.json); make one with `tidegate init`"
    )]
    Foreign(PathBuf),
    /// A file cannot be read.
    #[error("{path} cannot be read: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Parts of two fleets.
    #[error("{path} belongs to fleet {found}, but the directory is of fleet {expected}")]
    OtherFleet {
        /// The file.
        path: PathBuf,
        /// The fleet it names.
        found: FleetId,
        /// The fleet that was expected.
        expected: FleetId,
    },
}

/// What `coordinator.json` says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet.
    pub fleet: FleetId,
    /// Its name for people.
    pub fleet_name: String,
    /// The coordinator as a control peer.
    pub coordinator: NodeId,
    /// The origin.
    pub origin: NodeId,
    /// Nodes reach coordinator and origin under this address, if not under those below.
    #[serde(default)]
    pub public: Option<IpAddr>,
    /// The HTTPS API listens here.
    pub api: SocketAddr,
    /// The control plane listens here (TCP and UDP of the same port).
    pub control: SocketAddr,
    /// The origin's control plane listens here (TCP and UDP of the same port).
    pub origin_control: SocketAddr,
    /// The origin's data plane listens here (UDP).
    pub origin_data: SocketAddr,
    /// BLAKE3 of the DER of the API's certificate.
    pub server_pin: Hash,
    /// Certificates of nodes hold for so long; a year if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_life: Option<Span>,
    /// By when rollouts are to be through, where that is not as usual.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub time_frames: BTreeMap<Priority, FrameText>,
    /// All rollouts but emergencies together start on no more nodes in a UTC day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_per_day: Option<u32>,
}

/// A time frame as people write it: lengths such as `24h` or `7d`, from a rollout's start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameText {
    /// Through by then, if all goes well.
    pub target: String,
    /// Through by then at the latest.
    pub latest: String,
}

/// A coordinator's directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Names a directory; reads nothing.
    pub fn new(path: impl Into<PathBuf>) -> Directory {
        Directory { path: path.into() }
    }
    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// `coordinator.json`.
    pub fn settings_file(&self) -> PathBuf {
        self.path.join("coordinator.json")
    }
    /// `root.json`: the root envelopes, rising.
    pub fn root_file(&self) -> PathBuf {
        self.path.join("root.json")
    }
    /// `api-token` (0600).
    pub fn api_token_file(&self) -> PathBuf {
        self.path.join("api-token")
    }
    /// `ledger.redb`.
    pub fn ledger_file(&self) -> PathBuf {
        self.path.join("ledger.redb")
    }
    /// `lock`: held by the coordinator that runs here.
    pub fn lock_file(&self) -> PathBuf {
        self.path.join("lock")
    }
    /// `store.redb`: tokens, issued orders, pending recalls.
    pub fn store_file(&self) -> PathBuf {
        self.path.join("store.redb")
    }
    /// `keys/`: offline keys, unless they were written elsewhere. Never read by `serve`.
    pub fn keys_dir(&self) -> PathBuf {
        self.path.join("keys")
    }
    /// `online/`: the key that signs orders and receipts (0600).
    pub fn online_dir(&self) -> PathBuf {
        self.path.join("online")
    }
    /// `ca/`: the issuing CA.
    pub fn ca_dir(&self) -> PathBuf {
        self.path.join("ca")
    }
    /// `peer/`: the coordinator's identity on the control plane.
    pub fn peer_dir(&self) -> PathBuf {
        self.path.join("peer")
    }
    /// `server/`: certificate and key of the HTTPS API.
    pub fn server_dir(&self) -> PathBuf {
        self.path.join("server")
    }
    /// The key that signs orders and receipts.
    pub fn online_key_file(&self) -> PathBuf {
        self.online_dir().join("coordinator.key")
    }
    /// The online key that a coming root names; takes the place of the other when that root comes.
    pub fn next_online_key_file(&self) -> PathBuf {
        self.online_dir().join("next.key")
    }
    /// The issuing CA's key.
    pub fn ca_key_file(&self) -> PathBuf {
        self.ca_dir().join("ca.key")
    }
    /// The issuing CA's certificate, DER.
    pub fn ca_certificate_file(&self) -> PathBuf {
        self.ca_dir().join("ca.der")
    }
    /// The key of the issuing CA that a coming root names; takes the place of the other when that root comes.
    pub fn next_ca_key_file(&self) -> PathBuf {
        self.ca_dir().join("next.key")
    }
    /// Its certificate, DER.
    pub fn next_ca_certificate_file(&self) -> PathBuf {
        self.ca_dir().join("next.der")
    }
    /// The issuing CA's certificate and those above it up to an enterprise's root (PEM), if one signed it.
    pub fn ca_chain_file(&self) -> PathBuf {
        self.ca_dir().join("ca.chain")
    }
    /// The same of the next CA.
    pub fn next_ca_chain_file(&self) -> PathBuf {
        self.ca_dir().join("next.chain")
    }
    /// The API's key.
    pub fn server_key_file(&self) -> PathBuf {
        self.server_dir().join("server.key")
    }
    /// The API's certificate, DER.
    pub fn server_certificate_file(&self) -> PathBuf {
        self.server_dir().join("server.der")
    }
    /// `origin/`: the origin's node directory.
    pub fn origin_dir(&self) -> PathBuf {
        self.path.join("origin")
    }
    /// `origin/uploads/`: uploads on their way.
    pub fn uploads_dir(&self) -> PathBuf {
        self.origin_dir().join("uploads")
    }
    /// `origin/incoming/`: where whole uploads land, for the origin to verify.
    pub fn incoming_dir(&self) -> PathBuf {
        self.origin_dir().join("incoming")
    }

    /// Reads `coordinator.json`.
    ///
    /// # Errors
    /// When the directory or the file is missing or unreadable.
    pub fn settings(&self) -> Result<Settings, DirectoryError> {
        if !self.path.is_dir() {
            return Err(DirectoryError::Missing(self.path.clone()));
        }
        let path = self.settings_file();
        let unreadable = |why: String| DirectoryError::Unreadable {
            path: path.clone(),
            why,
        };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(DirectoryError::Foreign(self.path.clone()));
            }
            Err(e) => return Err(unreadable(e.to_string())),
        };
        let settings: Settings =
            serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
        if settings.spec_version != 1 {
            return Err(unreadable(format!(
                "spec_version {} is not known to this program",
                settings.spec_version
            )));
        }
        settings.time_frames().map_err(unreadable)?;
        if settings.starts_per_day == Some(0) {
            return Err(unreadable(
                "starts_per_day is 0, so nothing would ever start; leave it out for no cap".into(),
            ));
        }
        Ok(settings)
    }

    /// Reads the API token.
    ///
    /// # Errors
    /// When it is missing or unreadable.
    pub fn api_token(&self) -> Result<String, DirectoryError> {
        let path = self.api_token_file();
        std::fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(|e| DirectoryError::Unreadable {
                path,
                why: e.to_string(),
            })
    }
}

impl Settings {
    /// The time frame of each priority.
    ///
    /// # Errors
    /// Names the priority whose frame cannot be.
    pub fn time_frames(&self) -> Result<TimeFrames, String> {
        let mut frames = TimeFrames::default();
        for (priority, text) in &self.time_frames {
            let wrong = |why: String| format!("time_frames, {priority:?}: {why}");
            let frame = Frame {
                target: span(&text.target).map_err(wrong)?,
                latest: span(&text.latest).map_err(wrong)?,
            };
            if frame.latest < frame.target {
                return Err(wrong("the latest date is before the target".into()));
            }
            frames.set(*priority, frame);
        }
        Ok(frames)
    }

    /// Certificates of nodes hold for so long.
    pub fn certificate_life(&self) -> Span {
        self.certificate_life.unwrap_or(CERTIFICATE_LIFE)
    }

    /// Where delegates report.
    pub fn coordinator_contact(&self) -> Contact {
        Contact {
            node: self.coordinator,
            control: multiaddrs(self.reached(self.control)).into(),
            data: None,
        }
    }

    /// Where every blob is from the start.
    pub fn origin_contact(&self) -> Contact {
        Contact {
            node: self.origin,
            control: multiaddrs(self.reached(self.origin_control)).into(),
            data: Some(self.reached(self.origin_data)),
        }
    }

    /// Where this machine reaches the API.
    pub fn local_api(&self) -> SocketAddr {
        let ip = match self.api.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        SocketAddr::new(ip, self.api.port())
    }

    /// Where nodes reach the API.
    pub fn public_api(&self) -> SocketAddr {
        self.reached(self.api)
    }

    fn reached(&self, listen: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.public.unwrap_or(listen.ip()), listen.port())
    }
}

/// The libp2p addresses of a socket address: QUIC first, then TCP.
pub fn multiaddrs(address: SocketAddr) -> Vec<String> {
    let (kind, ip, port) = (
        if address.is_ipv4() { "ip4" } else { "ip6" },
        address.ip(),
        address.port(),
    );
    vec![
        format!("/{kind}/{ip}/udp/{port}/quic-v1"),
        format!("/{kind}/{ip}/tcp/{port}"),
    ]
}
