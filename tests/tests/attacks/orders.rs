//! Rows about the order of orders: what is old, planted, or never comes.

use std::collections::{BTreeMap, BTreeSet};

use node::driver::Question;
use node_core::Brain;
use node_core::contract::{Action, Config, Event, Grain, Memory, NodeRole, Tempo};
use protocol::fixtures::{CREATED, Fleet, contact, node, rollout};
use protocol::limits::ROLLOUTS_MAX;
use protocol::orders::{Bulletin, OrderBody};
use protocol::trust::{Role, Trust};
use protocol::wire::ControlReply;
use protocol::{Hash, Now, Time};

use crate::mutations::{CASES, Mutations};
use crate::statements::intake;

/// A node's door and brain without the rest of the machine.
pub struct Machine {
    pub intake: node::driver::Intake,
    pub brain: Brain,
    pub now: Now,
}

impl Machine {
    pub fn new(trust: &Trust) -> Machine {
        let config = Config {
            node: node(1),
            fleet: trust.fleet(),
            role: NodeRole::Endpoint,
            os: "linux".into(),
            arch: "x86_64".into(),
            labels: BTreeMap::new(),
            attributes: BTreeMap::new(),
            contact: contact(1),
            epoch: 1,
            boot_id: Hash::of(b"boot"),
            coordinators: vec![contact(9000)],
            origins: vec![contact(9001)],
            tempo: Tempo::default(),
            grain: Grain::default(),
            agent: None,
            seed: 7,
        };
        let now = Now {
            boot: Time::from_secs(100),
            wall: CREATED,
        };
        let mut machine = Machine {
            intake: intake(trust),
            brain: Brain::new(config, Memory::default(), now),
            now,
        };
        machine.tell(Event::Root(trust.root().clone()));
        machine.tell(Event::Addresses(vec![[10, 0, 0, 1].into()]));
        machine
    }

    /// Hands an event in and gives the notes that the brain made of it.
    fn tell(&mut self, event: Event) -> Vec<&'static str> {
        self.brain.handle(self.now, event);
        let actions = std::iter::from_fn(|| self.brain.poll_action());
        let note = |action| match action {
            Action::Note { event, .. } => Some(event),
            _ => None,
        };
        actions.filter_map(note).collect()
    }

    /// What came through the door goes to the brain.
    pub fn believed(&mut self) -> Vec<&'static str> {
        let events = std::mem::take(&mut self.intake.events);
        events.into_iter().flat_map(|e| self.tell(e)).collect()
    }

    pub fn order(&mut self, fleet: &Fleet, n: u64, body: OrderBody) -> Vec<&'static str> {
        let order = fleet.order(n, body);
        self.intake.order(node(2), order.envelope());
        self.believed()
    }

    fn head(&self) -> u64 {
        self.brain.snapshot(self.now).orders_head.n
    }
}

fn halt(id: &str) -> OrderBody {
    OrderBody::Halt {
        rollout: rollout(id),
        reason: "smoke".into(),
    }
}

fn bulletin(fleet: &Fleet) -> OrderBody {
    let expires = Time::MAX;
    OrderBody::Bulletin(Bulletin {
        expires,
        ..fleet.bulletin(None, &[])
    })
}

#[test]
fn attack_03_rollback_of_metadata() {
    let fleet = Fleet::new(1);
    let mut machine = Machine::new(fleet.trust());
    let mut mutations = Mutations::new(3);
    let mut newest: BTreeMap<String, u64> = BTreeMap::new();
    for case in 0..2 * CASES {
        let id = format!("r{}", mutations.below(8));
        let n = 1 + mutations.below(5_000) as u64;
        let held = newest.entry(id.clone()).or_default();
        let notes = machine.order(&fleet, n, halt(&id));
        let expected: &[&str] = if n < *held {
            &["metadata_rollback"]
        } else {
            &[]
        };
        assert_eq!(notes, expected, "case {case}: order {n} after {held}");
        *held = n.max(*held);
    }
    // The topology keeps to the same rule, and two of one version are told.
    let topology = |version, sites| fleet.verified(&fleet.topology(version, sites));
    let mut say = |version, sites| machine.tell(Event::Topology(topology(version, sites)));
    assert_eq!(say(2, 2), [""; 0]);
    assert_eq!(say(2, 2), [""; 0], "an equal one is a silent no-op");
    assert_eq!(say(1, 2), ["metadata_rollback"]);
    assert_eq!(say(2, 3), ["equivocation"]);
}

