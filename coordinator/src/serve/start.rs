//! Bringing a coordinator up: everything that can be wrong with its directory is found here.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use coordinator_core::Conductor;
use coordinator_core::contract::Config;
use data_encoding::HEXLOWER;
use node::driver::Clock;
use node::net::control::{Control, ControlConfig};
use node::net::identity::{Admission, Identity};
use protocol::envelope::Envelope;
use protocol::limits;
use protocol::limits::BULLETIN_LIFE;
use protocol::trust::{Role, Trust};
use protocol::{FleetId, Span, Time};
use rustls::pki_types::CertificateDer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::certificates::Certificates;
use super::desk::{self, Parts};
use super::origin::{Program, Supervisor};
use super::{
    EventLog, House, OriginMode, Roots, Running, ServeError, ServeOptions, Sightings, Signer,
    Store, control, issuing, roots, witnesses,
};
use crate::api::server;
use crate::directory::{Directory, DirectoryError, Settings};
use crate::ledger::{Fault, Ledger, LedgerError, events};

/// Unheard of for so long, a node counts as unreachable.
const UNREACHABLE_AFTER: Span = Span::from_secs(600);

/// Starts the coordinator of a directory: ledger verified and replayed, listeners bound, origin up.
///
/// # Errors
/// When the directory, the ledger or an address is not as it should be.
pub async fn start(options: ServeOptions) -> Result<Running, ServeError> {
    let dir = Directory::new(&options.dir);
    let settings = dir.settings()?;
    let lock = lock(&dir)?;
    // Uploads that broke off with an earlier coordinator.
    let _ = std::fs::remove_dir_all(dir.uploads_dir());
    let chain = read_roots(&dir)?;
    let trust = trust(&dir, &chain, settings.fleet)?;
    let online = roots::online_key(&dir, trust.root()).map_err(ServeError::Keys)?;
    roots::settle_online_key(&dir, &online);
    let ca = Arc::new(issuing::named(&dir, trust.root()).map_err(ServeError::Keys)?);
    issuing::settle(&dir, &ca);
    issuing::tell_origin(&dir, &settings).map_err(ServeError::Keys)?;
    let admission = Arc::new(Admission::new(issuing_cas(&trust)?).map_err(unusable)?);
    let identity = Arc::new(Identity::load(&dir.peer_dir(), admission.clone()).map_err(unusable)?);
    issuing::keep_own(&dir, &identity, &ca).map_err(ServeError::Keys)?;
    let tls = server::tls(&dir).map_err(ServeError::Keys)?;

    let store = Arc::new(Store::open(&dir.store_file())?);
    let path = dir.ledger_file();
    let (conductor_config, fleet) = (config(&settings, &trust), settings.fleet);
    let (ca_too, admission_too) = (ca.clone(), admission.clone());
    let replayed = tokio::task::spawn_blocking(move || {
        replay(
            &path,
            fleet,
            conductor_config,
            Certificates::new(ca_too, admission_too),
        )
    });
    let (ledger, conductor, certificates, newest) =
        replayed.await.map_err(|_| ServeError::Desk)??;
    let clock = Arc::new(Clock::new(newest));
    admission.floor_time(newest);

    let listen = |why: io::Error| ServeError::Listen {
        address: settings.api,
        why: plain(&why),
    };
    let listener = TcpListener::bind(settings.api).await.map_err(listen)?;

    let (control_plane, control_events) =
        Control::start(control_config(settings.control), identity.clone()).await?;
    let signer = Arc::new(Signer::new(settings.fleet, online));
    let log = Arc::new(EventLog::new());
    let (pushes, pushed) = mpsc::channel(limits::PUSHES_WAITING_MAX);
    let parts = Parts {
        conductor,
        ledger,
        certificates,
        store: store.clone(),
        trust: trust.clone(),
        signer: signer.clone(),
        clock: clock.clone(),
        log: log.clone(),
        pushes,
    };
    let (desk, failure, desk_thread) = desk::open(parts);
    let origin = match options.origin {
        OriginMode::Elsewhere => None,
        OriginMode::Child => {
            let program =
                Program::own(&dir.origin_dir()).map_err(|e| ServeError::Keys(e.to_string()))?;
            Some(Supervisor::start(
                dir.origin_dir(),
                program,
                log.clone(),
                clock.clone(),
            ))
        }
    };
    let origin_pid = origin
        .as_ref()
        .map_or_else(|| watch::channel(None).1, Supervisor::pid);
    let api_token = dir.api_token()?;
    let (witnesses, asked) = witnesses::asks();
    let house = House {
        dir,
        settings,
        api_token,
        roots: Roots::new(chain, trust),
        issuing: issuing::Issuing::new(ca),
        identity,
        signer,
        store,
        clock,
        log,
        sightings: Sightings::default(),
        witnesses,
        desk,
        origin_pid,
    };
    let house = Arc::new(house);
    for line in super::warnings(&house) {
        house.log.note(house.clock.now().wall, "ends_soon", &line);
    }
    let (stop, stopped) = watch::channel(false);
    let api = tokio::spawn(server::serve(house.clone(), listener, tls, stopped.clone()));
    tokio::spawn(witnesses::listen(
        house.clone(),
        control_plane.clone(),
        asked,
        stopped.clone(),
    ));
    let control = tokio::spawn(control::listen(
        house.clone(),
        control_plane,
        control_events,
        pushed,
        stopped,
    ));
    Ok(Running {
        house,
        keep_origin: options.keep_origin,
        origin,
        stop,
        api,
        control,
        desk: Some(desk_thread),
        failure,
        _lock: lock,
    })
}

