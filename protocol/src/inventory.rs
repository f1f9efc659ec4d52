//! What a node says of itself, signed: the attributes that filters and cohorts ask for.
//!
//! An inventory goes from its node to the coordinator alone, is never gossiped, and stands in the ledger:
//! who a rollout concerns follows from it. The names below are all there are, beside one for each label,
//! driver and release that is assessed; a program that knows more names tells them to one that does not, which keeps and ignores them.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, KeySignature, verify};
use crate::ids::{FleetId, Hash, NodeId, Seq, SiteId};
use crate::limits::{ATTRIBUTES_MAX, INVENTORY_MAX_BYTES, LABELS_MAX, TEXT_MAX_BYTES};
use crate::status::StatusError;
use crate::trust::Verified;
use crate::versioned::Versioned;

/// Attributes that have one value. `site` is the topology's word, the rest is the node's:
///
/// | name | what |
/// |---|---|
/// | `site` | the node's site |
/// | `hostname` | name of the machine |
/// | `os`, `arch` | as `std::env::consts` has them: `linux`, `x86_64` |
/// | `os.name`, `os.version`, `os.build` | `ID`, `VERSION_ID` and, without a `BUILD_ID`, the kernel's release |
/// | `vendor`, `model` | as the firmware names them |
/// | `ring`, `criticality` | as `node.json` has them; criticality is `mission_critical`, `standard` or `low` |
/// | `disk.free_gib` | free space for the node's directory, whole GiB |
/// | `power` | `mains` or `battery` |
/// | `link` | `metered` or `unmetered` |
/// | `lan` | `isolated` where the network keeps the machines of a site apart |
/// | `zone` | IANA time zone |
/// | `agent` | version of the node's program |
/// | `assess.` and the first ten digits of a release's digest | see [`Need`] |
pub const NAMES: [&str; 17] = [
    "site",
    "hostname",
    "os",
    "arch",
    "os.name",
    "os.version",
    "os.build",
    "vendor",
    "model",
    "ring",
    "criticality",
    "disk.free_gib",
    "power",
    "link",
    "lan",
    "zone",
    "agent",
];

/// Stands before a label's key.
const LABEL: &str = "label.";
/// Stands before the name of a driver that is in use; its value is the driver's version.
const DRIVER: &str = "driver.";

/// Stands before the short digest of a release that is assessed.
const ASSESS: &str = "assess.";

/// A node's answer to the question whether it needs a release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// It is for this node, and not installed.
    Needs,
    /// It is installed, or a newer one of its product is.
    AlreadyInstalled,
    /// It is not for this node.
    NotApplicable,
}

impl Need {
    /// All there are.
    pub const ALL: [Need; 3] = [Need::Needs, Need::AlreadyInstalled, Need::NotApplicable];

    /// As the attribute's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Need::Needs => "needs",
            Need::AlreadyInstalled => "already_installed",
            Need::NotApplicable => "not_applicable",
        }
    }

    /// The answer that a value stands for; none if it is no answer.
    pub fn of(value: &str) -> Option<Need> {
        Need::ALL.into_iter().find(|need| need.as_str() == value)
    }

    /// Name of the attribute that answers for a release.
    pub fn attribute(release: &Hash) -> String {
        format!("{ASSESS}{}", release.short())
    }
}

/// Whether filters may ask for it.
pub fn is_name(name: &str) -> bool {
    let prefixed = |prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty())
    };
    NAMES.contains(&name) || prefixed(LABEL) || prefixed(DRIVER) || prefixed(ASSESS)
}

/// One node as filters see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Its site.
    pub site: Option<&'a SiteId>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// What else it says of itself, by name.
    pub attributes: &'a BTreeMap<String, String>,
}

impl<'a> Subject<'a> {
    /// The value of an attribute, if the node has it.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        if name == "site" {
            return self.site.map(SiteId::as_str);
        }
        let held = match name.strip_prefix(LABEL) {
            Some(key) => self.labels.get(key),
            None => self.attributes.get(name),
        };
        held.map(String::as_str)
    }
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeInventory {
    /// Who.
    pub node: NodeId,
    /// The highest number wins.
    pub seq: Seq,
    /// Labels, as `node.json` has them.
    pub labels: BTreeMap<String, String>,
    /// Attributes by name; see [`NAMES`].
    pub attributes: BTreeMap<String, String>,
}

impl Versioned for NodeInventory {
    const MAGIC: [u8; 4] = *b"TGNI";
    const VERSION: u8 = 1;
    const MAX_BYTES: usize = INVENTORY_MAX_BYTES;
}

/// An inventory with its node's signature. Nothing in it has been checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SignedInventory {
    /// The encoded [`NodeInventory`].
    pub body: Vec<u8>,
    /// ed25519 signature of 64 bytes by the node's key over [`INVENTORY_CONTEXT`], the fleet's id and the body.
    pub sig: Vec<u8>,
}

