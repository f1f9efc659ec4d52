//! Every event of the ledger as committed JSON: a ledger of today must replay in every later program.

#[path = "../../../protocol/tests/support/golden.rs"]
mod golden;

use std::collections::BTreeMap;

use protocol::fixtures::{CREATED, EXPIRES, Fleet, node, node_key, rollout, seq, site};
use protocol::inventory::{NodeInventory, SignedInventory};
use protocol::lift::Lift;
use protocol::orders::OrderBody;
use protocol::plan::{Gate, Priority, Proposal, Selector, Targets, WaveDraft};
use protocol::revocation::MassRevocation;
use protocol::status::{NodeStatus, State};
use protocol::trust::{Role, Statement};
use protocol::{Hash, PublicKey, Span};
use tidegate_coordinator_core::contract::{
    ByHand, Enrolled, LedgerEvent, RolloutState, TokenMade, TokenTerms, Verdict,
};

golden::variants!(every_event_of of LedgerEvent: Epoch, Restored, Regained, Barred, Renewed, TokenMade, Admitted, Enrolled, Revoked, Warranted, Moved, Rooted, Topology, Released,
    Proposed, Approved, State, Targets, WaveOpened, Verdict, Order, Recalled, Statuses, Silent,
    Enlisted, Cleared, CohortHeld, Problem, Inventory,
    CohortReleased, HaltedAll, Lifted, InstalledByHand, Assessing, Witnessed, Dawned);
golden::variants!(every_state_of of RolloutState: WaitingForApproval, Ready, Running, Paused, Preempted, Held,
    Aborted, Recalling, Recalled, Finished);
golden::variants!(every_verdict_of of Verdict: Wait, Pass, Fail);
golden::variants!(every_body_of of OrderBody: GoLease, Halt, Resume, Recall, Bulletin);

const STATES: [RolloutState; 10] = [
    RolloutState::WaitingForApproval,
    RolloutState::Ready,
    RolloutState::Running,
    RolloutState::Paused,
    RolloutState::Preempted,
    RolloutState::Held,
    RolloutState::Aborted,
    RolloutState::Recalling,
    RolloutState::Recalled,
    RolloutState::Finished,
];
const VERDICTS: [Verdict; 3] = [Verdict::Wait, Verdict::Pass, Verdict::Fail];

#[test]
fn every_event_is_read_and_written_as_ever() {
    let events = events();
    every_event_of(events.iter().map(|(_, event)| event));
    every_state_of(&STATES);
    every_verdict_of(&VERDICTS);
    let samples: Vec<_> = events
        .iter()
        .map(|(name, event)| (format!("{name}.json"), serde_json::to_vec(event).unwrap()))
        .collect();
    for ((name, event), (_, bytes)) in events.iter().zip(&samples) {
        let read: LedgerEvent = serde_json::from_slice(bytes).unwrap();
        assert_eq!(read, *event, "{name}");
    }
    golden::check("ledger-events", &samples, |bytes| {
        let event: LedgerEvent = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        serde_json::to_vec(&event).map_err(|e| e.to_string())
    });
}

