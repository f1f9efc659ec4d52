//! What single nodes can and cannot do to a view.

use protocol::fixtures::{node, site};
use protocol::wire::SiteMessage;
use protocol::{Seq, Span};

use super::{Mail, World};

/// Tells everyone that everyone else is missing, ten times a second.
fn accuse(world: &mut World, liar: u64, seconds: u64) {
    for _ in 0..seconds * 10 {
        let everyone = world.everyone();
        for victim in everyone.iter().filter(|n| **n != liar) {
            let seq = Seq {
                epoch: u32::MAX,
                n: 1,
            };
            let message = SiteMessage::Missing {
                node: node(*victim),
                seq,
            };
            for to in everyone.iter().filter(|n| **n != liar) {
                world.post(1, *to, Mail::Gossip(liar, message.clone()));
            }
        }
        world.run(100);
    }
}

#[test]
fn a_liar_makes_each_victim_speak_once_and_is_not_believed_again() {
    let mut world = World::new(5);
    (1..=20).for_each(|n| world.start(n));
    assert!(world.converge(60));
    world.run(30_000);
    world.said.clear();
    accuse(&mut world, 7, 30);
    let said: u64 = world.said.values().sum();
    assert!(said < 20 * 4, "{said} messages for 11,400 accusations");
    assert!(world.converge(5), "{:?}", world.mistaken());
}

#[test]
fn a_word_of_others_moves_nobody_who_spoke_and_brings_back_nobody_who_is_gone() {
    let mut world = World::new(6);
    (1..=6).for_each(|n| world.start(n));
    assert!(world.converge(60));
    let now = world.clock();
    let known = world.nodes[&1].membership.members()[&node(2)]
        .presence
        .clone();
    let mut false_word = (*known).clone();
    false_word.contact.control = ["/ip4/127.9.9.9/tcp/1".into()].into();
    false_word.seq = Seq { epoch: 99, n: 1 };
    let one = world.nodes.get_mut(&1).expect("it runs");
    let hearsay = super::Word::Hearsay;
    one.membership.hear(false_word.clone().into(), hearsay, now);
    let held = &one.membership.members()[&node(2)].presence;
    assert_eq!(held.contact, known.contact);
    world.kill(2);
    assert!(world.converge(15));
    let now = world.clock();
    let one = world.nodes.get_mut(&1).expect("it runs");
    one.membership.hear(false_word.into(), hearsay, now);
    assert!(!one.membership.members().contains_key(&node(2)));
    world.run(3_000);
    assert!(
        world.mistaken().is_empty(),
        "it was asked and did not answer"
    );
}

/// The story: with every fifth message lost, one node in eight asked the coordinator twice in vain who is
/// here, took itself for alone, and brought a copy of its own over the WAN.
#[test]
fn who_meets_silence_does_not_take_itself_for_alone() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.start(1);
        world.run(5_000);
        (world.loss, world.deafness) = (200, 200);
        (2..=50).for_each(|n| world.start(n));
        for _ in 0..600 {
            world.run(100);
            let alone = |n: &u64| {
                let membership = &world.nodes[n].membership;
                membership.knows_its_site() && membership.members().is_empty()
            };
            let alone: Vec<u64> = (2..=50).filter(alone).collect();
            assert!(alone.is_empty(), "seed {seed}: {alone:?}");
        }
    }
}

/// Nor does anybody wait for ever: a coordinator that refuses is believed sooner than one that is silent.
#[test]
fn who_is_refused_or_hears_nothing_for_long_acts_for_its_site() {
    for (refuses, at_most) in [(true, 3_000), (false, 25_000)] {
        let mut world = World::new(3);
        if refuses {
            world.coordinator = false;
        } else {
            world.deafness = 1_000;
        }
        world.start(1);
        let knows = |world: &World| world.nodes[&1].membership.knows_its_site();
        world.run(500);
        assert!(!knows(&world));
        world.run(at_most);
        assert!(knows(&world), "refuses: {refuses}");
    }
}

