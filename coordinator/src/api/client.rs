//! The client side of the API, for the command line and for tests.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use axum::http::Method;
use node::enroll::pin;
use protocol::enroll::{
    EnrollReply, EnrollRequest, RejoinRequest, RenewReply, RenewRequest, RootsReply,
};
use protocol::envelope::Envelope;
use protocol::filter::Filter;
use protocol::plan::Cohort;
use protocol::{BlobRef, Hash, NodeId, RolloutId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use super::messages::*;
use crate::directory::{Directory, DirectoryError};

/// Why a request came to nothing. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The directory does not say whom to ask.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Nobody there.
    #[error("the coordinator at {address} does not answer ({why}); is `tidegate serve` running?")]
    Unreachable {
        /// Where it was asked.
        address: String,
        /// Why.
        why: String,
    },
    /// It refused.
    #[error("{message}")]
    Refused {
        /// HTTP status code.
        status: u16,
        /// The server's line.
        message: String,
    },
    /// Its answer makes no sense.
    #[error("the coordinator's answer to {path} cannot be read: {why}")]
    Malformed {
        /// What was asked.
        path: String,
        /// Why.
        why: String,
    },
    /// A file to be uploaded cannot be read.
    #[error("{path} cannot be read: {why}")]
    File {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
}

/// Talks to one coordinator, whose certificate is pinned.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: String,
    token: String,
}

/// A connection must stand by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An upload is read from the disk in blocks of this size.
const UPLOAD_BLOCK_BYTES: usize = 256 << 10;

impl Client {
    /// A client for the coordinator of DIR, as `coordinator.json` and `api-token` say. A copy of these
    /// on another machine will do; then the coordinator's public address is asked.
    ///
    /// # Errors
    /// When the directory is no coordinator's.
    pub fn from_dir(dir: &Path) -> Result<Client, ApiError> {
        let dir = Directory::new(dir);
        let settings = dir.settings()?;
        let here = dir.online_dir().is_dir();
        let address = if here {
            settings.local_api()
        } else {
            settings.public_api()
        };
        Ok(Client::new(
            &address.to_string(),
            settings.server_pin,
            &dir.api_token()?,
        ))
    }

    /// A client for the coordinator at `address` (host and port), whose certificate's DER hashes to
    /// `server_pin`.
    pub fn new(address: &str, server_pin: Hash, token: &str) -> Client {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(pin::client_config(server_pin).0)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .expect("a client with a ready TLS configuration");
        Client {
            http,
            address: address.to_owned(),
            token: token.to_owned(),
        }
    }

