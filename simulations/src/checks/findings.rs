//! What the checkers found: every violation is counted, the first few of each rule are kept in words.

use std::collections::BTreeMap;
use std::fmt;

use protocol::Time;

/// Violations of one rule that are kept in words; the rest is counted.
const KEPT_PER_RULE_MAX: usize = 5;

/// A rule that may never be broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// Nobody starts outside its wave, or outside the time of its plan.
    Wave,
    /// Nobody starts outside the hours that its plan allows.
    Hours,
    /// Nobody starts without a live lease that was delivered to it.
    Lease,
    /// Nobody starts after a halt or a recall was delivered to it.
    Halt,
    /// Nothing is switched to that was not published, approved and wholly on that disk.
    Unverified,
    /// No wave opens before the gate behind the one before it passed.
    Gate,
    /// The four counts add up to the targets.
    Counts,
    /// Queues, tables and messages stay within their limits.
    Limits,
    /// A site takes no more over its WAN than its cap.
    Rates,
    /// Once faults stop, every reachable node of an open wave converges, and every wave is judged.
    Liveness,
    /// Nobody bans a peer that is honest.
    Ban,
    /// A ledger folds to the view that it was written from.
    Replay,
    /// No brain asks its body for what cannot be.
    Body,
    /// The scenario's own operators can do what they are told to do.
    Story,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Wave => "wave",
            Rule::Hours => "hours",
            Rule::Lease => "lease",
            Rule::Halt => "halt",
            Rule::Unverified => "unverified",
            Rule::Gate => "gate",
            Rule::Counts => "counts",
            Rule::Limits => "limits",
            Rule::Rates => "rates",
            Rule::Liveness => "liveness",
            Rule::Ban => "ban",
            Rule::Replay => "replay",
            Rule::Body => "body",
            Rule::Story => "story",
        })
    }
}

/// A rule was broken.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    /// When, in virtual time.
    pub at: Time,
    /// Which rule.
    pub rule: Rule,
    /// By whom and how.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms: {}: {}", self.at.0, self.rule, self.what)
    }
}

/// All that was found, bounded.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    kept: BTreeMap<Rule, Vec<Violation>>,
    counts: BTreeMap<Rule, u64>,
}

impl Findings {
    /// A rule was broken.
    pub fn violated(&mut self, at: Time, rule: Rule, what: impl Into<String>) {
        *self.counts.entry(rule).or_default() += 1;
        let kept = self.kept.entry(rule).or_default();
        if kept.len() < KEPT_PER_RULE_MAX {
            let what = what.into();
            kept.push(Violation { at, rule, what });
        }
    }

    /// Takes in what was found elsewhere. The order of merging changes nothing.
    pub fn merge(&mut self, other: Findings) {
        for (rule, count) in other.counts {
            *self.counts.entry(rule).or_default() += count;
        }
        for (rule, violations) in other.kept {
            let kept = self.kept.entry(rule).or_default();
            kept.extend(violations);
            kept.sort();
            kept.truncate(KEPT_PER_RULE_MAX);
        }
    }

    /// Whether no rule was broken.
    pub fn is_clean(&self) -> bool {
        self.counts.is_empty()
    }

    /// How often a rule was broken.
    pub fn count(&self, rule: Rule) -> u64 {
        self.counts.get(&rule).copied().unwrap_or(0)
    }

    /// For people: the first of each rule by time, then for each rule how many more there are.
    pub fn lines(&self) -> Vec<String> {
        let mut first: Vec<&Violation> = self.kept.values().flatten().collect();
        first.sort();
        let more = self.counts.iter().filter_map(|(rule, count)| {
            let more = count - self.kept.get(rule).map_or(0, Vec::len) as u64;
            (more > 0).then(|| format!("{rule}: and {more} more"))
        });
        first
            .into_iter()
            .map(ToString::to_string)
            .chain(more)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_violation_is_swallowed() {
        let mut found = Findings::default();
        assert!(found.is_clean());
        for n in 0..1000 {
            found.violated(Time(n), Rule::Lease, format!("node {n}"));
        }
        found.violated(Time(2000), Rule::Halt, "node 7");
        assert!(!found.is_clean());
        assert_eq!(found.count(Rule::Lease), 1000);
        let lines = found.lines();
        assert_eq!(lines[0], "at 0 ms: lease: node 0");
        assert_eq!(
            lines[5], "at 2000 ms: halt: node 7",
            "a frequent one hides no rare one"
        );
        assert_eq!(lines[6], "lease: and 995 more");
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn the_order_of_merging_changes_nothing() {
        let part = |numbers: &[u64]| {
            let mut found = Findings::default();
            numbers
                .iter()
                .for_each(|n| found.violated(Time(*n), Rule::Rates, format!("site {n}")));
            found
        };
        let (a, b) = (part(&[1, 4, 7, 9]), part(&[2, 3, 8, 10]));
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(b);
        ba.merge(a);
        assert_eq!(ab, ba);
        assert_eq!(ab.count(Rule::Rates), 8);
        assert_eq!(ab.lines()[0], "at 1 ms: rates: site 1");
        assert_eq!(
            ab.lines().last().map(String::as_str),
            Some("rates: and 3 more")
        );
    }
}
