use std::fs;
use std::sync::Arc;

use node_core::renewal::Issuer;
use proptest::prelude::*;
use protocol::Time;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConnection, ServerConnection};

use super::fixture::{LONG, OVER, TestFleet, key, node};
use super::issue::{IssuingCa, Validity};
use super::*;

#[test]
fn the_fleets_nodes_are_admitted_and_named_by_their_key() {
    let fleet = TestFleet::new("a");
    let rules = fleet.admission();
    assert_eq!(rules.admit(&[fleet.certificate(7, LONG)]), Ok(node(7)));
    assert_eq!(rules.admit(&fleet.identity(3).chain()), Ok(node(3)));
    assert_eq!(
        node_of_certificate(&fleet.certificate(7, LONG)),
        Some(node(7))
    );
}

#[test]
fn everyone_else_is_refused_for_the_right_reason() {
    use AdmissionError as E;
    let fleet = TestFleet::new("a");
    let other = TestFleet::new("b");
    // Same name, other key: a forger copies names freely.
    let forger = TestFleet {
        ca: IssuingCa::create("a", &key(99), LONG).unwrap(),
    };
    let late = Validity {
        not_before: Time::from_secs(4_000_000_000),
        ..LONG
    };
    let server = fleet
        .ca
        .server(&key(1), &[node(1).to_string()], &[], 9, LONG)
        .unwrap();
    let revoked = fleet.admission();
    revoked
        .set_revocations(&fleet.revocations(&[4, 5], 1))
        .unwrap();

    let cases: Vec<(&str, Arc<Admission>, Vec<CertificateDer<'static>>, E)> = vec![
        ("nothing", fleet.admission(), vec![], E::Missing),
        (
            "foreign CA",
            fleet.admission(),
            vec![other.certificate(1, LONG)],
            E::UnknownIssuer,
        ),
        (
            "forged CA",
            fleet.admission(),
            vec![forger.certificate(1, LONG)],
            E::UnknownIssuer,
        ),
        (
            "expired",
            fleet.admission(),
            vec![fleet.certificate(1, OVER)],
            E::Expired,
        ),
        (
            "not yet",
            fleet.admission(),
            vec![fleet.certificate(1, late)],
            E::NotYetValid,
        ),
        (
            "revoked",
            revoked.clone(),
            vec![fleet.certificate(5, LONG)],
            E::Revoked,
        ),
        (
            "no CA known",
            Arc::new(Admission::new(vec![]).unwrap()),
            vec![fleet.certificate(1, LONG)],
            E::NoIssuers,
        ),
    ];
    for (what, rules, chain, expected) in cases {
        assert_eq!(rules.admit(&chain), Err(expected), "{what}");
    }
    assert_eq!(revoked.admit(&[fleet.certificate(6, LONG)]), Ok(node(6)));
    let server = fleet.admission().admit(&[server]);
    assert!(matches!(server, Err(E::WrongUse(_))), "{server:?}");
    let ca = fleet.admission().admit(&[fleet.ca.certificate().clone()]);
    assert!(
        matches!(ca, Err(E::WrongUse(_) | E::UnknownIssuer)),
        "{ca:?}"
    );
    assert_eq!(
        fleet
            .admission()
            .admit_as(node(2), &[fleet.certificate(1, LONG)]),
        Err(E::WrongNode {
            expected: node(2),
            found: node(1)
        })
    );
}

#[test]
fn a_certificate_that_names_another_node_is_refused() {
    // Only a faulty CA issues this; the name must still equal the key.
    let fleet = TestFleet::new("a");
    let crossed = fleet.ca.crossed(node(1), node(2), 3, LONG);
    assert_eq!(
        fleet.admission().admit(&[crossed]),
        Err(AdmissionError::WrongName)
    );
}

#[test]
fn signed_times_stand_in_for_a_clock_that_is_clearly_wrong_and_for_no_other() {
    let fleet = TestFleet::new("a");
    let rules = fleet.admission();
    let leaf = [fleet.certificate(1, LONG)];
    rules.own_issued(LONG.not_before);
    rules.floor_time(LONG.not_after + protocol::Span::from_secs(2));
    assert!(rules.now() > Time::from_secs(1_700_000_000));
    assert_eq!(rules.admit(&leaf), Ok(node(1)), "the system clock judges");
    // Our own certificate is from a time that this machine's clock has not reached.
    rules.own_issued(LONG.not_after);
    assert_eq!(rules.admit(&leaf), Err(AdmissionError::Expired));
    rules.reset_floor();
    assert_eq!(rules.now(), LONG.not_after);
}

