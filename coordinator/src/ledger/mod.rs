//! The append-only, hash-chained ledger in redb.
//!
//! Each row is the BLAKE3 hash of an encoded [`AuditEntry`] and then the entry, which carries the
//! hash of the one before it; one more row names the head. So an edit shows at the entry that was
//! edited, a consistent edit at the one after it, a cut at the first entry that is missing. What
//! this cannot show is a ledger rewritten as a whole: for that nodes are told the head in every
//! bulletin. Nothing is ever changed or removed here.

mod copy;
pub mod events;
mod salvage;
mod verify;

use std::path::{Path, PathBuf};

use protocol::audit::AuditEntry;
use protocol::merkle::Peaks;
use protocol::versioned::Versioned;
use protocol::{Hash, Time};
use redb::{
    Builder, ConcurrencyMode, Database, DatabaseError, ReadableDatabase as _, StorageError,
    TableDefinition,
};

pub use copy::copy;
pub use verify::{BadEntry, Fault, Report, entry, hashes, verify};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("ledger-1");
/// Under the only key 0: number of entries, and the hash of the last.
const HEAD: TableDefinition<'_, u64, (u64, [u8; 32])> = TableDefinition::new("ledger-head-1");
const HASH_BYTES: usize = 32;

/// What the first entry carries as `prev`, and the head of an empty ledger.
pub const ZERO: Hash = Hash([0; 32]);

/// Why the ledger cannot be used. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Not there.
    #[error("ledger {0} does not exist; restore it from a backup")]
    Missing(PathBuf),
    /// Another process has it.
    #[error("ledger {0} is in use by another coordinator")]
    InUse(PathBuf),
    /// An entry is not as it was written.
    #[error("ledger {path} is corrupt at entry {}: it {}; restore it from a backup", .bad.seq, .bad.fault)]
    Bad {
        /// The file.
        path: PathBuf,
        /// The first bad entry.
        bad: BadEntry,
    },
    /// The file is damaged, and no entry can be named.
    #[error(
        "ledger {path} is damaged, though no entry alone can be blamed ({why}); restore it from a backup"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// An entry over its limit.
    #[error("an entry of {0} bytes is over the ledger's limit")]
    TooLong(usize),
    /// The disk.
    #[error("ledger {path} cannot be written: {why}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// An entry before it has its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    /// Wall time.
    pub time: Time,
    /// See [`AuditEntry::actor`].
    pub actor: String,
    /// See [`AuditEntry::action`].
    pub action: String,
    /// See [`AuditEntry::object`].
    pub object: String,
    /// See [`AuditEntry::body`].
    pub body: Vec<u8>,
}

/// The open ledger. One process writes; others may [`verify`] meanwhile.
pub struct Ledger {
    path: PathBuf,
    db: Database,
    head: Hash,
    tree: Peaks,
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_concurrency_mode(ConcurrencyMode::SingleWriter);
    builder
}

impl Ledger {
    /// Makes an empty ledger where none is.
    ///
    /// # Errors
    /// When something is there or the disk fails.
    pub fn create(path: &Path) -> Result<Ledger, LedgerError> {
        let disk = |why: String| LedgerError::Disk {
            path: path.to_owned(),
            why,
        };
        if path.exists() {
            return Err(disk("it exists already".into()));
        }
        let db = builder().create(path).map_err(|e| disk(e.to_string()))?;
        let ledger = Ledger {
            path: path.to_owned(),
            db,
            head: ZERO,
            tree: Peaks::default(),
        };
        ledger.commit(&[], 0, ZERO)?;
        Ok(ledger)
    }

