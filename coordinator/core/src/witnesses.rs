//! Whether a node that says it succeeded is alive, by the word of its peers.
//!
//! A success stands on its node's own word, unless more than half of its witnesses say that it fell silent
//! after it: then it proves nothing until they see it again, and counts as silent once the gate's patience is
//! over. The witnesses are drawn by a hash among the members of the site that were heard of lately, so that
//! nobody chooses whose witness it is; of a small site all are. A delegate that tells of fewer members than
//! there are makes no majority: it is counted against those that were heard of. Two at least must agree, so
//! in a site of two nobody is witnessed; and what one site loses so is capped at the gates as all failures of
//! one site are.

use std::collections::{BTreeMap, BTreeSet};

use protocol::limits::{MEMBERS_MAX, SITES_MAX, WITNESS_LAG, WITNESSED_BY_MAX, WITNESSED_BY_MIN};
use protocol::status::State;
use protocol::witness::{WitnessWord, witnesses_of};
use protocol::{NodeId, RolloutId, Seq, SiteId, Span, Verified};

use crate::conductor::Conductor;
use crate::contract::LedgerEvent;

/// The newest word of each witness, by site. Not ledgered: what follows from them is.
#[derive(Default)]
pub(crate) struct Words(BTreeMap<SiteId, BTreeMap<NodeId, (Seq, BTreeSet<NodeId>)>>);

impl Words {
    /// Takes a word in; about whom it says something else than the one before.
    fn take(&mut self, word: &WitnessWord) -> BTreeSet<NodeId> {
        let room = self.0.len() < SITES_MAX || self.0.contains_key(&word.site);
        if !room {
            return BTreeSet::new();
        }
        let site = self.0.entry(word.site.clone()).or_default();
        if site.len() >= MEMBERS_MAX && !site.contains_key(&word.witness) {
            return BTreeSet::new();
        }
        let (seq, held) = site.entry(word.witness).or_default();
        if *seq >= word.seq {
            return BTreeSet::new();
        }
        *seq = word.seq;
        let new: BTreeSet<NodeId> = word.silent.iter().copied().collect();
        let before = std::mem::replace(held, new.clone());
        before.symmetric_difference(&new).copied().collect()
    }

    /// Whether that witness says that a node is silent.
    fn says(&self, site: &SiteId, witness: &NodeId, node: &NodeId) -> bool {
        let word = self.0.get(site).and_then(|words| words.get(witness));
        word.is_some_and(|(_, silent)| silent.contains(node))
    }
}

/// Whether so many words silence a node that has `witnesses`, where `online` others of its site were heard of
/// lately.
fn outvoted(words: usize, witnesses: usize, online: usize) -> bool {
    let of = witnesses.max(online.min(WITNESSED_BY_MAX));
    words >= WITNESSED_BY_MIN && words * 2 > of
}

impl Conductor {
    /// A member says whom of its site it does not see.
    pub(crate) fn witnessed(&mut self, word: &Verified<WitnessWord>) {
        let witness = self.fleet.admitted(&word.witness);
        if witness.is_some_and(|node| node.site.as_deref() == Some(&word.site)) {
            let about = self.words.take(word);
            self.reconsider(&about);
        }
    }

