//! A node's own statuses: whom it tells, how often, and when it stops.

use super::*;
use protocol::fixtures::{Fleet, contact, node, rollout, seq};
use protocol::orders::Mark;
use protocol::{Hash, Seq};

fn status(fleet: &Fleet, name: &str, state: State) -> NodeStatus {
    NodeStatus {
        fleet: fleet.id(),
        node: node(1),
        rollout: rollout(name),
        plan: Hash::of(b"plan"),
        release: Hash::of(b"release"),
        wave: 0,
        seq: seq(0),
        state,
        reason: String::new(),
        entered_at: Time(0),
        attempt: 1,
        install_id: Hash::of(b"install"),
        lan_bytes: 0,
        wan_bytes: 0,
        exit_code: None,
        output_tail: String::new(),
    }
}

fn at(s: u64) -> Now {
    Now {
        boot: Time::from_secs(s),
        wall: Time::from_secs(s),
    }
}

/// Whom the node hands its status to, with the tickets; and how often it gossips.
fn told(out: &mut Outbox) -> (Vec<(Ticket, NodeId)>, usize) {
    let (mut told, mut gossip) = (Vec::new(), 0);
    while let Some(action) = out.pop() {
        match action {
            Action::Ask { ticket, to, .. } => told.push((ticket, to.node)),
            Action::GossipStatus(_) => gossip += 1,
            _ => {}
        }
    }
    (told, gossip)
}

struct Bench {
    fleet: Fleet,
    out: Outbox,
    counters: Counters,
    reports: Reports,
}

impl Bench {
    fn new() -> Bench {
        let mut reports = Reports::default();
        reports.set_delegates(vec![contact(8), contact(9)], false);
        Bench {
            fleet: Fleet::new(1),
            out: Outbox::default(),
            counters: Counters::new(None, None, 1),
            reports,
        }
    }

    fn say(&mut self, state: State, s: u64) {
        let status = status(&self.fleet, "r", state);
        let (counters, out) = (&mut self.counters, &mut self.out);
        self.reports.say(status, false, at(s), counters, out);
    }

    fn tick(&mut self, s: u64) -> (Vec<(Ticket, NodeId)>, usize) {
        self.reports.tick(at(s), &mut self.counters, &mut self.out);
        told(&mut self.out)
    }

    fn receive(&mut self, seq: Seq) -> bool {
        let mark = Mark {
            node: node(1),
            rollout: rollout("r"),
            seq,
        };
        let receipt = self.fleet.receipt(vec![mark]);
        self.reports.acknowledge(node(1), &receipt, &mut self.out)
    }

    fn seq(&self) -> Seq {
        self.reports.own(&rollout("r")).expect("said").seq
    }
}

#[test]
fn a_milestone_goes_to_both_delegates_and_what_is_only_counted_to_the_first() {
    let mut bench = Bench::new();
    bench.say(State::Received, 0);
    let (asked, _) = bench.tick(0);
    assert_eq!(
        asked.iter().map(|a| a.1).collect::<Vec<_>>(),
        [node(8), node(9)]
    );
    let first = bench.seq();
    for (ticket, _) in asked {
        assert!(
            bench
                .reports
                .answered(ticket, Some(&ControlReply::Done), at(0))
        );
    }
    assert!(bench.tick(1).0.is_empty(), "both have it");
    assert!(bench.receive(first));
    assert_eq!(bench.reports.timeout(), None);
    bench.say(State::Downloading, 2);
    assert!(
        bench.reports.acknowledged(&rollout("r")),
        "the same milestone"
    );
    assert_eq!(bench.reports.due(Span::ZERO), None);
    let (asked, _) = bench.tick(2);
    assert_eq!(asked.iter().map(|a| a.1).collect::<Vec<_>>(), [node(8)]);
    bench.say(State::Succeeded, 9);
    assert!(!bench.reports.acknowledged(&rollout("r")));
    assert_eq!(bench.tick(9).0.len(), 2);
}

