//! Single rules of one swarm, and what hostile or mistaken peers cannot do.

use proptest::prelude::*;
use protocol::pieces::PieceSet;
use protocol::wire::{Claim, Class, Notice, SiteMessage};
use protocol::{BlobRef, Now, Time};

use super::world::{Release, contact, member, node_id, release};
use crate::contract::{Action, FetchOutcome, FrameOutcome, Grain, NodeRole, Tempo, Ticket};
use crate::swarm::{Input, Output, Swarm, Want};

pub(super) fn at(ms: u64) -> Now {
    Now {
        boot: Time(ms),
        wall: Time(ms),
    }
}

pub(super) fn swarm(me: u64, members: &[u64]) -> Swarm {
    let mut swarm = Swarm::new(
        node_id(me),
        NodeRole::Endpoint,
        Tempo::default(),
        Grain::default(),
        me,
    );
    swarm.set_site(at(0), Some(("berlin".parse().unwrap(), None)));
    let seen = |n: &u64| (node_id(*n), member(node_id(*n), false));
    swarm.set_members(at(0), members.iter().map(seen));
    swarm.set_origins(at(0), vec![contact(node_id(u64::MAX))]);
    swarm
}

pub(super) fn want(release: &Release) -> Want {
    Want {
        release: release.digest,
        artifact: release.artifact.clone(),
        class: Class::Normal,
        donors: Vec::new(),
    }
}

fn actions(swarm: &mut Swarm) -> Vec<Action> {
    let mut actions = Vec::new();
    while let Some(output) = swarm.poll_output() {
        if let Output::Action(action) = output {
            actions.push(action);
        }
    }
    actions
}

/// Opens every blob that is asked for, empty; returns what else is asked.
fn settle(swarm: &mut Swarm, now: Now) -> Vec<Action> {
    let mut rest = Vec::new();
    for action in actions(swarm) {
        match action {
            Action::OpenBlob { ticket, blob } => {
                assert!(Swarm::owns(ticket));
                let pieces = protocol::pieces::Geometry::of(blob.length).pieces();
                swarm.handle(
                    now,
                    Input::BlobOpened(ticket, Some(PieceSet::empty(pieces).into())),
                );
                rest.extend(settle(swarm, now));
            }
            other => rest.push(other),
        }
    }
    rest
}

fn run(swarm: &mut Swarm, from: u64, to: u64) -> Vec<Action> {
    let mut seen = Vec::new();
    for ms in (from..to).step_by(5) {
        if swarm.poll_timeout().is_some_and(|wake| wake <= Time(ms)) {
            swarm.handle_timeout(at(ms));
        }
        seen.extend(settle(swarm, at(ms)));
    }
    seen
}

