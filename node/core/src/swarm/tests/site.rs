//! What a site as a whole achieves.

use protocol::limits::FETCHERS_MAX;
use protocol::wire::Class;
use protocol::{Span, Time};

use super::world::{Nature, World, release};
use crate::contract::{FetchReason, FrameOutcome};

const MIB: u64 = 1 << 20;

#[test]
fn one_copy_crosses_the_wan_and_everyone_stages() {
    for seed in 0..4 {
        let mut world = World::new(8, seed);
        let release = release(seed, 48 * MIB, 16 * MIB);
        world.start_all();
        world.want_all(&release);
        let begun = world.now;
        let ended = world.run_until_staged(&release, 60);
        let carrier = *release.artifact.full_carrier().unwrap();
        assert_eq!(world.copies(&carrier), 1.0, "seed {seed}");
        assert_eq!(world.copies(&release.artifact.index), 1.0, "seed {seed}");
        assert_eq!(world.wan_bytes.get(&release.artifact.pack), None);
        assert_eq!(world.most_promised, 2_000_000, "the source paces the site");
        let fetchers = world
            .wan_by_node
            .keys()
            .filter(|(blob, _)| *blob == carrier)
            .count();
        assert_eq!(fetchers, FETCHERS_MAX, "seed {seed}");
        // 16 MiB at 2 MB/s are 8.4 s; the rest is meeting, the tail, and the way through the LAN.
        assert!(
            ended.since(begun) < Span::from_secs(13),
            "seed {seed}: {:?}",
            ended.since(begun)
        );
    }
}

#[test]
fn without_a_carrier_one_copy_of_the_pack_crosses_the_wan() {
    for seed in 0..4 {
        let mut world = World::new(8, seed);
        let mut release = release(seed, 16 * MIB, 16 * MIB);
        release.artifact.carriers.clear();
        world.start_all();
        world.want_all(&release);
        let begun = world.now;
        let ended = world.run_until_staged(&release, 60);
        assert_eq!(world.copies(&release.artifact.pack), 1.0, "seed {seed}");
        assert!(world.nodes.iter().all(|n| n.decoded == 0));
        assert!(
            ended.since(begun) < Span::from_secs(13),
            "seed {seed}: {:?}",
            ended.since(begun)
        );
    }
}

#[test]
fn a_killed_owner_costs_a_lease_and_few_bytes() {
    for seed in 10..13 {
        let mut world = World::new(8, seed);
        let release = release(seed, 48 * MIB, 16 * MIB);
        world.start_all();
        world.want_all(&release);
        let begun = world.now;
        world.run(3_000);
        let carrier = *release.artifact.full_carrier().unwrap();
        let owner = world
            .wan_by_node
            .keys()
            .find(|(blob, _)| *blob == carrier)
            .unwrap()
            .1;
        world.kill(owner);
        let ended = world.run_until_staged(&release, 60);
        let copies = world.copies(&carrier);
        assert!(copies < 1.1, "seed {seed}: {copies}");
        let taken_over = |n: &super::world::Node| {
            n.fetches
                .iter()
                .any(|(_, _, why)| *why == FetchReason::LeaseExpired)
        };
        assert!(world.nodes.iter().any(taken_over), "seed {seed}");
        assert!(
            ended.since(begun) < Span::from_secs(20),
            "seed {seed}: {:?}",
            ended.since(begun)
        );
    }
}

#[test]
fn a_poisoner_is_banned_and_everyone_else_finishes() {
    for seed in 20..22 {
        let mut world = World::new(8, seed);
        let release = release(seed, 40 * MIB, 16 * MIB);
        let carrier = *release.artifact.full_carrier().unwrap();
        world.start_all();
        world.want_all(&release);
        world.run(2_000);
        // One of the fetchers, so that the site depends on it, turns.
        let turned = world
            .wan_by_node
            .keys()
            .find(|(blob, _)| *blob == carrier)
            .unwrap()
            .1;
        world.nodes[turned].nature = Nature::Poisoner;
        world.run_until_staged(&release, 60);
        let poisoner = world.nodes[turned].id;
        let bans = world
            .nodes
            .iter()
            .filter(|n| n.banned == [poisoner])
            .count();
        let again = |why: &FetchReason| *why == FetchReason::VerificationFailed;
        let fetches = world.nodes.iter().flat_map(|n| &n.fetches);
        assert!(
            bans > 0 && fetches.filter(|(_, _, why)| again(why)).count() > 0,
            "seed {seed}: {bans} bans"
        );
        assert!(
            world.copies(&carrier) < 1.3,
            "seed {seed}: {}",
            world.copies(&carrier)
        );
    }
}

