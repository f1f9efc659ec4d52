//! The `tree` installer when all goes well, and when it must refuse.

use super::*;
use Step::{CheckHealth, CleanUp, Detect, RollBack, Switch, WriteSlot};

#[tokio::test]
async fn a_release_is_installed_upgraded_rolled_back_and_cleaned_up_after() {
    let machine = Machine::new();
    let (one, two, three) = (
        machine.tree("1.0"),
        machine.tree("2.0"),
        machine.tree("3.0"),
    );
    assert_eq!(machine.step(&one, None, Detect).await, StepOutcome::Absent);
    machine.done(&one, None, &[WriteSlot]).await;
    assert_eq!(machine.current(), None);
    assert_eq!(machine.step(&one, None, Detect).await, StepOutcome::Absent);
    machine
        .done(&one, None, &[Switch, Detect, CheckHealth, CleanUp])
        .await;
    assert_eq!(machine.current().as_deref(), Some("1.0"));

    machine
        .done(&two, Some(&one), &[WriteSlot, Switch, Detect, CleanUp])
        .await;
    assert_eq!(machine.current().as_deref(), Some("2.0"));
    assert_eq!(machine.step(&one, None, Detect).await, StepOutcome::Absent);
    assert_eq!(machine.versions(), ["1.0", "2.0"]);

    machine
        .done(&three, Some(&two), &[WriteSlot, Switch, RollBack])
        .await;
    assert_eq!(machine.current().as_deref(), Some("2.0"));
    machine.done(&two, None, &[Detect]).await;
    assert_eq!(
        machine.versions(),
        ["1.0", "2.0"],
        "the slot that failed is gone"
    );
    machine
        .done(&three, Some(&two), &[WriteSlot, Switch, CleanUp])
        .await;
    assert_eq!(
        machine.versions(),
        ["2.0", "3.0"],
        "one to go back to is kept"
    );
}

#[tokio::test]
async fn rolling_back_a_release_that_was_replaced_leaves_its_successor_in_use() {
    let machine = Machine::new();
    let (one, two, three) = (
        machine.tree("1.0"),
        machine.tree("2.0"),
        machine.tree("3.0"),
    );
    machine.done(&one, None, &[WriteSlot, Switch]).await;
    machine.done(&two, Some(&one), &[WriteSlot, Switch]).await;
    machine.done(&three, Some(&two), &[WriteSlot, Switch]).await;
    machine.done(&two, Some(&one), &[RollBack]).await;
    assert_eq!(machine.current().as_deref(), Some("3.0"));
    assert_eq!(machine.versions(), ["1.0", "3.0"]);
}

#[tokio::test]
async fn rolling_back_a_first_installation_leaves_nothing() {
    let machine = Machine::new();
    let one = machine.tree("1.0");
    machine
        .done(&one, None, &[WriteSlot, Switch, RollBack, RollBack])
        .await;
    assert_eq!(machine.current(), None);
    assert!(machine.versions().is_empty());
    assert_eq!(machine.step(&one, None, Detect).await, StepOutcome::Absent);
}

#[tokio::test]
async fn a_version_in_use_is_not_replaced_by_another_release_of_the_same_name() {
    let machine = Machine::new();
    let one = machine.tree("1.0");
    machine.done(&one, None, &[WriteSlot, Switch]).await;
    let other = machine.release("1.0", &[("more", "x", 0o644)], Install::Tree, None);
    let failure = machine.failure(&other, Some(&one), WriteSlot).await;
    assert!(
        failure.class == FailureClass::Release && failure.reason.contains("1.0"),
        "{}",
        failure.reason
    );
    machine.done(&one, None, &[Detect]).await;
    assert_eq!(
        machine.step(&other, Some(&one), Detect).await,
        StepOutcome::Absent
    );
    machine.done(&other, Some(&one), &[RollBack]).await;
    assert_eq!(
        machine.current().as_deref(),
        Some("1.0"),
        "its own slot is not dropped by the way back"
    );
}

