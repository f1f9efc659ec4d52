//! One sample of every format, and of every variant that is written differently.

mod enrolment;
mod foreign;
mod hooks;
mod revoking;
mod wire;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_protocol as protocol;

use protocol::audit::AuditEntry;
use protocol::carrier::{Coding, FrameTable};
use protocol::constraints::{Constraints, Freeze, Needs, PastDeadline, UserRules};
use protocol::envelope::Envelope;
use protocol::feed::{Batch, Roster, Seal, SignedStages, StageCounts, Stages};
use protocol::fixtures::{CREATED, EXPIRES, Fleet, contact, node, node_key, rollout, seq, site};
use protocol::hours::Hours;
use protocol::index::{Chunk, Entry, EntryKind, Index};
use protocol::inventory::{NodeInventory, SignedInventory};
use protocol::lift::Lift;
use protocol::limits::{ENVELOPE_MAX_BYTES, UPLINK_STATUSES_MAX};
use protocol::manifest::{Carrier, CarrierKind, Install, ReleaseManifest, Severity};
use protocol::merkle::{self, AuditProof, LedgerHead};
use protocol::orders::{Assessment, Mark, OrderBody, Receipt};
use protocol::pieces::{Geometry, PieceSet};
use protocol::plan::{
    Gate, Members, Priority, Proposal, RolloutPlan, Selector, SequentialTest, Targets, WaveDraft,
};
use protocol::relations::{Closure, Pick, Relations};
use protocol::schedule::{RateHours, Schedule};
use protocol::slots::{SlotRules, SlotStage, SlotWord};
use protocol::status::{NodeStatus, SignedStatus, State, WaitingFor};
use protocol::topology::{NodeRates, Topology};
use protocol::trust::{Root, Statement, Trust};
use protocol::versioned::Versioned;
use protocol::wire::{
    Beat, Claim, Class, ControlReply, ControlRequest, DataRequest, Notice, Presence, Referral,
    SiteMessage,
};
use protocol::zones::Zone;
use protocol::{BlobRef, Hash, Span};

/// Reads bytes and writes them again; an error for people otherwise.
pub type Again = Box<dyn Fn(&[u8]) -> Result<Vec<u8>, String>>;

/// A format, by example.
pub struct Sample {
    /// `Type.variant.bin` or `.json`.
    pub file: String,
    /// As it is written.
    pub bytes: Vec<u8>,
    /// Reads and writes again.
    pub again: Again,
    /// The longest that is read, if the format has a limit of its own.
    pub limit: Option<usize>,
}

fn binary<T: Versioned + 'static>(variant: &str, value: &T) -> Sample {
    binary_and(variant, value, |_| {})
}

/// With a look into what was read, as its users do.
fn binary_and<T: Versioned + 'static>(
    variant: &str,
    value: &T,
    look: impl Fn(T) + 'static,
) -> Sample {
    let again = move |bytes: &[u8]| {
        let value = T::from_bytes(bytes).map_err(|e| e.to_string())?;
        let written = value.to_bytes();
        look(value);
        Ok(written)
    };
    let file = format!("{}{variant}.bin", name::<T>());
    Sample {
        file,
        bytes: value.to_bytes(),
        again: Box::new(again),
        limit: Some(T::MAX_BYTES),
    }
}

fn json<T: Serialize + DeserializeOwned>(variant: &str, value: &T) -> Sample {
    let again = |bytes: &[u8]| {
        let value: T = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        serde_json::to_vec(&value).map_err(|e| e.to_string())
    };
    let bytes = serde_json::to_vec(value).unwrap();
    Sample {
        file: format!("{}{variant}.json", name::<T>()),
        bytes,
        again: Box::new(again),
        limit: None,
    }
}

/// A statement in its envelope, which must also still be believed, and be written as it was signed.
fn statement<T: Statement + Serialize>(fleet: &Fleet, variant: &str, value: &T) -> Sample {
    let trust = fleet.trust().clone();
    let again = move |bytes: &[u8]| {
        let envelope = Envelope::from_json(bytes).map_err(|e| e.to_string())?;
        let read = trust.verify::<T>(&envelope).map_err(|e| e.to_string())?;
        assert_eq!(
            serde_json::to_vec(&*read).unwrap(),
            envelope.payload,
            "a signed payload is written alike"
        );
        Ok(envelope.to_json())
    };
    let file = format!("{}{variant}.json", name::<T>());
    Sample {
        file,
        bytes: fleet.sign(value).to_json(),
        again: Box::new(again),
        limit: Some(ENVELOPE_MAX_BYTES),
    }
}

fn name<T>() -> &'static str {
    std::any::type_name::<T>().rsplit("::").next().unwrap()
}

fn blob(of: &str, length: u64) -> BlobRef {
    BlobRef {
        root: Hash::of(of.as_bytes()),
        length,
    }
}

