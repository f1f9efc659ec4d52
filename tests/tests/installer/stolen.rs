//! What a stolen node asks its installer for.

use std::os::unix::fs::{FileExt, symlink};

use node_core::contract::Step;
use node_core::handover::{Ask, Errand, Said};
use protocol::envelope::Envelope;
use protocol::fixtures::{self, EXPIRES, Fleet};
use protocol::manifest::Hook;
use protocol::trust::{Role as Signer, Statement};
use protocol::{Span, Time};
use tidegate_tests::trees;
use tidegate_tests::world::text;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::stand::{Stand, json, now};

/// What fewer than the threshold signed.
fn signed_by_one<T: Statement>(fleet: &Fleet, statement: &T) -> Vec<u8> {
    let mut envelope: Envelope = statement.to_envelope();
    // The first operator proposes, so that key would not count at all.
    envelope.sign(fleet.keys(T::ROLE).last().expect("a key"));
    envelope.to_json()
}

#[test]
fn a_stolen_node_gets_nothing_written_that_the_thresholds_did_not_sign() {
    let stand = Stand::new();
    let good = stand.documents(1);
    let write = || good.errand(Step::WriteSlot);

    let root = signed_by_one(&Fleet::new(2), &(*good.release).clone());
    let said = stand.ask(&Ask::Root(root)).expect("an answer");
    assert!(matches!(said, Said::Refused(_)), "{said:?}");
    let other = Fleet::new(2).trust().root().envelope().to_json();
    let said = stand.ask(&Ask::Root(other)).expect("an answer");
    assert!(matches!(said, Said::Refused(f) if f.reason.contains("root digest")));

    let mut evil = (*good.release).clone();
    evil.hooks.pre = Some(Hook {
        argv: vec!["touch".into(), text(&stand.dir.path().join("pwned")).into()],
        timeout: Span::from_secs(5),
    });
    let release = evil.to_envelope().to_json();
    stand.refused(Errand { release, ..write() }, "signature");
    let release = signed_by_one(&stand.fleet, &evil);
    stand.refused(Errand { release, ..write() }, "threshold");
    let plan = Some(signed_by_one(&stand.fleet, &*good.plan));
    stand.refused(Errand { plan, ..write() }, "threshold");
    stand.refused(
        Errand {
            plan: None,
            ..write()
        },
        "without a plan",
    );
    // Its own release key signs: the plan names another release.
    let release = stand.fleet.sign(&evil).to_json();
    stand.refused(Errand { release, ..write() }, "wrong_target");
    let mut others = (*good.plan).clone();
    others.targets.exclusions = vec![fixtures::node(1)];
    let plan = Some(stand.fleet.sign(&others).to_json());
    stand.refused(Errand { plan, ..write() }, "does not name this node");
    let mut past = (*good.plan).clone();
    past.not_after = Time(now().0 - 1);
    let plan = Some(stand.fleet.sign(&past).to_json());
    stand.refused(Errand { plan, ..write() }, "expired");
    assert_eq!(stand.fleet.keys(Signer::Releases).len(), 2);
    let tricky = stand.fleet.sign(&*good.plan).to_json();
    stand.refused(
        Errand {
            release: tricky,
            ..write()
        },
        "wrong_target",
    );

    // Bytes that are not what was signed, in every way in which they can lie there.
    let pack = stand.blob(good.release.artifacts[0].pack.root);
    let aside = stand.dir.path().join("aside");
    std::fs::rename(&pack, &aside).expect("moved");
    stand.refused(write(), "No such file");
    std::fs::copy(&aside, &pack).expect("copied");
    let file = std::fs::File::options().write(true).open(&pack);
    file.expect("there")
        .write_at(&[0x5a; 3], 1000)
        .expect("written");
    stand.refused(write(), "not what its hash promises");
    std::fs::remove_file(&pack).expect("removed");
    symlink(&aside, &pack).expect("linked");
    stand.refused(write(), "symbolic link");
    std::fs::remove_file(&pack).expect("removed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pack,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .expect("a pipe");
    stand.refused(write(), "it is not the file");
    std::fs::remove_file(&pack).expect("removed");
    std::fs::rename(&aside, &pack).expect("moved");
    let (blobs, elsewhere) = (pack.parent().expect("above"), stand.dir.path().join("else"));
    std::fs::rename(blobs, &elsewhere).expect("moved");
    symlink(&elsewhere, blobs).expect("linked");
    stand.refused(write(), "Not a directory");
    std::fs::remove_file(blobs).expect("removed");
    std::fs::rename(&elsewhere, blobs).expect("moved");

    assert!(stand.installed().is_empty(), "nothing was written");
    assert!(!stand.dir.path().join("pwned").exists(), "nothing was run");
    let copies = std::fs::read_dir(stand.pair.dir.join("copies/blobs"));
    let copies: Vec<_> = copies.expect("a directory").flatten().collect();
    assert!(copies.is_empty(), "no copy stays: {copies:?}");
    // What was signed is installed all the same, and a change of the bytes behind the copy changes nothing.
    stand.done(write());
    std::fs::write(&pack, b"something else").expect("written");
    stand.done(good.errand(Step::Switch));
    stand.done(good.errand(Step::CleanUp));
    trees::assert_same(&stand.tree(1), &stand.pair.current().join("."));
}

#[test]
fn a_stolen_node_cannot_switch_without_a_lease_go_back_or_repeat() {
    let mut stand = Stand::new();
    let (old, new) = (stand.documents(1), stand.documents(2));
    stand.refused(old.errand(Step::Switch), "does not come next");
    stand.done(old.errand(Step::WriteSlot));
    let lease = None;
    stand.refused(
        Errand {
            lease,
            ..old.errand(Step::Switch)
        },
        "lease",
    );
    let long_ago = stand.lease(&old.plan, 1, Time(now().0 - 3_600_000));
    let lease = Some(json(&long_ago));
    stand.refused(
        Errand {
            lease,
            ..old.errand(Step::Switch)
        },
        "lease",
    );
    let lease = Some(signed_by_one(&Fleet::new(2), &*old.lease));
    stand.refused(
        Errand {
            lease,
            ..old.errand(Step::Switch)
        },
        "lease",
    );
    let lease = Some(json(&new.lease));
    stand.refused(
        Errand {
            lease,
            ..old.errand(Step::Switch)
        },
        "lease",
    );
    assert_eq!(stand.pair.installed_version(), None);
    stand.install(&old, None);
    stand.install(&new, Some(&old));
    let before = stand.installed();
    // Also after a death: what was seen is remembered.
    for _ in ["running", "started again"] {
        stand.refused(old.errand(Step::WriteSlot), "software_rollback");
        stand.refused(new.errand(Step::RollBack), "was not recalled");
        stand.refused(new.errand(Step::PostHook(1)), "does not come next");
        stand.refused(new.errand(Step::Restart), "does not come next");
        assert_eq!(stand.installed(), before, "nothing changed");
        stand.pair.kill();
        stand.start();
    }
    let recall = Some(json(&stand.fleet.recall(&new.plan).1));
    let back = |before| Errand {
        recall: recall.clone(),
        before,
        ..new.errand(Step::RollBack)
    };
    stand.refused(back(None), "was not handed over");
    stand.refused(back(Some(json(&new.release))), "was not handed over");
    stand.done(back(Some(json(&old.release))));
    assert_eq!(stand.pair.installed_version().as_deref(), Some("1"));
    stand.done(back(Some(json(&old.release))));
    trees::assert_same(&stand.tree(1), &stand.pair.current().join("."));
    assert!(EXPIRES > now(), "the documents of this test are over");
}

#[test]
fn keys_that_a_root_took_away_sign_nothing_more_and_no_root_is_skipped() {
    let mut stand = Stand::new();
    let stolen = stand.documents(1);
    stand.done(stolen.errand(Step::WriteSlot));
    let second = stand
        .fleet
        .rotate(&[Signer::Coordinator])
        .envelope()
        .clone();
    let third = stand.fleet.rotate(&[Signer::Releases]).envelope().clone();
    let root = |envelope: &Envelope| Ask::Root(envelope.to_json());
    let said = stand.ask(&root(&third)).expect("an answer");
    assert!(matches!(said, Said::Refused(f) if f.reason.contains("root_gap")));
    assert_eq!(stand.ask(&root(&second)).expect("an answer"), Said::Root(2));
    stand.refused(stolen.errand(Step::Switch), "lease");
    let lease = Some(json(&stand.lease(&stolen.plan, 2, now())));
    let renewed = || Errand {
        lease: lease.clone(),
        ..stolen.errand(Step::Switch)
    };
    assert_eq!(stand.ask(&root(&third)).expect("an answer"), Said::Root(3));
    stand.refused(
        renewed(),
        "signature: no valid signature of the Releases role",
    );
    // What was walked is remembered.
    stand.pair.kill();
    stand.start();
    let said = stand.ask(&root(&second)).expect("an answer");
    assert!(matches!(said, Said::Refused(f) if f.reason.contains("root_gap")));
    stand.refused(renewed(), "signature");
    assert_eq!(stand.pair.installed_version(), None);
    // The same release under the new keys.
    let again = stand.approved(&stolen.release);
    stand.install(&again, None);
    assert_eq!(stand.pair.installed_version().as_deref(), Some("1"));
}

#[test]
fn whoever_may_not_ask_is_hung_up_on_and_garbage_ends_nothing() {
    let mut stand = Stand::new();
    let good = stand.documents(1);
    for garbage in [&[0xff; 64][..], &[4, 0, 0, 0, 1, 2, 3, 4], b"", b"TGHA"] {
        stand.runtime.block_on(async {
            let stream = UnixStream::connect(&stand.pair.socket).await;
            let mut stream = stream.expect("it listens");
            // It may hang up before all of it was written.
            let _ = stream.write_all(garbage).await;
            drop(stream);
        });
    }
    stand.install(&good, None);
    assert_eq!(stand.pair.installed_version().as_deref(), Some("1"));
    let own = rustix::process::geteuid().as_raw();
    if own != 0 {
        println!("not run by root: no other user's installer can be asked");
        return;
    }
    stand.pair.kill();
    stand.pair.dir = stand.dir.path().join("of-another");
    stand.pair.user = tidegate_tests::pair::NOBODY;
    stand.start();
    let asked = stand.ask(&Ask::Step(Box::new(good.errand(Step::WriteSlot))));
    assert!(asked.is_err(), "{asked:?}");
    assert!(stand.installed().is_empty());
}