#[test]
fn a_revocation_list_counts_only_from_our_ca_and_only_forward() {
    let fleet = TestFleet::new("a");
    let rules = fleet.admission();
    let mut ticks = rules.changed();
    let leaf = [fleet.certificate(1, LONG)];
    assert_eq!(rules.admit(&leaf), Ok(node(1)));
    assert_eq!(rules.readmit(&node(1)), Some(Ok(())));
    assert_eq!(rules.readmit(&node(2)), None);

    let foreign = TestFleet::new("b").revocations(&[1], 1);
    let forged = TestFleet {
        ca: IssuingCa::create("a", &key(99), LONG).unwrap(),
    }
    .revocations(&[1], 9);
    assert_eq!(
        rules.set_revocations(&foreign),
        Err(RulesError::UnknownSigner)
    );
    assert_eq!(
        rules.set_revocations(&forged),
        Err(RulesError::UnknownSigner)
    );
    assert!(!ticks.has_changed().unwrap());

    let list = fleet.revocations(&[1], 300);
    assert_eq!(rules.set_revocations(&list), Ok(Revocations::Taken));
    assert!(ticks.has_changed().unwrap());
    ticks.mark_unchanged();
    assert_eq!(rules.set_revocations(&list), Ok(Revocations::Held));
    assert_eq!(
        rules.set_revocations(&fleet.revocations(&[], 299)),
        Err(RulesError::Older)
    );
    assert_eq!(
        rules.set_revocations(&fleet.revocations(&[], 4)),
        Err(RulesError::Older)
    );
    assert!(!ticks.has_changed().unwrap());
    assert_eq!(rules.admit(&leaf), Err(AdmissionError::Revoked));
    assert!(rules.is_revoked(&node(1)));
    assert!(!rules.is_revoked(&node(2)));

    // The same CA key under a new root keeps the list; another CA has none of its own.
    rules
        .set_issuing_cas(vec![fleet.ca.certificate().clone()])
        .unwrap();
    assert_eq!(rules.admit(&leaf), Err(AdmissionError::Revoked));
    rules
        .set_issuing_cas(vec![TestFleet::new("b").ca.certificate().clone()])
        .unwrap();
    assert_eq!(rules.admit(&leaf), Err(AdmissionError::UnknownIssuer));
    assert_eq!(
        rules.readmit(&node(1)),
        Some(Err(AdmissionError::UnknownIssuer))
    );
}

#[test]
fn the_longest_list_fits_a_reply_and_is_taken() {
    use protocol::limits::{CONTROL_MAX_BYTES, REVOKED_MAX};
    let fleet = TestFleet::new("a");
    let mut serials: Vec<u64> = (1 << 40..).take(REVOKED_MAX).collect();
    serials[7] = 2;
    let list = fleet.ca.revoke(&serials, 1, LONG).unwrap();
    assert!(
        list.len() + 1024 < CONTROL_MAX_BYTES,
        "{} bytes",
        list.len()
    );
    let rules = fleet.admission();
    assert_eq!(rules.set_revocations(&list), Ok(Revocations::Taken));
    assert_eq!(
        rules.admit(&[fleet.certificate(1, LONG)]),
        Err(AdmissionError::Revoked)
    );
    assert_eq!(rules.admit(&[fleet.certificate(2, LONG)]), Ok(node(2)));
    serials.push(9);
    assert!(fleet.ca.revoke(&serials, 2, LONG).is_err());
}

#[test]
fn two_issuing_cas_stand_side_by_side_while_one_replaces_the_other() {
    let (old, new) = (TestFleet::new("a"), TestFleet::new("a2"));
    let both = vec![old.ca.certificate().clone(), new.ca.certificate().clone()];
    let rules = Admission::new(both).unwrap();
    rules.set_revocations(&old.revocations(&[1], 7)).unwrap();
    assert_eq!(rules.admit(&[old.certificate(3, LONG)]), Ok(node(3)));
    assert_eq!(rules.admit(&[new.certificate(4, LONG)]), Ok(node(4)));
    // The next CA's list, whatever its number, is about what the other one issued too.
    rules.set_revocations(&new.revocations(&[2], 1)).unwrap();
    for revoked in [1, 2] {
        for fleet in [&old, &new] {
            assert_eq!(
                rules.admit(&[fleet.certificate(revoked, LONG)]),
                Err(AdmissionError::Revoked)
            );
        }
    }
    assert_eq!(
        rules.admit(&[new.certificate(3, OVER)]),
        Err(AdmissionError::Expired)
    );
}