    /// Opens the ledger and verifies all of it.
    ///
    /// # Errors
    /// When it is missing, in use or corrupt; names the first bad entry.
    pub fn open(path: &Path) -> Result<Ledger, LedgerError> {
        if !path.exists() {
            return Err(LedgerError::Missing(path.to_owned()));
        }
        // First without writing: what redb repairs below, it repairs for good.
        verify::blame_if_bad(path)?;
        let db = match builder().set_check_integrity_on_open(true).open(path) {
            Ok(db) => db,
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(LedgerError::InUse(path.to_owned()));
            }
            Err(DatabaseError::Storage(StorageError::Io(e)))
                if e.kind() != std::io::ErrorKind::InvalidData =>
            {
                return Err(LedgerError::Disk {
                    path: path.to_owned(),
                    why: e.to_string(),
                });
            }
            Err(e) => return Err(salvage::blame(path, &e.to_string())),
        };
        let report = verify::walk(&db, path)?;
        if let Some(bad) = report.bad {
            return Err(LedgerError::Bad {
                path: path.to_owned(),
                bad,
            });
        }
        Ok(Ledger {
            path: path.to_owned(),
            db,
            head: report.head,
            tree: report.tree,
        })
    }

    /// Appends all or none; durable on return. Gives the new head.
    ///
    /// # Errors
    /// When an entry is too long or the disk fails. Nothing was appended then.
    pub fn append(&mut self, drafts: Vec<Draft>) -> Result<Hash, LedgerError> {
        if drafts.is_empty() {
            return Ok(self.head);
        }
        let (mut next, mut head) = (self.entries(), self.head);
        let (mut tree, mut rows) = (self.tree.clone(), Vec::with_capacity(drafts.len()));
        for Draft {
            time,
            actor,
            action,
            object,
            body,
        } in drafts
        {
            let entry = AuditEntry {
                seq: next,
                prev: head,
                time,
                actor,
                action,
                object,
                body,
            };
            let bytes = entry.to_bytes();
            if bytes.len() > AuditEntry::MAX_BYTES {
                return Err(LedgerError::TooLong(bytes.len()));
            }
            head = Hash::of(&bytes);
            tree.push(&head);
            rows.push((next, [head.as_bytes().as_slice(), &bytes].concat()));
            next += 1;
        }
        self.commit(&rows, next, head)?;
        (self.tree, self.head) = (tree, head);
        Ok(head)
    }

    fn commit(&self, rows: &[(u64, Vec<u8>)], entries: u64, head: Hash) -> Result<(), LedgerError> {
        let write = || -> Result<(), redb::Error> {
            let txn = self.db.begin_write()?;
            {
                let mut table = txn.open_table(ENTRIES)?;
                for (seq, row) in rows {
                    table.insert(seq, row.as_slice())?;
                }
                txn.open_table(HEAD)?.insert(0, (entries, head.0))?;
            }
            txn.commit()?;
            Ok(())
        };
        write().map_err(|e| LedgerError::Disk {
            path: self.path.clone(),
            why: e.to_string(),
        })
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.tree.entries()
    }

    /// Root of the tree over all entries.
    pub fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Hash of the last entry; [`ZERO`] if there is none.
    pub fn head(&self) -> Hash {
        self.head
    }

    /// Hands every entry from number `from` to `each`, in order, until it breaks off.
    ///
    /// # Errors
    /// When the file cannot be read, or what `each` says.
    pub fn for_each(
        &self,
        from: u64,
        mut each: impl FnMut(AuditEntry) -> Result<(), Fault>,
    ) -> Result<(), LedgerError> {
        let bad = |seq, fault| LedgerError::Bad {
            path: self.path.clone(),
            bad: BadEntry { seq, fault },
        };
        let damaged = |e: redb::Error| LedgerError::Damaged {
            path: self.path.clone(),
            why: e.to_string(),
        };
        let txn = self.db.begin_read().map_err(|e| damaged(e.into()))?;
        let table = txn.open_table(ENTRIES).map_err(|e| damaged(e.into()))?;
        for row in table.range(from..).map_err(|e| damaged(e.into()))? {
            let (seq, row) = row.map_err(|e| damaged(e.into()))?;
            let entry = verify::decode(row.value()).map_err(|fault| bad(seq.value(), fault))?;
            each(entry).map_err(|fault| bad(seq.value(), fault))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
