//! Peers that say what they have and what they bring, and then hand nothing out.

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
