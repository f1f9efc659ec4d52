//! The status socket: whoever may open `DIR/run/status.sock` gets one JSON object and an end. Beside it stands the
//! socket for wishes ([`super::wishes`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use node_core::contract::{Snapshot, Wish};
use protocol::envelope::Envelope;
use protocol::wire::Contact;
use protocol::{FleetId, Hash, NodeId, RolloutId, SiteId, Time};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::net::data::Counters;

/// Askers that are served at the same time; more are turned away.
const ASKERS_MAX: usize = 16;
/// An asker takes its answer within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that an asker reads.
const REPORT_MAX_BYTES: u64 = 64 << 20;
/// A Unix socket's path fits about so much; a longer one is opened through its directory.
const SOCKET_PATH_MAX: usize = 100;

/// What is asked of the loop on its sockets.
pub enum Request {
    /// A report.
    Report(oneshot::Sender<Report>),
    /// A wish of the machine's user, about a rollout or the one that can be meant.
    Wish(
        Option<RolloutId>,
        Wish,
        oneshot::Sender<Result<String, String>>,
    ),
    /// Roots from the coordinator's API, rising; answered with whether there was a newer one.
    Roots(Vec<Envelope>, oneshot::Sender<bool>),
}

/// Where a node stands.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Who it is.
    pub node: NodeId,
    /// Its fleet.
    pub fleet: FleetId,
    /// Its process.
    pub pid: u32,
    /// The version of the agent that it is, if a keeper runs it; empty for the keeper's own program.
    pub agent: Option<String>,
    /// Wall time of its start.
    pub started: Time,
    /// Where others reach it.
    pub contact: Contact,
    /// The root that it trusts.
    pub root_version: u64,
    /// Digest of the revocation list in force.
    pub revocations: Option<Hash>,
    /// The brain in a nutshell.
    pub snapshot: Snapshot,
    /// Bytes on the data plane since the start.
    pub traffic: Traffic,
    /// Why steps wait for the privileged installer, if they do.
    pub installer: Option<String>,
    /// Fetches under way.
    pub fetches: usize,
}

/// Bytes on the data plane since the node's start.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Traffic {
    /// Payload bytes of verified groups that came over the site's WAN.
    pub wan_payload_in: u64,
    /// By the site of the other end.
    pub sites: Vec<SiteTraffic>,
    /// Payload bytes of verified groups that were here already when they came.
    pub again: u64,
    /// Bytes that were of no use, by the peer that sent them.
    pub wasted: Vec<PeerWaste>,
}

/// What came from a peer and was of no use, in bytes, by what became of the fetch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PeerWaste {
    /// The peer.
    pub node: NodeId,
    /// They, or others beside them, did not verify.
    pub lies: u64,
    /// The peer was too slow to complete a group.
    pub stalls: u64,
    /// The connection broke within a group.
    pub breaks: u64,
    /// They were not wanted any more, or could not be written.
    pub dropped: u64,
}

/// Bytes between the node and one site.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SiteTraffic {
    /// The other end's site; none for addresses outside the topology.
    pub site: Option<SiteId>,
    /// Datagram bytes received at the socket.
    pub socket_in: u64,
    /// Datagram bytes sent at the socket.
    pub socket_out: u64,
    /// Payload bytes of groups that verified.
    pub payload_in: u64,
    /// Payload bytes of groups that were sent.
    pub payload_out: u64,
}

impl Traffic {
    /// What the data plane counted.
    pub fn of(counters: &Counters) -> Traffic {
        let line = |(site, count): (&Option<SiteId>, &crate::net::data::SiteCount)| SiteTraffic {
            site: site.clone(),
            socket_in: count.socket_in,
            socket_out: count.socket_out,
            payload_in: count.payload_in,
            payload_out: count.payload_out,
        };
        let waste = |(node, wasted): (&NodeId, &crate::net::data::Wasted)| PeerWaste {
            node: *node,
            lies: wasted.lies,
            stalls: wasted.stalls,
            breaks: wasted.breaks,
            dropped: wasted.dropped,
        };
        Traffic {
            wan_payload_in: counters.wan_payload_in,
            sites: counters.sites.iter().map(line).collect(),
            again: counters.again,
            wasted: counters.wasted.iter().map(waste).collect(),
        }
    }
}

