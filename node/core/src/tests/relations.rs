//! What must come first comes first, what is superseded does not come, and the node says why it waits.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::fixtures::node;
use protocol::manifest::ReleaseManifest;
use protocol::orders::OrderBody;
use protocol::plan::{Priority, RolloutPlan};
use protocol::relations::{Closure, Pick, Relations, Requirement};
use protocol::status::{State, WaitingFor};
use protocol::{SiteId, Span, Verified};

use super::World;

/// A release as a test writes it.
#[derive(Clone, Debug, Default)]
struct Draft {
    product: &'static str,
    version: u64,
    depends_on: Vec<String>,
    conflicts: Vec<String>,
    supersedes: Vec<String>,
    barrier: bool,
    infrastructure: bool,
}

fn draft(product: &'static str, version: u64) -> Draft {
    Draft {
        product,
        version,
        ..Draft::default()
    }
}

/// One node that runs `app@1`, and some rollouts for it.
struct Several {
    world: World,
    plans: Vec<Verified<RolloutPlan>>,
    releases: Vec<Verified<ReleaseManifest>>,
    last: BTreeMap<usize, u64>,
}

impl Several {
    /// Every release has a rollout, `product-version`, whose plan was made by the rules.
    fn new(drafts: &[Draft]) -> Several {
        let mut world = World::new();
        world.blobs_here = true;
        world.renewing = false;
        let mut several = Several {
            world,
            plans: Vec::new(),
            releases: Vec::new(),
            last: BTreeMap::new(),
        };
        for draft in drafts {
            let parsed = |texts: &[String]| texts.iter().map(|t| t.parse().unwrap()).collect();
            let fleet = &several.world.fleet;
            let mut release =
                fleet.release(draft.product, &draft.version.to_string(), draft.version);
            release.relations = Relations {
                depends_on: parsed(&draft.depends_on),
                conflicts: parsed(&draft.conflicts),
                supersedes: parsed(&draft.supersedes),
                barrier: draft.barrier.then(|| "its store moves".to_owned()),
                infrastructure: draft.infrastructure,
            };
            several.releases.push(fleet.verified(&release));
        }
        for number in 0..drafts.len() {
            let closure = several.closure(number);
            several.plan(number, |plan| plan.closure = closure);
        }
        several
    }

    /// What the coordinator would find: for each need the newest that meets it, and all barriers before.
    fn closure(&self, number: usize) -> Closure {
        let me = &self.releases[number];
        let pick = |release: &&Verified<ReleaseManifest>| Pick::of(release, release.digest());
        let others = || self.releases.iter().filter(|r| r.digest() != me.digest());
        let barriers = others().filter(|r| {
            r.product == me.product
                && r.release_counter < me.release_counter
                && r.relations.barrier.is_some()
        });
        let mut barriers: Vec<Pick> = barriers.map(|r| pick(&r)).collect();
        barriers.sort_by_key(|pick| pick.counter);
        let mut requires: Vec<Pick> = Vec::new();
        let mut open: Vec<&Requirement> = me.relations.depends_on.iter().collect();
        while let Some(need) = open.pop() {
            let fit = others().chain([&self.world.old]).filter(|r| need.fits(r));
            let Some(newest) = fit.max_by_key(|r| r.release_counter) else {
                continue;
            };
            if !requires.iter().any(|held| held.release == newest.digest()) {
                requires.push(pick(&newest));
                open.extend(&newest.relations.depends_on);
            }
        }
        Closure { requires, barriers }
    }

    fn plan(&mut self, number: usize, change: impl FnOnce(&mut RolloutPlan)) {
        let release = &self.releases[number];
        let id = format!("{}-{}", release.product, release.version);
        let mut plan = self.world.fleet.plan(&id, release, vec![node(1)]);
        change(&mut plan);
        let plan = self.world.fleet.verified(&plan);
        match self.plans.get_mut(number) {
            Some(held) => *held = plan,
            None => self.plans.push(plan),
        }
    }

