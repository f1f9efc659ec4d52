//! The row about the ledger: whoever edits it after the fact is found at the first entry he touched.

use std::path::Path;

use coordinator::ledger::{Draft, Ledger, verify};
use protocol::audit::AuditEntry;
use protocol::merkle::AuditProof;
use protocol::trust::Trust;
use protocol::versioned::Versioned as _;
use protocol::{Hash, Time};
use tidegate_tests::programs::{failure_line, success};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions};

use crate::mutations::{CASES, Mutations};

const ENTRIES: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("ledger-1");
const ROWS: u64 = 40;

fn make(path: &Path) {
    let mut ledger = Ledger::create(path).expect("a new ledger");
    let draft = |n: u64| Draft {
        time: Time(n),
        actor: "op1".into(),
        action: "approve".into(),
        object: format!("rollout {n}"),
        body: vec![n as u8; 50],
    };
    ledger
        .append((0..ROWS).map(draft).collect())
        .expect("appended");
}

/// Changes rows behind the coordinator's back.
fn tamper(path: &Path, change: impl FnOnce(&mut redb::Table<'_, u64, &'static [u8]>)) {
    let db = redb::Database::open(path).expect("a database");
    let write = db.begin_write().expect("a transaction");
    change(&mut write.open_table(ENTRIES).expect("the entries"));
    write.commit().expect("durable");
}

fn row(table: &impl redb::ReadableTable<u64, &'static [u8]>, n: u64) -> Vec<u8> {
    table
        .get(n)
        .expect("readable")
        .expect("there")
        .value()
        .to_vec()
}

fn restore(table: &mut redb::Table<'_, u64, &'static [u8]>, good: &[Vec<u8>]) {
    for (n, row) in (0..).zip(good) {
        table.insert(n, row.as_slice()).expect("written");
    }
}

/// A row that is sound by itself, so that only the chain tells.
fn forged(row: &[u8], change: impl FnOnce(&mut AuditEntry)) -> Vec<u8> {
    let mut entry = AuditEntry::from_bytes(&row[32..]).expect("an entry");
    change(&mut entry);
    let bytes = entry.to_bytes();
    [Hash::of(&bytes).as_bytes().as_slice(), &bytes].concat()
}

#[test]
fn attack_30_ledger_truncated_edited_reordered() {
    let place = tempfile::tempdir().expect("a place");
    let path = place.path().join("ledger.redb");
    make(&path);
    let whole = verify(&path).expect("readable");
    assert_eq!((whole.entries, &whole.bad), (ROWS, &None));
    let mut good = Vec::new();
    tamper(&path, |table| {
        good = (0..ROWS).map(|n| row(table, n)).collect()
    });
    let mut mutations = Mutations::new(30);
    for case in 0..CASES {
        let n = mutations.below(ROWS as usize - 2) as u64;
        let kind = mutations.below(6);
        tamper(&path, |table| {
            restore(table, &good);
            let mut put = |n: u64, row: &[u8]| drop(table.insert(n, row).expect("written"));
            match kind {
                0 => put(n, &mutations.of(&good[n as usize])),
                1 => put(n, &forged(&good[n as usize], |e| e.actor = "op2".into())),
                2 => {
                    put(n, &good[n as usize + 1]);
                    put(n + 1, &good[n as usize]);
                }
                3 => (n..ROWS).for_each(|n| drop(table.remove(n).expect("removed"))),
                4 => drop(table.remove(n).expect("removed")),
                _ => put(
                    n,
                    &forged(&good[n as usize], |e| e.prev = Hash::of(b"other")),
                ),
            }
        });
        let report = verify(&path).expect("readable");
        let bad = report
            .bad
            .unwrap_or_else(|| panic!("case {case}, kind {kind}: not found"));
        // An entry that was written anew, sound in itself, shows at the one that followed it.
        let expected = if kind == 1 { n + 1 } else { n };
        assert_eq!(bad.seq, expected, "case {case}, kind {kind}: {}", bad.fault);
    }
    tamper(&path, |table| restore(table, &good));
    assert_eq!(verify(&path).expect("readable"), whole, "mended");
}

/// A ledger written anew as a whole is sound in itself; what the coordinator once signed for says otherwise.
#[test]
fn attack_30_ledger_forked() {
    let world = World::coordinator_only(&WorldOptions::default());
    let (proof, entry) = (world.path("proof"), world.path("entry"));
    let (proof, entry) = (text(&proof).to_owned(), text(&entry).to_owned());
    world.tidegate(&["audit", "prove", "1", "--out", &proof, "--bytes", &entry]);
    let root = text(&world.home().join("root.json")).to_owned();
    let check = ["audit", "check", &proof, "--root", &root];
    let said = success("tidegate", &[&check[..], &["--bytes", &entry]].concat());
    assert!(said.contains("entry 1 stands"), "{said}");
    // What proves entry 1 proves nothing else, and no damage proves anything.
    let good = std::fs::read(&proof).expect("there");
    assert!(good.len() <= protocol::limits::AUDIT_PROOF_MAX_BYTES);
    let roots: Vec<protocol::envelope::Envelope> =
        serde_json::from_slice(&std::fs::read(&root).expect("there")).expect("roots");
    let fleet = protocol::FleetId(roots[0].digest().0);
    let trust = Trust::pin(roots[0].clone(), fleet).expect("the fleet's root");
    let honest = AuditProof::from_bytes(&good).expect("a proof");
    let mut mutations = Mutations::new(130);
    for case in 0..CASES {
        let Ok(damaged) = AuditProof::from_bytes(&mutations.of(&good)) else {
            continue;
        };
        let proven = damaged.check(&trust).is_ok();
        let same = (damaged.seq, damaged.entry) == (honest.seq, honest.entry);
        assert!(!proven || same, "case {case}");
    }
    let against = ["audit", "verify", "--against", &proof, "--root", &root];
    world.tidegate(&against);
    // On a copy: the same number of entries, every one of them another.
    let home = world.path("copy");
    std::fs::create_dir(&home).expect("made");
    let settings = "coordinator.json";
    std::fs::copy(world.home().join(settings), home.join(settings)).expect("copied");
    let path = home.join("ledger.redb");
    let entries = verify(&world.home().join("ledger.redb"))
        .expect("readable")
        .entries;
    let mut forged = Ledger::create(&path).expect("a new ledger");
    let draft = |n: u64| Draft {
        time: Time(n),
        actor: "coordinator".into(),
        action: "epoch".into(),
        object: "anew".into(),
        body: Vec::new(),
    };
    forged
        .append((0..entries).map(draft).collect())
        .expect("appended");
    drop(forged);
    let verify = ["audit", "verify", "--dir", text(&home)];
    assert!(
        success("tidegate", &verify).contains("every link holds"),
        "sound in itself"
    );
    let line = failure_line("tidegate", &[&verify[..], &against[2..]].concat());
    assert!(line.contains("written anew"), "{line}");
    std::fs::remove_file(&path).expect("removed");
    let mut short = Ledger::create(&path).expect("a new ledger");
    short.append(vec![draft(0)]).expect("appended");
    drop(short);
    let line = failure_line("tidegate", &[&verify[..], &against[2..]].concat());
    assert!(line.contains("entry 1 is missing"), "{line}");
}
