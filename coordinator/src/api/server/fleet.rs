//! Endpoints about machines: tokens, enrolment, topology, nodes, sites.

use std::collections::BTreeMap;

use axum::Extension;
use axum::extract::{ConnectInfo, Path, Query, State};
use coordinator_core::Conductor;
use coordinator_core::contract::{Answer as Told, ByHand, Command};
use protocol::enroll::{
    EnrollReply, EnrollRequest, RejoinRequest, RenewReply, RenewRequest, RootsReply,
};
use protocol::envelope::Envelope;
use protocol::filter::Filter;
use protocol::limits::{MASS_REVOCATION_MAX, TEXT_MAX_BYTES};
use protocol::topology::Topology;
use protocol::trust::Statement as _;
use protocol::{NodeId, RolloutId, SiteId};
use serde::Deserialize;

use super::access::{Asker, elsewhere};
use super::failure::{Answer, Failure, Json};
use super::pace::Remote;
use super::{House, Shared};
use crate::api::messages::{
    InstallNote, NewToken, NodeView, Reason, RevocationDraft, SiteBytes, SiteView, TokenMade,
    UnmanagedView, WaitingView,
};
use crate::serve::{self, Insight};

pub(super) async fn enroll(
    State(house): Shared,
    ConnectInfo(from): ConnectInfo<Remote>,
    Json(request): Json<EnrollRequest>,
) -> Answer<EnrollReply> {
    Ok(Json(serve::enroll(&house, from.ip(), request).await?))
}

pub(super) async fn waiting(
    State(house): Shared,
    Extension(asker): Asker,
) -> Answer<Vec<WaitingView>> {
    let mut waiting = serve::waiting(&house).await?;
    waiting.retain(|view| asker.reaches(view.site.as_ref()));
    Ok(Json(waiting))
}

pub(super) async fn admit(
    State(house): Shared,
    Extension(asker): Asker,
    Path(id): Path<String>,
) -> Answer<()> {
    let node: NodeId = id
        .parse()
        .map_err(|e: protocol::ids::ParseIdError| Failure::bad_request(e.to_string()))?;
    let waiting = serve::waiting(&house).await?;
    let mut its = waiting.iter().filter(|view| view.node == node);
    if its.any(|view| !asker.reaches(view.site.as_ref())) {
        return Err(elsewhere(&asker));
    }
    Ok(Json(serve::admit(&house, &asker.name, node).await?))
}

pub(super) async fn renew(
    State(house): Shared,
    Json(request): Json<RenewRequest>,
) -> Answer<RenewReply> {
    Ok(Json(serve::renew(&house, request).await?))
}

pub(super) async fn roots_for(
    State(house): Shared,
    Json(request): Json<RenewRequest>,
) -> Answer<RootsReply> {
    Ok(Json(serve::roots_for(&house, request).await?))
}

pub(super) async fn rejoin(
    State(house): Shared,
    Json(request): Json<RejoinRequest>,
) -> Answer<EnrollReply> {
    Ok(Json(serve::rejoin(&house, request).await?))
}

pub(super) async fn new_token(
    State(house): Shared,
    Extension(asker): Asker,
    Json(ask): Json<NewToken>,
) -> Answer<TokenMade> {
    if !asker.reaches(ask.site.as_ref()) {
        return Err(elsewhere(&asker));
    }
    Ok(Json(serve::new_token(&house, &asker.name, ask).await?))
}

pub(super) async fn topology(State(house): Shared) -> Answer<Option<Envelope>> {
    let newest = |conductor: &Conductor| {
        let digest = conductor.topology()?.to_envelope().digest();
        conductor.document(&digest).cloned()
    };
    Ok(Json(house.desk.view(move |i| newest(i.conductor)).await?))
}

pub(super) async fn set_topology(
    State(house): Shared,
    Json(envelope): Json<Envelope>,
) -> Answer<()> {
    let topology = house.roots.now().trust.verify::<Topology>(&envelope)?;
    command(&house, Command::SetTopology(topology)).await
}

#[derive(Deserialize)]
pub(super) struct Meant {
    #[serde(rename = "where")]
    filter: Option<String>,
}

pub(super) async fn nodes(
    State(house): Shared,
    Extension(asker): Asker,
    Query(meant): Query<Meant>,
) -> Answer<Vec<NodeView>> {
    let filter = meant.filter.map(|text| text.parse::<Filter>()).transpose();
    let filter = filter.map_err(|e| Failure::bad_request(format!("the filter: {e}")))?;
    let nodes = move |i: &Insight<'_>| i.conductor.nodes_where(filter.as_ref());
    let mut nodes = house.desk.view(nodes).await?;
    nodes.retain(|node| asker.reaches(node.site.as_ref()));
    Ok(Json(nodes))
}

