use coordinator_core::contract::RolloutState;
use protocol::BlobRef;
use protocol::manifest::{Artifact, Carrier, CarrierKind, Install, ReleaseManifest, Severity};
use protocol::plan::{Recall, RolloutPlan};
use protocol::{PublicKey, RolloutId};

use super::*;
use crate::api::messages::{BlobPresence, Progress};

fn manifest(town: &Town, version: &str, counter: u64) -> (ReleaseManifest, [Vec<u8>; 3]) {
    let blobs = ["index", "pack", "carrier"]
        .map(|what| format!("{what} of {version} ").repeat(5000).into_bytes());
    let [index, pack, carrier] = [0, 1, 2].map(|i| BlobRef::of(&blobs[i]));
    let artifact = Artifact {
        os: "any".into(),
        arch: "any".into(),
        index,
        pack,
        carriers: vec![Carrier {
            kind: CarrierKind::Full,
            blob: carrier,
        }],
        group_log2: protocol::limits::GROUP_LOG2,
        disk_bytes: 1 << 20,
    };
    let manifest = ReleaseManifest {
        spec_version: 1,
        fleet: town.fleet,
        product: "app".parse().unwrap(),
        version: version.parse().unwrap(),
        release_counter: counter,
        vendor_severity: Severity::Moderate,
        applicability: None,
        artifacts: vec![artifact],
        install: Install::Tree,
        health_check: None,
        hooks: Default::default(),
        restart: Default::default(),
        relations: Default::default(),
        created: now(),
        expires: now() + Span::from_secs(86_400),
    };
    (manifest, blobs)
}

async fn upload(town: &Town, bytes: &[u8]) -> BlobRef {
    let file = town.temp.path().join("blob");
    std::fs::write(&file, bytes).unwrap();
    let blob = BlobRef::of(bytes);
    town.client.upload(blob, &file, |_| {}).await.unwrap();
    blob
}

/// The real origin, in this process.
fn run_origin(town: &Town) -> tokio::sync::oneshot::Sender<()> {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let dir = town.dir().origin_dir();
    tokio::spawn(async move {
        let end = async { drop(stopped.await) };
        node::run::run_until(&dir, node::run::RunOptions::default(), end)
            .await
            .unwrap();
    });
    stop
}

