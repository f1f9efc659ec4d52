//! Many nodes are revoked: more than a few a day take the operators, and nodes see to it as well.

use std::path::PathBuf;

use coordinator::api::Client;
use coordinator::api::messages::NewToken;
use protocol::enroll::EnrollRequest;
use protocol::limits::REVOCATIONS_PER_DAY_MAX;
use protocol::{NodeId, Span};
use tidegate_tests::programs::{failure_line, success};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

/// Enrols machines that are never started.
fn crowd(world: &World, many: usize) -> Vec<NodeId> {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = Client::from_dir(&world.home()).expect("the directory");
    runtime.block_on(async {
        let wish = NewToken {
            foreign: false,
            terms: Default::default(),
            site: None,
            uses: many as u32,
            life: Span::from_secs(3600),
        };
        let token = client.new_token(&wish).await.expect("a token").token;
        let mut crowd = Vec::new();
        for n in 0..many {
            let key = ed25519_dalek::SigningKey::from_bytes(&[n as u8 + 1; 32]);
            let mut request = EnrollRequest {
                spec_version: 1,
                token_id: token.id.clone(),
                token_secret: token.secret.clone(),
                node: NodeId(key.verifying_key().to_bytes()),
                hostname: format!("laptop-{n}"),
                os: "linux".into(),
                arch: "x86_64".into(),
                labels: Vec::new(),
                proof: String::new(),
            };
            request.prove(&key);
            client.enroll(&request).await.expect("enrolled");
            crowd.push(request.node);
        }
        crowd
    })
}

fn sign(world: &World, request: &std::path::Path, by: &str) -> PathBuf {
    let root = world.home().join("root.json");
    let (key, out) = (world.key(by), world.path(&format!("{by}.sig")));
    let sign = ["nodes", "sign-revocation", text(request), "--key", &key];
    let shown = success(
        "tidegate",
        &[&sign[..], &["--root", text(&root), "--out", text(&out)]].concat(),
    );
    assert!(shown.contains("nodes are revoked"), "{shown}");
    out
}

/// The list that a node has, by its digest.
fn list_of(world: &World, node: usize) -> Option<String> {
    let report = world.node_report(node)?;
    Some(report["revocations"].as_str()?.to_owned())
}

#[test]
fn many_nodes_are_revoked_by_the_operators_alone() {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 3,
        wan: "200mbit",
    });
    let crowd = crowd(&world, REVOCATIONS_PER_DAY_MAX * 2 + 10);
    world.wait_for("all have the list on which nobody is", |w| {
        (0..3).all(|n| list_of(w, n).is_some())
    });
    let (today, rest) = crowd.split_at(REVOCATIONS_PER_DAY_MAX);
    let client = Client::from_dir(&world.home()).expect("the directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        for node in today {
            client.revoke(*node, "lost").await.expect("one of a few");
        }
    });
    let home = world.home();
    let victim = world.nodes[2].id;
    let alone = [
        "nodes",
        "--revoke",
        &victim.to_string(),
        "--dir",
        text(&home),
    ];
    let said = failure_line("tidegate", &alone);
    assert!(said.contains("revoke-many"), "{said}");

    // The rest of them, and a machine that runs.
    let (file, request) = (world.path("stolen.txt"), world.path("stolen.json"));
    let all = rest.iter().chain([&victim]);
    let lines: Vec<String> = all.map(NodeId::to_string).collect();
    std::fs::write(&file, lines.join("\n")).expect("written");
    let write = [
        "nodes",
        "revoke-many",
        "--from",
        text(&file),
        "--out",
        text(&request),
    ];
    world.tidegate(&[&write[..], &["--reason", "stolen in transit"]].concat());
    let (first, second) = (sign(&world, &request, "op1"), sign(&world, &request, "op2"));
    let publish = ["nodes", "publish-revocation", text(&request), text(&first)];
    let one = [&publish[..], &["--dir", text(&home)]].concat();
    let said = failure_line("tidegate", &one);
    assert!(said.contains("threshold"), "{said}");
    let before = list_of(&world, 0);
    let said = world.tidegate(&[&publish[..], &[text(&second)]].concat());
    assert!(said.contains("75 nodes are revoked"), "{said}");

    let tree = world.path("tree");
    trees::make(&tree, 3, 1 << 18);
    world.publish(&tree, "1.0", &[]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for(
        "the nodes that are left have the new list and the release",
        |w| {
            (0..2).all(|n| {
                list_of(w, n).is_some_and(|list| Some(&list) != before.as_ref())
                    && w.installed_version(n).as_deref() == Some("1.0")
            })
        },
    );
    world.wait_for("two are left, and the release is on both", |w| {
        w.rollout(&id)
            .is_some_and(|v| (v.counts.applied, v.targets) == (2, 2))
    });
    assert_eq!(world.installed_version(2), None);
    world.tidegate(&["audit", "verify"]);
}
