//! When nodes start once they have leave and bytes: the plan's constraints are asked as nodes ask them
//! ([`Constraints::admits`]), each node by the clock of its own zone, and restart slots are handed out by the
//! groups that nodes themselves form ([`protocol::slots`]).
//!
//! Nobody puts anything off and nobody asks for it early; notice is given as soon as a node could start.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use protocol::constraints::{self, Case, Machine, Offer};
use protocol::plan::RolloutPlan;
use protocol::{Hash, SiteId, Span, Time};

use crate::fleet::Node;

/// Different zones and moments that are remembered.
const KNOWN_MAX: usize = 100_000;
/// Times at which a node is asked about again.
const STEPS_MAX: usize = 16;

/// What a start waits for beside leave and bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Waits {
    /// A constraint of the plan.
    For(constraints::Cause),
    /// A restart slot of its site.
    Slot,
}

/// When a node starts, and what it waited for last.
pub(crate) type Start = (Option<Time>, Option<Waits>);

/// The starts of a plan.
pub(crate) struct Starts<'a> {
    plan: &'a RolloutPlan,
    install: Span,
    known: BTreeMap<(Option<String>, Time), Start>,
    /// When each slot of a group is free again.
    slots: BTreeMap<(Option<SiteId>, Hash), BinaryHeap<Reverse<Time>>>,
}

impl<'a> Starts<'a> {
    pub fn of(plan: &'a RolloutPlan, install: Span) -> Starts<'a> {
        Starts {
            plan,
            install,
            known: BTreeMap::new(),
            slots: BTreeMap::new(),
        }
    }

    /// When a node starts that has leave and bytes from then on.
    pub fn start(&mut self, node: &Node, ready: Time) -> Start {
        if self.plan.constraints.is_empty() {
            return (Some(ready), None);
        }
        let zone = node.attributes.get("zone");
        let admitted = self.admitted(zone, ready);
        let Some(rules) = &self.plan.constraints.slots else {
            return admitted;
        };
        let Some(from) = admitted.0 else {
            return admitted;
        };
        let group = (node.site.as_deref().cloned(), rules.group(&node.subject()));
        let most = rules.max_unavailable as usize;
        let held = self.slots.entry(group.clone()).or_default();
        let free = match held.len() < most {
            true => None,
            false => held.pop().map(|Reverse(at)| at),
        };
        let free = free.filter(|at| *at > from);
        let start = match free {
            None => admitted,
            // the next slot may be free only when the window is shut again
            Some(at) => match self.admitted(zone, at) {
                (Some(start), None) => (Some(start), Some(Waits::Slot)),
                (start, by) => (start, by),
            },
        };
        let until = start.0.map_or(Time::MAX, |at| at + self.install);
        self.slots.entry(group).or_default().push(Reverse(until));
        start
    }

    fn admitted(&mut self, zone: Option<&String>, ready: Time) -> Start {
        let key = (zone.cloned(), ready);
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let found = admitted(self.plan, zone.cloned(), ready);
        if self.known.len() < KNOWN_MAX {
            self.known.insert(key, found);
        }
        found
    }
}

fn admitted(plan: &RolloutPlan, zone: Option<String>, ready: Time) -> Start {
    let rules = &plan.constraints;
    let machine = Machine {
        zone,
        // a machine that has not what the plan asks for is not foreseen
        free_disk_bytes: Some(u64::MAX),
        ..Machine::default()
    };
    let offer = rules.user.as_ref().map(|user| Offer::new(user, ready));
    let case = Case {
        priority: plan.priority,
        machine: &machine,
        offer: offer.as_ref(),
    };
    let (mut at, mut by) = (ready, None);
    for _ in 0..STEPS_MAX {
        match rules.admits(at, case) {
            Ok(_) => return (Some(at), by),
            Err(held) => {
                by = by.or(Some(Waits::For(held.by)));
                match held.until.filter(|until| *until > at) {
                    Some(until) if until < plan.not_after => at = until,
                    _ => return (None, by),
                }
            }
        }
    }
    (None, by)
}