/// Enrols a node, and publishes a release as an origin would let it: every upload is taken in.
pub(super) async fn published(town: &Town, version: &str, counter: u64) -> Hash {
    let token = town.token(1, Span::from_secs(60)).await;
    town.client
        .enroll(&request(&token, &keys::generate()))
        .await
        .unwrap();
    let (manifest, blobs) = manifest(town, version, counter);
    for bytes in &blobs {
        let blob = upload(town, bytes).await;
        std::fs::remove_file(
            town.dir()
                .incoming_dir()
                .join(format!("{}.{}", blob.root, blob.length)),
        )
        .unwrap();
        assert_eq!(town.client.blob(blob).await.unwrap(), BlobPresence::Held);
    }
    town.client
        .publish(&town.signed(&manifest, &["releases"]))
        .await
        .unwrap()
        .digest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_published_once_the_origin_holds_every_blob() {
    let mut town = Town::new().await;
    let (manifest, blobs) = manifest(&town, "1.0", 1);
    let envelope = town.signed(&manifest, &["releases"]);
    let (status, line) = refusal(town.client.publish(&envelope).await);
    assert_eq!(
        (status, line.contains("was not uploaded")),
        (409, true),
        "{line}"
    );
    for bytes in &blobs {
        assert_eq!(
            town.client.blob(BlobRef::of(bytes)).await.unwrap(),
            BlobPresence::Absent
        );
        let blob = upload(&town, bytes).await;
        assert_eq!(
            town.client.blob(blob).await.unwrap(),
            BlobPresence::Incoming
        );
    }
    let stop = run_origin(&town);
    let view = town.client.publish(&envelope).await.unwrap();
    assert_eq!(
        (view.digest, view.envelope.clone()),
        (envelope.digest(), envelope.clone())
    );
    assert_eq!(view.carrier_bytes, blobs[2].len() as u64);
    assert_eq!(
        town.client.blob(BlobRef::of(&blobs[2])).await.unwrap(),
        BlobPresence::Held
    );

    // Bytes that are not what their name says.
    let (second, blobs) = self::manifest(&town, "2.0", 2);
    for bytes in &blobs[..2] {
        upload(&town, bytes).await;
    }
    let mut wrong = blobs[2].clone();
    wrong[100] ^= 1;
    let file = town.temp.path().join("wrong");
    std::fs::write(&file, &wrong).unwrap();
    let blob = BlobRef::of(&blobs[2]);
    town.client.upload(blob, &file, |_| {}).await.unwrap();
    let envelope = town.signed(&second, &["releases"]);
    let (status, line) = refusal(town.client.publish(&envelope).await);
    assert_eq!(
        (status, line.contains(&blob.root.to_string())),
        (409, true),
        "{line}"
    );
    upload(&town, &blobs[2]).await;
    town.client.publish(&envelope).await.unwrap();

    // Without a carrier nodes ask for the pack itself.
    let (mut third, blobs) = self::manifest(&town, "3.0", 3);
    third.artifacts[0].carriers.clear();
    let envelope = town.signed(&third, &["releases"]);
    upload(&town, &blobs[0]).await;
    let (status, line) = refusal(town.client.publish(&envelope).await);
    let pack = BlobRef::of(&blobs[1]);
    assert_eq!(status, 409, "{line}");
    assert!(line.contains(&pack.root.to_string()), "{line}");
    upload(&town, &blobs[1]).await;
    let bare = town.client.publish(&envelope).await.unwrap();
    assert_eq!(bare.carrier_bytes, pack.length);

    let unsigned = town.signed(&second, &["alice"]);
    let (status, line) = refusal(town.client.publish(&unsigned).await);
    assert_eq!((status, line.contains("signature")), (403, true), "{line}");
    town.restart().await;
    assert_eq!(town.client.releases().await.unwrap().len(), 3);
    assert_eq!(town.client.release(view.digest).await.unwrap(), view);
    drop(stop);
    town.close().await;
}

#[tokio::test]
async fn an_upload_must_be_as_long_as_its_name_says() {
    let mut town = Town::new().await;
    let file = town.temp.path().join("short");
    std::fs::write(&file, b"four").unwrap();
    let blob = BlobRef {
        root: Hash::of(b"four"),
        length: 5,
    };
    assert!(matches!(
        town.client.upload(blob, &file, |_| {}).await,
        Err(ApiError::File { .. })
    ));
    assert_eq!(town.client.blob(blob).await.unwrap(), BlobPresence::Absent);
    // A client that lies about the length.
    let liar = BlobRef {
        root: Hash::of(b"four"),
        length: 3,
    };
    let settings = town.dir().settings().unwrap();
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(node::enroll::pin::client_config(settings.server_pin).0)
        .build()
        .unwrap();
    let put = http
        .put(format!(
            "https://{}/v1/blobs/{}/{}",
            settings.api, liar.root, liar.length
        ))
        .bearer_auth(town.dir().api_token().unwrap())
        .body("four");
    assert_eq!(put.send().await.unwrap().status(), 400);
    assert_eq!(town.client.blob(liar).await.unwrap(), BlobPresence::Absent);
    assert_eq!(
        std::fs::read_dir(town.dir().uploads_dir()).unwrap().count(),
        0,
        "nothing half-sent stays"
    );
    for path in [
        "/v1/blobs/zz/1",
        "/v1/blobs/x",
        "/v1/nothing",
        "/v1/rollouts/UPPER",
    ] {
        let get = http
            .get(format!("https://{}{path}", settings.api))
            .bearer_auth(town.dir().api_token().unwrap());
        let answer = get.send().await.unwrap();
        assert!(answer.status().is_client_error(), "{path}");
        let problem: crate::api::messages::Problem = answer.json().await.unwrap();
        assert!(!problem.error.is_empty());
    }
    town.close().await;
}

pub(super) async fn approve(
    town: &Town,
    rollout: &RolloutId,
    by: &[&str],
) -> Result<Progress, ApiError> {
    let mut plan = town.client.rollout(rollout).await.unwrap().plan;
    by.iter().for_each(|name| plan.sign(&town.key(name)));
    town.client.approve(rollout, &plan).await
}

#[tokio::test]
async fn a_plan_needs_its_threshold_of_operators_other_than_the_proposer() {
    let mut town = Town::new().await;
    let release = published(&town, "1.0", 1).await;
    let rollout: RolloutId = "r1".parse().unwrap();

    let proposal = town.proposal("r1", release, "alice");
    let (status, _) = refusal(town.client.propose(&town.signed(&proposal, &["bob"])).await);
    assert_eq!(status, 403, "signed by another than the proposer");
    let outsider = Proposal {
        proposer: keys::public(&town.key("releases")),
        ..proposal.clone()
    };
    let (status, _) = refusal(
        town.client
            .propose(&town.signed(&outsider, &["releases"]))
            .await,
    );
    assert_eq!(status, 403, "not an operator");
    let unknown = town.proposal("r1", Hash([5; 32]), "alice");
    let (status, _) = refusal(
        town.client
            .propose(&town.signed(&unknown, &["alice"]))
            .await,
    );
    assert_eq!(status, 404);
    let detail = town
        .client
        .propose(&town.signed(&proposal, &["alice"]))
        .await
        .unwrap();
    assert_eq!(
        (detail.view.state, detail.view.approvals),
        (RolloutState::WaitingForApproval, (0, 2))
    );
    assert_eq!(detail.view.plan, detail.plan.digest());
    let (status, _) = refusal(
        town.client
            .propose(&town.signed(&proposal, &["alice"]))
            .await,
    );
    assert_eq!(status, 409, "the id is taken");

    let (status, line) = refusal(approve(&town, &rollout, &["alice"]).await);
    assert_eq!(
        (status, line.contains("the proposer never counts")),
        (403, true),
        "{line}"
    );
    let (status, _) = refusal(approve(&town, &rollout, &["releases"]).await);
    assert_eq!(status, 403, "a key of another role");
    let (status, _) = refusal(approve(&town, &rollout, &[]).await);
    assert_eq!(status, 403, "no signature at all");
    let (status, _) = refusal(town.client.start(&rollout).await);
    assert_eq!(status, 409, "not approved yet");

    assert_eq!(
        approve(&town, &rollout, &["bob"]).await.unwrap(),
        Progress { have: 1, need: 2 }
    );
    assert_eq!(
        approve(&town, &rollout, &["bob"]).await.unwrap(),
        Progress { have: 1, need: 2 },
        "the same key counts once"
    );
    town.restart().await;
    let detail = town.client.rollout(&rollout).await.unwrap();
    assert_eq!(detail.view.approvals, (1, 2));
    assert_eq!(
        detail.plan.valid_signers(),
        [keys::public(&town.key("bob"))]
    );

    // A plan that was changed after it was proposed.
    let mut other: RolloutPlan = serde_json::from_slice(&detail.plan.payload).unwrap();
    other.priority = Priority::Emergency;
    let (status, line) = refusal(
        town.client
            .approve(&rollout, &town.signed(&other, &["carol"]))
            .await,
    );
    assert_eq!(
        (status, line.contains("is not that of rollout")),
        (409, true),
        "{line}"
    );

    assert_eq!(
        approve(&town, &rollout, &["carol"]).await.unwrap(),
        Progress { have: 2, need: 2 }
    );
    let detail = town.client.rollout(&rollout).await.unwrap();
    assert_eq!(detail.view.state, RolloutState::Ready);
    let signers: Vec<PublicKey> = detail.plan.valid_signers();
    assert_eq!(signers.len(), 2);
    town.client.start(&rollout).await.unwrap();
    town.restart().await;
    let state = town.client.rollout(&rollout).await.unwrap().view.state;
    assert!(
        matches!(state, RolloutState::Running | RolloutState::Finished),
        "{state:?}"
    );
    town.close().await;
}

#[tokio::test]
async fn two_approvals_in_one_envelope_count_as_two() {
    let mut town = Town::new().await;
    let release = published(&town, "1.0", 1).await;
    let rollout: RolloutId = "r1".parse().unwrap();
    town.client
        .propose(&town.signed(&town.proposal("r1", release, "carol"), &["carol"]))
        .await
        .unwrap();
    let progress = approve(&town, &rollout, &["alice", "bob", "carol", "releases"])
        .await
        .unwrap();
    assert_eq!(progress, Progress { have: 2, need: 2 });
    let plan = town.client.rollout(&rollout).await.unwrap().plan;
    assert_eq!(
        plan.signatures.len(),
        2,
        "signatures that do not count are not kept"
    );
    town.close().await;
}

#[tokio::test]
async fn a_recall_collects_its_threshold_and_survives_a_restart_meanwhile() {
    let mut town = Town::new().await;
    let release = published(&town, "1.0", 1).await;
    let rollout: RolloutId = "r1".parse().unwrap();
    let detail = town
        .client
        .propose(&town.signed(&town.proposal("r1", release, "alice"), &["alice"]))
        .await
        .unwrap();
    approve(&town, &rollout, &["bob", "carol"]).await.unwrap();
    town.client.start(&rollout).await.unwrap();

    let recall = Recall {
        spec_version: 1,
        fleet: town.fleet,
        rollout: rollout.clone(),
        plan: detail.plan.digest(),
        proposer: keys::public(&town.key("alice")),
        reason: "it harms".into(),
        created: now(),
    };
    assert_eq!(town.client.pending_recall(&rollout).await.unwrap(), None);
    let (status, _) = refusal(
        town.client
            .recall(&rollout, &town.signed(&recall, &["releases"]))
            .await,
    );
    assert_eq!(status, 403);
    let wrong = Recall {
        plan: Hash([1; 32]),
        ..recall.clone()
    };
    assert_eq!(
        refusal(
            town.client
                .recall(&rollout, &town.signed(&wrong, &["alice"]))
                .await
        )
        .0,
        409
    );
    let elsewhere = Recall {
        rollout: "r2".parse().unwrap(),
        ..recall.clone()
    };
    assert_eq!(
        refusal(
            town.client
                .recall(&rollout, &town.signed(&elsewhere, &["alice"]))
                .await
        )
        .0,
        400
    );

    assert_eq!(
        town.client
            .recall(&rollout, &town.signed(&recall, &["alice"]))
            .await
            .unwrap(),
        Progress { have: 0, need: 2 }
    );
    let in_carols_name = Recall {
        proposer: keys::public(&town.key("carol")),
        ..recall.clone()
    };
    let two = town.signed(&in_carols_name, &["alice", "bob"]);
    let (status, line) = refusal(town.client.recall(&rollout, &two).await);
    assert_eq!(
        (status, line.contains("did not sign")),
        (403, true),
        "{line}"
    );
    town.restart().await;
    for (by, have) in [("bob", 1), ("bob", 1), ("carol", 2)] {
        let mut pending = town
            .client
            .pending_recall(&rollout)
            .await
            .unwrap()
            .expect("it waits");
        pending.sign(&town.key(by));
        assert_eq!(
            town.client.recall(&rollout, &pending).await.unwrap(),
            Progress { have, need: 2 }
        );
    }
    assert_eq!(town.client.pending_recall(&rollout).await.unwrap(), None);
    let state = town.client.rollout(&rollout).await.unwrap().view.state;
    assert!(
        matches!(state, RolloutState::Recalling | RolloutState::Recalled),
        "{state:?}"
    );
    town.close().await;
}

#[tokio::test]
async fn what_happens_can_be_waited_for_and_pause_and_halt_do_what_they_say() {
    let mut town = Town::new().await;
    let release = published(&town, "1.0", 1).await;
    let rollout: RolloutId = "r1".parse().unwrap();
    town.client
        .propose(&town.signed(&town.proposal("r1", release, "alice"), &["alice"]))
        .await
        .unwrap();
    approve(&town, &rollout, &["bob", "carol"]).await.unwrap();
    let before = town.client.events(0, Duration::ZERO).await.unwrap().next;
    let waiting = tokio::spawn({
        let client = town.client.clone();
        async move {
            client
                .events(before, Duration::from_secs(30))
                .await
                .unwrap()
        }
    });
    town.client.start(&rollout).await.unwrap();
    let events = waiting.await.unwrap();
    assert!(!events.events.is_empty() && events.next > before);

    let state = async || town.client.rollout(&rollout).await.unwrap().view.state;
    town.client.pause(&rollout, "lunch").await.unwrap();
    assert_eq!(state().await, RolloutState::Paused);
    town.client.resume(&rollout).await.unwrap();
    assert_eq!(state().await, RolloutState::Running);
    assert_eq!(
        refusal(town.client.halt(&rollout, &"x".repeat(5000)).await).0,
        400
    );
    town.client.halt(&rollout, "enough").await.unwrap();
    assert_eq!(state().await, RolloutState::Aborted);
    assert_eq!(town.client.rollouts().await.unwrap().len(), 1);
    let counts = town.client.rollouts().await.unwrap()[0].counts;
    assert_eq!(counts.total(), 1);
    assert_eq!(
        town.client
            .sites()
            .await
            .unwrap()
            .iter()
            .map(|s| s.nodes)
            .sum::<u32>(),
        1
    );
    town.close().await;
}
