//! What is drawn is what was asked for, the same for the same seed, and a draw here moves none there.

use super::*;
use crate::scenario::{How, Lie};

const WORLD: &str = r#"
name = "drawn"
seed = 1
duration_s = 172800
sites = [
    { name = "a", nodes = 400, wan_mbit = 20, lan_mbit = 1000, wan_delay_ms = 10 },
    { name = "b", nodes = 400, wan_mbit = 20, lan_mbit = 1000, wan_delay_ms = 10, zone_h = 9 },
]
releases = [{ version = "1", pack_mib = 1, carrier_mib = 1 }]
rollout = { lease_ttl_s = 60, waves = [{ name = "all", success_percent = 95, sample = 1, soak_s = 1 }] }
"#;

fn scenario(more: &str) -> Scenario {
    Scenario::parse(&format!("{WORLD}{more}")).expect("a scenario")
}

fn fate(more: &str) -> Fate {
    let scenario = scenario(more);
    Fate::of(&scenario, &scenario.all_sites())
}

fn all(fate: &Fate) -> Vec<Traits> {
    let slots = |site| (0..400).map(move |slot| (site, slot));
    let places = slots(0).chain(slots(1));
    places.map(|(s, n)| fate.traits(s, n)).collect()
}

fn about(found: usize, wanted: usize) {
    let (low, high) = (wanted * 7 / 10, wanted * 13 / 10);
    assert!((low..=high).contains(&found), "{found} of {wanted}");
}

#[test]
fn nothing_asked_for_is_nothing_drawn() {
    let fate = fate("");
    assert!(all(&fate).iter().all(|t| *t == Traits::default()));
    assert_eq!((fate.mishaps(0), fate.mishaps(1)), (vec![], vec![]));
    assert_eq!(fate.coordinator_deaths(), []);
    assert_eq!(fate.calm(), Time(0));
}

#[test]
fn attributes_and_lies_fall_by_their_shares() {
    let fate = fate(
        r#"
        [attributes.driver]
        new = 1
        old = 3
        [[liars]]
        how = "stall"
        percent = 20
        sites = ["b"]
        [machines]
        full_disk_percent = 10
        skewed_percent = 50
        skew_s = 60
        "#,
    );
    let traits = all(&fate);
    let count = |wanted: &dyn Fn(&Traits) -> bool| traits.iter().filter(|t| wanted(t)).count();
    about(
        count(&|t| t.labels.get("driver").is_some_and(|d| d == "new")),
        200,
    );
    about(count(&|t| t.full_disk), 80);
    about(count(&|t| t.skew_ms == 60_000), 200);
    about(count(&|t| t.skew_ms == -60_000), 200);
    about(count(&|t| t.lie == Some(Lie::Stall)), 80);
    assert!(traits[..400].iter().all(|t| t.lie.is_none()));
}

#[test]
fn a_failure_hits_its_cohort_and_nobody_else() {
    let more = r#"
        [attributes.driver]
        new = 1
        old = 3
        "#;
    let mut scenario = scenario(more);
    let failures = r#"[{ how = "silent", percent = 50, cohort = { driver = "new" } },
        { how = "latent", percent = 10, after_s = 60 }]"#;
    let failures: Failures = toml::from_str(&format!("failures = {failures}")).expect("failures");
    scenario.releases[0].failures = failures.failures;
    let fate = Fate::of(&scenario, &scenario.all_sites());
    let (mut silent, mut latent, mut new) = (0, 0, 0);
    for (site, slot) in (0..2).flat_map(|s| (0..400).map(move |n| (s, n))) {
        let traits = fate.traits(site, slot);
        let is_new = traits.labels["driver"] == "new";
        new += usize::from(is_new);
        match fate.ailment(0, &traits, site, slot) {
            Some(Ailment { how, after }) => {
                assert!(how == How::Latent || is_new);
                assert_eq!(after.0, if how == How::Latent { 60_000 } else { 0 });
                silent += usize::from(how == How::Silent);
                latent += usize::from(how == How::Latent);
            }
            None => continue,
        }
    }
    about(silent, new / 2);
    about(latent, 70);
}

#[derive(serde::Deserialize)]
struct Failures {
    failures: Vec<crate::scenario::FailureSpec>,
}

#[test]
fn laptops_keep_the_hours_of_their_zone() {
    let fate = fate("laptops = { percent = 50, on_h = 8, off_h = 18, spread_min = 30 }");
    let on_at = |site: usize, hour: u64| {
        let at = Time::from_secs(hour * 3600);
        let away = |slot: usize| {
            let absences = fate.absences(site, slot);
            absences.iter().any(|a| (a.from..a.to).contains(&at))
        };
        (0..400).filter(|slot| !away(*slot)).count()
    };
    // the world begins at 08:00 UTC; site b is nine hours ahead
    assert_eq!(on_at(0, 2), 400, "ten in the morning");
    about(on_at(0, 14), 200);
    assert_eq!(on_at(0, 26), 400, "ten in the morning, a day later");
    assert_eq!(on_at(1, 0), 400, "five in the afternoon");
    about(on_at(1, 4), 200);
    assert_eq!(on_at(1, 18), 400, "eleven in the morning");
    let forms = all(&fate);
    about(
        forms
            .iter()
            .filter(|t| t.labels["form"] == "laptop")
            .count(),
        400,
    );
}

