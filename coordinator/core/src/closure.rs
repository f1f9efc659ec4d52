//! On which releases a plan's release stands: found among what was published, when the plan is made.
//!
//! Of each product that is needed, however many releases need it, the newest release that suits all of
//! them is picked. That is tried anew with the needs of what was picked until nothing changes; there is no
//! search beyond that, so a set is refused if its newest members do not go together.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::CLOSURE_MAX;
use protocol::manifest::{ReleaseManifest, release_name};
use protocol::relations::{Closure, Pick, Requirement};
use protocol::{Hash, SiteId, Time};

use crate::fleet::Held;

/// What was published and may be used.
pub(crate) struct Shelf<'a> {
    pub(crate) releases: &'a BTreeMap<Hash, Held<ReleaseManifest>>,
    /// Taken back: nothing stands on them.
    pub(crate) recalled: BTreeSet<Hash>,
    pub(crate) wall: Time,
}

type Picks<'a> = BTreeMap<&'a SiteId, (Hash, &'a ReleaseManifest)>;

impl Shelf<'_> {
    /// The closure of a release.
    ///
    /// # Errors
    /// One line that names who needs what.
    pub(crate) fn closure(
        &self,
        digest: Hash,
        release: &ReleaseManifest,
    ) -> Result<Closure, String> {
        let mut picks = Picks::new();
        for round in 0.. {
            let next = self.picks(release, &picks)?;
            if next == picks {
                break;
            }
            if next.len() > CLOSURE_MAX || round > 2 * CLOSURE_MAX {
                return Err(format!(
                    "dependency: {} stands on more than {CLOSURE_MAX} releases, or on none that go together",
                    name(release)
                ));
            }
            picks = next;
        }
        self.check(digest, release, &picks)?;
        let requires = picks.values().map(|(digest, r)| Pick::of(r, *digest));
        let requires = requires.collect();
        let same = self.usable(release);
        let barriers = same.filter(|(_, r)| {
            r.product == release.product
                && r.release_counter < release.release_counter
                && r.relations.barrier.is_some()
        });
        let mut barriers: Vec<Pick> = barriers.map(|(digest, r)| Pick::of(r, digest)).collect();
        barriers.sort_by_key(|pick| pick.counter);
        let closure = Closure { requires, barriers };
        closure.check()?;
        Ok(closure)
    }

    /// Published releases that were not taken back, but for newer ones of the same product as `than`.
    fn usable<'s>(
        &'s self,
        than: &'s ReleaseManifest,
    ) -> impl Iterator<Item = (Hash, &'s ReleaseManifest)> {
        let all = self.releases.iter().map(|(digest, r)| (*digest, &r.value));
        all.filter(move |(digest, r)| {
            let later = r.product == than.product && r.release_counter >= than.release_counter;
            !later && !self.recalled.contains(digest)
        })
    }

    /// One release of each product that `release` and what was picked for it need.
    fn picks<'s>(
        &'s self,
        release: &'s ReleaseManifest,
        picked: &Picks<'s>,
    ) -> Result<Picks<'s>, String> {
        let mut needs: BTreeMap<&SiteId, Vec<(&ReleaseManifest, &Requirement)>> = BTreeMap::new();
        for by in picked.values().map(|(_, r)| *r).chain([release]) {
            for requirement in &by.relations.depends_on {
                let need = needs.entry(&requirement.product).or_default();
                need.push((by, requirement));
            }
        }
        let pick = |(product, needs): (_, Vec<(&ReleaseManifest, &Requirement)>)| {
            let suits = |r: &ReleaseManifest| {
                r.expires > self.wall && needs.iter().all(|(_, need)| need.fits(r))
            };
            let all = self.usable(release).filter(|(_, r)| suits(r));
            let newest = all.max_by_key(|(_, r)| r.release_counter);
            newest.map(|found| (product, found)).ok_or_else(|| {
                let needs: Vec<String> = needs
                    .iter()
                    .map(|(by, need)| format!("{} needs {need}", name(by)))
                    .collect();
                format!(
                    "dependency: {}, and no release that was published suits; publish one first",
                    needs.join(" and ")
                )
            })
        };
        needs.into_iter().map(pick).collect()
    }

    /// Whether what was picked goes together: no two are in conflict, and none needs itself in the end.
    fn check(
        &self,
        digest: Hash,
        release: &ReleaseManifest,
        picks: &Picks<'_>,
    ) -> Result<(), String> {
        let all: Vec<&ReleaseManifest> = picks.values().map(|(_, r)| *r).chain([release]).collect();
        for one in &all {
            let others = all.iter().filter(|other| other.product != one.product);
            let mut others = others.filter(|o| one.relations.conflicts.iter().any(|c| c.fits(o)));
            if let Some(other) = others.next() {
                return Err(format!(
                    "dependency: {} conflicts with {}, and {} needs both",
                    name(one),
                    name(other),
                    name(release)
                ));
            }
        }
        let mut left: BTreeMap<Hash, &ReleaseManifest> = picks.values().copied().collect();
        left.insert(digest, release);
        // Whoever needs nothing that is left goes; who cannot go needs itself.
        loop {
            let free = left.iter().find(|(_, r)| {
                let needs = r.relations.depends_on.iter();
                let mut needs = needs.filter_map(|need| picks.get(&need.product));
                !needs.any(|(digest, _)| left.contains_key(digest))
            });
            let Some(digest) = free.map(|(digest, _)| *digest) else {
                break;
            };
            left.remove(&digest);
        }
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = left.values().map(|r| name(r)).collect();
        Err(format!(
            "dependency: {} need each other; publish one that does not",
            names.join(" and ")
        ))
    }
}

