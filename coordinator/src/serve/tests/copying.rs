//! A node's directory on other machines: each becomes a node of its own, by the key that it was copied with.

use node::net::identity::node_of_certificate;
use protocol::enroll::{EnrollReply, RejoinRequest};
use protocol::limits::COPIES_MAX;

use super::*;

impl Town {
    fn rejoining(&self, copied: &SigningKey, certificate: &str, own: &SigningKey) -> RejoinRequest {
        let mut enroll = EnrollRequest {
            spec_version: 1,
            token_id: String::new(),
            token_secret: String::new(),
            node: NodeId(keys::public(own).0),
            hostname: "copy".into(),
            os: "linux".into(),
            arch: "x86_64".into(),
            labels: Vec::new(),
            proof: String::new(),
        };
        enroll.prove(own);
        let mut request = RejoinRequest {
            spec_version: 1,
            fleet: self.fleet,
            copy_of: NodeId(keys::public(copied).0),
            certificate: certificate.into(),
            enroll,
            proof: String::new(),
        };
        request.prove(copied);
        request
    }
}

fn given(reply: &EnrollReply) -> Option<NodeId> {
    let der = data_encoding::HEXLOWER.decode(reply.certificates[0].as_bytes());
    node_of_certificate(&der.ok()?.into())
}

#[tokio::test]
async fn copies_become_nodes_of_their_own_and_their_number_is_bounded() {
    let mut town = Town::new().await;
    let key = keys::generate();
    let certificate = town.certified(&key).await;
    // A chain of copies counts for the first of them.
    let (mut copied, mut shown) = (key.clone(), certificate.clone());
    for n in 0..COPIES_MAX {
        let own = keys::generate();
        let request = town.rejoining(&copied, &shown, &own);
        let reply = town.client.rejoin(&request).await.unwrap();
        assert_eq!(given(&reply), Some(request.enroll.node));
        if n == 0 {
            let again = town.client.rejoin(&request).await.unwrap();
            assert!(again.epoch > reply.epoch, "an answer may be lost");
        }
        (copied, shown) = (own, reply.certificates[0].clone());
    }
    assert_eq!(town.client.nodes().await.unwrap().len(), COPIES_MAX + 1);
    town.restart().await;
    for (copied, shown) in [(&copied, &shown), (&key, &certificate)] {
        let one_more = town.rejoining(copied, shown, &keys::generate());
        let (status, line) = refusal(town.client.rejoin(&one_more).await);
        assert_eq!((status, line.contains("seal")), (429, true), "{line}");
    }
    town.close().await;
}

#[tokio::test]
async fn a_copy_of_what_was_taken_back_or_is_not_proven_is_no_node() {
    let mut town = Town::new().await;
    let (key, thief) = (keys::generate(), keys::generate());
    let certificate = town.certified(&key).await;
    let refused = |result| refusal::<EnrollReply>(result).0;

    let mut forged = town.rejoining(&thief, &certificate, &keys::generate());
    assert_eq!(refused(town.client.rejoin(&forged).await), 403, "another's");
    forged.copy_of = NodeId(keys::public(&key).0);
    assert_eq!(refused(town.client.rejoin(&forged).await), 403, "no proof");
    let same = town.rejoining(&key, &certificate, &key);
    assert_eq!(refused(town.client.rejoin(&same).await), 403, "itself");
    let mut other = town.rejoining(&key, &certificate, &keys::generate());
    other.enroll.node = NodeId(keys::public(&thief).0);
    other.prove(&key);
    assert_eq!(
        refused(town.client.rejoin(&other).await),
        403,
        "not its key"
    );
    let mut foreign = town.rejoining(&key, &certificate, &keys::generate());
    foreign.fleet = FleetId([9; 32]);
    foreign.prove(&key);
    assert_eq!(refused(town.client.rejoin(&foreign).await), 400);

    let own = keys::generate();
    let copy = town.rejoining(&key, &certificate, &own);
    let copy = town.client.rejoin(&copy).await.unwrap();
    let id = NodeId(keys::public(&key).0);
    town.client.revoke(id, "stolen").await.unwrap();
    let late = town.rejoining(&key, &certificate, &keys::generate());
    assert_eq!(refused(town.client.rejoin(&late).await), 403, "revoked");
    let later = town.rejoining(&own, &copy.certificates[0], &keys::generate());
    let refused = refused(town.client.rejoin(&later).await);
    assert_eq!(refused, 403, "whoever had the key may have made the copy");
    assert_eq!(town.client.nodes().await.unwrap().len(), 2);
    town.close().await;
}
