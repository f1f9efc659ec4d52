//! Row 9: what a release needs, and what the plan that was signed for it names.

use node::driver::Question;
use protocol::Hash;
use protocol::fixtures::{Fleet, node, site};
use protocol::manifest::ReleaseManifest;
use protocol::orders::OrderBody;
use protocol::plan::RolloutPlan;
use protocol::relations::{Pick, Requirement};
use protocol::status::State;
use protocol::trust::Statement;
use protocol::wire::ControlReply;

use crate::mutations::{CASES, Mutations};
use crate::orders::Machine;

fn give<T: Statement>(machine: &mut Machine, fleet: &Fleet, statement: &T) -> Vec<&'static str> {
    let envelope = fleet.sign(statement);
    let reply = ControlReply::Document(Some(envelope.to_json()));
    let question = Question::Document(envelope.digest());
    machine.intake.answer(node(2), question, reply);
    machine.believed()
}

/// What a node that hears of all three at once makes of the first.
fn made_of(
    fleet: &Fleet,
    releases: &[ReleaseManifest],
    plan: &RolloutPlan,
) -> (Vec<&'static str>, State, String) {
    let mut machine = Machine::new(fleet.trust());
    let verified: Vec<_> = releases.iter().map(|r| fleet.verified(r)).collect();
    // Only the first plan is wrong, if any is.
    let of = |n: usize| {
        let mut plan = fleet.plan(&format!("r{n}"), &verified[n], vec![node(1)]);
        let after = verified[n + 1..].iter();
        plan.closure.requires = after.map(|r| Pick::of(r, r.digest())).collect();
        plan
    };
    let mut plans = vec![plan.clone()];
    plans.extend((1..releases.len()).map(of));
    let signed: Vec<_> = plans.iter().map(|plan| fleet.verified(plan)).collect();
    let named: Vec<_> = signed.iter().map(|plan| (plan, 1)).collect();
    let lease = fleet.lease(&signed[0], 0);
    machine.order(fleet, 1, lease);
    let bulletin = OrderBody::Bulletin(fleet.bulletin(None, &named));
    machine.order(fleet, 2, bulletin);
    let mut notes = Vec::new();
    for release in releases {
        notes.extend(give(&mut machine, fleet, release));
    }
    for plan in &plans {
        notes.extend(give(&mut machine, fleet, plan));
    }
    let standings = machine.brain.snapshot(machine.now).standings;
    let first = standings.into_iter().find(|s| s.rollout == plan.rollout);
    let first = first.expect("the node knows of it");
    (notes, first.state, first.why)
}

#[test]
fn attack_09_a_dependency_outside_of_the_signed_closure() {
    let fleet = Fleet::new(1);
    let need = |text: &str| text.parse::<Requirement>().expect("a requirement");
    let mut app = fleet.release("app", "1", 1);
    app.relations.depends_on = vec![need("lib>=2"), need("runtime")];
    let mut lib = fleet.release("lib", "2", 1);
    lib.relations.depends_on = vec![need("runtime>=20,<30")];
    let runtime = fleet.release("runtime", "20", 1);
    let releases = [app.clone(), lib, runtime];
    let verified: Vec<_> = releases.iter().map(|r| fleet.verified(r)).collect();
    let picks: Vec<Pick> = verified[1..]
        .iter()
        .map(|r| Pick::of(r, r.digest()))
        .collect();
    let mut plan = fleet.plan("r0", &verified[0], vec![node(1)]);
    plan.closure.requires.clone_from(&picks);
    let (notes, state, _) = made_of(&fleet, &releases, &plan);
    assert_eq!(
        (notes.contains(&"dependency"), state),
        (false, State::Received)
    );

    let mut mutations = Mutations::new(9);
    let mut refused = 0;
    for case in 0..CASES {
        let mut closure = picks.clone();
        for _ in 0..1 + mutations.below(2) {
            let Some(at) = closure
                .len()
                .checked_sub(1)
                .map(|last| mutations.below(last + 1))
            else {
                break;
            };
            match mutations.below(4) {
                0 => drop(closure.remove(at)),
                1 => closure[at].product = site(["app", "lib", "other"][mutations.below(3)]),
                2 => closure[at].version = site(["1", "2", "19", "20", "30"][mutations.below(5)]),
                _ => closure[at].release = Hash::of(&[mutations.below(256) as u8]),
            }
        }
        let named = |need: &str| {
            let need: Requirement = need.parse().expect("a requirement");
            closure.iter().any(|p| need.admits(&p.product, &p.version))
        };
        let honest = |p: &Pick| {
            let held = verified.iter().find(|r| r.digest() == p.release);
            held.is_none_or(|r| (&r.product, &r.version) == (&p.product, &p.version))
        };
        let has_lib = closure.iter().any(|p| p.release == picks[0].release);
        let whole = named("lib>=2") && named("runtime") && closure.iter().all(honest);
        let whole = whole && (!has_lib || named("runtime>=20,<30"));
        plan.closure.requires = closure;
        let (notes, state, why) = made_of(&fleet, &releases, &plan);
        let told = notes.contains(&"dependency");
        assert_eq!(told, !whole, "case {case}: {:?}: {why}", plan.closure);
        if told {
            refused += 1;
            assert_eq!(state, State::Failed, "case {case}: {why}");
            assert!(why.starts_with("dependency: "), "case {case}: {why}");
        }
    }
    assert!(refused > CASES / 2, "{refused} closures were wrong");
}
