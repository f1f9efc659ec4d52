//! When redb cannot open the file any more: which entry is the first to suffer?
//!
//! Rows are found by their magic, wherever they lie, and believed if their hash holds. redb leaves
//! old copies of pages behind, so an entry whose living copy is damaged may still be found; then no
//! entry is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use protocol::Hash;
use protocol::audit::AuditEntry;
use protocol::limits;
use protocol::versioned::Versioned;

use super::{BadEntry, Fault, HASH_BYTES, LedgerError, ZERO};

/// The error for a file that redb refuses because of `why`.
pub(super) fn blame(path: &Path, why: &str) -> LedgerError {
    let searchable = fs::metadata(path).is_ok_and(|m| m.len() <= limits::SALVAGE_MAX_BYTES);
    let bytes = if searchable {
        fs::read(path).unwrap_or_default()
    } else {
        Vec::new()
    };
    match first_lost(&bytes) {
        Some(seq) => {
            let fault = Fault::Unreadable(why.to_owned());
            LedgerError::Bad {
                path: path.to_owned(),
                bad: BadEntry { seq, fault },
            }
        }
        None => LedgerError::Damaged {
            path: path.to_owned(),
            why: why.to_owned(),
        },
    }
}

/// The first number without a sound entry that follows the one before, if a later one is there.
fn first_lost(file: &[u8]) -> Option<u64> {
    let used = file
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let file = &file[..used];
    let mut found: BTreeMap<u64, (Hash, Hash)> = BTreeMap::new();
    let mut suspects = 0u64;
    for at in HASH_BYTES..file.len().saturating_sub(AuditEntry::MAGIC.len()) {
        if !file[at..].starts_with(&AuditEntry::MAGIC) {
            continue;
        }
        suspects += 1;
        let after = &file[at + AuditEntry::MAGIC.len() + 1..];
        let Ok((entry, rest)) = postcard::take_from_bytes::<AuditEntry>(after) else {
            continue;
        };
        let hash = Hash::of(&file[at..file.len() - rest.len()]);
        if hash.as_bytes() == &file[at - HASH_BYTES..at] {
            found.insert(entry.seq, (entry.prev, hash));
        }
    }
    let (mut seq, mut head) = (0, ZERO);
    while let Some((prev, hash)) = found.get(&seq)
        && *prev == head
    {
        (seq, head) = (seq + 1, *hash);
    }
    let later = found.last_key_value().is_some_and(|(last, _)| *last >= seq);
    (later || suspects > seq).then_some(seq)
}
