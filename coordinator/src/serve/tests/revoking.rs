//! A few certificates a day are taken back by whoever may, many by the operators' threshold.

use node::driver::issuing_cas;
use node::net::identity::Admission;
use protocol::enroll::RenewRequest;
use protocol::limits::REVOCATIONS_PER_DAY_MAX;
use protocol::revocation::{MassRevocation, parts};

use super::*;

const HOUR: Span = Span::from_secs(3600);

fn id(key: &SigningKey) -> NodeId {
    NodeId(keys::public(key).0)
}

impl Town {
    async fn crowd(&self, many: usize) -> Vec<SigningKey> {
        let token = self.token(many as u32, HOUR).await;
        let mut crowd = Vec::new();
        for _ in 0..many {
            let key = keys::generate();
            self.client.enroll(&request(&token, &key)).await.unwrap();
            crowd.push(key);
        }
        crowd
    }

    async fn statement(&self, nodes: &[NodeId]) -> MassRevocation {
        let draft = self.client.draft_revocation(nodes).await.unwrap();
        MassRevocation {
            spec_version: 1,
            fleet: self.fleet,
            nodes: draft.nodes,
            certificates: draft.certificates,
            list: draft.list,
            reason: "stolen in transit".into(),
            created: now(),
        }
    }

    async fn revokes(&self, statement: &MassRevocation, by: &[&str]) -> Result<(), (u16, String)> {
        let signed = self.signed(statement, by);
        match self.client.revoke_many(&signed).await {
            Ok(()) => Ok(()),
            refused => Err(refusal(refused)),
        }
    }

    /// The list in force: its serials, and whether its warrant covers how many.
    async fn list(&self) -> (Vec<u64>, usize) {
        let house = &self.running.as_ref().unwrap().house;
        let list = house.desk.view(|i| i.certificates.list().cloned()).await;
        let bytes = list.unwrap().unwrap().bytes;
        let trust = house.roots.now().trust.clone();
        let rules = Admission::new(issuing_cas(trust.root())).unwrap();
        let (der, warrant) = parts(&bytes);
        let serials = rules.listed(&der).unwrap().1;
        let warrant = warrant.map(|w| trust.verify::<MassRevocation>(&w).unwrap());
        let covered = warrant.map_or(0, |w| w.covers(&serials));
        (serials, covered)
    }

    async fn revoked(&self) -> usize {
        let nodes = self.client.nodes().await.unwrap();
        nodes.iter().filter(|n| n.revoked).count()
    }
}

