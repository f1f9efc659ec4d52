//! Peers that say what they have and what they bring, and then hand nothing out.

use protocol::limits::{CLAIM_HURRY, TRIAL_PIECES};
use protocol::pieces::Geometry;
use protocol::wire::Claim;
use protocol::{Hash, Span, Time};

use super::world::{Nature, World, node_id, release};
use crate::swarm::owners::{Clash, Lease, Mine, Owners};

const MIB: u64 = 1 << 20;

/// The story: a node chose the plain pieces that only a staller had, gave up on it, and never looked at
/// its choice again; the carrier, which the origin had all the while, was not wanted.
#[test]
fn who_chose_what_only_a_staller_has_chooses_again() {
    for seed in 60..63 {
        let mut world = World::new(2, seed);
        let release = release(seed, 20 * MIB, 8 * MIB);
        world.nodes[0].nature = Nature::Staller;
        world.give(0, release.artifact.pack);
        // Else it would know the staller for one before it has to choose.
        world.give(1, release.artifact.index);
        world.start_all();
        world.want_all(&release);
        world.run_until_staged(&release, 180);
        let asked = |blob| world.nodes[1].fetches.iter().any(|(b, ..)| *b == blob);
        assert!(asked(release.artifact.pack), "seed {seed}");
        let copies = world.copies(release.artifact.full_carrier().expect("a carrier"));
        assert!(copies <= 1.0, "seed {seed}: {copies}");
    }
}

/// The story: a staller went on naming, as just brought, the pieces that it did not hand out, and each of
/// its claims ended the fetches of those who brought them in its stead.
#[test]
fn who_stalls_takes_no_piece_from_those_who_bring_it() {
    let (root, me, staller) = (Hash::of(b"a blob"), node_id(1), node_id(2));
    let claim = Claim {
        node: staller,
        blob: root,
        pieces: (0..32).collect(),
        held: true,
        under_way: 32,
    };
    let mut owners = Owners::new(root, 32);
    owners.claimed(Time(1), &claim, me, |_| false);
    owners.distrust(staller);
    for piece in 0..16 {
        owners.claim(piece, Time(2));
    }
    for piece in 0..8 {
        owners.fly(piece);
    }
    assert_eq!(owners.claimed(Time(3), &claim, me, |_| false), Clash::Mine);
    owners.showed(Time(4), &staller);
    assert_eq!(owners.claimed(Time(5), &claim, me, |_| false), Clash::Mine);
    let flying = |piece: &u32| owners.mine().get(piece) == Some(&Mine::Flying);
    assert!((0..8).all(|piece| flying(&piece)));
    assert_eq!(owners.mine().len(), 16);
    owners.rank_again(Some(me), true, 3, |_| true);
    assert!((0..32).all(|piece| owners.owner(piece, me) == me));

    // A piece handed out is another matter.
    owners.trust(&staller);
    owners.claimed(Time(6), &claim, me, |_| false);
    assert_eq!(owners.owner(20, me), staller);
}

/// Only those who follow a fetcher hear of the pieces that it won. The others saw it renew its claims
/// for two minutes and held that nothing came of them: they took over what it was bringing, and the
/// site's WAN carried pieces twice. That its pieces are in the site, from whomever, is proof enough.
#[test]
fn who_brings_what_it_claims_has_not_stalled_though_it_does_not_say_so() {
    let (me, fetcher) = (node_id(1), node_id(2));
    let mut owners = Owners::new(Hash([7; 32]), 64);
    let (lease, patience) = (Span(5_000), Span(20_000));
    let claim = |pieces: Vec<u32>| Claim {
        node: fetcher,
        blob: Hash([7; 32]),
        under_way: 1,
        pieces,
        held: true,
    };
    for n in 0..12 {
        let now = Time(u64::from(n) * 4_000);
        owners.claimed(now, &claim(vec![n, n + 1]), me, |_| false);
        assert!(matches!(
            owners.expect(now, fetcher, lease, patience),
            Lease::Until(_)
        ));
        owners.arrived(n);
    }
    // What is here already is nothing to show, however often it is claimed.
    for n in 12..16 {
        let now = Time(n * 4_000);
        owners.claimed(now, &claim(vec![3]), me, |piece| piece == 3);
        owners.arrived(3);
        let lease = owners.expect(now, fetcher, lease, patience);
        assert!(matches!(lease, Lease::Until(_)), "at {n}");
    }
    owners.claimed(Time(68_000), &claim(vec![3]), me, |piece| piece == 3);
    assert_eq!(
        owners.expect(Time(68_000), fetcher, lease, patience),
        Lease::Lapsed
    );
}