/// What the CA that was taken away says counts no more: neither its certificates nor its lists.
#[test]
fn a_ca_that_was_taken_away_is_a_stranger() {
    let (old, new) = (TestFleet::new("a"), TestFleet::new("a2"));
    let cas = [old.ca.certificate().clone(), new.ca.certificate().clone()];
    let rules = Admission::new(cas.to_vec()).unwrap();
    let (strangers, before) = (rules.strangers(), [old.certificate(1, LONG)]);
    assert_eq!(rules.issuer_of(&before[0]), Issuer::Older);
    assert_eq!(rules.issuer_of(&new.certificate(1, LONG)), Issuer::InUse);
    rules.admit(&before).unwrap();
    assert_eq!(rules.issuer_of_node(&node(1)), Some(Issuer::Older));
    rules.set_revocations(&old.revocations(&[3], 9)).unwrap();
    assert!(rules.admit(&[new.certificate(3, LONG)]).is_err());
    assert!(!strangers.has_changed().unwrap(), "a revoked one is none");

    let mut ticks = rules.changed();
    ticks.mark_unchanged();
    rules.set_issuing_cas(vec![cas[1].clone()]).unwrap();
    assert!(ticks.has_changed().unwrap(), "live connections are judged");
    assert_eq!(
        rules.readmit(&node(1)),
        Some(Err(AdmissionError::UnknownIssuer))
    );
    assert!(!strangers.has_changed().unwrap(), "that one came before");
    assert_eq!(rules.admit(&before), Err(AdmissionError::UnknownIssuer));
    assert!(strangers.has_changed().unwrap());
    assert_eq!(rules.issuer_of(&before[0]), Issuer::Gone);
    assert!(rules.proves(&before[0]).is_err());
    assert_eq!(Admission::claims(&before[0]), Ok((node(1), 2)));
    assert!(Admission::claims(&CertificateDer::from(vec![7; 99])).is_err());
    assert_eq!(rules.admit(&[new.certificate(3, LONG)]), Ok(node(3)));
    // What stood on its list is no news on the next one's, though it refuses nobody meanwhile.
    assert_eq!(rules.unlisted(&[4, 5, 200, 1 << 62]), 3);
    assert_eq!(
        rules.set_revocations(&old.revocations(&[2], 10)),
        Err(RulesError::UnknownSigner)
    );
}

#[test]
fn a_saved_ca_goes_on_issuing() {
    let made = TestFleet::new("a");
    let ca_key = SigningKey::from_bytes(blake3::hash(b"a").as_bytes());
    let opened = IssuingCa::open(made.ca.certificate().clone(), &ca_key).unwrap();
    let rules = made.admission();
    assert_eq!(
        rules.admit(&[opened.node(node(1), 77, LONG).unwrap()]),
        Ok(node(1))
    );
    rules
        .set_revocations(&opened.revoke(&[77], 1, LONG).unwrap())
        .unwrap();
    assert!(rules.is_revoked(&node(1)));
    assert!(IssuingCa::open(made.ca.certificate().clone(), &key(1)).is_err());
    assert!(IssuingCa::open(made.certificate(1, LONG), &key(1)).is_err());
    assert!(opened.node(node(1), 0, LONG).is_err());
    let backwards = Validity {
        not_before: LONG.not_after,
        not_after: LONG.not_before,
    };
    assert!(opened.node(node(1), 1, backwards).is_err());
    assert!(
        opened
            .node(
                node(1),
                1,
                Validity {
                    not_after: Time::MAX,
                    ..LONG
                }
            )
            .is_err()
    );
}

#[test]
fn key_and_certificates_survive_on_disk_and_belong_together() {
    let fleet = TestFleet::new("a");
    let dir = tempfile::tempdir().unwrap();
    fleet.identity(1).save(dir.path()).unwrap();
    let loaded = Identity::load(dir.path(), fleet.admission()).unwrap();
    assert_eq!(loaded.node(), node(1));
    assert_eq!(loaded.chain(), fleet.identity(1).chain());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

    fs::write(dir.path().join(CERTIFICATES_FILE), "nonsense").unwrap();
    let refused = Identity::load(dir.path(), fleet.admission());
    assert!(
        matches!(refused, Err(IdentityError::Malformed { .. })),
        "{refused:?}"
    );
    fleet.identity(2).save(dir.path()).unwrap();
    save_key(&dir.path().join(KEY_FILE), &key(1)).unwrap();
    let refused = Identity::load(dir.path(), fleet.admission());
    assert!(
        matches!(refused, Err(IdentityError::WrongKey { .. })),
        "{refused:?}"
    );
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(KEY_FILE);
    save_key(&path, &key(1)).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(load_key(&path).unwrap().to_bytes(), key(1).to_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        load_key(&path),
        Err(IdentityError::Exposed { mode: 0o640, .. })
    ));
}

