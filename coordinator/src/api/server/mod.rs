//! The server side of the API: TLS and the routes.

mod access;
mod failure;
mod fleet;
mod foreign;
mod listener;
mod pace;
mod releases;
mod rollouts;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post, put};
use node::net::identity::issue::private_key_der;
use node::net::identity::load_key;
use protocol::envelope::Envelope;
use protocol::limits;
use protocol::limits::API_BODY_MAX_BYTES;
use protocol::merkle::LedgerHead;
use protocol::trust::Statement as _;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use failure::{Answer, Failure, Json};

use super::messages::{AuditHead, Events, ServerStatus};
use crate::directory::Directory;
use crate::serve::{self, House, Insight};

type Shared = State<Arc<House>>;

/// The server's TLS: its own certificate, no client certificates, HTTP/1.1.
///
/// # Errors
/// One line, when key or certificate cannot be used.
pub(crate) fn tls(dir: &Directory) -> Result<Arc<rustls::ServerConfig>, String> {
    let path = dir.server_certificate_file();
    let der =
        std::fs::read(&path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    let key = load_key(&dir.server_key_file()).map_err(|e| e.to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(der)], private_key_der(&key))
        .map_err(|e| format!("{} cannot be used: {e}", path.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Serves until told to stop, then ends what is under way.
pub(crate) async fn serve(
    house: Arc<House>,
    tcp: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    mut stop: watch::Receiver<bool>,
) {
    let listener = listener::Listener::start(tcp, tls);
    let router = router(house).into_make_service_with_connect_info::<pace::Remote>();
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    if let Err(e) = served.await {
        tracing::error!(event = "api", "the API ended: {e}");
    }
}

fn router(house: Arc<House>) -> Router {
    Router::new()
        .route("/v1/enroll", post(fleet::enroll))
        .route("/v1/renew", post(fleet::renew))
        .route("/v1/roots", post(fleet::roots_for))
        .route("/v1/rejoin", post(fleet::rejoin))
        .route("/v1/report", post(foreign::report))
        .merge(authorised(house.clone()))
        .fallback(async || {
            Failure::new(
                StatusCode::NOT_FOUND,
                "there is no such endpoint; the program may be older than its client",
            )
        })
        .method_not_allowed_fallback(async || {
            Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "the endpoint does not know this method",
            )
        })
        .layer(DefaultBodyLimit::max(API_BODY_MAX_BYTES))
        .layer(from_fn_with_state(pace::Paces::new(), pace::keep))
        .with_state(house)
}

fn authorised(house: Arc<House>) -> Router<Arc<House>> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/root", get(roots).post(publish_root))
        .route("/v1/tokens", post(fleet::new_token))
        .route(
            "/v1/topology",
            get(fleet::topology).put(fleet::set_topology),
        )
        .route(
            "/v1/halt",
            get(rollouts::everything_halted).post(rollouts::halt_all),
        )
        .route("/v1/lift", post(rollouts::lift))
        .route("/v1/rollouts/{id}/review", get(rollouts::review))
        .route(
            "/v1/rollouts/{id}/release-cohort",
            post(rollouts::release_cohort),
        )
        .route("/v1/nodes", get(fleet::nodes))
        .route("/v1/unmanaged", get(fleet::unmanaged))
        .route("/v1/foreign", get(foreign::list))
        .route("/v1/waiting", get(fleet::waiting))
        .route("/v1/nodes/{id}/admit", post(fleet::admit))
        .route("/v1/nodes/{id}/installs", post(fleet::record_install))
        .route("/v1/nodes/{id}/revoke", post(fleet::revoke))
        .route(
            "/v1/revocations",
            post(fleet::revoke_many).put(fleet::draft_revocation),
        )
        .route("/v1/sites", get(fleet::sites))
        .route(
            "/v1/blobs/{root}/{length}",
            put(releases::upload).get(releases::blob),
        )
        .route("/v1/releases", get(releases::list).post(releases::publish))
        .route("/v1/releases/{digest}", get(releases::show))
        .route(
            "/v1/releases/{digest}/assess",
            get(releases::assessment)
                .post(releases::assess)
                .delete(releases::end_assessment),
        )
        .route("/v1/rollouts", get(rollouts::list).post(rollouts::propose))
        .route("/v1/rollouts/{id}", get(rollouts::show))
        .route("/v1/forecasts", post(rollouts::simulate))
        .route("/v1/rollouts/{id}/forecast", post(rollouts::forecast))
        .route("/v1/rollouts/{id}/approve", post(rollouts::approve))
        .route("/v1/rollouts/{id}/start", post(rollouts::start))
        .route("/v1/rollouts/{id}/pause", post(rollouts::pause))
        .route("/v1/rollouts/{id}/resume", post(rollouts::resume))
        .route(
            "/v1/rollouts/{id}/halt",
            get(rollouts::halt_in_force).post(rollouts::halt),
        )
        .route("/v1/rollouts/{id}/problems", post(rollouts::problem))
        .route(
            "/v1/rollouts/{id}/recall",
            get(rollouts::pending_recall).post(rollouts::recall),
        )
        .route("/v1/access", get(access::list).post(access::make))
        .route("/v1/access/{id}/revoke", post(access::revoke))
        .route("/v1/audit/head", get(audit_head))
        .route("/v1/audit/signed-head", get(signed_head))
        .route("/v1/events", get(events))
        .route_layer(from_fn_with_state(house, access::door))
}

async fn status(State(house): Shared) -> Answer<ServerStatus> {
    let (nodes, ledger_entries) = house
        .desk
        .view(|i| (i.certificates.nodes(), i.ledger.0))
        .await?;
    Ok(Json(ServerStatus {
        fleet: house.settings.fleet,
        fleet_name: house.settings.fleet_name.clone(),
        root_version: house.roots.now().trust.root().version,
        coordinator: house.settings.coordinator,
        origin: house.settings.origin,
        origin_pid: *house.origin_pid.borrow(),
        nodes,
        ledger_entries,
        warnings: serve::warnings(&house),
    }))
}

async fn roots(State(house): Shared) -> Json<Vec<Envelope>> {
    Json(house.roots.now().envelopes.clone())
}

async fn publish_root(State(house): Shared, Json(envelope): Json<Envelope>) -> Answer<u64> {
    Ok(Json(serve::publish_root(&house, envelope).await?))
}

async fn audit_head(State(house): Shared) -> Answer<AuditHead> {
    let (entries, head) = house.desk.view(|i| i.ledger).await?;
    Ok(Json(AuditHead { entries, head }))
}

async fn signed_head(State(house): Shared) -> Answer<Envelope> {
    let look = |i: &Insight<'_>| (i.ledger, i.ledger_root);
    let ((entries, head), root) = house.desk.view(look).await?;
    let mut envelope = LedgerHead {
        spec_version: LedgerHead::SPEC_VERSION,
        fleet: house.settings.fleet,
        entries,
        root,
        head,
        signed: house.clock.now().wall,
    }
    .to_envelope();
    house.signer.sign(&mut envelope);
    Ok(Json(envelope))
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

async fn events(State(house): Shared, Query(ask): Query<After>) -> Json<Events> {
    let wait = Duration::from_millis(ask.wait_ms).min(limits::API_WAIT_MAX.as_duration());
    Json(house.log.after(ask.after, wait).await)
}
