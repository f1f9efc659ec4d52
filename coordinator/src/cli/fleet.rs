//! `nodes`, `sites`, `why`: looking at the fleet.

use anyhow::{Context, bail};
use coordinator_core::contract::NodeView;
use protocol::status::{State, WaitingFor};
use protocol::topology::{Site, Topology};
use protocol::trust::Statement;
use protocol::{FleetId, SiteId};

use super::args::nodes::{NodesAct, RecordInstall};
use super::args::{Nodes, Sites, Why};
use super::sites_file::read_sites;
use super::{foreign, output, release, revoking, setup, units, waiting};
use crate::api::Client;
use crate::api::messages::InstallNote;
use crate::directory::Directory;

/// `tidegate nodes`
///
/// # Errors
/// When the coordinator does not answer or refuses.
pub async fn nodes(ask: Nodes) -> anyhow::Result<()> {
    match ask.act {
        Some(NodesAct::RecordInstall(ask)) => return record_install(ask).await,
        Some(NodesAct::Admit(ask)) => return waiting::admit(ask).await,
        Some(NodesAct::RevokeMany(ask)) => return revoking::write(ask).await,
        Some(NodesAct::SignRevocation(ask)) => return revoking::sign(&ask),
        Some(NodesAct::PublishRevocation(ask)) => return revoking::publish(&ask).await,
        None => {}
    }
    let Some(at) = &ask.at else {
        bail!("failed to find the coordinator: give --dir DIR or set TIDEGATE_DIR");
    };
    let client = setup::client(&at.dir)?;
    if let Some(node) = ask.revoke {
        client
            .revoke(node, &ask.reason)
            .await
            .context("failed to revoke")?;
        return output::line(&format!("{node} is revoked"));
    }
    if ask.waiting {
        return waiting::list(&client, ask.json).await;
    }
    if ask.unmanaged {
        return unmanaged(&client, ask.json).await;
    }
    if ask.foreign {
        return foreign::list(&client, ask.json).await;
    }
    let nodes = match &ask.filter {
        Some(filter) => client.nodes_where(filter).await,
        None => client.nodes().await,
    };
    let nodes = nodes.context("failed to list nodes")?;
    if ask.json {
        return output::json(&nodes);
    }
    let now = units::wall_now();
    let mut table = output::table(&[
        "node",
        "hostname",
        "site",
        "seen",
        "system",
        "labels",
        "newest status",
    ]);
    for n in nodes {
        let seen = match (n.revoked, n.last_seen) {
            (true, _) => "revoked".into(),
            (_, None) => "never".into(),
            (_, Some(at)) => format!("{} s ago", now.since(at).as_millis() / 1000),
        };
        let labels: Vec<String> = n.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let system = system(&n);
        let status = n
            .statuses
            .last()
            .map_or_else(String::new, |s| format!("{}: {:?}", s.rollout, s.state));
        table.add_row([
            n.node.short(),
            n.hostname,
            site_name(n.site.as_ref()),
            seen,
            system,
            labels.join(" "),
            status,
        ]);
    }
    output::line(&table.to_string())
}

/// `tidegate nodes record-install`
async fn record_install(ask: RecordInstall) -> anyhow::Result<()> {
    let client = setup::client(&ask.at.dir)?;
    let nodes = client.nodes().await.context("failed to list nodes")?;
    let node = the_node(&nodes, &ask.node)?;
    let release = release::find(&client, &ask.release).await?;
    let note = InstallNote {
        release: release.digest,
        who: ask.who,
        why: ask.why,
    };
    let noted = client.record_install(node.node, &note).await;
    noted.context("failed to note the installation")?;
    output::line(&format!(
        "noted: {} installed {} on {} by hand; it counts as applied once the node itself says so",
        note.who, ask.release, node.hostname
    ))
}

/// The one node that is called so, by its hostname or the start of its id.
fn the_node<'a>(nodes: &'a [NodeView], called: &str) -> anyhow::Result<&'a NodeView> {
    let fits = |n: &&NodeView| n.hostname == called || n.node.to_string().starts_with(called);
    let found: Vec<&NodeView> = nodes.iter().filter(fits).collect();
    match found[..] {
        [node] => Ok(node),
        [] => bail!("no node is called {called:?}; `tidegate nodes` lists them"),
        _ => bail!(
            "{} nodes are called {called:?}; give more of the id",
            found.len()
        ),
    }
}

/// Operating system and version, as far as the node told.
fn system(node: &NodeView) -> String {
    let of = |name: &str| node.attributes.get(name).map(String::as_str);
    let name = of("os.name").or(of("os"));
    let words: Vec<&str> = name.into_iter().chain(of("os.version")).collect();
    words.join(" ")
}