#[test]
fn a_staller_does_not_hold_up_the_site() {
    for seed in 30..32 {
        let mut world = World::new(6, seed);
        let release = release(seed, 40 * MIB, 16 * MIB);
        world.nodes[2].nature = Nature::Staller;
        world.start_all();
        world.want_all(&release);
        world.run_until_staged(&release, 180);
        assert!(
            world.copies(release.artifact.full_carrier().unwrap()) <= 1.5,
            "seed {seed}: {}",
            world.copies(release.artifact.full_carrier().unwrap())
        );
    }
}

#[test]
fn who_comes_late_takes_all_from_the_site() {
    for seed in 40..42 {
        let mut world = World::new(6, seed);
        let release = release(seed, 48 * MIB, 16 * MIB);
        for n in 0..5 {
            world.start(n);
        }
        world.run(1_500);
        for n in 0..5 {
            world.want(n, &release, Class::Normal);
        }
        world.run_until_staged(&release, 60);
        let before = world.wan_bytes.clone();
        world.start(5);
        world.want(5, &release, Class::Normal);
        world.run_until_staged(&release, 30);
        assert_eq!(world.wan_bytes, before, "seed {seed}");
        assert!(
            world.nodes[5]
                .fetches
                .iter()
                .all(|(_, _, why)| *why == FetchReason::Peer)
        );
    }
}

#[test]
fn a_latecomer_takes_plain_pieces_where_nobody_has_the_carrier() {
    let mut world = World::new(3, 45);
    let release = release(45, 20 * MIB, 8 * MIB);
    for n in 0..2 {
        world.give(n, release.artifact.pack);
        world.give(n, release.artifact.index);
    }
    world.start_all();
    world.want_all(&release);
    world.run_until_staged(&release, 30);
    assert!(world.wan_bytes.is_empty(), "{:?}", world.wan_bytes);
    assert_eq!(world.nodes[2].decoded, 0);
}

#[test]
fn copied_chunks_are_not_fetched() {
    let mut world = World::new(4, 50);
    let mut release = release(50, 64 * MIB, 32 * MIB);
    // Six of eight frames are on disk from the old release.
    release.reusable = (0..48 * MIB / (256 << 10))
        .map(|piece| piece as u32)
        .collect();
    world.start_all();
    world.want_all(&release);
    world.run_until_staged(&release, 60);
    let copies = world.copies(release.artifact.full_carrier().unwrap());
    assert!(copies > 0.2 && copies < 0.28, "{copies}");
    assert!(world.nodes.iter().all(|n| n.decoded == 2));
}

#[test]
fn what_was_on_disk_before_a_restart_is_not_fetched_again() {
    let mut world = World::new(4, 60);
    let release = release(60, 48 * MIB, 16 * MIB);
    world.start_all();
    world.want_all(&release);
    world.run(4_000);
    for n in 0..4 {
        world.kill(n);
    }
    let before = world.copies(release.artifact.full_carrier().unwrap());
    assert!(before > 0.2 && before < 0.8, "{before}");
    world.run(1_000);
    world.start_all();
    world.want_all(&release);
    world.run_until_staged(&release, 60);
    let copies = world.copies(release.artifact.full_carrier().unwrap());
    // At most the pieces that were under way come from another node now.
    assert!(copies < 1.0 + 9.0 * 0.25 / 16.0, "{copies}");
}

#[test]
fn without_a_site_everything_comes_from_the_origin() {
    let mut world = World::new(2, 70);
    world.site = None;
    let release = release(70, 24 * MIB, 8 * MIB);
    world.start_all();
    world.want_all(&release);
    world.run_until_staged(&release, 60);
    assert_eq!(world.copies(release.artifact.full_carrier().unwrap()), 2.0);
    assert!(
        world
            .nodes
            .iter()
            .flat_map(|n| &n.fetches)
            .all(|(_, _, why)| *why == FetchReason::NoPeer)
    );
    assert_eq!(world.gossiped, 0);
}

#[test]
fn a_thin_link_has_a_single_fetcher() {
    let mut world = World::new(5, 80);
    (world.cap, world.wan_rate) = (Some(200_000), 200_000.0);
    let release = release(80, 10 * MIB, 4 * MIB);
    world.start_all();
    world.want_all(&release);
    world.run_until_staged(&release, 90);
    let carrier = *release.artifact.full_carrier().unwrap();
    assert_eq!(world.copies(&carrier), 1.0);
    assert_eq!(
        world
            .wan_by_node
            .keys()
            .filter(|(blob, _)| *blob == carrier)
            .count(),
        1
    );
}