/// Runs a handshake in memory and says how each side ended.
fn handshake(
    server: &Identity,
    client: &Identity,
    expected: NodeId,
) -> (Result<(), String>, Result<(), String>) {
    let name = ServerName::try_from(expected.to_string()).unwrap();
    let mut server = ServerConnection::new(server.tls_server(b"t")).unwrap();
    let mut client = ClientConnection::new(client.tls_client(expected, b"t"), name).unwrap();
    let (mut served, mut asked) = (Ok(()), Ok(()));
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        served = served.and(
            server
                .process_new_packets()
                .map(|_| ())
                .map_err(|e| e.to_string()),
        );
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        asked = asked.and(
            client
                .process_new_packets()
                .map(|_| ())
                .map_err(|e| e.to_string()),
        );
    }
    if served.is_ok() {
        let shown = server
            .peer_certificates()
            .and_then(|chain| node_of_certificate(&chain[0]));
        assert!(!server.is_handshaking());
        assert!(shown.is_some());
    }
    (served, asked)
}

#[test]
fn tls_admits_both_ways_and_only_the_node_that_was_meant() {
    let fleet = TestFleet::new("a");
    let (server, client) = (fleet.identity(1), fleet.identity(2));
    assert_eq!(handshake(&server, &client, node(1)), (Ok(()), Ok(())));

    let (_, asked) = handshake(&server, &client, node(3));
    assert!(
        asked.unwrap_err().contains("expected"),
        "the server is another node"
    );
    let bare = fleet.identity_with(2, vec![]);
    assert!(
        handshake(&server, &bare, node(1)).0.is_err(),
        "a client without certificate"
    );
    let expired = fleet.identity_with(2, vec![fleet.certificate(2, OVER)]);
    assert!(
        handshake(&server, &expired, node(1)).0.is_err(),
        "an expired client"
    );
    assert!(
        handshake(&expired, &server, node(2)).1.is_err(),
        "an expired server"
    );
    let foreign = TestFleet::new("b").identity(2);
    assert!(
        handshake(&server, &foreign, node(1)).0.is_err(),
        "a foreign client"
    );
    let borrowed = fleet.identity_with(2, vec![fleet.certificate(3, LONG)]);
    assert!(
        handshake(&server, &borrowed, node(1)).0.is_err(),
        "another node's certificate"
    );

    server
        .admission()
        .set_revocations(&fleet.revocations(&[2], 1))
        .unwrap();
    let refused = handshake(&server, &client, node(1)).0.unwrap_err();
    assert!(refused.contains("Revoked"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_mutated_certificate_is_never_admitted(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..4),
    ) {
        let fleet = TestFleet::new("a");
        let good = fleet.certificate(1, LONG).to_vec();
        let mut bad = good.clone();
        for (at, value, how) in cuts {
            if bad.is_empty() { break; }
            let at = at.index(bad.len());
            match how {
                0 => bad[at] = value,
                1 => bad.truncate(at),
                2 => bad.insert(at, value),
                _ => bad[at] ^= 1 << (value % 8),
            }
        }
        prop_assume!(bad != good);
        prop_assert!(fleet.admission().admit(&[CertificateDer::from(bad)]).is_err());
    }

    #[test]
    fn a_mutated_revocation_list_never_takes_effect(
        at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<bool>(),
    ) {
        let fleet = TestFleet::new("a");
        let good = fleet.revocations(&[1, 2, 3], 7);
        let mut bad = good.clone();
        let at = at.index(bad.len());
        if cut { bad.truncate(at) } else { bad[at] = value }
        prop_assume!(bad != good);
        let rules = fleet.admission();
        prop_assert!(rules.set_revocations(&bad).is_err());
        prop_assert_eq!(rules.admit(&[fleet.certificate(1, LONG)]), Ok(node(1)));
    }
}
