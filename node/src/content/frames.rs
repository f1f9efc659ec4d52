//! Unfolding a carrier: its table, then frame by frame into the pack.
//!
//! Memory is bounded by one frame: the output buffer has exactly the plain length that the signed
//! table gives the frame, and a frame that holds more or less is refused.

use protocol::BlobRef;
use protocol::carrier::{Coding, FrameTable};
use protocol::index::CheckedIndex;
use protocol::limits::ZSTD_WINDOW_LOG2_MAX;
use protocol::versioned::Versioned;

use super::ReadError;
use crate::store::blobs::Blob;

/// Reads and checks the frame table at the head of `carrier`, which must unfold to `pack`. The
/// carrier's first piece must be on disk.
///
/// # Errors
/// When those bytes are missing, or are no table that fits both lengths.
pub fn read_table(carrier: &Blob, pack: BlobRef) -> Result<FrameTable, ReadError> {
    let name = carrier.name();
    let max = FrameTable::MAX_BYTES as u64;
    let too_long = ReadError::TooLong { blob: name, max };
    let mut field = [0; 4];
    read(carrier, 0, &mut field)?;
    let length = u64::from(u32::from_le_bytes(field));
    if length > max || 4 + length > name.length {
        return Err(too_long);
    }
    let mut bytes = vec![0; length as usize];
    read(carrier, 4, &mut bytes)?;
    let table = FrameTable::from_bytes(&bytes)
        .map_err(|source| ReadError::Format { blob: name, source })?;
    table
        .check(name.length, pack.length)
        .map_err(|source| ReadError::Table { blob: name, source })?;
    Ok(table)
}

/// Decodes frame `frame`, whose bytes of `carrier` must be on disk, and writes each of its pieces
/// into `pack`, checked against `index`. Pieces that are there already are left alone.
///
/// # Errors
/// When bytes are missing, the frame does not unfold to exactly its plain bytes, a piece is not the
/// one that the index names, or the disk fails.
pub fn decode(
    carrier: &Blob,
    index: &CheckedIndex,
    pack: &Blob,
    frame: u32,
) -> Result<(), ReadError> {
    let table = read_table(carrier, pack.name())?;
    decode_with(&table, carrier, index, pack, frame)
}

/// [`decode`] with a table that was read before.
///
/// # Errors
/// See [`decode`].
pub fn decode_with(
    table: &FrameTable,
    carrier: &Blob,
    index: &CheckedIndex,
    pack: &Blob,
    frame: u32,
) -> Result<(), ReadError> {
    let name = carrier.name();
    let refuse = |why: &str| ReadError::Frame {
        blob: name,
        frame,
        why: why.to_owned(),
    };
    if table.coding != Coding::Zstd {
        return Err(refuse("it needs the pack of an older release"));
    }
    let coded_range = table
        .frame_ranges()
        .get(frame as usize)
        .cloned()
        .ok_or_else(|| refuse("there is no such frame"))?;
    let plain_range = table.plain_range(frame);

    let mut coded = vec![0; (coded_range.end - coded_range.start) as usize];
    read(carrier, coded_range.start, &mut coded)?;
    let mut plain = vec![0u8; (plain_range.end - plain_range.start) as usize];
    let mut decoder = zstd::bulk::Decompressor::new().map_err(|e| refuse(&e.to_string()))?;
    decoder
        .set_parameter(zstd::zstd_safe::DParameter::WindowLogMax(
            ZSTD_WINDOW_LOG2_MAX,
        ))
        .map_err(|e| refuse(&e.to_string()))?;
    let length = decoder
        .decompress_to_buffer(&coded, plain.as_mut_slice())
        .map_err(|e| refuse(&e.to_string()))?;
    if length != plain.len() {
        return Err(refuse("it unfolds to fewer bytes than its table says"));
    }

    let geometry = pack.geometry();
    let have = pack.pieces();
    for piece in geometry
        .pieces_of_bytes(plain_range.clone())
        .filter(|piece| !have.contains(*piece))
    {
        let range = geometry.piece_range(piece);
        let bytes = &plain
            [(range.start - plain_range.start) as usize..(range.end - plain_range.start) as usize];
        pack.import_piece(piece, bytes, &index.piece_cvs)
            .map_err(|source| ReadError::Store {
                blob: pack.name(),
                source,
            })?;
    }
    Ok(())
}

/// Reads bytes of `blob` of which every piece must be complete.
fn read(blob: &Blob, offset: u64, out: &mut [u8]) -> Result<(), ReadError> {
    let name = blob.name();
    let range = offset..offset + out.len() as u64;
    if range.end > name.length || !holds(blob, range) {
        return Err(ReadError::Missing(name));
    }
    blob.read_at(offset, out)
        .map_err(|source| ReadError::Io { blob: name, source })
}

/// Whether every byte of the range is verified and on disk.
fn holds(blob: &Blob, range: core::ops::Range<u64>) -> bool {
    let have = blob.pieces();
    blob.geometry()
        .pieces_of_bytes(range)
        .all(|piece| have.contains(piece))
}