#[test]
fn an_origin_that_is_down_is_waited_for() {
    let mut world = World::new(6, 90);
    let release = release(90, 48 * MIB, 16 * MIB);
    world.start_all();
    world.want_all(&release);
    world.run(3_000);
    world.origin_up = false;
    world.run(30_000);
    assert!(
        world.nodes.iter().all(|n| n.failed.is_empty()),
        "the release is not at fault"
    );
    let fetches: usize = world.nodes.iter().map(|n| n.fetches.len()).sum();
    world.origin_up = true;
    world.run_until_staged(&release, 60);
    let copies = world.copies(release.artifact.full_carrier().unwrap());
    assert!(copies < 1.1, "{copies}");
    assert!(
        fetches < 2_000,
        "{fetches} fetches while the origin was down"
    );
}

#[test]
fn few_who_want_it_find_each_other_in_a_large_site() {
    for seed in 100..101 {
        let mut world = World::new(60, seed);
        let release = release(seed, 16 * MIB, 4 * MIB);
        world.start_all();
        let wanting = [5, 17, 33, 41, 58];
        for n in wanting {
            world.want(n, &release, Class::Normal);
        }
        let end = world.now + Span::from_secs(40);
        while !wanting
            .iter()
            .all(|n| world.nodes[*n].staged.contains_key(&release.digest))
        {
            assert!(world.now < end, "{}", world.report(&release));
            world.run(100);
        }
        let copies = world.copies(release.artifact.full_carrier().unwrap());
        assert!(copies <= 1.05, "seed {seed}: {copies}");
    }
}

#[test]
fn a_large_site_pulls_one_copy() {
    let mut world = World::new(40, 110);
    let release = release(110, 16 * MIB, 4 * MIB);
    world.start_all();
    world.want_all(&release);
    world.run_until_staged(&release, 60);
    assert!(world.copies(release.artifact.full_carrier().unwrap()) <= 1.05);
}

#[test]
fn starts_at_different_times_do_not_cost_copies() {
    for seed in 120..123 {
        let mut world = World::new(8, seed);
        let release = release(seed, 48 * MIB, 16 * MIB);
        world.start_all();
        for n in 0..8 {
            world.want(n, &release, Class::Normal);
            world.run(70 * (n as u64 + seed % 5));
        }
        world.run_until_staged(&release, 60);
        let copies = world.copies(release.artifact.full_carrier().unwrap());
        assert!(copies <= 1.03, "seed {seed}: {copies}");
    }
}

#[test]
fn a_roaming_node_owns_nothing_and_serves_nobody() {
    let mut world = World::new(5, 130);
    world.nodes[0].roaming = true;
    let release = release(130, 24 * MIB, 8 * MIB);
    world.start_all();
    world.want_all(&release);
    world.run_until_staged(&release, 60);
    assert_eq!(world.copies(release.artifact.full_carrier().unwrap()), 1.0);
    assert!(
        world.nodes[0]
            .fetches
            .iter()
            .all(|(_, _, why)| *why == FetchReason::Peer)
    );
}

#[test]
fn a_full_disk_is_reported_once_and_tried_again() {
    let mut world = World::new(3, 140);
    let release = release(140, 24 * MIB, 8 * MIB);
    world.start_all();
    world.nodes[1].sick_until = Time(20_000);
    world.want_all(&release);
    world.run_until_staged(&release, 180);
    assert_eq!(
        world.nodes[1].failed.len(),
        1,
        "{:?}",
        world.nodes[1].failed
    );
    assert!(world.nodes[1].failed[0].2, "it may succeed later");
    assert!(world.nodes[0].failed.is_empty());
}

#[test]
fn a_broken_index_fails_the_release_by_name() {
    let mut world = World::new(2, 150);
    let mut release = release(150, 24 * MIB, 8 * MIB);
    release.broken_index = true;
    world.start_all();
    world.want_all(&release);
    world.run(20_000);
    for node in &world.nodes {
        let [(digest, reason, retryable)] = &node.failed[..] else {
            panic!("{:?}", node.failed)
        };
        assert_eq!((*digest, *retryable), (release.digest, false));
        assert!(reason.contains(&release.digest.short()), "{reason}");
    }
}

