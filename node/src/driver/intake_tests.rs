//! Foreign bytes become events only when they are what they claim to be.

use ed25519_dalek::SigningKey;
use node_core::contract::Event;
use proptest::prelude::*;
use protocol::fixtures::{self, Fleet};
use protocol::revocation::Warranted;
use protocol::trust::RoleKeys;
use protocol::wire::Claim;
use protocol::{PublicKey, Span};

use super::*;
use crate::net::identity::issue::{IssuingCa, Validity};

const VALID: Validity = Validity {
    not_before: Time::from_secs(1_500_000_000),
    not_after: Time::from_secs(2_500_000_000),
};

fn intake(fleet: &Fleet) -> Intake {
    intake_with(fleet, Vec::new())
}

fn intake_with(fleet: &Fleet, cas: Vec<CertificateDer<'static>>) -> Intake {
    let admission = Arc::new(Admission::new(cas).unwrap());
    let clock = Arc::new(Clock::new(Time(0)));
    Intake::new(fleet.trust().clone(), admission, clock, None)
}

fn order(fleet: &Fleet) -> Verified<Order> {
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let plan = fleet.verified(&fleet.plan("r1", &release, Vec::new()));
    fleet.order(1, fleet.lease(&plan, 0))
}

/// One order by whoever holds the online key, dated far ahead, must not end every connection.
#[test]
fn peers_are_still_admitted_after_an_order_issued_two_years_ahead() {
    let fleet = Fleet::new(1);
    let ca = IssuingCa::create("ca", &fixtures::key("ca", 1), VALID).unwrap();
    let mut intake = intake_with(&fleet, vec![ca.certificate().clone()]);
    let now = intake.admission.now();
    let year = Span::from_secs(365 * 86_400);
    let validity = Validity {
        not_before: VALID.not_before,
        not_after: now + year,
    };
    let peer = [ca.node(fixtures::node(2), 2, validity).unwrap()];
    let ahead = Order {
        issued: now + year + year,
        ..(*order(&fleet)).clone()
    };
    let ahead = fleet.verified(&ahead);
    intake.order(fixtures::node(1), ahead.envelope());
    assert_eq!(intake.clock.floor(), ahead.issued, "it was believed");
    assert_eq!(intake.admission.admit(&peer), Ok(fixtures::node(2)));
}

/// A chain that came from the coordinator's API is walked like one that came from a peer, as far as it holds.
#[test]
fn a_chain_of_roots_is_walked_from_where_the_node_stands() {
    let mut fleet = Fleet::new(1);
    let mut intake = intake(&fleet);
    let mut chain = vec![fleet.trust().root().envelope().clone()];
    for _ in 0..4 {
        fleet.rotate(&[Role::Coordinator]);
        chain.push(fleet.trust().root().envelope().clone());
    }
    assert!(!intake.roots(&chain[..1]), "nothing new");
    assert!(!intake.roots(&[]));
    assert!(!intake.roots(&chain[2..]), "none may be skipped");
    let mut forged = chain[..3].to_vec();
    forged[2].signatures.clear();
    assert!(intake.roots(&forged), "up to there it holds");
    assert_eq!(intake.root().version, 2);
    assert!(intake.roots(&chain));
    assert_eq!(intake.root().version, 5);
    let heard = |e: &&Event| matches!(e, Event::Root(_));
    assert_eq!(intake.events.iter().filter(heard).count(), 4);
    let kept = |c: &&Change| matches!(c, Change::Root(..));
    assert_eq!(intake.changes.iter().filter(kept).count(), 4);
    let other = Fleet::new(2).trust().root().envelope().clone();
    assert!(!intake.roots(&[other]));
}

