//! The API's door: whose token it is, what it lets do, and where. And the endpoints about tokens.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::failure::{Answer, Failure, Json};
use super::{House, Shared};
use crate::api::access::{About, Grant, needed};
use crate::api::messages::{AccessMade, AccessView, NewAccess};
use crate::serve::{self, AccessError};

/// The grant of whoever asks, as the door left it.
pub(super) type Asker = Extension<Grant>;

/// Lets a request pass whose token may do it there; handlers find the [`Grant`] in its extensions.
pub(super) async fn door(
    State(house): Shared,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let header = request.headers().get(header::AUTHORIZATION);
    let shown = header
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .unwrap_or_default()
        .to_vec();
    let grant = grant(&house, &shown).await?;
    let (power, about) = needed(request.method(), request.uri().path());
    if !grant.role.may(power) {
        let line = format!(
            "{}'s token is for the role {} and may not {power}; ask an admin for another (`tidegate access`)",
            grant.name, grant.role
        );
        return Err(Failure::new(StatusCode::FORBIDDEN, line));
    }
    if !grant.sites.is_empty() && !reaches(&house, &grant, about).await? {
        return Err(elsewhere(&grant));
    }
    if request.method() != Method::GET {
        tracing::debug!(
            event = "api",
            "{}: {} {}",
            grant.name,
            request.method(),
            request.uri().path()
        );
    }
    request.extensions_mut().insert(grant);
    Ok(next.run(request).await)
}

async fn grant(house: &Arc<House>, shown: &[u8]) -> Result<Grant, Failure> {
    // Compared as hashes, whose own comparison takes the same time whatever differs.
    if blake3::hash(shown) == blake3::hash(house.api_token.as_bytes()) {
        return Ok(Grant::of_directory());
    }
    let (store, now) = (house.store.clone(), house.clock.now().wall);
    let text = String::from_utf8_lossy(shown).into_owned();
    let found = tokio::task::spawn_blocking(move || store.grant(&text, now)).await;
    let found = found.map_err(|_| serve::DeskError::Stopped)??;
    found.ok_or_else(|| {
        let line = "the API token is missing, wrong, revoked or expired; it stands in the file `api-token` of the directory";
        Failure::new(StatusCode::UNAUTHORIZED, line)
    })
}

/// Whether a grant for some sites reaches what the request is about.
async fn reaches(house: &House, grant: &Grant, about: About) -> Result<bool, Failure> {
    let grant = grant.clone();
    match about {
        About::Nothing | About::Its => Ok(true),
        About::Fleet => Ok(false),
        About::Node(node) => {
            let look = move |i: &serve::Insight<'_>| {
                let mut nodes = i.conductor.nodes().into_iter();
                nodes.any(|view| view.node == node && grant.reaches(view.site.as_ref()))
            };
            Ok(house.desk.view(look).await?)
        }
        About::Rollout(id) => {
            let look = move |i: &serve::Insight<'_>| {
                let plan = i.conductor.plan(&id);
                plan.is_some_and(|plan| grant.reaches_all(&plan.targets.sites))
            };
            Ok(house.desk.view(look).await?)
        }
    }
}

/// The refusal of whoever asks beyond his sites.
pub(super) fn elsewhere(grant: &Grant) -> Failure {
    let sites: Vec<&str> = grant.sites.iter().map(|site| site.as_str()).collect();
    let line = format!(
        "{}'s token is for {} only; ask an admin for another (`tidegate access`)",
        grant.name,
        sites.join(", ")
    );
    Failure::new(StatusCode::FORBIDDEN, line)
}

pub(super) async fn list(State(house): Shared) -> Answer<Vec<AccessView>> {
    Ok(Json(serve::accesses(&house).await?))
}

pub(super) async fn make(
    State(house): Shared,
    Extension(asker): Asker,
    Json(ask): Json<NewAccess>,
) -> Answer<AccessMade> {
    Ok(Json(serve::new_access(&house, &asker, ask).await?))
}

pub(super) async fn revoke(
    State(house): Shared,
    Extension(asker): Asker,
    Path(id): Path<String>,
) -> Answer<()> {
    Ok(Json(serve::revoke_access(&house, &asker, id).await?))
}

impl From<AccessError> for Failure {
    fn from(e: AccessError) -> Failure {
        let status = match &e {
            AccessError::Malformed(_) => StatusCode::BAD_REQUEST,
            AccessError::Unknown(_) => StatusCode::NOT_FOUND,
            AccessError::TooMany => StatusCode::CONFLICT,
            AccessError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure::new(status, e.to_string())
    }
}
