//! Machines that the fleet does not manage and that may tell what they are: a contractor's laptop, an
//! appliance. Such a machine gets a verdict and nothing else: no certificate, no order, no content.
//!
//! It proves a key of its own, so that the same machine is known again. What it tells it claims of itself;
//! a verdict says what follows from the claims by the rules of the signed topology, and no rollout does.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use crate::enroll::proof;
use crate::envelope::Envelope;
use crate::filter::Filter;
use crate::ids::{FleetId, Hash, NodeId, SiteId};
use crate::limits::{
    ATTRIBUTES_MAX, FOREIGN_INVENTORY_MAX_BYTES, FOREIGN_NAME_MAX_BYTES, FOREIGN_RULES_MAX,
    FOREIGN_SOFTWARE_MAX, LABELS_MAX, TEXT_MAX_BYTES,
};
use crate::time::Time;
use crate::trust::{Statement, header};

/// What every foreign machine must be; stands in the signed [`crate::topology::Topology`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForeignRule {
    /// For people; each once.
    pub name: String,
    /// What it asks for.
    #[serde(flatten)]
    pub demand: Demand,
}

/// What a rule asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// The machine's inventory fits this filter.
    Require(Filter),
    /// Where the product's current release is for the machine, the machine says to have it or a later one.
    Product(SiteId),
}

/// Whether rules are such as a topology may hold.
///
/// # Errors
/// A sentence on what is wrong.
pub fn check_rules(rules: &[ForeignRule]) -> Result<(), String> {
    if rules.len() > FOREIGN_RULES_MAX {
        return Err(format!(
            "at most {FOREIGN_RULES_MAX} rules for foreign machines are possible"
        ));
    }
    let mut names: Vec<&str> = rules.iter().map(|rule| rule.name.as_str()).collect();
    for name in &names {
        if name.is_empty() || name.len() > FOREIGN_NAME_MAX_BYTES || !is_line(name) {
            return Err(format!(
                "{name:?} is no name of a rule: one line of 1 to {FOREIGN_NAME_MAX_BYTES} bytes"
            ));
        }
    }
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(format!("rule {:?} stands twice", twice[0])),
        None => Ok(()),
    }
}

/// What a foreign machine says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ForeignInventory {
    /// Labels, as whoever runs it gave them.
    pub labels: BTreeMap<String, String>,
    /// Attributes by name; see [`crate::inventory::NAMES`]. `os` and `arch` are there.
    pub attributes: BTreeMap<String, String>,
    /// Versions of what is installed, by product.
    pub software: BTreeMap<String, String>,
}

impl ForeignInventory {
    /// Whether it keeps to the limits and says what every verdict needs.
    ///
    /// # Errors
    /// A sentence on what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let maps = [
            ("labels", &self.labels, LABELS_MAX),
            ("attributes", &self.attributes, ATTRIBUTES_MAX),
            ("products", &self.software, FOREIGN_SOFTWARE_MAX),
        ];
        let mut bytes = 0;
        for (what, map, most) in maps {
            if map.len() > most {
                return Err(format!("its inventory has more than {most} {what}"));
            }
            for text in map.iter().flat_map(|(key, value)| [key, value]) {
                if text.len() > TEXT_MAX_BYTES || !is_line(text) {
                    return Err(format!(
                        "one of the {what} is no line of at most {TEXT_MAX_BYTES} bytes"
                    ));
                }
                bytes += text.len();
            }
        }
        if bytes > FOREIGN_INVENTORY_MAX_BYTES {
            return Err(format!(
                "its inventory has {bytes} bytes, and {FOREIGN_INVENTORY_MAX_BYTES} are the most"
            ));
        }
        match ["os", "arch"].map(|name| self.attributes.get(name)) {
            [Some(os), Some(arch)] if !os.is_empty() && !arch.is_empty() => Ok(()),
            _ => Err("its inventory does not say os and arch".into()),
        }
    }
}

fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A foreign machine reports: `POST /v1/report`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForeignReport {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it reports to.
    pub fleet: FleetId,
    /// The token's id.
    pub token_id: String,
    /// The token's secret.
    pub token_secret: String,
    /// The machine's key, by which it is known again; no node's.
    pub machine: NodeId,
    /// What it says of itself.
    pub inventory: ForeignInventory,
    /// ed25519 signature by the machine's key over [`ForeignReport::signing_bytes`], hex.
    pub proof: String,
}

impl ForeignReport {
    /// What the proof signs: everything else.
    pub fn signing_bytes(&self) -> Vec<u8> {
        let proof = String::new();
        let bare = ForeignReport {
            proof,
            ..self.clone()
        };
        proof::signing_bytes("report", &bare)
    }

    /// Sets the proof.
    pub fn prove(&mut self, key: &SigningKey) {
        self.proof = proof::make(key, &self.signing_bytes());
    }

    /// Whether who reports holds the key that it names.
    pub fn proven(&self) -> bool {
        proof::holds(&self.proof, self.machine, &self.signing_bytes())
    }

    /// Names the report in its verdict.
    pub fn digest(&self) -> Hash {
        Hash::of(&self.signing_bytes())
    }
}

