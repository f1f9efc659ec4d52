//! The named scenarios, smaller than they are written: each must tell the story that its header promises.

use coordinator_core::contract::RolloutState;
use node_core::contract::FetchReason;
use protocol::Time;
use simulations::report::RolloutReport;
use simulations::{Report, Scenario, World};

/// A scenario of the folder, with so many nodes.
fn scenario(text: &str, nodes: u32) -> Scenario {
    let mut scenario = Scenario::parse(text).expect("a scenario");
    scenario.spread(nodes);
    scenario
}

/// Plays it to its end; no rule may be broken on the way.
fn played(scenario: Scenario) -> (World, Report) {
    let mut world = World::new(scenario).expect("a world");
    world.run(1);
    let report = Report::of(&world);
    assert_eq!(report.violations, [""; 0], "{}", report.to_text());
    (world, report)
}

/// It finished, and everyone has it.
fn finished(report: &Report, rollout: &RolloutReport) {
    let text = report.to_text();
    assert_eq!(rollout.state, RolloutState::Finished, "{text}");
    assert_eq!(rollout.counts.applied, report.nodes, "{text}");
    assert_eq!(report.installed[&rollout.release], report.nodes, "{text}");
}

#[test]
fn office_morning_gives_latecomers_what_the_office_has() {
    let text = include_str!("../scenarios/office-morning.toml");
    let mut scenario = scenario(text, 16);
    scenario.laptops.iter_mut().for_each(|l| l.spread_min = 8);
    let (_, report) = played(scenario);
    finished(&report, &report.rollouts[0]);
    assert!(report.wan_copies.worst <= 1.1, "{}", report.to_text());
}

#[test]
fn patch_tuesday_rolls_three_products_out_at_once() {
    let text = include_str!("../scenarios/patch-tuesday.toml");
    let (_, report) = played(scenario(text, 12));
    assert_eq!(report.rollouts.len(), 3);
    for rollout in &report.rollouts {
        finished(&report, rollout);
    }
    let opened = |r: &RolloutReport| r.waves[0].opened_s.expect("it opened");
    let ended = |r: &RolloutReport| r.waves[2].ended_s.expect("it ended");
    let last_begin = report.rollouts.iter().map(opened).fold(0.0, f64::max);
    let first_end = report.rollouts.iter().map(ended).fold(f64::MAX, f64::min);
    assert!(last_begin < first_end, "at once: {}", report.to_text());
    assert!(report.wan_copies.worst <= 1.1, "{}", report.to_text());
}

#[test]
fn one_bad_release_is_held_before_it_reaches_everyone() {
    let text = include_str!("../scenarios/one-bad-release.toml");
    let (_, report) = played(scenario(text, 24));
    finished_first_and_held_second(&report);
}

fn finished_first_and_held_second(report: &Report) {
    let (good, bad) = (&report.rollouts[0], &report.rollouts[1]);
    let text = report.to_text();
    assert_eq!(good.state, RolloutState::Finished, "{text}");
    assert_eq!(bad.state, RolloutState::Held, "{text}");
    assert!(bad.harmed > 0 && bad.harmed < report.nodes / 4, "{text}");
    assert_eq!(bad.rolled_back, bad.harmed, "{text}");
    let last = bad.waves.last().expect("a last wave");
    assert_eq!((last.opened_s, last.started), (None, 0), "{text}");
    let kept = report.nodes - (bad.attempted - bad.rolled_back);
    assert_eq!(report.installed[&good.release], kept, "{text}");
}

