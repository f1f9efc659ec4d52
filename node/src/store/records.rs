//! What outlives the process beside the blobs: the brain's records, documents, roots, the clock's
//! floor. One redb database, one durable commit for each batch of changes.
//!
//! Statements are kept as the envelopes that came and are verified again when they are loaded, so
//! that a key that lost its role loses its word here too. What cannot be read or believed any more
//! is dropped and named to the caller; orders and documents can be pulled again.

use std::path::{Path, PathBuf};

use node_core::contract::{
    CountersRecord, InstalledRecord, JournalMore, JournalRecord, LeaseRecord, Memory, OfferRecord,
    PeersRecord, Record, RecordKey, StatusRecord,
};
use protocol::envelope::Envelope;
use protocol::limits::ENVELOPE_MAX_BYTES;
use protocol::trust::{Statement, Trust, TrustError};
use protocol::versioned::Versioned;
use protocol::{Hash, Time};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::disk::{DatabaseFile, Disk};

/// Documents that are kept to hand on; the one that came first falls out first.
pub const DOCUMENTS_MAX: u64 = 1024;

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records-1");
const DOCUMENTS: TableDefinition<&[u8; 32], (u64, &[u8])> = TableDefinition::new("documents-1");
const ARRIVALS: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("arrivals-1");
const ROOTS: TableDefinition<u64, &[u8]> = TableDefinition::new("roots-1");
const FACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("facts-1");

const FLOOR: &str = "clock-floor-ms";
const REVOCATIONS: &str = "revocations";

/// The database of a node.
#[derive(Debug)]
pub struct Records {
    db: Database,
    path: PathBuf,
}

/// Something to be made durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Keep a record; it replaces the one of the same key.
    Keep(Box<Record>),
    /// Drop the record of this key.
    Forget(RecordKey),
    /// Keep a document under its digest.
    Document(Hash, Vec<u8>),
    /// Keep a root.
    Root(u64, Envelope),
    /// The newest signed time seen.
    Floor(Time),
    /// The document of this digest is the revocation list in force.
    Revocations(Hash),
}

/// What was remembered, and what had to be dropped.
#[derive(Debug, Default)]
pub struct Loaded {
    /// For the brain.
    pub memory: Memory,
    /// Short name of the event and one line, for each record that is not believed any more.
    pub dropped: Vec<(&'static str, String)>,
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// It is damaged beyond what a crash can do.
    #[error("{} is damaged ({why}): move the directory away and enrol the machine again", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the database said.
        why: String,
    },
    /// Another process has it open.
    #[error("{} is open in another process: stop the other node of this directory", .0.display())]
    InUse(PathBuf),
    /// The machine refused.
    #[error("{} cannot be used: {why}", .path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

/// A record as it stands on disk; statements as envelope JSON.
#[derive(Serialize, Deserialize)]
enum Stored {
    Topology(Vec<u8>),
    Plan(Vec<u8>),
    Release(Vec<u8>),
    Order(Vec<u8>),
    Recall(Vec<u8>),
    Lease(LeaseRecord),
    Journal(JournalRecord),
    Installed(InstalledRecord),
    Status(StatusRecord),
    Counters(CountersRecord),
    Peers(PeersRecord),
    Offer(OfferRecord),
    /// A journal with what most of them do not need.
    JournalMore(JournalRecord, JournalMore),
}

impl Versioned for Stored {
    const MAGIC: [u8; 4] = *b"TGRC";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = ENVELOPE_MAX_BYTES + (64 << 10);
}

impl Records {
    /// Opens the database of a node directory, `DIR/store/store.redb`, or makes an empty one.
    ///
    /// # Errors
    /// When it is damaged, in use, or the disk refuses.
    pub fn open(dir: &Path) -> Result<Records, RecordsError> {
        Records::open_on(&Disk::default(), dir)
    }

    /// The same on any disk.
    pub(crate) fn open_on(disk: &Disk, dir: &Path) -> Result<Records, RecordsError> {
        let store = dir.join("store");
        let path = store.join("store.redb");
        let refuse = |e: std::io::Error| RecordsError::Storage {
            path: path.clone(),
            why: e.to_string(),
        };
        disk.make_dirs(&store).map_err(refuse)?;
        let file = DatabaseFile::open(disk, &path).map_err(|e| open_error(&path, e))?;
        let db = Database::builder()
            .set_cache_size(8 << 20)
            .set_check_integrity_on_open(true)
            .create_with_backend(file)
            .map_err(|e| open_error(&path, e))?;
        disk.sync_dir(&store).map_err(refuse)?;
        disk.sync_dir(dir).map_err(refuse)?;
        let records = Records { db, path };
        records.write(|tx| {
            tx.open_table(RECORDS)?;
            tx.open_table(DOCUMENTS)?;
            tx.open_table(ARRIVALS)?;
            tx.open_table(ROOTS)?;
            tx.open_table(FACTS)?;
            Ok(())
        })?;
        Ok(records)
    }

