use super::*;

const HOUR: Span = Span::from_secs(3600);

#[tokio::test]
async fn a_token_enrols_as_many_nodes_as_it_says_and_a_restart_forgets_nothing() {
    let mut town = Town::new().await;
    let token = town.token(2, HOUR).await;
    assert_eq!(token.root, town.fleet);
    let first = town.enrol("n1", &token).await.unwrap();
    town.restart().await;
    let second = town.enrol("n2", &token).await.unwrap();
    let error = town.enrol("n3", &token).await.unwrap_err().to_string();
    assert!(error.contains("all of its 2 nodes"), "{error}");

    let nodes = town.client.nodes().await.unwrap();
    let mut ids: Vec<_> = nodes.iter().map(|n| n.node).collect();
    let mut expected = vec![first.node, second.node];
    ids.sort_unstable();
    expected.sort_unstable();
    assert_eq!(ids, expected);
    assert_eq!(nodes[0].labels["ring"], "canary");
    assert_eq!(town.client.status().await.unwrap().nodes, 2);
    town.close().await;
}

#[tokio::test]
async fn one_enrolment_that_is_sent_twice_uses_the_token_once_and_opens_a_new_epoch() {
    let mut town = Town::new().await;
    let token = town.token(1, HOUR).await;
    let key = keys::generate();
    let first = town.client.enroll(&request(&token, &key)).await.unwrap();
    let again = town.client.enroll(&request(&token, &key)).await.unwrap();
    assert!(again.epoch > first.epoch);
    assert_ne!(first.certificates[0], again.certificates[0]);
    assert_eq!(town.client.nodes().await.unwrap().len(), 1);
    let (status, _) = refusal(
        town.client
            .enroll(&request(&token, &keys::generate()))
            .await,
    );
    assert_eq!(status, 403);
    town.close().await;
}

#[tokio::test]
async fn one_token_gives_one_node_a_bounded_number_of_certificates() {
    let mut town = Town::new().await;
    let token = town.token(1, HOUR).await;
    let key = keys::generate();
    for _ in 0..protocol::limits::REISSUES_MAX {
        town.client.enroll(&request(&token, &key)).await.unwrap();
    }
    let entries = town.client.audit_head().await.unwrap().entries;
    let (status, line) = refusal(town.client.enroll(&request(&token, &key)).await);
    assert_eq!(
        (status, line.contains("tidegate token")),
        (403, true),
        "{line}"
    );
    assert_eq!(town.client.audit_head().await.unwrap().entries, entries);
    let fresh = town.token(1, HOUR).await;
    town.client.enroll(&request(&fresh, &key)).await.unwrap();
    town.close().await;
}

/// Whoever wins: a certificate that left is one that the list, made after it, names.
#[tokio::test]
async fn a_revocation_in_the_middle_of_an_enrolment_leaves_no_valid_certificate() {
    let mut town = Town::new().await;
    for _ in 0..6 {
        let token = town.token(1, HOUR).await;
        let key = keys::generate();
        town.client.enroll(&request(&token, &key)).await.unwrap();
        let id = NodeId(keys::public(&key).0);
        let asked = request(&token, &key);
        let (again, revoked) =
            tokio::join!(town.client.enroll(&asked), town.client.revoke(id, "lost"));
        revoked.unwrap();
        if again.is_err() {
            assert_eq!(refusal(again).0, 403);
        }
        assert_eq!(refusal(town.client.enroll(&asked).await).0, 403);
    }
    town.close().await;
}