#[test]
fn a_bad_cohort_is_held_and_the_rest_goes_on() {
    let text = include_str!("../scenarios/bad-cohort.toml");
    let (world, report) = played(scenario(text, 48));
    let (rollout, text) = (&report.rollouts[0], report.to_text());
    assert_eq!(rollout.state, RolloutState::Finished, "{text}");
    let islands = world.islands.iter();
    let machines = islands.flat_map(|island| &island.machines);
    let has_it = |bad: bool| {
        let of = machines.clone();
        let of =
            of.filter(|m| (m.traits.labels.get("driver").is_some_and(|d| d == "e1000")) == bad);
        let with = of.clone().filter(|m| !m.installed.is_empty()).count();
        (with, of.count())
    };
    let ((good_with, good), (bad_with, bad)) = (has_it(false), has_it(true));
    // the origin is a machine too, and installs nothing
    assert_eq!((good_with, bad_with), (good - 1, 0), "{text}");
    assert!(
        rollout.harmed > 0 && (rollout.harmed as usize) < bad,
        "{text}"
    );
}

#[test]
fn office_hours_are_kept_by_the_clock_on_each_wall() {
    let text = include_str!("../scenarios/office-hours.toml");
    let (world, report) = played(Scenario::parse(text).expect("a scenario"));
    finished(&report, &report.rollouts[0]);
    let first = |site: usize| {
        let machines = world.islands[site].machines.iter();
        let switched = machines.flat_map(|m| m.switched.values().copied());
        switched.min().expect("it switched")
    };
    // the world begins at eight in the morning, UTC
    let utc = |hour: u64| Time::from_secs((hour - 8) * 3600);
    assert!(first(0) < utc(9), "New York is in its window");
    assert!(first(1) >= utc(11) && first(1) < utc(12), "22:00 in Sydney");
    assert!(
        first(2) >= utc(22),
        "the freeze ends after the window began"
    );
}

#[test]
fn silent_brick_is_stopped_by_silence() {
    let text = include_str!("../scenarios/silent-brick.toml");
    let (world, report) = played(scenario(text, 16));
    let rollout = &report.rollouts[0];
    let text = report.to_text();
    assert_eq!(rollout.state, RolloutState::Held, "{text}");
    let bricked = world.islands.iter().flat_map(|i| &i.machines);
    let bricked = bricked.filter(|m| m.bricked).count() as u32;
    assert!(bricked > 0 && rollout.harmed == bricked, "{text}");
    assert_eq!(rollout.rolled_back, 0, "nobody saw a failure: {text}");
    assert_eq!(rollout.waves[1].started, 0, "{text}");
    let ended = rollout.waves[0].ended_s.expect("the wave ended");
    assert!(ended >= 120.0, "silence was waited for: {text}");
}

#[test]
fn wan_cut_finishes_after_healing() {
    let text = include_str!("../scenarios/wan-cut.toml");
    let (world, report) = played(scenario(text, 15));
    finished(&report, &report.rollouts[0]);
    let copies = |site: usize| report.site_details[site].wan_copies[0];
    assert!(copies(0) <= 1.05, "{}", report.to_text());
    assert!(copies(1) <= 1.10, "{}", report.to_text());
    assert!(copies(2) <= 2.05, "{}", report.to_text());
    let healed = Time::from_secs(620);
    let installed = |site: usize| {
        let machines = world.islands[site].machines.iter();
        let first = machines.filter_map(|m| m.switched.values().next());
        first.copied().collect::<Vec<Time>>()
    };
    assert!(installed(0).iter().all(|at| *at < healed));
    assert!(installed(1).iter().any(|at| *at >= healed));
}

#[test]
fn coordinator_down_stops_no_ordered_transfer() {
    let text = include_str!("../scenarios/coordinator-down.toml");
    let (world, report) = played(scenario(text, 12));
    finished(&report, &report.rollouts[0]);
    let healed = Time::from_secs(612);
    for island in world.islands.iter().filter(|i| i.site().is_some()) {
        for at in &island.tally.staged[0] {
            assert!(at.expect("it has every byte") < healed);
        }
        // whoever did not start before the leases ended waited for new ones
        for at in island.machines.iter().flat_map(|m| m.switched.values()) {
            assert!(!(Time::from_secs(140)..healed).contains(at), "{at:?}");
        }
    }
}

