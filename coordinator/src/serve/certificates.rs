//! Which certificates were issued and revoked: a fold of the ledger, and the list that follows.
//!
//! The list is a function of the ledger alone (its number counts the revocations, its date is that of
//! the last one), so a restarted coordinator makes the same bytes again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use coordinator_core::contract::LedgerEvent;
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Admission, Issuer};
use protocol::envelope::Envelope;
use protocol::limits::{COPIES_MAX, RENEWALS_MAX, REVOCATIONS_PER_DAY_MAX};
use protocol::revocation::{self, MassRevocation, Warranted};
use protocol::versioned::Versioned as _;
use protocol::{Hash, NodeId, Span, Time};
use rustls::pki_types::CertificateDer;

/// A list has no end of its own: the bulletin, which expires, names the newest.
const LIST_LIFE: Span = Span::from_secs(20 * 365 * 86_400);

const DAY: Span = Span::from_secs(86_400);

/// A certificate revocation list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List {
    /// Names it as a document.
    pub digest: Hash,
    /// The list (DER), with its warrant if it has one.
    pub bytes: Arc<Vec<u8>>,
}

/// Stands where a token's id stands for certificates that no token gave.
const RENEWAL: &str = "renewal";
/// Stands there for a node that was taken in by its certificate alone, in whose CA the ledger trusted.
pub(super) const RESTORED: &str = "restored";
/// Stands before the node that another one was copied from; no token's id has a space.
const COPY: &str = "copy of ";

/// What a revocation list says that the ledger does not.
pub struct ListNews {
    /// Nodes of the ledger that are on it.
    pub nodes: Vec<NodeId>,
    /// All serials on it, hex.
    pub serials: Vec<String>,
    /// Its number.
    pub number: u64,
}

