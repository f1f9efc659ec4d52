//! Rows about what is signed: whatever is not signed as it must be becomes no event.

use std::sync::Arc;

use node::driver::{Clock, Intake, Question};
use node::net::identity::Admission;
use node::net::identity::issue::{IssuingCa, Validity};
use node_core::contract::Event;
use protocol::envelope::Envelope;
use protocol::fixtures::{CREATED, Fleet, key, node};
use protocol::limits::{ENVELOPE_MAX_BYTES, SIGNATURES_MAX, STATEMENT_MAX_BYTES};
use protocol::manifest::ReleaseManifest;
use protocol::orders::{Order, OrderBody, Receipt};
use protocol::plan::{Recall, RolloutPlan};
use protocol::topology::Topology;
use protocol::trust::{Role, Statement, Trust, TrustError};
use protocol::versioned::{DecodeError, Versioned as _};
use protocol::wire::{ControlReply, ControlRequest, SiteMessage};
use protocol::{Hash, PublicKey, Span, Time};

use crate::mutations::{CASES, Mutations};

/// A node's door for foreign bytes.
pub fn intake(trust: &Trust) -> Intake {
    let admission = Arc::new(Admission::new(Vec::new()).expect("no authority is a sound set"));
    let clock = Arc::new(Clock::new(Time(0)));
    Intake::new(trust.clone(), admission, clock, None)
}

fn statements(fleet: &Fleet) -> Vec<Envelope> {
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let plan = fleet.verified(&fleet.plan("r1", &release, vec![node(1)]));
    let topology = fleet.verified(&fleet.topology(1, 2));
    let lease = fleet.order(1, fleet.lease(&plan, 0));
    let (recall_order, recall) = fleet.recall(&plan);
    vec![
        release.envelope().clone(),
        plan.envelope().clone(),
        topology.envelope().clone(),
        lease.envelope().clone(),
        recall.envelope().clone(),
        fleet.order(2, recall_order).envelope().clone(),
        fleet.receipt(Vec::new()).envelope().clone(),
    ]
}

/// What a trust says to an envelope under each kind of statement in turn.
fn believed_as(trust: &Trust, envelope: &Envelope) -> Vec<Result<&'static str, TrustError>> {
    fn one<T: Statement>(trust: &Trust, envelope: &Envelope) -> Result<&'static str, TrustError> {
        trust.verify::<T>(envelope).map(|_| T::PAYLOAD_TYPE)
    }
    vec![
        one::<ReleaseManifest>(trust, envelope),
        one::<RolloutPlan>(trust, envelope),
        one::<Topology>(trust, envelope),
        one::<Order>(trust, envelope),
        one::<Recall>(trust, envelope),
        one::<Receipt>(trust, envelope),
    ]
}

fn error_of<T: Statement>(trust: &Trust, envelope: &Envelope) -> TrustError {
    trust
        .verify::<T>(envelope)
        .map(drop)
        .expect_err("it must not be believed")
}

#[test]
fn attack_01_arbitrary_software() {
    let fleet = Fleet::new(1);
    let from = node(1);
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let honest = release.envelope();
    let mut unsigned = honest.clone();
    unsigned.signatures.clear();
    let mut wrong_key = unsigned.clone();
    (0..2).for_each(|n| wrong_key.sign(&key("nobody", n)));
    for forged in [&unsigned, &wrong_key] {
        let error = error_of::<ReleaseManifest>(fleet.trust(), forged);
        assert_eq!(error.event(), "signature", "{error}");
    }
    let mut mutations = Mutations::new(1);
    let json = honest.to_json();
    for case in 0..2 * CASES {
        let mut intake = intake(fleet.trust());
        // Half of the cases change what was signed, half what crosses the wire.
        let bytes = if case % 2 == 0 {
            mutations.of(&json)
        } else {
            let mut forged = honest.clone();
            forged.payload = mutations.of(&honest.payload);
            forged.to_json()
        };
        let asked = Envelope::from_json(&bytes).map_or(Hash::of(&bytes), |e| e.digest());
        let reply = ControlReply::Document(Some(bytes));
        intake.answer(from, Question::Document(asked), reply);
        for event in &intake.events {
            let Event::Release(taken) = event else {
                panic!("case {case}: {event:?}");
            };
            assert_eq!(taken.digest(), release.digest(), "case {case}");
        }
        assert_eq!(intake.events.len(), intake.changes.len(), "case {case}");
    }
}

