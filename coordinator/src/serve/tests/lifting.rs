use coordinator_core::contract::RolloutState;
use protocol::RolloutId;
use protocol::lift::Lift;
use protocol::limits::LIFTS_WAITING_MAX;

use super::rolling::{approve, published};
use super::*;
use crate::api::messages::Progress;
use crate::serve::store::lift_subject;

fn lift(town: &Town, rollout: Option<RolloutId>, halted: Time, reason: &str) -> Lift {
    Lift {
        spec_version: 1,
        fleet: town.fleet,
        rollout,
        halted,
        reason: reason.into(),
        created: now(),
    }
}

#[tokio::test]
async fn a_lift_collects_its_threshold_and_names_the_halt_in_force() {
    let mut town = Town::new().await;
    let release = published(&town, "1.0", 1).await;
    let rollout: RolloutId = "r1".parse().unwrap();
    let proposal = town.signed(&town.proposal("r1", release, "alice"), &["alice"]);
    town.client.propose(&proposal).await.unwrap();
    approve(&town, &rollout, &["bob", "carol"]).await.unwrap();
    town.client.start(&rollout).await.unwrap();

    let (status, line) = refusal(town.client.halt_in_force(None).await);
    assert_eq!(
        (status, line.contains("not everything is halted")),
        (409, true),
        "{line}"
    );
    town.client.halt_all("an intruder").await.unwrap();
    let (status, _) = refusal(town.client.halt_all(&"x".repeat(5000)).await);
    assert_eq!(status, 400);
    let halt = town.client.halt_in_force(None).await.unwrap();
    assert_eq!(halt.waiting, None);

    let old = lift(&town, None, halt.halted - Span(1), "too early");
    let (status, _) = refusal(town.client.lift(&town.signed(&old, &["alice"])).await);
    assert_eq!(status, 409);
    let one = lift(&town, None, halt.halted, "all is well");
    let (status, _) = refusal(town.client.lift(&town.signed(&one, &["releases"])).await);
    assert_eq!(status, 403, "no operator's key");
    // of what waits the oldest falls out
    for n in 0..=LIFTS_WAITING_MAX {
        let other = lift(&town, None, halt.halted, &format!("reason {n}"));
        let progress = town.client.lift(&town.signed(&other, &["carol"])).await;
        assert_eq!(progress.unwrap(), Progress { have: 1, need: 2 });
    }
    let house = &town.running.as_ref().unwrap().house;
    let waiting = house.store.waiting(&lift_subject(None)).unwrap();
    assert_eq!(waiting.len(), LIFTS_WAITING_MAX);
    town.client
        .lift(&town.signed(&one, &["alice"]))
        .await
        .unwrap();
    town.restart().await;
    let state = town.client.rollout(&rollout).await.unwrap().view.state;
    assert_eq!(state, RolloutState::Preempted);
    let waiting = town.client.halt_in_force(None).await.unwrap().waiting;
    let mut waiting = waiting.expect("it waits, also after a restart");
    waiting.sign(&town.key("bob"));
    let progress = town.client.lift(&waiting).await.unwrap();
    assert_eq!(progress, Progress { have: 2, need: 2 });
    let state = town.client.rollout(&rollout).await.unwrap().view.state;
    assert_eq!(state, RolloutState::Running);
    town.close().await;
}
