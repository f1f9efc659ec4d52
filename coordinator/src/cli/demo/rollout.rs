//! One release of the demo, from build to the end of its rollout.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coordinator_core::contract::{NodeView, RolloutState, RolloutView, StatusView};
use protocol::plan::{Gate, Priority, Proposal, Selector, Targets};
use protocol::status::State;
use protocol::{NodeId, RolloutId, SiteId, Span};

use super::fleet::Fleet;
use super::live::Live;
use super::payload::Tree;
use crate::cli::args::{ReleaseBuild, Severity};
use crate::cli::{release, rollout, units};

/// A rollout that stands still for so long is given up.
const STANDSTILL: Duration = Duration::from_secs(180);

/// What came of a rollout.
pub struct Outcome {
    /// The coordinator's last view.
    pub view: RolloutView,
    /// The last status of each node.
    pub statuses: BTreeMap<NodeId, StatusView>,
    /// Where each node is.
    pub sites: BTreeMap<NodeId, SiteId>,
    /// From the start of the rollout to its end.
    pub seconds: f64,
    /// Bytes of all files.
    pub payload_bytes: u64,
    /// Bytes of the carrier.
    pub carrier_bytes: u64,
}

/// Builds, signs and publishes a release; proposes, approves and starts its rollout; waits for its end.
///
/// # Errors
/// Which step broke.
pub async fn carry_out(
    fleet: &mut Fleet,
    live: &Live,
    tree: &Tree,
    version: &str,
) -> anyhow::Result<Outcome> {
    let out = fleet.builds().join(version);
    std::fs::create_dir_all(fleet.builds())?;
    live.say(&format!("building demo@{version}"));
    let ask = ReleaseBuild {
        applies_to: None,
        path: tree.path.clone(),
        product: "demo".parse()?,
        version: version.parse()?,
        severity: Severity::Moderate,
        out: out.clone(),
        os: "any".into(),
        arch: "any".into(),
        health_check: Some(tree.health_check.clone()),
        health_soak: Span::from_millis(500),
        recipe: None,
        package: Default::default(),
        change: Default::default(),
        relations: Default::default(),
        level: 6,
        json: false,
    };
    let (built, _) = tokio::task::spawn_blocking(move || release::build_draft(&ask)).await??;
    release::sign(
        &out,
        &fleet.operator("releases")?,
        fleet.id,
        None,
        Span::from_secs(86_400),
    )?;
    live.say(&format!(
        "publishing {} in {}",
        units::bytes(built.plain_bytes),
        units::bytes(built.travels().length)
    ));
    let published = release::publish(&fleet.client, &out, |_, _| {}).await?;

    let id: RolloutId = format!("demo-{version}").parse()?;
    let alice = fleet.operator("alice")?;
    let now = units::wall_now();
    let gate = Gate {
        min_success_ppm: 900_000,
        min_sample: 3,
        soak: Span::from_millis(500),
        silence_after: Span::from_secs(60),
    };
    let waves = [Selector::Count(2), Selector::Percent(50), Selector::Rest];
    let proposal = Proposal {
        spec_version: 1,
        fleet: fleet.id,
        rollout: id.clone(),
        release: published.digest,
        proposer: alice.public(),
        priority: Priority::Medium,
        targets: Targets::default(),
        waves: units::drafts(&waves, now, &gate),
        test: None,
        constraints: Default::default(),
        lease_ttl: Span::from_secs(30),
        not_after: now + Span::from_secs(86_400),
    };
    live.say(&format!("alice proposes {id}, bob and carol approve"));
    rollout::propose(&fleet.client, &proposal, &alice).await?;
    for name in ["bob", "carol"] {
        rollout::approve(&fleet.client, fleet.id, &id, &fleet.operator(name)?).await?;
    }
    let since = Instant::now();
    fleet.client.start(&id).await.context("failed to start")?;
    let view = wait_for_end(fleet, live, &id, built.travels().length).await?;
    let seconds = since.elapsed().as_secs_f64();
    live.rollout_ended(&view);
    let statuses = statuses(&fleet.client.nodes().await?, &id);
    let sites = fleet.nodes.iter().map(|n| (n.id, n.site.clone())).collect();
    Ok(Outcome {
        view,
        statuses,
        sites,
        seconds,
        payload_bytes: built.plain_bytes,
        carrier_bytes: built.travels().length,
    })
}

fn statuses(nodes: &[NodeView], id: &RolloutId) -> BTreeMap<NodeId, StatusView> {
    let of = |n: &NodeView| {
        n.statuses
            .iter()
            .find(|s| s.rollout == *id)
            .cloned()
            .map(|s| (n.node, s))
    };
    nodes.iter().filter_map(of).collect()
}

/// Whether a node has begun to change itself in this rollout.
pub fn attempted(state: State) -> bool {
    state.started()
        || matches!(
            state,
            State::Succeeded
                | State::Failed
                | State::RollingBack
                | State::RolledBack
                | State::RollbackFailed
                | State::MissingReport
        )
}

async fn wait_for_end(
    fleet: &mut Fleet,
    live: &Live,
    id: &RolloutId,
    carrier_bytes: u64,
) -> anyhow::Result<RolloutView> {
    let mut last_change = Instant::now();
    let mut last = None;
    loop {
        let view = fleet.client.rollout(id).await?.view;
        let nodes = fleet.client.nodes().await?;
        let statuses = statuses(&nodes, id);
        live.rollout(&view, fleet, carrier_bytes).await;
        let open = statuses
            .values()
            .any(|s| attempted(s.state) && !s.state.ended());
        if view.counts.total() != view.targets {
            bail!(
                "the four counts {:?} do not add up to {} targets",
                view.counts,
                view.targets
            );
        }
        if rollout::ended(view.state)
            && !open
            && (view.state != RolloutState::Finished
                || view.counts.open + view.counts.not_received == 0)
        {
            return Ok(view);
        }
        let now = Some((view, statuses));
        if now != last {
            last = now;
            last_change = Instant::now();
        }
        fleet.check_processes()?;
        if last_change.elapsed() > STANDSTILL {
            let view = &last.as_ref().expect("set above").0;
            bail!(
                "nothing moved for {} s: {}",
                STANDSTILL.as_secs(),
                rollout::one_line(view)
            );
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
