//! What this node says as a witness, and the words of others that it carries upward.
//!
//! A word goes to every delegate of the site, so that one that withholds words silences nobody; a delegate
//! hands the newest word of each witness to the coordinator. While no rollout is alive nobody asks, and
//! nothing is said.

use std::collections::BTreeMap;

use protocol::limits::{WITNESS_GATHER, WITNESS_WORDS_MAX};
use protocol::wire::{Contact, ControlReply, ControlRequest};
use protocol::witness::{SignedWord, WitnessWord};
use protocol::{NodeId, Now, SiteId, Time};

use crate::contract::{Action, Ticket};
use crate::counters::Counters;
use crate::outbox::Outbox;

/// Words on their way.
#[derive(Default)]
pub(crate) struct Witness {
    /// Whom this node named last.
    said: Vec<NodeId>,
    /// When to speak; none if nothing changed.
    due: Option<Time>,
    /// Words to carry upward, the newest of each witness.
    words: BTreeMap<NodeId, SignedWord>,
    /// When to carry them.
    carry: Option<Time>,
    asked: BTreeMap<Ticket, Asked>,
}

/// Who was asked, and for what.
enum Asked {
    /// A delegate, to take this node's word.
    Take,
    /// The coordinator, to take these.
    Carry(NodeId, BTreeMap<NodeId, SignedWord>),
}

/// What a telling may use.
pub(crate) struct Around<'a> {
    pub(crate) me: NodeId,
    pub(crate) site: &'a SiteId,
    /// This node is one of its site's delegates.
    pub(crate) delegate: bool,
    /// The other delegates.
    pub(crate) delegates: Vec<Contact>,
    /// Where the coordinator is reached.
    pub(crate) coordinator: Option<Contact>,
    pub(crate) now: Now,
    pub(crate) counters: &'a mut Counters,
    pub(crate) out: &'a mut Outbox,
}

impl Witness {
    /// This node misses these now, rising, while a rollout is alive.
    pub(crate) fn misses<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeId>, now: Now) {
        if self.due.is_none() && !nodes.eq(&self.said) {
            self.due = Some(now.boot + WITNESS_GATHER);
        }
    }

    /// A member says what it does not see; its own word only.
    pub(crate) fn heard(&mut self, from: NodeId, words: Vec<SignedWord>, now: Now) {
        // Without a signature the body would take it for this node's own.
        let Some(word) = words.into_iter().next().filter(|w| !w.sig.is_empty()) else {
            return;
        };
        self.keep(from, word, now);
    }

    fn keep(&mut self, witness: NodeId, word: SignedWord, now: Now) {
        if self.words.len() < WITNESS_WORDS_MAX || self.words.contains_key(&witness) {
            self.words.insert(witness, word);
            self.carry = self.carry.or(Some(now.boot + WITNESS_GATHER));
        }
    }

    /// When there is something to say or to carry.
    pub(crate) fn timeout(&self) -> Option<Time> {
        let carrying = self.asked.values().any(|a| matches!(a, Asked::Carry(..)));
        let carry = self.carry.filter(|_| !carrying);
        self.due.into_iter().chain(carry).min()
    }

    /// Says what is due, to the delegates and to the coordinator.
    pub(crate) fn tell<'a>(
        &mut self,
        missed: impl Iterator<Item = &'a NodeId>,
        around: &mut Around<'_>,
    ) {
        let now = around.now;
        if self.due.is_some_and(|at| at <= now.boot) {
            self.due = None;
            self.said = missed.copied().collect();
            self.speak(around);
        }
        if self.carry.is_some_and(|at| at <= now.boot) {
            self.carry = None;
            let Some(to) = around.coordinator.clone().filter(|_| around.delegate) else {
                self.words.clear();
                return;
            };
            let words = std::mem::take(&mut self.words);
            let ticket = around.out.ticket();
            let all = words.values().cloned().collect();
            self.asked.insert(ticket, Asked::Carry(to.node, words));
            ask(ticket, to, all, around.out);
        }
    }

    fn speak(&mut self, around: &mut Around<'_>) {
        let word = SignedWord::unsigned(&WitnessWord {
            witness: around.me,
            site: around.site.clone(),
            seq: around.counters.draw(around.out),
            silent: self.said.clone(),
        });
        if around.delegate {
            self.keep(around.me, word.clone(), around.now);
        }
        for to in std::mem::take(&mut around.delegates) {
            let ticket = around.out.ticket();
            self.asked.insert(ticket, Asked::Take);
            ask(ticket, to, vec![word.clone()], around.out);
        }
    }

    /// An answer came, or will not come; none if this room did not ask, and the coordinator if it was it. What
    /// was not taken is said again.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        reply: Option<&ControlReply>,
        now: Now,
    ) -> Option<Option<NodeId>> {
        let asked = self.asked.remove(&ticket)?;
        let taken = matches!(reply, Some(ControlReply::Done));
        match asked {
            Asked::Take => {
                if !taken {
                    self.due = self.due.or(Some(now.boot + WITNESS_GATHER));
                }
                Some(None)
            }
            Asked::Carry(coordinator, words) => {
                // An older coordinator refuses it, and would again.
                let lost = words.into_iter().filter(|_| reply.is_none());
                for (witness, word) in lost {
                    if !self.words.contains_key(&witness) {
                        self.keep(witness, word, now);
                    }
                }
                Some(Some(coordinator))
            }
        }
    }
}

