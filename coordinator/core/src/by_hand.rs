//! Installations by hand: what a person says was done at a machine. The node's own word is worth more, so
//! these notes move no node from one count to another; they are counted apart.

use std::collections::BTreeMap;

use protocol::{Hash, NodeId};

use crate::commands::Outcome;
use crate::conductor::{Conductor, cut};
use crate::contract::{Answer, ByHand, CommandError, LedgerEvent};
use crate::rollout::Rollout;

/// The newest note of each node, by release.
pub(crate) type Notes = BTreeMap<Hash, BTreeMap<NodeId, ByHand>>;

impl Conductor {
    /// Notes an installation by hand; a later note about the same node and release takes its place.
    pub(crate) fn record_install(&mut self, note: ByHand) -> Outcome {
        if self.fleet.admitted(&note.node).is_none() {
            return Err(CommandError::NoNode(note.node));
        }
        if !self.releases.contains_key(&note.release) {
            return Err(CommandError::NoRelease(note.release));
        }
        let said = |text: &str| !text.trim().is_empty();
        if !said(&note.who) || !said(&note.why) {
            let line = "an installation by hand is noted with who did it and why".to_owned();
            return Err(CommandError::Limit(line));
        }
        let note = ByHand {
            who: cut(&note.who),
            why: cut(&note.why),
            noted_by: cut(&note.noted_by),
            at: self.now.wall,
            ..note
        };
        self.record(LedgerEvent::InstalledByHand(note));
        Ok(Answer::Done)
    }

    /// Folds a note.
    pub(crate) fn fold_by_hand(&mut self, note: &ByHand) {
        let of_release = self.by_hand.entry(note.release).or_default();
        of_release.insert(note.node, note.clone());
    }

    /// Notes about a node, by release.
    pub(crate) fn notes_about(&self, node: &NodeId) -> Vec<ByHand> {
        let notes = self.by_hand.values();
        notes.filter_map(|of| of.get(node).cloned()).collect()
    }

    /// How many targets of a rollout have its release by hand, by such notes.
    pub(crate) fn targets_by_hand(&self, rollout: &Rollout) -> u32 {
        let notes = self.by_hand.get(&rollout.plan.release);
        let nodes = notes.into_iter().flat_map(BTreeMap::keys);
        nodes
            .filter(|node| rollout.targets.contains_key(node))
            .count() as u32
    }
}
