//! Who is where and heard of lately is kept by deadlines and by what delegates saw last; a slow model
//! beside it remembers for each node when it was last heard of, and looks through all nodes.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::feed::Roster;
use protocol::fixtures::{self, site};
use protocol::{NodeId, SiteId, Time};
use support::Bench;
use tidegate_coordinator_core::contract::{Command, Event, Ticket, Uplink};

const NODES: u64 = 12;
/// As the bench configures it.
const UNREACHABLE_AFTER_S: u64 = 60;

#[derive(Clone, Debug)]
enum Do {
    /// A node reports from a site and names members.
    Uplink(u64, u8, Vec<u64>),
    /// The same delegate reports the same as last time.
    Again(u64),
    Locate(u64, u8),
    Enrol(u64),
    Revoke(u64),
    Wait(u64),
}

fn deed() -> impl Strategy<Value = Do> {
    let members = proptest::collection::vec(0u64..NODES + 2, 0..6);
    prop_oneof![
        4 => (0u64..NODES, 1u8..4, members).prop_map(|(n, s, m)| Do::Uplink(n, s, m)),
        6 => (0u64..NODES).prop_map(Do::Again),
        2 => (0u64..NODES, 1u8..4).prop_map(|(n, s)| Do::Locate(n, s)),
        1 => (0u64..NODES + 2).prop_map(Do::Enrol),
        1 => (0u64..NODES).prop_map(Do::Revoke),
        6 => prop::sample::select(vec![1u64, 5, 25, 59, 60, 61]).prop_map(Do::Wait),
    ]
}

#[derive(Default)]
struct Slow {
    site: BTreeMap<u64, Option<SiteId>>,
    heard: BTreeMap<u64, Time>,
    revoked: Vec<u64>,
    last: BTreeMap<u64, (u8, Vec<u64>)>,
}

impl Slow {
    fn may_speak(&self, n: u64) -> bool {
        self.site.contains_key(&n) && !self.revoked.contains(&n)
    }

    fn spoke(&mut self, n: u64, at: u8, now: Time) {
        if self.may_speak(n) {
            self.heard.insert(n, now);
            self.site.insert(n, Some(site(&format!("s{at}"))));
        }
    }

    fn named(&mut self, n: u64, at: u8, now: Time) {
        if self.may_speak(n) {
            self.heard.insert(n, now);
            let place = self.site.get_mut(&n).expect("enrolled");
            place.get_or_insert_with(|| site(&format!("s{at}")));
        }
    }

    /// Nodes in each site, and those heard of lately.
    fn sites(&self, now: Time) -> BTreeMap<SiteId, (u32, u32)> {
        let mut sites: BTreeMap<SiteId, (u32, u32)> = BTreeMap::new();
        for (n, at) in &self.site {
            let Some(at) = at.as_ref().filter(|_| self.may_speak(*n)) else {
                continue;
            };
            let heard = self.heard.get(n);
            let fresh = heard.is_some_and(|h| now.since(*h).0 < UNREACHABLE_AFTER_S * 1000);
            let counts = sites.entry(at.clone()).or_default();
            counts.0 += 1;
            counts.1 += u32::from(fresh);
        }
        sites
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn sites_and_last_words_equal_a_slow_model(deeds in proptest::collection::vec(deed(), 1..60)) {
        let mut bench = Bench::with_nodes(NODES);
        bench.audit = false;
        let mut slow = Slow::default();
        let ids: Vec<_> = (0..NODES + 2).map(fixtures::node).collect();
        for n in 0..NODES {
            slow.site.insert(n, Some(site(&Bench::site_of(n))));
        }
        for (number, deed) in (1u64..).zip(deeds) {
            let now = bench.now.boot;
            let deed = match deed {
                Do::Again(n) => match slow.last.get(&n) {
                    Some((at, members)) => Do::Uplink(n, *at, members.clone()),
                    None => continue,
                },
                other => other,
            };
            match deed {
                Do::Uplink(n, at, members) => {
                    let me = bench.presence(n, &format!("s{at}"));
                    let joined: BTreeSet<NodeId> =
                        members.iter().map(|m| fixtures::node(*m)).collect();
                    let roster = Roster {
                        digest: Roster::digest(&joined),
                        joined: joined.into_iter().collect(),
                        left: Vec::new(),
                        whole: true,
                    };
                    bench.handle(Event::Uplink(Uplink {
                        ticket: Ticket(1 << 40 | number),
                        from: me.contact.node,
                        me: Some(me),
                        roster: Some(roster),
                        statuses: Vec::new(),
                        stages: None,
                    }));
                    if slow.may_speak(n) {
                        slow.spoke(n, at, now);
                        members.iter().for_each(|m| slow.named(*m, at, now));
                        slow.last.insert(n, (at, members));
                    }
                }
                Do::Locate(n, at) => {
                    let me = bench.presence(n, &format!("s{at}"));
                    bench.handle(Event::Located(me));
                    slow.spoke(n, at, now);
                }
                Do::Enrol(n) => {
                    bench.enrol(n);
                    slow.site.entry(n).or_insert_with(|| Some(site(&Bench::site_of(n))));
                }
                Do::Revoke(n) => {
                    bench.command(Command::Revoke { node: fixtures::node(n), reason: "lost".into() });
                    slow.revoked.push(n);
                }
                Do::Wait(seconds) => bench.wait(seconds),
                Do::Again(_) => {}
            }
            let expected = slow.sites(bench.now.boot);
            let shown = bench.conductor.sites();
            let shown: BTreeMap<SiteId, (u32, u32)> = shown
                .into_iter()
                .filter(|s| s.nodes > 0)
                .map(|s| (s.site, (s.nodes, s.reachable)))
                .collect();
            prop_assert_eq!(shown, expected);
            let offset = bench.now.wall.since(bench.now.boot);
            let views = bench.conductor.nodes();
            for n in slow.site.keys() {
                let id = ids[*n as usize];
                let view = views.iter().find(|v| v.node == id).expect("enrolled");
                let heard = slow.heard.get(n).map(|at| *at + offset);
                prop_assert_eq!(view.last_seen, heard, "node {}", n);
            }
        }
    }
}
