//! When each site has its bytes: a fluid over the WAN links and the origin's uplink, shared by max-min
//! fairness (progressive filling, Bertsekas & Gallager, Data Networks, 1992, section 6.5.2).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use protocol::topology::Site;
use protocol::zones::Clock;
use protocol::{SiteId, Span, Time};

use super::{Assumptions, SiteForecast};
use crate::fleet::Fleet;

/// Rates are shared anew about so often at most; sites that complete in between give their share up a
/// little late, so a forecast errs to the late side.
const ROUNDS: usize = 64;
/// Parents above a site that are looked at; a longer chain is a mistake in the topology.
const PARENTS_MAX: usize = 8;

/// When the bytes are where.
pub(crate) struct Supply {
    /// For each site, in the order asked; none: never, for want of any rate.
    pub has_bytes: Vec<Option<Time>>,
    /// For each site: the origin's uplink, not its own link, held it back at the end.
    pub by_origin: Vec<bool>,
}

/// A link that several flows cross.
struct Link<'a> {
    bytes_per_s: f64,
    flows: Vec<usize>,
    /// Whose it is and its clock, if its rate changes by the hour.
    hours: Option<(&'a Site, Option<Clock>)>,
}

/// A flow into one site.
struct Flow {
    left: f64,
    links: Vec<usize>,
    rate: f64,
}

/// When each site has what was promised to it before, and its own bytes.
pub(crate) fn supply(
    sites: &[SiteForecast],
    fleet: &Fleet,
    start: Time,
    not_after: Time,
    assumptions: &Assumptions,
) -> Supply {
    let payload = f64::from(assumptions.payload_ppm) / 1e6;
    let (mut links, mut flows) = network(sites, fleet, assumptions);
    links.iter_mut().for_each(|l| l.bytes_per_s *= payload);
    let begins = start + assumptions.begins_after;
    let mut has_bytes = vec![None; flows.len()];
    let mut by_origin = vec![false; flows.len()];
    let mut active: Vec<usize> = (0..flows.len()).collect();
    let mut clock = 0.0;
    // where nobody shares a link, nobody's rate changes when another completes
    let shared = |l: &Link| l.bytes_per_s.is_finite() && l.flows.len() > 1;
    let at_once = match links.iter().any(shared) {
        true => flows.len().div_ceil(ROUNDS),
        false => flows.len(),
    };
    while !active.is_empty() && begins + span(clock) < not_after {
        let at = begins + span(clock);
        let change = by_the_hour(&mut links, at, assumptions, payload);
        let held_by = share(&links, &mut flows, &active);
        let mut ends: Vec<(f64, usize)> = active
            .iter()
            .filter(|f| flows[**f].rate > 0.0)
            .map(|f| (flows[*f].left / flows[*f].rate, *f))
            .collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let last = at_once.min(ends.len()).saturating_sub(1);
        let until = ends.get(last).map_or(f64::INFINITY, |(until, _)| *until);
        let until = until.min(change);
        if until.is_infinite() {
            break;
        }
        for (seconds, flow) in ends {
            if seconds > until {
                flows[flow].left = (flows[flow].left - flows[flow].rate * until).max(1e-6);
                continue;
            }
            flows[flow].left = 0.0;
            let hop = hop_inside(&sites[flow], assumptions);
            has_bytes[flow] = Some(begins + span(clock + seconds) + hop);
            by_origin[flow] = held_by[flow] == Some(0);
        }
        clock += until;
        active.retain(|f| flows[*f].left > 0.0 && (flows[*f].rate > 0.0 || change.is_finite()));
    }
    Supply {
        has_bytes,
        by_origin,
    }
}

/// Gives links the rates of the hour; says after how many seconds the first of them changes.
fn by_the_hour(links: &mut [Link<'_>], at: Time, assumptions: &Assumptions, payload: f64) -> f64 {
    let mut change = f64::INFINITY;
    for link in links {
        let Some((site, clock)) = &link.hours else {
            continue;
        };
        let rates = site.rates_by(clock.as_ref(), at);
        let down = rates.down.unwrap_or(assumptions.open_link_bytes_per_s);
        link.bytes_per_s = down as f64 * payload;
        if let Some(until) = rates.until {
            change = change.min(until.since(at).0.max(1) as f64 / 1000.0);
        }
    }
    change
}

fn span(seconds: f64) -> Span {
    Span((seconds * 1000.0).min(1e15) as u64)
}

/// The last piece's way over the LAN: pieces flow on as they come, so all but about a 256th of the
/// bytes is there when the WAN brings the last.
fn hop_inside(site: &SiteForecast, assumptions: &Assumptions) -> Span {
    let share = site.bytes as f64 / protocol::limits::PIECES_AIM as f64;
    span(share / assumptions.lan_bytes_per_s.max(1) as f64)
}

/// The site and its parents, as far up as bytes for it travel.
fn crossed<'a>(site: &'a SiteId, known: &BTreeMap<&'a SiteId, &'a Site>) -> Vec<&'a SiteId> {
    let mut crossed = Vec::new();
    let mut at = Some(site);
    while let Some(id) = at.filter(|id| !crossed.contains(id) && crossed.len() < PARENTS_MAX) {
        crossed.push(id);
        at = known.get(id).and_then(|site| site.parent.as_ref());
    }
    crossed
}

fn known(fleet: &Fleet) -> BTreeMap<&SiteId, &Site> {
    let topology = fleet.topology.iter().flat_map(|t| &t.value.sites);
    topology.map(|site| (&site.id, site)).collect()
}

