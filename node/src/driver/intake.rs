//! Foreign bytes on their way in: decoded within limits, verified, and only then an event.

use std::fmt::Display;
use std::sync::Arc;

use node_core::contract::Event;
use node_core::revocations::Growth;
use protocol::envelope::Envelope;
use protocol::limits::RECEIPT_MARKS_MAX;
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Mark, Order, OrderBody, Receipt};
use protocol::plan::{Recall, RolloutPlan};
use protocol::revocation::{self, MassRevocation};
use protocol::status::SignedStatus;
use protocol::topology::Topology;
use protocol::trust::{Role, Root, Statement, Trust, TrustError};
use protocol::versioned::{DecodeError, Versioned};
use protocol::wire::{ControlReply, ControlRequest, SiteMessage};
use protocol::{Hash, NodeId, Time, Verified};
use rustls::pki_types::CertificateDer;

use super::clock::Clock;
use super::notes::Notes;
use crate::net::identity::{Admission, Revocations};
use crate::store::records::Change;

/// What a request asked for, as far as its answer must be checked against it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Question {
    /// The statement or revocation list of this digest.
    Document(Hash),
    /// The root of this version.
    Root(u64),
    /// A receipt for these registers, and orders.
    Uplink(Vec<Option<Mark>>),
    /// Anything else.
    Other,
}

impl From<&ControlRequest> for Question {
    fn from(request: &ControlRequest) -> Question {
        match request {
            ControlRequest::PullDocument { digest } => Question::Document(*digest),
            ControlRequest::PullRoot { version } => Question::Root(*version),
            ControlRequest::Uplink { statuses, .. } => Question::Uplink(statuses.marks()),
            _ => Question::Other,
        }
    }
}

/// Believes or refuses. What it believed lies in `events` and `changes` afterwards, in the order in
/// which it came.
pub struct Intake {
    trust: Trust,
    admission: Arc<Admission>,
    clock: Arc<Clock>,
    notes: Notes,
    revocations: Option<Hash>,
    growth: Growth,
    /// For the brain.
    pub events: Vec<Event>,
    /// For the store.
    pub changes: Vec<Change>,
}

