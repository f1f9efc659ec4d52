//! Whether a site's cap holds, at the origin's socket, in every second and every minute of a rollout.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

use super::fleet::Fleet;
use super::interrupt;
use super::meter::{Meter, Sent, most_within};
use super::network::{Network, check_tools};
use super::scenario::{Cap, Scenario, Site};
use super::watch;

/// A rollout takes so long at its cap, so that there is a whole minute to look at.
const LASTS_S: u64 = 80;
/// Of a cap, what carries payload; headers and acknowledgements are the rest.
const PAYLOAD_PERCENT: u64 = 94;
/// Datagrams have at most so many bytes.
const PACKET_BYTES: u64 = 1_452;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Caps {
    /// The scenario.
    pub scenario: &'static str,
    /// What it is about.
    pub about: &'static str,
    /// One for each cap.
    pub runs: Vec<Held>,
}

/// How one cap held. Bytes are those of datagrams of the data plane.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// The cap, bits a second.
    pub cap_bits: u64,
    /// From the first byte to the last.
    pub seconds: f64,
    /// The most bytes of any second, less two packets, over the cap.
    pub second_ratio: f64,
    /// The most bytes of any minute over the cap; the whole, if it took less.
    pub minute_ratio: f64,
    /// Bytes over what the cap would have let pass.
    pub used: f64,
    /// Payload copies over the WAN.
    pub wan_copies: f64,
    /// Where hours changed the cap: seconds after which no second carried more than the lower one lets,
    /// and, when the hours were over, after which a second carried nine tenths of the higher one.
    pub switches_s: Option<[f64; 2]>,
}

/// Plays one rollout for each cap.
///
/// # Errors
/// What did not come up, or did not finish in time.
pub fn run(scenario: &Scenario, caps: &[u64]) -> Result<Caps> {
    check_tools()?;
    interrupt::listen()?;
    let played = |bits: &u64| {
        let site = scenario.sites.first().context("a cap needs a site")?;
        let cap = site.cap;
        let has_hours = cap.is_some_and(|cap| cap.later_bits.is_some());
        let lasts_s = if has_hours { 2 * LASTS_S } else { LASTS_S };
        let scenario = Scenario {
            sites: vec![Site {
                cap: Some(Cap {
                    bits: *bits,
                    ..cap.unwrap_or_default()
                }),
                ..*site
            }],
            payload_bytes: bits / 8 * lasts_s * PAYLOAD_PERCENT / 100,
            ..scenario.clone()
        };
        play(&scenario, *bits)
    };
    Ok(Caps {
        scenario: scenario.name,
        about: scenario.about,
        runs: caps.iter().map(played).collect::<Result<_>>()?,
    })
}

fn play(scenario: &Scenario, bits: u64) -> Result<Held> {
    let network = Network::build(scenario)?;
    let mut fleet = Fleet::raise(scenario, &network)?;
    let release = fleet.publish(scenario)?;
    let switch = fleet.switch_at();
    let meter = Meter::start(&network.name("dc"), 1)?;
    let story = watch::roll_out(scenario, &network, &mut fleet)?;
    let sent = meter.stop();
    let payload: u64 = story
        .reasons
        .iter()
        .flatten()
        .filter(|(why, _)| *why != "peer")
        .map(|(_, b)| b)
        .sum();
    let mut held = judge(&sent, bits / 8)?;
    held.wan_copies = round(payload as f64 / release.wan_bytes as f64);
    let later = scenario.sites[0].cap.and_then(|cap| cap.later_bits);
    if let Some((at, later)) = switch.zip(later) {
        let falls = falls_after(&sent, at, later / 8).context("the lower cap never holds")?;
        let rises = rises_after(&sent, at + MINUTE, bits / 8).context("it does not rise again")?;
        held.switches_s = Some([falls, rises].map(round));
    }
    Ok(held)
}

fn judge(sent: &[Sent], cap: u64) -> Result<Held> {
    let (first, last) = (
        sent.first().context("nothing crossed")?.0,
        sent[sent.len() - 1].0,
    );
    let seconds = last.duration_since(first).as_secs_f64();
    let all: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
    let second = most_within(sent, SECOND).saturating_sub(2 * PACKET_BYTES);
    let minute = most_within(sent, MINUTE) as f64 / seconds.clamp(1.0, 60.0);
    Ok(Held {
        cap_bits: cap * 8,
        seconds: round(seconds),
        second_ratio: round(second as f64 / cap as f64),
        minute_ratio: round(minute / cap as f64),
        used: round(all as f64 / seconds.max(1.0) / cap as f64),
        wan_copies: 0.0,
        switches_s: None,
    })
}

/// Seconds after `at` from which on no second of that minute carried more than 1.05 of `cap` and two packets.
fn falls_after(sent: &[Sent], at: Instant, cap: u64) -> Option<f64> {
    let allowed = cap * 105 / 100 + 2 * PACKET_BYTES;
    let hours = |sent: &&Sent| (at..at + MINUTE).contains(&sent.0);
    let during: Vec<Sent> = sent.iter().filter(hours).copied().collect();
    let places: Vec<usize> = (0..during.len()).collect();
    let over = places.partition_point(|n| most_within(&during[*n..], SECOND) > allowed);
    Some(during.get(over)?.0.duration_since(at).as_secs_f64())
}

/// Seconds after `at` until the end of the first second that carried nine tenths of `cap`.
fn rises_after(sent: &[Sent], at: Instant, cap: u64) -> Option<f64> {
    let after: Vec<Sent> = sent.iter().filter(|sent| sent.0 >= at).copied().collect();
    let places: Vec<usize> = (1..=after.len()).collect();
    let below = places.partition_point(|n| most_within(&after[..*n], SECOND) < cap * 9 / 10);
    Some(after.get(below)?.0.duration_since(at).as_secs_f64())
}

impl Caps {
    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}: {}\n", self.scenario, self.about);
        for run in &self.runs {
            let switched = run.switches_s.map_or(String::new(), |[falls, rises]| {
                format!(", the lower cap holds {falls} s after its hour, the higher one is used {rises} s after it")
            });
            text += &format!(
                "  {} kbit/s: the most of any second {} (less two packets), of any minute {}, used {}, WAN copies {}, {} s{switched}\n",
                run.cap_bits / 1000,
                run.second_ratio,
                run.minute_ratio,
                run.used,
                run.wan_copies,
                run.seconds,
            );
        }
        text
    }
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kilobyte every 100 ms, and ten times that in the third second.
    fn sent() -> Vec<Sent> {
        let zero = Instant::now();
        let at = |n: u64| zero + Duration::from_millis(100 * n);
        (0..100)
            .map(|n| (at(n), if n / 10 == 3 { 10_000 } else { 1_000 }))
            .collect()
    }

    #[test]
    fn a_second_above_the_cap_is_seen() {
        let held = judge(&sent(), 10_000).unwrap();
        assert_eq!(held.second_ratio, 9.71);
        assert!(held.minute_ratio > 1.9 && held.used > 1.9);
        assert!(judge(&[], 10_000).is_err());
    }

    #[test]
    fn a_switch_is_over_when_no_later_second_carries_more() {
        let sent = sent();
        let falls = falls_after(&sent, sent[25].0, 10_000).expect("it calms down");
        assert!((1.0..1.6).contains(&falls), "{falls}");
        assert_eq!(falls_after(&sent[..35], sent[0].0, 100), None);
        let rises = rises_after(&sent, sent[5].0, 20_000).expect("it rises");
        assert!((2.5..2.9).contains(&rises), "{rises}");
        assert_eq!(rises_after(&sent, sent[50].0, 20_000), None);
    }
}
