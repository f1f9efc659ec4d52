//! In which form a release comes: carrier pieces or plain pack pieces, frame by frame.
//!
//! Over the WAN only the carrier comes. Inside the site a frame comes in whatever form the site has
//! all of and costs fewer bytes; while the site has neither whole, the carrier is pulled.

use protocol::pieces::{Geometry, PieceSet};

use crate::contract::FrameMap;

/// One blob as far as the choice is concerned.
#[derive(Clone, Copy)]
pub(super) struct Holding<'a> {
    pub cut: Geometry,
    pub have: &'a PieceSet,
    /// Held by peers in the site.
    pub near: &'a PieceSet,
    /// On their way.
    pub flying: &'a PieceSet,
}

/// Which pieces to have, those that are here included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Form {
    pub carrier: PieceSet,
    pub pack: PieceSet,
}

impl Holding<'_> {
    /// What costs nothing (any more): what is here or on its way.
    fn paid(&self) -> PieceSet {
        let mut paid = self.have.clone();
        paid.union(self.flying);
        paid
    }

    /// Bytes that these pieces cost inside the site beyond what is `paid`; `None` if the site lacks
    /// some.
    fn cost(&self, paid: &PieceSet, pieces: impl Iterator<Item = u32>) -> Option<u64> {
        let mut bytes = 0;
        for piece in pieces.filter(|piece| !paid.contains(*piece)) {
            if !self.near.contains(piece) {
                return None;
            }
            let range = self.cut.piece_range(piece);
            bytes += range.end - range.start;
        }
        Some(bytes)
    }
}

/// Pack pieces that a frame holds.
pub(super) fn pack_pieces(
    frames: &FrameMap,
    frame: usize,
    pack: Geometry,
) -> core::ops::Range<u32> {
    let start = (frame as u64).saturating_mul(frames.frame_plain);
    pack.pieces_of_bytes(start..start.saturating_add(frames.frame_plain))
}

/// Carrier pieces that a frame touches.
pub(super) fn carrier_pieces(
    frames: &FrameMap,
    frame: usize,
    carrier: Geometry,
) -> core::ops::Range<u32> {
    frames
        .coded
        .get(frame)
        .map_or(0..0, |(start, end)| carrier.pieces_of_bytes(*start..*end))
}

/// Carrier pieces that surely cover the frame table: frames hold at least 4 MiB plain, and one costs at
/// most five bytes of the table.
pub(super) fn head_pieces(carrier: Geometry, pack: Geometry) -> core::ops::Range<u32> {
    let frames = pack.length().div_ceil(protocol::limits::PIECE_MAX_BYTES);
    carrier.pieces_of_bytes(0..64 + 5 * frames)
}

/// Chooses for every frame that lacks something. What two frames share counts once, and what is on
/// its way counts as here: else a node would take the plain pieces of a frame half of whose carrier
/// pieces it has, and the site would carry both.
pub(super) fn by_frame(frames: &FrameMap, carrier: Holding<'_>, pack: Holding<'_>) -> Form {
    let mut form = Form {
        carrier: PieceSet::empty(carrier.have.len()),
        pack: PieceSet::empty(pack.have.len()),
    };
    // What is chosen for one frame costs the next nothing.
    let (mut carrier_paid, mut pack_paid) = (carrier.paid(), pack.paid());
    for frame in 0..frames.coded.len() {
        let plain = pack_pieces(frames, frame, pack.cut);
        if plain.clone().all(|piece| pack.have.contains(piece)) {
            continue;
        }
        let coded = carrier_pieces(frames, frame, carrier.cut);
        let as_pack = pack.cost(&pack_paid, plain.clone());
        let as_carrier = carrier.cost(&carrier_paid, coded.clone());
        if as_pack.is_some_and(|bytes| as_carrier.is_none_or(|coded| bytes < coded)) {
            plain.for_each(|piece| {
                form.pack.insert(piece);
                pack_paid.insert(piece);
            });
        } else {
            coded.for_each(|piece| {
                form.carrier.insert(piece);
                carrier_paid.insert(piece);
            });
        }
    }
    form
}

/// Chooses before the frame table is known. `eager`: every frame lacks something, so the whole
/// carrier is wanted; else only what shows the table.
pub(super) fn without_table(carrier: Holding<'_>, pack: Holding<'_>, eager: bool) -> Form {
    let (coded, plain) = (carrier.have.len(), pack.have.len());
    let as_pack = pack.cost(&pack.paid(), 0..plain);
    let as_carrier = carrier.cost(&carrier.paid(), 0..coded);
    if as_pack.is_some_and(|bytes| as_carrier.is_none_or(|coded| bytes < coded)) {
        return Form {
            carrier: PieceSet::empty(coded),
            pack: PieceSet::full(plain),
        };
    }
    let mut form = Form {
        carrier: PieceSet::empty(coded),
        pack: PieceSet::empty(plain),
    };
    if eager {
        form.carrier = PieceSet::full(coded);
    } else {
        head_pieces(carrier.cut, pack.cut).for_each(|piece| {
            form.carrier.insert(piece);
        });
    }
    form
}