    /// Publishes, opens every wave and says so.
    fn open(&mut self, rollouts: &[usize]) {
        for number in rollouts {
            self.publish(*number);
        }
        self.announce(rollouts);
    }

    fn publish(&mut self, number: usize) {
        self.world.new = self.releases[number].clone();
        self.world.plan = self.plans[number].clone();
        self.world.checker.learn(&self.plans[number]);
        self.world.publish();
    }

    fn announce(&mut self, rollouts: &[usize]) {
        for number in rollouts {
            let lease = self.world.fleet.lease(&self.plans[*number], 0);
            let order = self.world.give(lease);
            self.last.insert(*number, order.seq.n);
        }
        let named: Vec<_> = rollouts
            .iter()
            .map(|n| (&self.plans[*n], self.last[n]))
            .collect();
        let bulletin = self.world.fleet.bulletin(None, &named);
        self.world.give(OrderBody::Bulletin(bulletin));
    }

    /// Lets it all happen, with leases renewed.
    fn settle(&mut self, rollouts: &[usize]) {
        for _ in 0..12 {
            self.world.run_for(Span::from_secs(30));
            self.announce(rollouts);
        }
    }

    fn at(&self, number: usize) -> (State, String) {
        let id = &self.plans[number].rollout;
        let standings = self.world.brain.snapshot(self.world.now).standings;
        let standing = standings.into_iter().find(|s| s.rollout == *id).unwrap();
        (standing.state, standing.why)
    }
}

fn needs(what: &str) -> Vec<String> {
    vec![what.to_owned()]
}

#[test]
fn a_chain_is_installed_from_its_end() {
    let app = Draft {
        depends_on: needs("lib>=1"),
        ..draft("app", 2)
    };
    let lib = Draft {
        depends_on: needs("runtime>=20,<30"),
        ..draft("lib", 1)
    };
    let mut several = Several::new(&[app, lib, draft("runtime", 20)]);
    several.open(&[0]);
    several.settle(&[0]);
    let (state, why) = several.at(0);
    assert_eq!(state, State::Waiting(WaitingFor::Dependency));
    assert_eq!(
        why,
        "it needs lib>=1, and no lib is installed; no rollout brings that to this node"
    );
    let told = &several.world.statuses[&several.plans[0].rollout];
    assert_eq!(told.state, State::Waiting(WaitingFor::Dependency));
    several.open(&[0, 1]);
    several.settle(&[0, 1]);
    assert!(several.at(0).1.ends_with("; lib-1 brings it"));
    assert!(several.at(1).1.contains("no runtime is installed"));
    assert!(several.world.switched.is_empty());
    several.open(&[0, 1, 2]);
    several.settle(&[0, 1, 2]);
    assert_eq!(several.world.switched, ["runtime@20", "lib@1", "app@2"]);
}

/// Row 9 of the attacks: what a release needs and the approved plan does not name.
#[test]
fn a_dependency_outside_of_the_signed_closure_refuses_the_whole_set() {
    let app = Draft {
        depends_on: needs("lib"),
        ..draft("app", 2)
    };
    let lib = Draft {
        depends_on: needs("runtime"),
        ..draft("lib", 1)
    };
    let drafts = [app, lib, draft("runtime", 20)];
    let without = |names: &[&str], number: usize| {
        let mut several = Several::new(&drafts);
        let mut closure = several.closure(number);
        closure
            .requires
            .retain(|p| !names.contains(&p.product.as_str()));
        several.plan(number, |plan| plan.closure = closure);
        several.open(&[0, 1, 2]);
        several.settle(&[0, 1, 2]);
        several
    };
    let own = without(&["lib"], 0);
    assert_eq!(own.at(0).0, State::Failed);
    assert!(
        own.at(0).1.starts_with("dependency: app@2 needs lib"),
        "{}",
        own.at(0).1
    );
    assert_eq!(own.world.switched, ["runtime@20", "lib@1"]);
    assert!(own.world.notes.contains(&"dependency"));

    let deeper = without(&["runtime"], 0);
    assert!(
        deeper
            .at(0)
            .1
            .starts_with("dependency: lib@1 needs runtime"),
        "what it stands on must stand too: {}",
        deeper.at(0).1
    );
    assert!(!deeper.world.switched.contains(&"app@2".to_owned()));

    let mut forged = Several::new(&drafts);
    let mut closure = forged.closure(0);
    closure.requires[0].release = forged.releases[2].digest();
    forged.plan(0, |plan| plan.closure = closure);
    forged.open(&[0, 1, 2]);
    forged.settle(&[0, 1, 2]);
    assert!(
        forged
            .at(0)
            .1
            .contains("what the plan calls lib@1 is runtime@20")
    );
}