async fn unmanaged(client: &Client, json: bool) -> anyhow::Result<()> {
    let list = client.unmanaged().await;
    let list = list.context("failed to list unmanaged machines")?;
    if json {
        return output::json(&list);
    }
    let now = units::wall_now();
    let mut table = output::table(&[
        "address",
        "site",
        "at the door of",
        "says to be",
        "seen",
        "times",
        "refused for",
    ]);
    for one in list {
        table.add_row([
            one.address.to_string(),
            site_name(one.site.as_ref()),
            one.seen_by
                .map_or_else(|| "coordinator".into(), |node| node.short()),
            one.node.map_or_else(|| "-".into(), |node| node.short()),
            format!("{} s ago", now.since(one.last_seen).as_millis() / 1000),
            one.times.to_string(),
            one.reason,
        ]);
    }
    output::line(&table.to_string())
}

pub(super) fn site_name(site: Option<&SiteId>) -> String {
    site.map_or_else(|| "-".into(), ToString::to_string)
}

/// `tidegate sites`
///
/// # Errors
/// When the file or the key is not as it should be, or the coordinator refuses.
pub async fn sites(ask: Sites) -> anyhow::Result<()> {
    let client = setup::client(&ask.at.dir)?;
    if let (Some(file), Some(key)) = (&ask.set, &ask.key) {
        let key = setup::load_signer(key)?;
        let fleet = Directory::new(&ask.at.dir).settings()?.fleet;
        let (sites, rules) = read_sites(file).context("failed to read the sites")?;
        let held = client
            .topology()
            .await
            .context("failed to read the topology")?;
        let held: Option<Topology> = held
            .map(|e| serde_json::from_slice(&e.payload))
            .transpose()?;
        let version = held.map_or(0, |t| t.version) + 1;
        let topology = Topology {
            foreign: rules,
            ..topology(fleet, version, sites)
        };
        topology
            .check()
            .map_err(|why| anyhow::anyhow!("failed to set the sites: {why}"))?;
        let mut envelope = topology.to_envelope();
        key.sign(&mut envelope).context("failed to set the sites")?;
        client
            .set_topology(&envelope)
            .await
            .context("failed to set the sites")?;
        return output::line(&format!(
            "topology {} is set: {} sites",
            topology.version,
            topology.sites.len()
        ));
    }
    let sites = client.sites().await.context("failed to list sites")?;
    if ask.json {
        return output::json(&sites);
    }
    let mut table = output::table(&[
        "site",
        "nodes",
        "WAN cap down now",
        "WAN bytes so far",
        "LAN bytes so far",
    ]);
    for s in sites {
        let wan: u64 = s.rollouts.iter().map(|r| r.wan_bytes).sum();
        let lan: u64 = s.rollouts.iter().map(|r| r.lan_bytes).sum();
        let cap = s
            .wan_down_bytes_per_s
            .map_or_else(|| "none".into(), |b| format!("{} kbit/s", b * 8 / 1000));
        table.add_row([
            site_name(s.site.as_ref()),
            s.nodes.to_string(),
            cap,
            units::bytes(wan),
            units::bytes(lan),
        ]);
    }
    output::line(&table.to_string())
}

/// The next topology of a fleet, unsigned.
pub fn topology(fleet: FleetId, version: u64, sites: Vec<Site>) -> Topology {
    Topology {
        spec_version: 1,
        fleet,
        version,
        created: units::wall_now(),
        sites,
        foreign: Vec::new(),
    }
}

/// `tidegate why`
///
/// # Errors
/// When no or several nodes fit.
pub async fn why(ask: Why) -> anyhow::Result<()> {
    let client = setup::client(&ask.at.dir)?;
    let nodes = client.nodes().await.context("failed to list nodes")?;
    let node = the_node(&nodes, &ask.node)?;
    if ask.json {
        return output::json(node);
    }
    for note in &node.by_hand {
        output::line(&format!(
            "by hand: {} installed {}: {}",
            note.who,
            note.release.short(),
            note.why
        ))?;
    }
    if node.statuses.is_empty() {
        return output::line(&format!(
            "{} ({}) takes part in no rollout",
            node.hostname,
            node.node.short()
        ));
    }
    let rollouts = client.rollouts().await.context("failed to list rollouts")?;
    for s in &node.statuses {
        let leave = matches!(
            s.state,
            State::Waiting(WaitingFor::Wave | WaitingFor::Lease)
        );
        let rollout = rollouts.iter().find(|r| leave && r.rollout == s.rollout);
        let waits = rollout.and_then(|r| r.waits.as_ref());
        let waits = waits.map_or(String::new(), |line| format!("; {line}"));
        output::line(&format!(
            "{}: wave {}, {:?}: {}{waits}",
            s.rollout,
            s.wave + 1,
            s.state,
            s.reason
        ))?;
        if !s.output_tail.is_empty() {
            output::line(&format!("  output ends: {}", s.output_tail.trim_end()))?;
        }
    }
    Ok(())
}