fn lower(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn events() -> Vec<(String, LedgerEvent)> {
    let fleet = Fleet::new(1);
    let topology = fleet.verified(&fleet.topology(3, 2));
    let release = fleet.verified(&fleet.release("app", "1.2.3", 7));
    let plan = fleet.verified(&fleet.plan("r1", &release, vec![node(1), node(2)]));
    let (recall_order, recall) = fleet.recall(&plan);
    let id = rollout("r1");
    let proposal = Proposal {
        spec_version: 1,
        fleet: fleet.id(),
        rollout: id.clone(),
        release: release.digest(),
        proposer: fleet.proposer(),
        priority: Priority::High,
        targets: Targets {
            sites: vec![site("s1")],
            exclusions: vec![node(9)],
            filter: None,
        },
        waves: vec![WaveDraft {
            name: "all".into(),
            select: Selector::Rest,
            not_before: CREATED,
            gate: Gate {
                min_success_ppm: 990_000,
                min_sample: 20,
                soak: Span::from_secs(60),
                silence_after: Span::from_secs(900),
            },
        }],
        test: None,
        constraints: Default::default(),
        lease_ttl: Span::from_secs(60),
        not_after: EXPIRES,
    };
    let mut proposed = proposal.to_envelope();
    let proposer = &fleet.keys(Role::Plans)[0];
    proposed.sign(proposer);
    let key = |n: usize| PublicKey(fleet.keys(Role::Plans)[n].verifying_key().to_bytes());
    let status = NodeStatus {
        fleet: fleet.id(),
        node: node(1),
        rollout: id.clone(),
        plan: plan.digest(),
        release: release.digest(),
        wave: 2,
        seq: seq(300),
        state: State::Failed,
        reason: "it is sick".into(),
        entered_at: CREATED,
        attempt: 1,
        install_id: Hash::of(b"install"),
        lan_bytes: 1 << 33,
        wan_bytes: 77,
        exit_code: Some(-9),
        output_tail: "ü\n".into(),
    };
    let enrolled = |site| Enrolled {
        node: node(1),
        hostname: "box".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        labels: BTreeMap::from([("ring".into(), "early".into())]),
        site,
        serial: "0a1b".into(),
        token: "t0k3n".into(),
    };
    let approved = |n, complete| LedgerEvent::Approved {
        rollout: id.clone(),
        by: key(n),
        envelope: plan.envelope().clone(),
        complete,
    };
    let moved = |site| LedgerEvent::Moved {
        node: node(1),
        site,
    };
    let lifted = fleet.sign(&Lift {
        spec_version: 1,
        fleet: fleet.id(),
        rollout: None,
        halted: CREATED,
        reason: "found and locked out".into(),
        created: CREATED,
    });
    let mut inventory = SignedInventory::unsigned(&NodeInventory {
        node: node(1),
        seq: seq(3),
        labels: BTreeMap::new(),
        attributes: BTreeMap::from([("os.name".into(), "debian".into())]),
    });
    inventory.sign(fleet.id(), &node_key(1));
    let inventory = inventory.verify(fleet.id()).unwrap().envelope().clone();
    let bulletin = fleet.bulletin(Some(&topology), &[(&plan, 4)]);
    let bodies = [
        fleet.lease(&plan, 1),
        OrderBody::Halt {
            rollout: id.clone(),
            reason: "it harms".into(),
        },
        OrderBody::Resume {
            rollout: id.clone(),
        },
        recall_order,
        OrderBody::Bulletin(bulletin),
    ];
    every_body_of(&bodies);
    let mut all = vec![
        ("epoch", LedgerEvent::Epoch { epoch: 3 }),
        (
            "restored",
            LedgerEvent::Restored {
                why: "from a backup of 80 entries".into(),
                at: CREATED,
            },
        ),
        (
            "regained",
            LedgerEvent::Regained {
                plan: plan.envelope().clone(),
            },
        ),
        (
            "token_made",
            LedgerEvent::TokenMade(TokenMade {
                id: "t0k3n".into(),
                by: "nora".into(),
                uses: 200,
                expires: CREATED,
                site: Some(site("s1")),
                foreign: false,
                terms: TokenTerms::default(),
            }),
        ),
        (
            "token_made_foreign",
            LedgerEvent::TokenMade(TokenMade {
                id: "f0r31gn".into(),
                by: "nora".into(),
                uses: 20,
                expires: CREATED,
                site: None,
                foreign: true,
                terms: TokenTerms::default(),
            }),
        ),
        (
            "token_made_terms",
            LedgerEvent::TokenMade(TokenMade {
                id: "t3rm5".into(),
                by: "nora".into(),
                uses: 20,
                expires: CREATED,
                site: Some(site("s1")),
                foreign: false,
                terms: TokenTerms {
                    from: vec!["10.1.0.0/16".parse().unwrap()],
                    labels: [("kiosk".to_owned(), "yes".to_owned())].into(),
                    by_hand: true,
                },
            }),
        ),
        (
            "admitted",
            LedgerEvent::Admitted {
                node: node(1),
                by: "nora".into(),
                tokens: vec!["t3rm5".into()],
            },
        ),
        (
            "renewed",
            LedgerEvent::Renewed {
                node: node(1),
                serial: "0a1c".into(),
            },
        ),
        (
            "barred",
            LedgerEvent::Barred {
                serials: vec!["0a1b".into()],
                number: 7,
            },
        ),
        ("enrolled", LedgerEvent::Enrolled(enrolled(None))),
        (
            "enrolled.site",
            LedgerEvent::Enrolled(enrolled(Some(site("s1")))),
        ),
        (
            "revoked",
            LedgerEvent::Revoked {
                node: node(1),
                reason: "lost".into(),
            },
        ),
        (
            "warranted",
            LedgerEvent::Warranted {
                envelope: fleet.sign(&MassRevocation {
                    spec_version: 1,
                    fleet: fleet.id(),
                    nodes: vec![node(1)],
                    certificates: 3,
                    list: Hash::of(b"list"),
                    reason: "stolen in transit".into(),
                    created: CREATED,
                }),
            },
        ),
        ("moved", moved(Some(site("s2")))),
        ("moved.away", moved(None)),
        (
            "topology",
            LedgerEvent::Topology {
                envelope: topology.envelope().clone(),
            },
        ),
        (
            "released",
            LedgerEvent::Released {
                envelope: release.envelope().clone(),
            },
        ),
        (
            "proposed",
            LedgerEvent::Proposed {
                proposal: proposed,
                plan: Box::new((*plan).clone()),
            },
        ),
        ("approved", approved(1, false)),
        ("approved.complete", approved(2, true)),
        (
            "targets",
            LedgerEvent::Targets {
                rollout: id.clone(),
                joined: vec![(node(1), 0), (node(2), 1)],
                left: vec![(node(3), "revoked".into())],
            },
        ),
        (
            "wave_opened",
            LedgerEvent::WaveOpened {
                rollout: id.clone(),
                wave: 1,
                at: CREATED,
            },
        ),
        (
            "dawned",
            LedgerEvent::Dawned {
                rollout: id.clone(),
                day: 20_780,
            },
        ),
        (
            "recalled",
            LedgerEvent::Recalled {
                envelope: recall.envelope().clone(),
            },
        ),
        (
            "statuses",
            LedgerEvent::Statuses {
                statuses: vec![status.sign(&node_key(1))],
            },
        ),
        (
            "enlisted",
            LedgerEvent::Enlisted {
                rollout: id.clone(),
                except: vec![node(9001)],
                waves: vec![5, 99_995],
            },
        ),
        (
            "cleared",
            LedgerEvent::Cleared {
                rollout: id.clone(),
                cohort: None,
                counts: (400, 1),
                at: CREATED,
            },
        ),
        (
            "cleared.cohort",
            LedgerEvent::Cleared {
                rollout: id.clone(),
                cohort: Some(2),
                counts: (400, 1),
                at: CREATED,
            },
        ),
        (
            "cohort_held",
            LedgerEvent::CohortHeld {
                rollout: id.clone(),
                cohort: 2,
                counts: (1, 11),
                why: "nodes with driver=e1000 fail".into(),
                at: CREATED,
            },
        ),
        (
            "inventory",
            LedgerEvent::Inventory {
                envelope: inventory,
            },
        ),
        (
            "cohort_released",
            LedgerEvent::CohortReleased {
                rollout: id.clone(),
                cohort: 2,
                at: CREATED,
            },
        ),
        (
            "halted_all",
            LedgerEvent::HaltedAll {
                why: "an intruder".into(),
                at: CREATED,
            },
        ),
        ("lifted", LedgerEvent::Lifted { envelope: lifted }),
        (
            "rooted",
            LedgerEvent::Rooted {
                envelope: fleet.trust().root().envelope().clone(),
            },
        ),
        (
            "problem",
            LedgerEvent::Problem {
                rollout: id.clone(),
                node: node(1),
                what: "no sound any more".into(),
                at: CREATED,
            },
        ),
        (
            "assessing",
            LedgerEvent::Assessing {
                release: Hash::of(b"release"),
                until: Some(EXPIRES),
                within: Span::from_secs(500),
                at: CREATED,
            },
        ),
        (
            "assessing.ended",
            LedgerEvent::Assessing {
                release: Hash::of(b"release"),
                until: None,
                within: Span::ZERO,
                at: CREATED,
            },
        ),
        (
            "installed_by_hand",
            LedgerEvent::InstalledByHand(ByHand {
                node: node(1),
                release: Hash::of(b"release"),
                who: "Dana of the night shift".into(),
                why: "its disk was changed".into(),
                noted_by: "api-token".into(),
                at: CREATED,
            }),
        ),
        (
            "witnessed",
            LedgerEvent::Witnessed {
                rollout: id.clone(),
                silent: vec![node(1)],
                back: vec![node(2)],
            },
        ),
        (
            "silent",
            LedgerEvent::Silent {
                rollout: id.clone(),
                nodes: vec![node(1)],
            },
        ),
    ]
    .into_iter()
    .map(|(name, event)| (name.to_owned(), event))
    .collect::<Vec<_>>();
    all.extend(STATES.map(|state| {
        let event = LedgerEvent::State {
            rollout: id.clone(),
            state,
            why: "an operator asked".into(),
            at: CREATED,
        };
        (format!("state.{}", lower(&state)), event)
    }));
    all.extend(VERDICTS.map(|verdict| {
        let event = LedgerEvent::Verdict {
            rollout: id.clone(),
            wave: 0,
            verdict,
            counts: (19, 1),
            why: "19 of 20".into(),
            at: CREATED,
        };
        (format!("verdict.{}", lower(&verdict)), event)
    }));
    let names = ["lease", "halt", "resume", "recall", "bulletin"];
    all.extend(bodies.into_iter().zip(names).map(|(body, name)| {
        let order = (*fleet.order(5, body)).clone();
        (format!("order.{name}"), LedgerEvent::Order(Box::new(order)))
    }));
    all
}
