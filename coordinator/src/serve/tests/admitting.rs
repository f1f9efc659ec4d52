//! Tokens that ask for more than their secret: an address, an operator's word; and those that give labels.

use coordinator_core::contract::TokenTerms;

use super::*;
use crate::serve::store::{Store, TokenError, TokenKind, TokenRow};
use crate::serve::waiting::Asker;

const HOUR: Span = Span::from_secs(3600);

impl Town {
    async fn token_with(&self, terms: TokenTerms) -> TokenMade {
        let ask = NewToken {
            site: Some("north".parse().unwrap()),
            uses: 2,
            life: HOUR,
            foreign: false,
            terms,
        };
        self.client.new_token(&ask).await.unwrap()
    }
}

fn by_hand() -> TokenTerms {
    TokenTerms {
        by_hand: true,
        ..TokenTerms::default()
    }
}

#[tokio::test]
async fn a_machine_waits_until_an_operator_lets_it_in_also_across_a_restart() {
    let mut town = Town::new().await;
    let token = town.token_with(by_hand()).await;
    let error = town.enrol("n1", &token).await.unwrap_err().to_string();
    assert!(error.contains("tidegate nodes admit"), "{error}");
    town.enrol("n1", &token).await.unwrap_err();
    assert_eq!(town.client.nodes().await.unwrap(), []);

    town.restart().await;
    let waiting = town.client.waiting().await.unwrap();
    let [machine] = &waiting[..] else {
        panic!("one machine waits, once: {waiting:?}")
    };
    assert_eq!(machine.token, token.token.id);
    assert!(machine.address.is_loopback());
    let (status, line) = refusal(town.client.admit(NodeId([7; 32])).await);
    assert_eq!((status, line.contains("--waiting")), (404, true), "{line}");

    let entries = town.client.audit_head().await.unwrap().entries;
    town.client.admit(machine.node).await.unwrap();
    assert_eq!(town.client.audit_head().await.unwrap().entries, entries + 1);
    assert_eq!(town.client.waiting().await.unwrap(), []);
    town.restart().await;
    let config = town.enrol("n1", &token).await.unwrap();
    assert_eq!(config.node, machine.node);

    // Who holds the token still waits for his own turn.
    let other = town
        .client
        .enroll(&request(&token, &keys::generate()))
        .await;
    assert_eq!(refusal(other).0, 403);
    town.close().await;
}

#[tokio::test]
async fn a_token_serves_its_subnets_alone_and_its_labels_win() {
    let mut town = Town::new().await;
    let far = TokenTerms {
        from: vec!["10.9.0.0/16".parse().unwrap()],
        ..TokenTerms::default()
    };
    let far = town.token_with(far).await;
    let error = town.enrol("n1", &far).await.unwrap_err().to_string();
    assert!(error.contains("not for machines at 127.0.0.1"), "{error}");

    let here = TokenTerms {
        from: vec!["127.0.0.0/8".parse().unwrap()],
        labels: [("ring", "last"), ("kiosk", "yes")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        by_hand: false,
    };
    let here = town.token_with(here).await;
    let config = town.enrol("n1", &here).await.unwrap();
    let labels: Vec<_> = config
        .labels
        .iter()
        .map(|(k, v)| (&k[..], &v[..]))
        .collect();
    assert_eq!(labels, [("kiosk", "yes"), ("ring", "last")]);
    let listed = town.client.nodes().await.unwrap();
    assert_eq!(listed[0].labels["ring"], "last");

    for (foreign, terms) in [(true, by_hand()), (false, too_many_labels())] {
        let ask = NewToken {
            site: None,
            uses: 1,
            life: HOUR,
            foreign,
            terms,
        };
        assert_eq!(refusal(town.client.new_token(&ask).await).0, 400);
    }
    town.close().await;
}

fn too_many_labels() -> TokenTerms {
    let labels = (0..=protocol::limits::LABELS_MAX).map(|n| (format!("k{n}"), "v".to_owned()));
    TokenTerms {
        labels: labels.collect(),
        ..TokenTerms::default()
    }
}

/// At the limit nobody who waits is forgotten for one who came later, until the token ends.
#[test]
fn those_who_wait_are_few_and_whose_token_ended_makes_room() {
    use protocol::limits::ENROLMENTS_WAITING_MAX;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store.redb")).unwrap();
    let start = Time::from_secs(1_000);
    let token = |id: &str, expires| {
        let row = TokenRow {
            secret: Hash::of(b"secret"),
            uses: u32::MAX,
            used: 0,
            expires,
            site: None,
            kind: TokenKind::Nodes,
            terms: by_hand(),
        };
        store.add_token(id, &row, start).unwrap();
    };
    token("soon", start + HOUR);
    token("later", start + Span(2 * HOUR.0));
    let ask = |id, n: u32, now| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_le_bytes());
        let asker = Asker {
            node: NodeId(key),
            address: Ipv4Addr::LOCALHOST.into(),
            hostname: "box".into(),
            os: "linux".into(),
        };
        let refused = store.redeem(id, "secret", TokenKind::Nodes, &asker, now);
        refused.unwrap_err()
    };
    for n in 0..ENROLMENTS_WAITING_MAX as u32 {
        assert!(matches!(ask("soon", n, start), TokenError::Waiting(_)));
    }
    let last = ENROLMENTS_WAITING_MAX as u32;
    assert!(matches!(ask("later", last, start), TokenError::WaitingFull));
    assert!(
        matches!(ask("soon", 0, start), TokenError::Waiting(_)),
        "it is among them"
    );
    let later = start + HOUR;
    assert!(matches!(ask("later", last, later), TokenError::Waiting(_)));
}
