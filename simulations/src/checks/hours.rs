//! Rule: no start outside the hours that the plan allows.
//!
//! The checker reads the hours as they are written, looks at the clock on the wall of the node's zone, and
//! knows nothing of how the brain foresees when they begin and end.

use protocol::constraints::{Constraints, PastDeadline};
use protocol::plan::RolloutPlan;
use protocol::zones::{Clock, Zone};
use protocol::{Now, Time};

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A node with this clock starts now, by its own wall time.
///
/// # Errors
/// Why it may not.
pub fn start(now: Now, own: &Clock, plan: &RolloutPlan) -> Result<(), String> {
    let rules = &plan.constraints;
    for freeze in &rules.freezes {
        let exempt = freeze.exempt.is_some_and(|from| plan.priority >= from);
        let shown = clock(&freeze.zone, own)?.shows(now.wall);
        if !exempt && freeze.from.reading() <= shown && shown < freeze.to.reading() {
            return Err(format!("the freeze {:?} holds", freeze.name));
        }
    }
    let overdue = rules.deadline.is_some_and(|deadline| now.wall >= deadline);
    let shown = written(rules, own, now.wall)?;
    let holds = |hours: &&protocol::hours::Hours| covers(&hours.to_string(), shown);
    if let Some(hours) = rules.blackouts.iter().find(holds) {
        return Err(format!("it is {hours}, a blackout"));
    }
    let overridden = overdue && rules.past_deadline == PastDeadline::OverrideWindows;
    if !rules.windows.is_empty() && !overridden && !rules.windows.iter().any(|h| holds(&h)) {
        return Err("no window is open".into());
    }
    match rules.quiet.iter().find(holds) {
        Some(hours) if !overdue => Err(format!("it is {hours}, quiet hours")),
        _ => Ok(()),
    }
}

fn clock(zone: &Zone, own: &Clock) -> Result<Clock, String> {
    match zone {
        Zone::Local => Ok(own.clone()),
        Zone::Named(name) => Clock::of(name).ok_or(format!("nobody knows the zone {name}")),
    }
}

/// The day of the week, Monday 0, and the minute of the day on the clock that the rules mean.
fn written(rules: &Constraints, own: &Clock, at: Time) -> Result<(usize, u32), String> {
    let text = clock(&rules.zone, own)?.tells(at);
    let number = |range: core::ops::Range<usize>| {
        let digits = text.get(range).and_then(|digits| digits.parse().ok());
        digits.ok_or(format!("{text:?} is no date"))
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    Ok((
        weekday(year, month, day),
        number(11..13)? * 60 + number(14..16)?,
    ))
}

/// Sakamoto's rule, Monday 0.
fn weekday(year: u32, month: u32, day: u32) -> usize {
    let shift = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
    let year = year - u32::from(month < 3);
    let sunday = year + year / 4 - year / 100 + year / 400 + shift[month as usize - 1] + day;
    ((sunday + 6) % 7) as usize
}

/// Whether hours, as they are written, hold on a day of the week at a minute of the day.
fn covers(hours: &str, (day, minute): (usize, u32)) -> bool {
    let Some((days, times)) = hours.split_once(' ') else {
        return false;
    };
    let Some((from, to)) = times.split_once('-') else {
        return false;
    };
    let (from, to) = (minutes(from), minutes(to));
    let yesterday = (day + 6) % 7;
    match from < to {
        true => has(days, day) && (from..to).contains(&minute),
        false => (has(days, day) && minute >= from) || (has(days, yesterday) && minute < to),
    }
}

fn minutes(text: &str) -> u32 {
    let (h, m) = text.split_once(':').unwrap_or((text, "0"));
    h.parse().unwrap_or(0) * 60 + m.parse().unwrap_or(0)
}

fn has(days: &str, day: usize) -> bool {
    let number = |name: &str| DAYS.iter().position(|d| *d == name);
    let within = |run: &str| match run.split_once('-') {
        None => number(run) == Some(day),
        Some((from, to)) => number(from)
            .zip(number(to))
            .is_some_and(|(from, to)| (from..=to).contains(&day)),
    };
    days == "daily" || days.split(',').any(within)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{Fleet, node};

    /// Friday, 2027-01-15 08:00 UTC, and so many hours.
    fn after(hours: u64) -> Now {
        Now {
            boot: Time(5),
            wall: Time::from_secs(1_800_000_000 + hours * 3600),
        }
    }

    /// The hours after that Friday morning, of the next 48, in which a node in Berlin (UTC+1) may start.
    fn allowed(change: impl Fn(&mut Constraints)) -> Vec<u64> {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1", 1));
        let mut plan = fleet.plan("r", &release, vec![node(1)]);
        change(&mut plan.constraints);
        let berlin = Clock::of("Europe/Berlin").expect("known");
        let may = |h: &u64| start(after(*h), &berlin, &plan).is_ok();
        (0..48).filter(may).collect()
    }

    #[test]
    fn a_start_outside_of_the_hours_is_seen() {
        let hours = |text: &str| vec![text.parse().expect("hours")];
        assert_eq!(allowed(|_| {}).len(), 48);
        let night: Vec<u64> = (13..19).collect();
        assert_eq!(allowed(|c| c.windows = hours("fri 22:00-04:00")), night);
        let window = |c: &mut Constraints| {
            c.windows = hours("fri 22:00-04:00");
            c.blackouts = hours("sat 01:00-02:00");
        };
        assert_eq!(allowed(window), [13, 14, 15, 17, 18]);
        assert_eq!(
            allowed(|c| c.blackouts = hours("mon-sat 00:00-24:00")).len(),
            9
        );
        let utc = |c: &mut Constraints| {
            c.zone = "UTC".parse().expect("a zone");
            c.quiet = hours("daily 08:00-07:00");
        };
        assert_eq!(allowed(utc), [23, 47]);
        let overdue = |c: &mut Constraints| {
            c.quiet = hours("daily 00:00-24:00");
            c.deadline = Some(after(46).wall);
        };
        assert_eq!(allowed(overdue), [46, 47]);
        let late = |past: PastDeadline| {
            allowed(|c| {
                c.windows = hours("mon 00:00-01:00");
                c.deadline = Some(after(46).wall);
                c.past_deadline = past;
            })
        };
        assert_eq!(late(PastDeadline::Wait), [0u64; 0]);
        assert_eq!(late(PastDeadline::OverrideWindows), [46, 47]);
    }
}
