//! The carrier: the pack in a form for thin links, as independent frames of at most 8 MiB plain.
//!
//! A carrier blob is the [`FrameTable`], encoded, behind its own length as four little-endian bytes;
//! then the frames, back to back. The blob's root stands in the signed manifest, so the table is
//! signed too, and it lies in the first piece, so decoding can start early. Frame `i` holds the plain
//! bytes `[i, i + 1) × frame_plain` of the pack and decodes alone.

use serde::{Deserialize, Serialize};

use crate::limits::{FRAME_CODED_MAX_BYTES, FRAME_PLAIN_MAX_BYTES, PIECE_MAX_BYTES};
use crate::versioned::Versioned;

/// How the frames are coded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coding {
    /// One zstd frame each.
    Zstd,
    /// One zstd frame each, with a stretch of an older pack as reference prefix.
    ZstdDelta,
}

/// Where each frame lies. It stands at the head of the carrier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FrameTable {
    /// How the frames are coded.
    pub coding: Coding,
    /// Plain bytes of every frame but the last; a multiple of the pack's piece size.
    pub frame_plain: u64,
    /// Plain bytes of the whole pack.
    pub plain: u64,
    /// Coded bytes of each frame.
    pub coded: Vec<u32>,
}

impl Versioned for FrameTable {
    const MAGIC: [u8; 4] = *b"TGFT";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = PIECE_MAX_BYTES as usize;
}

/// Why a frame table is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("frame table is refused: {0}")]
pub struct FrameTableError(pub &'static str);

impl FrameTable {
    /// Bytes before the first frame: the length field and the encoded table.
    pub fn head_bytes(&self) -> u64 {
        4 + self.to_bytes().len() as u64
    }

    /// The head of the carrier: length field and encoded table.
    pub fn head(&self) -> Vec<u8> {
        let table = self.to_bytes();
        let mut out = (table.len() as u32).to_le_bytes().to_vec();
        out.extend_from_slice(&table);
        out
    }

    /// Bytes `[start, end)` of each frame in the carrier.
    pub fn frame_ranges(&self) -> Vec<core::ops::Range<u64>> {
        let mut at = self.head_bytes();
        self.coded
            .iter()
            .map(|length| {
                let start = at;
                at += u64::from(*length);
                start..at
            })
            .collect()
    }

    /// Plain bytes `[start, end)` of the pack that frame `frame` holds.
    pub fn plain_range(&self, frame: u32) -> core::ops::Range<u64> {
        let start = (u64::from(frame) * self.frame_plain).min(self.plain);
        start..(start + self.frame_plain).min(self.plain)
    }

    /// Checks the table against the carrier's and the pack's signed lengths.
    ///
    /// # Errors
    /// The first broken rule.
    pub fn check(&self, carrier_length: u64, pack_length: u64) -> Result<(), FrameTableError> {
        if self.plain != pack_length {
            return Err(FrameTableError("it is for another pack length"));
        }
        if self.frame_plain == 0
            || self.frame_plain > FRAME_PLAIN_MAX_BYTES
            || !self.frame_plain.is_multiple_of(PIECE_MAX_BYTES)
        {
            return Err(FrameTableError(
                "its frame size is not a multiple of 4 MiB up to 8 MiB",
            ));
        }
        if self.coded.len() as u64 != self.plain.div_ceil(self.frame_plain) {
            return Err(FrameTableError("it has the wrong number of frames"));
        }
        if self
            .coded
            .iter()
            .any(|c| u64::from(*c) > FRAME_CODED_MAX_BYTES || *c == 0)
        {
            return Err(FrameTableError("a frame is empty or too long"));
        }
        let end = self
            .frame_ranges()
            .last()
            .map_or(self.head_bytes(), |r| r.end);
        if end != carrier_length {
            return Err(FrameTableError("its frames do not fill the carrier"));
        }
        Ok(())
    }
}
