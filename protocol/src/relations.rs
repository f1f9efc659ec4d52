//! What a release says of other releases, and what a plan says that it stands on.
//!
//! A requirement is `PRODUCT`, or a product with bounds of its version, all of which must hold:
//! `runtime>=2.1,<3`. Versions are ordered as in filters: runs of digits as numbers, so 2.10 comes after
//! 2.9. What stands in the manifest is the release's own word; the plan's [`Closure`] says with which
//! releases the coordinator found that word kept when the plan was made, and is approved with it.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::filter::version_order;
use crate::ids::{Hash, SiteId};
use crate::limits::{BOUNDS_MAX, CLOSURE_MAX, RELATIONS_MAX, TEXT_MAX_BYTES};
use crate::manifest::{ReleaseManifest, release_name};

/// What a release says of others. The default says nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Relations {
    /// Must be installed before it, and as long as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Requirement>,
    /// Must not be installed beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<Requirement>,
    /// Need not be installed any more where it is to be installed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supersedes: Vec<Requirement>,
    /// A stepping stone, and why: who runs an older release installs this one before any newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barrier: Option<String>,
    /// What others rest upon, such as an installer or an agent: where its wave has opened, nothing but
    /// an emergency starts before it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub infrastructure: bool,
}

/// A product, and which of its versions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Requirement {
    /// The product.
    pub product: SiteId,
    /// All of these hold; none: any version.
    pub bounds: Vec<(Bound, SiteId)>,
}

/// How a version stands to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `<`
    Below,
    /// `=`
    Exactly,
}

/// Longer signs first: none is taken for the beginning of another.
const SIGNS: [(Bound, &str); 5] = [
    (Bound::AtLeast, ">="),
    (Bound::AtMost, "<="),
    (Bound::Above, ">"),
    (Bound::Below, "<"),
    (Bound::Exactly, "="),
];

impl Bound {
    fn sign(self) -> &'static str {
        let sign = SIGNS.iter().find(|(bound, _)| *bound == self);
        sign.map_or("=", |(_, sign)| sign)
    }

    fn holds(self, version: &SiteId, of: &SiteId) -> bool {
        let order = version_order(version.as_str(), of.as_str());
        match self {
            Bound::AtLeast => order.is_ge(),
            Bound::AtMost => order.is_le(),
            Bound::Above => order.is_gt(),
            Bound::Below => order.is_lt(),
            Bound::Exactly => order.is_eq(),
        }
    }
}

impl Requirement {
    /// Whether a version of a product is one of those.
    pub fn admits(&self, product: &SiteId, version: &SiteId) -> bool {
        let holds = |(bound, of): &(Bound, SiteId)| bound.holds(version, of);
        self.product == *product && self.bounds.iter().all(holds)
    }

    /// Whether a release is one of those.
    pub fn fits(&self, release: &ReleaseManifest) -> bool {
        self.admits(&release.product, &release.version)
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.product.as_str())?;
        for (number, (bound, version)) in self.bounds.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{}{version}", bound.sign())?;
        }
        Ok(())
    }
}

impl From<Requirement> for String {
    fn from(requirement: Requirement) -> String {
        requirement.to_string()
    }
}

impl TryFrom<String> for Requirement {
    type Error = String;
    fn try_from(text: String) -> Result<Requirement, String> {
        text.parse()
    }
}

impl FromStr for Requirement {
    type Err = String;
    fn from_str(text: &str) -> Result<Requirement, String> {
        let start = text.find(['<', '>', '=']).unwrap_or(text.len());
        let (product, rest) = text.split_at(start);
        let product = product.trim().parse();
        let product = product.map_err(|e| format!("{text:?} names no product: {e}"))?;
        let mut bounds = Vec::new();
        for part in rest.split(',').filter(|_| !rest.is_empty()) {
            let part = part.trim();
            let Some((bound, sign)) = SIGNS.iter().find(|(_, sign)| part.starts_with(sign)) else {
                return Err(format!(
                    "{text:?}: {part:?} is no bound; write like runtime>=2.1,<3"
                ));
            };
            let version = part[sign.len()..].trim().parse();
            bounds.push((*bound, version.map_err(|e| format!("{text:?}: {e}"))?));
        }
        if bounds.len() > BOUNDS_MAX {
            return Err(format!("{text:?} has more than {BOUNDS_MAX} bounds"));
        }
        Ok(Requirement { product, bounds })
    }
}

impl Relations {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Relations::default()
    }

    /// What whoever reads the manifest of `product@version` must find true.
    ///
    /// # Errors
    /// What is out of range, or cannot be.
    pub fn check(&self, product: &SiteId, version: &SiteId) -> Result<(), String> {
        for (list, verb) in [
            (&self.depends_on, "depends on"),
            (&self.conflicts, "conflicts with"),
            (&self.supersedes, "supersedes"),
        ] {
            if list.len() > RELATIONS_MAX {
                return Err(format!(
                    "a release {verb} at most {RELATIONS_MAX} others, and this one has {}",
                    list.len()
                ));
            }
            if list.iter().any(|r| r.bounds.len() > BOUNDS_MAX) {
                return Err(format!("a requirement has more than {BOUNDS_MAX} bounds"));
            }
            if let Some(own) = list.iter().find(|r| r.admits(product, version)) {
                return Err(format!("the release {verb} {own}, which is itself"));
            }
        }
        let barrier = self.barrier.as_ref();
        match barrier.is_some_and(|why| why.is_empty() || why.len() > TEXT_MAX_BYTES) {
            true => Err("a barrier says why, in at most 1024 bytes".into()),
            false => Ok(()),
        }
    }
}

