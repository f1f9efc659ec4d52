//! The gate between a wave and the next: a pure judgement over outcomes.
//!
//! One vote a node. The ratio is judged once the minimum sample is in (all of the wave if that is
//! smaller); what the sample cannot show any more fails early; whatever is inconclusive waits. A wave
//! without voters passes, unless those in it came too late to vote: they prove nothing. A wave that passed is judged on, so late failures still stop the rollout.

use protocol::Span;
use protocol::plan::Gate;

use crate::contract::Verdict;

/// The outcomes of one wave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Votes {
    /// Nodes whose outcome counts.
    pub voters: u32,
    /// Of them, those where the release works.
    pub good: u32,
    /// Of them, those where it does not.
    pub bad: u32,
    /// Nodes that joined too late to vote.
    pub late: u32,
    /// Once the wave has been open for long: those that began or have an outcome. The others are not
    /// waited for; they may be off for good, or have no room for the release.
    pub present: Option<u32>,
}

impl Votes {
    /// Outcomes that must be in before the ratio is judged.
    fn needed(&self, gate: &Gate) -> u32 {
        gate.min_sample
            .min(self.voters)
            .min(self.present.unwrap_or(u32::MAX))
            .max(u32::from(self.voters > 0))
    }

    fn outcomes(&self) -> u32 {
        self.good + self.bad
    }

    /// Nobody may vote, and that says nothing of the release.
    fn is_mute(&self) -> bool {
        self.voters == 0 && self.late > 0
    }
}

/// Whether the sample is in and the ratio holds: from that moment the wave soaks.
pub(crate) fn holds(gate: &Gate, votes: Votes) -> bool {
    !votes.is_mute()
        && votes.outcomes() >= votes.needed(gate)
        && reaches(gate, votes.good, votes.outcomes())
}

/// What the gate says about a wave whose ratio has held for `held`.
pub(crate) fn judge(gate: &Gate, votes: Votes, held: Option<Span>) -> Verdict {
    let needed = votes.needed(gate);
    let outcomes = votes.outcomes();
    if votes.is_mute() {
        return Verdict::Wait;
    }
    if votes.voters == 0 {
        return Verdict::Pass;
    }
    if outcomes < needed {
        let still = reaches(gate, needed - votes.bad.min(needed), needed);
        return if still { Verdict::Wait } else { Verdict::Fail };
    }
    match held {
        _ if !reaches(gate, votes.good, outcomes) => Verdict::Fail,
        Some(held) if held >= gate.soak => Verdict::Pass,
        _ => Verdict::Wait,
    }
}

/// Why the gate says so, in one sentence. Apart from [`judge`], which is asked after every event.
pub(crate) fn sentence(gate: &Gate, votes: Votes, held: Option<Span>) -> String {
    let needed = votes.needed(gate);
    let outcomes = votes.outcomes();
    let asked = percent(gate.min_success_ppm);
    if votes.is_mute() {
        return format!(
            "none of the {} nodes in it was there at the start; halt the rollout and propose it anew",
            votes.late
        );
    }
    if votes.voters == 0 {
        return "the wave has no voters".into();
    }
    let verdict = judge(gate, votes, held);
    if outcomes < needed && verdict == Verdict::Fail {
        let bad = votes.bad;
        return format!(
            "{bad} of {outcomes} outcomes are failures, so {asked} can no longer be reached in {needed}"
        );
    }
    if outcomes < needed {
        return format!("{outcomes} of the {needed} outcomes that are needed are in");
    }
    let ratio = format!(
        "{} of {outcomes} outcomes are good ({})",
        votes.good,
        percent((u64::from(votes.good) * 1_000_000 / u64::from(outcomes.max(1))) as u32)
    );
    match verdict {
        Verdict::Pass => ratio,
        Verdict::Fail => format!("{ratio}, {asked} are needed"),
        Verdict::Wait => format!("{ratio}; soaking"),
    }
}

fn reaches(gate: &Gate, good: u32, of: u32) -> bool {
    u64::from(good) * 1_000_000 >= u64::from(gate.min_success_ppm) * u64::from(of)
}