#[test]
fn laptops_come_back_to_what_the_site_has() {
    let text = include_str!("../scenarios/laptops.toml");
    let mut scenario = scenario(text, 12);
    // a short night
    scenario.laptops.iter_mut().for_each(|l| l.on_h = 19);
    let (world, report) = played(scenario);
    finished(&report, &report.rollouts[0]);
    // whoever is alone in the evening fetches for itself; nobody else pays for more than one copy
    let first = report.wan_bytes_by_reason[&FetchReason::FirstCopy] as f64;
    let copies = first / world.shared.contents[0].carrier.length as f64;
    assert!(copies <= 2.1, "{}", report.to_text());
    // somebody was away when the release came out, and has it by now
    let night = Time::from_secs(3600);
    let late = world.islands.iter().flat_map(|i| &i.tally.staged[0]);
    assert!(late.flatten().any(|at| *at > night), "{}", report.to_text());
}

#[test]
fn emergency_is_done_first_although_it_came_later() {
    let text = include_str!("../scenarios/emergency.toml");
    let (_, report) = played(scenario(text, 10));
    let (ordinary, emergency) = (&report.rollouts[0], &report.rollouts[1]);
    finished(&report, ordinary);
    finished(&report, emergency);
    let ended = |r: &RolloutReport| r.waves.last().and_then(|w| w.ended_s).expect("it ended");
    assert!(ended(emergency) < ended(ordinary), "{}", report.to_text());
}

#[test]
fn million_can_be_said_and_a_part_of_it_played() {
    let text = include_str!("../scenarios/million.toml");
    let whole = Scenario::parse(text).expect("a scenario");
    assert_eq!((whole.all_sites().len(), whole.nodes()), (4000, 1_000_000));
    let part = scenario(text, 250);
    assert_eq!((part.all_sites().len(), part.nodes()), (1, 250));
}

/// Every node fetched the topology from the coordinator, because none knew its site before it had it: at two
/// thousand sites that was the most of all that nodes were ever told.
#[test]
fn a_topology_goes_to_each_site_about_once() {
    let text = include_str!("../scenarios/three-sites.toml");
    let (_, report) = played(scenario(text, 30));
    finished(&report, &report.rollouts[0]);
    let documents = report.coordinator_traffic.before["documents"];
    // a question and an answer for each site and for the origin, and a few who asked twice
    assert!(documents.messages <= 16, "{documents:?}");
}

/// A node that had missed the resume and was told of the lease after it stayed halted for good.
#[test]
fn global_rough_hears_a_halt_in_time_and_counts_true_in_spite_of_it_all() {
    let text = include_str!("../scenarios/global-rough.toml");
    let mut scenario = scenario(text, 200);
    scenario.site_groups.iter_mut().for_each(|g| g.nodes = 12);
    scenario.rollout.waves[0].count = Some(6);
    let (_, report) = played(scenario);
    finished(&report, &report.rollouts[0]);
    let text = report.to_text();
    assert!(
        report.halt_seconds_p999.is_some_and(|s| s <= 15.0),
        "{text}"
    );
    assert!(
        report.counts_true_seconds.is_some_and(|s| s <= 30.0),
        "{text}"
    );
}

/// A world in which a third of the nodes lie in one way.
fn with_liars(how: &str) -> (World, Report) {
    let text = include_str!("../scenarios/three-sites.toml");
    let liars = format!("[[liars]]\nhow = \"{how}\"\npercent = 30\n");
    let text = text.replace("[[releases]]", &format!("{liars}[[releases]]"));
    played(scenario(&text, 15))
}

fn liars(world: &World) -> u32 {
    let machines = world.islands.iter().flat_map(|i| &i.machines);
    machines.filter(|m| m.traits.lie.is_some()).count() as u32
}