/// The story: nodes with damaged disks were left by all others, who brought anew what they had brought. They
/// heard nothing of it, and each went on bringing a fetcher's share: the site's WAN carried nearly two copies.
#[test]
fn of_whom_nobody_takes_anything_leaves_the_rest_to_the_others() {
    for (seed, nature) in (90..93).flat_map(|s| [(s, Nature::Poisoner), (s, Nature::Staller)]) {
        let mut world = World::new(10, seed);
        let release = release(seed, 80 * MIB, 64 * MIB);
        let carrier = *release.artifact.full_carrier().expect("a carrier");
        let piece = Geometry::of(carrier.length).piece_bytes();
        for n in 0..3 {
            world.nodes[n].nature = nature;
        }
        world.start_all();
        world.want_all(&release);
        world.run_until_staged(&release, 120);
        for n in 0..3 {
            let brought = world.wan_by_node.get(&(carrier, n)).copied();
            let brought = brought.unwrap_or(0);
            assert!(
                brought <= TRIAL_PIECES as u64 * piece,
                "seed {seed}: {nature:?} {n} brought {brought} bytes"
            );
        }
        let copies = world.copies(&carrier);
        let most = 1.0 + 0.01 + (3 * TRIAL_PIECES as u64 * piece) as f64 / carrier.length as f64;
        assert!(
            copies <= most,
            "seed {seed}: {nature:?}: {copies}, not {most}"
        );
    }
}

/// The story: a node was sound when it began, and its disk failed in the middle.
#[test]
fn whose_pieces_nobody_takes_any_more_leaves_the_rest_to_the_others() {
    for seed in 93..96 {
        let mut world = World::new(8, seed);
        let release = release(seed, 80 * MIB, 64 * MIB);
        let carrier = *release.artifact.full_carrier().expect("a carrier");
        world.start_all();
        world.want_all(&release);
        world.run(2_000);
        let turned = world.wan_by_node.keys().find(|(blob, _)| *blob == carrier);
        let turned = turned.expect("somebody fetches").1;
        world.nodes[turned].nature = Nature::Poisoner;
        let brought = |world: &World| world.wan_by_node[&(carrier, turned)];
        let before = brought(&world);
        world.run_until_staged(&release, 120);
        let more = brought(&world) - before;
        assert!(more <= 6 * MIB, "seed {seed}: {more} of a share of 16 MiB");
    }
}

/// Two nodes that can take nothing from each other leave it to each other, and then to nobody.
#[test]
fn who_is_left_alone_brings_what_it_needs() {
    for (seed, nature) in (96..98).flat_map(|s| [(s, Nature::Poisoner), (s, Nature::Staller)]) {
        let mut world = World::new(2, seed);
        let release = release(seed, 20 * MIB, 8 * MIB);
        for n in 0..2 {
            world.nodes[n].nature = nature;
        }
        world.start_all();
        world.want_all(&release);
        world.run_until_staged(&release, 90);
        let copies = world.copies(release.artifact.full_carrier().expect("a carrier"));
        assert!(copies <= 2.0, "seed {seed}: {copies}");
    }
}

/// The story: each node left those who were banned or starved it out of its ranking, and nobody else did: one
/// was expected to bring what it never knew to be its own, and the site waited a lease for each.
#[test]
fn who_leaves_it_to_the_others_is_ranked_by_nobody_until_it_claims() {
    let (me, node) = (node_id(1), node_id(2));
    let mut owners = Owners::new(Hash([7; 32]), 8);
    let mut claim = Claim {
        node,
        blob: Hash([7; 32]),
        pieces: vec![3],
        held: true,
        under_way: 1,
    };
    let ranked = |owners: &mut Owners| {
        owners.rank_again(Some(me), false, 4, |_| true);
        owners.fetchers().contains(&node)
    };
    owners.claimed(Time(1), &claim, me, |_| false);
    assert!(ranked(&mut owners) && owners.owner(3, me) == node);
    let left = Claim {
        pieces: Vec::new(),
        held: false,
        ..claim.clone()
    };
    owners.claimed(Time(2), &left, me, |_| false);
    assert!(!ranked(&mut owners) && owners.owner(3, me) == me);
    owners.showed(Time(3), &node);
    owners.trust(&node);
    owners.heard(Time(4), node);
    assert!(!ranked(&mut owners));
    claim.pieces = vec![5];
    owners.claimed(Time(5), &claim, me, |_| false);
    assert!(ranked(&mut owners) && owners.owner(5, me) == node);
}

#[test]
fn who_comes_after_one_that_let_others_wait_is_not_waited_for_as_long() {
    let (me, first, second) = (node_id(1), node_id(2), node_id(3));
    let mut owners = Owners::new(Hash([7; 32]), 8);
    let (lease, patience) = (Span(5_000), Span(120_000));
    assert_eq!(
        owners.expect(Time(0), second, lease, patience),
        Lease::Until(Time(5_000))
    );
    owners.expect_only(&[].into());
    owners.heard(Time(1_000), first);
    owners.heard(Time(1_000), second);
    owners.expect(Time(1_000), first, lease, patience);
    let lapsed = Time(6_000);
    assert_eq!(owners.expect(lapsed, first, lease, patience), Lease::Lapsed);
    let soon = Lease::Until(lapsed + CLAIM_HURRY);
    assert_eq!(owners.expect(lapsed, second, lease, patience), soon);
    // Who is at it is waited for as ever.
    let claim = Claim {
        node: second,
        blob: Hash([7; 32]),
        pieces: vec![1],
        held: true,
        under_way: 1,
    };
    owners.claimed(lapsed, &claim, me, |_| false);
    let lease_on = Lease::Until(lapsed + lease);
    assert_eq!(owners.expect(lapsed, second, lease, patience), lease_on);
}