#[test]
fn what_is_superseded_is_not_installed_unless_the_newer_one_is_taken_back() {
    let newer = Draft {
        supersedes: needs("app<3"),
        ..draft("app", 3)
    };
    let mut several = Several::new(&[draft("app", 2), newer]);
    // The newer one is approved, and its wave has not come yet.
    several.publish(1);
    several.publish(0);
    let older = several.world.fleet.lease(&several.plans[0], 0);
    let last = several.world.give(older).seq.n;
    let named = [(&several.plans[0], last), (&several.plans[1], 0)];
    let mut bulletin = several.world.fleet.bulletin(None, &named);
    bulletin.rollouts[1].last_order = protocol::Seq::default();
    several.world.give(OrderBody::Bulletin(bulletin));
    several.world.run_for(Span::from_secs(30));
    assert_eq!(several.at(0).0, State::Superseded);
    assert_eq!(
        several.at(0).1.split(" (").next(),
        Some("app@3 supersedes it and is approved for this node")
    );
    assert!(several.world.switched.is_empty());
    // It is taken back before anybody had it.
    several.world.plan = several.plans[1].clone();
    several.world.recall();
    several.settle(&[0, 1]);
    assert_eq!(several.world.switched, ["app@2"]);
    assert_eq!(several.at(1).0, State::Cancelled);
}

#[test]
fn ninety_days_away_the_barriers_are_walked_and_nothing_else() {
    let mut drafts: Vec<Draft> = (2..=14)
        .map(|version| Draft {
            supersedes: vec![format!("app<{version}")],
            barrier: version == 4 || version == 9,
            ..draft("app", version)
        })
        .collect();
    drafts.reverse();
    let all: Vec<usize> = (0..drafts.len()).collect();
    let mut several = Several::new(&drafts);
    several.open(&all);
    several.settle(&all);
    assert_eq!(several.world.switched, ["app@4", "app@9", "app@14"]);
    let ended = all.iter().map(|n| several.at(*n).0);
    assert_eq!(ended.filter(|s| *s == State::Superseded).count(), 10);
}

#[test]
fn a_barrier_that_no_rollout_brings_holds_and_says_so() {
    let barrier = Draft {
        barrier: true,
        ..draft("app", 2)
    };
    let mut several = Several::new(&[barrier, draft("app", 3)]);
    several.open(&[1]);
    several.settle(&[1]);
    assert_eq!(several.at(1).0, State::Waiting(WaitingFor::Barrier));
    let why = several.at(1).1;
    assert_eq!(
        why,
        "app@2 is a barrier and goes first; no rollout brings that to this node"
    );
    several.open(&[0, 1]);
    several.settle(&[0, 1]);
    assert_eq!(several.world.switched, ["app@2", "app@3"]);
}