#[test]
fn churn_leaves_at_its_rate_and_ends() {
    let fate = fate("churn = { percent_per_hour = 50, away_s = 60, until_s = 7200 }");
    let absences: Vec<Absence> = (0..400).flat_map(|slot| fate.absences(0, slot)).collect();
    about(absences.len(), 400);
    assert!(absences.iter().all(|a| a.from < Time::from_secs(7200)));
    assert!(fate.calm() >= Time::from_secs(7200));
}

#[test]
fn absences_of_a_machine_never_touch() {
    let fate = fate(
        r#"
        laptops = { percent = 50, on_h = 8, off_h = 18 }
        churn = { percent_per_hour = 600, away_s = { median_s = 60, p99_s = 3600 }, until_s = 90000 }
        faults = { until_s = 90000, crashes = 3000, reboots = 3000, coordinator_crashes = 3 }
        "#,
    );
    for slot in 0..50 {
        let absences = fate.absences(0, slot);
        assert!(absences.iter().all(|a| a.from < a.to));
        assert!(absences.windows(2).all(|w| w[0].to < w[1].from));
    }
    let mut away = [false; 400];
    for (at, mishap) in fate.mishaps(1) {
        let (slot, now_away) = match mishap {
            Mishap::Goes { slot, .. } => (slot, true),
            Mishap::Comes { slot, .. } => (slot, false),
            other => unreachable!("{other:?} at {at:?}"),
        };
        assert_ne!(away[slot], now_away);
        away[slot] = now_away;
    }
    assert_eq!(fate.coordinator_deaths().len(), 3);
}

#[test]
fn cuts_hold_for_their_time_and_their_sites() {
    let fate = fate(
        r#"
        [[faults.cuts]]
        what = "wan"
        site = "a"
        from_s = 100
        to_s = 200
        [[faults.cuts]]
        what = "wan"
        site = "a"
        from_s = 150
        to_s = 250
        [[faults.cuts]]
        what = "lan"
        percent = 100
        from_s = 10
        to_s = 20
        [[faults.cuts]]
        what = "coordinator"
        from_s = 300
        to_s = 400
        "#,
    );
    let cuts = fate.cuts();
    let at = Time::from_secs;
    let (a, b) = (Side::Site(0), Side::Site(1));
    assert!(cuts.reaches(a, b, at(99)) && !cuts.reaches(a, b, at(100)));
    assert!(!cuts.reaches(Side::Coordinator, a, at(249)) && cuts.reaches(a, a, at(120)));
    assert!(cuts.reaches(Side::Origin, b, at(120)) && cuts.reaches(Side::Origin, a, at(250)));
    assert!(!cuts.reaches(b, Side::Coordinator, at(300)));
    assert!(cuts.reaches(b, Side::Origin, at(300)));
    let halves: Vec<bool> = (0..400).map(|slot| cuts.half(1, slot)).collect();
    about(halves.iter().filter(|h| **h).count(), 200);
    let (x, y) = (
        0,
        halves
            .iter()
            .position(|h| *h != halves[0])
            .expect("two halves"),
    );
    assert!(cuts.near(1, x, y, at(9)) && !cuts.near(1, x, y, at(10)));
    assert!(cuts.near(1, x, y, at(20)) && cuts.near(1, x, x, at(10)));
    let wan = |permille| Mishap::Wan { permille };
    let expected = [
        (at(10), Mishap::Splits),
        (at(20), Mishap::Joins),
        (at(100), wan(0)),
        (at(100), Mishap::Severed),
        (at(150), Mishap::Severed),
        (at(250), wan(1000)),
    ];
    assert_eq!(fate.mishaps(0), expected);
    assert_eq!(fate.calm(), at(400));
}

#[test]
fn a_schedule_follows_the_sites_day() {
    let mut scenario = scenario("");
    let hours: SiteSpec = toml::from_str(
        r#"name = "a"
        nodes = 1
        wan_mbit = 1
        lan_mbit = 1
        wan_delay_ms = 1
        zone_h = -3
        schedule = [{ from_h = 9, to_h = 17, percent = 25 }, { from_h = 22, to_h = 6, percent = 50 }]"#,
    )
    .expect("a site");
    scenario.sites[0] = hours;
    scenario.duration_s = 86_400;
    let fate = Fate::of(&scenario, &scenario.all_sites());
    let at = |hour: u64| Time::from_secs(hour * 3600);
    let wan = |permille| Mishap::Wan { permille };
    // it is five in the morning there
    let expected = [
        (at(0), wan(500)),
        (at(1), wan(1000)),
        (at(4), wan(250)),
        (at(12), wan(1000)),
        (at(17), wan(500)),
    ];
    assert_eq!(fate.mishaps(0), expected);
}

#[test]
fn one_more_node_here_moves_no_draw_there() {
    let more = r#"
        churn = { percent_per_hour = 60, away_s = { median_s = 60, p99_s = 600 }, until_s = 7200 }
        attributes = { model = { x = 1, y = 1 } }
        "#;
    let one = fate(more);
    let mut scenario = scenario(more);
    scenario.sites[0].nodes += 1;
    let other = Fate::of(&scenario, &scenario.all_sites());
    assert_eq!(one.mishaps(1), other.mishaps(1));
    assert_eq!(all(&one), all(&other));
    scenario.seed += 1;
    let third = Fate::of(&scenario, &scenario.all_sites());
    assert_ne!(one.mishaps(1), third.mishaps(1));
}