fn name(release: &ReleaseManifest) -> String {
    release_name(&release.product, &release.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{CREATED, EXPIRES, Fleet, site};
    use protocol::relations::Relations;

    /// `product@version` with what it says of others.
    type Published<'a> = (&'a str, &'a str, &'a [&'a str], &'a [&'a str], bool);

    /// The closure of the last of these, by name, newest counters last.
    fn closure(published: &[Published<'_>]) -> Result<(Vec<String>, Vec<String>), String> {
        let fleet = Fleet::new(1);
        let mut releases = BTreeMap::new();
        let mut last = None;
        for (counter, (product, version, needs, conflicts, barrier)) in published.iter().enumerate()
        {
            let parsed = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
            let mut release = fleet.release(product, version, counter as u64 + 1);
            release.relations = Relations {
                depends_on: parsed(needs),
                conflicts: parsed(conflicts),
                barrier: barrier.then(|| "its format changes".to_owned()),
                ..Relations::default()
            };
            let digest = Hash::of(format!("{product} {version}").as_bytes());
            last = Some((digest, release.clone()));
            let held = Held::read(&fleet.sign(&release)).unwrap();
            releases.insert(digest, Held { digest, ..held });
        }
        let shelf = Shelf {
            releases: &releases,
            recalled: BTreeSet::from([Hash::of(b"runtime 13")]),
            wall: CREATED,
        };
        let (digest, release) = last.unwrap();
        assert!(release.expires == EXPIRES && site("app") < site("runtime"));
        let names = |picks: Vec<Pick>| picks.iter().map(Pick::name).collect();
        let found = shelf.closure(digest, &release)?;
        Ok((names(found.requires), names(found.barriers)))
    }

    #[test]
    fn the_newest_that_suits_all_is_picked_and_what_it_needs_too() {
        let (requires, barriers) = closure(&[
            ("runtime", "2.1", &[], &[], false),
            ("base", "1", &[], &[], false),
            ("runtime", "2.2", &["base"], &[], false),
            ("runtime", "3", &[], &[], false),
            ("runtime", "13", &[], &[], false),
            ("lib", "1", &["runtime<3"], &[], false),
            ("app", "1", &["runtime>=2.1", "lib"], &[], false),
        ])
        .unwrap();
        assert_eq!(requires, ["base@1", "lib@1", "runtime@2.2"]);
        assert!(barriers.is_empty());
    }

    #[test]
    fn older_barriers_of_the_product_stand_in_order() {
        let (_, barriers) = closure(&[
            ("app", "4", &[], &[], true),
            ("other", "1", &[], &[], true),
            ("app", "9", &[], &[], true),
            ("app", "10", &[], &[], false),
            ("app", "11", &[], &[], true),
        ])
        .unwrap();
        assert_eq!(barriers, ["app@4", "app@9"]);
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_name() {
        let missing = closure(&[("app", "1", &["runtime>=2"], &[], false)]).unwrap_err();
        assert!(
            missing.starts_with("dependency: app@1 needs runtime>=2"),
            "{missing}"
        );
        let both = closure(&[
            ("runtime", "2", &[], &[], false),
            ("lib", "1", &["runtime>2"], &[], false),
            ("app", "1", &["runtime<=2", "lib"], &[], false),
        ])
        .unwrap_err();
        assert!(
            both.contains("lib@1 needs runtime>2 and app@1 needs runtime<=2"),
            "{both}"
        );
        let circle = closure(&[
            ("a", "1", &["b"], &[], false),
            ("b", "1", &["a"], &[], false),
            ("app", "1", &["a"], &[], false),
        ])
        .unwrap_err();
        assert!(circle.contains("need each other"), "{circle}");
        let foes = closure(&[
            ("runtime", "2", &[], &[], false),
            ("lib", "1", &[], &["runtime"], false),
            ("app", "1", &["runtime", "lib"], &[], false),
        ])
        .unwrap_err();
        assert!(foes.contains("lib@1 conflicts with runtime@2"), "{foes}");
        let recalled = closure(&[
            ("runtime", "13", &[], &[], false),
            ("app", "1", &["runtime"], &[], false),
        ]);
        assert!(recalled.is_err(), "what was taken back carries nobody");
    }
}
