//! Windows, freezes and users hold a node back at its start and at its switch, and let it go in time.

use protocol::constraints::{Constraints, Machine, UserRules};
use protocol::fixtures::CREATED;
use protocol::hours::Hours;
use protocol::status::{State, WaitingFor};
use protocol::zones::Clock;
use protocol::{Span, Time};

use super::World;
use crate::contract::{Event, Step, Ticket, Wish};

const HOUR: Span = Span::from_secs(3600);

/// Hours that begin `after` the world's wall clock and last an hour, in UTC.
fn hours(after: Span) -> Hours {
    let minute = Clock::utc().shows(CREATED + after).0 / 60_000;
    Hours::new(127, minute.rem_euclid(1440) as u16, 60).unwrap()
}

fn world(constraints: Constraints) -> World {
    World::with(|_| {}, |plan| plan.constraints = constraints)
}

fn waits(world: &World) -> (State, String) {
    let standing = &world.brain.snapshot(world.now).standings[0];
    (standing.state, standing.why.clone())
}

#[test]
fn nothing_starts_outside_the_window_and_the_node_says_when_it_opens() {
    let mut world = world(Constraints {
        windows: vec![hours(Span(2 * HOUR.0))],
        ..Constraints::default()
    });
    world.renewing = true;
    world.open();
    world.run(|w| waits(w).0 == State::Waiting(WaitingFor::Window));
    let (_, why) = waits(&world);
    assert!(why.contains("; the next opens "), "{why}");
    let opens = CREATED + Span(2 * HOUR.0);
    world.run(|w| w.reported() == Some(State::Succeeded));
    assert!(world.now.wall >= Time(opens.0 / 60_000 * 60_000));
    assert!(
        world.now.wall < opens + Span::from_secs(300),
        "it did not oversleep"
    );
}

#[test]
fn a_window_that_closes_before_the_switch_stops_it() {
    let mut world = world(Constraints {
        windows: vec![hours(Span(0))],
        ..Constraints::default()
    });
    world.renewing = true;
    world.held = Some(Step::WriteSlot);
    world.open();
    world.run(|w| !w.held_answers.is_empty());
    world.held = None;
    world.sleep(HOUR);
    world.renew();
    let answers = std::mem::take(&mut world.held_answers);
    world.answers.extend(answers);
    assert!(world.work());
    assert_eq!(waits(&world).0, State::Waiting(WaitingFor::Window));
    assert!(!world.steps.contains(&Step::Switch));
    world.sleep(Span(22 * HOUR.0 - 60_000));
    world.run(|w| w.reported() == Some(State::Succeeded));
    assert!(
        world.now.wall >= CREATED + Span(23 * HOUR.0),
        "the next day"
    );
}

fn asked(max_deferrals: u32, deadline: Option<Time>) -> World {
    let mut world = world(Constraints {
        deadline,
        user: Some(UserRules {
            optional: false,
            notice: HOUR,
            max_deferrals,
            grace: Span(5 * HOUR.0),
        }),
        ..Constraints::default()
    });
    world.renewing = true;
    world.open();
    world.run(|w| waits(w).0 == State::Waiting(WaitingFor::Deferral));
    assert_eq!(world.shown.len(), 1, "{:?}", world.shown);
    world
}

fn wish(world: &mut World, wish: Wish) -> Result<String, String> {
    world.tell(Event::Wished {
        ticket: Ticket(1),
        rollout: None,
        wish,
    });
    assert!(world.work());
    world.granted.pop().expect("an answer")
}

#[test]
fn a_user_puts_it_off_as_far_as_the_plan_lets() {
    let mut world = asked(2, None);
    let offered = world.now.wall;
    wish(&mut world, Wish::Defer(Some(Span(2 * HOUR.0)))).unwrap();
    assert!(waits(&world).1.contains("put off by its user (1 of 2)"));
    wish(&mut world, Wish::Defer(None)).unwrap();
    let refused = wish(&mut world, Wish::Defer(None)).unwrap_err();
    assert!(refused.contains("2 times"), "{refused}");
    // What was said outlives the process.
    world.crash();
    world.run(|w| w.reported() == Some(State::Succeeded));
    let late = world.now.wall.since(offered);
    assert!(late >= Span(5 * HOUR.0), "the grace is up");
    assert!(late < Span(5 * HOUR.0 + 300_000), "and no later: {late:?}");
    assert_eq!(world.shown.len(), 1, "notice is given once");
}

#[test]
fn the_deadline_ends_a_deferral_and_a_user_who_wants_it_now_need_not_wait() {
    let mut late = asked(1, Some(CREATED + Span(2 * HOUR.0)));
    wish(&mut late, Wish::Defer(None)).unwrap();
    late.run(|w| w.reported() == Some(State::Succeeded));
    let due = CREATED + Span(2 * HOUR.0);
    assert!(late.now.wall >= due && late.now.wall < due + Span::from_secs(300));

    let mut now = asked(1, None);
    let asked_at = now.now.wall;
    wish(&mut now, Wish::InstallNow).unwrap();
    now.run(|w| w.reported() == Some(State::Succeeded));
    assert!(now.now.wall.since(asked_at) < Span::from_secs(300));
    let none = wish(&mut now, Wish::InstallNow).unwrap_err();
    assert!(none.contains("no rollout waits"), "{none}");
}

#[test]
fn a_machine_on_battery_waits_until_it_is_plugged_in() {
    let mut plan = Constraints::default();
    plan.needs.mains = true;
    let mut world = world(plan);
    world.renewing = true;
    let on = |mains| {
        Event::Machine(Machine {
            mains: Some(mains),
            ..Machine::default()
        })
    };
    world.tell(on(false));
    world.open();
    world.run(|w| waits(w).0 == State::Waiting(WaitingFor::Power));
    world.tell(on(true));
    world.run(|w| w.reported() == Some(State::Succeeded));
}
