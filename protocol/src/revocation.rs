//! What takes back many nodes at once: a statement under the `plans` threshold.
//!
//! The revocation list stands under the issuing CA's key, and the bulletin that names it under the online key;
//! both lie at the coordinator. Whoever took them could revoke the whole fleet, and every node would turn
//! every other away. So a list may grow by [`REVOCATIONS_BELIEVED`] certificates a day on their word alone;
//! what is more needs a warrant, which travels with the list ([`Warranted`]).
//!
//! A list only grows at its end. A warrant vouches for a beginning of it, so it serves every later list as well,
//! and whoever was away needs the newest one alone.
//!
//! [`REVOCATIONS_BELIEVED`]: crate::limits::REVOCATIONS_BELIEVED

use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::ids::{FleetId, Hash, NodeId};
use crate::limits::{CONTROL_MAX_BYTES, MASS_REVOCATION_MAX, REVOKED_MAX, TEXT_MAX_BYTES};
use crate::time::Time;
use crate::trust::{Statement, header};
use crate::versioned::Versioned;

/// Takes back the certificates of many nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MassRevocation {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// The nodes, in the order in which their certificates are put on the list; none vouches for the list as
    /// it is.
    pub nodes: Vec<NodeId>,
    /// Certificates that are on the list then, those that were on it before counted.
    pub certificates: u32,
    /// [`digest`] of their serial numbers, in the list's order.
    pub list: Hash,
    /// Why, for people.
    pub reason: String,
    /// Made at.
    pub created: Time,
}

impl Statement for MassRevocation {
    header!("application/vnd.tidegate.mass-revocation+json", Plans);
    fn check(&self) -> Result<(), String> {
        let mut unique = self.nodes.clone();
        unique.sort_unstable();
        unique.dedup();
        if self.nodes.len() > MASS_REVOCATION_MAX {
            return Err(format!("it is about more than {MASS_REVOCATION_MAX} nodes"));
        }
        if unique.len() != self.nodes.len() {
            return Err("it names a node twice".into());
        }
        if self.certificates as usize > REVOKED_MAX {
            return Err(format!("a list has at most {REVOKED_MAX} certificates"));
        }
        match self.reason.len() > TEXT_MAX_BYTES {
            true => Err("the reason is too long".into()),
            false => Ok(()),
        }
    }
}

impl MassRevocation {
    /// How many serial numbers at the beginning of a list it vouches for: all or none of its own.
    pub fn covers(&self, serials: &[u64]) -> usize {
        let first = serials.get(..self.certificates as usize);
        first
            .filter(|first| digest(first) == self.list)
            .map_or(0, <[u64]>::len)
    }
}

/// BLAKE3 of serial numbers in their order, each as eight bytes, big-endian.
pub fn digest(serials: &[u64]) -> Hash {
    let bytes: Vec<u8> = serials.iter().flat_map(|n| n.to_be_bytes()).collect();
    Hash::of(&bytes)
}

/// A revocation list with the warrant for the many that are on it. A list that needs none travels as it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Warranted {
    /// The list, DER.
    pub list: Vec<u8>,
    /// A [`MassRevocation`], signed.
    pub warrant: Envelope,
}

impl Versioned for Warranted {
    const MAGIC: [u8; 4] = *b"TGWL";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = CONTROL_MAX_BYTES;
}

/// The list (DER) in a document, and its warrant if it has one. Believes neither.
pub fn parts(document: &[u8]) -> (Vec<u8>, Option<Envelope>) {
    match Warranted::from_bytes(document) {
        Ok(both) if both.warrant.within_limits().is_ok() => (both.list, Some(both.warrant)),
        // Whatever else it is, whoever takes lists says so.
        _ => (document.to_vec(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{CREATED, Fleet, node};
    use crate::trust::TrustError;

    fn statement(fleet: &Fleet, serials: &[u64]) -> MassRevocation {
        MassRevocation {
            spec_version: 1,
            fleet: fleet.id(),
            nodes: vec![node(2), node(1)],
            certificates: serials.len() as u32,
            list: digest(serials),
            reason: "stolen in transit".into(),
            created: CREATED,
        }
    }

    #[test]
    fn a_warrant_covers_a_beginning_of_the_list_or_nothing() {
        let fleet = Fleet::new(1);
        let warrant = statement(&fleet, &[7, 3, 9]);
        assert_eq!(warrant.covers(&[7, 3, 9]), 3);
        assert_eq!(warrant.covers(&[7, 3, 9, 1, 2]), 3);
        for other in [&[][..], &[7, 3], &[3, 7, 9], &[7, 3, 8, 9], &[1, 7, 3, 9]] {
            assert_eq!(warrant.covers(other), 0, "{other:?}");
        }
    }

    #[test]
    fn operators_sign_it_and_it_keeps_to_its_limits() {
        let fleet = Fleet::new(1);
        let fine = statement(&fleet, &[1]);
        let check = |change: &dyn Fn(&mut MassRevocation)| {
            let mut changed = fine.clone();
            change(&mut changed);
            fleet
                .trust()
                .verify::<MassRevocation>(&fleet.sign(&changed))
        };
        assert!(check(&|_| {}).is_ok());
        let many = |n: usize| (0..n as u64).map(node).collect::<Vec<_>>();
        let refused: [&dyn Fn(&mut MassRevocation); 4] = [
            &|m| m.nodes = vec![node(1), node(2), node(1)],
            &|m| m.nodes = many(MASS_REVOCATION_MAX + 1),
            &|m| m.certificates = REVOKED_MAX as u32 + 1,
            &|m| m.reason = "x".repeat(TEXT_MAX_BYTES + 1),
        ];
        for (place, change) in refused.iter().enumerate() {
            let found = check(change).unwrap_err();
            assert!(
                matches!(found, TrustError::Malformed(_)),
                "{place}: {found}"
            );
        }
        // The largest one fits an envelope.
        assert!(check(&|m| m.nodes = many(MASS_REVOCATION_MAX)).is_ok());
        assert!(check(&|m| m.nodes.clear()).is_ok());
        let mut one = fleet.sign(&fine);
        one.signatures.truncate(1);
        let found = fleet.trust().verify::<MassRevocation>(&one).unwrap_err();
        assert_eq!(found.event(), "threshold");
    }

    #[test]
    fn a_document_is_a_list_with_or_without_a_warrant() {
        let fleet = Fleet::new(1);
        let warrant = fleet.sign(&statement(&fleet, &[1]));
        let both = Warranted {
            list: vec![0x30, 1, 2],
            warrant: warrant.clone(),
        };
        assert_eq!(parts(&both.to_bytes()), (vec![0x30, 1, 2], Some(warrant)));
        assert_eq!(parts(&[0x30, 9]), (vec![0x30, 9], None));
    }
}
