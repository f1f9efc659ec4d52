//! A machine that the fleet does not manage reports, gets a verdict, and is no peer of anybody.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use coordinator::api::messages::RolloutState;
use coordinator::directory::Directory;
use ed25519_dalek::SigningKey;
use node::foreign::FOREIGN_KEY_FILE;
use node::net::control::{Control, ControlConfig};
use node::net::identity::issue::{IssuingCa, Validity};
use node::net::identity::{Identity, load_key};
use protocol::versioned::Versioned as _;
use protocol::wire::ControlRequest;
use protocol::{NodeId, Seq, Time};
use serde_json::Value;
use tidegate_tests::member::{admission_of, contact_of, fleet_of};
use tidegate_tests::programs::{failure_line, run};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

const RULES: &str = r#"
[[site]]
id = "site-1"
subnets = ["127.1.0.0/16"]
wan_down = "200mbit"

[[foreign]]
name = "a known system"
require = "os=linux and arch"

[[foreign]]
name = "on the asset list"
require = "label.asset"

[[foreign]]
name = "the app"
product = "app"
"#;

/// What `tidegate token` prints as JSON, as arguments for the machine.
fn token(world: &World, more: &[&str]) -> Vec<String> {
    let made = world.tidegate(&[&["token", "--json", "--site", "site-1"], more].concat());
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let field = |name: &str| made[name].as_str().expect("text").to_owned();
    let names = ["coordinator", "token", "root_digest"];
    let flags = ["--coordinator", "--token", "--root-digest"];
    let pairs = flags.into_iter().zip(names);
    pairs
        .flat_map(|(flag, name)| [flag.to_owned(), field(name)])
        .collect()
}

/// Exit code and verdict of `tidegate-node report`.
fn report(dir: &Path, to: &[String], more: &[&str]) -> (Option<i32>, Value) {
    let mut arguments = vec!["report", "--json", "--dir", text(dir)];
    arguments.extend(to.iter().map(String::as_str));
    arguments.extend(more);
    let output = run("tidegate-node", &arguments);
    let said = String::from_utf8_lossy(&output.stdout);
    let verdict = serde_json::from_str(&said);
    let why = String::from_utf8_lossy(&output.stderr);
    (
        output.status.code(),
        verdict.unwrap_or_else(|_| panic!("{said}{why}")),
    )
}

fn listed(world: &World) -> Vec<Value> {
    let said = world.tidegate(&["nodes", "--foreign", "--json"]);
    serde_json::from_str(&said).expect("JSON")
}

/// Knocks at a node's control door with the machine's key; what it was told.
fn knock(world: &World, key: &SigningKey) -> Result<Vec<u8>, String> {
    let validity = Validity {
        not_before: Time::from_secs(1_577_836_800),
        not_after: Time::from_secs(4_102_444_800),
    };
    let own = SigningKey::from_bytes(&[32; 32]);
    let ca = IssuingCa::create("elsewhere", &own, validity).expect("a CA");
    let machine = NodeId(key.verifying_key().to_bytes());
    let chain = vec![ca.node(machine, 1, validity).expect("issued")];
    let (dir, roots) = (
        &world.nodes[0].dir,
        Directory::new(world.home()).root_file(),
    );
    let admission = admission_of(&roots, fleet_of(dir)).expect("the fleet's root");
    let identity = Arc::new(Identity::new(key.clone(), chain, Arc::new(admission)));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let at = SocketAddr::from(([127, 1, 0, 66], 0));
        let (control, _events) = Control::start(ControlConfig::at(at), identity)
            .await
            .expect("a port");
        let after = Seq::default();
        let ask = ControlRequest::PullOrders { after }.to_bytes();
        let said = control.request(contact_of(dir), ask).await;
        said.map(|said| said.to_vec()).map_err(|e| format!("{e:?}"))
    })
}