/// Everything.
pub fn samples() -> Vec<Sample> {
    let fleet = Fleet::new(1);
    let mut all = content();
    all.extend(statements(&fleet));
    all.extend(wire::control(&fleet));
    all.extend(wire::data());
    all.extend(enrolment::samples(&fleet));
    all.extend(foreign::samples(&fleet));
    all.extend(revoking::all(&fleet));
    all
}

fn content() -> Vec<Sample> {
    let lengths = [100_000u32, 200_000, 60_000];
    let length = lengths.iter().map(|l| u64::from(*l)).sum();
    let chunk = |length: &u32| Chunk {
        hash: Hash::of(&length.to_le_bytes()),
        length: *length,
    };
    let file = |length, chunks: &[u32]| EntryKind::File {
        mode: 0o644,
        length,
        chunks: chunks.to_vec(),
    };
    let entry = |path: &str, kind| Entry {
        path: path.into(),
        kind,
    };
    let index = Index {
        pack: blob("pack", length),
        chunks: lengths.iter().map(chunk).collect(),
        entries: vec![
            entry("bin", EntryKind::Directory { mode: 0o755 }),
            entry("bin/empty", file(0, &[])),
            entry("bin/tool", file(360_000, &[0, 1, 2])),
            entry(
                "bin/tööl",
                EntryKind::Link {
                    target: "../bin/tool".into(),
                },
            ),
            entry("copy", file(160_000, &[0, 2])),
        ],
        piece_cvs: vec![Hash::of(b"first"), Hash::of(b"second")],
    };
    assert_eq!(Geometry::of(length).pieces(), 2);
    let table = FrameTable {
        coding: Coding::Zstd,
        frame_plain: 8 << 20,
        plain: 20 << 20,
        coded: vec![1, 70_000, 8 << 20],
    };
    let delta = FrameTable {
        coding: Coding::ZstdDelta,
        ..table.clone()
    };
    let check = |index: Index| {
        if let Ok(index) = index.check() {
            let end = (0..index.chunks.len() as u32)
                .map(|c| index.chunk_range(c).end)
                .max();
            assert!(end.unwrap_or(0) == index.pack.length);
        }
    };
    let check_table = |table: FrameTable| {
        if table.check(9_000_000, table.plain).is_ok() {
            assert!((0..table.coded.len() as u32).all(|f| !table.plain_range(f).is_empty()));
        }
    };
    vec![
        binary_and("", &index, check),
        binary_and(".full", &table, check_table),
        binary_and(".delta", &delta, check_table),
    ]
}

/// A topology whose first site caps each of its nodes.
fn capped(mut topology: Topology) -> Topology {
    topology.sites[0].node = NodeRates {
        lan_down_bytes_per_s: Some(12_500_000),
        lan_up_bytes_per_s: Some(6_250_000),
        wan_down_bytes_per_s: None,
        wan_up_bytes_per_s: Some(125_000),
    };
    topology
}

/// A topology with hours in one site and no peers in the other.
fn scheduled(mut topology: Topology) -> Topology {
    let hours = |hours: &str, down, up| RateHours {
        hours: hours.parse().unwrap(),
        wan_down_bytes_per_s: down,
        wan_up_bytes_per_s: up,
    };
    topology.sites[0].schedule = Some(Schedule {
        zone: "Europe/Berlin".parse().unwrap(),
        hours: vec![
            hours("mon-fri 08:00-18:00", Some(250_000), Some(0)),
            hours("sat,sun 22:00-04:00", None, None),
        ],
    });
    topology.sites[1].no_peers = true;
    topology
}

