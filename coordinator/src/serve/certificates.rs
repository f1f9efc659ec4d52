//! Which certificates were issued and revoked: a fold of the ledger, and the list that follows.
//!
//! The list is a function of the ledger alone (its number counts the revocations, its date is that of
//! the last one), so a restarted coordinator makes the same bytes again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coordinator_core::contract::LedgerEvent;
use node::net::identity::Admission;
use node::net::identity::issue::{IssuingCa, Validity};
use protocol::{Hash, NodeId, Span, Time};
use rustls::pki_types::CertificateDer;

/// A list has no end of its own: the bulletin, which expires, names the newest.
const LIST_LIFE: Span = Span::from_secs(20 * 365 * 86_400);

/// A certificate revocation list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// Names it as a document.
    pub digest: Hash,
    /// DER.
    pub der: Arc<Vec<u8>>,
}

/// What the ledger says of certificates.
pub struct Certificates {
    ca: Arc<IssuingCa>,
    admission: Arc<Admission>,
    /// What a node was given: serials, each with the token that it cost.
    serials: BTreeMap<NodeId, Vec<(u64, String)>>,
    revoked: BTreeSet<NodeId>,
    revocations: u64,
    last: Time,
    list: Option<List>,
}

impl Certificates {
    /// Nothing issued yet.
    pub fn new(ca: Arc<IssuingCa>, admission: Arc<Admission>) -> Certificates {
        Certificates {
            ca,
            admission,
            serials: BTreeMap::new(),
            revoked: BTreeSet::new(),
            revocations: 0,
            last: Time(0),
            list: None,
        }
    }

    /// Takes in one event of the ledger, written at `time`.
    pub fn take_in(&mut self, event: &LedgerEvent, time: Time) {
        match event {
            LedgerEvent::Enrolled(enrolled) => {
                let serial = u64::from_str_radix(&enrolled.serial, 16);
                self.serials
                    .entry(enrolled.node)
                    .or_default()
                    .extend(serial.ok().map(|serial| (serial, enrolled.token.clone())));
            }
            LedgerEvent::Revoked { node, .. } => {
                self.revoked.insert(*node);
                self.revocations += 1;
                self.last = time;
            }
            _ => {}
        }
    }

    /// From now on certificates of these CAs are honoured here.
    ///
    /// # Errors
    /// One line, when one of them is no certificate.
    pub fn trust_issuers(&mut self, cas: Vec<CertificateDer<'static>>) -> Result<(), String> {
        let taken = self.admission.set_issuing_cas(cas);
        taken.map_err(|e| e.to_string())
    }

    /// Makes the list that follows from all revocations so far, and puts it in force here.
    ///
    /// # Errors
    /// One line, when the CA cannot sign it.
    pub fn renew_list(&mut self) -> Result<Hash, String> {
        let serials: Vec<u64> = self
            .revoked
            .iter()
            .flat_map(|node| self.serials.get(node).into_iter().flatten())
            .map(|(serial, _)| *serial)
            .collect();
        let validity = Validity {
            not_before: self.last,
            not_after: self.last + LIST_LIFE,
        };
        let made = self.ca.revoke(&serials, self.revocations, validity);
        let der = made.map_err(|e| format!("the revocation list cannot be made: {e}"))?;
        self.admission
            .set_revocations(&der)
            .map_err(|e| format!("the revocation list is not taken: {e}"))?;
        let list = List {
            digest: Hash::of(&der),
            der: Arc::new(der),
        };
        let digest = list.digest;
        self.list = Some(list);
        Ok(digest)
    }

    /// Whether anything was ever revoked.
    pub fn any_revoked(&self) -> bool {
        self.revocations > 0
    }

    /// The list in force.
    pub fn list(&self) -> Option<&List> {
        self.list.as_ref()
    }

    /// Whether a node was revoked.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.revoked.contains(node)
    }

    /// Nodes that were ever enrolled.
    pub fn nodes(&self) -> u32 {
        self.serials.len() as u32
    }

    /// How often a node was enrolled.
    pub fn enrolments(&self, node: &NodeId) -> u32 {
        self.serials
            .get(node)
            .map_or(0, |serials| serials.len() as u32)
    }

    /// Whether a certificate may leave: the ledger has it, so that a list can, and its node was not
    /// revoked.
    pub fn may_leave(&self, node: &NodeId, serial: u64) -> bool {
        let mut known = self.serials.get(node).into_iter().flatten();
        !self.is_revoked(node) && known.any(|(held, _)| *held == serial)
    }

    /// How often a token enrolled a node.
    pub fn enrolments_by(&self, node: &NodeId, token: &str) -> usize {
        let known = self.serials.get(node).into_iter().flatten();
        known.filter(|(_, by)| by == token).count()
    }
}