#[tokio::test]
async fn so_many_a_day_are_revoked_by_whoever_may_and_more_by_the_operators() {
    let mut town = Town::new().await;
    assert_eq!(
        town.list().await,
        (Vec::new(), 0),
        "there is a list from the start"
    );
    let crowd = town.crowd(REVOCATIONS_PER_DAY_MAX + 6).await;
    let ids: Vec<NodeId> = crowd.iter().map(id).collect();
    // All at once: those that are decided and not yet written count, too.
    let asked = ids.iter().map(|node| town.client.revoke(*node, "lost"));
    let answers = futures::future::join_all(asked).await;
    let taken = answers.iter().filter(|a| a.is_ok()).count();
    assert_eq!(taken, REVOCATIONS_PER_DAY_MAX);
    for refused in answers.into_iter().filter(Result::is_err) {
        let (status, line) = refusal(refused);
        assert_eq!(
            (status, line.contains("revoke-many")),
            (429, true),
            "{line}"
        );
    }
    town.restart().await;
    let nodes = town.client.nodes().await.unwrap();
    let left = nodes.iter().filter(|n| !n.revoked).map(|n| n.node);
    let left: Vec<NodeId> = left.collect();
    assert_eq!(left.len(), 6);
    assert_eq!(refusal(town.client.revoke(left[0], "lost").await).0, 429);
    let (listed, covered) = town.list().await;
    assert_eq!((listed.len(), covered), (REVOCATIONS_PER_DAY_MAX, 0));

    // One operator is too few, another's key is none, and nobody is revoked by half.
    let statement = town.statement(&left[..5]).await;
    assert_eq!(statement.certificates as usize, REVOCATIONS_PER_DAY_MAX + 5);
    for by in [
        &[][..],
        &["alice"],
        &["alice", "alice"],
        &["alice", "releases"],
        &["root"],
    ] {
        assert_eq!(
            town.revokes(&statement, by).await.unwrap_err().0,
            403,
            "{by:?}"
        );
    }
    let mut foreign = statement.clone();
    foreign.fleet = FleetId([9; 32]);
    assert_eq!(
        town.revokes(&foreign, &["alice", "bob"])
            .await
            .unwrap_err()
            .0,
        403
    );
    for (nodes, status) in [(vec![left[0]], 409), (vec![left[5], NodeId([7; 32])], 409)] {
        let other = MassRevocation {
            nodes,
            ..statement.clone()
        };
        assert_eq!(
            town.revokes(&other, &["alice", "bob"]).await.unwrap_err().0,
            status
        );
    }
    let unknown = town.statement(&[left[0], NodeId([7; 32])]).await;
    assert_eq!(
        town.revokes(&unknown, &["alice", "bob"])
            .await
            .unwrap_err()
            .0,
        404
    );
    assert_eq!(town.revoked().await, REVOCATIONS_PER_DAY_MAX);

    town.revokes(&statement, &["alice", "bob"]).await.unwrap();
    assert_eq!(town.revoked().await, REVOCATIONS_PER_DAY_MAX + 5);
    let (more, covered) = town.list().await;
    assert_eq!(more[..listed.len()], listed, "a list grows at its end");
    assert_eq!((more.len(), covered), (listed.len() + 5, more.len()));
    // The next ones of the day go on from there, and the warrant with them, also after a restart.
    town.client.revoke(left[5], "lost").await.unwrap();
    let after = town.list().await;
    assert_eq!((after.0.len(), after.1), (more.len() + 1, more.len()));
    town.restart().await;
    assert_eq!(town.list().await, after);
    assert!(
        town.revokes(&statement, &["alice", "bob"]).await.is_err(),
        "twice"
    );
    town.close().await;
}

#[tokio::test]
async fn a_statement_that_was_overtaken_revokes_nobody() {
    let mut town = Town::new().await;
    let crowd = town.crowd(3).await;
    let ids: Vec<NodeId> = crowd.iter().map(id).collect();
    let statement = town.statement(&ids[..2]).await;
    let token = town.token(1, HOUR).await;
    // One of them is given another certificate meanwhile.
    town.client
        .enroll(&request(&token, &crowd[0]))
        .await
        .unwrap();
    let (status, line) = town
        .revokes(&statement, &["alice", "bob"])
        .await
        .unwrap_err();
    assert_eq!((status, line.contains("anew")), (409, true), "{line}");
    assert_eq!(town.revoked().await, 0);
    let statement = town.statement(&ids[..2]).await;
    assert_eq!(statement.certificates, 3);
    town.revokes(&statement, &["bob", "carol"]).await.unwrap();
    assert_eq!(town.revoked().await, 2);
    // About nobody it vouches for the list as it is.
    town.client.revoke(ids[2], "lost").await.unwrap();
    assert_eq!(town.list().await.1, 3);
    let as_it_is = town.statement(&[]).await;
    town.revokes(&as_it_is, &["alice", "carol"]).await.unwrap();
    let (serials, covered) = town.list().await;
    assert_eq!((serials.len(), covered), (4, 4));
    // The revoked have no way back.
    let renew = RenewRequest {
        spec_version: 1,
        fleet: town.fleet,
        node: ids[0],
        certificate: String::new(),
        proof: String::new(),
    };
    assert_eq!(refusal(town.client.renew(&renew).await).0, 403);
    town.close().await;
}
