//! What would help those who are late: one line for each cause, worked out from what holds them back.

use std::collections::BTreeMap;

use protocol::constraints;
use protocol::{SiteId, Span, Time};

use super::course::{Course, End};
use super::starts::Waits;
use super::wan::Supply;
use super::{Advice, Cause, Forecast};

/// Sites that one advice names.
const NAMED_MAX: usize = 50;

#[derive(Default)]
struct Concerned {
    nodes: u32,
    by_site: BTreeMap<SiteId, u32>,
    /// The most that anybody lacks.
    lacking: Span,
    /// The rate that the worst site would need, bytes a second; none: no rate would do.
    needs_rate: Option<u64>,
    hopeless: bool,
}

/// Advice for all that a forecast has late, and for those of whom nothing is heard.
pub(crate) fn advise(
    forecast: &Forecast,
    course: &Course,
    supply: &Supply,
    install: Span,
) -> Vec<Advice> {
    let mut causes: BTreeMap<Cause, Concerned> = BTreeMap::new();
    let payload = f64::from(forecast.assumptions.payload_ppm) / 1e6;
    for end in &course.ends {
        if end.at.is_some_and(|at| at <= forecast.deadline) {
            continue;
        }
        let site = &forecast.sites[end.site];
        let in_time = Time(forecast.deadline.0.saturating_sub(install.0));
        let cause = cause(forecast, end, supply, in_time);
        let concerned = causes.entry(cause).or_default();
        concerned.nodes += end.nodes;
        if let Some(name) = &site.site {
            *concerned.by_site.entry(name.clone()).or_default() += end.nodes;
        }
        let at = end.at.or(supply.has_bytes[end.site].map(|at| at + install));
        if let Some(at) = at {
            concerned.lacking = concerned.lacking.max(at.since(forecast.deadline));
        }
        let begins = forecast.starts + forecast.assumptions.begins_after;
        let seconds = in_time.since(begins).0 as f64 / 1000.0;
        let bytes = (site.bytes + site.promised_bytes) as f64 / payload;
        match seconds > 0.0 {
            true => {
                let needed = (bytes / seconds).ceil() as u64;
                concerned.needs_rate = concerned.needs_rate.max(Some(needed));
            }
            false => concerned.hopeless = true,
        }
    }
    if forecast.unreachable > 0 {
        let silent = forecast.sites.iter().filter(|s| s.unreachable > 0);
        let named = silent.filter_map(|s| Some((s.site.clone()?, s.unreachable)));
        let concerned = Concerned {
            nodes: forecast.unreachable,
            by_site: named.collect(),
            ..Concerned::default()
        };
        causes.insert(Cause::Unreachable, concerned);
    }
    let mut advice: Vec<Advice> = causes
        .into_iter()
        .map(|(cause, concerned)| Advice {
            cause,
            nodes: concerned.nodes,
            help: help(cause, &concerned),
            needs_bytes_per_s: concerned
                .needs_rate
                .filter(|_| matches!(cause, Cause::Wan | Cause::Promised) && !concerned.hopeless),
            sites: most_first(concerned.by_site),
        })
        .collect();
    advice.sort_by_key(|a| (core::cmp::Reverse(a.nodes), a.cause));
    advice
}

