//! Rows about the chain of roots: it is walked step by step, and nobody skips a step.

use node::driver::Question;
use node_core::contract::Event;
use protocol::Time;
use protocol::envelope::Envelope;
use protocol::fixtures::{Fleet, node};
use protocol::trust::{Role, Root, Trust};
use protocol::wire::ControlReply;
use tidegate_tests::programs::{failure_line, success};
use tidegate_tests::rotation::{rotate, sign_next};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

use crate::mutations::{CASES, Mutations};
use crate::statements::intake;

const STEPS: u64 = 40;

/// A chain in which every root names new root keys and all but the last have expired.
fn chain() -> (Trust, Vec<Envelope>) {
    let mut fleet = Fleet::new(1);
    let first = fleet.trust().clone();
    let mut steps = Vec::new();
    for step in 1..=STEPS {
        let before = fleet.clone();
        fleet.rotate(&[Role::Root, Role::Coordinator]);
        let mut root = (**fleet.trust().root()).clone();
        if step < STEPS {
            root.expires = Time::from_secs(1);
        }
        let mut envelope = root.to_envelope();
        for key in before
            .keys(Role::Root)
            .iter()
            .chain(&fleet.keys(Role::Root))
        {
            envelope.sign(key);
        }
        steps.push(envelope);
    }
    (first, steps)
}

#[test]
fn attack_16_root_chain_with_expired_intermediates() {
    let (first, steps) = chain();
    let mut intake = intake(&first);
    let mut mutations = Mutations::new(16);
    for (version, envelope) in (2..).zip(&steps) {
        // Every step wants both thresholds, whatever came before.
        for _ in 0..CASES / STEPS as usize {
            let mut one = envelope.clone();
            one.signatures.remove(mutations.below(2));
            let damaged = mutations.of(&envelope.to_json());
            for bytes in [one.to_json(), damaged] {
                let reply = ControlReply::Document(Some(bytes));
                intake.answer(node(1), Question::Root(version), reply);
            }
        }
        let seen = intake.root().version;
        if seen < version {
            let reply = ControlReply::Document(Some(envelope.to_json()));
            intake.answer(node(1), Question::Root(version), reply);
        }
        assert_eq!(intake.root().version, version);
        assert_eq!(intake.root().digest(), envelope.digest());
    }
    let roots = |e: &&Event| matches!(e, Event::Root(_));
    assert_eq!(intake.events.iter().filter(roots).count(), STEPS as usize);
}

#[test]
fn attack_17_root_version_skipped() {
    let (first, steps) = chain();
    let mut mutations = Mutations::new(17);
    for case in 0..CASES {
        let mut trust = first.clone();
        let at = mutations.below(STEPS as usize - 1);
        steps[..at].iter().for_each(|step| {
            trust.update(step.clone()).expect("it follows");
        });
        let next = mutations.below(STEPS as usize);
        let taken = trust.update(steps[next].clone());
        if next == at {
            taken.expect("it follows");
        } else {
            assert_eq!(taken.expect_err("a gap").event(), "root_gap", "case {case}");
            assert_eq!(trust.root().version, at as u64 + 1, "the trusted one stays");
        }
    }
}

/// Gives the coordinator a new online key, and takes the old one away.
pub fn rotate_online_key(world: &World, name: &str) {
    let public = world.path(&format!("{name}.pub"));
    world.tidegate(&["root", "online-key", "--out", text(&public)]);
    let root = world.home().join("root.json");
    let shown = success(
        "tidegate",
        &["root", "show", "--json", "--root", text(&root)],
    );
    let roots: Vec<Root> = serde_json::from_str(&shown).expect("roots");
    let newest = roots.last().expect("a root");
    let old = newest.role(Role::Coordinator).expect("the role").keys[0];
    let (add, remove) = (
        format!("coordinator={}", text(&public)),
        format!("coordinator={old}"),
    );
    let said = rotate(world, name, &["--add", &add, "--remove", &remove]);
    assert!(said.contains("is in force"), "{said}");
}

fn knows_root(world: &World, node: usize, version: u64) -> bool {
    let report = world.node_report(node);
    report.is_some_and(|report| report["root_version"] == version)
}

/// Three rotations of the online key while a node is off: the others follow without a restart, it walks
/// the chain when it comes back, and a release goes to both.
#[test]
fn attack_16_root_chain_by_processes() {
    let mut world = World::raise(&WorldOptions {
        sites: 1,
        nodes_per_site: 2,
        wan: "200mbit",
    });
    world.kill_node(1);
    for version in 2..=4 {
        rotate_online_key(&world, &format!("root-{version}"));
        world.wait_for("the running node follows", |w| knows_root(w, 0, version));
    }
    world.start_node(1);
    world.wait_for("the other walks the chain", |w| knows_root(w, 1, 4));
    // The coordinator comes back with the key that the newest root names.
    world.kill_coordinator();
    world.start_coordinator();
    let tree = world.path("tree");
    trees::make(&tree, 16, 1 << 18);
    world.publish(&tree, "1.0", &[]);
    let id = world.roll_out("1.0", &["rest"]);
    world.wait_for("both have it", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 2)
    });
    let verified = world.tidegate(&["audit", "verify"]);
    assert!(verified.contains("every link holds"), "{verified}");
}

#[test]
fn attack_17_root_without_its_threshold_is_refused_by_the_coordinator() {
    let world = World::coordinator_only(&WorldOptions::default());
    let (home, root) = (world.home(), world.home().join("root.json"));
    let request = world.path("next.json");
    let plans = [
        "root",
        "rotate",
        "--root",
        text(&root),
        "--out",
        text(&request),
    ];
    success(
        "tidegate",
        &[&plans[..], &["--threshold", "plans=3"]].concat(),
    );
    // An operator's key is no root key.
    let key = world.key("op1");
    let sign = [
        "root",
        "sign",
        text(&request),
        "--key",
        &key,
        "--root",
        text(&root),
    ];
    assert!(failure_line("tidegate", &sign).contains("no root key"));
    let bare = [
        "root",
        "publish",
        text(&request),
        text(&request),
        "--dir",
        text(&home),
    ];
    assert!(failure_line("tidegate", &bare).contains("signature"));
    // A root that names another online key than lies at the coordinator would silence it.
    let stranger = world.path("stranger.pub");
    std::fs::copy(home.join("keys/op1.pub"), &stranger).expect("copied");
    let shown = success(
        "tidegate",
        &["root", "show", "--json", "--root", text(&root)],
    );
    let roots: Vec<Root> = serde_json::from_str(&shown).expect("roots");
    let old = roots[0].role(Role::Coordinator).expect("the role").keys[0];
    let (add, remove) = (
        format!("coordinator={}", text(&stranger)),
        format!("coordinator={old}"),
    );
    let changes = ["--add", &add, "--remove", &remove];
    let (request, signature) = sign_next(&world, "stranger.json", &changes);
    let publish = [
        "root",
        "publish",
        text(&request),
        text(&signature),
        "--dir",
        text(&home),
    ];
    assert!(failure_line("tidegate", &publish).contains("coordinator role"));
    let kept: Vec<Envelope> =
        serde_json::from_slice(&std::fs::read(&root).expect("there")).expect("roots");
    assert_eq!(kept.len(), 1, "nothing changed");
}
