//! `nodes --foreign`: machines that are no nodes and reported.

use anyhow::Context;
use protocol::foreign::{Finding, Judged};

use super::fleet::site_name;
use super::{output, units};
use crate::api::Client;

/// Lists them.
///
/// # Errors
/// When the coordinator does not answer or refuses.
pub async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let machines = client.foreign().await;
    let machines = machines.context("failed to list foreign machines")?;
    if json {
        return output::json(&machines);
    }
    let now = units::wall_now();
    let mut table = output::table(&[
        "machine", "hostname", "site", "address", "seen", "times", "system", "verdict",
    ]);
    for one in machines {
        table.add_row([
            one.machine.short(),
            one.hostname,
            site_name(one.site.as_ref()),
            one.address.to_string(),
            format!("{} s ago", now.since(one.last_seen).as_millis() / 1000),
            one.times.to_string(),
            one.system,
            verdict(&one.rules),
        ]);
    }
    output::line(&table.to_string())
}

fn verdict(rules: &[Judged]) -> String {
    let unmet = rules.iter().filter(|rule| rule.finding == Finding::Unmet);
    let lines: Vec<String> = unmet
        .map(|rule| format!("{}: {}", rule.rule, rule.why))
        .collect();
    match (lines.is_empty(), rules.is_empty()) {
        (false, _) => lines.join("\n"),
        (true, false) => "compliant".into(),
        (true, true) => "no rules are set".into(),
    }
}
