//! Copying chunks that the packs of older releases hold, so that they are not fetched again.
//!
//! The pack takes whole pieces only (a piece is the smallest run that its index can vouch for), so a
//! piece is assembled once all its chunks are at hand. Every chunk is hashed before it is used: a
//! donor's disk is not trusted.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::Hash;
use protocol::index::CheckedIndex;

use super::ReadError;
use crate::store::blobs::Blob;

/// Fills pieces of `pack` from `donors` (index and pack of older releases) and gives the bytes copied.
/// A donor that is incomplete or damaged gives what it can.
///
/// # Errors
/// When the pack cannot be written.
pub fn reuse(
    index: &CheckedIndex,
    pack: &Blob,
    donors: &[(CheckedIndex, Arc<Blob>)],
) -> Result<u64, ReadError> {
    let geometry = pack.geometry();
    let have = pack.pieces();
    let import = |piece, bytes: &[u8]| {
        let imported = pack.import_piece(piece, bytes, &index.piece_cvs);
        imported.map_err(|source| ReadError::Store {
            blob: pack.name(),
            source,
        })
    };
    if geometry.length() == 0 && !pack.is_complete() {
        // No carrier has a frame for it, and nobody needs to send it.
        import(0, &[])?;
    }
    let places = places(index, donors);
    if places.is_empty() {
        return Ok(0);
    }
    let mut copied = 0;
    let mut first = 0u32;
    for piece in 0..geometry.pieces() {
        let range = geometry.piece_range(piece);
        while (first as usize) < index.chunks.len() && index.chunk_range(first).end <= range.start {
            first += 1;
        }
        if have.contains(piece) {
            continue;
        }
        let Some(bytes) = assemble(index, donors, &places, first, range) else {
            continue;
        };
        import(piece, &bytes)?;
        copied += bytes.len() as u64;
    }
    Ok(copied)
}

type Places = HashMap<Hash, (usize, u32)>;

/// Where each chunk of `index` lies in a donor: which donor, and its number there.
fn places(index: &CheckedIndex, donors: &[(CheckedIndex, Arc<Blob>)]) -> Places {
    let wanted: std::collections::HashSet<Hash> =
        index.chunks.iter().map(|chunk| chunk.hash).collect();
    let mut places = Places::new();
    for (donor, (theirs, blob)) in donors.iter().enumerate() {
        let (geometry, have) = (blob.geometry(), blob.pieces());
        let holds = |range| {
            geometry
                .pieces_of_bytes(range)
                .all(|piece| have.contains(piece))
        };
        for (number, chunk) in (0u32..).zip(&theirs.chunks) {
            if wanted.contains(&chunk.hash)
                && !places.contains_key(&chunk.hash)
                && holds(theirs.chunk_range(number))
            {
                places.insert(chunk.hash, (donor, number));
            }
        }
    }
    places
}

/// The bytes of `range`, from chunk number `first` on; `None` if a chunk is not to be had.
fn assemble(
    index: &CheckedIndex,
    donors: &[(CheckedIndex, Arc<Blob>)],
    places: &Places,
    first: u32,
    range: core::ops::Range<u64>,
) -> Option<Vec<u8>> {
    let needed = || {
        (first..)
            .zip(&index.chunks[first as usize..])
            .take_while(|(number, _)| index.chunk_range(*number).start < range.end)
    };
    if !needed().all(|(_, chunk)| places.contains_key(&chunk.hash)) {
        return None;
    }
    let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
    let mut buffer = Vec::new();
    for (number, chunk) in needed() {
        let (donor, theirs) = *places.get(&chunk.hash)?;
        let (donor_index, donor_pack) = &donors[donor];
        let source = donor_index.chunk_range(theirs);
        buffer.resize((source.end - source.start) as usize, 0);
        donor_pack.read_at(source.start, &mut buffer).ok()?;
        if Hash::of(&buffer) != chunk.hash {
            tracing::warn!(pack = %donor_pack.name(), "a chunk of an older pack is damaged and is not reused");
            return None;
        }
        let at = index.chunk_range(number);
        let from = range.start.saturating_sub(at.start) as usize;
        let to = (range.end.min(at.end) - at.start) as usize;
        bytes.extend_from_slice(buffer.get(from..to)?);
    }
    (bytes.len() as u64 == range.end - range.start).then_some(bytes)
}