#[test]
fn a_foreign_machine_gets_a_verdict_and_nothing_else() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 1,
        wan: "200mbit",
    });
    let rules = world.path("rules.toml");
    std::fs::write(&rules, RULES).expect("written");
    world.tidegate(&["sites", "--set", text(&rules), "--key", &world.key("op1")]);
    let dir = world.path("visitor");
    let to = token(&world, &["--foreign", "--count", "2"]);

    // Before the app is through its rollout nobody is asked for it.
    let (code, first) = report(&dir, &to, &[]);
    let findings = |verdict: &Value| -> Vec<String> {
        let rules = verdict["verdict"]["rules"].as_array().expect("rules");
        let words = rules.iter().map(|r| r["finding"].as_str().expect("a word"));
        words.map(str::to_owned).collect()
    };
    assert_eq!(code, Some(3), "{first}");
    assert_eq!(findings(&first), ["met", "unmet", "not_applicable"]);

    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 18);
    world.publish(&tree, "2.0", &[]);
    let id = world.roll_out("2.0", &["rest"]);
    world.wait_for("the rollout is through", |w| {
        let view = w.rollout(&id);
        view.is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == 1)
    });
    let tagged = ["--label", "asset=4711"];
    let (code, old) = report(
        &dir,
        &to,
        &[&tagged[..], &["--software", "app=1.9"]].concat(),
    );
    assert_eq!(code, Some(3), "{old}");
    assert_eq!(findings(&old), ["met", "met", "unmet"]);
    let why = old["verdict"]["rules"][2]["why"].as_str().expect("why");
    assert_eq!(why, "app 2.0 or later is needed, it has 1.9");
    let (code, good) = report(
        &dir,
        &to,
        &[&tagged[..], &["--software", "app=2.0"]].concat(),
    );
    assert_eq!(
        (code, &good["compliant"]),
        (Some(0), &true.into()),
        "{good}"
    );
    assert_eq!(good["verdict"]["machine"], first["verdict"]["machine"]);

    let check_listing = |world: &World, times: u64| {
        let all = listed(world);
        let [one] = &all[..] else { panic!("{all:?}") };
        assert_eq!(one["machine"], first["verdict"]["machine"]);
        assert_eq!(
            (&one["times"], &one["compliant"]),
            (&times.into(), &true.into())
        );
        assert_eq!(one["site"], "site-1", "that its token was made for");
        assert!(one["first_seen"].as_u64() < one["last_seen"].as_u64());
        let nodes = world.node_views();
        assert_eq!(nodes.len(), 1);
        assert_eq!(nodes[0].node, world.nodes[0].id);
        assert_eq!(world.rollout(&id).expect("there").targets, 1);
    };
    check_listing(&world, 3);
    let shown = world.tidegate(&["nodes", "--foreign"]);
    assert!(
        shown.contains("compliant") && !shown.contains("the app"),
        "{shown}"
    );

    // Each token opens its own door.
    let enrolling = world.path("enrolling");
    let refused = |verb: &str, dir: &Path, to: &[String]| {
        let mut arguments = vec![verb, "--dir", text(dir)];
        arguments.extend(to.iter().map(String::as_str));
        failure_line("tidegate-node", &arguments)
    };
    let line = refused("enroll", &enrolling, &to);
    assert!(line.contains("is for foreign machines"), "{line}");
    let for_nodes = token(&world, &[]);
    let line = refused("report", &world.path("other"), &for_nodes);
    assert!(line.contains("become nodes"), "{line}");
    let line = refused("report", &world.nodes[0].dir, &to);
    assert!(line.contains("enrolled"), "{line}");

    // Its key opens no node's door; it is seen there like anybody.
    let key = load_key(&dir.join(FOREIGN_KEY_FILE)).expect("its key");
    let got = knock(&world, &key);
    assert!(got.is_err(), "it was answered: {got:?}");
    let machine = first["verdict"]["machine"].as_str().expect("a key");
    world.wait_for("the node tells of it", |w| {
        let said = w.tidegate(&["nodes", "--unmanaged", "--json"]);
        said.contains(machine)
    });

    world.kill_coordinator();
    world.start_coordinator();
    check_listing(&world, 3);
    let (code, _) = report(
        &dir,
        &to,
        &[&tagged[..], &["--software", "app=2.1"]].concat(),
    );
    assert_eq!(code, Some(0));
    check_listing(&world, 4);
}
