//! Tokens, and how a machine becomes a node of the fleet.

use std::net::IpAddr;
use std::sync::Arc;

use coordinator_core::contract::{self, Enrolled, Event};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use node::net::identity::issue::Validity;
use protocol::enroll::{
    EnrollReply, EnrollRequest, RejoinRequest, RenewReply, RenewRequest, RootsReply, Token,
};
use protocol::limits;
use protocol::limits::{NODES_MAX, TEXT_MAX_BYTES};
use protocol::{FleetId, Hash, NodeId, Span};
use rustls::pki_types::CertificateDer;

use super::desk::{DeskError, Insight};
use super::store::{TokenError, TokenKind, TokenRow};
use super::waiting::Asker;
use super::{House, issuing, witnesses};
use crate::api::messages::{NewToken, TokenMade};
use crate::init::{FIRST_EPOCH, SKEW, serial};
use crate::keys::random_32;

/// Why a machine was not enrolled, or a token not made. Messages are one line.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// A number or text out of its range.
    #[error("{0}")]
    Malformed(String),
    /// The request does not come from the holder of the key.
    #[error("the request is not signed by the key of node {0}")]
    Proof(NodeId),
    /// The node was revoked.
    #[error("node {0} was revoked; enrol the machine anew in an empty directory")]
    Revoked(NodeId),
    /// It was enrolled often enough by this token.
    #[error(
        "node {0} has used up its enrolments with this token; make a new one with `tidegate token`"
    )]
    Again(NodeId),
    /// The ledger did not take it in.
    #[error("node {0} is not taken in: the fleet is full")]
    Full(NodeId),
    /// What should prove the key does not.
    #[error("the certificate is not renewed: {0}; enrol the machine anew in an empty directory")]
    Certificate(String),
    /// A copied key is good for so many machines only.
    #[error(
        "node {0} was copied to too many machines: revoke it, or make an image with `tidegate-node seal` and a token"
    )]
    Copies(NodeId),
    /// Not one of ours.
    #[error(
        "node {0} is not of this fleet, or was revoked; enrol the machine anew in an empty directory"
    )]
    Stranger(NodeId),
    /// There is nobody to let in.
    #[error("node {0} does not wait to be let in; `tidegate nodes --waiting` lists who does")]
    NotWaiting(NodeId),
    /// A node reports by itself.
    #[error("{0} is the key of a node of this fleet, which tells by itself what it is")]
    OfFleet(NodeId),
    /// Something asks again and again.
    #[error("node {0} was renewed too often lately; ask again later")]
    TooOften(NodeId),
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The desk.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The CA.
    #[error("no certificate can be issued: {0}")]
    Issue(String),
}

/// Makes a token. Only a hash of its secret is kept.
///
/// # Errors
/// When the wishes are out of range, too many tokens are open, or the disk fails.
pub async fn new_token(
    house: &Arc<House>,
    by: &str,
    ask: NewToken,
) -> Result<TokenMade, EnrolmentError> {
    if ask.uses == 0 || ask.uses as usize > NODES_MAX {
        return Err(EnrolmentError::Malformed(format!(
            "a token serves 1 to {NODES_MAX} nodes"
        )));
    }
    if ask.life == Span::ZERO || ask.life > limits::TOKEN_LIFE_MAX {
        return Err(EnrolmentError::Malformed(
            "a token lives for at least a moment and at most a year".into(),
        ));
    }
    ask.terms.check().map_err(EnrolmentError::Malformed)?;
    if ask.foreign && (ask.terms.by_hand || !ask.terms.labels.is_empty()) {
        let why = "a foreign machine gets no labels, and nobody lets it in";
        return Err(EnrolmentError::Malformed(why.to_owned()));
    }
    let now = house.clock.now().wall;
    let id = BASE64URL_NOPAD.encode(&random_32()[..9]);
    let secret = BASE64URL_NOPAD.encode(&random_32());
    let row = TokenRow {
        secret: Hash::of(secret.as_bytes()),
        uses: ask.uses,
        used: 0,
        expires: now + ask.life,
        site: ask.site,
        kind: match ask.foreign {
            true => TokenKind::Foreign,
            false => TokenKind::Nodes,
        },
        terms: ask.terms.clone(),
    };
    let token = Token {
        id: id.clone(),
        secret,
        server_pin: house.settings.server_pin,
        expires: row.expires,
    };
    let made = Event::TokenMade(contract::TokenMade {
        id: id.clone(),
        by: by.to_owned(),
        uses: row.uses,
        expires: row.expires,
        site: row.site.clone(),
        foreign: ask.foreign,
        terms: ask.terms,
    });
    let store = house.store.clone();
    off_thread(move || store.add_token(&id, &row, now)).await?;
    // It leaves once the ledger says who made it.
    house.desk.tell(made).await?;
    Ok(TokenMade {
        token,
        root: house.settings.fleet,
    })
}