    /// Makes changes durable, all or none, in one commit.
    ///
    /// # Errors
    /// When the disk refuses; nothing has changed then.
    pub fn apply(&self, changes: &[Change]) -> Result<(), RecordsError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|tx| changes.iter().try_for_each(|change| apply(tx, change)))
    }

    /// Everything the brain remembered, statements verified again.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn load(&self, trust: &Trust) -> Result<Loaded, RecordsError> {
        let mut loaded = Loaded::default();
        self.read(|tx| {
            for row in tx.open_table(RECORDS)?.iter()? {
                let (_, value) = row?;
                match restore(value.value(), trust) {
                    Ok(record) => loaded.memory.records.push(record),
                    Err(dropped) => loaded.dropped.push(dropped),
                }
            }
            Ok(())
        })?;
        Ok(loaded)
    }

    /// The document of this digest: an envelope as JSON, or a revocation list as DER.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn document(&self, digest: Hash) -> Result<Option<Vec<u8>>, RecordsError> {
        self.read(|tx| {
            let found = tx.open_table(DOCUMENTS)?.get(&digest.0)?;
            Ok(found.map(|row| row.value().1.to_vec()))
        })
    }

    /// Root metadata of a version, as envelope JSON.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn root(&self, version: u64) -> Result<Option<Vec<u8>>, RecordsError> {
        self.read(|tx| {
            let found = tx.open_table(ROOTS)?.get(version)?;
            Ok(found.map(|row| row.value().to_vec()))
        })
    }

    /// All root metadata, rising by version. What is no envelope is left out; the chain then ends.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn roots(&self) -> Result<Vec<Envelope>, RecordsError> {
        self.read(|tx| {
            let mut roots = Vec::new();
            for row in tx.open_table(ROOTS)?.iter()? {
                roots.extend(Envelope::from_json(row?.1.value()).ok());
            }
            Ok(roots)
        })
    }

    /// The newest signed time that was kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn floor(&self) -> Result<Time, RecordsError> {
        let bytes = self.fact(FLOOR)?;
        Ok(bytes
            .and_then(|b| b.try_into().ok())
            .map_or(Time(0), |b| Time(u64::from_le_bytes(b))))
    }

    /// Digest of the revocation list in force.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn revocations(&self) -> Result<Option<Hash>, RecordsError> {
        Ok(self
            .fact(REVOCATIONS)?
            .and_then(|b| b.try_into().ok())
            .map(Hash))
    }

    fn fact(&self, name: &str) -> Result<Option<Vec<u8>>, RecordsError> {
        self.read(|tx| {
            let found = tx.open_table(FACTS)?.get(name)?;
            Ok(found.map(|row| row.value().to_vec()))
        })
    }

    fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), RecordsError> {
        let run = || -> Result<(), redb::Error> {
            let mut tx = self.db.begin_write()?;
            tx.set_durability(Durability::Immediate)?;
            change(&tx)?;
            tx.commit()?;
            Ok(())
        };
        run().map_err(|e| self.refused(e))
    }

    fn read<T>(
        &self,
        look: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, RecordsError> {
        let run = || -> Result<T, redb::Error> { look(&self.db.begin_read()?) };
        run().map_err(|e| self.refused(e))
    }

    fn refused(&self, error: redb::Error) -> RecordsError {
        let (path, why) = (self.path.clone(), error.to_string());
        match error {
            redb::Error::Corrupted(_) => RecordsError::Corrupt { path, why },
            _ => RecordsError::Storage { path, why },
        }
    }
}

fn open_error(path: &Path, error: redb::DatabaseError) -> RecordsError {
    use redb::{DatabaseError, StorageError};
    let (path, why) = (path.to_owned(), error.to_string());
    match error {
        DatabaseError::DatabaseAlreadyOpen => RecordsError::InUse(path),
        DatabaseError::Storage(StorageError::Io(e))
            if !matches!(
                e.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            RecordsError::Storage { path, why }
        }
        _ => RecordsError::Corrupt { path, why },
    }
}

