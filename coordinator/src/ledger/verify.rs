//! Finding the first entry that is not as it was written.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Once;

use protocol::Hash;
use protocol::audit::AuditEntry;
use protocol::merkle::Peaks;
use protocol::versioned::Versioned;
use redb::{DatabaseError, ReadableDatabase, ReadableTable as _};

use super::{ENTRIES, HASH_BYTES, HEAD, LedgerError, ZERO, builder, salvage};

/// What a walk over the whole ledger found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Entries that are as they were written, from the first on.
    pub entries: u64,
    /// Hash of the last of them.
    pub head: Hash,
    /// The tree over them.
    pub tree: Peaks,
    /// The first entry that is not.
    pub bad: Option<BadEntry>,
}

/// An entry that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadEntry {
    /// Its number, counted from 0.
    pub seq: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with an entry. Messages complete "it …".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A gap, or a cut at the end; how many entries were written.
    Missing(u64),
    /// Not what was hashed.
    Hash,
    /// Stands at another's place.
    Place(u64),
    /// Does not carry the hash of the one before.
    Prev,
    /// Was written after the head that the file names.
    BeyondHead,
    /// Cannot be decoded.
    Malformed(String),
    /// The file is damaged where it stands.
    Unreadable(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing(written) => write!(
                f,
                "is missing, though at least {written} entries were written"
            ),
            Fault::Hash => write!(f, "was changed after it was written (its hash differs)"),
            Fault::Place(seq) => write!(f, "was moved (it says that it is entry {seq})"),
            Fault::Prev => write!(
                f,
                "does not follow the entry before it (the hash of that one differs)"
            ),
            Fault::BeyondHead => write!(f, "stands behind the end that the ledger names"),
            Fault::Malformed(why) => write!(f, "is malformed ({why})"),
            Fault::Unreadable(why) => write!(f, "cannot be read ({why})"),
        }
    }
}

/// Walks the ledger at `path`, also while a coordinator writes to it.
///
/// # Errors
/// When the file is missing or no ledger, or damaged so that no entry can be blamed.
pub fn verify(path: &Path) -> Result<Report, LedgerError> {
    if !path.exists() {
        return Err(LedgerError::Missing(path.to_owned()));
    }
    let result = match careful(|| read_only_walk(path)) {
        Ok(Ok(Some(report))) => return Ok(report),
        // Its writer was killed; opening it for writing brings it back to the last commit.
        Ok(Ok(None)) => careful(|| {
            let db = builder()
                .open(path)
                .map_err(|e| salvage::blame(path, &e.to_string()))?;
            walk(&db, path)
        }),
        Ok(Err(error)) => Ok(Err(error)),
        Err(panic) => Err(panic),
    };
    match result {
        Ok(Err(LedgerError::Bad { bad, .. })) => Ok(Report {
            entries: bad.seq,
            head: ZERO,
            tree: Peaks::default(),
            bad: Some(bad),
        }),
        Ok(result) => result,
        Err(panic) => Err(salvage::blame(path, &panic)),
    }
}

/// The first `count` entries' hashes, of a ledger that [`verify`] found sound; fewer if it has fewer.
///
/// # Errors
/// When the file cannot be read.
pub fn hashes(path: &Path, count: u64) -> Result<Vec<Hash>, LedgerError> {
    let damaged = |e: redb::Error| LedgerError::Damaged {
        path: path.to_owned(),
        why: e.to_string(),
    };
    let db = builder()
        .open_read_only(path)
        .map_err(|e| damaged(e.into()))?;
    let txn = db.begin_read().map_err(|e| damaged(e.into()))?;
    let table = txn.open_table(ENTRIES).map_err(|e| damaged(e.into()))?;
    let mut hashes = Vec::new();
    for row in table.range(..count).map_err(|e| damaged(e.into()))? {
        let (_, row) = row.map_err(|e| damaged(e.into()))?;
        let hash = row.value().first_chunk::<HASH_BYTES>();
        hashes.extend(hash.map(|hash| Hash(*hash)));
    }
    Ok(hashes)
}

/// One entry of a ledger that [`verify`] found sound.
///
/// # Errors
/// When the file cannot be read, or has no such entry.
pub fn entry(path: &Path, seq: u64) -> Result<AuditEntry, LedgerError> {
    let damaged = |e: redb::Error| LedgerError::Damaged {
        path: path.to_owned(),
        why: e.to_string(),
    };
    let bad = |fault| LedgerError::Bad {
        path: path.to_owned(),
        bad: BadEntry { seq, fault },
    };
    let db = builder()
        .open_read_only(path)
        .map_err(|e| damaged(e.into()))?;
    let txn = db.begin_read().map_err(|e| damaged(e.into()))?;
    let table = txn.open_table(ENTRIES).map_err(|e| damaged(e.into()))?;
    let row = table.get(seq).map_err(|e| damaged(e.into()))?;
    let row = row.ok_or_else(|| bad(Fault::Missing(seq + 1)))?;
    decode(row.value()).map_err(bad)
}

