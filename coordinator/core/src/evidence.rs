//! What a rollout's outcomes prove, for all of its nodes and for each declared cohort.
//!
//! Outcomes are counted by the set of cohorts that a node is in. So a test is a sum over some of the
//! counts, and when a cohort is held the others are replayed without it. Each test begins anew at its
//! verdicts for the release: what it had counted by then is remembered and taken off.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::SiteId;
use protocol::plan::SequentialTest;

use crate::contract::Verdict;
use crate::sequential::{Outcomes, Sprt};

/// One site alone cannot stop a rollout that has nodes in so many.
const SITES_FOR_CAP: usize = 3;

/// Counts by the set of cohorts, one bit each.
type Counts = BTreeMap<u16, Outcomes>;

/// Where a node is, as far as its outcome is concerned.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Traits {
    pub site: Option<Arc<SiteId>>,
    /// One bit for each of the plan's cohorts.
    pub cohorts: u16,
}

/// The test of all, or that of a cohort.
#[derive(Clone, PartialEq, Debug)]
struct Bout {
    sprt: Sprt,
    since: Counts,
}

/// What the tests say.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Ruling {
    /// A cohort fails alone.
    Hold { cohort: u32, counts: (u32, u32) },
    /// The release fails.
    Stop { counts: (u32, u32) },
    /// A verdict for the release: by the test of a cohort, or of all.
    Clear {
        cohort: Option<u32>,
        counts: (u32, u32),
    },
}

/// The outcomes of one rollout and what they prove.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Evidence {
    counts: Counts,
    all: Bout,
    cohorts: Vec<Bout>,
    /// Cohorts that are held, one bit each.
    held: u16,
    /// Verdicts for the release by the test of all.
    pub verdicts: u32,
    in_flight_max: u32,
    /// Targets by site.
    sites: BTreeMap<Option<Arc<SiteId>>, u32>,
    /// Failures since the last verdict of the test of all, by cohorts and site.
    failures: BTreeMap<(u16, Option<Arc<SiteId>>), i64>,
}

// Thresholds are no NaN.
impl Eq for Evidence {}

