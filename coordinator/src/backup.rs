//! `tidegate backup` and `tidegate restore`: what a coordinator cannot be without, as files in a directory.
//!
//! In it are ledger, roots, online keys, the issuing CA, certificates and the origin's key: whoever has it
//! has what the coordinator's machine has. Not in it: the blobs, which the origin and the fleet hold;
//! operators' keys, which lie elsewhere; and every token. A token of an older day could have been used
//! up or revoked since, so after a restore on another machine tokens are made anew.
//!
//! A restore says so in the ledger. What the coordinator does then stands in `coordinator_core`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use coordinator_core::contract::LedgerEvent;
use data_encoding::BASE64URL_NOPAD;
use node::config::write_durably;
use node::net::identity::{KEY_FILE, load_key};
use protocol::envelope::Envelope;
use protocol::trust::Root;
use protocol::{FleetId, Hash, Time};
use serde::{Deserialize, Serialize};

use crate::directory::{Directory, DirectoryError};
use crate::init;
use crate::keys::random_32;
use crate::ledger::{self, Ledger, LedgerError, events};
use crate::serve::{ServeError, issuing, lock};

/// The list of a backup's files.
const LIST: &str = "backup.json";
const LEDGER: &str = "ledger.redb";
const ORIGIN_KEY: &str = "origin.key";
/// Files beside the ledger, where they lie in a coordinator's directory; the last may be missing.
const FILES: [&str; 9] = [
    "coordinator.json",
    "root.json",
    "online/coordinator.key",
    "ca/ca.key",
    "ca/ca.der",
    "server/server.key",
    "server/server.der",
    "peer/node.key",
    "peer/certificates.pem",
];
const NEXT_ONLINE_KEY: &str = "online/next.key";
/// What a coming root will name, if it was made already, and what stands above the issuing CA, if anything.
const SOMETIMES: [&str; 5] = [
    NEXT_ONLINE_KEY,
    "ca/next.key",
    "ca/next.der",
    "ca/next.chain",
    "ca/ca.chain",
];
/// A key, a certificate or a chain of roots is not longer.
const FILE_MAX_BYTES: u64 = 64 << 20;

/// Why nothing was backed up or restored. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The coordinator's directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A coordinator runs there.
    #[error(transparent)]
    Running(#[from] ServeError),
    /// Something is there.
    #[error("{0} exists already; name a directory that does not")]
    Exists(PathBuf),
    /// Not a backup, or not as it was written.
    #[error("{path} {what}; take another backup")]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another fleet lives there.
    #[error(
        "{path} is the directory of fleet {found}, the backup is of {expected}; name another directory"
    )]
    OtherFleet {
        /// The directory.
        path: PathBuf,
        /// Its fleet.
        found: FleetId,
        /// The backup's.
        expected: FleetId,
    },
    /// The disk.
    #[error("{path}: {why}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// `backup.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet.
    pub fleet: FleetId,
    /// When it was taken (the coordinator's clock).
    pub taken: Time,
    /// Entries of the ledger.
    pub entries: u64,
    /// Hash of the last of them.
    pub head: Hash,
    /// BLAKE3 of each file.
    pub files: BTreeMap<String, Hash>,
}

fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |e| BackupError::Disk {
        path,
        why: e.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BackupError> {
    let long = fs::metadata(path).map_err(disk(path))?.len() > FILE_MAX_BYTES;
    if long {
        let what = format!("is longer than {FILE_MAX_BYTES} bytes");
        let path = path.to_owned();
        return Err(BackupError::NotWhole { path, what });
    }
    fs::read(path).map_err(disk(path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let written = write_durably(path, bytes, 0o600);
    written.map_err(|e| BackupError::Disk {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

/// A directory that only its owner may enter.
fn make_dir(path: &Path) -> Result<(), BackupError> {
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    made.map_err(disk(path))
}

/// Writes a backup of `dir` to `out`, also while its coordinator runs.
///
/// # Errors
/// When `dir` is no coordinator's or its ledger is bad, `out` exists, or the disk fails; `out` is not
/// there then.
pub fn backup(dir: &Directory, out: &Path) -> Result<Backup, BackupError> {
    let settings = dir.settings()?;
    if out.exists() {
        return Err(BackupError::Exists(out.to_owned()));
    }
    let made = write_backup(dir, settings.fleet, out);
    if made.is_err() {
        // Made above; half a backup is none.
        let _ = fs::remove_dir_all(out);
    }
    made
}

fn write_backup(dir: &Directory, fleet: FleetId, out: &Path) -> Result<Backup, BackupError> {
    make_dir(out)?;
    let mut backup = Backup {
        spec_version: 1,
        fleet,
        taken: init::wall(),
        entries: 0,
        head: ledger::ZERO,
        files: BTreeMap::new(),
    };
    // The ledger first: keys and roots only ever get ahead of it.
    let report = ledger::copy(&dir.ledger_file(), &out.join(LEDGER))?;
    (backup.entries, backup.head) = (report.entries, report.head);
    let next = SOMETIMES
        .iter()
        .filter(|name| dir.path().join(name).exists());
    let next = next.map(|name| (*name, PathBuf::from(name)));
    let origin = Path::new("origin").join(KEY_FILE);
    let files = FILES.iter().map(|name| (*name, PathBuf::from(name)));
    for (name, from) in files.chain(next).chain([(ORIGIN_KEY, origin)]) {
        let bytes = read(&dir.path().join(from))?;
        let to = out.join(name);
        make_dir(to.parent().unwrap_or(out))?;
        write(&to, &bytes)?;
        backup.files.insert(name.to_owned(), Hash::of(&bytes));
    }
    let list = serde_json::to_vec_pretty(&backup).expect("plain data");
    write(&out.join(LIST), &list)?;
    Ok(backup)
}

/// Reads a backup's list and checks every file of it.
fn checked(from: &Path) -> Result<(Backup, BTreeMap<String, Vec<u8>>), BackupError> {
    let not_whole = |name: &str, what: String| BackupError::NotWhole {
        path: from.join(name),
        what,
    };
    let list: Backup = serde_json::from_slice(&read(&from.join(LIST))?)
        .map_err(|e| not_whole(LIST, format!("is no list of a backup ({e})")))?;
    if list.spec_version != 1 {
        let what = format!("has version {}, not known here", list.spec_version);
        return Err(not_whole(LIST, what));
    }
    let mut files = BTreeMap::new();
    let known =
        |name: &str| FILES.contains(&name) || SOMETIMES.contains(&name) || name == ORIGIN_KEY;
    for (name, hash) in &list.files {
        if !known(name) {
            return Err(not_whole(
                LIST,
                format!("names {name:?}, which is no part of a backup"),
            ));
        }
        let bytes = read(&from.join(name))?;
        if Hash::of(&bytes) != *hash {
            return Err(not_whole(name, "was changed since it was written".into()));
        }
        files.insert(name.clone(), bytes);
    }
    if let Some(missing) = FILES.iter().find(|name| !files.contains_key(**name)) {
        return Err(not_whole(missing, "is not in the backup".into()));
    }
    let report = ledger::verify(&from.join(LEDGER))?;
    if report.bad.is_some() || (report.entries, report.head) != (list.entries, list.head) {
        return Err(not_whole(
            LEDGER,
            "is not the one that was backed up".into(),
        ));
    }
    Ok((list, files))
}

/// Makes `dir` what the backup says, or, without one, takes what lies there (a machine set back to a
/// snapshot) as restored. What was there is set aside. Gives the directory to which, if any.
///
/// # Errors
/// When a coordinator runs there, another fleet lives there, the backup is not whole, or the disk fails.
pub fn restore(dir: &Directory, from: Option<&Path>) -> Result<Option<PathBuf>, BackupError> {
    let Some(from) = from else {
        dir.settings()?;
        let _lock = lock(dir)?;
        note(dir, "as it lay there".into())?;
        return Ok(None);
    };
    let (list, files) = checked(from)?;
    match dir.settings() {
        Ok(settings) if settings.fleet != list.fleet => {
            return Err(BackupError::OtherFleet {
                path: dir.path().to_owned(),
                found: settings.fleet,
                expected: list.fleet,
            });
        }
        _ => make_dir(dir.path())?,
    }
    let _lock = lock(dir)?;
    let aside = set_aside(dir, files.keys())?;
    if let Some(aside) = aside
        .as_deref()
        .filter(|_| !files.contains_key(NEXT_ONLINE_KEY))
    {
        keep_newer_online_key(dir, aside, &files)?;
    }
    for (name, bytes) in &files {
        if name != ORIGIN_KEY {
            let to = dir.path().join(name);
            make_dir(to.parent().unwrap_or(dir.path()))?;
            write(&to, bytes)?;
        }
    }
    ledger::copy(&from.join(LEDGER), &dir.ledger_file())?;
    if !dir.origin_dir().exists() {
        restore_origin(dir, from)?;
    }
    if !dir.api_token_file().exists() {
        write(
            &dir.api_token_file(),
            BASE64URL_NOPAD.encode(&random_32()).as_bytes(),
        )?;
    }
    let at = list.taken.as_millis() / 1000;
    note(
        dir,
        format!("a backup of {} entries, taken at {at} s", list.entries),
    )?;
    Ok(aside)
}

/// Says in the ledger that it was restored.
fn note(dir: &Directory, why: String) -> Result<(), BackupError> {
    let at = init::wall();
    let mut ledger = Ledger::open(&dir.ledger_file())?;
    ledger.append(vec![events::draft(&LedgerEvent::Restored { why, at }, at)])?;
    Ok(())
}

/// Moves what would be overwritten to a directory of its own.
fn set_aside<'a>(
    dir: &Directory,
    names: impl Iterator<Item = &'a String>,
) -> Result<Option<PathBuf>, BackupError> {
    let aside = dir
        .path()
        .join(format!("before-restore-{}", init::wall().as_millis()));
    let mut moved = None;
    for name in names.map(String::as_str).chain([LEDGER]) {
        let (from, to) = (dir.path().join(name), aside.join(name));
        if from.exists() {
            make_dir(to.parent().unwrap_or(&aside))?;
            fs::rename(&from, &to).map_err(disk(&from))?;
            moved = Some(aside.clone());
        }
    }
    Ok(moved)
}

/// An online key that came into force since the backup is still the one that the newest root names.
fn keep_newer_online_key(
    dir: &Directory,
    aside: &Path,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<(), BackupError> {
    let name = "online/coordinator.key";
    let had = fs::read(aside.join(name)).ok();
    let newer = had.filter(|key| files.get(name) != Some(key));
    let place = dir.next_online_key_file();
    match newer {
        Some(key) if !place.exists() => write(&place, &key),
        _ => Ok(()),
    }
}

/// The origin's directory as `init` made it, under the key that the fleet knows.
fn restore_origin(dir: &Directory, from: &Path) -> Result<(), BackupError> {
    let failed = |path: PathBuf, why: String| BackupError::Disk { path, why };
    let key_file = from.join(ORIGIN_KEY);
    let key = load_key(&key_file).map_err(|e| failed(key_file, e.to_string()))?;
    let roots: Vec<Envelope> = serde_json::from_slice(&read(&dir.root_file())?)
        .map_err(|e| failed(dir.root_file(), e.to_string()))?;
    let newest = roots
        .last()
        .and_then(|root| serde_json::from_slice::<Root>(&root.payload).ok())
        .ok_or_else(|| failed(dir.root_file(), "it holds no root".into()))?;
    let ca = issuing::named(dir, &newest).map_err(|why| failed(dir.ca_dir(), why))?;
    let made = init::restore_origin(dir, &dir.settings()?, &key, &ca, roots);
    made.map_err(|e| failed(dir.origin_dir(), e.to_string()))
}
