//! The cut of a blob, and sets of its pieces, beside slow and obvious models.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tidegate_protocol::limits::{
    BLOB_MAX_BYTES, GROUP_BYTES, PIECE_MAX_BYTES, PIECE_MIN_BYTES, PIECES_AIM, PIECES_MAX,
};
use tidegate_protocol::pieces::{Geometry, PieceSet};

#[derive(Clone, Debug)]
enum Do {
    Insert(u32),
    Remove(u32),
    Union(Vec<u32>),
}

fn sets() -> impl Strategy<Value = (u32, Vec<Do>)> {
    let lengths = prop_oneof![0..4u32, 60..70u32, 120..300u32, Just(4096)];
    lengths.prop_flat_map(|length| {
        let piece = 0..length + 3;
        let step = prop_oneof![
            4 => piece.clone().prop_map(Do::Insert),
            2 => piece.clone().prop_map(Do::Remove),
            1 => prop::collection::vec(piece, 0..20).prop_map(Do::Union),
        ];
        (Just(length), prop::collection::vec(step, 0..200))
    })
}

fn lengths() -> impl Strategy<Value = u64> {
    let near = |log2: u32| (1u64 << log2).saturating_sub(2)..(1u64 << log2) + 3;
    prop_oneof![
        0..3u64,
        (10..41u32).prop_flat_map(near),
        0..BLOB_MAX_BYTES + 1,
        0..64u64 << 20,
        (1..300u64).prop_map(|n| n * PIECE_MIN_BYTES),
    ]
    .prop_map(|length: u64| length.min(BLOB_MAX_BYTES))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_piece_set_is_a_set((length, steps) in sets()) {
        let mut set = PieceSet::empty(length);
        let mut model = BTreeSet::new();
        for step in steps {
            match step {
                Do::Insert(piece) => prop_assert_eq!(set.insert(piece), piece < length && model.insert(piece)),
                Do::Remove(piece) => prop_assert_eq!(set.remove(piece), model.remove(&piece)),
                Do::Union(pieces) => {
                    // The other one is longer than this one: what does not fit is left out.
                    let mut other = PieceSet::empty(length + 5);
                    pieces.iter().for_each(|piece| _ = other.insert(*piece));
                    set.union(&other);
                    model.extend(pieces.into_iter().filter(|piece| *piece < length));
                    prop_assert!(other.covers(&set) == model.iter().all(|piece| other.contains(*piece)));
                }
            }
            prop_assert!(set.well_formed());
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(set.count() as usize, model.len());
            prop_assert_eq!(set.is_empty(), model.is_empty());
            prop_assert_eq!(set.is_full(), model.len() == length as usize);
            prop_assert!((0..length + 70).all(|piece| set.contains(piece) == model.contains(&piece)));
        }
        prop_assert!(PieceSet::full(length).covers(&set));
        prop_assert!(PieceSet::full(length).well_formed() && PieceSet::full(length).is_full());
        let again: PieceSet = postcard::from_bytes(&postcard::to_stdvec(&set).unwrap()).unwrap();
        prop_assert_eq!(again, set);
    }

    #[test]
    fn pieces_and_groups_tile_the_blob(length in lengths()) {
        let cut = Geometry::of(length);
        prop_assert_eq!(cut.length(), length);
        let size = cut.piece_bytes();
        prop_assert!(size.is_power_of_two() && (PIECE_MIN_BYTES..=PIECE_MAX_BYTES).contains(&size));
        prop_assert_eq!(1u64 << cut.piece_log2(), size);
        prop_assert_eq!(cut.groups_per_piece() * GROUP_BYTES, size);
        prop_assert!(u64::from(cut.pieces()) <= PIECES_MAX);
        // About 256 pieces, unless the size of a piece is at one of its ends.
        if size > PIECE_MIN_BYTES && size < PIECE_MAX_BYTES {
            prop_assert!((PIECES_AIM / 2..=PIECES_AIM).contains(&u64::from(cut.pieces())));
        }
        let check = |piece: u32, start: u64, first_group: u64| -> Result<(u64, u64), TestCaseError> {
            let (bytes, groups) = (cut.piece_range(piece), cut.piece_groups(piece));
            prop_assert_eq!(bytes.start, start);
            prop_assert_eq!(groups.start, first_group);
            prop_assert_eq!(groups.start * GROUP_BYTES, bytes.start);
            if bytes.is_empty() {
                prop_assert_eq!(length, 0);
            } else {
                prop_assert_eq!(cut.pieces_of_bytes(bytes.clone()), piece..piece + 1);
                prop_assert_eq!((bytes.end - bytes.start).div_ceil(GROUP_BYTES), groups.end - groups.start);
            }
            Ok((bytes.end, groups.end))
        };
        let (mut end, mut groups) = (0, 0);
        let last = cut.pieces() - 1;
        for piece in (0..=last).take(600) {
            (end, groups) = check(piece, end, groups)?;
        }
        if last >= 600 {
            let start = u64::from(last) * size;
            (end, groups) = check(last, start, start / GROUP_BYTES)?;
        }
        prop_assert_eq!((end, groups), (length, cut.groups()));
        prop_assert!(cut.piece_range(last + 1).is_empty());
        prop_assert!(cut.piece_groups(last + 1).is_empty());
    }

    #[test]
    fn pieces_of_bytes_are_those_that_touch(length in 0..20u64 << 20, start in 0..21u64 << 20, more in 0..2u64 << 20) {
        let cut = Geometry::of(length);
        let end = start + more;
        let touches = |piece: &u32| {
            let range = cut.piece_range(*piece);
            range.start.max(start) < range.end.min(end)
        };
        let expected: Vec<u32> = (0..cut.pieces()).filter(touches).collect();
        prop_assert_eq!(cut.pieces_of_bytes(start..end).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn foreign_sets_that_lie_about_themselves_are_seen_through() {
    let check = |length: u32, words: &[u64], expected: bool| {
        let bytes = postcard::to_stdvec(&(length, words)).unwrap();
        let set: PieceSet = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(set.well_formed(), expected, "{length} pieces in {words:x?}");
    };
    check(0, &[], true);
    check(64, &[u64::MAX], true);
    check(65, &[0, 1], true);
    check(65, &[0, 2], false);
    check(65, &[0], false);
    check(1, &[], false);
    check(0, &[0], false);
    check(u32::MAX, &[1], false);
}
