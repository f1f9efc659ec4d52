//! Of the nodes of a site that share restart slots only so many are at work at a time.

use protocol::slots::SlotRules;

use super::*;

/// The least lease there is, so that a story about a dead holder is short.
const LEASE: Span = protocol::limits::SLOT_LEASE_MIN;

/// A site whose nodes are at work for some seconds each.
fn site(count: u64, max_unavailable: u32, per: Option<&str>) -> Site {
    let rules = SlotRules {
        per: per.map(str::to_owned),
        max_unavailable,
        lease: LEASE,
    };
    let mut site = Site::with(count, |plan| {
        plan.constraints.slots = Some(rules);
        plan.lease_ttl = Span::from_secs(3600);
    });
    site.step_takes = Span::from_secs(2);
    site
}

fn label(site: &mut Site, n: u64, role: &str) {
    let now = site.now;
    let member = site.members.get_mut(&node(n)).expect("a member");
    member.config.labels.insert("role".into(), role.into());
    member.brain = Brain::new(member.config.clone(), Memory::default(), now);
}

/// The process starts again with what it remembered.
pub(super) fn come_back(site: &mut Site, n: u64) {
    let now = site.now;
    let member = site.members.get_mut(&node(n)).expect("a member");
    let records = member.disk.values().cloned().collect();
    member.inbox.clear();
    member.brain = Brain::new(member.config.clone(), Memory { records }, now);
    member.up = true;
    site.steps.retain(|(_, id, _)| *id != node(n));
    site.greet(node(n), n);
}

#[test]
fn no_more_than_the_plan_lets_are_at_work_at_a_time_and_all_come_through() {
    for (count, max) in [(5, 1), (8, 3)] {
        let mut site = site(count, max, None);
        site.run(|s| s.all_up_say(State::Succeeded));
        assert!(site.most_at_work <= max as usize, "{}", site.most_at_work);
        assert!(site.most_at_work > 0);
    }
}

#[test]
fn each_role_has_slots_of_its_own() {
    let mut site = site(6, 1, Some("label.role"));
    (1..=6).for_each(|n| label(&mut site, n, if n <= 3 { "db" } else { "web" }));
    site.run(|s| {
        let at_work = |of: core::ops::RangeInclusive<u64>| {
            let mut nodes = of.map(node);
            assert!(nodes.clone().filter(|n| s.at_work.contains(n)).count() <= 1);
            nodes.any(|n| s.at_work.contains(&n))
        };
        at_work(1..=3) & at_work(4..=6)
    });
    site.run(|s| s.all_up_say(State::Succeeded));
    assert_eq!(site.most_at_work, 2, "one of each role");
}

#[test]
fn a_dead_holder_loses_its_slot_with_its_lease_and_others_say_whom_they_wait_for() {
    let mut site = site(4, 1, None);
    site.run(|s| !s.at_work.is_empty());
    // The others have heard of it.
    site.run_for(Span::from_secs(1));
    let holder = *site.at_work.first().expect("one is at work");
    site.die(holder);
    let died = site.now.boot;
    site.run_for(Span::from_secs(10));
    let waiting = site.members.values().filter(|m| m.up);
    for member in waiting {
        let standings = member.brain.snapshot(site.now).standings;
        let why = &standings.first().expect("the rollout").why;
        assert!(why.contains(&holder.short()), "{why}");
        assert!(why.contains("1 of the nodes of this site"), "{why}");
        assert!(why.contains("silent for 60 s"), "{why}");
    }
    site.run(|s| !s.at_work.is_empty());
    let passed = site.now.boot.since(died);
    assert!(passed >= Span(LEASE.0 - 20_000), "{passed:?}");
    site.run(|s| s.all_up_say(State::Succeeded));
    assert_eq!(site.most_at_work, 1);
}

#[test]
fn a_holder_that_starts_again_goes_on_with_its_slot() {
    let mut site = site(4, 1, None);
    site.run(|s| !s.at_work.is_empty());
    site.run_for(Span::from_secs(1));
    let holder = *site.at_work.first().expect("one is at work");
    let number = (1..=4).find(|n| node(*n) == holder).expect("a member");
    site.die(holder);
    site.run_for(Span::from_secs(20));
    come_back(&mut site, number);
    site.run(|s| s.all_up_say(State::Succeeded));
    assert_eq!(site.most_at_work, 1);
}
