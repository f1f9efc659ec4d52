//! When nodes may start, as it is written on the command line.

use clap::{Args, ValueEnum};
use protocol::Time;
use protocol::constraints::{Constraints, Freeze, Needs, PastDeadline, UserRules};
use protocol::hours::Hours;
use protocol::slots::SlotRules;
use protocol::zones::{Civil, Clock, Zone};
use protocol::{Span, plan::Priority};

use super::args::rollout::PriorityArg;
use super::units;

/// When nodes may start.
#[derive(Args, Debug, Default)]
pub struct Terms {
    /// Start only in these hours, such as 'sat,sun 22:00-04:00'; may be given again
    #[arg(long = "window", value_name = "HOURS")]
    pub windows: Vec<Hours>,
    /// Never start in these hours, such as 'mon-fri 08:00-18:00'
    #[arg(long = "blackout", value_name = "HOURS")]
    pub blackouts: Vec<Hours>,
    /// Neither start nor bother users in these hours, until the deadline
    #[arg(long = "quiet", value_name = "HOURS")]
    pub quiet: Vec<Hours>,
    /// Whose clock the hours mean: an IANA zone, or each node's own
    #[arg(long, value_name = "ZONE", default_value = "local", value_parser = zone)]
    pub zone: Zone,
    /// Never start in this time, such as 'year end=2026-12-20T00:00/2027-01-02T00:00', by the clock of --zone
    #[arg(long = "freeze", value_name = "NAME=FROM/TO", value_parser = freeze)]
    pub freezes: Vec<Freeze>,
    /// Freezes do not hold this rollout if its priority is this or above
    #[arg(long, value_enum, value_name = "PRIORITY", requires = "freezes")]
    pub freeze_exempt: Option<PriorityArg>,
    /// By then every node should have started, so long from now
    #[arg(long, value_parser = units::span, value_name = "TIME")]
    pub deadline: Option<Span>,
    /// What the windows are worth after the deadline
    #[arg(long, value_enum, default_value = "wait", requires = "deadline")]
    pub past_deadline: PastDeadlineArg,
    /// Nothing starts before the node's user asks for it or the deadline passes
    #[arg(long)]
    pub optional: bool,
    /// The node's user may put it off so often
    #[arg(long, value_name = "TIMES")]
    pub defer: Option<u32>,
    /// Put off it is for so long at most after the notice
    #[arg(long, value_parser = units::span, value_name = "TIME", default_value = "7d", requires = "defer")]
    pub grace: Span,
    /// The node's user has notice so long before the start
    #[arg(long, value_parser = units::span, value_name = "TIME")]
    pub notice: Option<Span>,
    /// Spread the starts of each wave evenly over so long
    #[arg(long, value_parser = units::span, value_name = "TIME")]
    pub spread: Option<Span>,
    /// Start on so many nodes in a UTC day at most
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u32).range(1..))]
    pub starts_per_day: Option<u32>,
    /// So many nodes of a site may be unavailable at a time
    #[arg(long, value_name = "NODES")]
    pub max_unavailable: Option<u32>,
    /// So many of those with the same value of this attribute, such as label.role
    #[arg(long, value_name = "NAME", requires = "max_unavailable")]
    pub slots_per: Option<String>,
    /// A node that is not heard of for so long is not counted as unavailable any more
    #[arg(long, value_parser = units::span, value_name = "TIME", default_value = "10m", requires = "max_unavailable")]
    pub slot_lease: Span,
    /// Start only with so many bytes free on the node's disk
    #[arg(long, value_name = "BYTES")]
    pub need_disk: Option<u64>,
    /// Start only on mains power
    #[arg(long)]
    pub need_mains: bool,
    /// Start only on a link that is not metered
    #[arg(long)]
    pub need_unmetered: bool,
}

/// What the windows are worth after the deadline.
#[derive(ValueEnum, Clone, Copy, Debug, Default)]
pub enum PastDeadlineArg {
    /// Nodes go on waiting for them
    #[default]
    Wait,
    /// Nodes start outside of them
    Override,
}

impl Terms {
    /// The constraints that a plan made `now` has.
    pub fn constraints(self, now: Time) -> Constraints {
        let exempt = self.freeze_exempt.map(Priority::from);
        let freezes = self.freezes.into_iter().map(|freeze| Freeze {
            exempt,
            zone: self.zone.clone(),
            ..freeze
        });
        let asked = self.optional || self.defer.is_some() || self.notice.is_some();
        let user = asked.then(|| UserRules {
            optional: self.optional,
            notice: self.notice.unwrap_or(Span::ZERO),
            max_deferrals: self.defer.unwrap_or(0),
            grace: self.grace,
        });
        Constraints {
            freezes: freezes.collect(),
            zone: self.zone,
            windows: self.windows,
            blackouts: self.blackouts,
            quiet: self.quiet,
            deadline: self.deadline.map(|span| now + span),
            past_deadline: match self.past_deadline {
                PastDeadlineArg::Wait => PastDeadline::Wait,
                PastDeadlineArg::Override => PastDeadline::OverrideWindows,
            },
            user,
            needs: Needs {
                free_disk_bytes: self.need_disk,
                mains: self.need_mains,
                unmetered: self.need_unmetered,
            },
            slots: self.max_unavailable.map(|max_unavailable| SlotRules {
                per: self.slots_per,
                max_unavailable,
                lease: self.slot_lease,
            }),
            spread: self.spread.unwrap_or(Span::ZERO),
            starts_per_day: self.starts_per_day,
        }
    }
}

