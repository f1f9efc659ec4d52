//! `nodes --waiting` and `nodes admit`: machines whose token has an operator let each of them in.

use anyhow::{Context, bail};

use super::args::nodes::Admit;
use super::fleet::site_name;
use super::{output, setup, units};
use crate::api::Client;
use crate::api::messages::WaitingView;

/// Lists them.
///
/// # Errors
/// When the coordinator does not answer or refuses.
pub async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let machines = client.waiting().await;
    let machines = machines.context("failed to list machines that wait")?;
    if json {
        return output::json(&machines);
    }
    let now = units::wall_now();
    let mut table = output::table(&[
        "machine", "hostname", "system", "address", "token", "site", "waits",
    ]);
    for one in machines {
        table.add_row([
            one.node.short(),
            one.hostname,
            one.os,
            one.address.to_string(),
            one.token,
            site_name(one.site.as_ref()),
            format!("{} s", now.since(one.since).as_millis() / 1000),
        ]);
    }
    output::line(&table.to_string())
}

/// Lets one in.
///
/// # Errors
/// When nobody waits who is called so, more than one does, or the coordinator refuses.
pub async fn admit(ask: Admit) -> anyhow::Result<()> {
    let client = setup::client(&ask.at.dir)?;
    let waiting = client.waiting().await;
    let waiting = waiting.context("failed to list machines that wait")?;
    let called = ask.node.as_str();
    let fits =
        |view: &&WaitingView| view.hostname == called || view.node.to_string().starts_with(called);
    let mut found: Vec<&WaitingView> = waiting.iter().filter(fits).collect();
    found.dedup_by_key(|view| view.node);
    let [machine] = found[..] else {
        bail!(
            "{} machines that wait are called {called:?}; `tidegate nodes --waiting` lists them, give more of the id",
            found.len()
        );
    };
    client
        .admit(machine.node)
        .await
        .context("failed to let it in")?;
    output::line(&format!(
        "{} ({}) is let in; it becomes a node when it asks again",
        machine.node.short(),
        machine.hostname
    ))
}
