//! Which blobs are complete and durable: the only fact about blobs that is believed after a restart.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::{BlobRef, Hash};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::StoreError;
use crate::disk::{DatabaseFile, Disk};

/// Root to length. A new meaning gets a new name.
const CLAIMS: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("claims-1");

#[derive(Debug)]
pub(crate) struct Claims {
    path: PathBuf,
    database: Database,
    /// Dropped behind the database: who watches it sees the file closed.
    pub(super) open: Arc<()>,
}

impl Claims {
    pub(crate) fn open(disk: &Disk, path: &Path) -> Result<Claims, StoreError> {
        let fail = |reason: &dyn Display| StoreError::claims(path, reason);
        // A damaged file is an error to name; unasked, redb may panic on it.
        let file = DatabaseFile::open(disk, path).map_err(|e| fail(&e))?;
        let database = Database::builder()
            .set_check_integrity_on_open(true)
            .create_with_backend(file)
            .map_err(|e| fail(&e))?;
        let write = database.begin_write().map_err(|e| fail(&e))?;
        write.open_table(CLAIMS).map_err(|e| fail(&e))?;
        write.commit().map_err(|e| fail(&e))?;
        Ok(Claims {
            path: path.to_owned(),
            database,
            open: Arc::default(),
        })
    }

    /// The claimed length of a root.
    pub(crate) fn get(&self, root: &Hash) -> Result<Option<u64>, StoreError> {
        let read = self.database.begin_read().map_err(|e| self.fail(&e))?;
        let table = read.open_table(CLAIMS).map_err(|e| self.fail(&e))?;
        Ok(table
            .get(root.0)
            .map_err(|e| self.fail(&e))?
            .map(|length| length.value()))
    }

    pub(crate) fn all(&self) -> Result<Vec<BlobRef>, StoreError> {
        let read = self.database.begin_read().map_err(|e| self.fail(&e))?;
        let table = read.open_table(CLAIMS).map_err(|e| self.fail(&e))?;
        let mut all = Vec::new();
        for entry in table.iter().map_err(|e| self.fail(&e))? {
            let (root, length) = entry.map_err(|e| self.fail(&e))?;
            all.push(BlobRef {
                root: Hash(root.value()),
                length: length.value(),
            });
        }
        Ok(all)
    }

    /// Durable on return.
    pub(crate) fn insert(&self, blob: BlobRef) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(|e| self.fail(&e))?;
        {
            let mut table = write.open_table(CLAIMS).map_err(|e| self.fail(&e))?;
            table
                .insert(blob.root.0, blob.length)
                .map_err(|e| self.fail(&e))?;
        }
        write.commit().map_err(|e| self.fail(&e))
    }

    /// Durable on return.
    pub(crate) fn remove(&self, root: &Hash) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(|e| self.fail(&e))?;
        {
            let mut table = write.open_table(CLAIMS).map_err(|e| self.fail(&e))?;
            table.remove(root.0).map_err(|e| self.fail(&e))?;
        }
        write.commit().map_err(|e| self.fail(&e))
    }

    fn fail(&self, reason: &dyn Display) -> StoreError {
        StoreError::claims(&self.path, reason)
    }
}