/// Enrols a node: proof, token, certificate, ledger, in this order.
///
/// # Errors
/// When one of them fails. A token that was used stays good for the same node.
pub async fn enroll(
    house: &Arc<House>,
    from: IpAddr,
    request: EnrollRequest,
) -> Result<EnrollReply, EnrolmentError> {
    check(&request)?;
    let node = request.node;
    let asked_with = request.token_id.clone();
    let (revoked, before, by_token) = house
        .desk
        .view(move |i| {
            (
                i.certificates.is_revoked(&node),
                i.certificates.enrolments(&node),
                i.certificates.enrolments_by(&node, &asked_with),
            )
        })
        .await?;
    if revoked {
        return Err(EnrolmentError::Revoked(node));
    }
    if by_token >= limits::REISSUES_MAX {
        return Err(EnrolmentError::Again(node));
    }
    let now = house.clock.now().wall;
    let store = house.store.clone();
    let (id, secret) = (request.token_id.clone(), request.token_secret.clone());
    let asker = Asker {
        node,
        address: from,
        hostname: request.hostname.clone(),
        os: request.os.clone(),
    };
    let token =
        off_thread(move || store.redeem(&id, &secret, TokenKind::Nodes, &asker, now)).await?;

    take_in(house, request, Some(token), before).await
}

/// Issues a certificate to a machine whose right to it was looked at, and puts it on record. `before` of them
/// were given to its key.
async fn take_in(
    house: &Arc<House>,
    request: EnrollRequest,
    token: Option<TokenRow>,
    before: u32,
) -> Result<EnrollReply, EnrolmentError> {
    let node = request.node;
    let (serial, chain) = issue(house, node)?;
    let (site, terms) = token
        .map(|token| (token.site, token.terms))
        .unwrap_or_default();
    let enrolled = Enrolled {
        node,
        hostname: request.hostname,
        os: request.os,
        arch: request.arch,
        labels: terms.label(request.labels.into_iter().collect()),
        site: site.clone(),
        serial: format!("{serial:016x}"),
        token: request.token_id,
    };
    // The certificate leaves only once the ledger says that it exists: what it does not know it
    // could not revoke. A revocation that came meanwhile has a list without it.
    house.desk.tell(Event::Enrolled(enrolled)).await?;
    let look = move |i: &Insight<'_>| {
        let revoked = i.certificates.is_revoked(&node);
        (revoked, i.certificates.may_leave(&node, serial))
    };
    match house.desk.view(look).await? {
        (true, _) => return Err(EnrolmentError::Revoked(node)),
        (false, false) => return Err(EnrolmentError::Full(node)),
        (false, true) => {}
    }
    Ok(EnrollReply {
        spec_version: 1,
        fleet: house.settings.fleet,
        roots: house.roots.now().envelopes.clone(),
        certificates: chain,
        site,
        labels: terms.labels.into_iter().collect(),
        coordinators: vec![house.settings.coordinator_contact()],
        origins: vec![house.settings.origin_contact()],
        epoch: FIRST_EPOCH + before,
    })
}

/// Enrols a machine that a node's directory was copied to as a node of its own, by the proof of the key
/// that was copied.
///
/// # Errors
/// When a proof does not hold, the key was revoked, or it was copied too often.
pub async fn rejoin(
    house: &Arc<House>,
    request: RejoinRequest,
) -> Result<EnrollReply, EnrolmentError> {
    check_fleet(house, request.spec_version, request.fleet)?;
    check(&request.enroll)?;
    if !request.proven() {
        return Err(EnrolmentError::Proof(request.copy_of));
    }
    let (copied, node) = (request.copy_of, request.enroll.node);
    let leaf = certificate(&request.certificate)?;
    let look = move |i: &Insight<'_>| {
        let certificates = i.certificates;
        let both = [copied, node];
        let revoked = both.into_iter().find(|node| certificates.is_revoked(node));
        let by = certificates.as_copy_of(&copied, &node);
        let again = by
            .as_ref()
            .map_or(0, |by| certificates.enrolments_by(&node, by));
        let before = certificates.enrolments(&node);
        (revoked, certificates.proves(&leaf), by, again, before)
    };
    let (revoked, proves, by, again, before) = house.desk.view(look).await?;
    if let Some(revoked) = revoked {
        return Err(EnrolmentError::Revoked(revoked));
    }
    match proves {
        Err(why) => return Err(EnrolmentError::Certificate(why)),
        Ok((found, _)) if found != copied => return Err(EnrolmentError::Proof(copied)),
        Ok(_) => {}
    }
    let by = by.ok_or(EnrolmentError::Copies(copied))?;
    if again >= limits::REISSUES_MAX {
        return Err(EnrolmentError::Again(node));
    }
    let enroll = EnrollRequest {
        token_id: by,
        ..request.enroll
    };
    take_in(house, enroll, None, before).await
}

fn certificate(hex: &str) -> Result<CertificateDer<'static>, EnrolmentError> {
    let malformed = |why: &str| EnrolmentError::Malformed(why.to_owned());
    if hex.len() > 2 * limits::CREDENTIALS_MAX_BYTES {
        return Err(malformed("the certificate is too long"));
    }
    let leaf = HEXLOWER.decode(hex.as_bytes());
    let leaf = leaf.map_err(|_| malformed("the certificate is not hex"))?;
    Ok(CertificateDer::from(leaf))
}

