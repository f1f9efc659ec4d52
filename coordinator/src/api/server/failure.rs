//! From every room's error to a status code and one line.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use coordinator_core::contract::CommandError;
use protocol::trust::TrustError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::messages::Problem;
use crate::serve::{
    ApprovalError, DeskError, EnrolmentError, RevokeError, RootError, StoreError, TokenError,
    UploadError,
};

/// What a handler gives.
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    line: String,
}

impl Failure {
    pub(super) fn new(status: StatusCode, line: impl Into<String>) -> Failure {
        Failure {
            status,
            line: line.into(),
        }
    }

    pub(super) fn bad_request(line: impl Into<String>) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, line)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Json(Problem { error: self.line }).into_response();
        *response.status_mut() = self.status;
        response
    }
}

/// JSON in and out; what cannot be read is refused in our own words.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.0).expect("what is answered is plain data");
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;
    async fn from_request(request: Request, state: &S) -> Result<Json<T>, Failure> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|e| Failure::new(e.status(), e.body_text()))?;
        let read = serde_json::from_slice(&body).map(Json);
        read.map_err(|e| Failure::bad_request(format!("the request's body is not understood: {e}")))
    }
}

impl From<DeskError> for Failure {
    fn from(e: DeskError) -> Failure {
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, e.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(e: StoreError) -> Failure {
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
    }
}

impl From<TrustError> for Failure {
    fn from(e: TrustError) -> Failure {
        let status = match e {
            TrustError::Signature(_) | TrustError::Proposer(_) | TrustError::Threshold { .. } => {
                StatusCode::FORBIDDEN
            }
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Failure::new(status, format!("the statement is not accepted: {e}"))
    }
}

impl From<CommandError> for Failure {
    fn from(e: CommandError) -> Failure {
        let status = match &e {
            CommandError::NoRollout(_)
            | CommandError::NoRelease(_)
            | CommandError::NoNode(_)
            | CommandError::NoTarget { .. } => StatusCode::NOT_FOUND,
            CommandError::Unresolvable(_) | CommandError::Limit(_) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            _ => StatusCode::CONFLICT,
        };
        Failure::new(status, e.to_string())
    }
}

impl From<ApprovalError> for Failure {
    fn from(e: ApprovalError) -> Failure {
        match e {
            ApprovalError::Desk(e) => e.into(),
            ApprovalError::Command(e) => e.into(),
            ApprovalError::Trust(e) => e.into(),
            ApprovalError::OtherRollout { .. } => Failure::bad_request(e.to_string()),
            ApprovalError::NoSigner(_) => Failure::new(StatusCode::FORBIDDEN, e.to_string()),
            ApprovalError::Store(_) => {
                Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string())
            }
        }
    }
}

impl From<RootError> for Failure {
    fn from(e: RootError) -> Failure {
        match e {
            RootError::Desk(e) => e.into(),
            RootError::Trust(e) => e.into(),
            RootError::TooLong | RootError::Keys(_) => {
                Failure::new(StatusCode::CONFLICT, e.to_string())
            }
            RootError::Disk(_) => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
        }
    }
}

impl From<RevokeError> for Failure {
    fn from(e: RevokeError) -> Failure {
        match e {
            RevokeError::Command(e) => e.into(),
            RevokeError::Desk(e) => e.into(),
            RevokeError::TooMany => Failure::new(StatusCode::TOO_MANY_REQUESTS, e.to_string()),
            RevokeError::Trust(_) => Failure::new(StatusCode::FORBIDDEN, e.to_string()),
            RevokeError::Other | RevokeError::Overtaken => {
                Failure::new(StatusCode::CONFLICT, e.to_string())
            }
        }
    }
}

impl From<EnrolmentError> for Failure {
    fn from(e: EnrolmentError) -> Failure {
        let status = match &e {
            EnrolmentError::Malformed(_) => StatusCode::BAD_REQUEST,
            EnrolmentError::Proof(_)
            | EnrolmentError::Revoked(_)
            | EnrolmentError::Again(_)
            | EnrolmentError::Stranger(_)
            | EnrolmentError::Certificate(_) => StatusCode::FORBIDDEN,
            EnrolmentError::TooOften(_) | EnrolmentError::Copies(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            EnrolmentError::NotWaiting(_) => StatusCode::NOT_FOUND,
            EnrolmentError::Full(_) | EnrolmentError::OfFleet(_) => StatusCode::CONFLICT,
            EnrolmentError::Token(TokenError::Store(_)) | EnrolmentError::Issue(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            EnrolmentError::Token(TokenError::TooMany | TokenError::WaitingFull) => {
                StatusCode::CONFLICT
            }
            EnrolmentError::Token(_) => StatusCode::FORBIDDEN,
            EnrolmentError::Desk(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure::new(status, e.to_string())
    }
}

impl From<UploadError> for Failure {
    fn from(e: UploadError) -> Failure {
        let status = match &e {
            UploadError::Length { .. } | UploadError::Broken(..) => StatusCode::BAD_REQUEST,
            UploadError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            UploadError::DiskFull(_) => StatusCode::INSUFFICIENT_STORAGE,
            UploadError::Absent(_) | UploadError::Refused(_) => StatusCode::CONFLICT,
            UploadError::Waiting(_) => StatusCode::SERVICE_UNAVAILABLE,
            UploadError::Disk { .. } | UploadError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure::new(status, e.to_string())
    }
}