#[test]
fn a_node_speaks_only_for_itself() {
    let mut intake = intake(&Fleet::new(1));
    let (me, other) = (fixtures::node(1), fixtures::node(2));
    let claim = Claim {
        node: me,
        blob: Hash::of(b"b"),
        pieces: vec![1],
        held: true,
        under_way: 0,
    };
    let (presence, claim) = (
        SiteMessage::Presence(fixtures::presence(1).into()),
        SiteMessage::Claim(claim),
    );
    intake.gossip(other, &presence.to_bytes());
    intake.gossip(other, &claim.to_bytes());
    assert!(intake.events.is_empty());
    intake.gossip(me, &presence.to_bytes());
    intake.gossip(me, &claim.to_bytes());
    assert_eq!(intake.events.len(), 2);
}

#[test]
fn an_order_floors_the_clock_and_a_foreign_one_does_not() {
    let fleet = Fleet::new(1);
    let mut intake = intake(&fleet);
    let from = fixtures::node(1);
    let foreign = order(&Fleet::new(2));
    intake.gossip(
        from,
        &SiteMessage::Order(foreign.envelope().clone()).to_bytes(),
    );
    assert!(intake.events.is_empty());
    assert_eq!(intake.clock.floor(), Time(0));
    let order = order(&fleet);
    intake.gossip(
        from,
        &SiteMessage::Order(order.envelope().clone()).to_bytes(),
    );
    assert_eq!(intake.clock.floor(), order.issued);
    assert_eq!(intake.events, vec![Event::Order(order, None)]);
}

/// The coordinator's key alone recalls nothing: the statement inside needs the operators.
#[test]
fn a_recall_counts_under_its_own_role() {
    let fleet = Fleet::new(1);
    let mut intake = intake(&fleet);
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let plan = fleet.verified(&fleet.plan("r1", &release, Vec::new()));
    let (body, recall) = fleet.recall(&plan);
    let honest = fleet.order(1, body);
    let mut unsigned = recall.envelope().clone();
    unsigned.signatures.truncate(1);
    let alone = fleet.order(
        2,
        OrderBody::Recall {
            rollout: plan.rollout.clone(),
            statement: unsigned,
        },
    );
    intake.order(fixtures::node(1), honest.envelope());
    intake.order(fixtures::node(1), alone.envelope());
    let expected = vec![
        Event::Order(honest, Some(recall)),
        Event::Order(alone, None),
    ];
    assert_eq!(intake.events, expected);
}

/// Two people do not recall in the name of a third who knows nothing of it.
#[test]
fn a_recall_counts_only_if_its_proposer_signed_it() {
    let fleet = Fleet::new(1);
    let mut intake = intake(&fleet);
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let plan = fleet.verified(&fleet.plan("r1", &release, Vec::new()));
    let (_, recall) = fleet.recall(&plan);
    let mut without = recall.envelope().clone();
    without.signatures.retain(|s| s.keyid != recall.proposer);
    let rollout = plan.rollout.clone();
    let order = fleet.order(
        1,
        OrderBody::Recall {
            rollout,
            statement: without,
        },
    );
    intake.order(fixtures::node(1), order.envelope());
    assert_eq!(intake.events, vec![Event::Order(order, None)]);
}

#[test]
fn a_document_is_the_one_that_was_asked_for_or_nothing() {
    let fleet = Fleet::new(1);
    let mut intake = intake(&fleet);
    let from = fixtures::node(1);
    let topology = fleet.verified(&fleet.topology(1, 2));
    let json = topology.envelope().to_json();
    let mut forged = topology.envelope().clone();
    forged.signatures.clear();
    let cases = [
        (Hash::of(b"another"), json.clone()),
        (topology.digest(), forged.to_json()),
        (topology.digest(), b"{}".to_vec()),
        (
            Hash::of(b"neither envelope nor list"),
            b"neither envelope nor list".to_vec(),
        ),
    ];
    for (digest, bytes) in cases {
        let reply = ControlReply::Document(Some(bytes));
        let taken = intake.answer(from, Question::Document(digest), reply);
        assert_eq!(taken, ControlReply::Document(None));
        assert!(intake.events.is_empty() && intake.changes.is_empty());
    }
    let reply = ControlReply::Document(Some(json.clone()));
    let taken = intake.answer(from, Question::Document(topology.digest()), reply.clone());
    assert_eq!(taken, reply);
    assert_eq!(
        intake.changes,
        vec![Change::Document(topology.digest(), json)]
    );
    assert_eq!(intake.events, vec![Event::Topology(topology)]);
}