/// Refuses a ledger with a bad entry without writing to it; lets one pass that must be opened for
/// writing first.
pub(super) fn blame_if_bad(path: &Path) -> Result<(), LedgerError> {
    match careful(|| read_only_walk(path)) {
        Ok(Ok(Some(Report { bad: Some(bad), .. }))) => Err(LedgerError::Bad {
            path: path.to_owned(),
            bad,
        }),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(panic) => Err(salvage::blame(path, &panic)),
    }
}

/// `None` if the file must be opened for writing first.
fn read_only_walk(path: &Path) -> Result<Option<Report>, LedgerError> {
    match builder().open_read_only(path) {
        Ok(db) => walk(&db, path).map(Some),
        Err(DatabaseError::RepairAborted) => Ok(None),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(LedgerError::InUse(path.to_owned())),
        Err(e) => Err(salvage::blame(path, &e.to_string())),
    }
}

thread_local! {
    /// Panics of this thread are caught and told as an error.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// A damaged file may make redb panic: its message becomes ours, in one line.
fn careful<T>(walk: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                others(panic);
            }
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(walk));
    QUIET.set(false);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        text.unwrap_or_default()
            .lines()
            .next()
            .unwrap_or("the file's structure is broken")
            .to_owned()
    })
}

/// Checks every entry against the one before it, and the end against the head.
pub(super) fn walk(db: &impl ReadableDatabase, path: &Path) -> Result<Report, LedgerError> {
    let damaged = |e: redb::Error| LedgerError::Damaged {
        path: path.to_owned(),
        why: e.to_string(),
    };
    let txn = db.begin_read().map_err(|e| damaged(e.into()))?;
    let table = txn.open_table(ENTRIES).map_err(|e| damaged(e.into()))?;
    let heads = txn.open_table(HEAD).map_err(|e| damaged(e.into()))?;
    let named = heads
        .get(0)
        .map_err(|e| damaged(e.into()))?
        .map(|row| row.value());
    let (written, named_head) = named.unwrap_or((0, ZERO.0));

    let mut report = Report {
        entries: 0,
        head: ZERO,
        tree: Peaks::default(),
        bad: None,
    };
    let mut rows = table.iter().map_err(|e| damaged(e.into()))?;
    let fault = loop {
        let seq = report.entries;
        let (key, row) = match rows.next() {
            None if seq < written => break Some(Fault::Missing(written)),
            None => break None,
            Some(Err(e)) => break Some(Fault::Unreadable(e.to_string())),
            Some(Ok(row)) => row,
        };
        if key.value() != seq {
            break Some(Fault::Missing(written.max(key.value().saturating_add(1))));
        }
        if seq >= written {
            break Some(Fault::BeyondHead);
        }
        match decode(row.value()) {
            Err(fault) => break Some(fault),
            Ok(entry) if entry.seq != seq => break Some(Fault::Place(entry.seq)),
            Ok(entry) if entry.prev != report.head => break Some(Fault::Prev),
            Ok(entry) => {
                report.head = entry.hash();
                report.tree.push(&report.head);
            }
        }
        report.entries += 1;
    };
    report.bad = fault.map(|fault| BadEntry {
        seq: report.entries,
        fault,
    });
    if report.bad.is_none() && report.head.0 != named_head {
        // The last entry and its hash were replaced together; only the head still tells.
        let seq = report.entries.saturating_sub(1);
        report = Report {
            entries: seq,
            head: ZERO,
            tree: Peaks::default(),
            bad: Some(BadEntry {
                seq,
                fault: Fault::Hash,
            }),
        };
    }
    Ok(report)
}

/// An entry out of its row, checked against the hash that stands before it.
pub(super) fn decode(row: &[u8]) -> Result<AuditEntry, Fault> {
    let (hash, bytes) = row
        .split_at_checked(HASH_BYTES)
        .ok_or_else(|| Fault::Malformed("its row is too short".into()))?;
    if Hash::of(bytes).as_bytes() != hash {
        return Err(Fault::Hash);
    }
    AuditEntry::from_bytes(bytes).map_err(|e| Fault::Malformed(e.to_string()))
}
