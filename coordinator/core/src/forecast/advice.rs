//! What would help those who are late: one line for each cause, worked out from what holds them back.

use std::collections::BTreeMap;

use protocol::{SiteId, Span, Time};

use super::course::Course;
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
        let wave = &forecast.waves[end.wave as usize];
        let in_time = Time(forecast.deadline.0.saturating_sub(install.0));
        let cause = match (supply.has_bytes[end.site], wave.opens) {
            (Some(at), _) if at <= in_time && wave.opens.is_none() => Cause::Gate,
            (Some(at), _) if at <= in_time => Cause::Waves,
            _ if supply.by_origin[end.site] => Cause::Origin,
            _ => Cause::Wan,
        };
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
                .filter(|_| cause == Cause::Wan && !concerned.hopeless),
            sites: most_first(concerned.by_site),
        })
        .collect();
    advice.sort_by_key(|a| (core::cmp::Reverse(a.nodes), a.cause));
    advice
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
