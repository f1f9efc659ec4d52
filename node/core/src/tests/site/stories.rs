//! What happens to a site's reports, members and rates.

use protocol::schedule::{RateHours, Schedule};
use protocol::topology::NodeRates;

use super::*;

#[test]
fn a_site_reports_through_two_delegates_and_everyone_gets_the_receipt() {
    let mut site = Site::new(7);
    site.run(|s| s.all_up_say(State::Succeeded) && s.all_reported());
    site.run_for(Span::from_secs(5));
    site.uplinks.clear();
    site.run_for(Span::from_secs(70));
    let delegates = site.delegates();
    assert_eq!(delegates.len(), 2);
    assert_eq!(site.uplinks, delegates.iter().copied().collect());
    for (id, member) in &site.members {
        assert_eq!(member.linked_to_coordinator, delegates.contains(id));
        assert_eq!(member.brain.snapshot(site.now).members, 7);
    }
}

#[test]
fn statuses_outlive_the_delegates_that_could_not_hand_them_over() {
    let mut site = Site::new(6);
    site.run(|s| s.all_up_say(State::Succeeded) && s.all_reported());
    site.reachable = false;
    site.statuses.clear();
    let delegates = site.delegates();
    // The rollout vanishes and comes again for everyone but through gossip only: a new one.
    let release = site.fleet.verified(&site.fleet.release("app", "2", 2));
    let nodes = (1..=6).map(node).collect();
    let plan = site.fleet.verified(&site.fleet.plan("r2", &release, nodes));
    let bulletin = site
        .fleet
        .bulletin(Some(&site.topology), &[(&site.plan, 1), (&plan, 3)]);
    site.orders
        .push(site.fleet.order(3, site.fleet.lease(&plan, 1)));
    site.orders
        .push(site.fleet.order(4, OrderBody::Bulletin(bulletin)));
    site.documents
        .insert(plan.digest(), Event::Plan(plan.clone()));
    site.documents
        .insert(release.digest(), Event::Release(release));
    site.plan = plan;
    let first = delegates[0];
    for order in site.orders.clone().into_iter().skip(2) {
        site.send(first, Event::Order(order, None));
    }
    let documents: Vec<Event> = site.documents.values().cloned().collect();
    documents.into_iter().for_each(|d| site.send(first, d));
    let key = RecordKey::Status(site.plan.rollout.clone());
    site.run(|s| {
        s.members.values().all(|m| {
            matches!(m.disk.get(&key), Some(Record::Status(r)) if r.status.state == State::Succeeded)
        })
    });
    // Without receipts they say it again, and then by gossip.
    site.run_for(Span::from_secs(70));
    for delegate in &delegates {
        site.die(*delegate);
    }
    site.run_for(Span::from_secs(10));
    assert!(site.statuses.is_empty(), "nobody reached the coordinator");
    site.reachable = true;
    site.run(|s| s.statuses.len() == 6 && s.all_up_say(State::Succeeded) && s.all_reported());
    for delegate in &delegates {
        assert_eq!(
            site.statuses[delegate].state,
            State::Succeeded,
            "the dead one's word was kept"
        );
    }
}

#[test]
fn a_node_that_was_off_learns_it_all_from_a_peer() {
    let mut site = Site::new(3);
    site.run(|s| s.all_up_say(State::Succeeded));
    site.reachable = false;
    site.join(4, NodeRole::Endpoint);
    let key = RecordKey::Installed(protocol::fixtures::site("app"));
    site.run(|s| s.members[&node(4)].disk.contains_key(&key));
    assert!(!site.statuses.contains_key(&node(4)));
    site.reachable = true;
    site.run(Site::all_reported);
    assert_eq!(site.statuses[&node(4)].state, State::Succeeded);
}

#[test]
fn a_member_that_leaves_is_gone_at_once_and_one_that_falls_silent_soon() {
    let mut site = Site::new(4);
    site.run_for(Span::from_secs(3));
    let members = |s: &Site| s.members[&node(1)].brain.snapshot(s.now).members;
    assert_eq!(members(&site), 4);
    site.send(node(2), Event::Leaving);
    site.work();
    site.die(node(2));
    assert_eq!(members(&site), 3);
    site.die(node(3));
    site.run(|s| members(s) == 2);
}

#[test]
fn who_falls_silent_is_missed_by_its_witnesses_until_it_is_back() {
    let mut site = Site::new(6);
    site.run(|s| s.all_up_say(State::Succeeded) && s.all_reported());
    let missing = |s: &Site, n: u64| {
        let misses = |(_, silent): &&(Seq, Vec<NodeId>)| silent.contains(&node(n));
        s.words.values().filter(misses).count()
    };
    // Who says that it goes is not missed.
    site.send(node(2), Event::Leaving);
    site.work();
    site.die(node(2));
    site.die(node(3));
    site.run(|s| missing(s, 3) == 4);
    assert_eq!(missing(&site, 2), 0);
    super::slots::come_back(&mut site, 3);
    site.run(|s| missing(s, 3) == 0);
}