#[test]
fn what_is_in_conflict_waits_until_the_other_is_gone() {
    let foe = Draft {
        conflicts: needs("app<2"),
        ..draft("tool", 7)
    };
    let mut several = Several::new(&[foe, draft("app", 2)]);
    several.open(&[0]);
    several.settle(&[0]);
    assert_eq!(several.at(0).0, State::Waiting(WaitingFor::Dependency));
    assert!(
        several
            .at(0)
            .1
            .starts_with("it conflicts with app@1, which is installed here")
    );
    several.open(&[0, 1]);
    several.settle(&[0, 1]);
    assert_eq!(several.world.switched, ["app@2", "tool@7"]);
}

#[test]
fn infrastructure_goes_first_and_an_emergency_before_it() {
    let agent = Draft {
        infrastructure: true,
        depends_on: needs("app>=2"),
        ..draft("zz-agent", 5)
    };
    let ready = Draft {
        depends_on: Vec::new(),
        ..agent.clone()
    };
    let mut several = Several::new(&[draft("app", 2), ready.clone(), draft("fix", 3)]);
    several.plan(2, |plan| plan.priority = Priority::Emergency);
    several.open(&[0, 1, 2]);
    several.settle(&[0, 1, 2]);
    assert_eq!(several.world.switched, ["fix@3", "zz-agent@5", "app@2"]);
    // One that waits for others holds up nobody.
    let mut several = Several::new(&[draft("app", 2), agent]);
    several.open(&[0, 1]);
    several.settle(&[0, 1]);
    assert_eq!(several.world.switched, ["app@2", "zz-agent@5"]);
    // Nor does one that conflicts with what is installed.
    let foe = Draft {
        conflicts: needs("app"),
        ..ready
    };
    let mut several = Several::new(&[draft("tool", 2), foe]);
    several.open(&[0, 1]);
    several.settle(&[0, 1]);
    assert_eq!(several.world.switched, ["tool@2"]);
}

/// A node that comes back hears of thirteen rollouts at once and has their documents one by one.
#[test]
fn nothing_starts_while_documents_are_still_to_come_but_not_for_ever() {
    let newer = Draft {
        supersedes: needs("app<3"),
        ..draft("app", 3)
    };
    let mut several = Several::new(&[draft("app", 2), newer]);
    several.publish(0);
    several.announce(&[0, 1]);
    several.world.run_for(Span::from_secs(40));
    assert_eq!(several.at(0).0, State::Waiting(WaitingFor::Lease));
    assert!(
        several
            .at(0)
            .1
            .starts_with("plan and release of app-3 have not come yet")
    );
    several.settle(&[0, 1]);
    assert_eq!(several.world.switched, ["app@2"], "not for ever");
    several.publish(1);
    several.settle(&[0, 1]);
    assert_eq!(several.world.switched, ["app@2", "app@3"]);
}

// ---- any set of releases, against the obvious rules ----------------------------------------------

const PRODUCTS: [&str; 3] = ["app", "lib", "runtime"];

fn requirement() -> impl Strategy<Value = String> {
    let bound = (prop::sample::select(vec![">=", "<", "="]), 2u64..8);
    let bounds = prop::collection::vec(bound, 0..2);
    (prop::sample::select(PRODUCTS.to_vec()), bounds).prop_map(|(product, bounds)| {
        let bounds: Vec<String> = bounds.iter().map(|(op, v)| format!("{op}{v}")).collect();
        format!("{product}{}", bounds.join(","))
    })
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let list = |most| prop::collection::vec(requirement(), 0..most);
    let product = prop::sample::select(PRODUCTS.to_vec());
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    (product, 2u64..8, list(2), list(2), list(2), flags).prop_map(
        |(product, version, depends_on, conflicts, supersedes, (barrier, infrastructure))| {
            let name: SiteId = product.parse().unwrap();
            let number: SiteId = version.to_string().parse().unwrap();
            let fine = |text: &String| {
                let requirement: Requirement = text.parse().unwrap();
                requirement.product != name && !requirement.admits(&name, &number)
            };
            let fine = |list: Vec<String>| list.into_iter().filter(fine).collect();
            let other = |text: &String| {
                let requirement: Requirement = text.parse().unwrap();
                !requirement.admits(&name, &number)
            };
            Draft {
                depends_on: fine(depends_on),
                conflicts: fine(conflicts),
                supersedes: supersedes.into_iter().filter(other).collect(),
                barrier,
                infrastructure,
                ..draft(product, version)
            }
        },
    )
}

