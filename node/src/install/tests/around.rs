//! Hooks, restarts, other installers in the way, and what a failure before the switch leaves.

use super::*;
use Step::{Discard, PostHook, PreHook, Restart, RollBack, Switch, WriteSlot};
use protocol::manifest::{Hook, Hooks};

impl Machine {
    /// The same release, signed with a change.
    fn changed(&self, ready: &Ready, change: impl FnOnce(&mut ReleaseManifest)) -> Ready {
        let mut manifest = (*ready.release).clone();
        change(&mut manifest);
        Ready {
            release: self.fleet.verified(&manifest),
            held: ready.held.clone(),
        }
    }

    fn hooked(&self, ready: &Ready, pre: &[&str], post: &[&str]) -> Ready {
        let hook = |argv| {
            Some(Hook {
                argv: words(argv),
                timeout: Span::from_secs(60),
            })
        };
        let (pre, post) = (hook(pre), hook(post));
        self.changed(ready, |manifest| manifest.hooks = Hooks { pre, post })
    }

    fn here(&self, name: &str) -> String {
        self.bench.at(name).to_str().unwrap().to_owned()
    }

    /// A recipe of shell commands.
    fn recipe(&self, step: &str, undo: &str, busy: Vec<Busy>) -> Ready {
        let sh = |line: &str| words(&["sh", "-c", line]);
        let install = Install::Command {
            steps: vec![sh(step)],
            detect: sh("true"),
            undo: vec![sh(undo)],
            expected_exit_codes: vec![],
            max_run_time: Span::from_secs(60),
            busy,
        };
        self.release("1.0", &[], install, None)
    }

    fn says(&self, name: &str) -> String {
        fs::read_to_string(self.bench.at(name)).unwrap_or_default()
    }
}

#[tokio::test]
async fn hooks_run_in_the_unpacked_files_and_know_their_attempt() {
    let machine = Machine::new();
    let log = machine.here("log");
    let script = format!("#!/bin/sh\necho $1 $TIDEGATE_ATTEMPT $(cat version) >> {log}");
    let files = [("hook", script.as_str(), 0o755)];
    let tree = machine.release("1.0", &files, Install::Tree, None);
    let tree = machine.hooked(&tree, &["./hook", "pre"], &["./hook", "post"]);
    let steps = [WriteSlot, PreHook(2), Switch, PostHook(3)];
    machine.done(&tree, None, &steps).await;
    assert_eq!(machine.says("log"), "pre 2 1.0\npost 3 1.0\n");

    let recipe = machine.recipe("true", "true", vec![]);
    let recipe = machine.hooked(&recipe, &["cat", "version"], &["false"]);
    machine.done(&recipe, None, &[WriteSlot, PreHook(1)]).await;
    let failure = machine.failure(&recipe, None, PostHook(1)).await;
    assert_eq!(failure.class, FailureClass::PostHook);
    assert!(failure.reason.contains("post hook `false`"), "{failure:?}");
}

#[tokio::test]
async fn a_hook_that_hangs_or_is_not_there_fails_as_one() {
    let machine = Machine::new();
    let tree = machine.tree("1.0");
    let gone = machine.hooked(&tree, &["./gone"], &["true"]);
    machine.done(&gone, None, &[WriteSlot]).await;
    let failure = machine.failure(&gone, None, PreHook(1)).await;
    assert_eq!(failure.class, FailureClass::PreHook);
    assert!(failure.reason.contains("no such program"), "{failure:?}");
    let hangs = machine.changed(&tree, |manifest| {
        manifest.hooks.pre = Some(Hook {
            argv: words(&["sh", "-c", "seq 9999; sleep 1000"]),
            timeout: Span::from_millis(300),
        });
    });
    let failure = machine.failure(&hangs, None, PreHook(1)).await;
    assert_eq!(failure.class, FailureClass::PreHook);
    assert!(failure.reason.contains("killed after"), "{failure:?}");
    assert!(failure.output_tail.len() <= protocol::limits::OUTPUT_TAIL_BYTES);
}

