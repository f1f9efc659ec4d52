//! Records come back as they were kept, and damage is named instead of panicking.

use std::collections::BTreeMap;
use std::sync::Arc;

use node_core::contract::{Boundary, Failure, FailureClass};
use protocol::Seq;
use protocol::constraints::Offer;
use protocol::fixtures::{self, Fleet};
use protocol::status::{NodeStatus, State};
use protocol::wire::Presence;

use super::*;

/// One record of every kind, two orders.
pub(super) fn everything(fleet: &Fleet) -> Vec<Record> {
    let release = fleet.verified(&fleet.release("app", "1.0", 1));
    let plan = fleet.verified(&fleet.plan("r1", &release, vec![fixtures::node(1)]));
    let (recall_body, recall) = fleet.recall(&plan);
    let status = NodeStatus {
        fleet: fleet.id(),
        node: fixtures::node(1),
        rollout: plan.rollout.clone(),
        plan: plan.digest(),
        release: release.digest(),
        wave: 0,
        seq: fixtures::seq(7),
        state: State::Verifying,
        reason: "soaks".into(),
        entered_at: Time(5),
        attempt: 1,
        install_id: Hash::of(b"i"),
        lan_bytes: 1,
        wan_bytes: 2,
        exit_code: Some(3),
        output_tail: "tail".into(),
    };
    vec![
        Record::Topology(fleet.verified(&fleet.topology(3, 2))),
        Record::Order(fleet.order(4, fleet.lease(&plan, 0))),
        Record::Order(fleet.order(5, recall_body)),
        Record::Recall(recall),
        Record::Lease(LeaseRecord {
            rollout: plan.rollout.clone(),
            plan: plan.digest(),
            wave: 0,
            seq: fixtures::seq(4),
            received: Time(9),
            boot_id: Hash::of(b"boot"),
            not_after: Time(99),
        }),
        Record::Journal(JournalRecord {
            rollout: plan.rollout.clone(),
            release: release.digest(),
            install_id: Hash::of(b"i"),
            attempt: 2,
            at: Boundary::RollingBack,
            before: Some(Hash::of(b"old")),
            switched_at: Some(Time(8)),
            failure: Some(Failure {
                reason: "sick".into(),
                exit_code: Some(1),
                output_tail: "no".into(),
                class: FailureClass::Release,
            }),
            more: Default::default(),
        }),
        Record::Installed(InstalledRecord {
            product: release.product.clone(),
            release: release.digest(),
            previous: None,
        }),
        Record::Status(StatusRecord {
            status,
            acknowledged: Some(fixtures::seq(6)),
        }),
        Record::Counters(CountersRecord {
            topology: 3,
            releases: BTreeMap::from([(release.product.clone(), 1)]),
            orders: fixtures::seq(5),
            own: Seq { epoch: 0, n: 12 },
        }),
        Record::Peers(PeersRecord {
            site: fixtures::site("s1"),
            members: vec![Arc::new(Presence {
                contact: fixtures::contact(2),
                site: Some(fixtures::site("s1")),
                roaming: false,
                seq: fixtures::seq(3),
                orders_head: fixtures::seq(5),
                leaving: false,
            })],
        }),
        Record::Offer(OfferRecord {
            rollout: fixtures::rollout("r1"),
            offer: Offer {
                made: Time(5),
                not_before: Time(6),
                deferrals: 1,
                now: true,
            },
        }),
        Record::Plan(plan),
        Record::Release(release),
    ]
}

fn keep(records: &[Record]) -> Vec<Change> {
    records
        .iter()
        .map(|r| Change::Keep(Box::new(r.clone())))
        .collect()
}

fn sorted(mut records: Vec<Record>) -> Vec<Record> {
    records.sort_by_key(Record::key);
    records
}

#[test]
fn every_kind_of_record_comes_back_after_a_restart() {
    let (fleet, dir) = (Fleet::new(1), tempfile::tempdir().unwrap());
    let kept = everything(&fleet);
    Records::open(dir.path())
        .unwrap()
        .apply(&keep(&kept))
        .unwrap();
    let loaded = Records::open(dir.path())
        .unwrap()
        .load(fleet.trust())
        .unwrap();
    assert_eq!(sorted(loaded.memory.records), sorted(kept));
    assert!(loaded.dropped.is_empty());
}

#[test]
fn a_new_record_replaces_the_old_one_and_a_forgotten_one_is_gone() {
    let (fleet, dir) = (Fleet::new(1), tempfile::tempdir().unwrap());
    let records = Records::open(dir.path()).unwrap();
    let newer = Record::Topology(fleet.verified(&fleet.topology(4, 1)));
    records.apply(&keep(&everything(&fleet))).unwrap();
    records.apply(&keep(std::slice::from_ref(&newer))).unwrap();
    let mut changes = Vec::new();
    for record in everything(&fleet) {
        if record.key() != RecordKey::Topology {
            changes.push(Change::Forget(record.key()));
        }
    }
    records.apply(&changes).unwrap();
    let loaded = records.load(fleet.trust()).unwrap();
    assert_eq!(loaded.memory.records, vec![newer]);
}

