//! `tidegate init`: a new fleet.
//!
//! Makes the offline keys (root, releases, one per operator), the online keys (coordinator, issuing
//! CA, API), root metadata, the origin's node directory and an empty ledger. `serve` needs none of
//! the offline keys; they may be written to another medium with [`Options::keys`].

mod fleet;
mod options;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use protocol::{FleetId, Span};

pub(crate) use fleet::{CA_LIFE, FIRST_EPOCH, SKEW, restore_origin, serial, wall};

use crate::directory::Directory;
use crate::keys::KeyError;

/// A key to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySpec {
    /// Its name: the file is `NAME.pem`.
    pub name: String,
    /// Encrypts it; none leaves it plain with mode 0600.
    pub passphrase: Option<String>,
}

impl KeySpec {
    /// A plain key.
    pub fn plain(name: &str) -> KeySpec {
        KeySpec {
            name: name.to_owned(),
            passphrase: None,
        }
    }
}

/// What a new fleet is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// A name for people.
    pub fleet_name: String,
    /// Keys that sign root metadata.
    pub root: Vec<KeySpec>,
    /// Of those, so many must sign.
    pub root_threshold: u32,
    /// Keys that sign releases.
    pub releases: Vec<KeySpec>,
    /// Of those, so many must sign.
    pub releases_threshold: u32,
    /// Operators: they sign proposals, plans and recalls, and, one alone, the topology.
    pub operators: Vec<KeySpec>,
    /// Of those, so many must sign a plan; the proposer never counts.
    pub plans_threshold: u32,
    /// Where offline keys are written; `DIR/keys` if none.
    pub keys: Option<PathBuf>,
    /// Nodes reach coordinator and origin under this address; needed if the addresses below are
    /// unspecified (`0.0.0.0`) or behind a translation.
    pub public: Option<IpAddr>,
    /// The HTTPS API listens here. Port 0: a free one is chosen now and kept.
    pub api: SocketAddr,
    /// The control plane listens here, TCP and UDP. Port 0 as above.
    pub control: SocketAddr,
    /// The origin's control plane listens here, TCP and UDP. Port 0 as above.
    pub origin_control: SocketAddr,
    /// The origin's data plane listens here, UDP and TCP, on the same address. Port 0 as above.
    pub origin_data: SocketAddr,
    /// Further names or addresses under which nodes reach the API, for its certificate.
    pub api_names: Vec<String>,
    /// The root metadata expires after this.
    pub root_life: Span,
}

impl Default for Options {
    /// One root key, one release key, operators `alice`, `bob` and `carol` of whom two approve, all
    /// plain; loopback, free ports.
    fn default() -> Options {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        Options {
            fleet_name: "fleet".into(),
            root: vec![KeySpec::plain("root")],
            root_threshold: 1,
            releases: vec![KeySpec::plain("releases")],
            releases_threshold: 1,
            operators: ["alice", "bob", "carol"].map(KeySpec::plain).to_vec(),
            plans_threshold: 2,
            keys: None,
            public: None,
            api: local,
            control: local,
            origin_control: local,
            origin_data: local,
            api_names: Vec::new(),
            root_life: Span::from_secs(365 * 86_400),
        }
    }
}

/// Why no fleet was made. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A fleet is there.
    #[error("{path} already holds fleet {fleet}; choose another directory")]
    OtherFleet {
        /// The directory.
        path: PathBuf,
        /// Its fleet.
        fleet: FleetId,
    },
    /// Something is there.
    #[error("{0} is not empty; choose a new directory")]
    NotEmpty(PathBuf),
    /// The options do not fit together.
    #[error("{0}")]
    Options(String),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The disk.
    #[error("{path} cannot be written: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate, the ledger, …
    #[error("{0}")]
    Other(String),
}

/// Makes DIR and all that a coordinator needs in it. Gives the root's digest, which nodes pin.
///
/// # Errors
/// When something is there already, the options do not fit together, or the disk fails. Nothing
/// half-made stays.
pub fn init(dir: &Path, options: &Options) -> Result<FleetId, InitError> {
    options::check(options)?;
    let ports = options::settle(options)?;
    let target = Directory::new(dir);
    if let Ok(settings) = target.settings() {
        return Err(InitError::OtherFleet {
            path: dir.to_owned(),
            fleet: settings.fleet,
        });
    }
    let existed = dir.exists();
    if existed && dir.read_dir().map_err(io(dir))?.next().is_some() {
        return Err(InitError::NotEmpty(dir.to_owned()));
    }
    make_dir(dir)?;
    let made = fleet::make(&target, options, &ports);
    if made.is_err() {
        // What stands there was made above, and no fleet needs it.
        let _ = fs::remove_dir_all(dir);
        if existed {
            let _ = fs::create_dir(dir);
        }
    }
    made
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> InitError {
    let path = path.to_owned();
    move |source| InitError::Io { path, source }
}

/// A directory that only its owner may enter.
fn make_dir(path: &Path) -> Result<(), InitError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(io(path))
}

#[cfg(test)]
mod tests;
