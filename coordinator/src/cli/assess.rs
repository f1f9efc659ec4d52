//! `release assess`: asks the fleet who needs a release, and shows what it answered.

use std::time::Duration;

use anyhow::Context;
use protocol::inventory::Need;

use super::args::ReleaseAssess;
use super::release::find;
use super::{output, setup, units};
use crate::api::Client;
use crate::api::messages::{AssessmentView, NeedCounts, ReleaseView};

/// The answers are looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// `tidegate release assess`
///
/// # Errors
/// When there is no such release, or the coordinator does not answer or refuses.
pub async fn assess(ask: ReleaseAssess) -> anyhow::Result<()> {
    let client = setup::client(&ask.at.dir)?;
    let release = find(&client, &ask.release).await?;
    if ask.end {
        let ended = client.end_assessment(release.digest).await;
        ended.context("failed to end the assessment")?;
        return output::line(&format!("nodes are asked about {} no more", ask.release));
    }
    let end = ask.wait.map(|wait| units::wall_now() + wait);
    let mut view = asked(&client, &release).await?;
    while end.is_some_and(|end| units::wall_now() < end) && view.counts.no_answer > 0 {
        tokio::time::sleep(LOOK_AGAIN).await;
        view = asked(&client, &release).await?;
    }
    if ask.json {
        return output::json(&view);
    }
    show(&ask.release, &view)
}

/// The answers so far; begins to ask if nobody did.
async fn asked(client: &Client, release: &ReleaseView) -> anyhow::Result<AssessmentView> {
    let held = client.assessment(release.digest).await;
    if let Some(view) = held.context("failed to fetch the assessment")? {
        return Ok(view);
    }
    let begun = client.assess(release.digest).await;
    begun.context("failed to assess the release")?;
    let view = client.assessment(release.digest).await;
    view.context("failed to fetch the assessment")?
        .context("failed to fetch the assessment: it ended meanwhile; ask again")
}

fn show(name: &str, view: &AssessmentView) -> anyhow::Result<()> {
    let mut table = output::table(&[
        "site",
        "needs",
        "already installed",
        "not applicable",
        "no answer",
    ]);
    let mut row = |site: &str, counts: &NeedCounts| {
        table.add_row([
            site.to_owned(),
            counts.needs.to_string(),
            counts.already_installed.to_string(),
            counts.not_applicable.to_string(),
            counts.no_answer.to_string(),
        ]);
    };
    for (site, counts) in &view.sites {
        row(site.as_ref().map_or("-", |site| site.as_str()), counts);
    }
    row("all", &view.counts);
    output::line(&table.to_string())?;
    let attribute = Need::attribute(&view.release);
    output::line(&format!(
        "who needs {name}: tidegate nodes --where '{attribute}={}'",
        Need::Needs.as_str()
    ))
}
