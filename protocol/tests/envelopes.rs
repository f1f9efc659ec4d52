//! Who is believed: signatures, thresholds, scopes, and the chain of roots.

use ed25519_dalek::SigningKey;
use proptest::prelude::*;
use tidegate_protocol::envelope::{Envelope, pre_authentication_encoding};
use tidegate_protocol::fixtures::{Fleet, key, node, node_key, rollout, seq};
use tidegate_protocol::limits::{SIGNATURES_MAX, STATEMENT_MAX_BYTES};
use tidegate_protocol::manifest::ReleaseManifest;
use tidegate_protocol::orders::{Order, OrderBody};
use tidegate_protocol::plan::RolloutPlan;
use tidegate_protocol::status::{NodeStatus, State};
use tidegate_protocol::trust::{Role, Root, Statement, Trust, TrustError};
use tidegate_protocol::{FleetId, Hash, PublicKey, Time};

fn event<T: Statement + std::fmt::Debug>(trust: &Trust, envelope: &Envelope) -> &'static str {
    trust
        .verify::<T>(envelope)
        .expect_err("it must not be believed")
        .event()
}

fn signed(envelope: &Envelope, keys: &[&SigningKey]) -> Envelope {
    let mut envelope = Envelope {
        signatures: Vec::new(),
        ..envelope.clone()
    };
    keys.iter().for_each(|key| envelope.sign(key));
    envelope
}