/// Works out what crosses the WAN of each site, for itself and for others.
pub(crate) fn add_up(sites: &mut [SiteForecast], fleet: &Fleet) {
    let known = known(fleet);
    let mut links: BTreeMap<SiteId, u64> = BTreeMap::new();
    for site in sites.iter() {
        for link in site.site.iter().flat_map(|id| crossed(id, &known)) {
            *links.entry(link.clone()).or_default() += site.bytes;
        }
    }
    for site in sites {
        site.link_bytes = match &site.site {
            Some(id) => links.get(id).copied().unwrap_or(site.bytes),
            None => site.bytes,
        };
    }
}

/// The origin's uplink is link 0. Every site's flow crosses it, its own link and those of its parents.
fn network<'a>(
    sites: &'a [SiteForecast],
    fleet: &'a Fleet,
    assumptions: &Assumptions,
) -> (Vec<Link<'a>>, Vec<Flow>) {
    let known = known(fleet);
    let uplink = assumptions.origin_bytes_per_s;
    let mut links = vec![Link {
        bytes_per_s: uplink.map_or(f64::INFINITY, |u| u as f64),
        flows: Vec::new(),
        hours: None,
    }];
    let mut numbers: BTreeMap<&SiteId, usize> = BTreeMap::new();
    let mut flows = Vec::with_capacity(sites.len());
    for (flow, site) in sites.iter().enumerate() {
        let mut crosses = vec![0];
        for id in site.site.iter().flat_map(|id| crossed(id, &known)) {
            let rate = known.get(id).and_then(|s| s.wan_down_bytes_per_s);
            let rate = rate.unwrap_or(assumptions.open_link_bytes_per_s);
            let number = *numbers.entry(id).or_insert_with(|| {
                links.push(Link {
                    bytes_per_s: rate as f64,
                    flows: Vec::new(),
                    hours: known.get(id).and_then(|site| {
                        let schedule = site.schedule.as_ref()?;
                        Some((*site, schedule.clock()))
                    }),
                });
                links.len() - 1
            });
            crosses.push(number);
        }
        if site.site.is_none() {
            links.push(Link {
                bytes_per_s: assumptions.open_link_bytes_per_s as f64,
                flows: Vec::new(),
                hours: None,
            });
            crosses.push(links.len() - 1);
        }
        crosses.iter().for_each(|l| links[*l].flows.push(flow));
        flows.push(Flow {
            left: (site.bytes + site.promised_bytes) as f64,
            links: crosses,
            rate: 0.0,
        });
    }
    (links, flows)
}

/// Gives every active flow its max-min fair rate; tells which link holds each back.
fn share(links: &[Link<'_>], flows: &mut [Flow], active: &[usize]) -> Vec<Option<usize>> {
    let mut room: Vec<f64> = links.iter().map(|l| l.bytes_per_s).collect();
    let mut open = vec![0usize; links.len()];
    let mut waits = vec![false; flows.len()];
    for flow in active {
        waits[*flow] = true;
        flows[*flow].links.iter().for_each(|l| open[*l] += 1);
    }
    // a link's fair share only grows as other flows are settled, so an old key is never too high
    let key = |share: f64| Reverse((share * 1000.0).min(1e18) as u64);
    let mut heap: BinaryHeap<(Reverse<u64>, usize)> = (0..links.len())
        .filter(|l| open[*l] > 0 && links[*l].bytes_per_s.is_finite())
        .map(|l| (key(room[l] / open[l] as f64), l))
        .collect();
    let mut held_by = vec![None; flows.len()];
    while let Some((was, link)) = heap.pop() {
        if open[link] == 0 {
            continue;
        }
        let fair = (room[link] / open[link] as f64).max(0.0);
        if key(fair) != was {
            heap.push((key(fair), link));
            continue;
        }
        for flow in &links[link].flows {
            if !core::mem::take(&mut waits[*flow]) {
                continue;
            }
            flows[*flow].rate = fair;
            held_by[*flow] = Some(link);
            for crossed in &flows[*flow].links {
                room[*crossed] -= fair;
                open[*crossed] -= 1;
            }
        }
    }
    held_by
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(bytes_per_s: f64) -> Link<'static> {
        Link {
            bytes_per_s,
            flows: Vec::new(),
            hours: None,
        }
    }

    #[test]
    fn rates_are_max_min_fair() {
        // (rates of the links, links of each flow) -> rates of the flows
        type Case<'a> = (&'a [f64], &'a [&'a [usize]], &'a [f64]);
        let cases: [Case; 4] = [
            (&[f64::INFINITY, 5.0, 9.0], &[&[0, 1], &[0, 2]], &[5.0, 9.0]),
            // the origin is shared; who can take less leaves the rest to others
            (
                &[12.0, 2.0, 9.0, 9.0],
                &[&[0, 1], &[0, 2], &[0, 3]],
                &[2.0, 5.0, 5.0],
            ),
            // a parent's link is shared by its children
            (
                &[f64::INFINITY, 6.0, 9.0, 2.0],
                &[&[0, 1, 2], &[0, 1, 3]],
                &[4.0, 2.0],
            ),
            (&[3.0, 6.0], &[&[0, 1], &[0, 1], &[0, 1]], &[1.0, 1.0, 1.0]),
        ];
        for (rates, crossed, expected) in cases {
            let mut links: Vec<Link> = rates.iter().map(|r| link(*r)).collect();
            let mut flows = Vec::new();
            for (n, crossed) in crossed.iter().enumerate() {
                crossed.iter().for_each(|l| links[*l].flows.push(n));
                flows.push(Flow {
                    left: 1.0,
                    links: crossed.to_vec(),
                    rate: 0.0,
                });
            }
            let active: Vec<usize> = (0..flows.len()).collect();
            share(&links, &mut flows, &active);
            let given: Vec<f64> = flows.iter().map(|f| f.rate).collect();
            assert_eq!(given, expected, "{rates:?} {crossed:?}");
        }
    }
}
