//! A release with all that runs around its change.

use super::protocol::Span;
use super::protocol::manifest::{Busy, Hook, Hooks, Install, ReleaseManifest, Restart};

pub fn hooked(tree: &ReleaseManifest) -> ReleaseManifest {
    let run = |argv: &[&str]| Hook {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        timeout: Span::from_secs(60),
    };
    ReleaseManifest {
        hooks: Hooks {
            pre: Some(run(&["./hooks/before", "--quiet"])),
            post: Some(run(&["/usr/bin/true"])),
        },
        restart: Restart::Required,
        install: Install::Command {
            steps: vec![vec!["dpkg".into(), "--install".into(), "app.deb".into()]],
            detect: vec!["./installed".into()],
            undo: vec![],
            expected_exit_codes: vec![0],
            max_run_time: Span::from_secs(600),
            busy: vec![
                Busy {
                    exit_code: 2,
                    output: "lock".into(),
                },
                Busy {
                    exit_code: 1618,
                    output: String::new(),
                },
            ],
        },
        ..tree.clone()
    }
}
