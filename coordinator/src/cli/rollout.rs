//! `rollout …`: proposing, approving and steering. Whatever is signed is signed here.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use coordinator_core::contract::{RolloutState, RolloutView};
use coordinator_core::forecast::Question;
use coordinator_core::timeframes::Standing;
use protocol::envelope::Envelope;
use protocol::feed::StageCounts;
use protocol::plan::{
    Cohort, Gate, Members, Proposal, Recall, RolloutPlan, Selector, SequentialTest, Targets,
};
use protocol::relations::Pick;
use protocol::trust::Statement;
use protocol::zones::Clock;
use protocol::{FleetId, PublicKey, RolloutId, Span};

use super::args::rollout::{
    Rollout, RolloutNamed, RolloutPropose, RolloutRecall, RolloutShape, RolloutSigned,
};
use super::{lift, output, release, setup, simulate, terms, units};
use crate::api::Client;
use crate::api::messages::{ProblemReport, Progress};
use crate::directory::Directory;
use crate::signing::Signer;

/// `tidegate rollout …`
///
/// # Errors
/// One line each.
pub async fn run(command: Rollout) -> anyhow::Result<ExitCode> {
    match command {
        Rollout::Propose(ask) => propose_from(*ask).await?,
        Rollout::Simulate(ask) => simulate::run(*ask).await?,
        Rollout::Approve(ask) => approve_from(ask).await?,
        Rollout::Start(ask) => {
            setup::client(&ask.at.dir)?
                .start(&ask.rollout)
                .await
                .context("failed to start")?;
        }
        Rollout::Pause(ask) => {
            setup::client(&ask.named.at.dir)?
                .pause(&ask.named.rollout, &ask.reason)
                .await
                .context("failed to pause")?;
        }
        Rollout::Resume(ask) => {
            setup::client(&ask.at.dir)?
                .resume(&ask.rollout)
                .await
                .context("failed to resume")?;
        }
        Rollout::Halt(ask) => {
            let client = setup::client(&ask.at.dir)?;
            let halted = match &ask.what.rollout {
                Some(id) => client.halt(id, &ask.reason).await,
                None => client.halt_all(&ask.reason).await,
            };
            halted.context("failed to halt")?;
        }
        Rollout::Lift(ask) => lift::run(ask).await?,
        Rollout::ReleaseCohort(ask) => {
            let (key, value) = ask.cohort;
            setup::client(&ask.named.at.dir)?
                .release_cohort(&ask.named.rollout, &Cohort { key, value })
                .await
                .context("failed to release the cohort")?;
        }
        Rollout::Recall(ask) => recall_from(ask).await?,
        Rollout::Problem(ask) => {
            let (node, what) = (ask.node, ask.what);
            setup::client(&ask.named.at.dir)?
                .problem(&ask.named.rollout, &ProblemReport { node, what })
                .await
                .context("failed to report the problem")?;
        }
        Rollout::Watch { named, json } => return watch(named, json).await,
        Rollout::Status { at, rollout, json } => {
            let client = setup::client(&at.dir)?;
            let mut views = client.rollouts().await.context("failed to list rollouts")?;
            if let Some(id) = &rollout {
                views.retain(|v| v.rollout == *id);
                if views.is_empty() {
                    bail!("there is no rollout {id}; `tidegate rollout status` lists them");
                }
            }
            if json {
                output::json(&views)?;
            } else {
                show(&views, rollout.is_some())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn fleet(dir: &std::path::Path) -> anyhow::Result<FleetId> {
    Ok(Directory::new(dir).settings()?.fleet)
}

async fn propose_from(ask: RolloutPropose) -> anyhow::Result<()> {
    let client = setup::client(&ask.at.dir)?;
    let key = setup::load_signer(&ask.key.key)?;
    let proposal = draft(&client, fleet(&ask.at.dir)?, ask.shape, key.public()).await?;
    let id = &proposal.rollout;
    let plan = propose(&client, &proposal, &key).await?;
    if ask.json {
        return output::json(&plan);
    }
    describe(&plan)?;
    let frames = Directory::new(&ask.at.dir).settings()?.time_frames();
    let frame = frames.unwrap_or_default().of(plan.priority);
    if let Some(frame) = frame.filter(|_| plan.constraints.deadline.is_none()) {
        let hours = |span: Span| span.as_millis() / 3_600_000;
        output::line(&format!(
            "in time  within {} h of its start, {} h at the latest",
            hours(frame.target),
            hours(frame.latest)
        ))?;
    }
    let forecast = client.forecast(id, &Question::default()).await;
    simulate::report(&forecast.context("failed to forecast")?)?;
    output::line(&format!(
        "next  tidegate rollout approve {id} --key KEY (by operators other than the proposer)"
    ))
}

/// A proposal of that shape.
///
/// # Errors
/// When there is no such release, or the rollout cannot be named after it.
pub async fn draft(
    client: &Client,
    fleet: FleetId,
    ask: RolloutShape,
    proposer: PublicKey,
) -> anyhow::Result<Proposal> {
    let view = release::find(client, &ask.release).await?;
    let now = units::wall_now();
    let shape = ask.preset.waves(now);
    let usual = &shape[0].gate;
    let gate = Gate {
        min_success_ppm: ask.min_success.unwrap_or(usual.min_success_ppm),
        min_sample: ask.min_sample.unwrap_or(usual.min_sample),
        soak: ask.soak.unwrap_or(usual.soak),
        silence_after: usual.silence_after,
    };
    let cohorts = ask.cohorts.into_iter();
    let usual = ask.preset.test();
    let test = SequentialTest {
        cohorts: cohorts.map(|(key, value)| Cohort { key, value }).collect(),
        unacceptable_ppm: ask.unacceptable.unwrap_or(usual.unacceptable_ppm),
        ..usual
    };
    let selectors: Vec<Selector> = match ask.waves.is_empty() {
        true => shape.iter().map(|w| w.select.clone()).collect(),
        false => ask.waves,
    };
    let id = match ask.id {
        Some(id) => id,
        None => format!("{}-{}", view.product, view.version)
            .parse()
            .context("failed to name the rollout; use --id")?,
    };
    Ok(Proposal {
        spec_version: 1,
        fleet,
        rollout: id,
        release: view.digest,
        proposer,
        priority: ask.priority.into(),
        targets: Targets {
            sites: ask.sites,
            exclusions: ask.exclusions,
            filter: ask.filter,
        },
        waves: units::drafts(&selectors, now, &gate),
        test: Some(test),
        constraints: ask.terms.constraints(now),
        lease_ttl: ask.lease,
        not_after: now + ask.valid,
    })
}

/// Signs a proposal, sends it, and gives the plan that the coordinator resolved it to.
///
/// # Errors
/// When the coordinator refuses.
pub async fn propose(
    client: &Client,
    proposal: &Proposal,
    key: &Signer,
) -> anyhow::Result<RolloutPlan> {
    let mut envelope = proposal.to_envelope();
    key.sign(&mut envelope).context("failed to propose")?;
    let detail = client
        .propose(&envelope)
        .await
        .context("failed to propose")?;
    Ok(serde_json::from_slice(&detail.plan.payload)?)
}

async fn approve_from(ask: RolloutSigned) -> anyhow::Result<()> {
    let client = setup::client(&ask.named.at.dir)?;
    let fleet = fleet(&ask.named.at.dir)?;
    let key = setup::load_signer(&ask.key.key)?;
    let (plan, progress) = approve(&client, fleet, &ask.named.rollout, &key).await?;
    describe(&plan)?;
    output::line(&format!("approved: {} of {}", progress.have, progress.need))?;
    if progress.complete() {
        output::line(&format!(
            "next  tidegate rollout start {}",
            ask.named.rollout
        ))?;
    }
    Ok(())
}

/// Fetches a plan, looks whether it may be signed, signs it here, and sends the envelope.
///
/// # Errors
/// When the plan is of another fleet or rollout, was proposed by this key, or is refused.
pub async fn approve(
    client: &Client,
    fleet: FleetId,
    id: &RolloutId,
    key: &Signer,
) -> anyhow::Result<(RolloutPlan, Progress)> {
    let detail = client.rollout(id).await.context("failed to approve")?;
    let mut envelope = detail.plan;
    let plan: RolloutPlan = serde_json::from_slice(&envelope.payload)
        .context("failed to approve: the plan is malformed")?;
    if plan.fleet != fleet
        || plan.rollout != *id
        || envelope.payload_type != RolloutPlan::PAYLOAD_TYPE
    {
        bail!("failed to approve: the coordinator sent a plan of another fleet or rollout");
    }
    plan.check()
        .map_err(|why| anyhow::anyhow!("failed to approve: {why}"))?;
    if plan.proposer == key.public() {
        bail!(
            "failed to approve: this key proposed {id}, and a proposer's approval does not count; another operator must sign"
        );
    }
    key.sign(&mut envelope).context("failed to approve")?;
    let progress = client
        .approve(id, &envelope)
        .await
        .context("failed to approve")?;
    Ok((plan, progress))
}

async fn recall_from(ask: RolloutRecall) -> anyhow::Result<()> {
    let named = ask.signed.named;
    let client = setup::client(&named.at.dir)?;
    let key = setup::load_signer(&ask.signed.key.key)?;
    let progress = recall(
        &client,
        fleet(&named.at.dir)?,
        &named.rollout,
        &key,
        &ask.reason,
    )
    .await?;
    output::line(&format!(
        "recall signed: {} of {} (who asked first does not count)",
        progress.have, progress.need
    ))
}

/// Asks for a recall, or adds a signature to the one that waits.
///
/// # Errors
/// When the coordinator refuses.
pub async fn recall(
    client: &Client,
    fleet: FleetId,
    id: &RolloutId,
    key: &Signer,
    reason: &str,
) -> anyhow::Result<Progress> {
    let mut envelope: Envelope = match client
        .pending_recall(id)
        .await
        .context("failed to recall")?
    {
        Some(waiting) => {
            let waiting_for: Recall = serde_json::from_slice(&waiting.payload)
                .context("failed to recall: what waits is malformed")?;
            if waiting_for.fleet != fleet || waiting_for.rollout != *id {
                bail!(
                    "failed to recall: what waits for signatures is about another fleet or rollout"
                );
            }
            waiting
        }
        None => {
            let detail = client.rollout(id).await.context("failed to recall")?;
            Recall {
                spec_version: 1,
                fleet,
                rollout: id.clone(),
                plan: detail.plan.digest(),
                proposer: key.public(),
                reason: reason.to_owned(),
                created: units::wall_now(),
            }
            .to_envelope()
        }
    };
    key.sign(&mut envelope).context("failed to recall")?;
    client
        .recall(id, &envelope)
        .await
        .context("failed to recall")
}

async fn watch(named: RolloutNamed, json: bool) -> anyhow::Result<ExitCode> {
    let client = setup::client(&named.at.dir)?;
    let mut last: Option<RolloutView> = None;
    loop {
        let view = client
            .rollout(&named.rollout)
            .await
            .context("failed to watch")?
            .view;
        if last.as_ref() != Some(&view) {
            match json {
                true => output::json_line(&view)?,
                false => output::line(&one_line(&view))?,
            }
        }
        if ended(view.state) {
            let good = view.state == RolloutState::Finished;
            return Ok(if good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        last = Some(view);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Whether a rollout goes no further by itself.
pub fn ended(state: RolloutState) -> bool {
    matches!(
        state,
        RolloutState::Finished
            | RolloutState::Held
            | RolloutState::Aborted
            | RolloutState::Recalled
    )
}

/// A state as people read it.
pub fn state_name(state: RolloutState) -> &'static str {
    match state {
        RolloutState::WaitingForApproval => "waiting for approval",
        RolloutState::Ready => "ready",
        RolloutState::Running => "running",
        RolloutState::Paused => "paused",
        RolloutState::Preempted => "set aside",
        RolloutState::Held => "held by its gate",
        RolloutState::Aborted => "halted",
        RolloutState::Recalling => "being recalled",
        RolloutState::Recalled => "recalled",
        RolloutState::Finished => "finished",
    }
}

/// A rollout in one line.
pub fn one_line(view: &RolloutView) -> String {
    let wave = view
        .waves
        .iter()
        .rfind(|w| w.opened_at.is_some())
        .map_or_else(String::new, |w| {
            format!("wave {} ({}) {}, ", w.number + 1, w.name, w.state)
        });
    let c = view.counts;
    format!(
        "{} {}: {}{} applied, {} failed, {} open{}, {} not received of {}{}{}",
        view.rollout,
        state_name(view.state),
        wave,
        c.applied,
        c.failed,
        c.open,
        stages(&view.stages),
        c.not_received,
        view.targets,
        match view.by_hand {
            0 => String::new(),
            n => format!("; {n} by hand, as people say"),
        },
        why(view),
    )
}

/// Why it is where it is, and what it waits for.
fn why(view: &RolloutView) -> String {
    let why = Some(&view.why).filter(|why| !why.is_empty());
    why.into_iter()
        .chain(&view.waits)
        .map(|line| format!("; {line}"))
        .collect()
}

/// How a rollout stands to its dates.
fn promised(view: &RolloutView) -> String {
    let Some(promise) = &view.promise else {
        return String::new();
    };
    let at = |time| Clock::utc().tells(time);
    let (target, latest) = (at(promise.target), at(promise.latest));
    match promise.standing(&view.counts, units::wall_now()) {
        Standing::Through => "through".into(),
        Standing::InTime => format!("due {target}"),
        Standing::PastTarget => format!("past its target; {latest} at the latest"),
        Standing::PastLatest => format!("late since {latest}"),
    }
}

/// What the open ones are at.
fn stages(stages: &StageCounts) -> String {
    let named = [
        (stages.downloading, "downloading"),
        (stages.staged, "staged"),
        (stages.installing, "installing"),
    ];
    let told: Vec<String> = named
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    match told.is_empty() {
        true => String::new(),
        false => format!(" ({})", told.join(", ")),
    }
}

fn show(views: &[RolloutView], waves: bool) -> anyhow::Result<()> {
    let mut table = output::table(&[
        "rollout",
        "release",
        "state",
        "in time",
        "targets",
        "applied",
        "failed",
        "open",
        "not received",
        "why",
    ]);
    for v in views {
        let c = v.counts;
        table.add_row([
            v.rollout.to_string(),
            v.release.clone(),
            state_name(v.state).into(),
            promised(v),
            v.targets.to_string(),
            c.applied.to_string(),
            c.failed.to_string(),
            format!("{}{}", c.open, stages(&v.stages)),
            c.not_received.to_string(),
            why(v).trim_start_matches("; ").to_owned(),
        ]);
    }
    output::line(&table.to_string())?;
    for v in views.iter().filter(|_| waves) {
        let mut table = output::table(&[
            "wave",
            "name",
            "state",
            "targets",
            "applied",
            "failed",
            "open",
            "not received",
        ]);
        for w in &v.waves {
            let c = w.counts;
            table.add_row([
                (w.number + 1).to_string(),
                w.name.clone(),
                w.state.clone(),
                w.targets.to_string(),
                c.applied.to_string(),
                c.failed.to_string(),
                c.open.to_string(),
                c.not_received.to_string(),
            ]);
        }
        output::line(&table.to_string())?;
    }
    Ok(())
}

fn describe(plan: &RolloutPlan) -> anyhow::Result<()> {
    output::line(&format!(
        "rollout  {} of {}@{}, proposed by {}",
        plan.rollout,
        plan.product,
        plan.version,
        plan.proposer.short()
    ))?;
    if !plan.targets.sites.is_empty() {
        let sites: Vec<&str> = plan.targets.sites.iter().map(|s| s.as_str()).collect();
        output::line(&format!("sites    {}", sites.join(", ")))?;
    }
    if let Some(filter) = &plan.targets.filter {
        output::line(&format!("where    {filter}"))?;
    }
    for (what, picks) in [
        ("needs   ", &plan.closure.requires),
        ("via     ", &plan.closure.barriers),
    ] {
        let names: Vec<String> = picks.iter().map(Pick::name).collect();
        if !names.is_empty() {
            output::line(&format!("{what} {}", names.join(", ")))?;
        }
    }
    for (i, wave) in plan.waves.iter().enumerate() {
        let members = match &wave.members {
            Members::Nodes(nodes) => format!("{} named nodes", nodes.len()),
            Members::Site(site) => format!("site {site}"),
            Members::PositionBelow(bound) => format!(
                "{:.0} % of all by position",
                *bound as f64 / u64::MAX as f64 * 100.0
            ),
            Members::Rest => "whoever is left".into(),
        };
        let gate = &wave.gate;
        output::line(&format!(
            "wave {:<3} {}: {members}; then {} % of at least {} must succeed for {} s",
            i + 1,
            wave.name,
            f64::from(gate.min_success_ppm) / 10_000.0,
            gate.min_sample,
            gate.soak.as_millis() / 1000
        ))?;
    }
    if let Some(test) = &plan.test {
        let percent = |ppm: u32| f64::from(ppm) / 10_000.0;
        output::line(&format!(
            "test     stops at {} % failures where {} % are expected; at most {} nodes at a time until it has spoken",
            percent(test.unacceptable_ppm),
            percent(test.expected_ppm),
            test.in_flight_max
        ))?;
        let cohorts: Vec<String> = test.cohorts.iter().map(ToString::to_string).collect();
        if !cohorts.is_empty() {
            output::line(&format!("cohorts  {}", cohorts.join(", ")))?;
        }
    }
    for line in terms::described(&plan.constraints) {
        output::line(&format!("when     {line}"))?;
    }
    Ok(())
}
