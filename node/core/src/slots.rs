//! Restart slots, shared by gossip among the nodes of a site.
//!
//! Who wants a slot and sees one free waits a little, each node for another while, and claims it. Holders
//! answer a claim by saying again that they hold, and of several claims the lowest rank wins; a claim against
//! which nothing was heard for [`CLAIM_WAIT`] is a slot held. Holders say so again and again, so that a
//! holder that died loses its slot when its lease ends. Where a site's LAN is split each part counts for
//! itself: a slot limits what is unavailable, it does not guard anybody's data.
//!
//! A node without a site shares with nobody.

use std::collections::BTreeMap;

use protocol::limits::{SLOT_GROUPS_MAX, SLOT_LEASE_MAX, SLOT_NODES_MAX};
use protocol::slots::{SlotRules, SlotStage, SlotWord};
use protocol::wire::SiteMessage;
use protocol::{Hash, NodeId, Seq, SiteId, Span, Time};

use crate::contract::Action;
use crate::counters::Counters;
use crate::outbox::Outbox;

/// So long a claim waits for a better one, or for a holder.
const CLAIM_WAIT: Span = Span::from_secs(3);
/// A claim that became no slot is over after so long.
const CLAIM_LIFE: Span = Span::from_secs(6);
/// Before they claim, nodes wait up to so long, so that not all claim at once.
const STAGGER: Span = Span::from_secs(4);
/// A holder says so this often.
const RENEW: Span = Span::from_secs(15);
/// A holder answers claims this often at most.
const ANSWER: Span = Span::from_secs(1);

/// The slots of this node and of its site.
#[derive(Default)]
pub(crate) struct Slots {
    groups: BTreeMap<Hash, Group>,
    /// Boot time since which the node is in its site.
    joined: Time,
    site: Option<SiteId>,
    /// Something was heard or asked that is to be looked at.
    fresh: bool,
}

/// What this node asks of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    /// So many may be unavailable at a time.
    pub(crate) max: u32,
    /// See [`SlotRules::lease`].
    pub(crate) lease: Span,
    /// The node is unavailable already, whatever others say.
    pub(crate) busy: bool,
}

#[derive(Default)]
struct Group {
    others: BTreeMap<NodeId, Other>,
    own: Option<Own>,
}

/// Another node's newest word, unless it freed its slot.
struct Other {
    holds: bool,
    /// Boot time at which it ends.
    until: Time,
    seq: Seq,
}

struct Own {
    ask: Ask,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// No slot is free, as far as is known.
    Waits,
    /// One is; it is claimed at this boot time.
    Tries(Time),
    /// It is claimed, and held from this boot time on unless something is heard.
    Claims(Time),
    /// It is held; said again at this boot time.
    Holds(Time),
}

/// Who asks, and where.
pub(crate) struct Here<'a> {
    /// This node.
    pub(crate) me: NodeId,
    /// Boot time.
    pub(crate) boot: Time,
    /// Whether it knows its site and who is in it.
    pub(crate) settled: bool,
    pub(crate) counters: &'a mut Counters,
    pub(crate) out: &'a mut Outbox,
}

impl Slots {
    /// The node is in this site now.
    pub(crate) fn set_site(&mut self, site: Option<&SiteId>, boot: Time) {
        if self.site.as_ref() != site {
            self.site = site.cloned();
            self.joined = boot;
            for group in self.groups.values_mut() {
                group.others.clear();
                if let Some(Stage::Holds(at)) = group.own.as_mut().map(|own| &mut own.stage) {
                    *at = boot;
                }
            }
            self.fresh = true;
        }
    }