/// Whether `release` may be switched to on a node with `installed`; all of `releases` were published, and
/// those `in_force` are approved for the node.
fn obvious(
    release: &ReleaseManifest,
    installed: &BTreeMap<SiteId, &ReleaseManifest>,
    releases: &[Verified<ReleaseManifest>],
    in_force: &[Verified<ReleaseManifest>],
) -> Result<(), &'static str> {
    let says = |list: &[Requirement], other: &ReleaseManifest| list.iter().any(|r| r.fits(other));
    let runs = installed.get(&release.product);
    if runs.is_some_and(|held| held.release_counter >= release.release_counter) {
        return Err("not newer");
    }
    for need in &release.relations.depends_on {
        if !installed.values().any(|held| need.fits(held)) {
            return Err("dependency");
        }
    }
    for other in releases {
        let between = runs.is_some_and(|held| held.release_counter < other.release_counter);
        let before = other.release_counter < release.release_counter;
        if other.product == release.product
            && between
            && before
            && other.relations.barrier.is_some()
        {
            return Err("barrier");
        }
    }
    for other in in_force {
        let mutual = says(&release.relations.supersedes, other);
        let later = other.release_counter > release.release_counter;
        let of_one = other.product == release.product;
        let step = release.relations.barrier.is_some() && runs.is_some() && of_one;
        let over = says(&other.relations.supersedes, release);
        if over && !step && (later || !mutual && !of_one) {
            return Err("superseded");
        }
    }
    for held in installed
        .values()
        .filter(|held| held.product != release.product)
    {
        if says(&release.relations.conflicts, held) || says(&held.relations.conflicts, release) {
            return Err("conflict");
        }
        let mut needs = held.relations.depends_on.iter();
        if needs.any(|need| need.product == release.product && !need.fits(release)) {
            return Err("would break what is installed");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn whatever_is_approved_at_once_each_switch_keeps_the_rules_and_nobody_waits_for_nothing(
        mut drafts in prop::collection::vec(any_draft(), 1..6)
    ) {
        drafts.sort_by_key(|d| (d.product, d.version));
        drafts.dedup_by_key(|d| (d.product, d.version));
        let all: Vec<usize> = (0..drafts.len()).collect();
        let mut several = Several::new(&drafts);
        several.open(&all);
        several.settle(&all);
        // What was refused supersedes nobody.
        let in_force = all.iter().filter(|n| several.at(**n).0 != State::Failed);
        let in_force: Vec<_> = in_force.map(|n| several.releases[*n].clone()).collect();
        let named = |name: &str| several.releases.iter().find(|r| {
            protocol::manifest::release_name(&r.product, &r.version) == name
        });
        let old = several.world.old.clone();
        let mut installed: BTreeMap<SiteId, &ReleaseManifest> =
            BTreeMap::from([(old.product.clone(), &*old)]);
        for name in &several.world.switched {
            let release = named(name).expect("one of them");
            prop_assert_eq!(obvious(release, &installed, &several.releases, &in_force), Ok(()), "{}", name);
            installed.insert(release.product.clone(), release);
        }
        for number in all {
            let (state, why) = several.at(number);
            let verdict = obvious(&several.releases[number], &installed, &several.releases, &in_force);
            let refused = state == State::Failed && why.starts_with("dependency: ");
            prop_assert!(
                state == State::Succeeded || refused || verdict.is_err(),
                "{} is {state:?} ({why}) for nothing", several.plans[number].rollout
            );
        }
    }
}
