use std::fs;

use proptest::prelude::*;
use redb::ReadableTable as _;

use super::*;

fn draft(n: u64, body: &[u8]) -> Draft {
    Draft {
        time: Time::from_secs(n),
        actor: "coordinator".into(),
        action: "order".into(),
        object: format!("rollout-{n}"),
        body: body.to_vec(),
    }
}

/// A closed ledger of `n` entries in a directory of its own.
fn ledger(n: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    let mut ledger = Ledger::create(&path).unwrap();
    for i in 0..n {
        ledger.append(vec![draft(i, &[i as u8; 100])]).unwrap();
    }
    (dir, path)
}

/// Changes rows behind the ledger's back, in a file that redb itself finds sound.
fn tamper(path: &Path, change: impl FnOnce(&mut redb::Table<'_, u64, &[u8]>)) {
    let db = builder().open(path).unwrap();
    let txn = db.begin_write().unwrap();
    change(&mut txn.open_table(ENTRIES).unwrap());
    txn.commit().unwrap();
}

/// What `open` and `verify` both say about the first bad entry.
fn first_bad(path: &Path) -> BadEntry {
    let report = verify(path).unwrap();
    let Err(LedgerError::Bad { bad, .. }) = Ledger::open(path) else {
        panic!("opened a bad ledger")
    };
    assert_eq!(report.bad.as_ref(), Some(&bad));
    assert_eq!(report.entries, bad.seq);
    bad
}

fn row(entry: &AuditEntry) -> Vec<u8> {
    [entry.hash().as_bytes().as_slice(), &entry.to_bytes()].concat()
}

#[test]
fn what_was_appended_is_there_after_a_restart_and_goes_on() {
    let (_dir, path) = ledger(3);
    let mut ledger = Ledger::open(&path).unwrap();
    assert_eq!(ledger.entries(), 3);
    let before = ledger.head();
    let head = ledger
        .append((3..6).map(|i| draft(i, b"x")).collect())
        .unwrap();
    assert_ne!(head, before);
    assert_eq!(ledger.append(Vec::new()).unwrap(), head);
    drop(ledger);

    let ledger = Ledger::open(&path).unwrap();
    assert_eq!((ledger.entries(), ledger.head()), (6, head));
    let mut objects = Vec::new();
    ledger
        .for_each(2, |entry| {
            objects.push(entry.object);
            Ok(())
        })
        .unwrap();
    assert_eq!(
        objects,
        ["rollout-2", "rollout-3", "rollout-4", "rollout-5"]
    );
}

#[test]
fn it_can_be_verified_while_it_is_written() {
    let (_dir, path) = ledger(2);
    let mut ledger = Ledger::open(&path).unwrap();
    let report = verify(&path).unwrap();
    assert_eq!(
        report,
        Report {
            entries: 2,
            head: ledger.head(),
            tree: ledger.tree.clone(),
            bad: None
        }
    );
    let head = ledger.append(vec![draft(9, b"more")]).unwrap();
    assert_eq!(
        verify(&path).unwrap(),
        Report {
            entries: 3,
            head,
            tree: ledger.tree.clone(),
            bad: None
        }
    );
}

#[test]
fn an_entry_cut_out_or_off_is_named() {
    for gone in 0..5 {
        let (_dir, path) = ledger(5);
        tamper(&path, |table| drop(table.remove(gone).unwrap()));
        assert_eq!(
            first_bad(&path),
            BadEntry {
                seq: gone,
                fault: Fault::Missing(5)
            }
        );
    }
}

#[test]
fn swapped_entries_are_named() {
    let (_dir, path) = ledger(5);
    tamper(&path, |table| {
        let row = |n: u64| table.get(n).unwrap().unwrap().value().to_vec();
        let (two, three) = (row(2), row(3));
        table.insert(2, three.as_slice()).unwrap();
        table.insert(3, two.as_slice()).unwrap();
    });
    assert_eq!(
        first_bad(&path),
        BadEntry {
            seq: 2,
            fault: Fault::Place(3)
        }
    );
}

#[test]
fn an_edit_with_its_hash_made_to_fit_is_named_by_the_entry_after_it_or_by_the_head() {
    for (edited, named, fault) in [(1, 2, Fault::Prev), (4, 4, Fault::Hash)] {
        let (_dir, path) = ledger(5);
        tamper(&path, |table| {
            let mut entry = verify::decode(table.get(edited).unwrap().unwrap().value()).unwrap();
            entry.object = "another".into();
            table.insert(edited, row(&entry).as_slice()).unwrap();
        });
        assert_eq!(first_bad(&path), BadEntry { seq: named, fault });
    }
}

#[test]
fn an_entry_behind_the_head_is_named() {
    let (_dir, path) = ledger(2);
    let mut prev = ZERO;
    Ledger::open(&path)
        .unwrap()
        .for_each(0, |e| {
            prev = e.hash();
            Ok(())
        })
        .unwrap();
    tamper(&path, |table| {
        let Draft {
            time,
            actor,
            action,
            object,
            body,
        } = draft(2, b"forged");
        let entry = AuditEntry {
            seq: 2,
            prev,
            time,
            actor,
            action,
            object,
            body,
        };
        table.insert(2, row(&entry).as_slice()).unwrap();
    });
    assert_eq!(
        first_bad(&path),
        BadEntry {
            seq: 2,
            fault: Fault::BeyondHead
        }
    );
}

#[test]
fn a_killed_writer_leaves_a_ledger_that_opens_and_whose_damage_is_named() {
    let (dir, path) = ledger(6);
    let open = Ledger::open(&path).unwrap();
    // A copy of the file of a living writer is what a kill leaves.
    let killed = dir.path().join("killed.redb");
    fs::copy(&path, &killed).unwrap();
    let sound = fs::read(&killed).unwrap();
    assert_eq!(
        verify(&killed).unwrap(),
        Report {
            entries: 6,
            head: open.head(),
            tree: open.tree.clone(),
            bad: None
        }
    );
    assert_eq!(Ledger::open(&killed).unwrap().entries(), 6);

    let mut bytes = sound.clone();
    let all: Vec<_> = (0..bytes.len() - 100)
        .filter(|at| sound[*at..at + 100] == [3; 100])
        .collect();
    all.iter().for_each(|at| bytes[at + 50] ^= 1);
    fs::write(&killed, bytes).unwrap();
    let Err(LedgerError::Bad { bad, .. }) = Ledger::open(&killed) else {
        panic!("opened")
    };
    assert_eq!(bad.seq, 3);
}

#[test]
fn what_is_no_ledger_gets_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.redb");
    assert!(matches!(Ledger::open(&path), Err(LedgerError::Missing(_))));
    assert!(matches!(verify(&path), Err(LedgerError::Missing(_))));
    for junk in [vec![7; 100_000], b"redb".to_vec()] {
        fs::write(&path, junk).unwrap();
        let error = Ledger::open(&path)
            .err()
            .expect("junk was opened")
            .to_string();
        assert!(
            error.contains("ledger.redb") && !error.contains('\n'),
            "{error}"
        );
        assert!(verify(&path).is_err());
    }
    let (_dir, path) = ledger(1);
    assert!(Ledger::create(&path).is_err());
    let open = Ledger::open(&path).unwrap();
    let error = Ledger::open(&path).err().expect("opened twice").to_string();
    assert!(error.contains("another coordinator"), "{error}");
    drop(open);
}