/// A release by name and digest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pick {
    /// Its product.
    pub product: SiteId,
    /// Its version.
    pub version: SiteId,
    /// Its counter.
    pub counter: u64,
    /// Digest of its manifest.
    pub release: Hash,
}

impl Pick {
    /// The pick of a release.
    pub fn of(release: &ReleaseManifest, digest: Hash) -> Pick {
        Pick {
            product: release.product.clone(),
            version: release.version.clone(),
            counter: release.release_counter,
            release: digest,
        }
    }

    /// As people write it.
    pub fn name(&self) -> String {
        release_name(&self.product, &self.version)
    }
}

/// On which releases a plan's release stands; operators sign it with the plan.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Closure {
    /// One for each product that it depends on, and that those depend on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Pick>,
    /// Older releases of its product that are barriers, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub barriers: Vec<Pick>,
}

impl Closure {
    /// Whether it stands alone.
    pub fn is_empty(&self) -> bool {
        self.requires.is_empty() && self.barriers.is_empty()
    }

    /// The first of these requirements that nothing in it meets.
    pub fn lacks<'a>(&self, requirements: &'a [Requirement]) -> Option<&'a Requirement> {
        let meets = |r: &Requirement| {
            let mut picks = self.requires.iter();
            picks.any(|p| r.admits(&p.product, &p.version))
        };
        requirements.iter().find(|r| !meets(r))
    }

    /// What whoever reads the plan must find true.
    ///
    /// # Errors
    /// What is out of range.
    pub fn check(&self) -> Result<(), String> {
        if self.requires.len().max(self.barriers.len()) > CLOSURE_MAX {
            return Err(format!(
                "a plan's release stands on at most {CLOSURE_MAX} others"
            ));
        }
        let falls = |pair: &[Pick]| pair[0].counter >= pair[1].counter;
        match self.barriers.windows(2).any(falls) {
            true => Err("the barriers of a plan do not stand in order".into()),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(requirement: &str, version: &str) -> bool {
        let requirement: Requirement = requirement.parse().unwrap();
        requirement.admits(&"runtime".parse().unwrap(), &version.parse().unwrap())
    }

    #[test]
    fn bounds_are_read_as_people_mean_them() {
        let cases = [
            ("runtime", "0.1", true),
            ("runtime>=2.9", "2.10", true),
            ("runtime>=2.10", "2.9", false),
            ("runtime >= 2.1, < 3", "2.99", true),
            ("runtime>=2.1,<3", "3", false),
            ("runtime>=2.1,<3", "3.0", false),
            ("runtime=2.1", "2.1", true),
            ("runtime=2.1", "2.1.0", false),
            ("runtime<=2", "2", true),
            ("runtime>2", "2", false),
            ("other", "1", false),
        ];
        for (requirement, version, expected) in cases {
            assert_eq!(
                admits(requirement, version),
                expected,
                "{requirement} {version}"
            );
        }
    }

    #[test]
    fn a_requirement_travels_in_one_form_and_mistakes_are_named() {
        let read: Requirement = " runtime >=2.1 , <3".parse().unwrap();
        assert_eq!(read.to_string(), "runtime>=2.1,<3");
        for (wrong, names) in [
            ("", "names no product"),
            (">=2", "names no product"),
            ("Run time", "names no product"),
            ("runtime>=", "site name"),
            ("runtime>=2,3", "is no bound"),
            ("runtime~2", "names no product"),
        ] {
            let error = wrong.parse::<Requirement>().unwrap_err();
            assert!(error.contains(names), "{wrong}: {error}");
        }
        let many = format!("runtime{}", ["<9"; BOUNDS_MAX + 1].join(","));
        assert!(many.parse::<Requirement>().is_err(), "bounded");
    }

    #[test]
    fn a_release_has_no_relation_to_itself_and_not_too_many() {
        let (app, two): (SiteId, SiteId) = ("app".parse().unwrap(), "2".parse().unwrap());
        let supersedes = |text: &str| Relations {
            supersedes: vec![text.parse().unwrap()],
            ..Relations::default()
        };
        assert_eq!(supersedes("app<2").check(&app, &two), Ok(()));
        let own = supersedes("app").check(&app, &two).unwrap_err();
        assert!(own.contains("which is itself"), "{own}");
        let many = Relations {
            conflicts: vec!["x".parse().unwrap(); RELATIONS_MAX + 1],
            ..Relations::default()
        };
        assert!(many.check(&app, &two).is_err());
        let mute = Relations {
            barrier: Some(String::new()),
            ..Relations::default()
        };
        assert!(mute.check(&app, &two).is_err());
        let pick = |counter| Pick {
            product: app.clone(),
            version: two.clone(),
            counter,
            release: Hash::of(b"release"),
        };
        let barriers = |counters: &[u64]| Closure {
            barriers: counters.iter().map(|c| pick(*c)).collect(),
            ..Closure::default()
        };
        assert_eq!(barriers(&[1, 2]).check(), Ok(()));
        assert!(barriers(&[2, 1]).check().is_err());
        let all: Vec<u64> = (0..=CLOSURE_MAX as u64).collect();
        assert!(barriers(&all).check().is_err());
    }
}