#[test]
fn liars_among_the_sources_keep_nobody_from_the_release() {
    for how in ["wrong_bytes", "stall", "false_haves"] {
        let (world, report) = with_liars(how);
        assert!(liars(&world) > 0);
        finished(&report, &report.rollouts[0]);
    }
}

#[test]
fn false_reports_change_what_is_counted_and_not_what_is_installed() {
    let (world, report) = with_liars("false_success");
    let honest = report.nodes - liars(&world);
    assert_eq!(report.rollouts[0].counts.applied, report.nodes);
    assert_eq!(report.installed["app@1.0"], honest, "{}", report.to_text());

    let (world, report) = with_liars("false_failure");
    let rollout = &report.rollouts[0];
    assert!(
        rollout.counts.failed <= liars(&world),
        "{}",
        report.to_text()
    );
    assert_eq!(rollout.state, RolloutState::Held, "{}", report.to_text());
}

#[test]
fn a_full_disk_and_a_wrong_clock_are_their_own_nodes_trouble() {
    let text = include_str!("../scenarios/three-sites.toml");
    let machines = "[machines]\nfull_disk_percent = 15\nskewed_percent = 30\nskew_s = 600\n";
    let text = text.replace("[[releases]]", &format!("{machines}[[releases]]"));
    let mut scenario = scenario(&text, 15);
    // who never reports an end holds up a gate that waits for all
    scenario.rollout.waves.iter_mut().for_each(|w| w.sample = 1);
    let (world, report) = played(scenario);
    let machines = || world.islands.iter().flat_map(|i| &i.machines);
    assert!(machines().any(|m| m.traits.skew_ms != 0));
    let full = machines().filter(|m| m.traits.full_disk).count() as u32;
    assert!(full > 0);
    let rollout = &report.rollouts[0];
    assert_eq!(
        rollout.counts.applied,
        report.nodes - full,
        "{}",
        report.to_text()
    );
}

/// Half of the machines went home before the rollout began and do not come back before the end. The
/// rollout waits for them, the others are done, and nobody is to blame: it was once held against the
/// origin, which every plan's last wave has and which installs nothing, that it did not converge.
#[test]
fn a_rollout_that_waits_for_absent_machines_is_nobodys_fault() {
    let text = include_str!("../scenarios/three-sites.toml");
    let laptops = "laptops = { percent = 50, on_h = 7, off_h = 8, spread_min = 0 }\n";
    let mut scenario = scenario(
        &text.replacen("\n[[sites]]", &format!("\n{laptops}[[sites]]"), 1),
        9,
    );
    scenario.rollout.waves.drain(..2);
    scenario.rollout.waves[0].sample = 9;
    let (_, report) = played(scenario);
    let rollout = &report.rollouts[0];
    let text = report.to_text();
    assert_eq!(rollout.state, RolloutState::Running, "{text}");
    assert!(
        rollout.counts.applied > 0 && rollout.counts.not_received > 0,
        "{text}"
    );
    assert_eq!(
        rollout.counts.applied + rollout.counts.not_received,
        9,
        "{text}"
    );
}

/// One site is cut off before anybody heard of it, and the first wave is that site: the operators
/// propose again until there is somebody in it.
#[test]
fn a_wave_that_has_nobody_yet_is_proposed_again() {
    let text = include_str!("../scenarios/three-sites.toml");
    let cut = "[[faults.cuts]]\nwhat = \"wan\"\nsite = \"s2\"\nfrom_s = 0\nto_s = 60\n";
    let mut scenario = scenario(&format!("{text}\n{cut}"), 9);
    scenario.rollout.waves[0].count = None;
    scenario.rollout.waves[0].site = Some("s2".into());
    let (_, report) = played(scenario);
    finished(&report, &report.rollouts[0]);
    let opened = report.rollouts[0].waves[0].opened_s;
    assert!(opened.is_some_and(|at| at >= 60.0), "{}", report.to_text());
}
