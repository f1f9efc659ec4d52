//! Slow, obvious models beside the clever code, compared on random cases.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::pieces::{Geometry, PieceSet};
use protocol::positions::rank;
use protocol::wire::Claim;
use protocol::{Hash, NodeId, Time};

use super::world::node_id;
use crate::contract::FrameMap;
use crate::swarm::form::{self, Holding};
use crate::swarm::holders::Holders;
use crate::swarm::owners::{Owners, owner_rank};
use crate::swarm::pick::{Source, rarest_first, tie};

fn set(len: u32, pieces: &BTreeSet<u32>) -> PieceSet {
    let mut set = PieceSet::empty(len);
    pieces.iter().for_each(|piece| {
        set.insert(*piece);
    });
    set
}

/// A candidate is a fetcher if fewer than `count` others come before it.
fn fetchers_by_counting(
    root: &Hash,
    candidates: &BTreeSet<NodeId>,
    count: usize,
) -> BTreeSet<NodeId> {
    let place = |node: &NodeId| (rank("fetcher", &root.0, node), *node);
    let before = |node: &NodeId| {
        candidates
            .iter()
            .filter(|other| place(other) < place(node))
            .count()
    };
    candidates
        .iter()
        .filter(|node| before(node) < count)
        .copied()
        .collect()
}

/// The owner is whoever no other fetcher that did not decline beats; then the same among all.
fn owner_by_beating(
    root: &Hash,
    piece: u32,
    fetchers: &BTreeSet<NodeId>,
    all: &BTreeSet<NodeId>,
    declined: &BTreeSet<(NodeId, u32)>,
) -> Option<NodeId> {
    let best = |nodes: &BTreeSet<NodeId>| {
        let fit: Vec<NodeId> = nodes
            .iter()
            .filter(|node| !declined.contains(&(**node, piece)))
            .copied()
            .collect();
        let weight = |node: &NodeId| owner_rank(root, piece, node);
        fit.iter()
            .find(|node| fit.iter().all(|other| weight(node) <= weight(other)))
            .copied()
    };
    best(fetchers).or_else(|| best(all))
}

