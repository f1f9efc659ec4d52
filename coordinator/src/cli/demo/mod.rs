//! `tidegate demo`: a whole fleet on this machine.
//!
//! A coordinator, its origin and the nodes run as processes of this executable, on loopback
//! addresses where 127.S.x.y stands for site S, in a temporary directory. Three operators exist: one
//! proposes, two approve. A good release goes through its waves; then a release whose health check
//! fails is halted in its first wave and rolled back there.
//!
//! `payload` makes what is distributed, `fleet` raises the processes, `rollout` takes a release
//! from build to end, `live` shows it meanwhile, `summary` says what came of it.

mod fleet;
mod live;
mod payload;
mod rollout;
mod summary;

use std::process::ExitCode;

use anyhow::{Context, bail};

use super::args::Demo;
use super::output;
use fleet::Fleet;
use live::Live;
use payload::Payload;
use summary::Summary;

/// `tidegate demo`
///
/// # Errors
/// One line that says which part of the story broke; the logs are kept then.
pub async fn run(options: Demo) -> anyhow::Result<ExitCode> {
    if let Some(path) = &options.payload
        && !path.exists()
    {
        bail!(
            "failed to find the payload: {} does not exist",
            path.display()
        );
    }
    let dir = tempfile::Builder::new()
        .prefix("tidegate-demo-")
        .tempdir()
        .context("failed to make a temporary directory")?;
    let live = Live::new(&options);
    let mut fleet = None;
    let told = tokio::select! {
        told = tell(&options, dir.path(), &live, &mut fleet) => Some(told),
        _ = tokio::signal::ctrl_c() => None,
    };
    live.finish();
    let code = match &told {
        Some(Ok(summary)) => {
            output::line(&if options.json {
                serde_json::to_string(summary)?
            } else {
                summary.table()
            })?;
            if !options.once && live.terminal() {
                live.say("the fleet stays up; Ctrl-C ends it");
                live.say(&format!(
                    "try    tidegate nodes --dir {}",
                    dir.path().join("coordinator").display()
                ));
                tokio::signal::ctrl_c().await?;
            }
            if summary.good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Some(Err(_)) | None => ExitCode::FAILURE,
    };
    if let Some(fleet) = fleet.take() {
        fleet.end().await;
    }
    match told {
        Some(Err(error)) => {
            let kept = dir.keep();
            Err(error.context(format!(
                "the demo broke; its logs are kept in {}",
                kept.join("logs").display()
            )))
        }
        _ => Ok(code),
    }
}

async fn tell(
    options: &Demo,
    dir: &std::path::Path,
    live: &Live,
    slot: &mut Option<Fleet>,
) -> anyhow::Result<Summary> {
    live.say("collecting the payload");
    let payload = Payload::collect(options.payload.as_deref(), dir)?;
    live.say(&format!(
        "raising a coordinator and {} nodes in {} sites",
        options.nodes, options.sites
    ));
    let fleet = slot.insert(Fleet::raise(dir, options).await?);
    fleet.wait_until_present(live).await?;

    let good = rollout::carry_out(fleet, live, &payload.good(), "1.0.0")
        .await
        .context("failed to roll out the good release")?;
    live.say("now a release whose health check fails");
    let bad = rollout::carry_out(fleet, live, &payload.bad(dir)?, "1.0.1-broken")
        .await
        .context("failed to roll out the bad release")?;
    Ok(Summary::of(&good, &bad))
}