/// What the ledger says of certificates.
pub struct Certificates {
    ca: Arc<IssuingCa>,
    admission: Arc<Admission>,
    /// What a node was given: serials, each with the token that it cost.
    serials: BTreeMap<NodeId, Vec<(u64, String)>>,
    revoked: BTreeSet<NodeId>,
    /// Serials that were revoked in a time that this ledger lost.
    barred: BTreeSet<u64>,
    /// All that were revoked, in the order of the list, which grows at its end.
    listed: Vec<u64>,
    on_list: BTreeSet<u64>,
    /// When the last of them were put on the list without the operators' signatures.
    lately: VecDeque<Time>,
    /// Certificates whose revocation was decided, and is not in the ledger yet.
    promised: usize,
    /// What the operators signed last, for the list as it was then.
    warrant: Option<Envelope>,
    /// Nodes that were enrolled as copies of one, or of its copies.
    copies: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// When nodes were given their last certificates.
    renewals: BTreeMap<NodeId, VecDeque<Time>>,
    restored: bool,
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
            barred: BTreeSet::new(),
            listed: Vec::new(),
            on_list: BTreeSet::new(),
            lately: VecDeque::new(),
            promised: 0,
            warrant: None,
            copies: BTreeMap::new(),
            renewals: BTreeMap::new(),
            restored: false,
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
                let first = enrolled.token.strip_prefix(COPY);
                if let Some(first) = first.and_then(|first| first.parse().ok()) {
                    self.copies.entry(first).or_default().insert(enrolled.node);
                }
                self.serials
                    .entry(enrolled.node)
                    .or_default()
                    .extend(serial.ok().map(|serial| (serial, enrolled.token.clone())));
                self.relist(&enrolled.node, time);
            }
            LedgerEvent::Renewed { node, serial } => {
                let serial = u64::from_str_radix(serial, 16);
                let by = serial.ok().map(|serial| (serial, RENEWAL.to_owned()));
                self.serials.entry(*node).or_default().extend(by);
                let renewals = self.renewals.entry(*node).or_default();
                renewals.push_back(time);
                while renewals.len() > RENEWALS_MAX {
                    renewals.pop_front();
                }
                self.relist(node, time);
            }
            LedgerEvent::Revoked { node, .. } => {
                self.revoked.insert(*node);
                self.relist(node, time);
                self.revocations += 1;
                self.last = time;
            }
            LedgerEvent::Warranted { envelope } => {
                self.warrant = Some(envelope.clone());
                self.lately.clear();
                // The next list says more, be it by this alone.
                self.revocations += 1;
                self.last = time;
            }
            LedgerEvent::Barred { serials, number } => {
                let serials = serials.iter();
                let serials = serials.filter_map(|serial| u64::from_str_radix(serial, 16).ok());
                let serials: Vec<u64> = serials.collect();
                self.list_more(&serials, None);
                self.barred.extend(serials);
                // The next list says more than that one, or as much under another date.
                self.revocations = self.revocations.max(*number) + 1;
                self.last = time;
            }
            LedgerEvent::Restored { .. } => self.restored = true,
            _ => {}
        }
    }

    /// Puts on the list what a revoked node was given and is not there yet.
    fn relist(&mut self, node: &NodeId, time: Time) {
        if self.is_revoked(node) {
            self.list_more(&self.given(node), Some(time));
        }
    }

    fn given(&self, node: &NodeId) -> Vec<u64> {
        let given = self.serials.get(node).into_iter().flatten();
        given.map(|(serial, _)| *serial).collect()
    }

    fn list_more(&mut self, serials: &[u64], at: Option<Time>) {
        for serial in serials {
            if self.on_list.insert(*serial) {
                self.listed.push(*serial);
                self.lately.extend(at);
            }
        }
        while self.lately.len() > REVOCATIONS_PER_DAY_MAX {
            self.lately.pop_front();
        }
    }

    /// Whether these nodes may be revoked now without the operators' signatures: no more than
    /// [`REVOCATIONS_PER_DAY_MAX`] certificates within a day. If so, they are counted.
    pub fn may_revoke(&mut self, nodes: &[NodeId], now: Time) -> bool {
        let more: usize = nodes
            .iter()
            .filter(|node| !self.is_revoked(node))
            .map(|node| self.given(node).len())
            .sum();
        let today = self.lately.iter().filter(|at| now.since(**at) < DAY);
        let fits = self.promised + more + today.count() <= REVOCATIONS_PER_DAY_MAX;
        self.promised += if fits { more } else { 0 };
        fits
    }

    /// All that was decided is in the ledger.
    pub fn settled(&mut self) {
        self.promised = 0;
    }

    /// Whether the warrant is about this list.
    pub fn warrant_holds(&self) -> bool {
        let warrant = self.warrant.as_ref();
        let said = warrant.and_then(|w| serde_json::from_slice::<MassRevocation>(&w.payload).ok());
        said.is_some_and(|said| said.covers(&self.listed) > 0 || said.certificates == 0)
    }

    /// What the operators sign, to revoke these nodes and their copies: all of them, the certificates that
    /// are on the list then, and the digest of these.
    pub fn as_many(&self, nodes: &[NodeId]) -> (Vec<NodeId>, u32, Hash) {
        let copies = nodes.iter().flat_map(|node| self.copies_of(node));
        let mut all: Vec<NodeId> = Vec::new();
        let mut known = BTreeSet::new();
        for node in nodes.iter().copied().chain(copies) {
            if !self.is_revoked(&node) && known.insert(node) {
                all.push(node);
            }
        }
        let (certificates, list) = self.with(&all);
        (all, certificates, list)
    }

    /// The list once these nodes are revoked, too: certificates, and their digest.
    fn with(&self, nodes: &[NodeId]) -> (u32, Hash) {
        let mut listed = self.listed.clone();
        let more = nodes.iter().flat_map(|node| self.given(node));
        listed.extend(more.filter(|serial| !self.on_list.contains(serial)));
        (listed.len() as u32, revocation::digest(&listed))
    }

    /// Whether a statement still says what the list will be.
    pub fn fits(&self, statement: &MassRevocation) -> bool {
        self.with(&statement.nodes) == (statement.certificates, statement.list)
    }

    /// What a revocation list of the fleet says that this ledger does not: all serials on it, the nodes of
    /// those that are known, and its number. `None` if there is nothing new in it.
    ///
    /// # Errors
    /// One line, when it is no list, or not the fleet's.
    pub fn news_of(&self, document: &[u8]) -> Result<Option<ListNews>, String> {
        let (der, _) = revocation::parts(document);
        let (number, serials) = self.admission.listed(&der).map_err(|e| e.to_string())?;
        if number <= self.revocations {
            return Ok(None);
        }
        let on_it: BTreeSet<u64> = serials.iter().copied().collect();
        let nodes = self.serials.iter();
        let nodes = nodes.filter(|(_, held)| held.iter().any(|(serial, _)| on_it.contains(serial)));
        Ok(Some(ListNews {
            nodes: nodes.map(|(node, _)| *node).collect(),
            serials: serials
                .iter()
                .map(|serial| format!("{serial:016x}"))
                .collect(),
            number,
        }))
    }

    /// The serial that a node was admitted by though the ledger does not know it: the node was enrolled,
    /// or its certificate renewed, in a time that was lost. The word of the CA in use counts, of no other:
    /// whoever took its key made machines that nobody enrolled.
    pub fn lost(&self, node: &NodeId) -> Option<u64> {
        if !self.restored || self.is_revoked(node) {
            return None;
        }
        self.admission
            .issuer_of_node(node)
            .filter(|issuer| *issuer == Issuer::InUse)?;
        let serial = self.admission.serial_of(node)?;
        (!self.barred.contains(&serial) && !self.was_given(node, serial)).then_some(serial)
    }

    /// Whether a node was ever enrolled by somebody's leave: by a token, or as the copy of one that was.
    fn was_let_in(&self, node: &NodeId) -> bool {
        let mut given = self.serials.get(node).into_iter().flatten();
        given.any(|(_, by)| match by.strip_prefix(COPY) {
            // The first one, which was no copy itself.
            Some(first) => first.parse().is_ok_and(|first| {
                let mut given = self.serials.get(&first).into_iter().flatten();
                given.any(|(_, by)| by_token(by))
            }),
            None => by_token(by),
        })
    }

    fn was_given(&self, node: &NodeId, serial: u64) -> bool {
        let mut given = self.serials.get(node).into_iter().flatten();
        given.any(|(held, _)| *held == serial)
    }

    /// What stands in the ledger in place of a token for a copy of `node`: it names the first one, which was
    /// no copy itself. `None` if that one has [`COPIES_MAX`] already.
    pub fn as_copy_of(&self, node: &NodeId, copy: &NodeId) -> Option<String> {
        let given = self.serials.get(node).into_iter().flatten();
        let mut first = given.filter_map(|(_, by)| by.strip_prefix(COPY)?.parse().ok());
        let first: NodeId = first.next_back().unwrap_or(*node);
        let room = self
            .copies
            .get(&first)
            .is_none_or(|copies| copies.len() < COPIES_MAX || copies.contains(copy));
        room.then(|| format!("{COPY}{first}"))
    }

    /// Nodes that were enrolled as copies of `node`, or of its copies, and are not revoked.
    pub fn copies_of(&self, node: &NodeId) -> Vec<NodeId> {
        let copies = self.copies.get(node).into_iter().flatten();
        copies
            .filter(|copy| !self.is_revoked(copy))
            .copied()
            .collect()
    }

    /// Whose key a certificate proves, if it was given here and not taken back; its time may be over. Its
    /// serial number, too, if it was given in a time that the ledger lost.
    ///
    /// What another CA than the one in use issued counts as far as the ledger says who was given it, and
    /// that somebody let that node in: whoever took that CA's key finds no way to the next one.
    ///
    /// # Errors
    /// One line.
    pub fn proves(&self, leaf: &CertificateDer<'_>) -> Result<(NodeId, Option<u64>), String> {
        let never = "its certificate was never given here, or was taken back";
        let issuer = self.admission.issuer_of(leaf);
        let (node, serial) = match issuer {
            Issuer::InUse | Issuer::Older => self.admission.proves(leaf),
            Issuer::Gone => Admission::claims(leaf),
        }
        .map_err(|e| e.to_string())?;
        let lost = self.restored && issuer == Issuer::InUse && !self.barred.contains(&serial);
        match (self.may_leave(&node, serial), lost) {
            (true, _) if issuer != Issuer::InUse && !self.was_let_in(&node) => Err(
                "it was taken in after a restore, by a CA that was replaced since, and by nobody's leave".into(),
            ),
            (true, _) => Ok((node, None)),
            (_, true) if !self.is_revoked(&node) => Ok((node, Some(serial))),
            _ => Err(never.into()),
        }
    }

    /// Whether a node is of this fleet: somebody has to have given it a certificate, and taken none back.
    pub fn knows(&self, node: &NodeId) -> bool {
        self.serials.contains_key(node) && !self.is_revoked(node)
    }

    /// Whether a node was renewed too often within so long before `now`.
    pub fn renewed_too_often(&self, node: &NodeId, within: Span, now: Time) -> bool {
        let given = self.renewals.get(node);
        let full = given.filter(|given| given.len() >= RENEWALS_MAX);
        full.and_then(VecDeque::front)
            .is_some_and(|first| now.since(*first) < within)
    }

    /// From now on certificates of these CAs are honoured here, and lists are signed by `in_use`.
    ///
    /// # Errors
    /// One line, when one of them is no certificate.
    pub fn trust_issuers(
        &mut self,
        cas: Vec<CertificateDer<'static>>,
        in_use: Arc<IssuingCa>,
    ) -> Result<(), String> {
        let taken = self.admission.set_issuing_cas(cas);
        taken.map_err(|e| e.to_string())?;
        self.ca = in_use;
        Ok(())
    }

    /// Makes the list that follows from all revocations so far, and puts it in force here.
    ///
    /// # Errors
    /// One line, when the CA cannot sign it.
    pub fn renew_list(&mut self) -> Result<Hash, String> {
        let validity = Validity {
            not_before: self.last,
            not_after: self.last + LIST_LIFE,
        };
        let made = self.ca.revoke(&self.listed, self.revocations, validity);
        let der = made.map_err(|e| format!("the revocation list cannot be made: {e}"))?;
        self.admission
            .set_revocations(&der)
            .map_err(|e| format!("the revocation list is not taken: {e}"))?;
        let bytes = match &self.warrant {
            Some(warrant) => Warranted {
                list: der,
                warrant: warrant.clone(),
            }
            .to_bytes(),
            None => der,
        };
        let list = List {
            digest: Hash::of(&bytes),
            bytes: Arc::new(bytes),
        };
        let digest = list.digest;
        self.list = Some(list);
        Ok(digest)
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
        // The origin was not: it is only renewed.
        let enrolled = |given: &&Vec<(u64, String)>| given.iter().any(|(_, by)| by != RENEWAL);
        self.serials.values().filter(enrolled).count() as u32
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
        !self.is_revoked(node) && self.was_given(node, serial)
    }

    /// How often a token enrolled a node.
    pub fn enrolments_by(&self, node: &NodeId, token: &str) -> usize {
        let known = self.serials.get(node).into_iter().flatten();
        known.filter(|(_, by)| by == token).count()
    }
}

fn by_token(by: &str) -> bool {
    by != RENEWAL && by != RESTORED && !by.starts_with(COPY)
}
