//! The HTTP API: its messages, its server and its client.
//!
//! JSON over HTTPS. Every endpoint but the enrolment wants `Authorization: Bearer <api-token>`, the
//! directory's own or one that [`access`] lets do it. An error is `{"error": "one line"}` under a fitting status code.
//!
//! | method and path | takes | gives |
//! |---|---|---|
//! | `POST /v1/enroll` (no bearer) | [`protocol::enroll::EnrollRequest`] | [`protocol::enroll::EnrollReply`] |
//! | `POST /v1/renew`, `/v1/rejoin`, `/v1/roots` (no bearer) | requests of [`protocol::enroll`] that prove a key | replies of it |
//! | `POST /v1/report` (no bearer) | [`protocol::foreign::ForeignReport`] | [`protocol::foreign::ForeignReply`] |
//! | `GET /v1/status` | | [`messages::ServerStatus`] |
//! | `GET /v1/root` | | the root envelopes, rising |
//! | `POST /v1/root` | the next root's envelope | its version |
//! | `POST /v1/tokens` | [`messages::NewToken`] | [`messages::TokenMade`] |
//! | `GET`, `PUT /v1/topology` | an envelope | an envelope or `null`; nothing |
//! | `GET /v1/blobs/{root}/{length}` | | [`messages::BlobPresence`] |
//! | `PUT /v1/blobs/{root}/{length}` | the bytes | nothing |
//! | `POST /v1/releases` | an envelope; answers once the origin holds every blob | [`messages::ReleaseView`] |
//! | `GET /v1/releases`, `/v1/releases/{digest}` | | [`messages::ReleaseView`]s, with the envelope |
//! | `GET`, `POST`, `DELETE /v1/releases/{digest}/assess` | | [`messages::AssessmentView`] or `null`; nothing |
//! | `POST /v1/rollouts` | the proposal's envelope | [`messages::RolloutDetail`] |
//! | `GET /v1/rollouts`, `/v1/rollouts/{id}` | | views; [`messages::RolloutDetail`] |
//! | `POST /v1/rollouts/{id}/approve` | the plan's envelope with a signature | [`messages::Progress`] |
//! | `POST /v1/rollouts/{id}/start`, `/resume` | | nothing |
//! | `POST /v1/rollouts/{id}/pause`, `/halt` | [`messages::Reason`] | nothing |
//! | `POST /v1/rollouts/{id}/problems` | [`messages::ProblemReport`] | nothing |
//! | `GET /v1/rollouts/{id}/recall` | | the envelope that waits for signatures, or `null` |
//! | `POST /v1/rollouts/{id}/recall` | the recall's envelope with a signature | [`messages::Progress`] |
//! | `GET /v1/nodes`, `/v1/sites` | | views; [`messages::SiteView`]s |
//! | `POST /v1/nodes/{id}/revoke` | [`messages::Reason`] | nothing |
//! | `PUT /v1/revocations` | nodes' ids | [`messages::RevocationDraft`] |
//! | `POST /v1/revocations` | a [`protocol::revocation::MassRevocation`] that the operators signed | nothing |
//! | `GET`, `POST /v1/access` | [`messages::NewAccess`] | [`messages::AccessView`]s; [`messages::AccessMade`] |
//! | `POST /v1/access/{id}/revoke` | | nothing |
//! | `GET /v1/unmanaged` | | [`messages::UnmanagedView`]s, the one seen last first |
//! | `GET /v1/waiting` | | [`messages::WaitingView`]s, who waits longest first |
//! | `POST /v1/nodes/ID/admit` | | |
//! | `GET /v1/foreign` | | [`messages::ForeignView`]s, the one heard last first |
//! | `GET /v1/audit/head` | | [`messages::AuditHead`] |
//! | `GET /v1/audit/signed-head` | | a [`protocol::merkle::LedgerHead`] in its envelope |
//! | `GET /v1/events?after=N&wait_ms=M` | | [`messages::Events`]; waits up to M ms for one |

pub mod access;
mod client;
pub mod messages;
pub(crate) mod server;

pub use client::{ApiError, Client};