#[test]
fn a_restart_without_the_coordinator_finds_the_members_of_old() {
    let mut world = World::new(7);
    (1..=10).for_each(|n| world.start(n));
    assert!(world.converge(60));
    world.run(20_000);
    assert_eq!(world.records[&3].site, site("s1"));
    world.coordinator = false;
    world.kill(3);
    world.kill(4);
    world.run(10_000);
    world.troubled = 0;
    world.start(3);
    world.run(1_000);
    assert!(world.view(3).len() >= 8, "{:?}", world.view(3));
    assert!(world.converge(15), "{:?}", world.mistaken());
    assert_eq!(world.troubled, 0, "nobody asked the coordinator");
}

#[test]
fn a_node_that_nobody_remembers_asks_the_coordinator_and_then_a_member() {
    let mut world = World::new(8);
    (1..=12).for_each(|n| world.start(n));
    assert!(world.converge(60));
    world.records.clear();
    world.start(13);
    world.run(1_000);
    assert_eq!(world.view(13).len(), 13, "the coordinator names eight");
    assert!(world.converge(10), "{:?}", world.mistaken());
}

#[test]
fn a_member_that_others_vouch_for_becomes_delegate_only_if_it_answers() {
    let mut world = World::new(9);
    (1..=4).for_each(|n| world.start(n));
    assert!(world.converge(60));
    let now = world.clock();
    let mut phantoms = Vec::new();
    for n in 1000..1040 {
        let mut phantom = (*world.nodes[&1].membership.members()[&node(2)].presence).clone();
        phantom.contact = protocol::fixtures::contact(n);
        phantoms.push(phantom);
    }
    let one = world.nodes.get_mut(&1).expect("it runs");
    for phantom in phantoms {
        one.membership
            .hear(phantom.into(), super::Word::Hearsay, now);
    }
    assert!(world.converge(120), "{:?}", world.mistaken());
    let delegates = world.nodes[&2].membership.delegates();
    assert_eq!(world.nodes[&1].membership.delegates(), delegates);
}

#[test]
fn a_thousand_members_make_no_more_neighbours() {
    let mut world = World::new(10);
    world.start(1);
    let presence = {
        let mut counters = crate::counters::Counters::new(None, None, 1);
        let mut out = crate::outbox::Outbox::default();
        let seq = counters.draw(&mut out);
        world.nodes[&1].membership.presence(seq, Seq::default())
    };
    let now = world.clock();
    let one = world.nodes.get_mut(&1).expect("it runs");
    for n in 2..=1000 {
        let mut other = presence.clone();
        other.contact = protocol::fixtures::contact(n);
        one.membership.hear(other.into(), super::Word::Own, now);
    }
    world.tick(1);
    let one = &world.nodes[&1];
    assert_eq!(one.membership.members().len(), 999);
    assert!(one.wanted.len() <= 8, "{:?}", one.wanted);
    assert_eq!(one.membership.delegates().len(), 2);
    let quiet = one.membership.timeout().expect("it dials");
    assert!(quiet > now.boot && quiet < now.boot + Span::from_secs(10));
}

/// The story: behind an access point that kept its clients apart every laptop brought a whole copy over the
/// WAN, and nothing said why.
#[test]
fn who_is_kept_apart_from_all_others_says_so_until_one_is_in_reach() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        world.apart = true;
        (1..=5).for_each(|n| world.start(n));
        let isolated = |world: &World| {
            let all = world.nodes.values();
            all.filter(|n| n.membership.is_isolated()).count()
        };
        world.run(60_000);
        assert_eq!(isolated(&world), 0, "not before it is sure");
        world.run(600_000);
        assert_eq!(isolated(&world), 5, "seed {seed}");
        world.apart = false;
        assert!(world.converge(180), "{:?}", world.mistaken());
        world.run(10_000);
        assert_eq!(isolated(&world), 0, "seed {seed}");
    }
}

#[test]
fn who_is_alone_because_the_others_went_home_is_not_kept_apart() {
    for seed in 0..10 {
        let mut world = World::new(seed);
        (1..=5).for_each(|n| world.start(n));
        assert!(world.converge(60));
        (2..=5).for_each(|n| world.kill(n));
        world.run(900_000);
        assert!(!world.nodes[&1].membership.is_isolated(), "seed {seed}");
    }
}
