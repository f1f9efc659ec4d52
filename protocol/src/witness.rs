//! What members of a site say of others that went silent: a node that claims a success is to be seen alive
//! after it.
//!
//! Each witness keeps one register: everybody whom it does not see any more and who did not say that it
//! goes. The newest number replaces the one before. A word is signed by its witness, so that whoever carries
//! it upward can withhold it and not make it up.

use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, KeySignature, verify};
use crate::ids::{FleetId, NodeId, Seq, SiteId};
use crate::limits::{SILENT_MAX, WITNESSED_BY_MAX};
use crate::positions::rank;
use crate::status::StatusError;
use crate::trust::Verified;
use crate::versioned::Versioned;

/// What one member does not see.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WitnessWord {
    /// Who says it.
    pub witness: NodeId,
    /// In which site.
    pub site: SiteId,
    /// The highest number wins.
    pub seq: Seq,
    /// Who is silent, rising; all of them.
    pub silent: Vec<NodeId>,
}

impl Versioned for WitnessWord {
    const MAGIC: [u8; 4] = *b"TGWW";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = 512 + 32 * SILENT_MAX;
}

/// The witnesses of a node among the members of its site: those that rank first for it, as its neighbours do, so
/// that some of them have a connection with it.
pub fn witnesses_of<'a>(
    node: &NodeId,
    members: impl IntoIterator<Item = &'a NodeId>,
) -> Vec<NodeId> {
    let others = members.into_iter().filter(|member| *member != node);
    let ranked = others.map(|member| (rank("witness", &node.0, member), *member));
    let mut ranked: Vec<(u64, NodeId)> = ranked.collect();
    ranked.sort_unstable();
    ranked.truncate(WITNESSED_BY_MAX);
    ranked.into_iter().map(|(_, member)| member).collect()
}

/// Stands before fleet and body when a word is signed.
pub const WITNESS_CONTEXT: &[u8] = b"tidegate witness v1\0";

/// A word with its witness's signature. Nothing in it has been checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedWord {
    /// The encoded [`WitnessWord`].
    pub body: Vec<u8>,
    /// ed25519 signature by the witness's key over [`WITNESS_CONTEXT`], the fleet and the body; empty until
    /// the body of the node has signed.
    pub sig: Vec<u8>,
}

impl SignedWord {
    /// A word that is still to be signed.
    pub fn unsigned(word: &WitnessWord) -> SignedWord {
        SignedWord {
            body: word.to_bytes(),
            sig: Vec::new(),
        }
    }

    fn message(&self, fleet: FleetId) -> Vec<u8> {
        [WITNESS_CONTEXT, fleet.as_bytes(), &self.body].concat()
    }

    /// Signs it with the witness's key.
    pub fn sign(&mut self, fleet: FleetId, key: &SigningKey) {
        self.sig = key.sign(&self.message(fleet)).to_bytes().to_vec();
    }

    /// Believes the word if the witness that it names signed it.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, fleet: FleetId) -> Result<Verified<WitnessWord>, StatusError> {
        let word = WitnessWord::from_bytes(&self.body)?;
        let witness = word.witness;
        let in_order = word.silent.windows(2).all(|pair| pair[0] < pair[1]);
        if word.silent.len() > SILENT_MAX || !in_order {
            return Err(StatusError::TooLong(witness));
        }
        if !verify(witness.into(), &self.message(fleet), &self.sig) {
            return Err(StatusError::Signature(witness));
        }
        let mut envelope =
            Envelope::unsigned("application/vnd.tidegate.witness", self.body.clone());
        envelope.signatures.push(KeySignature {
            keyid: witness.into(),
            sig: self.sig.clone(),
        });
        Ok(Verified::new(word, envelope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fleet, node, node_key, seq, site};

    fn word(silent: Vec<NodeId>) -> SignedWord {
        SignedWord::unsigned(&WitnessWord {
            witness: node(1),
            site: site("s1"),
            seq: seq(1),
            silent,
        })
    }

    #[test]
    fn a_word_is_believed_of_its_own_witness_within_its_limits() {
        let fleet = Fleet::new(1).id();
        let signed = |silent, key| {
            let mut word = word(silent);
            word.sign(fleet, &node_key(key));
            word
        };
        let mut nodes: Vec<NodeId> = (0..=SILENT_MAX as u64).map(|n| node(n + 5)).collect();
        nodes.sort_unstable();
        assert!(signed(nodes[1..].to_vec(), 1).verify(fleet).is_ok());
        assert!(signed(vec![], 1).verify(fleet).is_ok());
        assert!(signed(nodes.clone(), 1).verify(fleet).is_err(), "too many");
        assert!(signed(vec![nodes[1], nodes[0]], 1).verify(fleet).is_err());
        assert!(signed(vec![nodes[0]; 2], 1).verify(fleet).is_err(), "twice");
        assert!(signed(vec![], 2).verify(fleet).is_err(), "another's key");
        assert!(signed(vec![], 1).verify(Fleet::new(2).id()).is_err());
        assert!(word(vec![]).verify(fleet).is_err(), "not signed");
    }

    #[test]
    fn witnesses_are_few_and_others_for_each_node() {
        let members: Vec<NodeId> = (0..200).map(node).collect();
        let of = |n: u64| witnesses_of(&node(n), &members);
        assert_eq!(of(7).len(), WITNESSED_BY_MAX);
        assert!(!of(7).contains(&node(7)), "nobody is its own");
        assert_ne!(of(7), of(8));
        assert_eq!(witnesses_of(&node(7), &members[5..9]).len(), 3);
    }
}
