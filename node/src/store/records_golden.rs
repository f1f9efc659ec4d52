//! Records and their keys as committed bytes.

use node_core::contract::{Boundary, Failure, FailureClass};
use protocol::orders::Subject;
use protocol::status::{State, WaitingFor};

use super::tests::everything;
use super::*;
use crate::golden;
use protocol::fixtures::{Fleet, rollout, site};

golden::variants!(every_record_of of Record: Topology, Plan, Release, Order, Recall, Lease, Journal,
    Installed, Status, Counters, Peers, Offer);
golden::variants!(every_key_of of RecordKey: Topology, Plan, Release, Order, Recall, Lease, Journal,
    Installed, Status, Counters, Peers, Offer);
golden::variants!(every_subject_of of Subject: Lease, Hold, Recall, Bulletin);
golden::variants!(every_boundary_of of Boundary: Claimed, StagedVerified, SlotIntent, SlotWritten,
    SwitchIntent, Switched, RestartArmed, Healthy, Committed, Reported, RollingBack, RolledBack,
    PreHook, PreHooked, PostHook, PostHooked);
golden::variants!(every_class_of of FailureClass: Release, Machine, DiskFull, Download, PreHook,
    InstallerBusy, Installer, Timeout, PostHook, Restart, Health, Interrupted);
golden::variants!(every_state_of of State: NotReceived, Received, Downloading, Staged, Waiting,
    Installing, PendingRestart, Restarting, Verifying, Succeeded, Failed, RollingBack, RolledBack,
    RollbackFailed, NotApplicable, AlreadyInstalled, Exempt, Held, Cancelled, Superseded,
    MissingReport);
golden::variants!(every_wait_of of WaitingFor: Wave, Lease, Window, Freeze, Deferral, Dependency,
    Barrier, Lock, Disk, Power, Link, Halt, Expired);

const BOUNDARIES: [Boundary; 16] = [
    Boundary::Claimed,
    Boundary::StagedVerified,
    Boundary::SlotIntent,
    Boundary::SlotWritten,
    Boundary::SwitchIntent,
    Boundary::Switched,
    Boundary::RestartArmed,
    Boundary::Healthy,
    Boundary::Committed,
    Boundary::Reported,
    Boundary::RollingBack,
    Boundary::RolledBack,
    Boundary::PreHook,
    Boundary::PreHooked,
    Boundary::PostHook,
    Boundary::PostHooked,
];
const WAITS: [WaitingFor; 13] = [
    WaitingFor::Wave,
    WaitingFor::Lease,
    WaitingFor::Window,
    WaitingFor::Freeze,
    WaitingFor::Deferral,
    WaitingFor::Dependency,
    WaitingFor::Barrier,
    WaitingFor::Lock,
    WaitingFor::Disk,
    WaitingFor::Power,
    WaitingFor::Link,
    WaitingFor::Halt,
    WaitingFor::Expired,
];
const STATES: [State; 20] = [
    State::NotReceived,
    State::Received,
    State::Downloading,
    State::Staged,
    State::Installing,
    State::PendingRestart,
    State::Restarting,
    State::Verifying,
    State::Succeeded,
    State::Failed,
    State::RollingBack,
    State::RolledBack,
    State::RollbackFailed,
    State::NotApplicable,
    State::AlreadyInstalled,
    State::Exempt,
    State::Held,
    State::Cancelled,
    State::Superseded,
    State::MissingReport,
];

