//! A node from its directory to its end: locks, opens, listens, drives, leaves.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use node_core::contract::{Config, Tempo};
use node_core::renewal::Crowd;
use protocol::trust::{Trust, TrustError};
use tokio::sync::{mpsc, watch};

use crate::config::{ConfigError, NodeConfig, Role};
use crate::copies;
use crate::driver::status::{self, StatusError};
use crate::driver::{self, Clock, Driver, Intake, Parts, Shelf};
use crate::enroll::EnrollError;
use crate::facts::Facts;
use crate::handover::Courier;
use crate::install::Installer;
use crate::install::agent::{Agent, under_keeper};
use crate::net::control::{Control, ControlConfig, StartError};
use crate::net::data::{DataConfig, DataError, DataPlane};
use crate::net::identity::{Admission, Identity, IdentityError, RulesError};
use crate::reach::Reach;
use crate::renew;
use crate::store::blobs::{Blobs, StoreError};
use crate::store::records::{Records, RecordsError};

/// Status questions that wait for the loop.
const QUESTIONS_MAX: usize = 16;

/// The store is waited for this long when the node has ended.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(5);

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
    /// The directory is no node's, or its file cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process runs on the directory.
    #[error("{} is in use by process {pid}: stop that node first", .dir.display())]
    Running {
        /// The directory.
        dir: PathBuf,
        /// The other process.
        pid: String,
    },
    /// The directory cannot be locked or made ready.
    #[error("{} cannot be used: {source}", .path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory is another machine's, and this one could not be enrolled.
    #[error(transparent)]
    Copied(#[from] EnrollError),
    /// The database refused.
    #[error(transparent)]
    Records(#[from] RecordsError),
    /// The remembered chain of roots does not hold.
    #[error("the trusted root of {} does not hold ({why}): enrol the machine again in an empty directory", .dir.display())]
    Root {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The root's issuing CAs cannot be used.
    #[error("the root's issuing CAs cannot be used: {0}")]
    Admission(#[from] RulesError),
    /// Key or certificate cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The blobs cannot be opened.
    #[error(transparent)]
    Blobs(#[from] StoreError),
    /// The data plane's port is taken.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The control plane's port is taken.
    #[error(transparent)]
    Control(#[from] StartError),
    /// The status socket cannot be made.
    #[error(transparent)]
    Status(#[from] StatusError),
}

/// Why a node ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to.
    Asked,
    /// Another version of the agent is to be started in its place.
    Restart,
}

/// Runs the node of `dir` until SIGTERM or SIGINT, or until another version of the agent is to be started.
/// Its role stands in `node.json`.
///
/// # Errors
/// One line each, with the culprit and the next step.
pub async fn run(dir: &Path, options: RunOptions) -> Result<Ended, RunError> {
    let unusable = |source| RunError::Directory {
        path: dir.to_owned(),
        source,
    };
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).map_err(unusable)?;
    let mut int = signal(SignalKind::interrupt()).map_err(unusable)?;
    run_agent_until(dir, options, async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
    .await
}

/// Runs the node of `dir` until `end` is ready.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    dir: &Path,
    options: RunOptions,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    run_agent_until(dir, options, end).await.map(drop)
}

async fn run_agent_until(
    dir: &Path,
    options: RunOptions,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<Ended, RunError> {
    let config = NodeConfig::load(dir)?;
    let _lock = if under_keeper() {
        patient_lock(dir).await?
    } else {
        lock(dir)?
    };
    let config = copies::settle(dir, config).await?;
    let records = Arc::new(Records::open(dir)?);
    let trust = trust(dir, &config, &records)?;
    let clock = Arc::new(Clock::new(records.floor()?));
    let admission = Arc::new(Admission::new(driver::issuing_cas(trust.root()))?);
    let identity = Arc::new(Identity::load(dir, admission.clone())?);
    if let Some(own) = identity.chain().first() {
        let issued = driver::issued_at(own);
        clock.raise(issued);
        admission.own_issued(issued);
    }
    admission.floor_time(clock.floor());
    let revocations = match records.revocations()? {
        Some(digest) => records.document(digest)?.map(|der| (digest, der)),
        None => None,
    };
    let revocations = revocations.and_then(|(digest, der)| {
        let taken = admission.set_revocations(&protocol::revocation::parts(&der).0);
        taken
            .inspect_err(|e| tracing::warn!(event = "signature", "revocation list dropped: {e}"))
            .ok()
            .map(|_| digest)
    });
    let blobs = Blobs::open(&dir.join("store"))?;
    let store = blobs.lifeline();
    let loaded = records.load(&trust)?;
    for (event, line) in &loaded.dropped {
        tracing::warn!(event, "{line}");
    }

    let listen = config.listen;
    let data_address = SocketAddr::new(listen.address, listen.data_port);
    let (data, data_events) = DataPlane::bind(
        DataConfig {
            dscp: config.dscp,
            ..DataConfig::new(data_address)
        },
        identity.clone(),
        blobs.clone(),
    )
    .await?;
    let mut control_config =
        ControlConfig::at(SocketAddr::new(listen.address, listen.control_port));
    control_config.mdns = options.mdns;
    let (control, control_events) = Control::start(control_config, identity.clone()).await?;

    let reach = Reach::of(&config, data.local_addr().port());
    let contact = reach.contact(&control.listen_addrs());
    tracing::info!(
        event = "started",
        "node {} of fleet {} on {}",
        config.node.short(),
        config.fleet.short(),
        contact.control.join(" "),
    );
    let brain = Config {
        node: config.node,
        fleet: config.fleet,
        role: config.role.into(),
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        labels: config.labels.iter().cloned().collect(),
        attributes: crate::inventory::attributes(&config),
        contact,
        epoch: config.epoch,
        boot_id: driver::boot_id(),
        coordinators: config.coordinators.clone(),
        origins: config.origins.clone(),
        tempo: options.tempo,
        grain: node_core::contract::Grain::default(),
        // Without a keeper nobody could start another version.
        agent: config.agent.clone().filter(|_| under_keeper()),
        seed: u64::from_le_bytes(driver::random_bytes()[..8].try_into().expect("8 bytes")),
    };
    let agent = config.agent.as_ref();
    let agent = agent
        .and_then(|product| Agent::of(dir, product))
        .map(Arc::new);
    let showing = identity.clone();
    let parts = Parts {
        identity,
        config: brain,
        memory: loaded.memory,
        reach,
        facts: Facts::of(dir, &config),
        notify: config.notify.clone(),
        revocations,
        intake: Intake::new(trust, admission, clock.clone(), revocations),
        clock,
        records: records.clone(),
        shelf: Shelf::new(
            blobs.clone(),
            Installer::new(dir.join("install"))
                .with_agent(agent.clone())
                .with_restart(config.restart.clone()),
        )
        .with_courier((config.installer.clone()).map(|socket| Courier::new(socket, records))),
        control,
        control_events,
        data,
        data_events,
    };

    let (ask, questions) = mpsc::channel(QUESTIONS_MAX);
    let mut helpers = Helpers(status::serve(dir, ask.clone())?.into());
    if config.role == Role::Origin {
        let incoming = driver::incoming_directory(dir);
        fs::create_dir_all(&incoming).map_err(|source| RunError::Directory {
            path: incoming.clone(),
            source,
        })?;
        helpers.0.push(tokio::spawn(driver::watch_incoming(
            dir.to_owned(),
            blobs.clone(),
        )));
    }
    let (stop, stopped) = watch::channel(false);
    if let Some(agent) = &agent {
        agent.came_up();
    }
    let restarts = agent.as_ref().map(|agent| agent.restarts());
    let mut restarting = restarts.clone();
    helpers.0.push(tokio::spawn(async move {
        let restart = async {
            match &mut restarting {
                // Kept by the installer for as long as there is one.
                Some(restarts) => drop(restarts.wait_for(|restart| *restart).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! { () = end => {}, () = restart => {} }
        stop.send_replace(true);
        // The receiver would take a dropped sender for nothing to wait for.
        stop.closed().await;
    }));
    let crowd = match config.role {
        Role::Endpoint => Crowd::Fleet,
        Role::Origin => Crowd::One,
    };
    let kept = renew::keep(dir.to_owned(), config.fleet, crowd, showing, ask);
    helpers.0.push(tokio::spawn(kept));
    drop(blobs);
    let driven = Driver::new(parts, stopped).drive(questions).await;
    drop(helpers);
    // Tasks that end by themselves hold the store a moment longer; then it may be opened again.
    let closed = async {
        while !store.ended() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(CLOSING, closed).await;
    driven?;
    tracing::info!(event = "stopped", "node {}", config.node.short());
    let restart = restarts.is_some_and(|restarts| *restarts.borrow());
    Ok(if restart {
        Ended::Restart
    } else {
        Ended::Asked
    })
}

/// Tasks that end with the node.
struct Helpers(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Helpers {
    fn drop(&mut self) {
        self.0.iter().for_each(|task| task.abort());
    }
}

/// The version before may need a moment to go.
async fn patient_lock(dir: &Path) -> Result<fs::File, RunError> {
    let since = std::time::Instant::now();
    loop {
        match lock(dir) {
            Err(RunError::Running { .. }) if since.elapsed() < CLOSING => {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            locked => return locked,
        }
    }
}

/// Holds the directory for this process; released by the system at its end, however it comes.
pub(crate) fn lock(dir: &Path) -> Result<fs::File, RunError> {
    let run = dir.join("run");
    let path = run.join("lock");
    let refuse = |source| RunError::Directory {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(&run).map_err(refuse)?;
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(refuse)?;
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    if rustix::fs::flock(&file, exclusive).is_err() {
        let mut pid = String::new();
        let _ = (&mut file).take(32).read_to_string(&mut pid);
        return Err(RunError::Running {
            dir: dir.to_owned(),
            pid: pid.trim().to_owned(),
        });
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(refuse)?;
    Ok(file)
}

/// The newest root that the remembered chain leads to from the pinned one.
fn trust(dir: &Path, config: &NodeConfig, records: &Records) -> Result<Trust, RunError> {
    let broken = |why: String| RunError::Root {
        dir: dir.to_owned(),
        why,
    };
    let mut roots = records.roots()?.into_iter();
    let first = roots.next().ok_or_else(|| broken("there is none".into()))?;
    chain(first, roots, config.fleet).map_err(|e| broken(e.to_string()))
}

/// Walks a chain of roots from the pinned one.
pub(crate) fn chain(
    first: protocol::envelope::Envelope,
    rest: impl IntoIterator<Item = protocol::envelope::Envelope>,
    pinned: protocol::FleetId,
) -> Result<Trust, TrustError> {
    let mut trust = Trust::pin(first, pinned)?;
    for next in rest.into_iter().take(protocol::limits::ROOT_WALK_MAX) {
        trust.update(next)?;
    }
    Ok(trust)
}