/// Stands before fleet and body when an inventory is signed.
pub const INVENTORY_CONTEXT: &[u8] = b"tidegate inventory v1\0";

impl SignedInventory {
    /// An inventory that is still to be signed.
    pub fn unsigned(inventory: &NodeInventory) -> SignedInventory {
        SignedInventory {
            body: inventory.to_bytes(),
            sig: Vec::new(),
        }
    }

    fn message(&self, fleet: FleetId) -> Vec<u8> {
        [INVENTORY_CONTEXT, fleet.as_bytes(), &self.body].concat()
    }

    /// Signs it with the node's key.
    pub fn sign(&mut self, fleet: FleetId, key: &SigningKey) {
        self.sig = key.sign(&self.message(fleet)).to_bytes().to_vec();
    }

    /// Believes the inventory if the node that it names signed it for this fleet.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, fleet: FleetId) -> Result<Verified<NodeInventory>, StatusError> {
        let inventory = NodeInventory::from_bytes(&self.body)?;
        let long = |map: &BTreeMap<String, String>, max: usize| {
            let texts = map.iter().flat_map(|(key, value)| [key, value]);
            map.len() > max || texts.into_iter().any(|text| text.len() > TEXT_MAX_BYTES)
        };
        if long(&inventory.labels, LABELS_MAX) || long(&inventory.attributes, ATTRIBUTES_MAX) {
            return Err(StatusError::TooLong(inventory.node));
        }
        if !verify(inventory.node.into(), &self.message(fleet), &self.sig) {
            return Err(StatusError::Signature(inventory.node));
        }
        let mut envelope =
            Envelope::unsigned("application/vnd.tidegate.inventory", self.body.clone());
        envelope.signatures.push(KeySignature {
            keyid: inventory.node.into(),
            sig: self.sig.clone(),
        });
        Ok(Verified::new(inventory, envelope))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fleet, node, node_key, seq};

    fn inventory() -> NodeInventory {
        NodeInventory {
            node: node(1),
            seq: seq(1),
            labels: BTreeMap::from([("ring".into(), "early".into())]),
            attributes: BTreeMap::from([("os.name".into(), "debian".into())]),
        }
    }

    fn check(inventory: &NodeInventory, signer: u64, fleet: u64) -> Result<NodeInventory, String> {
        let mut signed = SignedInventory::unsigned(inventory);
        signed.sign(Fleet::new(1).id(), &node_key(signer));
        let verified = signed.verify(Fleet::new(fleet).id());
        verified.map(|v| (*v).clone()).map_err(|e| e.to_string())
    }

    #[test]
    fn an_inventory_is_believed_of_its_own_node_in_its_own_fleet() {
        assert_eq!(check(&inventory(), 1, 1), Ok(inventory()));
        assert!(
            check(&inventory(), 2, 1)
                .unwrap_err()
                .starts_with("signature")
        );
        assert!(
            check(&inventory(), 1, 2)
                .unwrap_err()
                .starts_with("signature")
        );
    }

    #[test]
    fn more_or_longer_attributes_than_the_limits_are_refused() {
        let many = |n: usize| {
            (0..n)
                .map(|n| (format!("driver.d{n}"), "1".into()))
                .collect()
        };
        let with = |attributes| NodeInventory {
            attributes,
            ..inventory()
        };
        assert!(check(&with(many(ATTRIBUTES_MAX)), 1, 1).is_ok());
        assert!(
            check(&with(many(ATTRIBUTES_MAX + 1)), 1, 1)
                .unwrap_err()
                .starts_with("too_long")
        );
        let value = |n: usize| BTreeMap::from([("model".to_owned(), "x".repeat(n))]);
        assert!(check(&with(value(TEXT_MAX_BYTES)), 1, 1).is_ok());
        assert!(
            check(&with(value(TEXT_MAX_BYTES + 1)), 1, 1)
                .unwrap_err()
                .starts_with("too_long")
        );
        let labels = |n: usize| NodeInventory {
            labels: many(n),
            ..inventory()
        };
        assert!(check(&labels(LABELS_MAX), 1, 1).is_ok());
        assert!(
            check(&labels(LABELS_MAX + 1), 1, 1)
                .unwrap_err()
                .starts_with("too_long")
        );
    }

    #[test]
    fn labels_drivers_and_the_listed_names_can_be_asked_for() {
        assert!(NAMES.iter().all(|name| is_name(name)));
        assert!(is_name("label.x") && is_name("driver.x"));
        assert!(is_name(&Need::attribute(&Hash::of(b"release"))) && !is_name("assess."));
        assert!(
            Need::ALL
                .iter()
                .all(|need| Need::of(need.as_str()) == Some(*need))
        );
        assert!(!is_name("label.") && !is_name("driver.") && !is_name("x") && !is_name(""));
    }
}