#[tokio::test]
async fn what_does_not_enrol_leaves_no_trace() {
    let mut town = Town::new().await;
    let entries = town.client.audit_head().await.unwrap().entries;
    let token = town.token(1, HOUR).await;
    let key = keys::generate();

    let mut wrong = token.clone();
    wrong.token.secret = "guess".into();
    let (status, line) = refusal(town.client.enroll(&request(&wrong, &key)).await);
    assert_eq!((status, line.contains("not known")), (403, true), "{line}");
    wrong.token.id = "nobody".into();
    assert_eq!(
        refusal(town.client.enroll(&request(&wrong, &key)).await).1,
        line,
        "an asker learns not which was wrong"
    );

    let mut stolen = request(&token, &key);
    stolen.node = NodeId(keys::public(&keys::generate()).0);
    let (status, line) = refusal(town.client.enroll(&stolen).await);
    assert_eq!(
        (status, line.contains("not signed by the key")),
        (403, true),
        "{line}"
    );

    let mut long = request(&token, &key);
    long.hostname = "x".repeat(5000);
    long.prove(&key);
    assert_eq!(refusal(town.client.enroll(&long).await).0, 400);

    let short = town.token(1, Span::from_millis(1)).await;
    let line = eventually("the token expires", async || {
        match town.client.enroll(&request(&short, &key)).await {
            Err(ApiError::Refused {
                status: 403,
                message,
            }) if message.contains("expired") => Some(message),
            _ => None,
        }
    });
    assert!(line.await.contains("tidegate token"));

    assert_eq!(
        refusal(
            town.client
                .new_token(&NewToken {
                    foreign: false,
                    terms: Default::default(),
                    site: None,
                    uses: 0,
                    life: HOUR
                })
                .await
        )
        .0,
        400
    );
    assert_eq!(
        refusal(
            town.client
                .new_token(&NewToken {
                    foreign: false,
                    terms: Default::default(),
                    site: None,
                    uses: 1,
                    life: Span::ZERO
                })
                .await
        )
        .0,
        400
    );
    // The token that was misused still serves who should have it.
    town.enrol("n1", &token).await.unwrap();
    let after = town.client.audit_head().await.unwrap().entries;
    assert_eq!(after, entries + 3, "two tokens and one enrolment");
    town.close().await;
}

#[tokio::test]
async fn a_revoked_node_is_listed_as_such_and_cannot_come_back_under_its_key() {
    let mut town = Town::new().await;
    let token = town.token(5, HOUR).await;
    let key = keys::generate();
    let node = NodeId(keys::public(&key).0);
    town.client.enroll(&request(&token, &key)).await.unwrap();
    let (status, _) = refusal(town.client.revoke(NodeId([7; 32]), "no such").await);
    assert_eq!(status, 404);
    town.client.revoke(node, "stolen from a car").await.unwrap();
    assert!(town.client.nodes().await.unwrap()[0].revoked);

    for _ in 0..2 {
        let (status, line) = refusal(town.client.enroll(&request(&token, &key)).await);
        assert_eq!(
            (status, line.contains("was revoked")),
            (403, true),
            "{line}"
        );
        town.restart().await;
    }
    town.close().await;
}

#[tokio::test]
async fn nothing_but_enrolment_is_open_without_the_api_token() {
    let mut town = Town::new().await;
    let settings = town.dir().settings().unwrap();
    let stranger = Client::new(&settings.api.to_string(), settings.server_pin, "guess");
    let rollout = "r1".parse().unwrap();
    let refusals = [
        refusal(stranger.status().await),
        refusal(stranger.nodes().await),
        refusal(
            stranger
                .new_token(&NewToken {
                    foreign: false,
                    terms: Default::default(),
                    site: None,
                    uses: 1,
                    life: HOUR,
                })
                .await,
        ),
        refusal(stranger.start(&rollout).await),
        refusal(stranger.revoke(NodeId([7; 32]), "").await),
        refusal(stranger.blob(protocol::BlobRef::of(b"x")).await),
        refusal(stranger.events(0, Duration::ZERO).await),
    ];
    for (status, line) in refusals {
        assert_eq!((status, line.contains("api-token")), (401, true), "{line}");
    }
    let token = town.token(1, HOUR).await;
    stranger
        .enroll(&request(&token, &keys::generate()))
        .await
        .unwrap();

    let elsewhere = Client::new(
        &settings.api.to_string(),
        Hash([1; 32]),
        &town.dir().api_token().unwrap(),
    );
    assert!(
        matches!(elsewhere.status().await, Err(ApiError::Unreachable { .. })),
        "another certificate than the pinned one"
    );
    town.close().await;
    assert!(matches!(
        town.client.status().await,
        Err(ApiError::Unreachable { .. })
    ));
}
