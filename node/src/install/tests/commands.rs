//! The `command` installer, and programs that misbehave.

use super::*;
use Step::{CheckHealth, CleanUp, Detect, RollBack, Switch, WriteSlot};

/// A recipe with a script `./step` and the rules around it; `{}` in them is the machine's own directory.
struct Recipe<'a> {
    script: &'a str,
    steps: &'a [&'a [&'a str]],
    detect: &'a [&'a str],
    undo: &'a [&'a [&'a str]],
    codes: &'a [i32],
    max_run_time: Span,
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        Recipe {
            script: "exit 0",
            steps: &[&["./step"]],
            detect: &["test", "-e", "{}/installed"],
            undo: &[],
            codes: &[0],
            max_run_time: Span::from_secs(60),
        }
    }
}

impl Machine {
    fn command(&self, recipe: Recipe) -> Ready {
        let here = self
            .bench
            .at("")
            .to_str()
            .unwrap()
            .trim_end_matches('/')
            .to_owned();
        let fill = |argv: &&[&str]| {
            words(argv)
                .into_iter()
                .map(|word| word.replace("{}", &here))
                .collect::<Vec<_>>()
        };
        let script = format!("#!/bin/sh\n{}\n", recipe.script.replace("{}", &here));
        let install = Install::Command {
            steps: recipe.steps.iter().map(fill).collect(),
            detect: fill(&recipe.detect),
            undo: recipe.undo.iter().map(fill).collect(),
            expected_exit_codes: recipe.codes.to_vec(),
            max_run_time: recipe.max_run_time,
            busy: vec![Busy {
                exit_code: 75,
                output: "lock".into(),
            }],
        };
        self.release(
            "1.0",
            &[("step", &script, 0o755)],
            install,
            Some(&["./step", "health"]),
        )
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.bench.at(name)).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_recipe_is_staged_run_detected_undone_and_cleaned_up() {
    let machine = Machine::new();
    let ready = machine.command(Recipe {
        script:
            "echo $1 $(cat version) $TIDEGATE_PRODUCT $TIDEGATE_VERSION $TIDEGATE_PREVIOUS >> {}/log
                 case $1 in one) ;; two) touch {}/installed ;; undo) rm {}/installed ;; esac",
        steps: &[&["./step", "one"], &["./step", "two"]],
        undo: &[&["./step", "undo"]],
        ..Recipe::default()
    });
    machine.done(&ready, None, &[WriteSlot, WriteSlot]).await;
    assert_eq!(
        machine.step(&ready, None, Detect).await,
        StepOutcome::Absent
    );
    machine
        .done(&ready, None, &[Switch, Detect, CheckHealth])
        .await;
    machine.done(&ready, None, &[RollBack]).await;
    assert_eq!(
        machine.step(&ready, None, Detect).await,
        StepOutcome::Absent
    );
    machine.done(&ready, None, &[Switch, CleanUp, Detect]).await;
    assert!(!machine.at("staging").exists());
    let log = machine.read("log");
    let first: Vec<&str> = log
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(first, ["one", "two", "health", "undo", "one", "two"]);
    assert!(
        log.lines()
            .all(|line| line.trim_end().ends_with(" 1.0 app 1.0")),
        "{log}"
    );
}

#[tokio::test]
async fn a_staging_that_was_damaged_is_written_anew() {
    let machine = Machine::new();
    let ready = machine.command(Recipe::default());
    machine.done(&ready, None, &[WriteSlot]).await;
    let staging = machine.at("staging").join(ID.to_string());
    fs::write(staging.join("version"), "half").unwrap();
    fs::create_dir_all(staging.with_extension("partial")).unwrap();
    machine.done(&ready, None, &[WriteSlot]).await;
    assert_eq!(fs::read(staging.join("version")).unwrap(), b"1.0");
    assert!(!staging.with_extension("partial").exists());
}

#[tokio::test]
async fn the_first_step_that_fails_is_named_with_its_output() {
    let machine = Machine::new();
    let ready = machine.command(Recipe {
        script: "echo $1 >> {}/log; seq 5000; echo the end >&2; exit $1",
        steps: &[&["./step", "0"], &["./step", "42"], &["./step", "1"]],
        ..Recipe::default()
    });
    machine.done(&ready, None, &[WriteSlot]).await;
    let failure = machine.failure(&ready, None, Switch).await;
    assert_eq!(failure.exit_code, Some(42));
    assert!(
        failure.reason.contains("step 2 `./step 42`"),
        "{}",
        failure.reason
    );
    assert!(
        failure.output_tail.ends_with("5000\nthe end\n"),
        "{}",
        failure.output_tail
    );
    assert!(failure.output_tail.len() <= protocol::limits::OUTPUT_TAIL_BYTES);
    assert_eq!(machine.read("log"), "0\n42\n");
}