/// The example of DSSE's own specification.
#[test]
fn what_is_signed_is_dsses_encoding() {
    let encoding = pre_authentication_encoding("http://example.com/HelloWorld", b"hello world");
    assert_eq!(
        encoding,
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn any_flipped_bit_fails() {
    let fleet = Fleet::new(1);
    let sound = fleet.sign(&fleet.release("app", "1.0", 1));
    fleet
        .trust()
        .verify::<ReleaseManifest>(&sound)
        .expect("sound");
    for bit in 0..sound.payload.len() * 8 {
        let mut bad = sound.clone();
        bad.payload[bit / 8] ^= 1 << (bit % 8);
        assert!(
            fleet.trust().verify::<ReleaseManifest>(&bad).is_err(),
            "payload bit {bit}"
        );
    }
    for number in 0..sound.signatures.len() {
        for bit in 0..512 {
            let mut bad = sound.clone();
            bad.signatures[number].sig[bit / 8] ^= 1 << (bit % 8);
            assert!(
                fleet.trust().verify::<ReleaseManifest>(&bad).is_err(),
                "signature bit {bit}"
            );
        }
        for bit in 0..256 {
            let mut bad = sound.clone();
            bad.signatures[number].keyid.0[bit / 8] ^= 1 << (bit % 8);
            assert!(
                fleet.trust().verify::<ReleaseManifest>(&bad).is_err(),
                "key bit {bit}"
            );
        }
    }
    for bit in 0..sound.payload_type.len() * 7 {
        let mut bytes = sound.payload_type.clone().into_bytes();
        bytes[bit / 7] ^= 1 << (bit % 7);
        let bad = Envelope {
            payload_type: String::from_utf8(bytes).unwrap(),
            ..sound.clone()
        };
        assert_eq!(
            event::<ReleaseManifest>(fleet.trust(), &bad),
            "wrong_target"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Signers are drawn with repetition from the role's keys and from others; what counts is a set.
    #[test]
    fn a_threshold_counts_distinct_keys_of_its_role(signers in prop::collection::vec(0..6usize, 0..8)) {
        let fleet = Fleet::new(1);
        let release = fleet.verified(&fleet.release("app", "1.0", 1));
        let plan = fleet.plan("r1", &release, vec![node(1)]);
        // 0 proposes and never counts; 1 and 2 approve; the others hold no key of this role.
        let mut keys = fleet.keys(Role::Plans);
        keys.extend([fleet.keys(Role::Coordinator).remove(0), fleet.keys(Role::Releases).remove(0), key("stranger", 1)]);
        let bare = plan.to_envelope();
        let mut envelope = bare.clone();
        for signer in &signers {
            let one = signed(&bare, &[&keys[*signer]]);
            // Appended as they come: the same key may stand there several times.
            envelope.signatures.extend(one.signatures);
        }
        let believed = fleet.trust().verify::<RolloutPlan>(&envelope).is_ok();
        prop_assert_eq!(believed, signers.contains(&1) && signers.contains(&2));
        let (_, counted, threshold) = fleet.trust().progress::<RolloutPlan>(&envelope).unwrap();
        prop_assert_eq!(counted.len(), [1, 2].iter().filter(|k| signers.contains(k)).count());
        prop_assert_eq!(threshold, 2);
    }

    #[test]
    fn an_envelope_comes_back_from_json(payload in prop::collection::vec(any::<u8>(), 0..300), kind in ".{0,20}", n in 0..4u64) {
        let mut envelope = Envelope::unsigned(&kind, payload);
        (0..n).for_each(|n| envelope.sign(&key("k", n)));
        prop_assert_eq!(&Envelope::from_json(&envelope.to_json()).unwrap(), &envelope);
        prop_assert_eq!(envelope.valid_signers().len() as u64, n);
        let digest = envelope.digest();
        envelope.sign(&key("k", 99));
        prop_assert_eq!(envelope.digest(), digest, "a signature more changes no name");
    }
}

#[test]
fn each_refusal_has_its_name() {
    let fleet = Fleet::new(1);
    let trust = fleet.trust();
    let release = fleet.release("app", "1.0", 1);
    let sound = fleet.sign(&release);
    let keys = fleet.keys(Role::Releases);
    assert_eq!(
        event::<ReleaseManifest>(trust, &signed(&sound, &[])),
        "signature"
    );
    assert_eq!(
        event::<ReleaseManifest>(trust, &signed(&sound, &[&key("stranger", 1)])),
        "signature"
    );
    assert_eq!(
        event::<ReleaseManifest>(trust, &signed(&sound, &[&keys[0]])),
        "threshold"
    );
    let online = &fleet.keys(Role::Coordinator)[0];
    assert_eq!(
        event::<ReleaseManifest>(trust, &signed(&sound, &[online])),
        "signature"
    );
    assert_eq!(event::<RolloutPlan>(trust, &sound), "wrong_target");
    assert_eq!(
        event::<ReleaseManifest>(Fleet::new(2).trust(), &sound),
        "scope"
    );
    let newer = fleet.sign(&ReleaseManifest {
        spec_version: 2,
        ..release.clone()
    });
    assert_eq!(event::<ReleaseManifest>(trust, &newer), "spec_version");
    let empty = fleet.sign(&ReleaseManifest {
        artifacts: Vec::new(),
        ..release
    });
    assert_eq!(event::<ReleaseManifest>(trust, &empty), "malformed");
    let mut long = sound.clone();
    long.payload.resize(STATEMENT_MAX_BYTES + 1, b' ');
    assert_eq!(event::<ReleaseManifest>(trust, &long), "too_long");
    let mut crowded = sound.clone();
    crowded.signatures = vec![sound.signatures[0].clone(); SIGNATURES_MAX + 1];
    assert_eq!(event::<ReleaseManifest>(trust, &crowded), "malformed");
}

#[test]
fn a_payload_with_a_key_twice_is_refused_though_it_is_signed() {
    let fleet = Fleet::new(1);
    let order = fleet.order(
        1,
        OrderBody::Resume {
            rollout: rollout("r1"),
        },
    );
    let text = String::from_utf8(order.envelope().payload.clone()).unwrap();
    let check = |from: &str, to: &str| {
        let payload = text.replacen(from, to, 1).into_bytes();
        assert_ne!(payload, text.as_bytes(), "{from} stands in {text}");
        let bare = Envelope {
            payload,
            ..order.envelope().clone()
        };
        let envelope = signed(&bare, &[&fleet.keys(Role::Coordinator)[0]]);
        assert_eq!(
            event::<Order>(fleet.trust(), &envelope),
            "malformed",
            "{to}"
        );
    };
    check(
        "\"spec_version\":1",
        "\"spec_version\":1,\"spec_version\":1",
    );
    check(
        "\"rollout\":\"r1\"",
        "\"rollout\":\"r1\",\"rollout\":\"r2\"",
    );
    check(
        "\"kind\":\"resume\"",
        "\"kind\":\"resume\",\"kind\":\"halt\"",
    );
    check("\"epoch\":1", "\"epoch\":1,\"epoch\":2");
}

/// The fleet's next root, with its own keys or with new ones.
fn next(
    fleet: &Fleet,
    trust: &Trust,
    new_root_key: Option<&SigningKey>,
    signers: &[&SigningKey],
) -> Envelope {
    let mut root: Root = (**trust.root()).clone();
    root.version += 1;
    root.fleet = Some(fleet.id());
    if let Some(key) = new_root_key {
        root.roles
            .iter_mut()
            .find(|r| r.role == Role::Root)
            .unwrap()
            .keys = vec![PublicKey(key.verifying_key().to_bytes())];
    }
    signed(&root.to_envelope(), signers)
}

#[test]
fn roots_are_walked_step_by_step_under_both_thresholds() {
    let fleet = Fleet::new(1);
    let mut trust = fleet.trust().clone();
    let mut current = fleet.keys(Role::Root).remove(0);
    for step in 0..40 {
        let new = key("root", 1000 + step);
        let err = |e: Result<(), TrustError>| e.unwrap_err().event();
        assert_eq!(
            err(trust.update(next(&fleet, &trust, Some(&new), &[&new]))),
            "signature",
            "the old key is missing"
        );
        assert_eq!(
            err(trust.update(next(&fleet, &trust, Some(&new), &[&current]))),
            "signature",
            "the new key is missing"
        );
        let sound = next(&fleet, &trust, Some(&new), &[&current, &new]);
        trust.update(sound.clone()).expect("both have signed");
        assert_eq!(err(trust.update(sound)), "root_gap", "the same again");
        current = new;
    }
    assert_eq!(trust.root().version, 41);
    assert_eq!(trust.fleet(), fleet.id());
    let skipped = {
        let mut ahead = trust.clone();
        ahead
            .update(next(&fleet, &ahead, None, &[&current]))
            .unwrap();
        next(&fleet, &ahead, None, &[&current])
    };
    assert_eq!(trust.update(skipped).unwrap_err().event(), "root_gap");
    let mut foreign: Root = (**trust.root()).clone();
    foreign.version += 1;
    foreign.fleet = Some(Fleet::new(2).id());
    assert_eq!(
        trust
            .update(signed(&foreign.to_envelope(), &[&current]))
            .unwrap_err()
            .event(),
        "scope"
    );
}

#[test]
fn only_the_pinned_root_begins() {
    let fleet = Fleet::new(1);
    let envelope = fleet.trust().root().envelope().clone();
    let other = FleetId(Hash::of(b"another").0);
    assert_eq!(
        Trust::pin(envelope.clone(), other).unwrap_err().event(),
        "root_digest"
    );
    let unsigned = signed(&envelope, &[]);
    assert_eq!(
        Trust::pin(unsigned, fleet.id()).unwrap_err().event(),
        "signature"
    );
    let later = next(&fleet, fleet.trust(), None, &[&fleet.keys(Role::Root)[0]]);
    let pinned = FleetId(later.digest().0);
    assert_eq!(Trust::pin(later, pinned).unwrap_err().event(), "root_gap");
}

#[test]
fn roles_need_sound_keys_and_thresholds() {
    let fleet = Fleet::new(1);
    let signer = fleet.keys(Role::Root).remove(0);
    let check = |change: &dyn Fn(&mut Root)| {
        let mut root: Root = (**fleet.trust().root()).clone();
        change(&mut root);
        let envelope = signed(&root.to_envelope(), &[&signer]);
        let pinned = FleetId(envelope.digest().0);
        assert_eq!(
            Trust::pin(envelope, pinned).unwrap_err().event(),
            "malformed"
        );
    };
    check(&|root| root.roles[1].threshold = 0);
    check(&|root| root.roles[1].threshold = 3);
    check(&|root| root.roles[1].keys.clear());
    check(&|root| root.roles[1].keys[1] = root.roles[1].keys[0]);
    check(&|root| root.roles[1].keys = (0..33).map(|n| PublicKey(node(n).0)).collect());
    check(&|root| _ = root.roles.pop());
    check(&|root| root.roles.push(root.roles[0].clone()));
}

#[test]
fn a_status_is_believed_from_its_node_alone() {
    let fleet = Fleet::new(1);
    let status = NodeStatus {
        fleet: fleet.id(),
        node: node(1),
        rollout: rollout("r1"),
        plan: Hash::of(b"plan"),
        release: Hash::of(b"release"),
        wave: 0,
        seq: seq(1),
        state: State::Succeeded,
        reason: String::new(),
        entered_at: Time::from_secs(1),
        attempt: 1,
        install_id: Hash::of(b"install"),
        lan_bytes: 0,
        wan_bytes: 0,
        exit_code: None,
        output_tail: String::new(),
    };
    let sound = status.sign(&node_key(1));
    assert_eq!(*sound.verify(fleet.id()).unwrap(), status);
    assert!(
        status.sign(&node_key(2)).verify(fleet.id()).is_err(),
        "another node's word"
    );
    assert!(
        sound.verify(Fleet::new(2).id()).is_err(),
        "another fleet's status"
    );
    for bit in 0..sound.body.len() * 8 {
        let mut bad = sound.clone();
        bad.body[bit / 8] ^= 1 << (bit % 8);
        assert!(bad.verify(fleet.id()).is_err(), "body bit {bit}");
    }
    for bit in 0..512 {
        let mut bad = sound.clone();
        bad.sig[bit / 8] ^= 1 << (bit % 8);
        assert!(bad.verify(fleet.id()).is_err(), "signature bit {bit}");
    }
    let long = NodeStatus {
        output_tail: "x".repeat(2000),
        ..status
    };
    assert!(long.sign(&node_key(1)).verify(fleet.id()).is_err());
}