#[test]
fn a_byte_flipped_inside_an_entry_on_disk_names_the_entry() {
    let (_dir, path) = ledger(6);
    let sound = fs::read(&path).unwrap();
    for entry in [3u8] {
        // redb leaves old copies behind, some of them in the slack of living pages.
        let body = [entry; 100];
        let places: Vec<_> = (0..sound.len() - 100)
            .filter(|at| sound[*at..at + 100] == body)
            .collect();
        let mut named = 0;
        for at in places {
            let mut bytes = sound.clone();
            bytes[at + 50] ^= 1;
            fs::write(&path, bytes).unwrap();
            match Ledger::open(&path) {
                Err(LedgerError::Bad { bad, .. }) => {
                    assert_eq!(
                        bad,
                        BadEntry {
                            seq: entry.into(),
                            fault: Fault::Hash
                        }
                    );
                    named += 1;
                }
                Err(LedgerError::Damaged { .. }) | Ok(_) => {}
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(named, 1, "entry {entry} lives once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_byte_of_any_row_that_changes_is_named(entry in 0u64..6, at in 0usize..1000, flip in 1u8..) {
        let (_dir, path) = ledger(6);
        tamper(&path, |table| {
            let mut row = table.get(entry).unwrap().unwrap().value().to_vec();
            let at = at % row.len();
            row[at] ^= flip;
            table.insert(entry, row.as_slice()).unwrap();
        });
        prop_assert_eq!(first_bad(&path), BadEntry { seq: entry, fault: Fault::Hash });
    }

    #[test]
    fn a_byte_of_the_file_that_changes_is_found_or_harmless(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let (_dir, path) = ledger(6);
        let mut bytes = fs::read(&path).unwrap();
        // Most of the file is free space; aim at the half that is not.
        let used = bytes.iter().rposition(|b| *b != 0).unwrap() + 1;
        let at = at.index(used);
        bytes[at] ^= flip;
        fs::write(&path, bytes).unwrap();
        match Ledger::open(&path) {
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
            Ok(ledger) => {
                prop_assert_eq!(ledger.entries(), 6);
                let mut n = 0;
                ledger.for_each(0, |e| { assert_eq!(e.body, [n as u8; 100]); n += 1; Ok(()) }).unwrap();
            }
        }
    }
}