#[tokio::test]
async fn exit_codes_are_those_that_the_recipe_expects() {
    let machine = Machine::new();
    let with = |codes: &'static [i32]| {
        machine.command(Recipe {
            codes,
            steps: &[&["sh", "-c", "exit 194"]],
            ..Recipe::default()
        })
    };
    machine.done(&with(&[0, 194]), None, &[Switch]).await;
    assert_eq!(
        machine.failure(&with(&[0]), None, Switch).await.exit_code,
        Some(194)
    );
    assert_eq!(
        machine.failure(&with(&[]), None, Switch).await.exit_code,
        Some(194)
    );
    let killed = machine.command(Recipe {
        steps: &[&["sh", "-c", "kill -9 $$"]],
        ..Recipe::default()
    });
    assert_eq!(
        machine.failure(&killed, None, Switch).await.exit_code,
        Some(137)
    );
}

#[tokio::test]
async fn programs_that_are_not_there_are_failures_of_steps_and_absence_for_the_detect_rule() {
    let machine = Machine::new();
    let ready = machine.command(Recipe {
        steps: &[&["./gone"]],
        detect: &["no-such-program-7"],
        ..Recipe::default()
    });
    machine.done(&ready, None, &[WriteSlot]).await;
    assert_eq!(
        machine.step(&ready, None, Detect).await,
        StepOutcome::Absent
    );
    let failure = machine.failure(&ready, None, Switch).await;
    assert!(
        failure
            .reason
            .contains("`./gone`: there is no such program"),
        "{}",
        failure.reason
    );
    let failure = machine.failure(&ready, None, RollBack).await;
    assert!(
        failure.class == FailureClass::Release && failure.reason.contains("undo"),
        "{}",
        failure.reason
    );
}

/// Whether the process that wrote its id to `name` is gone (or waits to be reaped by whoever adopted it).
fn is_gone(machine: &Machine, name: &str) -> bool {
    let id = machine.read(name);
    assert!(!id.trim().is_empty(), "the child wrote its id");
    let stat = fs::read_to_string(format!("/proc/{}/stat", id.trim())).unwrap_or_default();
    stat.is_empty()
        || stat
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('Z'))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let limit = std::time::Duration::from_secs(60);
    tokio::time::timeout(limit, wait)
        .await
        .unwrap_or_else(|_| panic!("waited for: {what}"));
}

#[tokio::test]
async fn a_step_that_hangs_is_killed_with_its_grandchildren() {
    let machine = Machine::new();
    let ready = machine.command(Recipe {
        script: "echo waiting; (sh -c 'echo $$ > {}/grandchild; exec sleep 1000') & wait",
        max_run_time: Span::from_millis(3_000),
        ..Recipe::default()
    });
    machine.done(&ready, None, &[WriteSlot]).await;
    let failure = machine.failure(&ready, None, Switch).await;
    assert!(
        failure.reason.contains("killed after 3 s"),
        "{}",
        failure.reason
    );
    assert_eq!(
        (failure.exit_code, failure.output_tail.as_str()),
        (None, "waiting\n")
    );
    until("the grandchild is gone", || is_gone(&machine, "grandchild")).await;
}

#[tokio::test]
async fn a_step_that_is_no_longer_waited_for_is_killed_with_its_grandchildren() {
    let machine = Machine::new();
    let ready = machine.command(Recipe {
        script: "(sh -c 'echo $$ > {}/g.new; mv {}/g.new {}/grandchild; exec sleep 1000') & wait",
        ..Recipe::default()
    });
    machine.done(&ready, None, &[WriteSlot]).await;
    tokio::select! {
        outcome = machine.step(&ready, None, Switch) => panic!("{outcome:?}"),
        () = until("the grandchild runs", || !machine.read("grandchild").is_empty()) => {}
    }
    until("the grandchild is gone", || is_gone(&machine, "grandchild")).await;
}

#[tokio::test]
async fn a_service_that_a_step_leaves_behind_neither_blocks_nor_dies() {
    let machine = Machine::new();
    let ready = machine.command(Recipe {
        script: "echo started; sh -c 'echo $$ > {}/service; until test -e {}/stop; do sleep 0.05; done' &
                 until test -s {}/service; do sleep 0.05; done",
        ..Recipe::default()
    });
    machine.done(&ready, None, &[WriteSlot, Switch]).await;
    assert!(!is_gone(&machine, "service"));
    fs::write(machine.bench.at("stop"), "").unwrap();
    until("the service ended by itself", || {
        is_gone(&machine, "service")
    })
    .await;
}

#[tokio::test]
async fn a_program_sees_a_small_environment_and_no_input() {
    let machine = Machine::new();
    let ready = machine.command(Recipe {
        script: "env | cut -d= -f1 | sort > {}/env; cat > {}/input",
        ..Recipe::default()
    });
    machine.done(&ready, None, &[WriteSlot, Switch]).await;
    let names = machine.read("env");
    let expected = [
        "PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_",
    ];
    for name in names.lines() {
        assert!(
            name.starts_with("TIDEGATE_") || expected.contains(&name),
            "{name}"
        );
    }
    assert_eq!(
        names
            .lines()
            .filter(|name| name.starts_with("TIDEGATE_"))
            .count(),
        5
    );
    assert_eq!(machine.read("input"), "");
}
