//! `rollout simulate`, and the report that `rollout propose` ends with.

use anyhow::Context;
use coordinator_core::forecast::{Assumptions, Forecast, Question, SiteForecast};
use protocol::{PublicKey, Span, Time};

use super::args::rollout::RolloutSimulate;
use super::{output, rollout, setup, units};
use crate::api::messages::WhatIf;

/// Sites that the report for people names; all are in the JSON.
const SITES_SHOWN: usize = 10;

/// `tidegate rollout simulate`
///
/// # Errors
/// One line, as a proposal would be refused.
pub async fn run(ask: RolloutSimulate) -> anyhow::Result<()> {
    let client = setup::client(&ask.at.dir)?;
    let fleet = rollout::fleet(&ask.at.dir)?;
    let deadline = ask.shape.terms.deadline;
    // nobody proposes it
    let proposal = rollout::draft(&client, fleet, ask.shape, PublicKey([0; 32])).await?;
    let usual = Assumptions::default();
    let start = units::wall_now() + ask.start_in.unwrap_or(Span::ZERO);
    let question = Question {
        start: Some(start),
        deadline: deadline.map(|deadline| start + deadline),
        assumptions: Assumptions {
            origin_bytes_per_s: ask.origin_rate.and_then(|rate| rate.0),
            install: ask.install.unwrap_or(usual.install),
            ..usual
        },
    };
    let what_if = WhatIf { proposal, question };
    let forecast = client.simulate(&what_if).await;
    let forecast = forecast.context("failed to simulate")?;
    match ask.json {
        true => output::json(&forecast),
        false => report(&forecast),
    }
}

/// A forecast as people read it.
///
/// # Errors
/// When standard output is gone.
pub fn report(forecast: &Forecast) -> anyhow::Result<()> {
    let f = forecast;
    let after = |at: Option<Time>| at.map_or("never".into(), |at| said(at.since(f.starts)));
    let unheard = match f.unreachable {
        0 => String::new(),
        n => format!(", {n} of them not heard of lately"),
    };
    output::line(&format!(
        "forecast {} of {}: {} targets in {} sites{unheard}; all that answer have it after {}, the last gate passes after {}",
        f.rollout,
        f.release,
        f.targets,
        f.sites.len(),
        after(f.completes),
        after(f.finishes),
    ))?;
    let headings = [
        "wave", "name", "targets", "sites", "opens", "starts", "complete", "passes",
    ];
    let mut table = output::table(&headings);
    for (number, wave) in f.waves.iter().enumerate() {
        let completes = match wave.targets {
            0 => "-".into(),
            _ => after(wave.completes),
        };
        table.add_row([
            (number + 1).to_string(),
            wave.name.clone(),
            wave.targets.to_string(),
            wave.sites.to_string(),
            after(wave.opens),
            match wave.targets {
                0 => "-".into(),
                _ => after(wave.starts),
            },
            completes,
            after(wave.passes),
        ]);
    }
    output::line(&table.to_string())?;
    let mut sites: Vec<&SiteForecast> = f.sites.iter().collect();
    // those that never have the bytes first, then the slowest
    sites.sort_by_key(|s| (s.has_bytes.is_some(), std::cmp::Reverse(s.has_bytes)));
    let headings = [
        "slowest sites",
        "targets",
        "one copy",
        "copies",
        "over its WAN",
        "promised",
        "has them",
        "complete",
        "late",
    ];
    let mut table = output::table(&headings);
    for site in sites.iter().take(SITES_SHOWN) {
        table.add_row([
            site.site
                .as_ref()
                .map_or("(none)".into(), ToString::to_string),
            site.targets().to_string(),
            units::bytes(site.carrier_bytes),
            format!("{:.2}", site.wan_copies_ppm as f64 / 1e6),
            units::bytes(site.link_bytes),
            units::bytes(site.promised_bytes),
            after(site.has_bytes),
            after(site.completes),
            site.late.to_string(),
        ]);
    }
    output::line(&table.to_string())?;
    let all: u64 = f.sites.iter().map(|s| s.bytes).sum();
    let alone = f
        .sites
        .iter()
        .filter(|s| s.wan_copies_ppm > 1_000_000)
        .count();
    output::line(&format!(
        "{} cross the WANs of {} sites; {alone} of them take more than one copy",
        units::bytes(all),
        f.sites.len(),
    ))?;
    match f.late {
        0 => output::line("nobody who answers misses the deadline")?,
        late => output::line(&format!(
            "{late} nodes miss the deadline, {} after the start",
            after(Some(f.deadline))
        ))?,
    }
    for advice in &f.advice {
        let sites: Vec<&str> = advice.sites.iter().take(3).map(|s| s.as_str()).collect();
        let more = match advice.sites.len() > sites.len() {
            true => ", …",
            false => "",
        };
        output::line(&format!(
            "{} nodes ({}{more}): {}",
            advice.nodes,
            sites.join(", "),
            advice.help
        ))?;
    }
    Ok(())
}

/// A length of time as people say it.
fn said(span: Span) -> String {
    let seconds = span.0.div_ceil(1000);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        7200..172_800 => format!("{:.1} h", seconds as f64 / 3600.0),
        _ => format!("{:.1} days", seconds as f64 / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        let check = |seconds, expected: &str| assert_eq!(said(Span::from_secs(seconds)), expected);
        check(0, "0 s");
        check(119, "119 s");
        check(121, "3 min");
        check(9_000, "2.5 h");
        check(259_200, "3.0 days");
    }
}
