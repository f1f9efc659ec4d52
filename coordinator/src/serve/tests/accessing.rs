//! Tokens for the API: each opens what its role may, where it may, until it is revoked.

use super::rolling::published;
use super::*;
use crate::api::access::Role;
use crate::api::messages::{AccessMade, NewAccess};

impl Town {
    async fn access(&self, name: &str, role: Role, sites: &[&str]) -> (AccessMade, Client) {
        let ask = NewAccess {
            name: name.into(),
            role,
            sites: sites.iter().map(|site| site.parse().unwrap()).collect(),
            life: Span::from_secs(3_600),
        };
        let made = self.client.new_access(&ask).await.unwrap();
        let client = self.client_with(&made.token);
        (made, client)
    }

    fn client_with(&self, token: &str) -> Client {
        let settings = self.dir().settings().unwrap();
        Client::new(
            &settings.local_api().to_string(),
            settings.server_pin,
            token,
        )
    }
}

fn refused<T: std::fmt::Debug>(answer: Result<T, ApiError>) -> (u16, String) {
    match answer.unwrap_err() {
        ApiError::Refused { status, message } => (status, message),
        other => panic!("{other}"),
    }
}

fn wish(site: Option<&str>) -> NewToken {
    NewToken {
        foreign: false,
        terms: Default::default(),
        site: site.map(|site| site.parse().unwrap()),
        uses: 1,
        life: Span::from_secs(60),
    }
}

#[tokio::test]
async fn a_token_does_what_its_role_may_until_it_is_revoked() {
    let mut town = Town::new().await;
    let (seen, viewer) = town.access("vera", Role::Viewer, &[]).await;
    viewer.nodes().await.unwrap();
    let (status, line) = refused(viewer.new_token(&wish(None)).await);
    assert_eq!(status, 403);
    assert!(
        line.contains("vera") && line.contains("viewer") && line.contains("enrol"),
        "{line}"
    );
    let (_, operator) = town.access("otto", Role::Operator, &[]).await;
    operator.new_token(&wish(None)).await.unwrap();
    let topology = town.signed(&town.topology(1), &["alice"]);
    assert_eq!(refused(operator.set_topology(&topology).await).0, 403);
    let (made, admin) = town.access("ada", Role::Admin, &[]).await;
    admin.set_topology(&topology).await.unwrap();
    // Nobody below an admin makes tokens or sees whose they are.
    assert_eq!(refused(operator.accesses().await).0, 403);
    assert_eq!(admin.accesses().await.unwrap().len(), 3);

    // Nothing of a secret lies on the disk.
    let store = std::fs::read(town.dir().store_file()).unwrap();
    let secret = made.token.rsplit('.').next().unwrap().as_bytes();
    assert!(!store.windows(secret.len()).any(|run| run == secret));

    // They outlive a restart, and a revoked one does not come back by it.
    admin.revoke_access(&seen.id).await.unwrap();
    assert_eq!(refused(admin.revoke_access(&seen.id).await).0, 404);
    for _ in 0..2 {
        assert_eq!(refused(viewer.nodes().await).0, 401);
        operator.nodes().await.unwrap();
        town.restart().await;
    }
    // Right id, wrong secret; no token at all; the directory's own cut short.
    let own = town.dir().api_token().unwrap();
    for text in [
        format!("tga1.{}.x", seen.id),
        "tga1..".into(),
        String::new(),
        own[1..].into(),
    ] {
        assert_eq!(
            refused(town.client_with(&text).nodes().await).0,
            401,
            "{text:?}"
        );
    }
    town.close().await;
}

