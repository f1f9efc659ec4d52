use node_core::contract::{FailureClass, Step, StepOutcome};
use node_core::guard::{Change, GuardRecord, Held, Phase};
use node_core::handover::{Ask, Errand, Said, failure};
use protocol::versioned::Versioned;
use protocol::{Hash, Seq, Time};

use super::{read, write};

fn errand(step: Step) -> Ask {
    Ask::Step(Box::new(Errand {
        step,
        release: b"release".to_vec(),
        plan: Some(b"plan".to_vec()),
        lease: None,
        recall: Some(b"recall".to_vec()),
        before: None,
        site: Some("s1".parse().unwrap()),
    }))
}

fn again<M: Versioned>(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let said = M::from_bytes(bytes).map_err(|e| e.to_string())?;
    Ok(said.to_bytes())
}

#[test]
fn what_is_handed_over_is_read_and_written_as_ever() {
    let steps = [
        Step::WriteSlot,
        Step::Switch,
        Step::PreHook(1),
        Step::PostHook(2),
        Step::Detect,
        Step::Restart,
        Step::Keep,
        Step::CheckHealth,
        Step::RollBack,
        Step::Discard,
        Step::CleanUp,
    ];
    let named = |step: Step| {
        let bytes = errand(step.clone()).to_bytes();
        (format!("step-{step:?}").to_lowercase(), bytes)
    };
    let mut asks: Vec<_> = steps.into_iter().map(named).collect();
    asks.push(("root".into(), Ask::Root(b"root".to_vec()).to_bytes()));
    crate::golden::check("handover-ask", &asks, again::<Ask>);
    let refused = Said::Refused(failure(FailureClass::InstallerBusy, "no lease".into()));
    let says = [
        ("root", Said::Root(3)),
        ("done", Said::Ended(StepOutcome::Done)),
        ("absent", Said::Ended(StepOutcome::Absent)),
        ("refused", refused),
    ];
    let says = says.map(|(name, said)| (name.to_owned(), said.to_bytes()));
    crate::golden::check("handover-said", &says, again::<Said>);
}

#[test]
fn what_the_guard_remembers_is_read_and_written_as_ever() {
    let change = Change {
        release: (Hash::of(b"new"), 2),
        at: Phase::Switched,
        lease: Some(Seq { epoch: 1, n: 7 }),
    };
    let held = Held {
        installed: Some((Hash::of(b"old"), 1)),
        previous: None,
        changes: [("r2".parse().unwrap(), change)].into(),
        back: Some(("r1".parse().unwrap(), Hash::of(b"older"))),
    };
    let record = GuardRecord {
        products: [("app".parse().unwrap(), held)].into(),
        floor: Time::from_secs(5),
    };
    let samples = [("switched".to_owned(), record.to_bytes())];
    crate::golden::check("guard", &samples, again::<GuardRecord>);
}

#[tokio::test]
async fn a_frame_that_is_too_long_cut_or_no_message_is_refused() {
    let mut whole = Vec::new();
    write(&mut whole, &errand(Step::Switch)).await.unwrap();
    let back: Ask = read(&mut whole.as_slice()).await.unwrap();
    assert_eq!(back, errand(Step::Switch));
    for cut in 0..whole.len() {
        assert!(read::<Ask>(&mut &whole[..cut]).await.is_err(), "{cut}");
    }
    let longest = (Ask::MAX_BYTES as u32 + 1).to_le_bytes();
    let refused = read::<Ask>(&mut longest.as_slice()).await.unwrap_err();
    assert!(refused.to_string().contains("too_long"), "{refused}");
    let refused = read::<Ask>(&mut [1, 0, 0, 0, 9].as_slice()).await;
    assert!(refused.is_err());
}