fn apply(tx: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Keep(record) => {
            tx.open_table(RECORDS)?.insert(
                key_bytes(&record.key()).as_slice(),
                stored(record).as_slice(),
            )?;
        }
        Change::Forget(key) => {
            tx.open_table(RECORDS)?.remove(key_bytes(key).as_slice())?;
        }
        Change::Document(digest, bytes) => keep_document(tx, digest, bytes)?,
        Change::Root(version, envelope) => {
            tx.open_table(ROOTS)?
                .insert(*version, envelope.to_json().as_slice())?;
        }
        Change::Floor(time) => {
            tx.open_table(FACTS)?
                .insert(FLOOR, time.0.to_le_bytes().as_slice())?;
        }
        Change::Revocations(digest) => {
            tx.open_table(FACTS)?
                .insert(REVOCATIONS, digest.0.as_slice())?;
        }
    }
    Ok(())
}

fn keep_document(tx: &WriteTransaction, digest: &Hash, bytes: &[u8]) -> Result<(), redb::Error> {
    let mut documents = tx.open_table(DOCUMENTS)?;
    let mut arrivals = tx.open_table(ARRIVALS)?;
    if documents.get(&digest.0)?.is_some() {
        return Ok(());
    }
    let arrival = arrivals.last()?.map_or(0, |(n, _)| n.value() + 1);
    documents.insert(&digest.0, (arrival, bytes))?;
    arrivals.insert(arrival, &digest.0)?;
    let in_force: Option<[u8; 32]> = tx
        .open_table(FACTS)?
        .get(REVOCATIONS)?
        .and_then(|d| d.value().try_into().ok());
    while redb::ReadableTableMetadata::len(&documents)? > DOCUMENTS_MAX {
        let Some(oldest) = arrivals.pop_first()?.map(|(_, d)| *d.value()) else {
            break;
        };
        if in_force == Some(oldest) {
            // The list in force goes to the end of the row, or a restart would forget who is revoked.
            let again = arrivals.last()?.map_or(0, |(n, _)| n.value() + 1);
            arrivals.insert(again, &oldest)?;
        } else {
            documents.remove(&oldest)?;
        }
    }
    Ok(())
}

fn key_bytes(key: &RecordKey) -> Vec<u8> {
    postcard::to_stdvec(key).expect("a key is plain data")
}

fn stored(record: &Record) -> Vec<u8> {
    match record {
        Record::Topology(s) => Stored::Topology(s.envelope().to_json()),
        Record::Plan(s) => Stored::Plan(s.envelope().to_json()),
        Record::Release(s) => Stored::Release(s.envelope().to_json()),
        Record::Order(s) => Stored::Order(s.envelope().to_json()),
        Record::Recall(s) => Stored::Recall(s.envelope().to_json()),
        Record::Lease(r) => Stored::Lease(r.clone()),
        Record::Journal(r) if r.more == JournalMore::default() => Stored::Journal(r.clone()),
        Record::Journal(r) => Stored::JournalMore(r.clone(), r.more.clone()),
        Record::Installed(r) => Stored::Installed(r.clone()),
        Record::Status(r) => Stored::Status(r.clone()),
        Record::Counters(r) => Stored::Counters(r.clone()),
        Record::Peers(r) => Stored::Peers(r.clone()),
        Record::Offer(r) => Stored::Offer(r.clone()),
    }
    .to_bytes()
}

fn restore(bytes: &[u8], trust: &Trust) -> Result<Record, (&'static str, String)> {
    fn believe<T: Statement>(
        what: &str,
        json: &[u8],
        trust: &Trust,
    ) -> Result<protocol::Verified<T>, (&'static str, String)> {
        let verified = Envelope::from_json(json)
            .map_err(TrustError::from)
            .and_then(|envelope| trust.verify(&envelope));
        verified.map_err(|e| (e.event(), format!("a remembered {what} was dropped: {e}")))
    }
    let stored = Stored::from_bytes(bytes)
        .map_err(|e| ("malformed", format!("a remembered record was dropped: {e}")))?;
    Ok(match stored {
        Stored::Topology(json) => Record::Topology(believe("topology", &json, trust)?),
        Stored::Plan(json) => Record::Plan(believe("plan", &json, trust)?),
        Stored::Release(json) => Record::Release(believe("release", &json, trust)?),
        Stored::Order(json) => Record::Order(believe("order", &json, trust)?),
        Stored::Recall(json) => Record::Recall(believe("recall", &json, trust)?),
        Stored::Lease(record) => Record::Lease(record),
        Stored::Journal(record) => Record::Journal(record),
        Stored::JournalMore(record, more) => Record::Journal(JournalRecord { more, ..record }),
        Stored::Installed(record) => Record::Installed(record),
        Stored::Status(record) => Record::Status(record),
        Stored::Counters(record) => Record::Counters(record),
        Stored::Peers(record) => Record::Peers(record),
        Stored::Offer(record) => Record::Offer(record),
    })
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "records_golden.rs"]
mod golden_bytes;