/// What it gets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForeignReply {
    /// Format version, 1.
    pub spec_version: u32,
    /// Root metadata from version 1 to the newest, rising.
    pub roots: Vec<Envelope>,
    /// A [`ForeignVerdict`], signed by the online key.
    pub verdict: Envelope,
}

/// What a rule says of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The machine is as the rule asks.
    Met,
    /// It is not.
    Unmet,
    /// The rule does not concern it.
    NotApplicable,
}

/// One rule's word.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Judged {
    /// Name of the rule.
    pub rule: String,
    /// What it says.
    pub finding: Finding,
    /// What is missing, or why the rule does not concern the machine; empty where it is met.
    pub why: String,
}

/// Whether a machine is as all rules ask.
pub fn complies(rules: &[Judged]) -> bool {
    rules.iter().all(|rule| rule.finding != Finding::Unmet)
}

/// What follows from a report, signed online: a word for its machine, on which nothing stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForeignVerdict {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that speaks.
    pub fleet: FleetId,
    /// Of whom.
    pub machine: NodeId,
    /// Digest of the report that was judged.
    pub report: Hash,
    /// When.
    pub given: Time,
    /// Every rule's word, as they stand in the topology.
    pub rules: Vec<Judged>,
}

impl Statement for ForeignVerdict {
    header!("application/vnd.tidegate.foreign-verdict+json", Coordinator);
    fn check(&self) -> Result<(), String> {
        match self.rules.len() {
            0..=FOREIGN_RULES_MAX => Ok(()),
            _ => Err(format!(
                "a verdict has the word of at most {FOREIGN_RULES_MAX} rules"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fleet, node, node_key};

    fn inventory() -> ForeignInventory {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        ForeignInventory {
            attributes: [pair("os", "linux"), pair("arch", "x86_64")].into(),
            ..ForeignInventory::default()
        }
    }

    #[test]
    fn a_report_is_proven_by_the_key_that_it_names_whole_and_for_its_fleet() {
        let mut report = ForeignReport {
            spec_version: 1,
            fleet: Fleet::new(1).id(),
            token_id: "t1".into(),
            token_secret: "secret".into(),
            machine: node(1),
            inventory: inventory(),
            proof: String::new(),
        };
        report.prove(&node_key(2));
        assert!(!report.proven(), "by another's key");
        report.prove(&node_key(1));
        assert!(report.proven());
        let changes: [fn(&mut ForeignReport); 4] = [
            |r| r.fleet = Fleet::new(2).id(),
            |r| r.token_id.push('x'),
            |r| drop(r.inventory.attributes.insert("os".into(), "bsd".into())),
            |r| drop(r.inventory.software.insert("app".into(), "9".into())),
        ];
        for change in changes {
            let mut changed = report.clone();
            change(&mut changed);
            assert!(!changed.proven(), "{changed:?}");
        }
    }

    #[test]
    fn an_inventory_keeps_to_its_limits_and_says_its_platform() {
        assert_eq!(inventory().check(), Ok(()));
        let with = |change: &dyn Fn(&mut ForeignInventory)| {
            let mut changed = inventory();
            change(&mut changed);
            changed.check()
        };
        let many = |n: usize, length: usize| -> BTreeMap<String, String> {
            (0..n)
                .map(|n| (format!("p{n}"), "1".repeat(length)))
                .collect()
        };
        assert!(with(&|i| i.software = many(FOREIGN_SOFTWARE_MAX, 1)).is_ok());
        let over = with(&|i| i.software = many(FOREIGN_SOFTWARE_MAX + 1, 1));
        assert!(over.unwrap_err().contains("products"));
        assert!(with(&|i| i.labels = many(LABELS_MAX + 1, 1)).is_err());
        assert!(with(&|i| i.attributes.extend(many(ATTRIBUTES_MAX, 1))).is_err());
        let heavy = with(&|i| i.labels = many(20, TEXT_MAX_BYTES));
        assert!(heavy.unwrap_err().contains("bytes"));
        assert!(with(&|i| i.labels = many(1, TEXT_MAX_BYTES + 1)).is_err());
        assert!(with(&|i| drop(i.labels.insert("a".into(), "x\u{1b}[2J".into()))).is_err());
        assert!(with(&|i| drop(i.attributes.remove("arch"))).is_err());
    }

    #[test]
    fn rules_are_few_and_each_has_a_name_of_its_own() {
        let rule = |name: String| ForeignRule {
            name,
            demand: Demand::Require("os=linux".parse().unwrap()),
        };
        let rules =
            |n: usize| -> Vec<ForeignRule> { (0..n).map(|n| rule(n.to_string())).collect() };
        assert!(check_rules(&rules(FOREIGN_RULES_MAX)).is_ok());
        assert!(check_rules(&rules(FOREIGN_RULES_MAX + 1)).is_err());
        let twice = check_rules(&[rule("a".into()), rule("a".into())]);
        assert!(twice.unwrap_err().contains("twice"));
        for name in [
            "".to_owned(),
            "x".repeat(FOREIGN_NAME_MAX_BYTES + 1),
            "a\nb".into(),
        ] {
            assert!(check_rules(&[rule(name)]).is_err());
        }
        let text = serde_json::to_string(&rule("linux".into())).unwrap();
        assert_eq!(text, r#"{"name":"linux","require":"os=linux"}"#);
    }
}