impl Intake {
    /// An intake that believes what `trust` believes; `revocations` names the list in force.
    pub fn new(
        trust: Trust,
        admission: Arc<Admission>,
        clock: Arc<Clock>,
        revocations: Option<Hash>,
    ) -> Intake {
        Intake {
            trust,
            admission,
            growth: Growth::new(clock.floor(), revocations.is_some()),
            clock,
            notes: Notes::default(),
            revocations,
            events: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// The newest root that is believed.
    pub fn root(&self) -> &Verified<Root> {
        self.trust.root()
    }

    /// Digest of the revocation list in force.
    pub fn revocations(&self) -> Option<Hash> {
        self.revocations
    }

    /// A gossip message. A presence or a claim counts only from the node that it is about.
    pub fn gossip(&mut self, from: NodeId, bytes: &[u8]) {
        match SiteMessage::from_bytes(bytes) {
            Err(e) => self.undecoded(from, &e),
            Ok(SiteMessage::Presence(p)) if p.contact.node == from => {
                self.events.push(Event::Presence(p));
            }
            Ok(SiteMessage::Claim(c)) if c.node == from => self.events.push(Event::Claim(c)),
            Ok(SiteMessage::Slot(word)) if word.node == from => {
                self.events.push(Event::Slot(word));
            }
            Ok(SiteMessage::Presence(_) | SiteMessage::Claim(_) | SiteMessage::Slot(_)) => {
                self.notes.say(
                    "scope",
                    format!("{from} spoke for another node: message dropped"),
                )
            }
            Ok(SiteMessage::Missing { node, seq }) => {
                self.events.push(Event::Missing { from, node, seq });
            }
            Ok(SiteMessage::Beat(beat)) => self.events.push(Event::Beat { from, beat }),
            Ok(SiteMessage::Order(envelope)) => self.order(from, &envelope),
            Ok(SiteMessage::Receipt(envelope)) => self.receipt(from, &envelope),
            Ok(SiteMessage::Status(signed)) => self.status(from, &signed),
        }
    }

    fn status(&mut self, from: NodeId, signed: &SignedStatus) {
        match signed.verify(self.trust.fleet()) {
            Ok(status) => self.events.push(Event::Status(status)),
            Err(e) => self
                .notes
                .say("signature", format!("status from {from} refused: {e}")),
        }
    }

    /// A control request; `None` if it is none.
    pub fn request(&mut self, from: NodeId, bytes: &[u8]) -> Option<ControlRequest> {
        match ControlRequest::from_bytes(bytes) {
            Ok(request) => {
                match &request {
                    ControlRequest::Push { orders } => {
                        orders.iter().for_each(|order| self.order(from, order));
                    }
                    ControlRequest::Report { statuses } => {
                        let reported = statuses.iter().take(RECEIPT_MARKS_MAX);
                        reported.for_each(|signed| self.status(from, signed));
                    }
                    _ => {}
                }
                Some(request)
            }
            Err(e) => {
                self.undecoded(from, &e);
                None
            }
        }
    }

    /// The answer to a question, its statements taken in. A document that is not the one asked for,
    /// or is not believed, counts as not held, so that the brain asks elsewhere.
    pub fn answer(
        &mut self,
        from: NodeId,
        question: Question,
        reply: ControlReply,
    ) -> ControlReply {
        let believed = match (&reply, question) {
            (ControlReply::Orders(orders), _) => {
                orders.iter().for_each(|order| self.order(from, order));
                true
            }
            (
                ControlReply::Uplink {
                    orders, receipt, ..
                },
                Question::Uplink(marks),
            ) => {
                orders.iter().for_each(|order| self.order(from, order));
                if let Some(seal) = receipt {
                    self.receipt(from, &seal.receipt(self.trust.fleet(), &marks));
                }
                true
            }
            (ControlReply::Receipt(receipt), _) => {
                self.receipt(from, receipt);
                true
            }
            (ControlReply::Document(Some(bytes)), Question::Document(digest)) => {
                self.document(from, digest, bytes)
            }
            (ControlReply::Document(Some(bytes)), Question::Root(_)) => {
                self.root_update(from, bytes)
            }
            _ => true,
        };
        if believed {
            reply
        } else {
            ControlReply::Document(None)
        }
    }

    /// An order, and the recall inside it under the rules of its own role.
    pub fn order(&mut self, from: NodeId, envelope: &Envelope) {
        let Some(order) = self.believe::<Order>(from, "order", envelope) else {
            return;
        };
        let recall = match &order.body {
            OrderBody::Recall { statement, .. } => {
                self.believe::<Recall>(from, "recall", statement)
            }
            _ => None,
        };
        if matches!(&order.body, OrderBody::Bulletin(b) if b.revocations.is_some() && b.revocations == self.revocations)
        {
            self.growth.confirmed(self.admission.now());
        }
        self.clock.raise(order.issued);
        self.admission.floor_time(self.clock.floor());
        self.events.push(Event::Order(order, recall));
    }

    fn receipt(&mut self, from: NodeId, envelope: &Envelope) {
        if let Some(receipt) = self.believe::<Receipt>(from, "receipt", envelope) {
            self.events.push(Event::Receipt(receipt));
        }
    }

    fn document(&mut self, from: NodeId, digest: Hash, bytes: &[u8]) -> bool {
        if Hash::of(bytes) == digest {
            return self.revocation_list(from, digest, bytes);
        }
        let envelope = match Envelope::from_json(bytes) {
            Ok(envelope) if envelope.digest() == digest => envelope,
            Ok(_) => {
                let line = format!("{from} answered with another document than {digest}");
                self.notes.say("snapshot_mismatch", line);
                return false;
            }
            Err(e) => {
                let e = TrustError::from(e);
                self.notes
                    .say(e.event(), format!("document from {from} refused: {e}"));
                return false;
            }
        };
        let event = match envelope.payload_type.as_str() {
            Topology::PAYLOAD_TYPE => self
                .believe(from, "topology", &envelope)
                .map(Event::Topology),
            RolloutPlan::PAYLOAD_TYPE => self.believe(from, "plan", &envelope).map(Event::Plan),
            ReleaseManifest::PAYLOAD_TYPE => {
                self.believe(from, "release", &envelope).map(Event::Release)
            }
            other => {
                let line = format!("{from} answered with a document of type {other:?}");
                self.notes.say("wrong_target", line);
                None
            }
        };
        let Some(event) = event else { return false };
        self.changes
            .push(Change::Document(digest, envelope.to_json()));
        self.events.push(event);
        true
    }

    fn revocation_list(&mut self, from: NodeId, digest: Hash, document: &[u8]) -> bool {
        let (der, warrant) = revocation::parts(document);
        if let Ok((_, serials)) = self.admission.listed(&der) {
            let warrant = warrant.and_then(|w| self.believe::<MassRevocation>(from, "warrant", &w));
            let covered = warrant.map_or(0, |warrant| warrant.covers(&serials));
            let more = self.admission.unlisted(&serials[covered..]);
            if !self.growth.takes(self.admission.now(), more) {
                let line = format!(
                    "revocation list from {from} refused: it takes back {more} certificates more at once, which the operators did not sign"
                );
                self.notes.say("mass_revocation", line);
                return false;
            }
        }
        match self.admission.set_revocations(&der) {
            Ok(taken) => {
                self.changes
                    .push(Change::Document(digest, document.to_vec()));
                if taken == Revocations::Taken {
                    self.revocations = Some(digest);
                    self.changes.push(Change::Revocations(digest));
                }
                self.events.push(Event::Revocations(digest));
                true
            }
            Err(e) => {
                self.notes.say(
                    "signature",
                    format!("revocation list from {from} refused: {e}"),
                );
                false
            }
        }
    }

    /// Walks a chain of roots of the coordinator's API, as far as it holds. Whether it led any further.
    pub fn roots(&mut self, chain: &[Envelope]) -> bool {
        let before = self.root().version;
        for envelope in chain {
            let version =
                serde_json::from_slice::<Root>(&envelope.payload).map(|root| root.version);
            let known = version.is_ok_and(|version| version <= self.root().version);
            if !known && !self.root_update("the coordinator", &envelope.to_json()) {
                break;
            }
        }
        self.root().version > before
    }

    fn root_update(&mut self, from: impl Display, bytes: &[u8]) -> bool {
        let before = self.trust.root().clone();
        let taken = Envelope::from_json(bytes)
            .map_err(TrustError::from)
            .and_then(|envelope| self.trust.update(envelope));
        if let Err(e) = taken {
            self.notes
                .say(e.event(), format!("root from {from} refused: {e}"));
            return false;
        }
        let root = self.trust.root().clone();
        if let Err(e) = self.admission.set_issuing_cas(issuing_cas(&root)) {
            let line = format!("root {}: its issuing CAs cannot be used: {e}", root.version);
            self.notes.say("malformed", line);
        }
        if before.retires(&root, Role::Coordinator) {
            self.clock.reset();
            self.admission.reset_floor();
            self.changes.push(Change::Floor(Time(0)));
        }
        self.changes
            .push(Change::Root(root.version, root.envelope().clone()));
        self.events.push(Event::Root(root));
        true
    }

    fn believe<T: Statement>(
        &mut self,
        from: NodeId,
        what: &str,
        envelope: &Envelope,
    ) -> Option<Verified<T>> {
        match self.trust.verify(envelope) {
            Ok(verified) => Some(verified),
            Err(e) => {
                self.notes
                    .say(e.event(), format!("{what} from {from} refused: {e}"));
                let by_others =
                    matches!(e, TrustError::Signature(_) | TrustError::Threshold { .. });
                if by_others && T::ROLE == Role::Coordinator {
                    self.events.push(Event::Unbelieved);
                }
                None
            }
        }
    }

    fn undecoded(&mut self, from: NodeId, error: &DecodeError) {
        let event = match error {
            DecodeError::TooLong { .. } => "too_long",
            DecodeError::Version { .. } => "spec_version",
            DecodeError::Magic { .. } | DecodeError::Malformed { .. } => "malformed",
        };
        self.notes
            .say(event, format!("message from {from} dropped: {error}"));
    }
}

/// The certificates of a root's issuing CAs; text that is not hex is left out.
pub fn issuing_cas(root: &Root) -> Vec<CertificateDer<'static>> {
    let decode = |hex: &String| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok();
    root.issuing_cas
        .iter()
        .filter_map(decode)
        .map(CertificateDer::from)
        .collect()
}

#[cfg(test)]
#[path = "intake_tests.rs"]
mod tests;