/// Why a node's status is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody listens.
    #[error("no node runs on {}: start it with 'tidegate-node run --dir {}'", .0.display(), .0.display())]
    NotRunning(PathBuf),
    /// The socket cannot be made or read.
    #[error("{}: {source}", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn socket_path(dir: &Path) -> PathBuf {
    dir.join("run").join("status.sock")
}

/// Keeps a directory open while a long socket path is used through it.
struct Door {
    path: PathBuf,
    _directory: Option<fs::File>,
}

fn door(path: &Path) -> io::Result<Door> {
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok(Door {
            path: path.to_owned(),
            _directory: None,
        });
    }
    use std::os::fd::AsRawFd;
    let directory = fs::File::open(crate::config::directory_of(path))?;
    let name = path.file_name().unwrap_or_default();
    Ok(Door {
        path: PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name),
        _directory: Some(directory),
    })
}

/// Opens both sockets and serves them until the returned tasks are aborted.
///
/// # Errors
/// When a socket cannot be made.
pub fn serve(
    dir: &Path,
    requests: mpsc::Sender<Request>,
) -> Result<[tokio::task::JoinHandle<()>; 2], StatusError> {
    let wishes = requests.clone();
    Ok([
        listen(socket_path(dir), move |stream| {
            report(stream, requests.clone())
        })?,
        listen(super::wishes::socket_path(dir), move |stream| {
            super::wishes::serve(stream, wishes.clone())
        })?,
    ])
}

fn listen<F: Future<Output = Option<()>> + Send + 'static>(
    path: PathBuf,
    serve: impl Fn(UnixStream) -> F + Send + 'static,
) -> Result<tokio::task::JoinHandle<()>, StatusError> {
    use std::os::unix::fs::PermissionsExt;
    let refuse = |source| StatusError::Socket {
        path: path.clone(),
        source,
    };
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(refuse(e)),
        _ => {}
    }
    let door = door(&path).map_err(refuse)?;
    let listener = UnixListener::bind(&door.path).map_err(refuse)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(refuse)?;
    let askers = Arc::new(Semaphore::new(ASKERS_MAX));
    Ok(tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors: others need them more.
                tokio::time::sleep(PATIENCE).await;
                continue;
            };
            let Ok(room) = askers.clone().try_acquire_owned() else {
                continue;
            };
            let served = serve(stream);
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, served).await;
                drop(room);
            });
        }
    }))
}

async fn report(mut stream: UnixStream, requests: mpsc::Sender<Request>) -> Option<()> {
    let (ask, answer) = oneshot::channel();
    requests.send(Request::Report(ask)).await.ok()?;
    let json = serde_json::to_vec(&answer.await.ok()?).ok()?;
    stream.write_all(&json).await.ok()?;
    stream.shutdown().await.ok()
}

/// Asks the node that runs on `dir`.
///
/// # Errors
/// When none runs, or it does not answer.
pub async fn read(dir: &Path) -> Result<serde_json::Value, StatusError> {
    let path = socket_path(dir);
    let refuse = |source| StatusError::Socket {
        path: path.clone(),
        source,
    };
    let ask = async {
        let stream = connect(&path).await?;
        let mut json = Vec::new();
        stream.take(REPORT_MAX_BYTES).read_to_end(&mut json).await?;
        io::Result::Ok(json)
    };
    let json = patiently(dir, &path, PATIENCE, ask).await?;
    serde_json::from_slice(&json).map_err(|_| refuse(io::ErrorKind::UnexpectedEof.into()))
}

pub(super) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let door = door(path)?;
    UnixStream::connect(&door.path).await
}

/// Waits for an exchange with the node of `dir`, and says whose fault it is when nothing comes of it.
pub(super) async fn patiently<T>(
    dir: &Path,
    path: &Path,
    patience: Duration,
    exchange: impl Future<Output = io::Result<T>>,
) -> Result<T, StatusError> {
    let refuse = |source| StatusError::Socket {
        path: path.to_owned(),
        source,
    };
    match tokio::time::timeout(patience, exchange).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                StatusError::NotRunning(dir.to_owned())
            }
            _ => refuse(e),
        }),
        Err(_) => Err(refuse(io::ErrorKind::TimedOut.into())),
    }
}