#[tokio::test]
async fn what_was_not_switched_is_dropped_and_nothing_is_undone() {
    let machine = Machine::new();
    let undone = format!("touch {}", machine.here("undone"));
    let recipe = machine.recipe("true", &undone, vec![]);
    machine.done(&recipe, None, &[WriteSlot, Discard]).await;
    let left = super::super::slots::names(&machine.at("staging")).unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(!machine.bench.at("undone").exists());

    let (one, two) = (machine.tree("1.0"), machine.tree("2.0"));
    machine.done(&one, None, &[WriteSlot, Switch]).await;
    machine.done(&two, Some(&one), &[WriteSlot, Discard]).await;
    assert_eq!(machine.current().as_deref(), Some("1.0"));
    assert_eq!(machine.versions(), ["1.0"]);
}

#[tokio::test]
async fn undo_steps_find_the_files_again_that_were_cleaned_up() {
    let machine = Machine::new();
    let copy = format!("cp version {}", machine.here("undone"));
    let recipe = machine.recipe("true", &copy, vec![]);
    let steps = [WriteSlot, Switch, Step::CleanUp];
    machine.done(&recipe, None, &steps).await;
    assert!(!machine.at("staging").exists());
    machine.done(&recipe, None, &[RollBack]).await;
    assert_eq!(machine.says("undone"), "1.0");
}

#[tokio::test]
async fn another_installer_at_work_is_a_class_of_its_own_unless_something_has_changed() {
    let machine = Machine::new();
    let busy = || {
        vec![Busy {
            exit_code: 75,
            output: "is locked".into(),
        }]
    };
    let class = async |step: &str| {
        let recipe = machine.recipe(step, "true", busy());
        machine.failure(&recipe, None, Switch).await.class
    };
    assert_eq!(
        class("echo the database is locked; exit 75").await,
        FailureClass::InstallerBusy
    );
    assert_eq!(class("exit 75").await, FailureClass::Installer);
    assert_eq!(
        class("echo is locked; exit 2").await,
        FailureClass::Installer
    );
    let two = machine.recipe("echo is locked; exit 75", "true", busy());
    let two = machine.changed(&two, |manifest| {
        if let Install::Command { steps, .. } = &mut manifest.install {
            steps.insert(0, words(&["true"]));
        }
    });
    let failure = machine.failure(&two, None, Switch).await;
    assert_eq!(failure.class, FailureClass::Installer);
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_a_class_of_its_own() {
    let machine = Machine::new();
    let recipe = machine.recipe("sleep 1000", "true", vec![]);
    let recipe = machine.changed(&recipe, |manifest| {
        if let Install::Command { max_run_time, .. } = &mut manifest.install {
            *max_run_time = Span::from_millis(300);
        }
    });
    let failure = machine.failure(&recipe, None, Switch).await;
    assert_eq!(failure.class, FailureClass::Timeout);
}

#[tokio::test]
async fn a_restart_is_asked_of_the_program_that_the_machine_names() {
    let mut machine = Machine::new();
    let tree = machine.tree("1.0");
    let failure = machine.failure(&tree, None, Restart).await;
    assert_eq!(failure.class, FailureClass::Release);
    assert!(failure.reason.contains("set `restart`"), "{failure:?}");
    let asked = machine.here("asked");
    let with = |machine: &Machine, argv: &[&str]| {
        Installer::new(machine.bench.at("install")).with_restart(words(argv))
    };
    machine.installer = with(&machine, &["touch", &asked]);
    machine.done(&tree, None, &[Restart]).await;
    assert!(machine.bench.at("asked").exists());
    machine.installer = with(&machine, &["false"]);
    let failure = machine.failure(&tree, None, Restart).await;
    assert_eq!(failure.class, FailureClass::Restart);
}