/// Gives a node its next certificate, by the proof of its key and its newest certificate, over or not.
///
/// # Errors
/// When the proof does not hold, the certificate was taken back, or it was renewed too often.
pub async fn renew(
    house: &Arc<House>,
    request: RenewRequest,
) -> Result<RenewReply, EnrolmentError> {
    check_fleet(house, request.spec_version, request.fleet)?;
    let leaf = certificate(&request.certificate)?;
    if !request.proven() {
        return Err(EnrolmentError::Proof(request.node));
    }
    let (node, now) = (request.node, house.clock.now().wall);
    let life = house.settings.certificate_life();
    let look = move |i: &Insight<'_>| {
        let often = i
            .certificates
            .renewed_too_often(&node, Span(life.0 / 2), now);
        (
            i.certificates.is_revoked(&node),
            i.certificates.proves(&leaf),
            often,
        )
    };
    let own = node == house.settings.origin;
    match house.desk.view(look).await? {
        (true, ..) => return Err(EnrolmentError::Revoked(node)),
        (.., true) => return Err(EnrolmentError::TooOften(node)),
        // The directory names its key, whatever certificate it shows.
        _ if own => {}
        (_, Err(why), _) => return Err(EnrolmentError::Certificate(why)),
        (_, Ok((found, _)), _) if found != node => return Err(EnrolmentError::Proof(node)),
        // The ledger has to know the old one, so that a list can have it.
        (_, Ok((_, Some(lost))), _) => witnesses::take_in(house, node, lost).await?,
        _ => {}
    }
    let (serial, certificates) = issue(house, node)?;
    let renewed = Event::Renewed {
        node,
        serial: format!("{serial:016x}"),
    };
    // As with enrolments: it leaves once the ledger has it.
    house.desk.tell(renewed).await?;
    let look = move |i: &Insight<'_>| i.certificates.may_leave(&node, serial);
    if !house.desk.view(look).await? {
        return Err(EnrolmentError::Revoked(node));
    }
    Ok(RenewReply {
        spec_version: 1,
        certificates,
    })
}

/// The chain of roots for a node that proves its key: it met certificates of an issuing CA which it does
/// not know, and nobody who knows one will talk to it.
///
/// # Errors
/// When the proof does not hold, or the node is not of this fleet.
pub async fn roots_for(
    house: &Arc<House>,
    request: RenewRequest,
) -> Result<RootsReply, EnrolmentError> {
    let node = request.node;
    check_fleet(house, request.spec_version, request.fleet)?;
    if !request.proven() {
        return Err(EnrolmentError::Proof(node));
    }
    let look = move |i: &Insight<'_>| i.certificates.knows(&node);
    if node != house.settings.origin && !house.desk.view(look).await? {
        return Err(EnrolmentError::Stranger(node));
    }
    Ok(RootsReply {
        spec_version: 1,
        roots: house.roots.now().envelopes.clone(),
    })
}

/// A certificate for a node's key, which nobody may have before the ledger knows it: its serial number, and
/// the chain as it is sent.
fn issue(house: &House, node: NodeId) -> Result<(u64, Vec<String>), EnrolmentError> {
    let (serial, now) = (serial(), house.clock.now().wall);
    let validity = Validity {
        not_before: now - SKEW,
        not_after: now + house.settings.certificate_life(),
    };
    let ca = house.issuing.now();
    let leaf = ca.node(node, serial, validity);
    let leaf = leaf.map_err(|e| EnrolmentError::Issue(e.to_string()))?;
    Ok((serial, issuing::credentials(&ca, &leaf)))
}

pub(super) fn check_fleet(
    house: &House,
    spec_version: u32,
    fleet: FleetId,
) -> Result<(), EnrolmentError> {
    if spec_version != 1 || fleet != house.settings.fleet {
        let why = "the request is of another version or fleet";
        return Err(EnrolmentError::Malformed(why.to_owned()));
    }
    Ok(())
}

fn check(request: &EnrollRequest) -> Result<(), EnrolmentError> {
    let malformed = |why: &str| Err(EnrolmentError::Malformed(why.to_owned()));
    if request.spec_version != 1 {
        return malformed(
            "this coordinator knows enrolment version 1; use a node program of its age",
        );
    }
    let texts = [
        &request.hostname,
        &request.os,
        &request.arch,
        &request.token_id,
        &request.token_secret,
    ];
    let labels = request.labels.iter().flat_map(|(key, value)| [key, value]);
    if texts
        .into_iter()
        .chain(labels)
        .any(|text| text.len() > TEXT_MAX_BYTES)
        || request.labels.len() > limits::LABELS_MAX
    {
        return malformed("a text or the number of labels is over its limit");
    }
    if !request.proven() {
        return Err(EnrolmentError::Proof(request.node));
    }
    Ok(())
}

/// redb waits for the disk; the runtime's threads do not.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TokenError> + Send + 'static,
) -> Result<T, EnrolmentError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(DeskError::Stopped.into()),
    }
}
