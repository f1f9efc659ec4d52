//! Restart slots: of the nodes of a site that have one role, only so many may be unavailable at a time.
//!
//! A plan says how many ([`SlotRules`]); the nodes of a site share the slots by gossip ([`SlotWord`]), without
//! the coordinator, so that a site that is cut off keeps to them too. What shares a slot is the group, a digest
//! of the attribute and its value ([`SlotRules::group`]): rollouts that name the same attribute share theirs.

use serde::{Deserialize, Serialize};

use crate::ids::{Hash, NodeId, Seq};
use crate::inventory::{Subject, is_name};
use crate::limits::{SLOT_LEASE_MAX, SLOT_LEASE_MIN};
use crate::time::Span;

/// How many nodes may be unavailable at a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotRules {
    /// Nodes with the same value of this attribute, such as `label.role`, share slots; none: all of a site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<String>,
    /// So many of each group in each site.
    pub max_unavailable: u32,
    /// A holder that is not heard of for so long has lost its slot.
    pub lease: Span,
}

/// What a node does with a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SlotStage {
    /// It asks for one, and takes it unless others object in time.
    Claims,
    /// It has one.
    Holds,
    /// It has none any more.
    Frees,
}

/// A node's word about a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SlotWord {
    /// Who.
    pub node: NodeId,
    /// Whose slots.
    pub group: Hash,
    /// What.
    pub stage: SlotStage,
    /// It holds for so long unless it is said again.
    pub lease: Span,
    /// The newest word counts.
    pub seq: Seq,
}

impl SlotRules {
    /// The group of a node that says this of itself. Nodes without the attribute share one group.
    pub fn group(&self, node: &Subject<'_>) -> Hash {
        let per = self.per.as_deref().unwrap_or_default();
        let value = self.per.as_deref().and_then(|name| node.value(name));
        let value = value.unwrap_or_default();
        Hash::of(format!("tidegate slots v1 {} {per} {value}", per.len()).as_bytes())
    }

    /// What whoever reads the plan must find true.
    ///
    /// # Errors
    /// What is out of range.
    pub fn check(&self) -> Result<(), String> {
        if self.max_unavailable == 0 {
            return Err("with no slot at all no node would ever start".into());
        }
        if self.lease < SLOT_LEASE_MIN || self.lease > SLOT_LEASE_MAX {
            let [least, most] = [SLOT_LEASE_MIN, SLOT_LEASE_MAX].map(|s| s.as_millis() / 1000);
            return Err(format!("the lease of a slot is {least} to {most} s"));
        }
        match &self.per {
            Some(name) if !is_name(name) => Err(format!("there is no attribute {name:?}")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rules(per: Option<&str>) -> SlotRules {
        SlotRules {
            per: per.map(str::to_owned),
            max_unavailable: 1,
            lease: SLOT_LEASE_MIN,
        }
    }

    fn group(per: Option<&str>, role: Option<&str>) -> Hash {
        let labels = role.map(|role| ("role".to_owned(), role.to_owned()));
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        let attributes = BTreeMap::new();
        let node = Subject {
            site: None,
            labels: &labels,
            attributes: &attributes,
        };
        rules(per).group(&node)
    }

    #[test]
    fn who_has_the_same_value_shares_a_group_and_who_has_none_shares_another() {
        let role = Some("label.role");
        assert_eq!(group(role, Some("db")), group(role, Some("db")));
        assert_ne!(group(role, Some("db")), group(role, Some("web")));
        assert_ne!(group(role, Some("db")), group(role, None));
        assert_eq!(group(None, Some("db")), group(None, Some("web")));
        assert_ne!(group(None, None), group(role, None));
    }

    #[test]
    fn rules_that_nobody_could_keep_are_refused() {
        assert_eq!(rules(Some("label.role")).check(), Ok(()));
        let none = SlotRules {
            max_unavailable: 0,
            ..rules(None)
        };
        assert!(none.check().is_err());
        let short = SlotRules {
            lease: Span(SLOT_LEASE_MIN.0 - 1),
            ..rules(None)
        };
        assert!(short.check().unwrap_err().contains("60 to 86400 s"));
        let long = SlotRules {
            lease: Span(SLOT_LEASE_MAX.0 + 1),
            ..rules(None)
        };
        assert!(long.check().is_err());
        assert!(rules(Some("rol")).check().unwrap_err().contains("rol"));
    }
}