fn statements(fleet: &Fleet) -> Vec<Sample> {
    let tree = fleet.release("app", "1.2.3", 7);
    let mut command = ReleaseManifest {
        vendor_severity: Severity::Critical,
        health_check: Some(fleet.health_check(Span::from_secs(30), 3)),
        install: Install::Command {
            steps: vec![vec!["./setup".into(), "--quiet".into()]],
            detect: vec!["rpm".into(), "-q".into(), "app".into()],
            undo: vec![vec!["./setup".into(), "--remove".into()]],
            expected_exit_codes: vec![0, -1, 3010],
            max_run_time: Span::from_secs(600),
            busy: vec![],
        },
        ..tree.clone()
    };
    let base = blob("base", 1 << 30);
    command.artifacts[0].carriers.push(Carrier {
        kind: CarrierKind::Delta { base },
        blob: blob("delta", 99),
    });
    let release = fleet.verified(&tree);
    let plan = fleet.plan("r1", &release, vec![node(1), node(2)]);
    let mut waves = RolloutPlan {
        priority: Priority::Emergency,
        targets: Targets {
            sites: vec![site("s1"), site("s2")],
            exclusions: vec![node(9)],
            filter: None,
        },
        ..plan.clone()
    };
    waves.waves[0].members = Members::Site(site("s1"));
    waves.waves[1].members = Members::PositionBelow(u64::MAX / 4);
    let verified = fleet.verified(&plan);
    let constrained = RolloutPlan {
        test: Some(SequentialTest {
            expected_ppm: 10_000,
            unacceptable_ppm: 30_000,
            false_halt_ppm: 100,
            missed_ppm: 1000,
            in_flight_max: 50,
            cohorts: Vec::new(),
        }),
        constraints: constraints(),
        ..plan.clone()
    };
    let daily = RolloutPlan {
        constraints: Constraints {
            starts_per_day: Some(500),
            ..Constraints::default()
        },
        ..constrained.clone()
    };
    let slotted = RolloutPlan {
        constraints: Constraints {
            slots: Some(SlotRules {
                per: Some("label.role".into()),
                max_unavailable: 2,
                lease: Span::from_secs(600),
            }),
            ..Constraints::default()
        },
        ..plan.clone()
    };
    let filtered = RolloutPlan {
        targets: Targets {
            filter: Some(
                "not label.kiosk and os.name in (debian, \"x y\")"
                    .parse()
                    .unwrap(),
            ),
            ..Targets::default()
        },
        ..plan.clone()
    };
    let meant = ReleaseManifest {
        applicability: Some("os.name=debian and not label.kiosk".parse().unwrap()),
        ..tree.clone()
    };
    let requirements = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
    let related = ReleaseManifest {
        relations: Relations {
            depends_on: requirements(&["runtime>=2.1,<3", "lib"]),
            conflicts: requirements(&["legacy<=4", "rival=1.0"]),
            supersedes: requirements(&["app<1.2.3", "old-app>0"]),
            barrier: Some("its store moves".into()),
            infrastructure: true,
        },
        ..tree.clone()
    };
    let pick = |product, version, counter| Pick {
        product: site(product),
        version: site(version),
        counter,
        release: Hash::of(b"release"),
    };
    let standing = RolloutPlan {
        closure: Closure {
            requires: vec![pick("lib", "1", 1), pick("runtime", "2.10", 3)],
            barriers: vec![pick("app", "1.0", 2), pick("app", "1.2", 6)],
        },
        ..plan.clone()
    };
    let (recall_order, recall) = fleet.recall(&verified);
    let lift = |rollout| Lift {
        spec_version: 1,
        fleet: fleet.id(),
        rollout,
        halted: CREATED,
        reason: "it was a false alarm".into(),
        created: CREATED,
    };
    let gate = Gate {
        min_success_ppm: 990_000,
        min_sample: 20,
        soak: Span::from_secs(60),
        silence_after: Span::from_secs(900),
    };
    let selectors = [
        Selector::Count(5),
        Selector::Percent(25),
        Selector::Site(site("s1")),
        Selector::Label {
            key: "ring".into(),
            value: "early".into(),
        },
        Selector::Rest,
    ];
    let draft = |select| WaveDraft {
        name: "wave".into(),
        select,
        not_before: CREATED,
        gate: gate.clone(),
    };
    let proposal = Proposal {
        spec_version: 1,
        fleet: fleet.id(),
        rollout: rollout("r1"),
        release: release.digest(),
        proposer: fleet.proposer(),
        priority: Priority::High,
        targets: plan.targets.clone(),
        waves: selectors.into_iter().map(draft).collect(),
        test: None,
        constraints: Default::default(),
        lease_ttl: Span::from_secs(60),
        not_after: EXPIRES,
    };
    let topology = fleet.topology(3, 2);
    let bulletin = fleet.bulletin(Some(&fleet.verified(&topology)), &[(&verified, 4)]);
    let mut counted = bulletin.clone();
    counted.ledger_entries = Some(9);
    let mut assessing = bulletin.clone();
    assessing.assess = vec![Assessment {
        release: Hash::of(b"release"),
        within: Span::from_secs(500),
    }];
    let receipt = Receipt {
        spec_version: 1,
        fleet: fleet.id(),
        marks: vec![Mark {
            node: node(1),
            rollout: rollout("r1"),
            seq: seq(12),
        }],
    };
    let order = |variant: &str, body| statement(fleet, variant, &*fleet.order(5, body));
    let halt = OrderBody::Halt {
        rollout: rollout("r1"),
        reason: "it harms".into(),
    };
    vec![
        root(fleet),
        statement(fleet, ".tree", &tree),
        statement(fleet, ".command", &command),
        statement(fleet, ".relations", &related),
        statement(fleet, ".hooks", &hooks::hooked(&tree)),
        statement(fleet, ".applicability", &meant),
        statement(fleet, ".nodes", &plan),
        statement(fleet, ".positions", &waves),
        statement(fleet, ".daily", &daily),
        statement(fleet, ".constraints", &constrained),
        statement(fleet, ".slots", &slotted),
        statement(fleet, ".closure", &standing),
        statement(fleet, ".filter", &filtered),
        statement(fleet, "", &proposal),
        statement(fleet, "", &*recall),
        statement(fleet, ".rollout", &lift(Some(rollout("r1")))),
        statement(fleet, ".all", &lift(None)),
        statement(fleet, "", &topology),
        statement(fleet, ".schedule", &scheduled(topology.clone())),
        statement(fleet, ".node", &capped(topology.clone())),
        statement(fleet, ".foreign", &foreign::ruled(topology.clone())),
        statement(fleet, "", &foreign::verdict(fleet)),
        statement(fleet, "", &receipt),
        statement(fleet, "", &ledger_head(fleet)),
        audit_proof(fleet),
        order(".lease", fleet.lease(&verified, 1)),
        order(".halt", halt),
        order(
            ".resume",
            OrderBody::Resume {
                rollout: rollout("r1"),
            },
        ),
        order(".recall", recall_order),
        order(".bulletin", OrderBody::Bulletin(bulletin)),
        order(".bulletin-counted", OrderBody::Bulletin(counted)),
        order(".bulletin-assess", OrderBody::Bulletin(assessing)),
    ]
}