#[tokio::test]
async fn a_token_for_some_sites_sees_and_moves_nothing_elsewhere() {
    let mut town = Town::new().await;
    let (_, north) = town.access("nora", Role::Operator, &["north"]).await;
    north.new_token(&wish(Some("north"))).await.unwrap();
    for site in [None, Some("south")] {
        let (status, line) = refused(north.new_token(&wish(site)).await);
        assert_eq!(status, 403);
        assert!(line.contains("nora's token is for north only"), "{line}");
    }
    // A machine that is in no site yet is none of hers; the fleet's admin sees it.
    let token = town.client.new_token(&wish(None)).await.unwrap();
    let node = town.enrol("a", &token).await.unwrap().node;
    assert!(
        town.client
            .nodes()
            .await
            .unwrap()
            .iter()
            .any(|view| view.node == node)
    );
    assert!(north.nodes().await.unwrap().is_empty());
    assert_eq!(refused(north.revoke(node, "lost").await).0, 403);
    // Nor does she halt what she may not see, or read what tells of all.
    let nowhere = "r1".parse().unwrap();
    assert_eq!(refused(north.halt(&nowhere, "stop").await).0, 403);
    assert_eq!(refused(north.ledger_head().await).0, 403);
    town.client.revoke(node, "lost").await.unwrap();
    town.close().await;
}

/// Plans name nodes and counts tell of all their sites: only rollouts whose targets are all hers are shown.
#[tokio::test]
async fn a_token_for_some_sites_reads_no_rollout_of_others() {
    let mut town = Town::new().await;
    let topology = town.signed(&town.topology(1), &["alice"]);
    town.client.set_topology(&topology).await.unwrap();
    let release = published(&town, "1.0", 1).await;
    let mut proposal = town.proposal("everywhere", release, "alice");
    let everywhere = town.signed(&proposal, &["alice"]);
    town.client.propose(&everywhere).await.unwrap();
    proposal.rollout = "north-only".parse().unwrap();
    proposal.targets.sites = vec!["north".parse().unwrap()];
    let north_only = town.signed(&proposal, &["alice"]);
    town.client.propose(&north_only).await.unwrap();

    let (_, north) = town.access("nora", Role::Viewer, &["north"]).await;
    let (_, south) = town.access("sam", Role::Viewer, &["south"]).await;
    let ids = |views: Vec<crate::api::messages::RolloutView>| -> Vec<String> {
        views.iter().map(|view| view.rollout.to_string()).collect()
    };
    assert_eq!(ids(town.client.rollouts().await.unwrap()).len(), 2);
    assert_eq!(ids(north.rollouts().await.unwrap()), ["north-only"]);
    assert!(south.rollouts().await.unwrap().is_empty());
    for (id, hers) in [("north-only", true), ("everywhere", false)] {
        let id = id.parse().unwrap();
        assert_eq!(north.rollout(&id).await.is_ok(), hers, "{id}");
        assert_eq!(refused(south.rollout(&id).await).0, 403, "{id}");
        assert_eq!(refused(south.review(&id).await).0, 403, "{id}");
    }
    town.close().await;
}

#[tokio::test]
async fn a_token_outlives_neither_its_end_nor_its_bounds() {
    let mut town = Town::new().await;
    let ask = |name: &str, life| NewAccess {
        name: name.into(),
        role: Role::Viewer,
        sites: Default::default(),
        life,
    };
    let long = Span(protocol::limits::API_TOKEN_LIFE_MAX.0 + 1);
    for wrong in [
        ask("", Span(1)),
        ask(&"x".repeat(5_000), Span(1)),
        ask("x", Span::ZERO),
        ask("x", long),
    ] {
        assert_eq!(refused(town.client.new_access(&wrong).await).0, 400);
    }
    let short = town.client.new_access(&ask("x", Span(1))).await.unwrap();
    while town.client_with(&short.token).nodes().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(refused(town.client_with(&short.token).nodes().await).0, 401);
    // One that is over makes room for the next.
    for n in 0..protocol::limits::API_TOKENS_MAX {
        let made = town
            .client
            .new_access(&ask("x", Span::from_secs(3_600)))
            .await;
        assert!(made.is_ok(), "{n}");
    }
    let one_more = town
        .client
        .new_access(&ask("x", Span::from_secs(3_600)))
        .await;
    assert_eq!(refused(one_more).0, 409);
    town.close().await;
}