#[test]
fn a_delegate_that_takes_over_is_told_and_one_that_does_not_answer_is_asked_again() {
    let mut bench = Bench::new();
    bench.say(State::Succeeded, 0);
    let (asked, _) = bench.tick(0);
    bench
        .reports
        .answered(asked[0].0, Some(&ControlReply::Done), at(0));
    bench.reports.answered(asked[1].0, None, at(0));
    assert!(bench.tick(0).0.is_empty());
    let again = bench.reports.timeout().expect("again");
    assert_eq!(again, at(1).boot);
    assert_eq!(bench.tick(1).0.len(), 1);
    bench
        .reports
        .set_delegates(vec![contact(8), contact(7)], false);
    let (asked, _) = bench.tick(2);
    assert_eq!(asked.iter().map(|a| a.1).collect::<Vec<_>>(), [node(7)]);
}

#[test]
fn without_a_receipt_it_is_said_again_and_by_gossip() {
    let mut bench = Bench::new();
    bench.say(State::Succeeded, 0);
    let first = bench.seq();
    for (ticket, _) in bench.tick(0).0 {
        bench
            .reports
            .answered(ticket, Some(&ControlReply::Done), at(0));
    }
    bench.tick(0);
    assert_eq!(bench.reports.timeout(), Some(at(20).boot));
    let (asked, gossip) = bench.tick(20);
    assert_eq!((asked.len(), gossip), (2, 0));
    let (_, gossip) = bench.tick(40);
    assert_eq!(gossip, 1);
    let second = bench.seq();
    assert!(second > first, "gossip drops what it has seen");
    let ahead = Seq {
        epoch: 1,
        n: second.n + 1,
    };
    assert!(!bench.receive(ahead), "no register runs ahead of its node");
    assert_eq!(bench.reports.forgotten(), Some(ahead));
    assert_eq!(bench.reports.forgotten(), None, "told once");
    assert!(bench.receive(first), "the state is the same since then");
    assert!(bench.reports.acknowledged(&rollout("r")));
    bench.tick(99);
    assert_eq!(bench.reports.timeout(), None);
}

#[test]
fn a_node_whose_delegates_do_not_answer_gossips_soon() {
    let mut bench = Bench::new();
    bench.say(State::Succeeded, 0);
    let mut gossips = 0;
    for s in 0..15 {
        let (asked, gossip) = bench.tick(s);
        gossips += gossip;
        for (ticket, _) in asked {
            bench.reports.answered(ticket, None, at(s));
        }
    }
    assert_eq!(gossips, 1, "once, then with growing pauses");
}

#[test]
fn what_a_node_says_is_cut_to_its_limits() {
    let mut bench = Bench::new();
    let mut said = status(&bench.fleet, "r", State::Failed);
    said.reason = "é".repeat(TEXT_MAX_BYTES);
    said.output_tail = "ü".repeat(TEXT_MAX_BYTES);
    let (counters, out) = (&mut bench.counters, &mut bench.out);
    bench.reports.say(said, false, at(0), counters, out);
    let own = bench.reports.own(&rollout("r")).expect("said");
    assert!(own.reason.len() <= TEXT_MAX_BYTES);
    assert!(own.output_tail.len() <= OUTPUT_TAIL_BYTES);
}

/// A receipt that a delegate still holds from before a restore silenced the node for ever.
#[test]
fn after_a_new_epoch_no_old_receipt_is_good_enough() {
    let mut bench = Bench::new();
    bench.say(State::Succeeded, 0);
    bench.tick(0);
    let old = bench.seq();
    assert!(bench.receive(old));
    assert!(bench.reports.acknowledged(&rollout("r")));
    let (counters, out) = (&mut bench.counters, &mut bench.out);
    bench.reports.begin_anew(at(60), counters, out);
    assert!(!bench.reports.acknowledged(&rollout("r")));
    assert!(bench.seq() > old);
    bench.receive(old);
    assert!(!bench.reports.acknowledged(&rollout("r")), "from before");
    let (asked, _) = bench.tick(60);
    assert_eq!(asked.len(), 2, "both delegates are told again");
    let new = bench.seq();
    bench.receive(new);
    assert!(bench.reports.acknowledged(&rollout("r")));
}
