//! Endpoints about rollouts. What operators sign is signed where they sit; here it is verified.

use axum::Extension;
use axum::extract::{Path, State};
use coordinator_core::Conductor;
use coordinator_core::contract::{Answer as Told, Command, CommandError};
use protocol::envelope::Envelope;
use protocol::plan::{Cohort, Proposal};
use protocol::trust::Statement as _;
use protocol::{Hash, RolloutId};

use super::access::{Asker, elsewhere};
use super::failure::{Answer, Failure, Json};
use super::{Shared, fleet};
use crate::api::messages::{
    Forecast, HaltInForce, ProblemReport, Progress, Question, Reason, Review, RolloutDetail,
    RolloutView, WhatIf,
};
use crate::keys::random_32;
use crate::serve;

fn id_of(id: &str) -> Result<RolloutId, Failure> {
    id.parse()
        .map_err(|e: protocol::ids::ParseIdError| Failure::bad_request(e.to_string()))
}

pub(super) async fn list(
    State(house): Shared,
    Extension(asker): Asker,
) -> Answer<Vec<RolloutView>> {
    let look = move |i: &serve::Insight<'_>| {
        let mut all = i.conductor.rollouts();
        all.retain(|view| {
            let plan = i.conductor.plan(&view.rollout);
            plan.is_some_and(|plan| asker.reaches_all(&plan.targets.sites))
        });
        all
    };
    Ok(Json(house.desk.view(look).await?))
}

pub(super) async fn show(State(house): Shared, Path(id): Path<String>) -> Answer<RolloutDetail> {
    detail(&house, id_of(&id)?).await
}

async fn detail(house: &serve::House, rollout: RolloutId) -> Answer<RolloutDetail> {
    let asked = rollout.clone();
    let found = house
        .desk
        .view(move |i| look_up(i.conductor, &asked))
        .await?;
    Ok(Json(found.ok_or(CommandError::NoRollout(rollout))?))
}

fn look_up(conductor: &Conductor, rollout: &RolloutId) -> Option<RolloutDetail> {
    let view = conductor.rollout(rollout)?;
    let unsigned = conductor.plan(rollout)?.to_envelope();
    let plan = conductor
        .document(&unsigned.digest())
        .cloned()
        .unwrap_or(unsigned);
    Some(RolloutDetail { view, plan })
}

pub(super) async fn propose(
    State(house): Shared,
    Extension(asker): Asker,
    Json(envelope): Json<Envelope>,
) -> Answer<RolloutDetail> {
    let proposal = serve::signed_by::<Proposal>(&house.roots.now().trust, &envelope, |proposal| {
        proposal.proposer
    })?;
    if !asker.reaches_all(&proposal.targets.sites) {
        return Err(elsewhere(&asker));
    }
    let rollout = proposal.rollout.clone();
    let salt = Hash(random_32());
    match house
        .desk
        .command(Command::Propose {
            proposal: Box::new(proposal),
            envelope,
            salt,
        })
        .await?
    {
        Told::Refused(error) => Err(error.into()),
        Told::Done | Told::Plan(_) | Told::Approvals(..) => detail(&house, rollout).await,
    }
}

/// Changes nothing; the salt only has to differ from the one that will be drawn.
pub(super) async fn simulate(State(house): Shared, Json(ask): Json<WhatIf>) -> Answer<Forecast> {
    ask.proposal.check().map_err(Failure::bad_request)?;
    let salt = Hash(random_32());
    let answer = house
        .desk
        .view(move |i| i.conductor.simulate(&ask.proposal, salt, &ask.question))
        .await?;
    Ok(Json(answer?))
}

pub(super) async fn forecast(
    State(house): Shared,
    Path(id): Path<String>,
    Json(question): Json<Question>,
) -> Answer<Forecast> {
    let id = id_of(&id)?;
    let answer = house
        .desk
        .view(move |i| i.conductor.forecast(&id, &question))
        .await?;
    Ok(Json(answer?))
}

pub(super) async fn review(State(house): Shared, Path(id): Path<String>) -> Answer<Review> {
    let id = id_of(&id)?;
    let asked = id.clone();
    let review = house.desk.view(move |i| i.conductor.review(&asked)).await?;
    Ok(Json(review.ok_or(CommandError::NoRollout(id))?))
}

pub(super) async fn approve(
    State(house): Shared,
    Path(id): Path<String>,
    Json(envelope): Json<Envelope>,
) -> Answer<Progress> {
    Ok(Json(
        serve::approve(&house.desk, id_of(&id)?, envelope).await?,
    ))
}

pub(super) async fn start(State(house): Shared, Path(id): Path<String>) -> Answer<()> {
    fleet::command(&house, Command::Start(id_of(&id)?)).await
}

pub(super) async fn pause(
    State(house): Shared,
    Path(id): Path<String>,
    Json(why): Json<Reason>,
) -> Answer<()> {
    fleet::command(&house, Command::Pause(id_of(&id)?, fleet::short(why)?)).await
}

pub(super) async fn resume(State(house): Shared, Path(id): Path<String>) -> Answer<()> {
    fleet::command(&house, Command::Resume(id_of(&id)?)).await
}

pub(super) async fn halt(
    State(house): Shared,
    Path(id): Path<String>,
    Json(why): Json<Reason>,
) -> Answer<()> {
    fleet::command(&house, Command::Halt(id_of(&id)?, fleet::short(why)?)).await
}

pub(super) async fn problem(
    State(house): Shared,
    Path(id): Path<String>,
    Json(problem): Json<ProblemReport>,
) -> Answer<()> {
    let (rollout, node) = (id_of(&id)?, problem.node);
    let reason = problem.what;
    let what = fleet::short(Reason { reason })?;
    let command = Command::ReportProblem {
        rollout,
        node,
        what,
    };
    fleet::command(&house, command).await
}

pub(super) async fn pending_recall(
    State(house): Shared,
    Path(id): Path<String>,
) -> Answer<Option<Envelope>> {
    Ok(Json(serve::pending_recall(&house.store, &id_of(&id)?)?))
}

pub(super) async fn recall(
    State(house): Shared,
    Path(id): Path<String>,
    Json(envelope): Json<Envelope>,
) -> Answer<Progress> {
    Ok(Json(
        serve::recall(&house.desk, id_of(&id)?, envelope).await?,
    ))
}

pub(super) async fn halt_all(State(house): Shared, Json(why): Json<Reason>) -> Answer<()> {
    fleet::command(&house, Command::HaltAll(fleet::short(why)?)).await
}

pub(super) async fn everything_halted(State(house): Shared) -> Answer<HaltInForce> {
    Ok(Json(serve::halt_in_force(&house.desk, None).await?))
}

pub(super) async fn halt_in_force(
    State(house): Shared,
    Path(id): Path<String>,
) -> Answer<HaltInForce> {
    let id = Some(id_of(&id)?);
    Ok(Json(serve::halt_in_force(&house.desk, id).await?))
}

pub(super) async fn lift(State(house): Shared, Json(envelope): Json<Envelope>) -> Answer<Progress> {
    Ok(Json(serve::lift(&house.desk, envelope).await?))
}

pub(super) async fn release_cohort(
    State(house): Shared,
    Path(id): Path<String>,
    Json(cohort): Json<Cohort>,
) -> Answer<()> {
    fleet::command(&house, Command::ReleaseCohort(id_of(&id)?, cohort)).await
}
