//! What-if over the API: nobody signs, nothing is recorded.

use coordinator_core::forecast::Question;

use super::rolling::published;
use super::*;
use crate::api::messages::WhatIf;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_is_simulated_unsigned_and_without_a_trace() {
    let mut town = Town::new().await;
    let release = published(&town, "1.0", 1).await;
    let ask = WhatIf {
        proposal: town.proposal("r1", release, "alice"),
        question: Question::default(),
    };
    let before = town.client.audit_head().await.unwrap();
    let forecast = town.client.simulate(&ask).await.unwrap();
    assert_eq!((forecast.targets, forecast.waves.len()), (1, 1));
    assert_eq!(forecast.release, "app@1.0");
    assert_eq!(town.client.audit_head().await.unwrap(), before);
    assert!(town.client.rollouts().await.unwrap().is_empty());

    let mut wrong = ask.clone();
    wrong.proposal.release = Hash::of(b"nothing");
    let (status, line) = refusal(town.client.simulate(&wrong).await);
    assert_eq!(
        (status, line.contains("was not published")),
        (404, true),
        "{line}"
    );
    wrong = ask.clone();
    wrong.proposal.waves.clear();
    let (status, line) = refusal(town.client.simulate(&wrong).await);
    assert_eq!((status, line.contains("waves")), (400, true), "{line}");

    let id = ask.proposal.rollout.clone();
    let (status, _) = refusal(town.client.forecast(&id, &ask.question).await);
    assert_eq!(status, 404);
    let envelope = town.signed(&ask.proposal, &["alice"]);
    town.client.propose(&envelope).await.unwrap();
    let proposed = town.client.forecast(&id, &ask.question).await.unwrap();
    assert_eq!(proposed.waves[0].targets, forecast.waves[0].targets);
    town.close().await;
}