    /// Another node of the site said something. `None`: nothing that is to be looked at; else whether
    /// another holds a slot now, or one less.
    pub(crate) fn hear(&mut self, word: &SlotWord, me: NodeId, boot: Time) -> Option<bool> {
        if word.node == me {
            return None;
        }
        let groups = &mut self.groups;
        if groups.len() >= SLOT_GROUPS_MAX && !groups.contains_key(&word.group) {
            groups.retain(|_, group| group.is_of_use(boot));
            if groups.len() >= SLOT_GROUPS_MAX {
                return None;
            }
        }
        let group = groups.entry(word.group).or_default();
        let known = group.others.get(&word.node);
        if known.is_some_and(|known| known.seq >= word.seq) {
            return None;
        }
        let holds = word.stage == SlotStage::Holds;
        let life = match word.stage {
            SlotStage::Holds => word.lease.min(SLOT_LEASE_MAX),
            SlotStage::Claims => CLAIM_LIFE,
            SlotStage::Frees => Span::ZERO,
        };
        if group.others.len() >= SLOT_NODES_MAX && !group.others.contains_key(&word.node) {
            group.others.retain(|_, other| other.until > boot);
            if group.others.len() >= SLOT_NODES_MAX {
                return None;
            }
        }
        let until = Time(boot.0.saturating_add(life.0));
        let seq = word.seq;
        let other = Other { holds, until, seq };
        let before = group.others.insert(word.node, other);
        let held = before.is_some_and(|other| other.holds && other.until > boot);
        let own = group.own.as_mut()?;
        if let (SlotStage::Claims, Stage::Holds(next)) = (word.stage, own.stage) {
            own.stage = Stage::Holds(next.min(boot + ANSWER));
        }
        self.fresh = true;
        Some(held != holds)
    }

    /// This node wants these slots, and no others any more.
    pub(crate) fn want(&mut self, wanted: &BTreeMap<Hash, Ask>, here: &mut Here<'_>) {
        for (id, group) in &mut self.groups {
            if wanted.contains_key(id) {
                continue;
            }
            let own = group.own.take();
            if own.is_some_and(|own| matches!(own.stage, Stage::Claims(_) | Stage::Holds(_))) {
                say(*id, SlotStage::Frees, Span::ZERO, here);
            }
        }
        for (id, ask) in wanted {
            let group = self.groups.entry(*id).or_default();
            let own = group.own.get_or_insert_with(|| {
                self.fresh = true;
                let stage = Stage::Waits;
                Own { ask: *ask, stage }
            });
            self.fresh |= own.ask != *ask;
            own.ask = *ask;
            if ask.busy && !matches!(own.stage, Stage::Holds(_)) {
                own.stage = Stage::Holds(here.boot);
                self.fresh = true;
            }
        }
        self.groups.retain(|_, group| group.is_of_use(here.boot));
    }

    /// Whether this node may be unavailable under these rules.
    ///
    /// # Errors
    /// One line: who is.
    pub(crate) fn leave(&self, rules: &SlotRules, id: &Hash, boot: Time) -> Result<(), String> {
        let group = self.groups.get(id);
        let own = group.and_then(|group| group.own.as_ref());
        if own.is_some_and(|own| matches!(own.stage, Stage::Holds(_))) {
            return Ok(());
        }
        let most = rules.max_unavailable;
        let of = match &rules.per {
            Some(name) => format!("nodes of this site with the same {name}"),
            None => "nodes of this site".to_owned(),
        };
        let holders = group.into_iter().flat_map(|group| group.holders(boot));
        let by: Vec<String> = holders.take(3).map(|node| node.short()).collect();
        let taken = match by.is_empty() {
            true => "a slot is being asked for".to_owned(),
            false => format!("now {}", by.join(", ")),
        };
        // No seconds to count down: each line that differs is a status of its own.
        let seconds = rules.lease.as_millis() / 1000;
        Err(format!(
            "{most} of the {of} may be unavailable at a time: {taken}; who is silent for {seconds} s counts no more"
        ))
    }

    /// When there is something to do.
    pub(crate) fn timeout(&self) -> Option<Time> {
        if self.fresh {
            return Some(Time(0));
        }
        let due = |group: &Group| match group.own.as_ref()?.stage {
            Stage::Tries(at) | Stage::Claims(at) | Stage::Holds(at) => Some(at),
            Stage::Waits => group.others.values().map(|other| other.until).min(),
        };
        self.groups.values().filter_map(due).min()
    }