#[test]
fn a_frame_that_fails_once_is_tried_again_and_one_that_always_fails_ends_the_release() {
    for (faults, staged) in [(1, true), (1_000, false)] {
        let mut world = World::new(1, 155);
        let release = release(155, 16 * MIB, 4 * MIB);
        world.bad_decodes = faults;
        world.start_all();
        world.want_all(&release);
        world.run(30_000);
        assert_eq!(world.nodes[0].staged.contains_key(&release.digest), staged);
        assert_eq!(world.nodes[0].failed.len(), usize::from(!staged));
        assert!(staged || world.nodes[0].failed[0].1.contains("frame 0"));
    }
}

/// A full disk used to end the release as if it had been built wrongly, and for good.
#[test]
fn a_disk_that_is_full_while_frames_unfold_is_told_and_tried_until_it_has_room() {
    let mut world = World::new(1, 156);
    let release = release(156, 16 * MIB, 4 * MIB);
    (world.bad_decodes, world.bad_decode) = (5, FrameOutcome::Storage);
    world.start_all();
    world.want_all(&release);
    world.run(60_000);
    let [(digest, reason, retryable)] = &world.nodes[0].failed[..] else {
        panic!("{:?}", world.nodes[0].failed)
    };
    assert_eq!((*digest, *retryable), (release.digest, true));
    assert!(reason.contains("disk"), "{reason}");
    assert!(world.nodes[0].staged.contains_key(&release.digest));
}

#[test]
fn what_nobody_needs_is_dropped_and_the_rest_kept() {
    let mut world = World::new(2, 160);
    let (first, mut second) = (
        release(160, 24 * MIB, 8 * MIB),
        release(161, 24 * MIB, 8 * MIB),
    );
    second.artifact.index = first.artifact.index;
    world.start_all();
    world.want_all(&first);
    world.want_all(&second);
    world.run_until_staged(&first, 60);
    world.run_until_staged(&second, 60);
    world.unwant(0, &first, false);
    let dropped = &world.nodes[0].dropped;
    assert!(
        dropped.contains(&first.artifact.pack) && !dropped.contains(&first.artifact.index),
        "{dropped:?}"
    );
    world.unwant(1, &first, true);
    assert!(world.nodes[1].dropped.is_empty());
}

#[test]
fn an_emergency_overtakes() {
    let mut world = World::new(4, 170);
    let (slow, urgent) = (
        release(170, 64 * MIB, 24 * MIB),
        release(171, 24 * MIB, 8 * MIB),
    );
    world.start_all();
    (0..4).for_each(|n| world.want(n, &slow, Class::Background));
    world.run(2_000);
    (0..4).for_each(|n| world.want(n, &urgent, Class::Emergency));
    let first = world.run_until_staged(&urgent, 60);
    let second = world.run_until_staged(&slow, 60);
    assert!(second.since(first) > Span(7_500), "{first:?} {second:?}");
}

#[test]
fn once_everything_is_here_there_is_nothing_to_wait_for() {
    let mut world = World::new(3, 180);
    let release = release(180, 16 * MIB, 4 * MIB);
    world.start_all();
    world.want_all(&release);
    world.run_until_staged(&release, 60);
    world.run(500);
    for node in &world.nodes {
        let swarm = node.swarm.as_ref().unwrap();
        assert_eq!(swarm.poll_timeout(), None);
        assert_eq!(swarm.progress(&release.digest).unwrap().missing_bytes, 0);
        assert_eq!(node.progress.as_ref().map(|p| p.missing_bytes), Some(0));
    }
}

#[test]
fn kills_and_restarts_at_random_end_with_everyone_staged() {
    use rand_core::{RngCore, SeedableRng};
    for seed in 190..194 {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(6, seed);
        let release = release(seed, 24 * MIB, 12 * MIB);
        world.start_all();
        world.want_all(&release);
        for _ in 0..8 {
            world.run(rng.next_u64() % 1_500);
            let n = (rng.next_u64() % 6) as usize;
            if world.nodes[n].swarm.is_some() {
                world.kill(n);
            } else {
                world.start(n);
                if !world.nodes[n].staged.contains_key(&release.digest) {
                    world.want(n, &release, Class::Normal);
                }
            }
        }
        for n in 0..6 {
            if world.nodes[n].swarm.is_none() {
                world.start(n);
                if !world.nodes[n].staged.contains_key(&release.digest) {
                    world.want(n, &release, Class::Normal);
                }
            }
        }
        world.run_until_staged(&release, 90);
        let copies = world.copies(release.artifact.full_carrier().unwrap());
        assert!(copies < 2.0, "seed {seed}: {copies}");
    }
}