/// One of each kind, and of each boundary and state, as they stand for numbers in the bytes.
fn records(fleet: &Fleet) -> Vec<(String, Record)> {
    let mut all = Vec::new();
    for record in everything(fleet) {
        let kind = kind(&record.key());
        match &record {
            Record::Order(order) => {
                all.push((format!("{kind}.{}", subject(&order.body.subject())), record));
            }
            Record::Journal(journal) => {
                for at in BOUNDARIES {
                    let journal = JournalRecord {
                        at,
                        before: None,
                        switched_at: None,
                        failure: None,
                        ..journal.clone()
                    };
                    all.push((format!("{kind}.{at:?}"), Record::Journal(journal)));
                }
                for class in FailureClass::ALL {
                    let failure = journal.failure.clone().map(|f| Failure { class, ..f });
                    let journal = JournalRecord {
                        failure,
                        more: JournalMore {
                            failed: Some((class, 2)),
                            retry_at: Some(Time(77)),
                            armed: Some(Hash::of(b"boot")),
                        },
                        ..journal.clone()
                    };
                    let name = format!("{kind}.more.{}", class.name());
                    all.push((name, Record::Journal(journal)));
                }
                all.push((format!("{kind}.failure"), record));
            }
            Record::Installed(installed) => {
                let over = InstalledRecord {
                    previous: Some(Hash::of(b"before")),
                    ..installed.clone()
                };
                all.push((format!("{kind}.previous"), Record::Installed(over)));
                all.push((kind, record));
            }
            Record::Status(status) => {
                let states = STATES.into_iter().chain(WAITS.map(State::Waiting));
                for state in states {
                    let mut status = status.clone();
                    status.status.state = state;
                    status.status.exit_code = None;
                    status.acknowledged = None;
                    let name = match state {
                        State::Waiting(wait) => format!("{kind}.Waiting{wait:?}"),
                        state => format!("{kind}.{state:?}"),
                    };
                    all.push((name, Record::Status(status)));
                }
                all.push((format!("{kind}.acknowledged"), record));
            }
            _ => all.push((kind, record)),
        }
    }
    all
}

fn kind(key: &RecordKey) -> String {
    let name = format!("{key:?}");
    name.split('(').next().unwrap_or_default().to_owned()
}

fn subject(subject: &Subject) -> String {
    let name = format!("{subject:?}");
    name.split('(').next().unwrap_or_default().to_owned()
}

#[test]
fn every_record_is_read_and_written_as_ever() {
    let fleet = Fleet::new(1);
    let records = records(&fleet);
    every_record_of(records.iter().map(|(_, record)| record));
    every_boundary_of(&BOUNDARIES);
    every_class_of(&FailureClass::ALL);
    every_wait_of(&WAITS);
    every_state_of(STATES.iter().chain([&State::Waiting(WaitingFor::Wave)]));
    let samples: Vec<_> = records
        .iter()
        .map(|(name, record)| (format!("{name}.bin"), stored(record)))
        .collect();
    for (name, record) in &records {
        assert_eq!(
            restore(&stored(record), fleet.trust()),
            Ok(record.clone()),
            "{name}"
        );
    }
    golden::check("records", &samples, |bytes| {
        let record = restore(bytes, fleet.trust()).map_err(|(_, line)| line)?;
        Ok(stored(&record))
    });
}

#[test]
fn every_key_is_written_as_ever() {
    let id = || rollout("r1");
    let keys = [
        RecordKey::Topology,
        RecordKey::Plan(Hash::of(b"plan")),
        RecordKey::Release(Hash::of(b"release")),
        RecordKey::Order(Subject::Lease(id())),
        RecordKey::Order(Subject::Hold(id())),
        RecordKey::Order(Subject::Recall(id())),
        RecordKey::Order(Subject::Bulletin),
        RecordKey::Recall(id()),
        RecordKey::Lease(id()),
        RecordKey::Journal(id()),
        RecordKey::Installed(site("app")),
        RecordKey::Status(id()),
        RecordKey::Counters,
        RecordKey::Peers,
        RecordKey::Offer(id()),
    ];
    every_key_of(&keys);
    every_subject_of(keys.iter().filter_map(|key| match key {
        RecordKey::Order(subject) => Some(subject),
        _ => None,
    }));
    let name = |key: &RecordKey| match key {
        RecordKey::Order(of) => format!("Order.{}.bin", subject(of)),
        other => format!("{}.bin", kind(other)),
    };
    let samples: Vec<_> = keys.iter().map(|k| (name(k), key_bytes(k))).collect();
    golden::check("record-keys", &samples, |bytes| {
        let key = postcard::from_bytes(bytes).map_err(|e| e.to_string())?;
        Ok(key_bytes(&key))
    });
}