fn ledger_head(fleet: &Fleet) -> LedgerHead {
    let mut peaks = merkle::Peaks::default();
    (0..5u8).for_each(|n| peaks.push(&Hash::of(&[n])));
    LedgerHead {
        spec_version: 1,
        fleet: fleet.id(),
        entries: 5,
        root: peaks.root(),
        head: Hash::of(&[4]),
        signed: CREATED,
    }
}

fn audit_proof(fleet: &Fleet) -> Sample {
    let hashes: Vec<Hash> = (0..5u8).map(|n| Hash::of(&[n])).collect();
    let proof = AuditProof {
        seq: 3,
        entry: hashes[3],
        path: merkle::path(&hashes, 3),
        head: fleet.sign(&ledger_head(fleet)),
    };
    let (trust, entry) = (fleet.trust().clone(), proof.entry);
    let check = move |proof: AuditProof| {
        if proof.check(&trust).is_ok() {
            assert_eq!(proof.entry, entry, "no other entry is proven");
        }
    };
    binary_and("", &proof, check)
}

/// One of each.
fn constraints() -> Constraints {
    let hours = |text: &str| vec![text.parse::<Hours>().unwrap()];
    let freeze = Freeze {
        name: "year end".into(),
        from: "2026-12-20T00:00".parse().unwrap(),
        to: "2027-01-02T00:00".parse().unwrap(),
        zone: Zone::Local,
        exempt: Some(Priority::Emergency),
    };
    Constraints {
        zone: Zone::Named("Europe/Berlin".into()),
        windows: hours("sat,sun 22:00-04:00"),
        blackouts: hours("mon-fri 08:00-18:00"),
        freezes: vec![freeze],
        deadline: Some(EXPIRES),
        past_deadline: PastDeadline::OverrideWindows,
        quiet: hours("daily 23:30-07:00"),
        user: Some(UserRules {
            optional: false,
            notice: Span::from_secs(900),
            max_deferrals: 3,
            grace: Span::from_secs(7 * 86_400),
        }),
        needs: Needs {
            free_disk_bytes: Some(1 << 30),
            mains: true,
            unmetered: true,
        },
        slots: None,
        spread: Span::from_secs(7200),
        starts_per_day: None,
    }
}

fn root(fleet: &Fleet) -> Sample {
    let id = fleet.id();
    let again = move |bytes: &[u8]| {
        let envelope = Envelope::from_json(bytes).map_err(|e| e.to_string())?;
        Trust::pin(envelope.clone(), id).map_err(|e| e.to_string())?;
        Ok(envelope.to_json())
    };
    let bytes = fleet.trust().root().envelope().to_json();
    Sample {
        file: format!("{}.json", name::<Root>()),
        bytes,
        again: Box::new(again),
        limit: Some(ENVELOPE_MAX_BYTES),
    }
}

fn status(fleet: &Fleet) -> NodeStatus {
    NodeStatus {
        fleet: fleet.id(),
        node: node(1),
        rollout: rollout("r1"),
        plan: Hash::of(b"plan"),
        release: Hash::of(b"release"),
        wave: 2,
        seq: seq(300),
        state: State::Waiting(WaitingFor::Lease),
        reason: "its lease ran out".into(),
        entered_at: CREATED,
        attempt: 1,
        install_id: Hash::of(b"install"),
        lan_bytes: 1 << 33,
        wan_bytes: 77,
        exit_code: Some(-9),
        output_tail: "ü\n".into(),
    }
}