#[test]
fn attack_02_threshold_forgery() {
    let fleet = Fleet::new(1);
    let honest = fleet.sign(&fleet.release("app", "1.0", 1));
    let one = honest.signatures[0].clone();
    let mut twice = honest.clone();
    twice.signatures = vec![one.clone(), one.clone()];
    let error = error_of::<ReleaseManifest>(fleet.trust(), &twice);
    assert_eq!(error.event(), "threshold", "{error}");

    let mut mutations = Mutations::new(2);
    for case in 0..CASES {
        // One real key's signature as often as the thief likes, under names that are not his.
        let mut forged = honest.clone();
        forged.signatures.clear();
        for _ in 0..1 + mutations.below(SIGNATURES_MAX) {
            let mut signature = one.clone();
            match mutations.below(4) {
                0 => signature.keyid = honest.signatures[1].keyid,
                1 => signature.keyid = PublicKey([mutations.below(256) as u8; 32]),
                2 => signature.sig = mutations.of(&one.sig),
                _ => {}
            }
            forged.signatures.push(signature);
        }
        let error = error_of::<ReleaseManifest>(fleet.trust(), &forged);
        let known = matches!(error.event(), "threshold" | "signature");
        assert!(known, "case {case}: {error}");
    }
    // An operator who proposed is not one of those who approve.
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let mut plan = fleet.sign(&fleet.plan("r1", &release, Vec::new()));
    plan.signatures.truncate(2);
    let error = error_of::<RolloutPlan>(fleet.trust(), &plan);
    assert_eq!(error.event(), "threshold", "{error}");
}

#[test]
fn attack_07_mix_and_match() {
    let fleet = Fleet::new(1);
    let from = node(1);
    let mut mutations = Mutations::new(7);
    let documents: Vec<Envelope> = statements(&fleet).into_iter().take(3).collect();
    for case in 0..CASES {
        // Genuine documents, each given in another's place or changed on the way.
        let asked = &documents[mutations.below(3)];
        let given = &documents[mutations.below(3)];
        let bytes = match mutations.below(2) {
            0 => given.to_json(),
            _ => mutations.of(&given.to_json()),
        };
        let mut intake = intake(fleet.trust());
        let reply = ControlReply::Document(Some(bytes));
        intake.answer(from, Question::Document(asked.digest()), reply);
        for event in &intake.events {
            let digest = match event {
                Event::Topology(t) => t.digest(),
                Event::Plan(p) => p.digest(),
                Event::Release(r) => r.digest(),
                other => panic!("case {case}: {other:?}"),
            };
            assert_eq!(
                digest,
                asked.digest(),
                "case {case}: not what was asked for"
            );
        }
    }
}

#[test]
fn attack_08_right_signature_wrong_target() {
    let fleet = Fleet::new(1);
    for envelope in statements(&fleet) {
        let verdicts = believed_as(fleet.trust(), &envelope);
        let yes: Vec<_> = verdicts.iter().flatten().collect();
        assert_eq!(yes, [&envelope.payload_type.as_str()], "one meaning each");
        let others = verdicts.into_iter().filter_map(Result::err);
        for error in others {
            assert_eq!(error.event(), "wrong_target", "{error}");
        }
    }
    // Under another name the same bytes are not signed at all.
    let mut mutations = Mutations::new(8);
    let all = statements(&fleet);
    for case in 0..CASES {
        let (what, called) = (
            &all[mutations.below(all.len())],
            &all[mutations.below(all.len())],
        );
        if what.payload_type == called.payload_type {
            continue;
        }
        let mut renamed = what.clone();
        renamed.payload_type.clone_from(&called.payload_type);
        let believed = believed_as(fleet.trust(), &renamed)
            .into_iter()
            .any(|v| v.is_ok());
        assert!(!believed, "case {case}");
    }
}

#[test]
fn attack_10_endless_data() {
    let mut mutations = Mutations::new(10);
    for _ in 0..CASES {
        let more = 1 + mutations.below(1 << 16);
        let long = vec![b' '; ENVELOPE_MAX_BYTES + more];
        let error = TrustError::from(Envelope::from_json(&long).expect_err("too long"));
        assert_eq!(error.event(), "too_long");
    }
    let too_long = |error: DecodeError| matches!(error, DecodeError::TooLong { .. });
    let long = vec![0; ControlRequest::MAX_BYTES + 1];
    assert!(too_long(
        ControlRequest::from_bytes(&long).expect_err("too long")
    ));
    let long = vec![0; ControlReply::MAX_BYTES + 1];
    assert!(too_long(
        ControlReply::from_bytes(&long).expect_err("too long")
    ));
    let long = vec![0; SiteMessage::MAX_BYTES + 1];
    assert!(too_long(
        SiteMessage::from_bytes(&long).expect_err("too long")
    ));
    // A short envelope cannot unfold to a long statement.
    let fleet = Fleet::new(1);
    let mut big = fleet.sign(&fleet.topology(1, 1));
    big.payload = vec![b'7'; STATEMENT_MAX_BYTES + 1];
    let message = SiteMessage::Order(big.clone()).to_bytes();
    assert!(SiteMessage::from_bytes(&message).is_err());
    assert_eq!(
        error_of::<Topology>(fleet.trust(), &big).event(),
        "too_long"
    );
}

