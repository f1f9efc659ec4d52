//! Rows about delegations: a team signs its own products and nothing else.

use node::driver::Question;
use node_core::contract::Event;
use protocol::PublicKey;
use protocol::delegations::Delegation;
use protocol::envelope::Envelope;
use protocol::fixtures::{Fleet, key, node};
use protocol::manifest::ReleaseManifest;
use protocol::plan::RolloutPlan;
use protocol::trust::{Role, Statement as _, Trust};
use protocol::wire::ControlReply;
use tidegate_tests::programs::{failure_line, success};
use tidegate_tests::rotation::rotate;
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

use crate::mutations::{CASES, Mutations};
use crate::statements::intake;

fn delegation(name: &str, under: Option<&str>, products: &[&str]) -> Delegation {
    let public = |n| PublicKey(key(name, n).verifying_key().to_bytes());
    Delegation {
        name: name.into(),
        under: under.map(Into::into),
        products: products.iter().map(ToString::to_string).collect(),
        keys: vec![public(0), public(1)],
        threshold: 2,
    }
}

/// The next root of a fleet, with these delegations.
fn root_with(fleet: &Fleet, trust: &Trust, delegations: Vec<Delegation>) -> Envelope {
    let mut root = (**trust.root()).clone();
    (root.version, root.fleet) = (root.version + 1, Some(fleet.id()));
    root.delegations = delegations;
    let mut envelope = root.to_envelope();
    let keys = fleet.keys(Role::Root);
    keys.iter().for_each(|key| envelope.sign(key));
    envelope
}

fn signed_by(fleet: &Fleet, team: &str, product: &str) -> Envelope {
    let mut envelope = fleet.release(product, "1.0", 1).to_envelope();
    (0..2).for_each(|n| envelope.sign(&key(team, n)));
    envelope
}

#[test]
fn attack_26_a_delegated_role_outside_its_scope() {
    let fleet = Fleet::new(1);
    let mut trust = fleet.trust().clone();
    let all = vec![
        delegation("tools", None, &["tool-*", "agent"]),
        delegation("small", Some("tools"), &["tool-a", "app"]),
    ];
    let root = root_with(&fleet, &trust, all);
    trust.update(root.clone()).expect("it follows");
    let mut intake = intake(&trust);
    let mut mutations = Mutations::new(26);
    let mut said = |envelope: &Envelope| {
        let verified = trust.verify::<ReleaseManifest>(envelope);
        // The door of a running node says the same.
        let question = Question::Document(envelope.digest());
        let before = intake.events.len();
        intake.answer(
            node(1),
            question,
            ControlReply::Document(Some(envelope.to_json())),
        );
        let release = |event: &Event| matches!(event, Event::Release(_));
        assert_eq!(
            intake.events[before..].iter().any(release),
            verified.is_ok(),
            "door and trust agree"
        );
        verified
            .map(|_| "")
            .map_err(|e| e.event())
            .unwrap_or_else(|e| e)
    };
    for (team, product, expected) in [
        ("tools", "tool-b", ""),
        ("tools", "agent", ""),
        ("small", "tool-a", ""),
        ("tools", "app", "delegation"),
        ("tools", "tool", "delegation"),
        // Its own list says so, but what it stands below does not.
        ("small", "app", "delegation"),
        ("small", "tool-b", "delegation"),
        ("nobody", "tool-a", "signature"),
    ] {
        assert_eq!(
            said(&signed_by(&fleet, team, product)),
            expected,
            "{team} {product}"
        );
    }
    // One key of the delegation's two; keys of two delegations together.
    for (first, second) in [("tools", "nobody"), ("tools", "small")] {
        let mut envelope = fleet.release("tool-a", "1.0", 1).to_envelope();
        envelope.sign(&key(first, 0));
        envelope.sign(&key(second, 1));
        assert_eq!(said(&envelope), "signature", "{first} {second}");
    }
    // A team signs no plan.
    let release = fleet.verified(&fleet.release("tool-a", "1.0", 1));
    let mut plan = fleet.plan("r1", &release, vec![node(1)]).to_envelope();
    (0..2).for_each(|n| plan.sign(&key("tools", n)));
    assert_eq!(
        trust
            .verify::<RolloutPlan>(&plan)
            .expect_err("refused")
            .event(),
        "signature"
    );
    // Whatever product it writes into a release, it is one of its own or not believed.
    let letters = b"tola-gen*bp.\0";
    for case in 0..2 * CASES {
        let length = 1 + mutations.below(8);
        let name: String = (0..length)
            .map(|_| char::from(letters[mutations.below(letters.len())]))
            .collect();
        let name = ["tool-", "tool", "agent", ""][mutations.below(4)].to_owned() + &name;
        let Ok(product) = name.parse() else {
            continue;
        };
        let mut release = fleet.release("app", "1.0", 1);
        release.product = product;
        let mut envelope = release.to_envelope();
        (0..2).for_each(|n| envelope.sign(&key("tools", n)));
        let its_own = name.starts_with("tool-") || name == "agent";
        assert_eq!(said(&envelope).is_empty(), its_own, "case {case}: {name:?}");
    }
    for case in 0..CASES {
        let mut envelope = signed_by(&fleet, "tools", "tool-b");
        envelope.payload = mutations.of(&envelope.payload);
        assert_ne!(said(&envelope), "", "case {case}");
    }
}