#[test]
fn a_statement_whose_keys_lost_their_role_is_dropped_by_name() {
    let (fleet, other, dir) = (Fleet::new(1), Fleet::new(2), tempfile::tempdir().unwrap());
    let records = Records::open(dir.path()).unwrap();
    records.apply(&keep(&everything(&fleet))).unwrap();
    let loaded = records.load(other.trust()).unwrap();
    assert!(loaded.memory.records.iter().all(|r| matches!(
        r,
        Record::Lease(_)
            | Record::Journal(_)
            | Record::Installed(_)
            | Record::Status(_)
            | Record::Counters(_)
            | Record::Peers(_)
            | Record::Offer(_)
    )));
    assert_eq!(loaded.dropped.len(), 6);
    assert!(loaded.dropped.iter().all(|(event, _)| *event == "scope"));
}

#[test]
fn documents_roots_and_facts_are_kept() {
    let (fleet, dir) = (Fleet::new(1), tempfile::tempdir().unwrap());
    let root = fleet.trust().root().envelope().clone();
    let crl = Hash::of(b"crl");
    let changes = [
        Change::Root(1, root.clone()),
        Change::Floor(Time(77)),
        Change::Document(crl, b"crl".to_vec()),
        Change::Revocations(crl),
    ];
    Records::open(dir.path()).unwrap().apply(&changes).unwrap();
    let records = Records::open(dir.path()).unwrap();
    assert_eq!(records.roots().unwrap(), vec![root.clone()]);
    assert_eq!(records.root(1).unwrap(), Some(root.to_json()));
    assert_eq!(records.root(2).unwrap(), None);
    assert_eq!(records.floor().unwrap(), Time(77));
    assert_eq!(records.revocations().unwrap(), Some(crl));
    assert_eq!(records.document(crl).unwrap(), Some(b"crl".to_vec()));
    assert_eq!(records.document(Hash::of(b"else")).unwrap(), None);
}

#[test]
fn documents_are_bounded_and_the_revocation_list_in_force_stays() {
    let dir = tempfile::tempdir().unwrap();
    let records = Records::open(dir.path()).unwrap();
    let crl = Hash::of(b"crl");
    records
        .apply(&[
            Change::Document(crl, b"crl".to_vec()),
            Change::Revocations(crl),
        ])
        .unwrap();
    let document = |n: u64| Change::Document(Hash::of(&n.to_le_bytes()), vec![1]);
    let many: Vec<_> = (0..DOCUMENTS_MAX + 10).map(document).collect();
    records.apply(&many).unwrap();
    let held = |n: u64| {
        records
            .document(Hash::of(&n.to_le_bytes()))
            .unwrap()
            .is_some()
    };
    assert!(records.document(crl).unwrap().is_some());
    assert!(!held(0) && !held(10));
    assert!(held(11) && held(DOCUMENTS_MAX + 9));
}

#[test]
fn a_database_that_is_open_elsewhere_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Records::open(dir.path()).unwrap();
    assert!(matches!(
        Records::open(dir.path()),
        Err(RecordsError::InUse(_))
    ));
}

#[test]
fn a_file_that_is_no_database_gets_one_clear_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    std::fs::write(dir.path().join("store/store.redb"), vec![7u8; 100_000]).unwrap();
    let line = Records::open(dir.path()).unwrap_err().to_string();
    assert!(line.contains("store.redb is damaged"), "{line}");
    assert!(
        line.contains("enrol the machine again") && !line.contains('\n'),
        "{line}"
    );
}

/// A node whose disk rotted must say so, not panic: redb trusts a file that was closed cleanly
/// unless it is asked to check.
#[test]
fn damage_anywhere_never_panics() {
    let (fleet, dir) = (Fleet::new(1), tempfile::tempdir().unwrap());
    Records::open(dir.path())
        .unwrap()
        .apply(&keep(&everything(&fleet)))
        .unwrap();
    let path = dir.path().join("store/store.redb");
    let sound = std::fs::read(&path).unwrap();
    let mut named = 0;
    for case in 0..64usize {
        let mut bytes = sound.clone();
        if case % 4 == 0 {
            bytes.truncate(sound.len() / 64 * case);
        } else {
            let at = (sound.len() / 64) * case + case * 37 % 4096;
            let end = (at + 512).min(bytes.len());
            bytes[at.min(end)..end].iter_mut().for_each(|b| *b ^= 0x5a);
        }
        std::fs::write(&path, &bytes).unwrap();
        match Records::open(dir.path()).and_then(|r| r.load(fleet.trust()).map(drop)) {
            Ok(()) => {}
            Err(e) => {
                assert!(e.to_string().contains("store.redb"), "{e}");
                named += 1;
            }
        }
    }
    assert!(named > 0);
}