#[tokio::test]
async fn a_version_not_in_use_gives_way_to_another_release_of_the_same_name() {
    let machine = Machine::new();
    let one = machine.tree("1.0");
    machine.done(&one, None, &[WriteSlot]).await;
    let other = machine.release("1.0", &[("more", "x", 0o644)], Install::Tree, None);
    machine
        .done(&other, None, &[WriteSlot, Switch, Detect])
        .await;
    assert!(machine.at("current/more").exists());
    assert_eq!(machine.step(&one, None, Detect).await, StepOutcome::Absent);
}

#[tokio::test]
async fn a_switch_needs_a_complete_slot() {
    let machine = Machine::new();
    let one = machine.tree("1.0");
    let failure = machine.failure(&one, None, Switch).await;
    assert!(
        failure.reason.contains("versions/1.0"),
        "{}",
        failure.reason
    );
    fs::create_dir_all(machine.at("versions/1.0")).unwrap();
    machine.failure(&one, None, Switch).await;
    assert_eq!(machine.current(), None);
}

#[tokio::test]
async fn going_back_needs_what_was_there() {
    let machine = Machine::new();
    let (one, two) = (machine.tree("1.0"), machine.tree("2.0"));
    machine.done(&two, Some(&one), &[WriteSlot, Switch]).await;
    let failure = machine.failure(&two, Some(&one), RollBack).await;
    assert!(
        failure.reason.contains("versions/1.0"),
        "{}",
        failure.reason
    );
    assert_eq!(
        machine.current().as_deref(),
        Some("2.0"),
        "what works is not taken away"
    );
}

#[tokio::test]
async fn what_an_administrator_put_in_the_way_is_named() {
    let machine = Machine::new();
    let one = machine.tree("1.0");
    machine.done(&one, None, &[WriteSlot]).await;
    fs::create_dir(machine.at("current")).unwrap();
    let failure = machine.failure(&one, None, Switch).await;
    assert!(failure.reason.contains("app/current"), "{}", failure.reason);
}

#[tokio::test]
async fn a_disk_that_refuses_is_the_machines_failure_and_is_named() {
    let machine = Machine::new();
    let one = machine.tree("1.0");
    fs::write(
        machine.bench.at("install"),
        "a file where a directory should be",
    )
    .unwrap();
    let failure = machine.failure(&one, None, WriteSlot).await;
    assert!(
        failure.class == FailureClass::Machine && failure.reason.contains("install/app"),
        "{}",
        failure.reason
    );
    let full = std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
    let failure = Failure::from(crate::content::tree::UnpackError::Io {
        path: "/x/y".into(),
        source: full,
    });
    assert!(
        failure.class == FailureClass::DiskFull && failure.reason.contains("/x/y: No space left"),
        "{}",
        failure.reason
    );
}

#[tokio::test]
async fn health_is_checked_in_the_slot() {
    let machine = Machine::new();
    let check = "#!/bin/sh\ntest \"$(cat version)\" = $TIDEGATE_VERSION || exit 9\necho before: $TIDEGATE_PREVIOUS.; exit $(cat code)";
    let release = |version, code| {
        machine.release(
            version,
            &[("bin/check", check, 0o755), ("code", code, 0o644)],
            Install::Tree,
            Some(&["./bin/check"]),
        )
    };
    let (good, bad) = (release("1.0", "0"), release("2.0", "3"));
    machine
        .done(&good, None, &[WriteSlot, Switch, CheckHealth])
        .await;
    machine.done(&bad, Some(&good), &[WriteSlot, Switch]).await;
    let failure = machine.failure(&bad, Some(&good), CheckHealth).await;
    assert_eq!(failure.exit_code, Some(3));
    assert_eq!(failure.output_tail, "before: 1.0.\n");
    assert!(
        failure.class == FailureClass::Health && failure.reason.contains("./bin/check"),
        "{}",
        failure.reason
    );
}

#[tokio::test]
async fn a_health_check_that_is_not_there_is_named() {
    let machine = Machine::new();
    let one = machine.release("1.0", &[], Install::Tree, Some(&["./no/such/check"]));
    machine.done(&one, None, &[WriteSlot, Switch]).await;
    let failure = machine.failure(&one, None, CheckHealth).await;
    assert!(
        failure.reason.contains("./no/such/check") && failure.reason.contains("no such program"),
        "{}",
        failure.reason
    );
}
