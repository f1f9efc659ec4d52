//! Pieces that this node won and not everybody has heard of.
//!
//! Whoever hears of a piece asks for it. Were all told at once of what only one node has, all would ask
//! that one, and each would wait as long as the last: so the first few are told first, and when they had
//! the time to take it, and serve others, the next.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{NEWS_BYTES_PER_MS, NEWS_PIECES_MAX, NEWS_WAVE_MIN, NEWS_WAVES_MAX};
use protocol::{NodeId, Span, Time};

use super::pick::tie;

/// A piece of which not everybody has heard.
struct Item {
    /// What was won earlier has a lower number.
    number: u64,
    /// Waves that had gone out when it was won.
    waves: u64,
    told: BTreeSet<NodeId>,
}

/// What is to be told, by piece.
#[derive(Default)]
pub(super) struct News {
    items: BTreeMap<u32, Item>,
    won: u64,
    waves: u64,
    next: Time,
}

impl News {
    /// `piece` was won.
    pub fn add(&mut self, piece: u32) {
        self.won += 1;
        let item = Item {
            number: self.won,
            waves: self.waves,
            told: BTreeSet::new(),
        };
        self.items.entry(piece).or_insert(item);
    }

    /// Nobody is to be told.
    pub fn clear(&mut self) {
        self.items.clear();
    }

    /// When the next wave goes out, if there is anything to tell.
    pub fn due(&self) -> Option<Time> {
        (!self.items.is_empty()).then_some(self.next)
    }

    /// Pieces for each node that hears of them now, `most` in all: first of those of which nobody has
    /// heard, then of the oldest. What is old counts for less: nearly all who hear of it have it from
    /// others by then, and whoever has not must not wait for ever. The next wave goes out at `next`. `lack` are those who want a piece
    /// and, as far as is known, have it not; `draw` spreads who comes first.
    pub fn wave<'a, L: Iterator<Item = &'a NodeId>>(
        &mut self,
        next: Time,
        most: usize,
        draw: u64,
        lack: impl Fn(u32) -> L,
    ) -> BTreeMap<NodeId, Vec<u32>> {
        let flood = self.items.len() > NEWS_PIECES_MAX;
        let mut room = if flood { usize::MAX } else { most * FULL };
        self.waves += 1;
        let items = self.items.iter();
        let place = |(piece, item): (&u32, &Item)| (!item.told.is_empty(), item.number, *piece);
        let mut order: Vec<(bool, u64, u32)> = items.map(place).collect();
        order.sort_unstable();
        let mut wave: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
        for (.., piece) in order {
            let Some(item) = self.items.get_mut(&piece) else {
                continue;
            };
            let told = &mut item.told;
            let mut now: Vec<&NodeId> = lack(piece).filter(|node| !told.contains(node)).collect();
            let waves = self.waves - item.waves;
            let left = room / costs(waves);
            if now.len() <= left {
                self.items.remove(&piece);
            } else if left == 0 {
                break;
            } else {
                let place = |node: &&NodeId| tie(draw ^ u64::from(piece), node.head());
                now.select_nth_unstable_by_key(left, place);
                now.truncate(left);
                told.extend(now.iter().copied());
            }
            room -= now.len() * costs(waves);
            for node in now {
                wave.entry(*node).or_default().push(piece);
            }
        }
        self.next = next;
        wave
    }
}

/// What it counts to tell one node of what is news.
const FULL: usize = 16;

/// What it counts to tell one node of a piece that was won so many waves ago.
fn costs(waves: u64) -> usize {
    match waves {
        0..=4 => FULL,
        5..=8 => FULL / 4,
        _ => 1,
    }
}

/// So many may hear of a piece in one wave: as many as a link of 1 Gbit/s serves in a `beat`, a few at
/// least; more where pieces are seen to take less than on such a link.
pub(super) fn most(piece_bytes: u64, takes_ms: u64, beat: Span) -> usize {
    let few = (NEWS_BYTES_PER_MS * beat.0 / piece_bytes.max(1)).max(NEWS_WAVE_MIN);
    let least_ms = piece_bytes / NEWS_BYTES_PER_MS;
    let faster = least_ms.checked_div(takes_ms).unwrap_or(1);
    (few * faster.clamp(1, NEWS_WAVES_MAX)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u8) -> BTreeSet<NodeId> {
        (0..count).map(|n| NodeId([n; 32])).collect()
    }

    #[test]
    fn nobody_is_told_twice_and_in_the_end_everybody_is() {
        let (mut news, all) = (News::default(), nodes(50));
        news.add(3);
        let mut heard = BTreeSet::new();
        // What is old goes out faster, because nearly all have it from others.
        for (n, most) in [4, 4, 4, 4, 16, 16, 16].into_iter().enumerate() {
            let n = n as u64;
            assert_eq!(news.due(), Some(Time(n)), "before wave {n}");
            let wave = news.wave(Time(n + 1), 4, n, |_| all.iter());
            assert!(wave.len() <= most, "wave {n}: {}", wave.len());
            for (node, pieces) in wave {
                assert_eq!(pieces, [3]);
                assert!(heard.insert(node), "told twice: {node:?}");
            }
        }
        assert_eq!((heard, news.due()), (all, None));
    }

    #[test]
    fn who_has_it_from_another_is_not_told() {
        let (mut news, all) = (News::default(), nodes(50));
        news.add(0);
        news.wave(Time(1), 4, 0, |_| all.iter());
        let lack = nodes(0);
        assert!(news.wave(Time(2), 4, 0, |_| lack.iter()).is_empty());
        assert_eq!(news.due(), None);
    }

    #[test]
    fn what_nobody_heard_of_goes_before_what_some_have_and_then_the_oldest() {
        let (mut news, all) = (News::default(), nodes(12));
        let pieces = |wave: BTreeMap<NodeId, Vec<u32>>| -> Vec<u32> {
            wave.into_values().flatten().collect()
        };
        news.add(9);
        news.wave(Time(0), 4, 0, |_| all.iter());
        news.add(5);
        assert_eq!(pieces(news.wave(Time(0), 4, 0, |_| all.iter())), [5; 4]);
        assert_eq!(pieces(news.wave(Time(0), 4, 0, |_| all.iter())), [9; 4]);
    }

    #[test]
    fn more_than_is_kept_goes_to_everybody_at_once() {
        let (mut news, all) = (News::default(), nodes(50));
        (0..=NEWS_PIECES_MAX as u32).for_each(|piece| news.add(piece));
        let wave = news.wave(Time(0), 4, 0, |_| all.iter());
        assert!(wave.len() == 50 && wave.values().all(|p| p.len() > NEWS_PIECES_MAX));
        assert_eq!(news.due(), None);
    }
}
