//! What the controller makes of a line, alone and beside others.

use super::line::{Line, PACKET, SECOND, World};

/// Bytes a second of a Mbit/s.
const MBIT: u64 = 125_000;
const MS: u64 = 1_000;

fn line(mbit: u64, path_ms: u64, buffer_ms: u64) -> Line {
    Line {
        rate: mbit * MBIT,
        path: path_ms * MS,
        buffer: buffer_ms * MS,
        loss_ppm: 0,
    }
}

#[test]
fn alone_it_uses_the_line_and_nobody_waits() {
    for (mbit, path_ms) in [
        (10, 1),
        (10, 20),
        (10, 80),
        (2, 30),
        (50, 20),
        (50, 5),
        (20, 200),
    ] {
        let mut world = World::of(line(mbit, path_ms, 1_000));
        let flow = world.polite(0);
        let (from, to) = (10 * SECOND, 50 * SECOND);
        world.run_until(to);
        let (share, wait) = (world.share(flow, from, to), world.wait_p95(from, to));
        assert!(
            share >= 0.9,
            "{mbit} Mbit/s, {path_ms} ms: {share} of the line"
        );
        // on a thin line the queue is measured in packets
        let packets = 2 * PACKET * SECOND / (mbit * MBIT);
        assert!(
            wait <= (25 * MS).max(15 * MS + packets),
            "{mbit} Mbit/s, {path_ms} ms: {wait} µs"
        );
    }
}

#[test]
fn a_loss_based_flow_keeps_what_it_has_alone() {
    for (mbit, path_ms, buffer_ms) in [
        (10, 1, 1_000),
        (10, 20, 1_000),
        (10, 20, 200),
        (50, 40, 100),
    ] {
        let name = format!("{mbit} Mbit/s, {path_ms} ms, buffer {buffer_ms} ms");
        let (from, to) = (10 * SECOND, 70 * SECOND);
        let mut solo = World::of(line(mbit, path_ms, buffer_ms));
        let greedy = solo.greedy(from);
        solo.run_until(to);
        let alone = solo.share(greedy, from, to);

        let mut world = World::of(line(mbit, path_ms, buffer_ms));
        let polite = world.polite(0);
        let greedy = world.greedy(from);
        world.run_until(to);
        let beside = world.share(greedy, world.began(greedy), to);
        assert!(beside >= 0.95 * alone, "{name}: {beside} of {alone}");
        let after = world.share(polite, from + SECOND, from + 3 * SECOND);
        assert!(after <= 0.1, "{name}: a second later it still has {after}");
    }
}

#[test]
fn it_keeps_a_floor_and_comes_back() {
    let mut world = World::of(line(10, 20, 500));
    let polite = world.polite(0);
    world.greedy(5 * SECOND);
    world.run_until(65 * SECOND);
    for second in (6..60).step_by(4) {
        let share = world.share(polite, second * SECOND, (second + 4) * SECOND);
        assert!(share > 0.0, "nothing from second {second} on");
    }
}

#[test]
fn two_share() {
    for (mbit, path_ms, least) in [(10, 20, 0.4), (20, 80, 0.4), (40, 20, 0.4), (10, 1, 0.1)] {
        let mut world = World::of(line(mbit, path_ms, 1_000));
        let flows = [world.polite(0), world.polite(15 * SECOND)];
        let (from, to) = (40 * SECOND, 120 * SECOND);
        world.run_until(to);
        let shares = flows.map(|flow| world.share(flow, from, to));
        let name = format!("{mbit} Mbit/s, {path_ms} ms: {shares:?}");
        assert!(shares[0] + shares[1] >= 0.9, "{name}");
        // on the shortest path the least window of one is a good part of what fits the line
        assert!(shares.iter().all(|share| *share >= least), "{name}");
        let wait = world.wait_p95(from, to);
        assert!(wait <= 30 * MS, "{name}: {wait} µs");
    }
}

#[test]
fn a_longer_path_is_believed_in_the_end_and_a_shorter_one_at_once() {
    let mut world = World::of(line(4, 20, 1_000));
    let flow = world.polite(0);
    world.run_until(20 * SECOND);
    world.line.path = 80 * MS;
    world.run_until(440 * SECOND);
    let share = world.share(flow, 380 * SECOND, 440 * SECOND);
    assert!(share >= 0.9, "{share} of the line after the path grew");
    world.line.path = 10 * MS;
    world.run_until(470 * SECOND);
    let share = world.share(flow, 450 * SECOND, 470 * SECOND);
    let wait = world.wait_p95(450 * SECOND, 470 * SECOND);
    assert!(share >= 0.9 && wait <= 25 * MS, "{share}, {wait} µs");
}

#[test]
fn a_line_that_loses_packets_by_itself_is_used_nevertheless() {
    for loss_ppm in [1_000, 10_000] {
        let mut world = World::of(Line {
            loss_ppm,
            ..line(20, 80, 200)
        });
        let flow = world.polite(0);
        world.run_until(70 * SECOND);
        let share = world.share(flow, 10 * SECOND, 70 * SECOND);
        assert!(share >= 0.9, "{loss_ppm} ppm: {share} of the line");
    }
}

#[test]
fn a_queue_too_short_to_show_is_not_kept_full() {
    let (from, to) = (20 * SECOND, 140 * SECOND);
    let mut solo = World::of(line(10, 20, 5));
    let greedy = solo.greedy(from);
    solo.run_until(to);
    let alone = solo.share(greedy, from, to);
    let mut world = World::of(line(10, 20, 5));
    let polite = world.polite(0);
    let greedy = world.greedy(from);
    world.run_until(to);
    let shares = [polite, greedy].map(|flow| world.share(flow, from, to));
    assert!(shares[1] >= 0.5 * alone, "{shares:?}, alone {alone}");
    assert!(shares[0] + shares[1] >= 0.8, "{shares:?}");
}
