//! Rule: nothing unverified is installed. What a node switches to is a release that was published,
//! for which a plan was approved, and of which every byte is on that very disk.
//!
//! The disk is asked at once. What was published and approved stands in the coordinator's ledger, which
//! may be watched elsewhere, so each release that is switched to is kept with the first to do so and
//! held against the ledger in the end: [`Installed::settle`].

use std::collections::BTreeMap;

use protocol::{Hash, Time};

use crate::checks::findings::{Findings, Rule};

/// Releases that were switched to, by digest, with when and by whom first.
#[derive(Default)]
pub struct Installed {
    first: BTreeMap<Hash, (Time, usize)>,
}

/// What the ledger says, in virtual time.
#[derive(Clone, Debug, Default)]
pub struct Approved {
    published: BTreeMap<Hash, Time>,
    approved: BTreeMap<Hash, Time>,
}

impl Approved {
    /// A release was published.
    pub fn published(&mut self, at: Time, release: Hash) {
        self.published.entry(release).or_insert(at);
    }

    /// A plan for a release was approved by the threshold.
    pub fn approved(&mut self, at: Time, release: Hash) {
        self.approved.entry(release).or_insert(at);
    }

    fn fault(&self, release: &Hash, at: Time) -> Option<&'static str> {
        let by = |when: Option<&Time>| when.is_some_and(|when| *when <= at);
        if !by(self.published.get(release)) {
            return Some("was not published");
        }
        (!by(self.approved.get(release))).then_some("has no approved plan")
    }
}

impl Installed {
    /// A node switches to a release; `on_disk` says whether all its bytes are there.
    ///
    /// # Errors
    /// Why it may not, as far as can be told now.
    pub fn switch(
        &mut self,
        at: Time,
        node: usize,
        release: Hash,
        on_disk: bool,
    ) -> Result<(), String> {
        let first = self.first.entry(release).or_insert((at, node));
        *first = (*first).min((at, node));
        if on_disk {
            return Ok(());
        }
        Err(format!(
            "release {} is not wholly on its disk",
            release.short()
        ))
    }

    /// Takes in what was switched to elsewhere.
    pub fn merge(&mut self, other: Installed) {
        for (release, first) in other.first {
            let mine = self.first.entry(release).or_insert(first);
            *mine = (*mine).min(first);
        }
    }

    /// Holds what was switched to against what the ledger says.
    pub fn settle(&self, approved: &Approved, found: &mut Findings) {
        for (release, (at, node)) in &self.first {
            if let Some(fault) = approved.fault(release, *at) {
                let what = format!(
                    "node {node} switches to release {}, which {fault}",
                    release.short()
                );
                found.violated(*at, Rule::Unverified, what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_approved_or_not_there_is_seen() {
        let (good, early, unapproved, unknown) =
            (Hash([1; 32]), Hash([2; 32]), Hash([3; 32]), Hash([4; 32]));
        let mut approved = Approved::default();
        for release in [good, early, unapproved] {
            approved.published(Time(10), release);
        }
        approved.approved(Time(20), good);
        approved.approved(Time(40), early);
        let mut installed = Installed::default();
        assert_eq!(installed.switch(Time(30), 1, good, true), Ok(()));
        let mut found = Findings::default();
        installed.settle(&approved, &mut found);
        assert!(found.is_clean());

        assert!(
            installed.switch(Time(31), 2, good, false).is_err(),
            "bytes are missing"
        );
        let mut others = Installed::default();
        for release in [early, unapproved, unknown] {
            assert_eq!(others.switch(Time(30), 3, release, true), Ok(()));
        }
        installed.merge(others);
        installed.settle(&approved, &mut found);
        assert_eq!(found.count(Rule::Unverified), 3, "{:?}", found.lines());
    }
}