proptest! {
    #[test]
    fn owners_are_those_of_the_model(
        others in 0u64..9,
        count in 1usize..5,
        declines in proptest::collection::btree_set((0u64..9, 0u32..12), 0..30),
        claims in proptest::collection::vec((0u64..9, 0u32..12), 0..6),
        seed: u64,
    ) {
        let root = Hash::of(&seed.to_le_bytes());
        let me = node_id(1_000);
        let others: BTreeSet<NodeId> = (0..others).map(node_id).collect();
        let mut owners = Owners::new(root, 12);
        for node in &others {
            owners.heard(Time(1), *node);
        }
        let declined: BTreeSet<(NodeId, u32)> =
            declines.into_iter().map(|(n, p)| (node_id(n), p)).filter(|(n, _)| others.contains(n)).collect();
        for (node, piece) in &declined {
            let claim = Claim { node: *node, blob: root, pieces: vec![*piece, 77], held: false, under_way: 0 };
            owners.claimed(Time(1), &claim, me, |_| false);
        }
        owners.rank_again(Some(me), false, count, |_| true);
        let all: BTreeSet<NodeId> = others.iter().copied().chain([me]).collect();
        let fetchers = fetchers_by_counting(&root, &all, count);
        prop_assert_eq!(owners.fetchers().iter().copied().collect::<BTreeSet<_>>(), fetchers.clone());
        for piece in 0..12 {
            let expected = owner_by_beating(&root, piece, &fetchers, &all, &declined).unwrap_or(me);
            prop_assert_eq!(owners.owner(piece, me), expected);
        }
        // A claim stands whatever the ranks say; of several, the best ranked.
        let mut claimed: BTreeMap<NodeId, Vec<u32>> = BTreeMap::new();
        for (node, piece) in claims {
            if others.contains(&node_id(node)) {
                claimed.entry(node_id(node)).or_default().push(piece);
            }
        }
        let mut claimers: BTreeMap<u32, BTreeSet<NodeId>> = BTreeMap::new();
        // What was claimed first counts no longer when the node claims anew.
        let mut claim = |node: NodeId, pieces: Vec<u32>| {
            owners.claimed(Time(2), &Claim { node, blob: root, pieces, held: true, under_way: 0 }, me, |_| false);
        };
        for pieces in [vec![11, 10, 9], Vec::new()] {
            claimed.keys().for_each(|node| claim(*node, pieces.clone()));
        }
        for (node, pieces) in claimed {
            claim(node, pieces.clone());
            for piece in pieces {
                claimers.entry(piece).or_default().insert(node);
            }
        }
        for (piece, nodes) in claimers {
            let best = nodes.into_iter().min_by_key(|n| owner_rank(&root, piece, n));
            prop_assert_eq!(Some(owners.owner(piece, me)), best);
        }
    }

    #[test]
    fn picks_are_those_of_the_model(
        held in proptest::collection::vec((proptest::collection::btree_set(0u32..24, 0..24), 0usize..5, 0usize..4), 0..6),
        needed in proptest::collection::btree_set(0u32..24, 0..24),
        slots in 0usize..12,
        draw: u64,
    ) {
        let sets: Vec<PieceSet> = held.iter().map(|(pieces, ..)| set(24, pieces)).collect();
        let count = |piece: u32| sets.iter().filter(|s| s.contains(piece)).count() as u16;
        let mut sources: Vec<Source<'_>> = held
            .iter()
            .zip(&sets)
            .enumerate()
            .map(|(i, ((_, free, load), held))| Source { node: node_id(i as u64), held, free: *free, load: *load })
            .collect();
        let mut model = sources.clone();
        let picks = rarest_first(needed.iter().copied(), count, &mut sources, slots, draw);

        // The model takes one piece after the other out of the bag: always the rarest that is left.
        let mut expected = Vec::new();
        let mut bag = needed;
        while let Some(piece) = bag.iter().copied().min_by_key(|p| (count(*p), tie(draw, u64::from(*p)))) {
            bag.remove(&piece);
            let holders = (0..model.len()).filter(|i| model[*i].free > 0 && model[*i].held.contains(piece));
            let best = holders.min_by_key(|i| (model[*i].load, tie(draw, u64::from(piece) << 32 | *i as u64)));
            if let (Some(i), true) = (best, expected.len() < slots) {
                model[i].free -= 1;
                model[i].load += 1;
                expected.push((piece, model[i].node));
            }
        }
        prop_assert_eq!(picks, expected);
    }

    #[test]
    fn holders_count_like_the_model(
        steps in proptest::collection::vec((0u8..4, 0u64..5, 0u32..70, proptest::collection::btree_set(0u32..70, 0..8)), 0..60),
    ) {
        let mut holders = Holders::new(70);
        let mut model: BTreeMap<NodeId, BTreeSet<u32>> = BTreeMap::new();
        for (step, node, piece, pieces) in steps {
            let node = node_id(node);
            match step {
                0 => {
                    prop_assert!(holders.replace(node, set(70, &pieces)));
                    model.insert(node, pieces);
                }
                1 => {
                    holders.add(node, piece);
                    model.entry(node).or_default().insert(piece);
                }
                2 => {
                    holders.remove(&node, piece);
                    model.entry(node).or_default().remove(&piece);
                }
                _ => {
                    holders.forget(&node);
                    model.remove(&node);
                }
            }
            for piece in 0..70 {
                let count = model.values().filter(|pieces| pieces.contains(&piece)).count();
                prop_assert_eq!(usize::from(holders.count(piece)), count);
                prop_assert_eq!(holders.any().contains(piece), count > 0);
                prop_assert_eq!(holders.holds(&node, piece), model.get(&node).is_some_and(|p| p.contains(&piece)));
            }
        }
    }

    #[test]
    fn every_frame_comes_whole_in_its_cheapest_form(
        coded in 1u64..6_000_000,
        pack_have in proptest::collection::btree_set(0u32..160, 0..60),
        pack_near in proptest::collection::btree_set(0u32..160, 0..160),
        carrier_have in proptest::collection::btree_set(0u32..24, 0..12),
        carrier_near in proptest::collection::btree_set(0u32..24, 0..24),
        pack_flying in proptest::collection::btree_set(0u32..160, 0..20),
        carrier_flying in proptest::collection::btree_set(0u32..24, 0..6),
    ) {
        let (plain, carrier) = (Geometry::of(40 << 20), Geometry::of(5 * coded / 5 + 100));
        let frames = FrameMap {
            coded: (0..5).map(|i| (100 + coded * i / 5, 100 + coded * (i + 1) / 5)).collect(),
            frame_plain: 8 << 20,
        };
        let sets = [
            set(plain.pieces(), &pack_have), set(plain.pieces(), &pack_near),
            set(carrier.pieces(), &carrier_have), set(carrier.pieces(), &carrier_near),
            set(plain.pieces(), &pack_flying), set(carrier.pieces(), &carrier_flying),
        ];
        let pack = Holding { cut: plain, have: &sets[0], near: &sets[1], flying: &sets[4] };
        let coded = Holding { cut: carrier, have: &sets[2], near: &sets[3], flying: &sets[5] };
        let form = form::by_frame(&frames, coded, pack);
        let cost = |holding: &Holding<'_>, chosen: &BTreeSet<u32>, pieces: core::ops::Range<u32>| {
            let here = |p: &u32| holding.have.contains(*p) || holding.flying.contains(*p) || chosen.contains(p);
            let missing: Vec<u32> = pieces.filter(|p| !here(p)).collect();
            let bytes = missing.iter().map(|p| holding.cut.piece_range(*p)).map(|r| r.end - r.start).sum::<u64>();
            if missing.iter().all(|p| holding.near.contains(*p)) { bytes } else { u64::MAX }
        };
        let (mut plains, mut codeds) = (BTreeSet::new(), BTreeSet::new());
        for frame in 0..5 {
            let (p, c) = (form::pack_pieces(&frames, frame, plain), form::carrier_pieces(&frames, frame, carrier));
            if p.clone().all(|piece| sets[0].contains(piece)) {
                continue;
            }
            let by_pack = p.clone().all(|piece| form.pack.contains(piece));
            let by_carrier = c.clone().all(|piece| form.carrier.contains(piece));
            prop_assert!(by_pack || by_carrier);
            let cheaper = cost(&pack, &plains, p.clone()) < cost(&coded, &codeds, c.clone());
            if cheaper {
                plains.extend(p);
            } else {
                codeds.extend(c);
            }
            let in_form = if cheaper { by_pack } else { by_carrier };
            prop_assert!(in_form);
        }
        let pieces = |set: &PieceSet| set.iter().collect::<BTreeSet<u32>>();
        prop_assert_eq!((pieces(&form.pack), pieces(&form.carrier)), (plains, codeds));
    }
}
