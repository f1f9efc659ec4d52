//! Peers that say what they have and what they bring, and then hand nothing out.

use protocol::wire::Claim;
use protocol::{Hash, Time};

use super::world::{Nature, World, node_id, release};
use crate::swarm::owners::{Clash, Mine, Owners};

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
    owners.claimed(Time(1), &claim, me);
    owners.distrust(staller);
    for piece in 0..16 {
        owners.claim(piece, Time(2));
    }
    for piece in 0..8 {
        owners.fly(piece);
    }
    assert_eq!(owners.claimed(Time(3), &claim, me), Clash::Mine);
    owners.showed(Time(4), &staller);
    assert_eq!(owners.claimed(Time(5), &claim, me), Clash::Mine);
    let flying = |piece: &u32| owners.mine().get(piece) == Some(&Mine::Flying);
    assert!((0..8).all(|piece| flying(&piece)));
    assert_eq!(owners.mine().len(), 16);
    owners.rank_again(Some(me), true, 3, |_| true);
    assert!((0..32).all(|piece| owners.owner(piece, me) == me));

    // A piece handed out is another matter.
    owners.trust(&staller);
    owners.claimed(Time(6), &claim, me);
    assert_eq!(owners.owner(20, me), staller);
}
