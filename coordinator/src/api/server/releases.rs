//! Endpoints about releases and their blobs.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use coordinator_core::Conductor;
use coordinator_core::contract::{Command, NeedCounts};
use protocol::envelope::Envelope;
use protocol::manifest::ReleaseManifest;
use protocol::{BlobRef, Hash};

use super::access::Asker;
use super::failure::{Answer, Failure, Json};
use super::{Shared, fleet};
use crate::api::messages::{AssessmentView, BlobPresence, ReleaseView};
use crate::serve;

fn blob_of(root: &str, length: &str) -> Result<BlobRef, Failure> {
    let root = digest_of(root)?;
    let length = length
        .parse()
        .map_err(|_| Failure::bad_request(format!("{length:?} is not a length in bytes")))?;
    Ok(BlobRef { root, length })
}

pub(super) async fn blob(
    State(house): Shared,
    Path((root, length)): Path<(String, String)>,
) -> Answer<BlobPresence> {
    Ok(Json(serve::presence(&house, blob_of(&root, &length)?)?))
}

pub(super) async fn upload(
    State(house): Shared,
    Path((root, length)): Path<(String, String)>,
    body: Body,
) -> Answer<()> {
    serve::receive(&house, blob_of(&root, &length)?, body).await?;
    Ok(Json(()))
}

pub(super) async fn publish(
    State(house): Shared,
    Json(envelope): Json<Envelope>,
) -> Answer<ReleaseView> {
    let manifest = house
        .roots
        .now()
        .trust
        .verify::<ReleaseManifest>(&envelope)?;
    serve::settled(&house, &manifest).await?;
    let digest = manifest.digest();
    fleet::command(&house, Command::Publish(manifest)).await?;
    view(&house, digest).await
}

pub(super) async fn list(State(house): Shared) -> Answer<Vec<ReleaseView>> {
    Ok(Json(house.desk.view(|i| all(i.conductor)).await?))
}

pub(super) async fn show(State(house): Shared, Path(digest): Path<String>) -> Answer<ReleaseView> {
    view(&house, digest_of(&digest)?).await
}

fn digest_of(text: &str) -> Result<Hash, Failure> {
    text.parse()
        .map_err(|e: protocol::ids::ParseIdError| Failure::bad_request(e.to_string()))
}

pub(super) async fn assess(State(house): Shared, Path(digest): Path<String>) -> Answer<()> {
    fleet::command(&house, Command::Assess(digest_of(&digest)?)).await
}

pub(super) async fn end_assessment(State(house): Shared, Path(digest): Path<String>) -> Answer<()> {
    fleet::command(&house, Command::EndAssessment(digest_of(&digest)?)).await
}

pub(super) async fn assessment(
    State(house): Shared,
    Extension(asker): Asker,
    Path(digest): Path<String>,
) -> Answer<Option<AssessmentView>> {
    let digest = digest_of(&digest)?;
    let found = house.desk.view(move |i| i.conductor.assessment(&digest));
    let mut found = found.await?;
    if let Some(view) = &mut found {
        view.sites.retain(|(site, _)| asker.reaches(site.as_ref()));
        view.counts = NeedCounts::sum(view.sites.iter().map(|(_, counts)| counts));
    }
    Ok(Json(found))
}

async fn view(house: &serve::House, digest: Hash) -> Answer<ReleaseView> {
    let found = house
        .desk
        .view(move |i| {
            all(i.conductor)
                .into_iter()
                .find(|release| release.digest == digest)
        })
        .await?;
    let nowhere = || {
        Failure::new(
            StatusCode::NOT_FOUND,
            format!("release {digest} was not published"),
        )
    };
    found.map(Json).ok_or_else(nowhere)
}

fn all(conductor: &Conductor) -> Vec<ReleaseView> {
    let releases = conductor.releases().into_iter();
    releases
        .filter_map(|release| {
            let manifest = release.manifest;
            let carriers = manifest.artifacts.iter().map(|a| a.travels());
            Some(ReleaseView {
                digest: release.digest,
                carrier_bytes: carriers.map(|blob| blob.length).sum(),
                envelope: conductor.document(&release.digest)?.clone(),
                product: manifest.product,
                version: manifest.version,
                release_counter: manifest.release_counter,
                created: manifest.created,
            })
        })
        .collect()
}
