//! Enrolment tokens as the ledger has them.

use core::net::IpAddr;
use std::collections::BTreeMap;

use protocol::limits::{LABELS_MAX, TEXT_MAX_BYTES, TOKEN_SUBNETS_MAX};
use protocol::topology::Subnet;
use protocol::{SiteId, Time};
use serde::{Deserialize, Serialize};

/// An enrolment token that was made. Its secret is nowhere on record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TokenMade {
    /// Names it in enrolments.
    pub id: String,
    /// Who made it, by the name of the API token that he showed.
    pub by: String,
    /// How many nodes it serves.
    pub uses: u32,
    /// Until when.
    pub expires: Time,
    /// The site that it is meant for.
    pub site: Option<SiteId>,
    /// It is for machines that report and are no nodes.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub foreign: bool,
    /// What else it asks for.
    #[serde(flatten)]
    pub terms: TokenTerms,
}

/// What a token asks of a machine, and gives it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TokenTerms {
    /// The machine's address lies in one of these; none: it may lie anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Subnet>,
    /// Labels that the node gets, whatever it says of itself under the same keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Each machine waits until an operator lets it in.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub by_hand: bool,
}

impl TokenTerms {
    /// Whether a machine with this address may use it.
    pub fn admit(&self, address: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|subnet| subnet.contains(address))
    }

    /// A node's own labels and those of the token, which win.
    pub fn label(&self, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
        own.into_iter().chain(self.labels.clone()).collect()
    }

    /// Whether it keeps to the limits.
    ///
    /// # Errors
    /// What is over its limit.
    pub fn check(&self) -> Result<(), String> {
        let text = |text: &String| (1..=TEXT_MAX_BYTES).contains(&text.len());
        let texts = self
            .labels
            .iter()
            .all(|(key, value)| text(key) && text(value));
        if self.labels.len() > LABELS_MAX || !texts {
            return Err(format!(
                "a token gives at most {LABELS_MAX} labels, each key and value of 1 to {TEXT_MAX_BYTES} bytes"
            ));
        }
        if self.from.len() > TOKEN_SUBNETS_MAX {
            return Err(format!("a token names at most {TOKEN_SUBNETS_MAX} subnets"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_outside_are_refused_and_its_labels_win() {
        let subnets = ["10.1.0.0/16", "fd00:1::/32"];
        let mut terms = TokenTerms {
            from: subnets.map(|s| s.parse().unwrap()).to_vec(),
            ..TokenTerms::default()
        };
        let admits = |address: &str| terms.admit(address.parse().unwrap());
        assert!(admits("10.1.255.1") && admits("fd00:1::7"));
        assert!(!admits("10.2.0.1") && !admits("fd00:2::7"));
        assert!(TokenTerms::default().admit("203.0.113.9".parse().unwrap()));

        let labels = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
            let all = all.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            all.collect()
        };
        terms.labels = labels(&[("kiosk", "yes"), ("ring", "last")]);
        let own = labels(&[("ring", "canary"), ("floor", "3")]);
        let given = labels(&[("floor", "3"), ("kiosk", "yes"), ("ring", "last")]);
        assert_eq!(terms.label(own), given);
    }

    #[test]
    fn what_is_over_a_limit_is_refused() {
        let labels = |count: usize, text: &str| -> BTreeMap<String, String> {
            (0..count)
                .map(|n| (format!("k{n}"), text.to_owned()))
                .collect()
        };
        let check = |labels, subnets| {
            let subnet: Subnet = "10.0.0.0/8".parse().unwrap();
            let from = vec![subnet; subnets];
            let by_hand = false;
            TokenTerms {
                from,
                labels,
                by_hand,
            }
            .check()
        };
        assert_eq!(check(labels(LABELS_MAX, "x"), TOKEN_SUBNETS_MAX), Ok(()));
        assert!(check(labels(LABELS_MAX + 1, "x"), 0).is_err());
        assert!(check(labels(1, &"x".repeat(TEXT_MAX_BYTES + 1)), 0).is_err());
        assert!(check(labels(1, ""), 0).is_err());
        assert!(check(labels(0, ""), TOKEN_SUBNETS_MAX + 1).is_err());
    }
}