#[test]
fn attack_14_one_key_of_a_threshold_stolen() {
    let mut fleet = Fleet::new(1);
    let stolen = fleet.keys(Role::Releases).remove(0);
    let mut evil = fleet.release("app", "6.6.6", 666).to_envelope();
    evil.sign(&stolen);
    let error = error_of::<ReleaseManifest>(fleet.trust(), &evil);
    assert_eq!(error.event(), "threshold", "{error}");
    // The root takes it away; with the key that stayed it is still one of two.
    let before = fleet.sign(&fleet.release("app", "1.0", 1));
    fleet.rotate(&[Role::Releases]);
    let error = error_of::<ReleaseManifest>(fleet.trust(), &evil);
    assert_eq!(error.event(), "signature", "{error}");
    assert!(fleet.trust().verify::<ReleaseManifest>(&before).is_err());
    fleet.verified(&fleet.release("app", "2.0", 2));
    let mut mutations = Mutations::new(14);
    for case in 0..CASES {
        let mut forged = evil.clone();
        for _ in 0..mutations.below(3) {
            forged.sign(&key("thief", mutations.below(9) as u64));
        }
        if mutations.below(2) == 0 {
            forged.signatures[0].sig = mutations.of(&evil.signatures[0].sig);
        }
        assert!(
            fleet.trust().verify::<ReleaseManifest>(&forged).is_err(),
            "case {case}"
        );
    }
}

#[test]
fn attack_19_replay_from_another_scope() {
    let (ours, theirs) = (Fleet::new(1), Fleet::new(2));
    let mut intake = intake(ours.trust());
    for envelope in statements(&theirs) {
        for verdict in believed_as(ours.trust(), &envelope) {
            let event = verdict.expect_err("of another fleet").event();
            assert!(matches!(event, "scope" | "wrong_target"), "{event}");
        }
        let message = SiteMessage::Order(envelope).to_bytes();
        intake.gossip(node(1), &message);
    }
    // A node's word about another node is nobody's word.
    let foreign = SiteMessage::Presence(protocol::fixtures::presence(2).into());
    intake.gossip(node(1), &foreign.to_bytes());
    assert!(
        intake.events.iter().all(|e| *e == Event::Unbelieved),
        "{:?}",
        intake.events
    );
    // Changing the fleet's name in it breaks the signature.
    let mut mutations = Mutations::new(19);
    let order = theirs.order(
        1,
        OrderBody::Resume {
            rollout: "r1".parse().expect("an id"),
        },
    );
    for case in 0..CASES {
        let mut moved = (*order).clone();
        moved.fleet = ours.id();
        moved.seq.n = mutations.below(1 << 30) as u64;
        let mut envelope = moved.to_envelope();
        envelope.signatures.clone_from(&order.envelope().signatures);
        if mutations.below(2) == 0 {
            envelope.sign(&theirs.keys(Role::Coordinator)[0]);
        }
        let error = error_of::<Order>(ours.trust(), &envelope);
        assert_eq!(error.event(), "signature", "case {case}: {error}");
    }
}

#[test]
fn attack_20_clock_set_back_or_forward() {
    let fleet = Fleet::new(1);
    let year = Span::from_secs(365 * 86_400);
    let validity = Validity {
        not_before: Time::from_secs(1_500_000_000),
        not_after: Time::from_secs(4_000_000_000),
    };
    let ca = IssuingCa::create("ca", &key("ca", 1), validity).expect("an authority");
    let admission = Arc::new(Admission::new(vec![ca.certificate().clone()]).expect("sound"));
    let clock = Arc::new(Clock::new(Time(0)));
    let system = clock.now().wall;
    let mut intake = Intake::new(
        fleet.trust().clone(),
        admission.clone(),
        clock.clone(),
        None,
    );
    let order = |issued: Time, n: u64| {
        let body = OrderBody::Resume {
            rollout: "r1".parse().expect("an id"),
        };
        let order = Order {
            issued,
            ..(*fleet.order(n, body)).clone()
        };
        fleet.sign(&order)
    };
    // Set back: wall time does not fall behind what was signed, in whatever order that comes.
    let mut mutations = Mutations::new(20);
    let mut newest = Time(0);
    for n in 1..=CASES as u64 {
        let issued = CREATED + Span::from_secs(mutations.below(1 << 24) as u64);
        newest = newest.max(issued);
        intake.order(node(1), &order(issued, n));
        assert_eq!(clock.floor(), newest);
        assert!(clock.now().wall >= newest);
    }
    // Set forward, by a thief with the online key: peers are still met, nothing ends.
    let short = Validity {
        not_after: system + year,
        ..validity
    };
    let peer = [ca.node(node(2), 2, short).expect("a certificate")];
    intake.order(node(1), &order(newest.max(system) + year + year, 9_999));
    assert_eq!(admission.admit(&peer), Ok(node(2)));
}
