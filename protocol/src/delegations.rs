//! Delegations of the `releases` role by product: a team signs its own products and nothing else.
//!
//! They stand in the root, so the root's threshold gives and takes them. A delegation may stand below
//! another one and then reaches no further than that. TUF delegates in metadata of their own and cuts
//! cycles off as it searches; here a root in which parents go round in a circle is no root.

use serde::{Deserialize, Serialize};

use crate::ids::{PublicKey, SiteId};
use crate::limits::{DELEGATION_PRODUCTS_MAX, DELEGATIONS_MAX, ROLE_KEYS_MAX, TEXT_MAX_BYTES};

/// Keys that may sign releases of some products in the place of the `releases` role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegation {
    /// Its name, once in a root.
    pub name: String,
    /// The delegation that it stands below; the `releases` role itself if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
    /// Names of products; one that ends in `*` means all that begin like that.
    pub products: Vec<String>,
    /// Its keys, each once.
    pub keys: Vec<PublicKey>,
    /// Distinct keys that must sign.
    pub threshold: u32,
}

impl Delegation {
    /// Whether its own list names the product, whatever it stands below.
    fn names(&self, product: &str) -> bool {
        self.products
            .iter()
            .any(|wanted| match wanted.strip_suffix('*') {
                Some(start) => product.starts_with(start),
                None => wanted == product,
            })
    }

    fn check(&self) -> Result<(), &'static str> {
        let mut unique = self.keys.clone();
        unique.sort_unstable();
        unique.dedup();
        if self.name.is_empty() || self.name.len() > TEXT_MAX_BYTES {
            return Err("has no sound name");
        }
        if self.products.is_empty()
            || self.products.len() > DELEGATION_PRODUCTS_MAX
            || self.products.iter().any(|p| p.len() > TEXT_MAX_BYTES)
        {
            return Err("names no products, or too many");
        }
        if unique.len() != self.keys.len()
            || unique.len() > ROLE_KEYS_MAX
            || self.threshold == 0
            || self.threshold as usize > unique.len()
        {
            return Err("has no sound keys and threshold");
        }
        Ok(())
    }
}

/// What is wrong with the delegations of a root, in one line.
///
/// # Errors
/// Too many, one twice, one that is not sound or stands below one that is not there, or a circle.
pub fn check(all: &[Delegation]) -> Result<(), String> {
    if all.len() > DELEGATIONS_MAX {
        return Err(format!("{} delegations are over the limit", all.len()));
    }
    for (n, one) in all.iter().enumerate() {
        one.check().map_err(|why| format!("{:?} {why}", one.name))?;
        if all[..n].iter().any(|other| other.name == one.name) {
            return Err(format!("{:?} stands there twice", one.name));
        }
        chain(all, one)?;
    }
    Ok(())
}

/// A delegation and all that it stands below.
fn chain<'a>(all: &'a [Delegation], one: &'a Delegation) -> Result<Vec<&'a Delegation>, String> {
    let mut chain = vec![one];
    let mut at = one;
    while let Some(under) = &at.under {
        at = all
            .iter()
            .find(|other| other.name == *under)
            .ok_or_else(|| format!("{:?} stands below {under:?}, which is not there", at.name))?;
        if chain.len() >= all.len() {
            return Err(format!("{:?} stands below itself", one.name));
        }
        chain.push(at);
    }
    Ok(chain)
}

/// Whether a threshold of a delegation that covers `product` is among `signers`.
///
/// # Errors
/// `None` if the signers are no delegation's threshold, else which one reaches not so far, in one line.
pub fn signed(
    all: &[Delegation],
    product: &SiteId,
    signers: &[PublicKey],
) -> Result<(), Option<String>> {
    let mut refusal = None;
    for one in all {
        let valid = one.keys.iter().filter(|key| signers.contains(key)).count();
        if valid < one.threshold as usize {
            continue;
        }
        let covers = chain(all, one)
            .is_ok_and(|chain| chain.iter().all(|each| each.names(product.as_str())));
        if covers {
            return Ok(());
        }
        refusal = Some(format!("{:?} may not sign product {product}", one.name));
    }
    Err(refusal)
}

/// Whether `next` takes a key of a delegation away.
pub(crate) fn retired(before: &[Delegation], next: &[Delegation]) -> bool {
    before.iter().any(|one| {
        let kept = next.iter().find(|other| other.name == one.name);
        let kept = kept.map_or(&[][..], |kept| &kept.keys);
        one.keys.iter().any(|key| !kept.contains(key))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, under: Option<&str>, products: &[&str], key: u8) -> Delegation {
        Delegation {
            name: name.into(),
            under: under.map(Into::into),
            products: products.iter().map(ToString::to_string).collect(),
            keys: vec![PublicKey([key; 32])],
            threshold: 1,
        }
    }

    fn may(all: &[Delegation], product: &str, key: u8) -> bool {
        let product = product.parse().expect("a product");
        signed(all, &product, &[PublicKey([key; 32])]).is_ok()
    }

    #[test]
    fn a_delegation_reaches_no_further_than_what_it_stands_below() {
        let all = [
            one("tools", None, &["tool-*", "agent"], 1),
            one("small", Some("tools"), &["tool-a", "tool-b*", "other"], 2),
            one("smaller", Some("small"), &["*"], 3),
        ];
        check(&all).expect("sound");
        for (product, keys) in [
            ("tool-a", &[1, 2, 3][..]),
            ("tool-b2", &[1, 2, 3]),
            ("tool-c", &[1]),
            ("agent", &[1]),
            ("other", &[]),
            ("tool", &[]),
        ] {
            for key in 1..=4 {
                assert_eq!(
                    may(&all, product, key),
                    keys.contains(&key),
                    "{product} {key}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        let cases: [(&str, Vec<Delegation>); 7] = [
            ("itself", vec![one("a", Some("a"), &["x"], 1)]),
            (
                "itself",
                vec![
                    one("a", Some("b"), &["x"], 1),
                    one("b", Some("a"), &["x"], 2),
                ],
            ),
            ("not there", vec![one("a", Some("b"), &["x"], 1)]),
            (
                "twice",
                vec![one("a", None, &["x"], 1), one("a", None, &["y"], 2)],
            ),
            ("products", vec![one("a", None, &[], 1)]),
            (
                "keys",
                vec![Delegation {
                    threshold: 2,
                    ..one("a", None, &["x"], 1)
                }],
            ),
            (
                "limit",
                (0..=DELEGATIONS_MAX)
                    .map(|n| one(&n.to_string(), None, &["x"], 1))
                    .collect(),
            ),
        ];
        for (word, all) in cases {
            let why = check(&all).expect_err(word);
            assert!(why.contains(word), "{why}");
        }
        // A chain as long as it may be is no circle.
        let long: Vec<Delegation> = (0..DELEGATIONS_MAX)
            .map(|n| {
                let under = n.checked_sub(1).map(|n| n.to_string());
                one(&n.to_string(), under.as_deref(), &["x"], 1)
            })
            .collect();
        check(&long).expect("sound");
        assert!(may(&long, "x", 1));
    }
}
