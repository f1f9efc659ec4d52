//! A copy of the ledger as it was at one moment, also while a coordinator writes to it.

use std::path::Path;

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::{ENTRIES, HEAD, Ledger, LedgerError, Report, builder, verify};

/// Copies the ledger at `from` to a file that is not there yet, and verifies the copy.
///
/// # Errors
/// When the ledger is bad, something is at `to`, or the disk fails.
pub fn copy(from: &Path, to: &Path) -> Result<Report, LedgerError> {
    // Also brings one whose writer was killed back to its last commit.
    let report = verify(from)?;
    if let Some(bad) = report.bad {
        let path = from.to_owned();
        return Err(LedgerError::Bad { path, bad });
    }
    drop(Ledger::create(to)?);
    copy_rows(from, to).map_err(|e| LedgerError::Disk {
        path: to.to_owned(),
        why: e.to_string(),
    })?;
    let report = verify(to)?;
    match report.bad {
        Some(bad) => Err(LedgerError::Bad {
            path: to.to_owned(),
            bad,
        }),
        None => Ok(report),
    }
}

fn copy_rows(from: &Path, to: &Path) -> Result<(), redb::Error> {
    let source = builder().open_read_only(from)?;
    let reading = source.begin_read()?;
    let target = builder().open(to)?;
    let writing = target.begin_write()?;
    {
        let mut entries = writing.open_table(ENTRIES)?;
        for row in reading.open_table(ENTRIES)?.iter()? {
            let (seq, row) = row?;
            entries.insert(seq.value(), row.value())?;
        }
        let head = reading.open_table(HEAD)?.get(0)?;
        if let Some(head) = head {
            writing.open_table(HEAD)?.insert(0, head.value())?;
        }
    }
    writing.commit()?;
    Ok(())
}