fn config(settings: &Settings, trust: &Trust) -> Config {
    Config {
        fleet: settings.fleet,
        origins: vec![settings.origin_contact()],
        coordinators: vec![settings.coordinator_contact()],
        root_version: trust.root().version,
        unreachable_after: UNREACHABLE_AFTER,
        bulletin_life: BULLETIN_LIFE,
        plans_threshold: trust
            .root()
            .role(Role::Plans)
            .map_or(1, |role| role.threshold),
        // They were read with the settings.
        time_frames: settings.time_frames().unwrap_or_default(),
        starts_per_day: settings.starts_per_day,
    }
}

/// Opens and verifies the ledger and rebuilds from it everything that the coordinator knows. Also
/// gives the time of its newest entry, before which the clock never falls.
fn replay(
    path: &Path,
    fleet: FleetId,
    config: Config,
    mut certificates: Certificates,
) -> Result<(Ledger, Conductor, Certificates, Time), ServeError> {
    let ledger = Ledger::open(path)?;
    let mut conductor = Conductor::new(config);
    let (mut newest, mut found) = (Time(0), None);
    ledger.for_each(0, |entry| {
        if entry.seq == 0 {
            found = entry.object.parse::<FleetId>().ok();
        }
        let event = events::event(&entry)?;
        newest = newest.max(entry.time);
        certificates.take_in(&event, entry.time);
        conductor.replay(&event);
        Ok(())
    })?;
    match found {
        Some(found) if found != fleet => {
            return Err(DirectoryError::OtherFleet {
                path: path.to_owned(),
                found,
                expected: fleet,
            }
            .into());
        }
        Some(_) => {}
        None => {
            let bad = crate::ledger::BadEntry {
                seq: 0,
                fault: Fault::Malformed("it does not name a fleet".into()),
            };
            return Err(LedgerError::Bad {
                path: path.to_owned(),
                bad,
            }
            .into());
        }
    }
    // Also when nothing is on it: nodes compare every later list with the one that they have.
    certificates.renew_list().map_err(ServeError::Keys)?;
    Ok((ledger, conductor, certificates, newest))
}

fn read(path: &Path) -> Result<Vec<u8>, DirectoryError> {
    std::fs::read(path).map_err(|e| DirectoryError::Unreadable {
        path: path.to_owned(),
        why: plain(&e),
    })
}

fn read_roots(dir: &Directory) -> Result<Vec<Envelope>, DirectoryError> {
    let path = dir.root_file();
    serde_json::from_slice(&read(&path)?).map_err(|e| DirectoryError::Unreadable {
        path,
        why: e.to_string(),
    })
}

fn trust(dir: &Directory, roots: &[Envelope], fleet: FleetId) -> Result<Trust, ServeError> {
    let path = dir.root_file();
    let unreadable = |why: String| DirectoryError::Unreadable {
        path: path.clone(),
        why,
    };
    let first = roots
        .first()
        .cloned()
        .ok_or_else(|| unreadable("it holds no root".into()))?;
    let found = FleetId(first.digest().0);
    if found != fleet {
        return Err(DirectoryError::OtherFleet {
            path,
            found,
            expected: fleet,
        }
        .into());
    }
    let mut trust = Trust::pin(first, fleet).map_err(|e| unreadable(e.to_string()))?;
    for next in &roots[1..] {
        trust
            .update(next.clone())
            .map_err(|e| unreadable(e.to_string()))?;
    }
    Ok(trust)
}

fn issuing_cas(trust: &Trust) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let decode = |hex: &String| HEXLOWER.decode(hex.as_bytes()).map(CertificateDer::from);
    trust
        .root()
        .issuing_cas
        .iter()
        .map(decode)
        .collect::<Result<_, _>>()
        .map_err(unusable)
}

fn unusable(e: impl std::fmt::Display) -> ServeError {
    ServeError::Keys(e.to_string())
}

/// What the system says, without its number.
fn plain(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::AddrInUse => "the address is in use by another program".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::NotFound => "it does not exist".into(),
        _ => e.to_string(),
    }
}

/// Every site's delegates connect to a coordinator, so it grants more places than a node.
fn control_config(address: SocketAddr) -> ControlConfig {
    ControlConfig {
        connections: limits::COORDINATOR_CONNECTIONS_MAX,
        ..ControlConfig::at(address)
    }
}

/// Holds the directory for this process; released by the system at its end, however it comes.
pub(crate) fn lock(dir: &Directory) -> Result<File, ServeError> {
    let path = dir.lock_file();
    let unreadable = |e: io::Error| DirectoryError::Unreadable {
        path: path.clone(),
        why: plain(&e),
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(unreadable)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut pid);
            return Err(ServeError::Running {
                dir: dir.path().to_owned(),
                pid: pid.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(e)) => return Err(unreadable(e).into()),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(unreadable)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinator_has_places_for_delegates_of_many_sites() {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (ours, nodes) = (control_config(address), ControlConfig::at(address));
        assert_eq!(ours.listen, nodes.listen);
        assert_eq!(ours.connections, 16_384);
        assert!(ours.connections > 8 * nodes.connections);
    }
}