/// What holds late ones back: the last thing of leave, bytes and constraints that came too late.
fn cause(forecast: &Forecast, end: &End, supply: &Supply, in_time: Time) -> Cause {
    let site = &forecast.sites[end.site];
    if supply.has_bytes[end.site].is_none_or(|at| at > in_time) {
        // alone on its link it would need this share of the time
        let all = (site.bytes + site.promised_bytes).max(1) as f64;
        let begins = forecast.starts + forecast.assumptions.begins_after;
        let took = supply.has_bytes[end.site].map(|at| at.since(begins).0 as f64);
        let alone = took.map(|took| took * site.bytes as f64 / all);
        let in_time = alone.is_some_and(|alone| alone <= in_time.since(begins).0 as f64);
        return match () {
            () if in_time && site.promised_bytes > 0 => Cause::Promised,
            () if supply.by_origin[end.site] => Cause::Origin,
            () => Cause::Wan,
        };
    }
    match (end.ready.filter(|at| *at <= in_time), end.waits) {
        (Some(_), Some(Waits::Slot)) => Cause::Slots,
        (Some(_), Some(Waits::For(by))) => match by {
            constraints::Cause::Freeze => Cause::Freeze,
            constraints::Cause::User => Cause::User,
            _ => Cause::Windows,
        },
        _ if end.capped => Cause::StartsPerDay,
        _ if end.leave.is_none() && forecast.waves[end.wave as usize].opens.is_none() => {
            Cause::Gate
        }
        _ => Cause::Waves,
    }
}

fn most_first(by_site: BTreeMap<SiteId, u32>) -> Vec<SiteId> {
    let mut sites: Vec<(SiteId, u32)> = by_site.into_iter().collect();
    sites.sort_by_key(|(_, nodes)| core::cmp::Reverse(*nodes));
    sites.truncate(NAMED_MAX);
    sites.into_iter().map(|(site, _)| site).collect()
}

fn help(cause: Cause, concerned: &Concerned) -> String {
    let earlier = match concerned.lacking {
        Span::ZERO => String::new(),
        lacking => format!(", start {} earlier", said(lacking)),
    };
    let rate = match concerned.needs_rate.filter(|_| !concerned.hopeless) {
        Some(rate) => format!("raise the rate to {}", rate_said(rate)),
        None => "no rate brings the bytes in time".into(),
    };
    match cause {
        Cause::Wan => format!("the sites' links are too slow: {rate}, ship media{earlier} or move the deadline"),
        Cause::Origin => format!(
            "the origin's uplink is too slow: raise it, add an origin, ship media{earlier} or move the deadline"
        ),
        Cause::Waves => format!(
            "their waves open too late: begin with nodes behind wide links, shorten soaks, take fewer waves{earlier} or move the deadline"
        ),
        Cause::Gate => "their waves never open: the gate before lacks outcomes while the plan lasts; ask for a \
             smaller sample, choose nodes that are on, or give a later not_after"
            .into(),
        Cause::Promised => format!(
            "their links are promised to other rollouts first: let those end, {rate}, ship media, give a higher priority{earlier} or move the deadline"
        ),
        Cause::Windows => format!(
            "their windows are too narrow: widen them, let the deadline override them (--past-deadline override){earlier} or move the deadline"
        ),
        Cause::Freeze => format!(
            "a change freeze holds them: exempt this priority (--freeze-exempt){earlier}, or move the deadline behind it"
        ),
        Cause::Slots => format!(
            "too few of a site may be unavailable at a time: raise --max-unavailable{earlier} or move the deadline"
        ),
        Cause::User => format!(
            "their users are granted too much time: shorten --notice, make it required{earlier} or move the deadline"
        ),
        Cause::StartsPerDay => format!(
            "a day sees too few starts: raise --starts-per-day, or the fleet's starts_per_day{earlier} or move the deadline"
        ),
        Cause::Unreachable => "not heard of lately: switch them on, or leave them to the last wave's late joiners".into(),
    }
}

/// A rate of bytes a second as people say it, rounded up.
fn rate_said(bytes_per_s: u64) -> String {
    match bytes_per_s * 8 {
        bits @ 0..1_000_000 => format!("{} kbit/s", bits.div_ceil(1000)),
        bits => format!("{:.1} Mbit/s", bits.div_ceil(100_000) as f64 / 10.0),
    }
}

/// A length of time as people say it.
fn said(span: Span) -> String {
    let seconds = span.0.div_ceil(1000);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        7200..172_800 => format!("{} h", seconds.div_ceil(3600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
    }
}