    /// Does what is due. True if a slot was taken.
    pub(crate) fn tick(&mut self, mut here: Here<'_>) -> bool {
        self.fresh = false;
        let mut taken = false;
        let alone = self.site.is_none();
        let settled = here.settled && here.boot >= self.joined + CLAIM_WAIT;
        for (id, group) in &mut self.groups {
            group.others.retain(|_, other| other.until > here.boot);
            let rank = rank(id, &here.me);
            let (holders, claims, better) = group.rivals(id, rank);
            let Some(own) = &mut group.own else { continue };
            let (max, lease) = (own.ask.max as usize, own.ask.lease);
            let held = matches!(own.stage, Stage::Holds(_));
            own.stage = match own.stage {
                Stage::Holds(at) if at <= here.boot => {
                    if !alone {
                        say(*id, SlotStage::Holds, lease, &mut here);
                    }
                    Stage::Holds(here.boot + RENEW)
                }
                Stage::Holds(at) => Stage::Holds(at),
                _ if alone => Stage::Holds(here.boot + RENEW),
                _ if !settled => Stage::Tries(here.boot + CLAIM_WAIT),
                Stage::Claims(_) if holders >= max => Stage::Waits,
                Stage::Claims(at) if at > here.boot => Stage::Claims(at),
                Stage::Claims(_) if holders + better < max => {
                    say(*id, SlotStage::Holds, lease, &mut here);
                    Stage::Holds(here.boot + RENEW)
                }
                _ if holders + claims >= max => Stage::Waits,
                Stage::Waits | Stage::Claims(_) => Stage::Tries(here.boot + Span(rank % STAGGER.0)),
                Stage::Tries(at) if at > here.boot => Stage::Tries(at),
                Stage::Tries(_) => {
                    say(*id, SlotStage::Claims, lease, &mut here);
                    Stage::Claims(here.boot + CLAIM_WAIT)
                }
            };
            taken |= !held && matches!(own.stage, Stage::Holds(_));
        }
        taken
    }
}

impl Group {
    fn is_of_use(&self, boot: Time) -> bool {
        self.own.is_some() || self.others.values().any(|other| other.until > boot)
    }

    /// Other holders.
    fn holders(&self, boot: Time) -> impl Iterator<Item = NodeId> + '_ {
        let others = self.others.iter();
        let live = others.filter(move |(_, other)| other.holds && other.until > boot);
        live.map(|(node, _)| *node)
    }

    /// How many others hold a slot, claim one, and claim one with a better rank than this.
    fn rivals(&self, id: &Hash, rank_of_me: u64) -> (usize, usize, usize) {
        let holders = self.others.values().filter(|other| other.holds).count();
        let claims = self.others.iter().filter(|(_, other)| !other.holds);
        let better = claims.clone();
        let better = better.filter(|(node, _)| rank(id, node) < rank_of_me);
        (holders, claims.count(), better.count())
    }
}

/// The lower wins.
fn rank(group: &Hash, node: &NodeId) -> u64 {
    let hash = Hash::of(&[&group.0[..], node.as_bytes()].concat());
    let first = hash.0.iter().take(8);
    first.fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn say(group: Hash, stage: SlotStage, lease: Span, here: &mut Here<'_>) {
    let word = SlotWord {
        node: here.me,
        group,
        stage,
        lease,
        seq: here.counters.draw(here.out),
    };
    here.out.push(Action::Gossip(SiteMessage::Slot(word)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::fixtures::{node, seq};

    fn word(n: u64, group: u64, number: u64) -> SlotWord {
        SlotWord {
            node: node(n),
            group: Hash::of(&group.to_le_bytes()),
            stage: SlotStage::Holds,
            lease: Span(u64::MAX),
            seq: seq(number),
        }
    }

    fn heard(slots: &Slots, group: u64) -> usize {
        let group = slots.groups.get(&Hash::of(&group.to_le_bytes()));
        group.map_or(0, |group| group.others.len())
    }

    #[test]
    fn what_is_heard_is_bounded_and_makes_room_when_its_time_is_over() {
        let mut slots = Slots::default();
        let hear = |slots: &mut Slots, word: SlotWord, boot| slots.hear(&word, node(0), boot);
        for n in 1..=SLOT_NODES_MAX as u64 + 1 {
            hear(&mut slots, word(n, 0, 1), Time(0));
        }
        assert_eq!(heard(&slots, 0), SLOT_NODES_MAX);
        for group in 0..=SLOT_GROUPS_MAX as u64 {
            hear(&mut slots, word(1, group, 2), Time(0));
        }
        assert_eq!(slots.groups.len(), SLOT_GROUPS_MAX);
        // However long a lease its holder claims, it ends.
        let later = Time(SLOT_LEASE_MAX.0);
        hear(&mut slots, word(1, SLOT_GROUPS_MAX as u64, 3), later);
        assert_eq!(
            (heard(&slots, 0), heard(&slots, SLOT_GROUPS_MAX as u64)),
            (0, 1)
        );
    }
}