fn percent(ppm: u32) -> String {
    format!("{}.{} %", ppm / 10_000, ppm / 1_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Verdict::{Fail, Pass, Wait};

    fn gate(min_success_ppm: u32, min_sample: u32) -> Gate {
        Gate {
            min_success_ppm,
            min_sample,
            soak: Span::from_secs(10),
            silence_after: Span::from_secs(60),
        }
    }

    #[test]
    fn gates_judge_as_the_table_says() {
        // (ratio in ppm, minimum sample, voters, good, bad, held for seconds) -> verdict
        let cases = [
            (900_000, 5, 0, 0, 0, None, Pass),
            (900_000, 5, 10, 0, 0, None, Wait),
            (900_000, 5, 10, 4, 0, None, Wait),
            (900_000, 5, 10, 5, 0, Some(0), Wait),
            (900_000, 5, 10, 5, 0, Some(9), Wait),
            (900_000, 5, 10, 5, 0, Some(10), Pass),
            (900_000, 5, 10, 4, 1, Some(10), Fail),
            (900_000, 10, 20, 9, 1, Some(10), Pass),
            (900_000, 10, 20, 9, 2, Some(10), Fail),
            // early: one failure among five cannot make nine tenths
            (900_000, 5, 10, 0, 1, None, Fail),
            (800_000, 5, 10, 0, 1, None, Wait),
            (800_000, 5, 10, 0, 2, None, Fail),
            (800_000, 5, 10, 3, 2, None, Fail),
            // the sample is all of the wave if the wave is smaller
            (900_000, 50, 2, 1, 0, Some(10), Wait),
            (900_000, 50, 2, 2, 0, Some(10), Pass),
            (900_000, 50, 2, 1, 1, Some(10), Fail),
            // no sample asked for still means one outcome
            (900_000, 0, 4, 0, 0, Some(10), Wait),
            (900_000, 0, 4, 1, 0, Some(10), Pass),
            (900_000, 0, 4, 0, 1, None, Fail),
            // no ratio asked for: every outcome will do
            (0, 2, 4, 0, 1, None, Wait),
            (0, 2, 4, 0, 2, Some(10), Pass),
            // all must be good
            (1_000_000, 3, 9, 3, 0, Some(10), Pass),
            (1_000_000, 3, 9, 8, 1, Some(10), Fail),
            // a wave that passed is judged on: late failures count
            (900_000, 2, 20, 2, 3, Some(10), Fail),
        ];
        for case in cases {
            let (ppm, sample, voters, good, bad, held, expected) = case;
            let votes = Votes {
                voters,
                good,
                bad,
                late: 0,
                present: None,
            };
            let held = held.map(Span::from_secs);
            let verdict = judge(&gate(ppm, sample), votes, held);
            let why = sentence(&gate(ppm, sample), votes, held);
            assert_eq!(verdict, expected, "{case:?}: {why}");
            if expected == Pass && voters > 0 {
                assert!(holds(&gate(ppm, sample), votes), "{case:?}");
            }
        }
    }

    #[test]
    fn late_joiners_alone_prove_nothing() {
        let votes = |voters, good, late| Votes {
            voters,
            good,
            bad: 0,
            late,
            present: None,
        };
        let gate = gate(900_000, 2);
        for (votes, expected) in [
            (votes(0, 0, 3), Wait),
            (votes(0, 0, 0), Pass),
            (votes(2, 2, 3), Pass),
        ] {
            let held = Some(Span::from_secs(10));
            let (verdict, why) = (judge(&gate, votes, held), sentence(&gate, votes, held));
            assert_eq!(verdict, expected, "{votes:?}: {why}");
            assert_eq!(holds(&gate, votes), expected == Pass, "{votes:?}");
        }
    }

    #[test]
    fn a_sentence_names_counts_and_ratio() {
        let votes = Votes {
            voters: 4,
            good: 3,
            bad: 1,
            late: 0,
            present: None,
        };
        let why = sentence(&gate(900_000, 4), votes, None);
        assert_eq!(why, "3 of 4 outcomes are good (75.0 %), 90.0 % are needed");
        let votes = Votes {
            voters: 4,
            good: 0,
            bad: 1,
            late: 0,
            present: None,
        };
        let why = sentence(&gate(900_000, 4), votes, None);
        assert_eq!(
            why,
            "1 of 1 outcomes are failures, so 90.0 % can no longer be reached in 4"
        );
    }
}