#[test]
fn a_revocation_list_counts_when_our_ca_signed_it() {
    let fleet = Fleet::new(1);
    let ca = |label| IssuingCa::create(label, &fixtures::key(label, 1), VALID).unwrap();
    let (ours, foreign) = (ca("ours"), ca("foreign"));
    let mut intake = intake_with(&fleet, vec![ours.certificate().clone()]);
    let from = fixtures::node(1);
    let list = |ca: &IssuingCa| ca.revoke(&[4], 1, VALID).unwrap();
    for (der, believed) in [(list(&foreign), false), (list(&ours), true)] {
        let digest = Hash::of(&der);
        let reply = ControlReply::Document(Some(der.clone()));
        let taken = intake.answer(from, Question::Document(digest), reply.clone());
        assert_eq!(taken == reply, believed);
        if believed {
            let kept = vec![Change::Document(digest, der), Change::Revocations(digest)];
            assert_eq!(intake.changes, kept);
            assert_eq!(intake.events, vec![Event::Revocations(digest)]);
        } else {
            assert!(intake.changes.is_empty() && intake.events.is_empty());
        }
    }
}

/// Whoever took the CA's key and the online key signs lists, and may not cut off the fleet with one.
#[test]
fn a_list_that_grows_too_fast_takes_what_the_operators_signed() {
    let fleet = Fleet::new(1);
    let ca = IssuingCa::create("ca", &fixtures::key("ca", 1), VALID).unwrap();
    let mut intake = intake_with(&fleet, vec![ca.certificate().clone()]);
    let from = fixtures::node(1);
    let serials = |many: u64| (1..=many).map(|n| n * 131).collect::<Vec<u64>>();
    let list = |many, number| ca.revoke(&serials(many), number, VALID).unwrap();
    let mut takes = |document: Vec<u8>| {
        let digest = Hash::of(&document);
        let reply = ControlReply::Document(Some(document));
        intake.answer(from, Question::Document(digest), reply.clone()) == reply
    };
    let signed = |many: u64, by_all: bool| {
        let statement = MassRevocation {
            spec_version: 1,
            fleet: fleet.id(),
            nodes: vec![fixtures::node(1)],
            certificates: many as u32,
            list: revocation::digest(&serials(many)),
            reason: String::new(),
            created: fixtures::CREATED,
        };
        let mut envelope = fleet.sign(&statement);
        envelope.signatures.truncate(if by_all { 9 } else { 1 });
        envelope
    };
    let warranted = |list: Vec<u8>, warrant: Envelope| Warranted { list, warrant }.to_bytes();
    let day = protocol::limits::REVOCATIONS_BELIEVED;
    assert!(takes(list(0, 1)), "the first one");
    assert!(takes(list(day - 28, 2)));
    assert!(!takes(list(day + 1, 3)), "too fast");
    assert!(!takes(list(5_000, 1 << 60)), "the whole fleet");
    assert!(takes(list(day, 4)), "what was refused left no trace");
    assert!(!takes(list(day + 1, 5)));
    // One operator's word is none, and what they signed for another list neither.
    assert!(!takes(warranted(list(5_000, 6), signed(5_000, false))));
    assert!(!takes(warranted(list(5_000, 6), signed(4_999, true))));
    assert!(!takes(warranted(list(5_000, 6), signed(5_001, true))));
    assert!(takes(warranted(list(5_000, 6), signed(5_000, true))));
    assert!(
        !takes(warranted(list(5_129, 7), signed(5_000, true))),
        "129 more"
    );
    // A node that was away takes all that came since under the newest warrant.
    let mut away = intake_with(&fleet, vec![ca.certificate().clone()]);
    let empty = list(0, 1);
    let mut answer = |document: Vec<u8>| {
        let digest = Hash::of(&document);
        let reply = ControlReply::Document(Some(document));
        away.answer(from, Question::Document(digest), reply.clone()) == reply
    };
    assert!(answer(empty));
    assert!(answer(warranted(list(5_100, 9), signed(5_000, true))));
}

