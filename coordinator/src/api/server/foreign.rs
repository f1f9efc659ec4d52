//! Endpoints about machines that are no nodes and report.

use axum::Extension;
use axum::extract::{ConnectInfo, State};
use protocol::foreign::{ForeignReply, ForeignReport};

use super::Shared;
use super::access::Asker;
use super::failure::{Answer, Json};
use super::pace::Remote;
use crate::api::messages::ForeignView;
use crate::serve;

pub(super) async fn report(
    State(house): Shared,
    ConnectInfo(from): ConnectInfo<Remote>,
    Json(report): Json<ForeignReport>,
) -> Answer<ForeignReply> {
    Ok(Json(
        serve::foreign_report(&house, from.ip(), report).await?,
    ))
}

pub(super) async fn list(
    State(house): Shared,
    Extension(asker): Asker,
) -> Answer<Vec<ForeignView>> {
    let mut machines = serve::foreign_machines(&house).await?;
    machines.retain(|view| asker.reaches(view.site.as_ref()));
    Ok(Json(machines))
}