    /// Looks anew whether these are silent, as far as they claim a success.
    pub(crate) fn reconsider(&mut self, nodes: &BTreeSet<NodeId>) {
        let mut found: Vec<(RolloutId, Vec<NodeId>, Vec<NodeId>)> = Vec::new();
        for (id, rollout) in self.rollouts.iter().filter(|(_, r)| r.is_alive()) {
            let (mut silent, mut back) = (Vec::new(), Vec::new());
            for node in nodes {
                let Some(target) = rollout.targets.get(node) else {
                    continue;
                };
                let soak = rollout.plan.waves[target.wave as usize].gate.soak;
                let fresh = self.now.boot.since(target.heard) <= Span(soak.0 + WITNESS_LAG.0);
                match target.unseen {
                    None if target.state == State::Succeeded && fresh && self.is_silent(node) => {
                        silent.push(*node);
                    }
                    Some(_) if !self.is_silent(node) => back.push(*node),
                    _ => {}
                }
            }
            if !(silent.is_empty() && back.is_empty()) {
                found.push((id.clone(), silent, back));
            }
        }
        for (rollout, silent, back) in found {
            if !silent.is_empty() {
                let line = format!(
                    "{} nodes of {rollout} said that they succeeded, and their peers see them no more",
                    silent.len()
                );
                self.note("unwitnessed", line);
            }
            if !back.is_empty() {
                let line = format!(
                    "{} nodes of {rollout} are seen by their peers again",
                    back.len()
                );
                self.note("witnessed", line);
            }
            self.record(LedgerEvent::Witnessed {
                rollout,
                silent,
                back,
            });
        }
    }

    /// Whether more than half of a node's witnesses do not see it.
    fn is_silent(&self, node: &NodeId) -> bool {
        let held = self.fleet.admitted(node);
        let Some(site) = held.and_then(|held| held.site.as_deref()) else {
            return false;
        };
        let online = |id: &&NodeId| {
            let member = self.fleet.admitted(id);
            member.is_some_and(|m| m.reachable && m.site.as_deref() == Some(site))
        };
        let members = self.feeds.members(site).into_iter().flatten();
        let witnesses = witnesses_of(node, members.filter(online));
        let words = witnesses.iter().filter(|w| self.words.says(site, w, node));
        let reachable = self.fleet.sites.get(site).map_or(0, |p| p.reachable);
        let itself = u32::from(held.is_some_and(|held| held.reachable));
        let others = reachable.saturating_sub(itself) as usize;
        outvoted(words.count(), witnesses.len(), others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{node, seq, site};

    #[test]
    fn a_majority_silences_and_a_minority_never_does() {
        // (words, witnesses, others online) -> silenced
        let cases = [
            (0, 0, 0, false),
            (1, 1, 1, false),
            (2, 2, 2, true),
            (1, 3, 3, false),
            (2, 3, 3, true),
            (5, 10, 10, false),
            (6, 10, 10, true),
            // a delegate that tells of its friends only
            (3, 3, 20, false),
            (10, 10, 20, false),
            (11, 11, 20, true),
            // a large site is asked by lot
            (15, 31, 2000, false),
            (16, 31, 2000, true),
        ];
        for (words, witnesses, online, expected) in cases {
            assert_eq!(
                outvoted(words, witnesses, online),
                expected,
                "{words} of {witnesses}, {online} online"
            );
        }
        for online in 0..100 {
            let minority = online / 2;
            assert!(!outvoted(
                minority.min(WITNESSED_BY_MAX / 2),
                minority,
                online
            ));
        }
    }

    #[test]
    fn of_each_witness_the_newest_word_counts() {
        let mut words = Words::default();
        let word = |n, silent: &[u64]| WitnessWord {
            witness: node(1),
            site: site("s1"),
            seq: seq(n),
            silent: silent.iter().map(|n| node(*n)).collect(),
        };
        let about = |nodes: &[u64]| nodes.iter().map(|n| node(*n)).collect::<BTreeSet<_>>();
        assert_eq!(words.take(&word(2, &[7, 8])), about(&[7, 8]));
        assert_eq!(words.take(&word(1, &[9])), about(&[]), "replayed");
        assert_eq!(words.take(&word(3, &[8, 9])), about(&[7, 9]));
        assert!(words.says(&site("s1"), &node(1), &node(9)));
        assert!(!words.says(&site("s1"), &node(1), &node(7)));
        assert_eq!(words.take(&word(4, &[])), about(&[8, 9]));
        assert_eq!(words.take(&word(3, &[8, 9])), about(&[]), "replayed");
    }
}
