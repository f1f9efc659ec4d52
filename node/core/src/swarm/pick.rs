//! Picking inside the site: rarest piece first, random ties, from the holder with the least to do.

use protocol::NodeId;
use protocol::pieces::PieceSet;

/// A holder that may be asked.
#[derive(Clone, Debug)]
pub(super) struct Source<'a> {
    pub node: NodeId,
    pub held: &'a PieceSet,
    /// Fetches that it may still be given.
    pub free: usize,
    /// Fetches that it has.
    pub load: usize,
}

/// A number that orders equals differently at every draw.
pub(super) fn tie(draw: u64, item: u64) -> u64 {
    // Stafford's variant 13 of the 64-bit finalizer (as in SplitMix64): cheap and well spread.
    let mut z = draw ^ item.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Up to `slots` pieces out of `needed`, each with the holder to ask. `held_by` counts the holders of
/// a piece, those that cannot be asked now included.
pub(super) fn rarest_first(
    needed: impl Iterator<Item = u32>,
    held_by: impl Fn(u32) -> u16,
    sources: &mut [Source<'_>],
    slots: usize,
    draw: u64,
) -> Vec<(u32, NodeId)> {
    if slots == 0 || sources.iter().all(|source| source.free == 0) {
        return Vec::new();
    }
    let mut order: Vec<(u16, u64, u32)> = needed
        .map(|piece| (held_by(piece), tie(draw, u64::from(piece)), piece))
        .collect();
    order.sort_unstable();
    let mut picks = Vec::new();
    for (_, _, piece) in order {
        if picks.len() == slots {
            break;
        }
        let best = sources
            .iter_mut()
            .enumerate()
            .filter(|(_, source)| source.free > 0 && source.held.contains(piece))
            .min_by_key(|(i, source)| (source.load, tie(draw, u64::from(piece) << 32 | *i as u64)));
        if let Some((_, source)) = best {
            source.free -= 1;
            source.load += 1;
            picks.push((piece, source.node));
        }
    }
    picks
}
