use data_encoding::HEXLOWER;
use node::net::identity::issue::{IssuingCa, Validity};
use protocol::enroll::RenewRequest;
use protocol::limits::RENEWALS_MAX;

use super::*;

const HOUR: Span = Span::from_secs(3600);

impl Town {
    /// Lets certificates of nodes hold for so long.
    async fn with_life(life: Span) -> Town {
        let mut town = Town::new().await;
        let mut settings = town.dir().settings().unwrap();
        settings.certificate_life = Some(life);
        let json = serde_json::to_vec(&settings).unwrap();
        std::fs::write(town.dir().settings_file(), json).unwrap();
        town.restart().await;
        town
    }

    /// Enrols a key and gives its certificate, hex.
    pub(super) async fn certified(&self, key: &SigningKey) -> String {
        let token = self.token(1, HOUR).await;
        let reply = self.client.enroll(&request(&token, key)).await.unwrap();
        reply.certificates[0].clone()
    }

    fn renewal(&self, key: &SigningKey, certificate: &str) -> RenewRequest {
        let mut request = RenewRequest {
            spec_version: 1,
            fleet: self.fleet,
            node: NodeId(keys::public(key).0),
            certificate: certificate.into(),
            proof: String::new(),
        };
        request.prove(key);
        request
    }
}

#[tokio::test]
async fn a_certificate_that_is_over_still_gets_its_node_the_next_one() {
    let mut town = Town::with_life(Span::from_secs(1)).await;
    let key = keys::generate();
    let certificate = town.certified(&key).await;
    let over = now() + Span::from_secs(2);
    while now() <= over {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let asked = town.renewal(&key, &certificate);
    let next = town.client.renew(&asked).await.unwrap();
    assert_ne!(next.certificates[0], certificate);
    town.restart().await;
    let asked = town.renewal(&key, &next.certificates[0]);
    town.client.renew(&asked).await.unwrap();
    assert_eq!(town.client.nodes().await.unwrap().len(), 1);
    town.close().await;
}

#[tokio::test]
async fn what_does_not_prove_the_key_or_was_taken_back_is_not_renewed() {
    let mut town = Town::new().await;
    let (key, thief) = (keys::generate(), keys::generate());
    let certificate = town.certified(&key).await;
    let theirs = town.certified(&thief).await;
    let entries = town.client.audit_head().await.unwrap().entries;

    let mut forged = town.renewal(&thief, &certificate);
    let refused = |result| refusal::<protocol::enroll::RenewReply>(result).0;
    assert_eq!(refused(town.client.renew(&forged).await), 403, "another's");
    forged.node = NodeId(keys::public(&key).0);
    assert_eq!(refused(town.client.renew(&forged).await), 403, "no proof");
    let other = town.renewal(&key, &theirs);
    assert_eq!(refused(town.client.renew(&other).await), 403, "not its own");
    let validity = Validity {
        not_before: now(),
        not_after: now() + HOUR,
    };
    let own_ca = IssuingCa::create("fleet", &thief, validity).unwrap();
    let node = NodeId(keys::public(&thief).0);
    let own = HEXLOWER.encode(&own_ca.node(node, 77, validity).unwrap());
    let own = town.renewal(&thief, &own);
    assert_eq!(
        refused(town.client.renew(&own).await),
        403,
        "a CA of his own"
    );
    let mut foreign = town.renewal(&key, &certificate);
    foreign.fleet = FleetId([9; 32]);
    foreign.prove(&key);
    assert_eq!(refused(town.client.renew(&foreign).await), 400);
    let mut garbage = town.renewal(&key, &"ab".repeat(1 << 16));
    assert_eq!(refused(town.client.renew(&garbage).await), 400);
    garbage = town.renewal(&key, "30820100");
    assert_eq!(refused(town.client.renew(&garbage).await), 403);
    assert_eq!(town.client.audit_head().await.unwrap().entries, entries);

    let id = NodeId(keys::public(&key).0);
    town.client.revoke(id, "lost").await.unwrap();
    let asked = town.renewal(&key, &certificate);
    assert_eq!(refused(town.client.renew(&asked).await), 403, "revoked");
    town.close().await;
}

#[tokio::test]
async fn one_node_gets_a_bounded_number_of_certificates() {
    let mut town = Town::new().await;
    let key = keys::generate();
    let mut newest = town.certified(&key).await;
    for _ in 0..RENEWALS_MAX {
        let asked = town.renewal(&key, &newest);
        newest = town.client.renew(&asked).await.unwrap().certificates[0].clone();
    }
    town.restart().await;
    let asked = town.renewal(&key, &newest);
    let (status, line) = refusal(town.client.renew(&asked).await);
    assert_eq!((status, line.contains("too often")), (429, true), "{line}");
    town.close().await;
}