#[test]
fn attack_26_a_cycle_of_delegations() {
    let fleet = Fleet::new(1);
    let mut trust = fleet.trust().clone();
    let mut mutations = Mutations::new(126);
    let mut circles = 0;
    for case in 0..CASES {
        // Each stands below another one, or below nothing.
        let count = 2 + mutations.below(6);
        let under: Vec<Option<usize>> = (0..count)
            .map(|_| Some(mutations.below(count + 1)).filter(|n| *n < count))
            .collect();
        let name = |n: usize| format!("team-{n}");
        let all = (0..count).map(|n| {
            let under = under[n].map(name);
            delegation(&name(n), under.as_deref(), &["app"])
        });
        let envelope = root_with(&fleet, &trust, all.collect());
        // Slow and obvious: whoever climbs further than there are steps goes in a circle.
        let circle = (0..count).any(|n| {
            let mut at = Some(n);
            (0..=count).for_each(|_| at = at.and_then(|n| under[n]));
            at.is_some()
        });
        let taken = trust.clone().update(envelope);
        match circle {
            true => {
                circles += 1;
                assert_eq!(
                    taken.expect_err("a circle").event(),
                    "delegation",
                    "case {case}"
                );
            }
            false => taken.expect("a tree"),
        }
    }
    assert!((100..CASES - 100).contains(&circles), "{circles} circles");
    let circle = vec![
        delegation("a", Some("b"), &["app"]),
        delegation("b", Some("a"), &["app"]),
    ];
    let before = trust.root().version;
    trust
        .update(root_with(&fleet, &trust, circle))
        .expect_err("a circle");
    assert_eq!(trust.root().version, before, "the trusted one stays");
}

/// By the commands that people type: the root gives a team one product. A release of it goes to the node
/// under the team's signature alone; one of another product is refused.
#[test]
fn attack_26_delegations_by_processes() {
    let world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 1,
        wan: "200mbit",
    });
    let team = world.home().join("keys/op3.pub");
    let give = format!("team={}", text(&team));
    let changes = ["--delegate", "team=app,team-*", "--delegate-key", &give];
    rotate(&world, "root-2", &changes);
    let (home, root, key) = (
        world.home(),
        world.home().join("root.json"),
        world.key("op3"),
    );
    let shown = success("tidegate", &["root", "show", "--root", text(&root)]);
    assert!(shown.contains("team signs app,team-*: 1 of "), "{shown}");
    let tree = world.path("tree");
    trees::make(&tree, 26, 1 << 18);
    for product in ["app", "other"] {
        let out = world.path(product);
        let build = ["release", "build", text(&tree), "--product", product];
        let build = [&build[..], &["--version", "1.0", "--out", text(&out)]].concat();
        success("tidegate", &build);
        let sign = [
            "release",
            "sign",
            text(&out),
            "--key",
            &key,
            "--root",
            text(&root),
        ];
        success("tidegate", &sign);
        let publish = ["release", "publish", text(&out), "--dir", text(&home)];
        match product {
            "app" => drop(success("tidegate", &publish)),
            _ => {
                let line = failure_line("tidegate", &publish);
                assert!(line.contains("may not sign product other"), "{line}");
            }
        }
    }
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("the node has it", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    trees::assert_same(&tree, &world.current(0).join("."));
    // A root whose delegations go in a circle is not even written.
    let request = world.path("circle.json");
    let circle = [
        "root",
        "rotate",
        "--root",
        text(&root),
        "--out",
        text(&request),
    ];
    let circle = [&circle[..], &["--under", "team=team"]].concat();
    let line = failure_line("tidegate", &circle);
    assert!(line.contains("below itself") && !request.exists(), "{line}");
}