impl Evidence {
    /// No outcomes yet.
    pub fn new(test: &SequentialTest) -> Evidence {
        let half = f64::from(test.false_halt_ppm) / 2e6;
        let bout = |alpha| Bout {
            sprt: Sprt::new(test, alpha),
            since: Counts::new(),
        };
        let share = half / test.cohorts.len().max(1) as f64;
        Evidence {
            counts: Counts::new(),
            all: bout(half),
            cohorts: test.cohorts.iter().map(|_| bout(share)).collect(),
            held: 0,
            verdicts: 0,
            in_flight_max: test.in_flight_max,
            sites: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// One more target, or one less.
    pub fn target(&mut self, traits: &Traits, by: i32) {
        let count = self.sites.entry(traits.site.clone()).or_default();
        *count = count.saturating_add_signed(by);
        if *count == 0 {
            self.sites.remove(&traits.site);
        }
    }

    /// A node's vote comes in, or is taken back.
    pub fn vote(&mut self, traits: &Traits, failed: bool, by: i64) {
        let count = self.counts.entry(traits.cohorts).or_default();
        match failed {
            false => count.good += by,
            true => {
                count.bad += by;
                let key = (traits.cohorts, traits.site.clone());
                *self.failures.entry(key).or_default() += by;
            }
        }
    }

    /// Folds a verdict for the release.
    pub fn cleared(&mut self, cohort: Option<u32>) {
        let counts = self.counts.clone();
        match cohort {
            Some(cohort) => {
                if let Some(bout) = self.cohorts.get_mut(cohort as usize) {
                    bout.since = counts;
                }
            }
            None => {
                self.all.since = counts;
                self.failures.clear();
                self.verdicts = self.verdicts.saturating_add(1);
            }
        }
    }

    /// All tests begin anew: an operator has looked.
    pub fn begin_anew(&mut self) {
        let bouts = self.cohorts.iter_mut().chain([&mut self.all]);
        bouts.for_each(|bout| bout.since = self.counts.clone());
        self.failures.clear();
    }

    /// Folds that a cohort is held.
    pub fn hold(&mut self, cohort: u32) {
        self.held |= bit(cohort);
    }

    /// Folds that a cohort is held no more. What it had counted by now proves nothing any more.
    pub fn release(&mut self, cohort: u32) {
        self.held &= !bit(cohort);
        let of = |cohorts: &u16| cohorts & bit(cohort) != 0;
        let counts = self.counts.iter().filter(|(cohorts, _)| of(cohorts));
        let counts: Vec<(u16, Outcomes)> = counts.map(|(k, n)| (*k, *n)).collect();
        for bout in self.cohorts.iter_mut().chain([&mut self.all]) {
            bout.since.extend(counts.iter().copied());
        }
        self.failures.retain(|(cohorts, _), _| !of(cohorts));
    }

    /// Whether a node of these cohorts is held.
    pub fn is_held(&self, cohorts: u16) -> bool {
        self.held & cohorts != 0
    }

    /// The cohorts that are held, by number.
    pub fn held(&self) -> Vec<u32> {
        let all = 0..self.cohorts.len() as u32;
        all.filter(|c| self.held & bit(*c) != 0).collect()
    }

    /// Nodes that may be at it at a time: as many as the plan says until the first verdict, and twice as
    /// many after each.
    pub fn in_flight_max(&self) -> u32 {
        let doubled = u64::from(self.in_flight_max) << self.verdicts.min(32);
        u32::try_from(doubled).unwrap_or(u32::MAX)
    }

    /// What the test of all has counted since its last verdict.
    pub fn outcomes(&self) -> Outcomes {
        self.sum(&self.all, |_| true)
    }

    fn sum(&self, bout: &Bout, of: impl Fn(u16) -> bool) -> Outcomes {
        let counted = |(cohorts, n): (&u16, &Outcomes)| {
            let counts = !self.is_held(*cohorts) && of(*cohorts);
            let before = bout.since.get(cohorts).copied().unwrap_or_default();
            counts.then(|| n.minus(before))
        };
        let counts = self.counts.iter().filter_map(counted);
        counts.fold(Outcomes::default(), Outcomes::plus)
    }

    /// What follows from the outcomes; cohorts are judged first.
    pub fn judge(&self) -> Option<Ruling> {
        let unheld = || {
            let all = (0u32..).zip(&self.cohorts);
            all.filter(|(cohort, _)| self.held & bit(*cohort) == 0)
        };
        let mut clear = None;
        for (cohort, bout) in unheld() {
            let outcomes = self.sum(bout, |cohorts| cohorts & bit(cohort) != 0);
            match bout.sprt.judge(outcomes) {
                Verdict::Fail if self.fails_alone(cohort) => {
                    let counts = outcomes.counts();
                    return Some(Ruling::Hold { cohort, counts });
                }
                Verdict::Pass => {
                    let (cohort, counts) = (Some(cohort), outcomes.counts());
                    clear = clear.or(Some(Ruling::Clear { cohort, counts }));
                }
                _ => {}
            }
        }
        let outcomes = self.outcomes();
        match self.all.sprt.judge(outcomes) {
            Verdict::Fail if !self.comes_from_one_site(outcomes) => {
                let explains = |(cohort, bout): &(u32, &Bout)| {
                    let outcomes = self.sum(&self.all, |cohorts| cohorts & bit(*cohort) != 0);
                    let evidence = bout.sprt.evidence(outcomes);
                    evidence >= self.all.sprt.upper / 2.0 && self.fails_alone(*cohort)
                };
                let counts = outcomes.counts();
                Some(match unheld().find(explains) {
                    Some((cohort, _)) => Ruling::Hold { cohort, counts },
                    None => Ruling::Stop { counts },
                })
            }
            Verdict::Pass => clear.or(Some(Ruling::Clear {
                cohort: None,
                counts: outcomes.counts(),
            })),
            _ => clear,
        }
    }

    /// Whether those outside of a cohort have outcomes, and these speak for the release. Right after a
    /// verdict for it they have no new ones: what led to the verdict speaks for them.
    fn fails_alone(&self, cohort: u32) -> bool {
        let others = |cohorts: u16| cohorts & bit(cohort) == 0;
        let evidence = self.all.sprt.evidence(self.sum(&self.all, others));
        let counts = self.counts.iter();
        let counts = counts.filter(|(cohorts, _)| others(**cohorts) && !self.is_held(**cohorts));
        let ever = counts
            .map(|(_, n)| *n)
            .fold(Outcomes::default(), Outcomes::plus);
        ever.good > ever.bad && evidence < self.all.sprt.upper / 2.0
    }

    /// Whether the evidence would not do if each site gave half of it at most.
    fn comes_from_one_site(&self, outcomes: Outcomes) -> bool {
        if self.sites.len() < SITES_FOR_CAP {
            return false;
        }
        let mut by_site: BTreeMap<&Option<Arc<SiteId>>, i64> = BTreeMap::new();
        let counted = self.failures.iter();
        for ((_, site), bad) in counted.filter(|((cohorts, _), _)| !self.is_held(*cohorts)) {
            *by_site.entry(site).or_default() += bad;
        }
        let cap = self.all.sprt.half();
        let excess: i64 = by_site.values().map(|bad| (bad - cap).max(0)).sum();
        let bad = outcomes.bad - excess;
        self.all.sprt.judge(Outcomes { bad, ..outcomes }) != Verdict::Fail
    }
}

fn bit(cohort: u32) -> u16 {
    1u16.checked_shl(cohort).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::site;
    use protocol::plan::Cohort;

    fn evidence(cohorts: usize) -> Evidence {
        let cohort = |n| Cohort {
            key: "driver".into(),
            value: format!("{n}"),
        };
        Evidence::new(&SequentialTest {
            expected_ppm: 10_000,
            unacceptable_ppm: 30_000,
            false_halt_ppm: 100,
            missed_ppm: 1000,
            in_flight_max: 50,
            cohorts: (0..cohorts).map(cohort).collect(),
        })
    }

    fn at(name: &str, cohorts: u16) -> Traits {
        Traits {
            site: Some(Arc::new(site(name))),
            cohorts,
        }
    }

    fn votes(evidence: &mut Evidence, cohorts: u16, good: usize, bad: usize) {
        let names = ["s1", "s2", "s3", "s4", "s5"];
        for n in 0..good + bad {
            let traits = at(names[n % names.len()], cohorts);
            evidence.target(&traits, 1);
            evidence.vote(&traits, n < bad, 1);
        }
    }

    #[test]
    fn a_cohort_that_fails_alone_is_held_and_its_outcomes_leave() {
        let mut evidence = evidence(2);
        votes(&mut evidence, 0, 100, 1);
        votes(&mut evidence, 1, 0, 9);
        assert_eq!(evidence.judge(), None);
        votes(&mut evidence, 3, 0, 2);
        let counts = (0, 11);
        let held = Ruling::Hold { cohort: 0, counts };
        assert_eq!(evidence.judge(), Some(held));
        evidence.hold(0);
        assert_eq!(evidence.judge(), None);
        let left = Outcomes { good: 100, bad: 1 };
        assert_eq!(evidence.outcomes(), left, "replayed from the counts");
        assert_eq!(evidence.held(), [0]);
        assert!(evidence.is_held(3) && !evidence.is_held(2));
    }

    #[test]
    fn where_everything_fails_no_cohort_is_blamed() {
        let mut evidence = evidence(2);
        votes(&mut evidence, 1, 0, 8);
        votes(&mut evidence, 0, 0, 3);
        let counts = (0, 11);
        assert_eq!(evidence.judge(), Some(Ruling::Stop { counts }));
    }

    /// Half of the fleet is one cohort: the test of all, with its larger share of alpha, is there first.
    #[test]
    fn a_large_cohort_is_held_before_it_stops_all() {
        let mut evidence = evidence(8);
        votes(&mut evidence, 0, 10, 0);
        votes(&mut evidence, 4, 0, 10);
        let counts = (10, 10);
        let held = Ruling::Hold { cohort: 2, counts };
        assert_eq!(evidence.judge(), Some(held));
    }

    /// A cohort that was slow failed as a whole just after the others had made the release pass: with
    /// nobody to compare it with, the whole rollout was held.
    #[test]
    fn a_cohort_that_fails_after_a_verdict_is_held_alone() {
        let mut evidence = evidence(1);
        votes(&mut evidence, 0, 339, 0);
        assert!(matches!(evidence.judge(), Some(Ruling::Clear { .. })));
        evidence.cleared(None);
        votes(&mut evidence, 1, 0, 11);
        let counts = (0, 11);
        let held = Ruling::Hold { cohort: 0, counts };
        assert_eq!(evidence.judge(), Some(held));
        // if the others fail too it is not the cohort
        votes(&mut evidence, 0, 0, 6);
        assert!(matches!(evidence.judge(), Some(Ruling::Stop { .. })));
    }

    #[test]
    fn one_site_alone_stops_nothing_where_there_are_many() {
        let mut evidence = evidence(0);
        votes(&mut evidence, 0, 10, 0);
        (0..12).for_each(|_| evidence.vote(&at("s1", 0), true, 1));
        assert_eq!(evidence.judge(), None);
        (0..5).for_each(|_| evidence.vote(&at("s2", 0), true, 1));
        assert!(matches!(evidence.judge(), Some(Ruling::Stop { .. })));
    }

    #[test]
    fn each_verdict_begins_the_test_anew_and_doubles_what_may_be_in_flight() {
        let mut evidence = evidence(0);
        votes(&mut evidence, 0, 338, 0);
        assert_eq!(evidence.judge(), None);
        votes(&mut evidence, 0, 1, 0);
        let (cohort, counts) = (None, (339, 0));
        assert_eq!(evidence.judge(), Some(Ruling::Clear { cohort, counts }));
        assert_eq!(evidence.in_flight_max(), 50);
        evidence.cleared(None);
        assert_eq!((evidence.judge(), evidence.in_flight_max()), (None, 100));
        votes(&mut evidence, 0, 0, 10);
        assert!(matches!(evidence.judge(), Some(Ruling::Stop { .. })));
        evidence.begin_anew();
        assert_eq!(evidence.judge(), None, "an operator has looked");
    }

    #[test]
    fn a_vote_that_is_taken_back_leaves_no_trace() {
        let mut evidence = evidence(1);
        let empty = evidence.outcomes();
        evidence.vote(&at("s1", 1), true, 1);
        evidence.vote(&at("s1", 1), true, -1);
        evidence.vote(&at("s1", 1), false, 1);
        evidence.vote(&at("s1", 1), false, -1);
        assert_eq!(evidence.outcomes(), empty);
    }
}