    /// The coordinator in a nutshell.
    ///
    /// # Errors
    /// See [`ApiError`]; so for all below.
    pub async fn status(&self) -> Result<ServerStatus, ApiError> {
        self.get("/v1/status").await
    }
    /// The root envelopes, rising.
    pub async fn roots(&self) -> Result<Vec<Envelope>, ApiError> {
        self.get("/v1/root").await
    }
    /// The ledger's head, as the coordinator signs for it.
    pub async fn ledger_head(&self) -> Result<Envelope, ApiError> {
        self.get("/v1/audit/signed-head").await
    }
    /// Publishes the next root, signed where its keys lie. Gives its version.
    pub async fn publish_root(&self, envelope: &Envelope) -> Result<u64, ApiError> {
        self.send(Method::POST, "/v1/root", Some(envelope)).await
    }
    /// Enrols a node; takes no API token. Nodes themselves ask by `node::enroll`.
    pub async fn enroll(&self, request: &EnrollRequest) -> Result<EnrollReply, ApiError> {
        self.send(Method::POST, "/v1/enroll", Some(request)).await
    }
    /// The chain of roots, for a node; takes no API token. Nodes themselves ask by `node::renew`.
    pub async fn roots_for(&self, request: &RenewRequest) -> Result<RootsReply, ApiError> {
        self.send(Method::POST, "/v1/roots", Some(request)).await
    }
    /// What operators have to sign to revoke these nodes.
    pub async fn draft_revocation(&self, nodes: &[NodeId]) -> Result<RevocationDraft, ApiError> {
        self.send(Method::PUT, "/v1/revocations", Some(&nodes))
            .await
    }
    /// Revokes what the operators signed.
    pub async fn revoke_many(&self, statement: &Envelope) -> Result<(), ApiError> {
        self.send(Method::POST, "/v1/revocations", Some(statement))
            .await
    }
    /// Renews a node's certificate; takes no API token. Nodes themselves ask by `node::renew`.
    pub async fn renew(&self, request: &RenewRequest) -> Result<RenewReply, ApiError> {
        self.send(Method::POST, "/v1/renew", Some(request)).await
    }
    /// Enrols the copy of a node's directory; takes no API token. Nodes themselves ask by `node::copies`.
    pub async fn rejoin(&self, request: &RejoinRequest) -> Result<EnrollReply, ApiError> {
        self.send(Method::POST, "/v1/rejoin", Some(request)).await
    }
    /// Makes an enrolment token.
    pub async fn new_token(&self, ask: &NewToken) -> Result<TokenMade, ApiError> {
        self.send(Method::POST, "/v1/tokens", Some(ask)).await
    }
    /// Machines that were not let in.
    pub async fn unmanaged(&self) -> Result<Vec<UnmanagedView>, ApiError> {
        self.get("/v1/unmanaged").await
    }
    /// Machines that are no nodes and reported.
    pub async fn foreign(&self) -> Result<Vec<ForeignView>, ApiError> {
        self.get("/v1/foreign").await
    }
    /// Machines that wait until an operator lets them in.
    pub async fn waiting(&self) -> Result<Vec<WaitingView>, ApiError> {
        self.get("/v1/waiting").await
    }
    /// Lets one of them in.
    pub async fn admit(&self, node: NodeId) -> Result<(), ApiError> {
        self.send(Method::POST, &format!("/v1/nodes/{node}/admit"), Some(&()))
            .await
    }
    /// Makes a token for the API.
    pub async fn new_access(&self, ask: &NewAccess) -> Result<AccessMade, ApiError> {
        self.send(Method::POST, "/v1/access", Some(ask)).await
    }
    /// The tokens for the API.
    pub async fn accesses(&self) -> Result<Vec<AccessView>, ApiError> {
        self.get("/v1/access").await
    }
    /// Takes a token for the API away.
    pub async fn revoke_access(&self, id: &str) -> Result<(), ApiError> {
        let path = format!("/v1/access/{id}/revoke");
        self.send(Method::POST, &path, Some(&())).await
    }
    /// The newest topology.
    pub async fn topology(&self) -> Result<Option<Envelope>, ApiError> {
        self.get("/v1/topology").await
    }
    /// Sets a topology, signed where the operator sits.
    pub async fn set_topology(&self, envelope: &Envelope) -> Result<(), ApiError> {
        self.send(Method::PUT, "/v1/topology", Some(envelope)).await
    }
    /// Whether the origin has a blob.
    pub async fn blob(&self, blob: BlobRef) -> Result<BlobPresence, ApiError> {
        self.get(&blob_path(blob)).await
    }
    /// Uploads a blob from a file; `progress` is told the bytes sent so far.
    pub async fn upload(
        &self,
        blob: BlobRef,
        file: &Path,
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<(), ApiError> {
        let unreadable = |e: std::io::Error| ApiError::File {
            path: file.display().to_string(),
            why: e.to_string(),
        };
        let mut source = tokio::fs::File::open(file).await.map_err(unreadable)?;
        let length = source.metadata().await.map_err(unreadable)?.len();
        if length != blob.length {
            let why = format!("it has {length} bytes, but the blob has {}", blob.length);
            return Err(ApiError::File {
                path: file.display().to_string(),
                why,
            });
        }
        let (tx, blocks) = mpsc::channel(4);
        let reader = tokio::spawn(async move {
            let mut sent = 0;
            loop {
                let mut block = vec![0; UPLOAD_BLOCK_BYTES];
                match source.read(&mut block).await {
                    Ok(0) => return,
                    Ok(n) => {
                        block.truncate(n);
                        if tx.send(Ok(Bytes::from(block))).await.is_err() {
                            return;
                        }
                        sent += n as u64;
                        progress(sent);
                    }
                    Err(e) => return drop(tx.send(Err(e)).await),
                }
            }
        });
        let path = blob_path(blob);
        let request = self
            .request(Method::PUT, &path)
            .header("content-length", length);
        let answer = self
            .finish(&path, request.body(reqwest::Body::wrap(Blocks(blocks))))
            .await;
        reader.abort();
        answer
    }
    /// Publishes a release whose blobs were uploaded. Answers once the origin holds them all.
    pub async fn publish(&self, envelope: &Envelope) -> Result<ReleaseView, ApiError> {
        self.send(Method::POST, "/v1/releases", Some(envelope))
            .await
    }
    /// All releases, oldest first.
    pub async fn releases(&self) -> Result<Vec<ReleaseView>, ApiError> {
        self.get("/v1/releases").await
    }
    /// One release.
    pub async fn release(&self, digest: Hash) -> Result<ReleaseView, ApiError> {
        self.get(&format!("/v1/releases/{digest}")).await
    }
    /// Asks nodes whether they need a release.
    pub async fn assess(&self, digest: Hash) -> Result<(), ApiError> {
        let path = format!("/v1/releases/{digest}/assess");
        self.send(Method::POST, &path, None::<&()>).await
    }
    /// Asks them no more.
    pub async fn end_assessment(&self, digest: Hash) -> Result<(), ApiError> {
        let path = format!("/v1/releases/{digest}/assess");
        self.send(Method::DELETE, &path, None::<&()>).await
    }
    /// What they answered so far; none if they are not asked.
    pub async fn assessment(&self, digest: Hash) -> Result<Option<AssessmentView>, ApiError> {
        self.get(&format!("/v1/releases/{digest}/assess")).await
    }
    /// Proposes a rollout; the answer holds the plan that it was resolved to.
    pub async fn propose(&self, envelope: &Envelope) -> Result<RolloutDetail, ApiError> {
        self.send(Method::POST, "/v1/rollouts", Some(envelope))
            .await
    }
    /// What a proposal would come to.
    pub async fn simulate(&self, ask: &WhatIf) -> Result<Forecast, ApiError> {
        self.send(Method::POST, "/v1/forecasts", Some(ask)).await
    }
    /// What a rollout would come to if it began now.
    pub async fn forecast(
        &self,
        id: &RolloutId,
        question: &Question,
    ) -> Result<Forecast, ApiError> {
        let path = format!("/v1/rollouts/{id}/forecast");
        self.send(Method::POST, &path, Some(question)).await
    }
    /// All rollouts.
    pub async fn rollouts(&self) -> Result<Vec<RolloutView>, ApiError> {
        self.get("/v1/rollouts").await
    }
    /// One rollout, with the plan to sign.
    pub async fn rollout(&self, id: &RolloutId) -> Result<RolloutDetail, ApiError> {
        self.get(&format!("/v1/rollouts/{id}")).await
    }
    /// Sends a plan with one signature more.
    pub async fn approve(&self, id: &RolloutId, envelope: &Envelope) -> Result<Progress, ApiError> {
        self.send(
            Method::POST,
            &format!("/v1/rollouts/{id}/approve"),
            Some(envelope),
        )
        .await
    }
    /// Opens the first wave.
    pub async fn start(&self, id: &RolloutId) -> Result<(), ApiError> {
        self.act(id, "start", None).await
    }
    /// No new starts until resume.
    pub async fn pause(&self, id: &RolloutId, reason: &str) -> Result<(), ApiError> {
        self.act(id, "pause", Some(reason)).await
    }
    /// Goes on.
    pub async fn resume(&self, id: &RolloutId) -> Result<(), ApiError> {
        self.act(id, "resume", None).await
    }
    /// Stops, until operators lift it together.
    pub async fn halt(&self, id: &RolloutId, reason: &str) -> Result<(), ApiError> {
        self.act(id, "halt", Some(reason)).await
    }
    /// Reports that the release does harm on a node.
    pub async fn problem(&self, id: &RolloutId, problem: &ProblemReport) -> Result<(), ApiError> {
        let path = format!("/v1/rollouts/{id}/problems");
        self.send(Method::POST, &path, Some(problem)).await
    }
    /// What came of a rollout.
    pub async fn review(&self, id: &RolloutId) -> Result<Review, ApiError> {
        self.get(&format!("/v1/rollouts/{id}/review")).await
    }
    /// Stops everything.
    pub async fn halt_all(&self, reason: &str) -> Result<(), ApiError> {
        let reason = Reason {
            reason: reason.to_owned(),
        };
        self.send(Method::POST, "/v1/halt", Some(&reason)).await
    }
    /// The operator's halt of a rollout, or of everything, that is in force.
    pub async fn halt_in_force(&self, id: Option<&RolloutId>) -> Result<HaltInForce, ApiError> {
        match id {
            Some(id) => self.get(&format!("/v1/rollouts/{id}/halt")).await,
            None => self.get("/v1/halt").await,
        }
    }
    /// Sends a lift with one signature more.
    pub async fn lift(&self, envelope: &Envelope) -> Result<Progress, ApiError> {
        self.send(Method::POST, "/v1/lift", Some(envelope)).await
    }
    /// Lets a held cohort go on.
    pub async fn release_cohort(&self, id: &RolloutId, cohort: &Cohort) -> Result<(), ApiError> {
        let path = format!("/v1/rollouts/{id}/release-cohort");
        self.send(Method::POST, &path, Some(cohort)).await
    }
    /// The recall that waits for signatures, if there is one.
    pub async fn pending_recall(&self, id: &RolloutId) -> Result<Option<Envelope>, ApiError> {
        self.get(&format!("/v1/rollouts/{id}/recall")).await
    }
    /// Sends a recall with one signature more.
    pub async fn recall(&self, id: &RolloutId, envelope: &Envelope) -> Result<Progress, ApiError> {
        self.send(
            Method::POST,
            &format!("/v1/rollouts/{id}/recall"),
            Some(envelope),
        )
        .await
    }
    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, ApiError> {
        self.get("/v1/nodes").await
    }
    /// The nodes of which a filter is true.
    pub async fn nodes_where(&self, filter: &Filter) -> Result<Vec<NodeView>, ApiError> {
        let at = format!("https://{}/v1/nodes", self.address);
        let url = reqwest::Url::parse_with_params(&at, [("where", filter.to_string())])
            .expect("an address of this client makes a URL");
        let query = url.query().unwrap_or_default();
        self.get(&format!("/v1/nodes?{query}")).await
    }
    /// All sites.
    pub async fn sites(&self) -> Result<Vec<SiteView>, ApiError> {
        self.get("/v1/sites").await
    }
    /// Revokes a node's certificate.
    pub async fn revoke(&self, node: NodeId, reason: &str) -> Result<(), ApiError> {
        self.send(
            Method::POST,
            &format!("/v1/nodes/{node}/revoke"),
            Some(&Reason {
                reason: reason.into(),
            }),
        )
        .await
    }
    /// Notes that a release was installed on a node by hand.
    pub async fn record_install(&self, node: NodeId, note: &InstallNote) -> Result<(), ApiError> {
        let path = format!("/v1/nodes/{node}/installs");
        self.send(Method::POST, &path, Some(note)).await
    }
    /// Where the ledger stands.
    pub async fn audit_head(&self) -> Result<AuditHead, ApiError> {
        self.get("/v1/audit/head").await
    }
    /// Events after number `after`; waits up to `wait` for one.
    pub async fn events(&self, after: u64, wait: Duration) -> Result<Events, ApiError> {
        self.get(&format!(
            "/v1/events?after={after}&wait_ms={}",
            wait.as_millis()
        ))
        .await
    }

    async fn act(&self, id: &RolloutId, what: &str, reason: Option<&str>) -> Result<(), ApiError> {
        let body = reason.map(|reason| Reason {
            reason: reason.to_owned(),
        });
        self.send(
            Method::POST,
            &format!("/v1/rollouts/{id}/{what}"),
            body.as_ref(),
        )
        .await
    }

    async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ApiError> {
        self.finish(path, self.request(Method::GET, path)).await
    }

    async fn send<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<A, ApiError> {
        let request = self.request(method, path);
        self.finish(
            path,
            if let Some(body) = body {
                request.json(body)
            } else {
                request
            },
        )
        .await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("https://{}{path}", self.address))
            .bearer_auth(&self.token)
    }

    async fn finish<A: DeserializeOwned>(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<A, ApiError> {
        let unreachable = |e: reqwest::Error| ApiError::Unreachable {
            address: self.address.clone(),
            why: innermost(&e),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        if !status.is_success() {
            let message = serde_json::from_slice::<Problem>(&body).map_or_else(
                |_| format!("the coordinator answered {status} to {path}"),
                |p| p.error,
            );
            return Err(ApiError::Refused {
                status: status.as_u16(),
                message,
            });
        }
        serde_json::from_slice(&body).map_err(|e| ApiError::Malformed {
            path: path.to_owned(),
            why: e.to_string(),
        })
    }
}

fn blob_path(blob: BlobRef) -> String {
    format!("/v1/blobs/{}/{}", blob.root, blob.length)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// A request body that another task reads from a file.
struct Blocks(mpsc::Receiver<std::io::Result<Bytes>>);

impl HttpBody for Blocks {
    type Data = Bytes;
    type Error = std::io::Error;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<http_body::Frame<Bytes>>>> {
        self.0
            .poll_recv(cx)
            .map(|item| item.map(|block| block.map(http_body::Frame::data)))
    }
}