fn next_root(fleet: &Fleet, version: u64, coordinator: Option<&SigningKey>) -> Envelope {
    let mut root = (**fleet.trust().root()).clone();
    (root.version, root.fleet) = (version, Some(fleet.id()));
    if let Some(key) = coordinator {
        root.roles.retain(|r| r.role != Role::Coordinator);
        root.roles.push(RoleKeys {
            role: Role::Coordinator,
            keys: vec![PublicKey(key.verifying_key().to_bytes())],
            threshold: 1,
        });
    }
    let mut envelope = root.to_envelope();
    let keys = fleet.keys(Role::Root);
    keys.iter().for_each(|key| envelope.sign(key));
    envelope
}

/// A stolen online key can push clocks forward; the root that takes its role away takes that back.
#[test]
fn a_root_that_replaces_the_online_key_drops_the_floor_it_made() {
    let fleet = Fleet::new(1);
    let mut intake = intake(&fleet);
    let from = fixtures::node(1);
    let ask = |intake: &mut Intake, version, root: &Envelope| {
        let reply = ControlReply::Document(Some(root.to_json()));
        intake.answer(from, Question::Root(version), reply)
    };
    intake.order(from, order(&fleet).envelope());
    let floor = intake.clock.floor();
    let skipped = next_root(&fleet, 3, None);
    assert_eq!(ask(&mut intake, 3, &skipped), ControlReply::Document(None));
    let same_keys = next_root(&fleet, 2, None);
    ask(&mut intake, 2, &same_keys);
    assert_eq!(intake.root().version, 2);
    assert_eq!(intake.clock.floor(), floor);
    let rotated = next_root(&fleet, 3, Some(&fixtures::key("new", 1)));
    ask(&mut intake, 3, &rotated);
    assert_eq!(intake.root().version, 3);
    assert_eq!(intake.clock.floor(), Time(0));
    assert!(intake.changes.contains(&Change::Floor(Time(0))));
    intake.events.clear();
    intake.order(from, order(&fleet).envelope());
    assert_eq!(intake.events, [Event::Unbelieved], "not an order any more");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn bytes_of_any_kind_are_no_event(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let mut intake = intake(&Fleet::new(1));
        let from = fixtures::node(1);
        intake.gossip(from, &bytes);
        prop_assert!(intake.request(from, &bytes).is_none());
        let reply = ControlReply::Document(Some(bytes.clone()));
        let digest = Hash::of(b"asked");
        intake.answer(from, Question::Document(digest), reply.clone());
        intake.answer(from, Question::Root(2), reply);
        prop_assert!(intake.events.is_empty() && intake.changes.is_empty());
    }

    #[test]
    fn a_damaged_order_is_refused_or_still_the_same(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
        let fleet = Fleet::new(1);
        let mut intake = intake(&fleet);
        let order = order(&fleet);
        let mut bytes = SiteMessage::Order(order.envelope().clone()).to_bytes();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        intake.gossip(fixtures::node(1), &bytes);
        for event in &intake.events {
            match event {
                Event::Order(found, None) => prop_assert_eq!(&**found, &*order),
                // Whatever it was: too few of the role signed it.
                Event::Unbelieved => {}
                other => panic!("{other:?}"),
            }
        }
    }
}