#[test]
fn attack_05_fast_forward() {
    let mut mutations = Mutations::new(5);
    let mut fleet = Fleet::new(1);
    let old = fleet.trust().clone();
    let thief = fleet.clone();
    let root = fleet.rotate(&[Role::Coordinator]);
    for case in 0..CASES {
        let mut machine = Machine::new(&old);
        // The thief numbers near the end of all numbers, about whatever he likes.
        let far = (1 << 63) + mutations.below(1 << 20) as u64;
        for place in 0..1 + mutations.below(4) as u64 {
            let body = match mutations.below(3) {
                0 => bulletin(&thief),
                _ => halt(&format!("r{}", mutations.below(3))),
            };
            machine.order(&thief, far + place, body);
        }
        let honest = machine.order(&fleet, 1, halt("r1"));
        assert_eq!(honest, [""; 0], "the new key is not known yet");

        let reply = ControlReply::Document(Some(root.envelope().to_json()));
        machine.intake.answer(node(3), Question::Root(2), reply);
        machine.believed();
        assert_eq!(machine.head(), 0, "case {case}: his numbers are gone");
        let after = machine.order(&fleet, 2, bulletin(&fleet));
        assert_eq!(after, [""; 0], "case {case}: the honest number is new");
        let older = machine.order(&fleet, 1, bulletin(&fleet));
        assert_eq!(older, ["metadata_rollback"], "case {case}: and it counts");
        let thieves = machine.order(&thief, far + 9, bulletin(&thief));
        assert_eq!(thieves, [""; 0], "case {case}: his key is worth nothing");
        let next = machine.order(&fleet, 3, bulletin(&fleet));
        assert_eq!(
            next, [""; 0],
            "case {case}: so nothing of his is in the way"
        );
    }
}

/// The online key may name anything, and as much as it likes: what a node keeps is bounded, and nothing
/// is asked for that no bulletin names.
#[test]
fn attack_10_endless_orders() {
    let fleet = Fleet::new(1);
    let mut machine = Machine::new(fleet.trust());
    let mut kept = BTreeSet::new();
    for n in 1..=3 * ROLLOUTS_MAX as u64 {
        let order = fleet.order(n, halt(&format!("r{n}")));
        machine.brain.handle(machine.now, Event::Order(order, None));
        while let Some(action) = machine.brain.poll_action() {
            match action {
                Action::Remember(record) => drop(kept.insert(record.key())),
                Action::Forget(key) => drop(kept.remove(&key)),
                _ => {}
            }
        }
    }
    let most = protocol::limits::ORDERS_MAX + 8;
    assert!(kept.len() <= most, "{} records are kept", kept.len());
}

/// Nodes see each bulletin's count of ledger entries and its head; a ledger that does not only grow is told.
#[test]
fn attack_30_ledger_contradicts_a_gossiped_head() {
    let fleet = Fleet::new(1);
    let mut machine = Machine::new(fleet.trust());
    let mut mutations = Mutations::new(230);
    let mut seen: Option<(u64, Hash)> = None;
    for n in 1..=CASES as u64 {
        let entries = mutations.below(6) as u64;
        let ledger_head = Hash::of(&[mutations.below(2) as u8]);
        let body = OrderBody::Bulletin(Bulletin {
            ledger_head,
            ledger_entries: (mutations.below(4) > 0).then_some(entries),
            ..fleet.bulletin(None, &[])
        });
        let told = match &body {
            OrderBody::Bulletin(b) => b.ledger_entries.map(|e| (e, ledger_head)),
            _ => None,
        };
        let notes = machine.order(&fleet, n, body);
        let forked = |(e, h): (u64, Hash)| seen.is_some_and(|(s, b)| e < s || e == s && h != b);
        let expected: &[&str] = if told.is_some_and(forked) {
            &["fork"]
        } else {
            &[]
        };
        assert_eq!(notes, expected, "case {n}: {told:?} after {seen:?}");
        seen = told.or(seen);
    }
}