fn ask(ticket: Ticket, to: Contact, words: Vec<SignedWord>, out: &mut Outbox) {
    out.push(Action::Ask {
        ticket,
        to,
        request: Box::new(ControlRequest::Witness(words)),
        own_statuses: Vec::new(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{contact, node, site};
    use protocol::versioned::Versioned;

    struct Bench {
        witness: Witness,
        counters: Counters,
        out: Outbox,
        now: Now,
        delegate: bool,
    }

    impl Bench {
        fn new(delegate: bool) -> Bench {
            Bench {
                witness: Witness::default(),
                counters: Counters::new(None, None, 1),
                out: Outbox::default(),
                now: Now::default(),
                delegate,
            }
        }

        /// Waits until something is due; whom it asks, and the words.
        fn told(&mut self, missed: &[NodeId]) -> Vec<(Ticket, NodeId, Vec<SignedWord>)> {
            self.witness.misses(missed.iter(), self.now);
            let Some(at) = self.witness.timeout() else {
                return Vec::new();
            };
            self.now.boot = self.now.boot.max(at);
            let (me, at) = (node(1), site("s1"));
            let others = [2, 3].into_iter().take(2 - usize::from(self.delegate));
            let mut around = Around {
                me,
                site: &at,
                delegate: self.delegate,
                delegates: others.map(contact).collect(),
                coordinator: Some(contact(9)),
                now: self.now,
                counters: &mut self.counters,
                out: &mut self.out,
            };
            self.witness.tell(missed.iter(), &mut around);
            let mut told = Vec::new();
            while let Some(action) = self.out.pop() {
                if let Action::Ask {
                    ticket,
                    to,
                    request,
                    ..
                } = action
                {
                    let ControlRequest::Witness(words) = *request else {
                        panic!("{request:?}")
                    };
                    told.push((ticket, to.node, words));
                }
            }
            told
        }
    }

    fn silent(word: &SignedWord) -> Vec<NodeId> {
        WitnessWord::from_bytes(&word.body).unwrap().silent
    }

    #[test]
    fn a_change_is_told_to_every_delegate_once_and_again_if_it_was_lost() {
        let mut bench = Bench::new(false);
        assert!(bench.told(&[]).is_empty(), "nobody is missed");
        let missed = [node(7)];
        let told = bench.told(&missed);
        let [(one, to, words), (other, also, _)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((*to, *also), (contact(2).node, contact(3).node));
        assert_eq!(silent(&words[0]), missed);
        let done = Some(&ControlReply::Done);
        assert_eq!(bench.witness.answered(*one, done, bench.now), Some(None));
        assert_eq!(bench.witness.answered(*one, done, bench.now), None);
        assert!(bench.told(&missed).is_empty(), "said");
        bench.witness.answered(*other, None, bench.now);
        assert_eq!(bench.told(&missed).len(), 2, "one delegate did not hear it");
        let told = bench.told(&[]);
        assert_eq!(silent(&told[0].2[0]), [], "it is back");
    }

    #[test]
    fn a_delegate_carries_the_newest_word_of_each_and_its_own() {
        let mut bench = Bench::new(true);
        let word = |n: u8| SignedWord {
            body: vec![n],
            sig: vec![n; 64],
        };
        bench.witness.heard(node(4), vec![word(1)], bench.now);
        bench
            .witness
            .heard(node(4), vec![word(2), word(9)], bench.now);
        let unsigned = SignedWord {
            sig: Vec::new(),
            ..word(3)
        };
        bench.witness.heard(node(5), vec![unsigned], bench.now);
        let told = bench.told(&[]);
        let [(ticket, to, words)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!((*to, &words[..]), (contact(9).node, &[word(2)][..]));
        bench.witness.heard(node(4), vec![word(3)], bench.now);
        assert_eq!(bench.witness.timeout(), None, "one question at a time");
        let asked = bench.witness.answered(*ticket, None, bench.now);
        assert_eq!(asked, Some(Some(contact(9).node)));
        let told = bench.told(&[]);
        assert_eq!(told[0].2, [word(3)], "not what it said before");
        let own = bench.told(&[node(7)]);
        assert_eq!(own[0].1, contact(2).node, "the other delegate");
        bench
            .witness
            .answered(told[0].0, Some(&ControlReply::Done), bench.now);
        let own = bench.told(&[node(7)]);
        assert_eq!(own[0].1, contact(9).node, "and the coordinator");
        assert_eq!(silent(&own[0].2[0]), [node(7)]);
    }

    #[test]
    fn words_that_wait_are_few() {
        let mut bench = Bench::new(true);
        for n in 0..3 * WITNESS_WORDS_MAX as u64 {
            let word = SignedWord {
                body: Vec::new(),
                sig: vec![1],
            };
            bench.witness.heard(node(n), vec![word], bench.now);
        }
        assert_eq!(bench.told(&[])[0].2.len(), WITNESS_WORDS_MAX);
    }
}
