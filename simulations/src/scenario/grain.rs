//! How fine the nodes' work is cut.

use node_core::contract::{Grain, Tempo};
use protocol::Span;
use serde::Deserialize;

/// How fine the nodes' work is cut; what is not named is as in production. A large fleet is simulated
/// at a coarser grain, and a small one at both shows what that changes.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrainSpec {
    /// Pieces that a blob is aimed to have; then a piece may be of any size.
    pub pieces: Option<u64>,
    /// What a node won is told to its neighbours this often, in milliseconds.
    pub have_ms: Option<u64>,
    /// Peers to which a node turns for a blob.
    pub neighbours: Option<usize>,
    /// Plain bytes of a carrier's frame, in MiB.
    pub frame_mib: Option<u64>,
    /// A transfer tells how far it is this often, beside when a piece is whole, in milliseconds.
    pub progress_ms: Option<u64>,
}

impl GrainSpec {
    /// What the brains are told of it.
    pub fn grain(&self) -> Grain {
        let real = Grain::default();
        Grain {
            pieces: self.pieces.unwrap_or(real.pieces),
            piece_max_bytes: self.pieces.map_or(real.piece_max_bytes, |_| 1 << 40),
            neighbours: self.neighbours.unwrap_or(real.neighbours),
        }
    }

    /// The brains' intervals.
    pub fn tempo(&self) -> Tempo {
        let real = Tempo::default();
        Tempo {
            have: self.have_ms.map_or(real.have, Span::from_millis),
            ..real
        }
    }

    /// A transfer tells how far it is this often.
    pub fn progress(&self) -> Span {
        Span::from_millis(self.progress_ms.unwrap_or(250).max(1))
    }

    /// Plain bytes of a frame.
    pub fn frame_plain(&self) -> u64 {
        let real = protocol::limits::FRAME_PLAIN_MAX_BYTES;
        self.frame_mib.map_or(real, |mib| mib.max(1) << 20)
    }
}