/// Who was refused and is not enrolled; a node of the fleet that was refused is among the nodes.
pub(super) async fn unmanaged(
    State(house): Shared,
    Extension(asker): Asker,
) -> Answer<Vec<UnmanagedView>> {
    let seen = house.sightings.all();
    let look = move |i: &Insight<'_>| {
        let known = |node: &NodeId| i.certificates.enrolments(node) > 0;
        let site_of = |address| {
            let topology = i.conductor.topology();
            topology
                .and_then(|t| t.site_of(address))
                .map(|site| site.id.clone())
        };
        let strangers = seen
            .into_iter()
            .filter(|s| !s.node.as_ref().is_some_and(known));
        let views = strangers.map(|s| UnmanagedView {
            node: s.node,
            address: s.address,
            site: match s.told_by {
                Some(node) => i.conductor.site_of(&node),
                None => site_of(s.address),
            },
            seen_by: s.seen_by,
            first_seen: s.first,
            last_seen: s.last,
            times: s.times,
            reason: s.reason,
        });
        views.collect::<Vec<_>>()
    };
    let mut views = house.desk.view(look).await?;
    views.retain(|view| asker.reaches(view.site.as_ref()));
    Ok(Json(views))
}

pub(super) async fn revoke(
    State(house): Shared,
    Path(id): Path<String>,
    Json(why): Json<Reason>,
) -> Answer<()> {
    let node: NodeId = id
        .parse()
        .map_err(|e: protocol::ids::ParseIdError| Failure::bad_request(e.to_string()))?;
    serve::revoke(&house, node, short(why)?).await?;
    Ok(Json(()))
}

pub(super) async fn draft_revocation(
    State(house): Shared,
    Json(nodes): Json<Vec<NodeId>>,
) -> Answer<RevocationDraft> {
    if nodes.len() > MASS_REVOCATION_MAX {
        let line = format!("a statement is about at most {MASS_REVOCATION_MAX} nodes");
        return Err(Failure::bad_request(line));
    }
    Ok(Json(serve::draft_revocation(&house, nodes).await?))
}

pub(super) async fn revoke_many(
    State(house): Shared,
    Json(envelope): Json<Envelope>,
) -> Answer<()> {
    serve::revoke_many(&house, envelope).await?;
    Ok(Json(()))
}

pub(super) async fn record_install(
    State(house): Shared,
    Extension(asker): Asker,
    Path(id): Path<String>,
    Json(note): Json<InstallNote>,
) -> Answer<()> {
    let node: NodeId = id
        .parse()
        .map_err(|e: protocol::ids::ParseIdError| Failure::bad_request(e.to_string()))?;
    let text = |reason| short(Reason { reason });
    let note = ByHand {
        node,
        release: note.release,
        who: text(note.who)?,
        why: text(note.why)?,
        noted_by: asker.name,
        at: house.clock.now().wall,
    };
    command(&house, Command::RecordInstall(note)).await
}

pub(super) async fn sites(State(house): Shared, Extension(asker): Asker) -> Answer<Vec<SiteView>> {
    let mut sites = house.desk.view(|i| site_views(i.conductor)).await?;
    sites.retain(|view| asker.reaches(view.site.as_ref()));
    Ok(Json(sites))
}

/// The conductor's sites, with what the nodes in them report of each rollout; last, if there are any,
/// the nodes without a site.
fn site_views(conductor: &Conductor) -> Vec<SiteView> {
    let mut bytes: BTreeMap<Option<SiteId>, BTreeMap<RolloutId, SiteBytes>> = BTreeMap::new();
    let mut homeless = 0;
    for node in conductor.nodes() {
        homeless += u32::from(node.site.is_none() && !node.revoked);
        let of_site = bytes.entry(node.site).or_default();
        for status in node.statuses {
            let nothing = SiteBytes {
                rollout: status.rollout.clone(),
                wan_bytes: 0,
                lan_bytes: 0,
            };
            let sum = of_site.entry(status.rollout).or_insert(nothing);
            sum.wan_bytes += status.wan_bytes;
            sum.lan_bytes += status.lan_bytes;
        }
    }
    let mut rollouts = |site: Option<SiteId>| {
        bytes
            .remove(&site)
            .unwrap_or_default()
            .into_values()
            .collect()
    };
    let mut views: Vec<SiteView> = Vec::new();
    for site in conductor.sites() {
        views.push(SiteView {
            rollouts: rollouts(Some(site.site.clone())),
            site: Some(site.site),
            wan_down_bytes_per_s: site.wan_down_bytes_per_s,
            nodes: site.nodes,
        });
    }
    if homeless > 0 {
        views.push(SiteView {
            rollouts: rollouts(None),
            site: None,
            wan_down_bytes_per_s: None,
            nodes: homeless,
        });
    }
    views
}

/// A command whose only good answer is that it is done.
pub(super) async fn command(house: &House, command: Command) -> Answer<()> {
    match house.desk.command(command).await? {
        Told::Refused(error) => Err(error.into()),
        Told::Done | Told::Plan(_) | Told::Approvals(..) => Ok(Json(())),
    }
}

/// A person's words, within limits.
pub(super) fn short(why: Reason) -> Result<String, Failure> {
    if why.reason.len() > TEXT_MAX_BYTES {
        return Err(Failure::bad_request(format!(
            "a reason has at most {TEXT_MAX_BYTES} bytes"
        )));
    }
    Ok(why.reason)
}
