//! A node says whether it needs a release by the signed rules alone, before any content moves.

use protocol::Span;
use protocol::constraints::Machine;
use protocol::inventory::Need;
use protocol::manifest::{Install, ReleaseManifest};
use protocol::orders::Assessment;
use protocol::status::State;

use super::{World, failure};
use crate::contract::{Event, Step, StepOutcome};

/// A node with `app@1`, of which nothing is asked but whether it needs the release.
fn world(on_release: impl FnOnce(&mut ReleaseManifest)) -> World {
    let mut world = World::with(on_release, |_| {});
    world.renewing = false;
    world.config.labels.insert("kiosk".into(), "yes".into());
    world.crash();
    world.tell(Event::Machine(Machine::default()));
    ask(&mut world, true);
    world
}

/// A bulletin that rolls nothing out, and asks or asks no more.
fn ask(world: &mut World, asks: bool) {
    let release = world.new.digest();
    let within = Span::from_secs(20);
    world.bulletin(0, |bulletin| {
        bulletin.rollouts.clear();
        bulletin.assess = vec![Assessment { release, within }];
        bulletin.assess.truncate(usize::from(asks));
    });
}

/// What the coordinator was told.
fn said(world: &World) -> Option<Need> {
    let name = Need::attribute(&world.new.digest());
    let inventory = world.inventory.as_ref()?;
    Need::of(inventory.attributes.get(&name)?)
}

/// Runs until the coordinator was told something, and gives that.
fn check(on_release: impl FnOnce(&mut ReleaseManifest)) -> Need {
    let mut world = world(on_release);
    world.run(|w| said(w).is_some());
    assert!(!world.brain.wants(&world.new.digest()));
    assert!(world.brain.snapshot(world.now).standings.is_empty());
    said(&world).expect("an answer")
}

fn recipe(detect: &str) -> Install {
    Install::Command {
        steps: vec![vec!["setup".into()]],
        detect: vec![detect.into(), "app".into()],
        undo: Vec::new(),
        expected_exit_codes: vec![0],
        max_run_time: Span::from_secs(60),
        busy: Vec::new(),
    }
}

#[test]
fn the_answer_follows_from_platform_applicability_and_what_is_installed() {
    assert_eq!(check(|_| {}), Need::Needs);
    let other_os = |r: &mut ReleaseManifest| r.artifacts[0].os = "plan9".into();
    assert_eq!(check(other_os), Need::NotApplicable);
    let rule = |text: &str| {
        let rule = text.parse().expect("a filter");
        move |r: &mut ReleaseManifest| r.applicability = Some(rule)
    };
    assert_eq!(check(rule("not label.kiosk")), Need::NotApplicable);
    assert_eq!(check(rule("label.kiosk=yes")), Need::Needs);
    // An older one than `app@1`, whose counter is 1.
    let older = |r: &mut ReleaseManifest| r.release_counter = 0;
    assert_eq!(check(older), Need::AlreadyInstalled);
}

#[test]
fn a_detect_rule_is_run_once_for_an_answer_and_none_of_the_release_itself() {
    let mut world = world(|r| r.install = recipe("rpm"));
    world.run(|w| said(w).is_some());
    assert_eq!(said(&world), Some(Need::Needs));
    world.run_for(Span::from_secs(3600));
    assert_eq!(world.steps, [Step::Detect], "it is not run again");

    world.steps.clear();
    world.crash();
    world.installed = Some(world.new.digest());
    world.tell(Event::Machine(Machine::default()));
    world.run(|w| said(w) == Some(Need::AlreadyInstalled));
    assert_eq!(world.steps, [Step::Detect], "another process asks anew");

    let mut world = self::world(|r| r.install = recipe("./check"));
    world.run(|w| said(w).is_some());
    assert_eq!(said(&world), Some(Need::Needs));
    assert!(world.steps.is_empty(), "its content is not here");
}

#[test]
fn a_rule_that_cannot_be_run_is_no_answer_and_is_tried_again() {
    let mut world = world(|r| r.install = recipe("rpm"));
    world.held = Some(Step::Detect);
    world.run(|w| !w.held_answers.is_empty());
    world.run_for(Span::from_secs(120));
    assert_eq!(said(&world), None, "it still runs");
    let Some(Event::StepEnded { ticket, .. }) = world.held_answers.pop() else {
        panic!("a step's answer")
    };
    let outcome = StepOutcome::Failed(failure("the package database is locked", true));
    world.held = None;
    world.tell(Event::StepEnded { ticket, outcome });
    world.run(|w| said(w).is_some());
    assert_eq!(world.steps, [Step::Detect, Step::Detect]);
}

#[test]
fn an_answer_is_told_soon_though_the_inventory_was_told_just_now_and_goes_with_the_question() {
    let mut world = world(|_| {});
    world.run(|w| said(w).is_some());
    ask(&mut world, false);
    // What ended is told with the next change, six hours later at most.
    world.run(|w| w.inventory.is_some() && said(w).is_none());
    let told = world.now.wall;
    ask(&mut world, true);
    world.run(|w| said(w).is_some());
    let most = Span::from_secs(60);
    assert!(world.now.wall.since(told) < most, "{:?}", world.now);
}

#[test]
fn nothing_is_answered_once_the_release_or_the_bulletin_has_expired() {
    let expired = |r: &mut ReleaseManifest| r.expires = r.created;
    let mut one = world(expired);
    one.run_for(Span::from_secs(600));
    assert!(one.inventory.is_some() && said(&one).is_none());

    let mut other = World::new();
    other.renewing = false;
    let release = other.new.digest();
    other.bulletin(0, |bulletin| {
        bulletin.rollouts.clear();
        bulletin.expires = protocol::fixtures::CREATED;
        let within = Span::ZERO;
        bulletin.assess = vec![Assessment { release, within }];
    });
    other.tell(Event::Machine(Machine::default()));
    other.run_for(Span::from_secs(600));
    assert!(other.inventory.is_some() && said(&other).is_none());
}

/// A rule about the machine is not answered before the machine is known: the answer would be for good.
#[test]
fn a_rollout_concerns_whom_the_release_is_for_once_the_machine_is_known() {
    for (zone, expected) in [
        ("Europe/Berlin", State::Succeeded),
        ("Asia/Tokyo", State::NotApplicable),
    ] {
        let rule = "zone=Europe/Berlin".parse().expect("a filter");
        let mut world = World::with(|r| r.applicability = Some(rule), |_| {});
        world.open();
        world.run_for(Span::from_secs(60));
        assert_eq!(world.reported(), None, "nobody knows yet");
        let zone = Some(zone.to_owned());
        world.tell(Event::Machine(Machine {
            zone,
            ..Machine::default()
        }));
        world.run(|w| w.reported() == Some(expected));
    }
}