/// A topology by which the WAN of `s1` carries 1 KB/s in the second minute from now on.
fn an_hour_is_near(site: &Site) -> Verified<Topology> {
    let minute = site.now.wall.0 / 60_000 % 1440 + 1;
    let clock = |m: u64| format!("{:02}:{:02}", m / 60 % 24, m % 60);
    let hours = format!("daily {}-{}", clock(minute), clock(minute + 1));
    let mut topology = site.fleet.topology(2, 2);
    topology.sites[0].schedule = Some(Schedule {
        zone: "UTC".parse().unwrap(),
        hours: vec![RateHours {
            hours: hours.parse().unwrap(),
            wan_down_bytes_per_s: Some(1_000),
            wan_up_bytes_per_s: None,
        }],
    });
    topology.sites[1].no_peers = true;
    site.fleet.verified(&topology)
}

#[test]
fn sources_and_takers_switch_with_the_clock_of_the_site() {
    let mut site = Site::new(2);
    site.join(5, NodeRole::Origin);
    site.run_for(Span::from_secs(2));
    let topology = an_hour_is_near(&site);
    for n in [1, 2, 5] {
        site.send(node(n), Event::Topology(topology.clone()));
    }
    site.run_for(Span::from_secs(1));
    let last = |site: &Site, n| {
        let paced = site.members[&node(n)].paced.iter().rev();
        let of_s1 = |a: &Action| match a {
            Action::Pace { site, bytes_per_s } if site.as_str() == "s1" => Some(*bytes_per_s),
            _ => None,
        };
        paced.filter_map(of_s1).next().expect("it is paced")
    };
    let next_minute = |site: &Site| Span(60_000 - site.now.wall.0 % 60_000);
    let check = |site: &Site, rate| {
        for n in [1, 2, 5] {
            assert_eq!(last(site, n), Some(rate), "node {n} at {:?}", site.now);
        }
    };
    let before = next_minute(&site);
    site.run_for(Span(before.0 - 1_000));
    check(&site, 1 << 20);
    site.run_for(Span::from_secs(2));
    check(&site, 1_000);
    site.run_for(Span::from_secs(58));
    check(&site, 1_000);
    site.run_for(Span::from_secs(3));
    check(&site, 1 << 20);
}

#[test]
fn a_node_keeps_to_what_its_site_caps_each_node_to_and_an_origin_does_not() {
    let mut site = Site::new(1);
    site.join(5, NodeRole::Origin);
    site.run_for(Span::from_secs(2));
    let told = |site: &Site, n| -> Vec<NodeRates> {
        let paced = site.members[&node(n)].paced.iter();
        let own = |a: &Action| match a {
            Action::PaceSelf(rates) => Some(*rates),
            _ => None,
        };
        paced.filter_map(own).collect()
    };
    assert!(told(&site, 1).is_empty(), "nothing is capped");
    let capped = NodeRates {
        lan_up_bytes_per_s: Some(9_000),
        ..NodeRates::default()
    };
    for (version, node_rates) in [(2, capped), (3, capped), (4, NodeRates::default())] {
        let mut topology = site.fleet.topology(version, 2);
        topology.sites[0].node = node_rates;
        let topology = site.fleet.verified(&topology);
        for n in [1, 5] {
            site.send(node(n), Event::Topology(topology.clone()));
        }
        site.run_for(Span::from_secs(1));
    }
    assert_eq!(told(&site, 1), [capped, NodeRates::default()]);
    assert!(told(&site, 5).is_empty());
}

#[test]
fn a_node_paces_its_own_site_and_an_origin_every_site() {
    let mut site = Site::new(1);
    site.join(5, NodeRole::Origin);
    site.run_for(Span::from_secs(2));
    let paced = |n| -> Vec<String> {
        let name = |a: &Action| match a {
            Action::Pace {
                site,
                bytes_per_s: Some(_),
            } => site.to_string(),
            other => panic!("{other:?}"),
        };
        site.members[&node(n)].paced.iter().map(name).collect()
    };
    assert_eq!(paced(1), ["s1"]);
    assert_eq!(paced(5), ["s1", "s2"]);
    assert!(
        site.uplinks.contains(&node(5)),
        "an origin follows orders by itself"
    );
    assert!(
        site.members[&node(5)]
            .brain
            .snapshot(site.now)
            .standings
            .is_empty()
    );
}

#[test]
fn a_new_boot_is_known_by_its_higher_numbers() {
    let mut site = Site::new(2);
    site.run_for(Span::from_secs(3));
    let member = site.members.get_mut(&node(2)).expect("a member");
    let memory = Memory {
        records: member.disk.values().cloned().collect(),
    };
    member.inbox.clear();
    member.brain = Brain::new(member.config.clone(), memory, site.now);
    site.greet(node(2), 2);
    site.run_for(Span::from_secs(10));
    assert_eq!(site.members[&node(1)].brain.snapshot(site.now).members, 2);
}