fn fetches(actions: &[Action]) -> Vec<Ticket> {
    actions
        .iter()
        .filter_map(|a| {
            if let Action::Fetch { ticket, .. } = a {
                Some(*ticket)
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn an_origin_wants_nothing() {
    let mut swarm = Swarm::new(
        node_id(1),
        NodeRole::Origin,
        Tempo::default(),
        Grain::default(),
        1,
    );
    swarm.want(at(0), want(&release(1, 1 << 20, 1 << 19)));
    assert_eq!(actions(&mut swarm), []);
    assert_eq!(swarm.poll_timeout(), None);
}

#[test]
fn a_better_claim_during_the_wait_wins_and_a_worse_one_does_not() {
    let release = release(2, 1 << 20, 1 << 19);
    let index = release.artifact.index;
    // Two nodes that both want the index; which of them ranks first is left to the hash.
    let mut yielded = 0;
    for (me, other) in [(1, 2), (2, 1)] {
        let mut swarm = swarm(me, &[other]);
        swarm.want(at(2_000), want(&release));
        let claimed = |actions: &[Action]| {
            actions.iter().any(|a| matches!(a, Action::Gossip(SiteMessage::Claim(c)) if c.blob == index.root && c.held))
        };
        let mut ms = 2_000;
        while !claimed(&run(&mut swarm, ms, ms + 5)) {
            ms += 5;
            assert!(ms < 3_000);
        }
        let claim = Claim {
            node: node_id(other),
            blob: index.root,
            pieces: vec![0],
            held: true,
            under_way: 0,
        };
        swarm.handle(at(ms + 10), Input::Claim(claim));
        yielded += usize::from(fetches(&run(&mut swarm, ms + 10, ms + 1_000)).is_empty());
    }
    assert_eq!(yielded, 1, "exactly one of the two yields");
}

#[test]
fn a_claim_that_stands_is_respected_until_its_lease_ends() {
    let release = release(3, 1 << 20, 1 << 19);
    let index = release.artifact.index;
    let mut swarm = swarm(1, &[2]);
    swarm.want(at(2_000), want(&release));
    let claim = Claim {
        node: node_id(2),
        blob: index.root,
        pieces: vec![0],
        held: true,
        under_way: 0,
    };
    swarm.handle(at(2_000), Input::Claim(claim));
    assert_eq!(fetches(&run(&mut swarm, 2_000, 6_950)), []);
    assert_eq!(fetches(&run(&mut swarm, 6_950, 7_500)).len(), 1);
}

#[test]
fn a_holder_answers_an_asker_and_a_claim() {
    let release = release(4, 1 << 20, 1 << 19);
    let pack = release.artifact.pack;
    let mut swarm = swarm(1, &[2]);
    swarm.want(at(2_000), want(&release));
    for action in actions(&mut swarm) {
        if let Action::OpenBlob { ticket, blob } = action {
            let pieces = protocol::pieces::Geometry::of(blob.length).pieces();
            swarm.handle(
                at(2_000),
                Input::BlobOpened(ticket, Some(PieceSet::full(pieces).into())),
            );
        }
    }
    actions(&mut swarm);
    swarm.handle(
        at(2_100),
        Input::Notice(node_id(2), Notice::Interested { blob: pack }),
    );
    let told = |actions: &[Action]| {
        actions.iter().any(|a| matches!(a, Action::Notify { notice: Notice::Have { pieces, .. }, .. } if pieces.is_full()))
    };
    assert!(told(&actions(&mut swarm)));
    let claim = Claim {
        node: node_id(2),
        blob: pack.root,
        pieces: vec![0],
        held: true,
        under_way: 0,
    };
    swarm.handle(at(2_200), Input::Claim(claim));
    assert!(told(&actions(&mut swarm)));
    // Who is not of the site gets nothing.
    swarm.handle(
        at(2_300),
        Input::Notice(node_id(3), Notice::Interested { blob: pack }),
    );
    assert_eq!(actions(&mut swarm), []);
}

#[test]
fn who_asked_before_i_wanted_it_is_answered_then() {
    let release = release(5, 1 << 20, 1 << 19);
    let mut swarm = swarm(1, &[2]);
    swarm.handle(
        at(1_000),
        Input::Notice(
            node_id(2),
            Notice::Interested {
                blob: release.artifact.pack,
            },
        ),
    );
    assert_eq!(actions(&mut swarm), []);
    swarm.want(at(2_000), want(&release));
    let mut told = false;
    for action in actions(&mut swarm) {
        if let Action::OpenBlob { ticket, blob } = action {
            let pieces = protocol::pieces::Geometry::of(blob.length).pieces();
            swarm.handle(
                at(2_000),
                Input::BlobOpened(ticket, Some(PieceSet::full(pieces).into())),
            );
            told |= actions(&mut swarm).iter().any(|a| {
                matches!(
                    a,
                    Action::Notify {
                        notice: Notice::Have { .. },
                        ..
                    }
                )
            });
        }
    }
    assert!(told);
}

/// Others in view would give its rooms a turn; a node alone in its site once waited for that for ever.
#[test]
fn who_learns_that_it_is_alone_brings_over_the_wan_what_it_waited_with() {
    let mut swarm = swarm(1, &[]);
    swarm.set_site_known(at(0), false);
    swarm.want(at(10), want(&release(1, 3 << 20, 1 << 20)));
    assert_eq!(fetches(&run(&mut swarm, 10, 60_000)), []);
    swarm.set_site_known(at(60_000), true);
    assert!(!fetches(&run(&mut swarm, 60_000, 65_000)).is_empty());
}

pub(super) fn any_input(blobs: Vec<BlobRef>) -> impl Strategy<Value = Input> {
    let node = (0u64..6).prop_map(node_id);
    let blob = (0..blobs.len(), any::<bool>()).prop_map(move |(i, odd)| {
        let length = if odd {
            blobs[i].length + 1
        } else {
            blobs[i].length
        };
        BlobRef {
            root: blobs[i].root,
            length,
        }
    });
    let set = (0u32..80, any::<bool>()).prop_map(|(n, full)| {
        if full {
            PieceSet::full(n)
        } else {
            PieceSet::empty(n)
        }
    });
    let pieces = proptest::collection::vec(prop_oneof![0u32..70, any::<u32>()], 0..9);
    prop_oneof![
        (node.clone(), blob.clone(), set.clone())
            .prop_map(|(n, blob, pieces)| Input::Notice(n, Notice::Have { blob, pieces })),
        (node.clone(), blob.clone(), pieces.clone())
            .prop_map(|(n, blob, pieces)| Input::Notice(n, Notice::Won { blob, pieces })),
        (node.clone(), blob.clone())
            .prop_map(|(n, blob)| Input::Notice(n, Notice::Interested { blob })),
        (node.clone(), blob, pieces, any::<bool>()).prop_map(|(node, blob, pieces, held)| {
            Input::Claim(Claim {
                node,
                blob: blob.root,
                under_way: pieces.len() as u32 / 2,
                pieces,
                held,
            })
        }),
        (1u64..60, 0u64..1 << 20).prop_map(|(t, n)| Input::FetchProgress(Ticket(1 << 63 | t), n)),
        (1u64..60, 0usize..8).prop_map(|(t, o)| {
            let outcomes = [
                FetchOutcome::Complete,
                FetchOutcome::NotHeld,
                FetchOutcome::Busy,
                FetchOutcome::Poisoned,
                FetchOutcome::Slow,
                FetchOutcome::Broken,
                FetchOutcome::Cancelled,
                FetchOutcome::Storage,
            ];
            Input::FetchEnded(Ticket(1 << 63 | t), outcomes[o])
        }),
        (1u64..60, set)
            .prop_map(|(t, set)| Input::BlobOpened(Ticket(1 << 63 | t), Some(set.into()))),
        (1u64..60).prop_map(|t| Input::FramesRead(Ticket(1 << 63 | t), None)),
        (1u64..60, 0..3usize).prop_map(|(t, n)| {
            let outcomes = [
                FrameOutcome::Decoded,
                FrameOutcome::Wrong,
                FrameOutcome::Storage,
            ];
            Input::FrameDecoded(Ticket(1 << 63 | t), outcomes[n])
        }),
        node.prop_map(Input::PeerBanned),
    ]
}

/// The story: a node whose disk was damaged was cut off by everybody who noticed, and brought over the WAN what
/// its neighbours could have given it.
#[test]
fn who_sent_wrong_bytes_is_no_source_and_still_hears_what_is_here() {
    let release = release(9, 20 << 20, 8 << 20);
    let index = release.artifact.index;
    let pieces = PieceSet::full(protocol::pieces::Geometry::of(index.length).pieces());
    let mut swarm = swarm(1, &[2, 3]);
    swarm.want(at(2_000), want(&release));
    settle(&mut swarm, at(2_000));
    let mut now = 2_000;
    let mut tell = |swarm: &mut Swarm, input| {
        now += 10;
        swarm.handle(at(now), input);
        settle(swarm, at(now))
    };
    let have = |n| {
        let (blob, pieces) = (index, pieces.clone());
        Input::Notice(node_id(n), Notice::Have { blob, pieces })
    };
    let fetched = |said: &[Action]| -> Vec<(Ticket, u64)> {
        let from = |n: &u64, node| node_id(*n) == node;
        said.iter()
            .filter_map(|action| match action {
                Action::Fetch {
                    ticket,
                    from: to,
                    blob,
                    ..
                } if *blob == index => {
                    Some((*ticket, [2, 3].into_iter().find(|n| from(n, to.node))?))
                }
                _ => None,
            })
            .collect()
    };
    let begun = fetched(&tell(&mut swarm, have(2)));
    assert!(!begun.is_empty() && begun.iter().all(|(_, n)| *n == 2));
    let wrong = Input::FetchEnded(begun[0].0, FetchOutcome::Poisoned);
    let said = tell(&mut swarm, wrong);
    let bars = |action: &Action| matches!(action, Action::Ban { peer, .. } if *peer == node_id(2));
    assert!(said.iter().any(bars), "{said:?}");
    for (ticket, _) in &begun[1..] {
        tell(&mut swarm, Input::FetchEnded(*ticket, FetchOutcome::Broken));
    }
    assert_eq!(
        fetched(&tell(&mut swarm, have(2))),
        [],
        "it is not believed"
    );
    let mut under_way = fetched(&tell(&mut swarm, have(3)));
    assert!(!under_way.is_empty());
    while let Some((ticket, n)) = under_way.pop() {
        assert_eq!(n, 3);
        let ended = Input::FetchEnded(ticket, FetchOutcome::Complete);
        under_way.extend(fetched(&tell(&mut swarm, ended)));
    }
    let wants = Input::Notice(node_id(2), Notice::Interested { blob: index });
    let said = tell(&mut swarm, wants);
    let told = |action: &Action| {
        matches!(action, Action::Notify { to, notice: Notice::Have { blob, .. } }
            if to.node == node_id(2) && *blob == index)
    };
    assert!(said.iter().any(told), "{said:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    /// Whatever comes, nothing panics, little is said per input, and no banned or foreign node is asked.
    #[test]
    fn no_input_breaks_it(
        inputs in {
            let a = release(9, 20 << 20, 8 << 20).artifact;
            proptest::collection::vec((any_input(vec![a.index, a.pack, a.carriers[0].blob]), 0u64..400), 0..40)
        },
    ) {
        let mut swarm = swarm(1, &[2, 3, 4]);
        swarm.want(at(2_000), want(&release(9, 20 << 20, 8 << 20)));
        settle(&mut swarm, at(2_000));
        let mut now = 2_000;
        let mut banned = Vec::new();
        for (input, ms) in inputs {
            now += ms;
            if let Input::PeerBanned(node) = input {
                banned.push(node);
            }
            swarm.handle(at(now), input);
            let said = actions(&mut swarm);
            prop_assert!(said.len() < 200);
            for action in said {
                match action {
                    Action::Fetch { from, pieces, .. } => {
                        let known = [2, 3, 4, u64::MAX].map(node_id).contains(&from.node);
                        prop_assert!(known && !banned.contains(&from.node), "{:?} is asked", from.node);
                        prop_assert_eq!(pieces.len(), 1);
                    }
                    Action::Ban { peer, .. } => banned.push(peer),
                    _ => {}
                }
            }
        }
    }
}