fn zone(text: &str) -> Result<Zone, String> {
    let zone: Zone = text.parse()?;
    match &zone {
        Zone::Named(name) if Clock::of(name).is_none() => Err(format!(
            "the IANA database has no zone {name}; zones are written like Europe/Berlin"
        )),
        _ => Ok(zone),
    }
}

fn freeze(text: &str) -> Result<Freeze, String> {
    let wrong =
        || format!("{text:?} is not written as 'year end=2026-12-20T00:00/2027-01-02T00:00'");
    let (name, times) = text.split_once('=').ok_or_else(wrong)?;
    let (from, to) = times.split_once('/').ok_or_else(wrong)?;
    let (from, to): (Civil, Civil) = (from.parse()?, to.parse()?);
    if to <= from {
        return Err(format!("the freeze {name} ends before it begins"));
    }
    Ok(Freeze {
        name: name.to_owned(),
        from,
        to,
        zone: Zone::Local,
        exempt: None,
    })
}

/// What a plan lays down, in lines for whoever approves it.
pub fn described(constraints: &Constraints) -> Vec<String> {
    let c = constraints;
    let clock = match &c.zone {
        Zone::Local => "each node's clock".to_owned(),
        Zone::Named(name) => format!("the clock of {name}"),
    };
    let hours = |all: &[Hours]| {
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        texts.join(" or ")
    };
    let utc = Clock::utc();
    let mut lines = Vec::new();
    for (what, all) in [
        ("starts only", &c.windows),
        ("no starts", &c.blackouts),
        ("quiet", &c.quiet),
    ] {
        if !all.is_empty() {
            lines.push(format!("{what} {} by {clock}", hours(all)));
        }
    }
    for f in &c.freezes {
        let but = f
            .exempt
            .map(|p| format!(", but for priority {p:?} and above").to_lowercase());
        let but = but.unwrap_or_default();
        lines.push(format!(
            "frozen {} to {} by {} ({}){but}",
            f.from, f.to, f.zone, f.name
        ));
    }
    if let Some(deadline) = c.deadline {
        let then = match c.past_deadline {
            PastDeadline::Wait => "then windows still hold",
            PastDeadline::OverrideWindows => "then windows hold no more",
        };
        lines.push(format!("deadline {}, {then}", utc.tells(deadline)));
    }
    if let Some(user) = &c.user {
        let (minutes, hours) = (user.notice.0 / 60_000, user.grace.0 / 3_600_000);
        let may = match (user.optional, user.max_deferrals) {
            (true, _) => "it is optional until the deadline".to_owned(),
            (false, 0) => "nobody may put it off".to_owned(),
            (false, n) => format!("they may put it off {n} times within {hours} hours"),
        };
        lines.push(format!("users have notice {minutes} minutes before; {may}"));
    }
    if let Some(slots) = &c.slots {
        let per = slots.per.as_deref();
        let per = per.map_or(String::new(), |name| format!(" and {name}"));
        let (most, minutes) = (slots.max_unavailable, slots.lease.0 / 60_000);
        lines.push(format!(
            "at most {most} unavailable per site{per}; one that is silent for {minutes} minutes counts no more"
        ));
    }
    if !c.spread.is_zero() {
        let minutes = c.spread.0 / 60_000;
        lines.push(format!(
            "the starts of a wave are spread over {minutes} minutes"
        ));
    }
    if let Some(cap) = c.starts_per_day {
        lines.push(format!("at most {cap} nodes start in a UTC day"));
    }
    if let Some(bytes) = c.needs.free_disk_bytes {
        lines.push(format!("needs {bytes} bytes free"));
    }
    for (asked, what) in [
        (c.needs.mains, "mains power"),
        (c.needs.unmetered, "a link that is not metered"),
    ] {
        if asked {
            lines.push(format!("needs {what}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freezes_and_zones_are_understood_or_refused_with_the_form() {
        let frozen = freeze("year end=2026-12-20T00:00/2027-01-02T00:00").unwrap();
        assert_eq!(frozen.name, "year end");
        assert!(
            freeze("x=2026-12-20T00:00")
                .unwrap_err()
                .contains("year end=")
        );
        assert!(
            freeze("x=2026-12-20T00:00/2026-12-20T00:00")
                .unwrap_err()
                .contains("ends before")
        );
        assert!(
            freeze("x=yesterday/2026-12-20T00:00")
                .unwrap_err()
                .contains("yesterday")
        );
        assert!(zone("Mars/Olympus").unwrap_err().contains("IANA"));
        assert_eq!(zone("local"), Ok(Zone::Local));
    }

    #[test]
    fn terms_become_what_the_plan_says() {
        let now = Time::from_secs(1000);
        assert!(Terms::default().constraints(now).is_empty());
        let terms = Terms {
            windows: vec!["sat 22:00-04:00".parse().unwrap()],
            deadline: Some(Span::from_secs(60)),
            past_deadline: PastDeadlineArg::Override,
            defer: Some(3),
            grace: Span::from_secs(7 * 86_400),
            ..Terms::default()
        };
        let constraints = terms.constraints(now);
        assert_eq!(constraints.deadline, Some(Time::from_secs(1060)));
        assert_eq!(
            described(&constraints),
            [
                "starts only sat 22:00-04:00 by each node's clock",
                "deadline 1970-01-01 00:17 UTC, then windows hold no more",
                "users have notice 0 minutes before; they may put it off 3 times within 168 hours",
            ]
        );
    }
}
