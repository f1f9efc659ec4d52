//! One question asked after every outcome: does the release fail as any does, or must it be stopped?
//!
//! Wald's sequential probability ratio test ("Sequential Tests of Statistical Hypotheses", Annals of
//! Mathematical Statistics 16, 1945): the evidence is the logarithm of how much likelier the outcomes are
//! if `p1` of all fail than if `p0` do; it stops a release at `ln((1 - beta) / alpha)` and lets it go on at
//! `ln(beta / (1 - alpha))`. Begun anew after each verdict for the release, it is a cumulative sum test
//! (Page, "Continuous Inspection Schemes", Biometrika 41, 1954), so a fault that shows late is not
//! drowned in good outcomes of before. The evidence follows from two counts alone.

use protocol::plan::SequentialTest;

use crate::contract::Verdict;

/// Good and bad outcomes. A difference of two counts may be below zero for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Outcomes {
    pub good: i64,
    pub bad: i64,
}

impl Outcomes {
    pub fn plus(self, other: Outcomes) -> Outcomes {
        Outcomes {
            good: self.good + other.good,
            bad: self.bad + other.bad,
        }
    }

    pub fn minus(self, other: Outcomes) -> Outcomes {
        Outcomes {
            good: self.good - other.good,
            bad: self.bad - other.bad,
        }
    }

    /// As the ledger has it.
    pub fn counts(self) -> (u32, u32) {
        let count = |n: i64| u32::try_from(n.max(0)).unwrap_or(u32::MAX);
        (count(self.good), count(self.bad))
    }
}

/// The test with its thresholds, in natural logarithms.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Sprt {
    per_bad: f64,
    per_good: f64,
    /// From here on the release is stopped.
    pub upper: f64,
    lower: f64,
}

impl Sprt {
    /// The test with this chance of a false stop.
    pub fn new(test: &SequentialTest, alpha: f64) -> Sprt {
        let of = |ppm: u32| f64::from(ppm) / 1e6;
        let (p0, p1, beta) = (
            of(test.expected_ppm),
            of(test.unacceptable_ppm),
            of(test.missed_ppm),
        );
        Sprt {
            per_bad: (p1 / p0).ln(),
            per_good: ((1.0 - p1) / (1.0 - p0)).ln(),
            upper: ((1.0 - beta) / alpha).ln(),
            lower: (beta / (1.0 - alpha)).ln(),
        }
    }

    /// Evidence against the release.
    pub fn evidence(&self, outcomes: Outcomes) -> f64 {
        outcomes.bad as f64 * self.per_bad + outcomes.good as f64 * self.per_good
    }

    /// What these outcomes come to.
    pub fn judge(&self, outcomes: Outcomes) -> Verdict {
        match self.evidence(outcomes) {
            evidence if evidence >= self.upper => Verdict::Fail,
            evidence if evidence <= self.lower => Verdict::Pass,
            _ => Verdict::Wait,
        }
    }

    /// Failures that make half of the evidence that stops a release: what one site can add at most.
    pub fn half(&self) -> i64 {
        (self.upper / 2.0 / self.per_bad).ceil() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test() -> SequentialTest {
        SequentialTest {
            expected_ppm: 10_000,
            unacceptable_ppm: 30_000,
            false_halt_ppm: 100,
            missed_ppm: 1000,
            in_flight_max: 50,
            cohorts: Vec::new(),
        }
    }

    /// Worked out by hand: a failure weighs ln 3 = 1.0986, a success ln(97 / 99) = -0.0204; the test stops
    /// at ln(0.999 / 0.00005) = 9.9025 and lets go on at ln(0.001 / 0.99995) = -6.9077.
    #[test]
    fn verdicts_fall_where_walds_boundaries_are() {
        use Verdict::{Fail, Pass, Wait};
        let sprt = Sprt::new(&test(), 0.00005);
        for (good, bad, expected) in [
            (0, 0, Wait),
            (0, 9, Wait),
            (0, 10, Fail),
            (53, 10, Fail),
            (54, 10, Wait),
            (338, 0, Wait),
            (339, 0, Pass),
            (392, 1, Wait),
            (393, 1, Pass),
            (200, 12, Wait),
            (100, 13, Fail),
        ] {
            let verdict = sprt.judge(Outcomes { good, bad });
            assert_eq!(verdict, expected, "{good} good, {bad} bad");
        }
        assert_eq!(sprt.half(), 5);
    }
}
