//! Steps on a real disk, from every state that a crash may leave.

mod around;
mod commands;
mod crashes;
mod slots;

use std::fs;
use std::path::PathBuf;

use node_core::contract::{Failure, FailureClass, Step, StepOutcome};
use protocol::fixtures::Fleet;
use protocol::manifest::{Busy, HealthCheck, Install, ReleaseManifest};
use protocol::{Hash, Span, Verified};

use super::{Content, Installer};
use crate::content::tests::{Bench, Held, Standing, noise, standing};

/// A machine with an installer, and releases for it.
struct Machine {
    bench: Bench,
    fleet: Fleet,
    installer: Installer,
}

/// A release with its content on this machine.
#[derive(Clone)]
struct Ready {
    release: Verified<ReleaseManifest>,
    held: Held,
}

const ID: Hash = Hash([7; 32]);

impl Machine {
    fn new() -> Machine {
        let bench = Bench::new();
        let installer = Installer::new(bench.at("install"));
        Machine {
            bench,
            fleet: Fleet::new(1),
            installer,
        }
    }

    /// A release of `app` whose tree is `files` (name, content, mode) and a file of noise.
    fn release(
        &self,
        version: &str,
        files: &[(&str, &str, u32)],
        install: Install,
        health: Option<&[&str]>,
    ) -> Ready {
        let counter = version.bytes().map(u64::from).sum();
        let _ = fs::remove_dir_all(self.bench.at("tree"));
        self.bench
            .file("data/noise", noise(counter, 300_000), 0o644);
        self.bench.file("version", version, 0o640);
        for (name, content, mode) in files {
            self.bench.file(name, content, *mode);
        }
        self.bench.build().expect("a tree that can be released");
        let health_check = health.map(|argv| HealthCheck {
            argv: words(argv),
            soak: Span::ZERO,
            attempts: 0,
            timeout: Span::from_secs(60),
        });
        let held = self.bench.fetch();
        let mut manifest = self.fleet.release("app", version, counter);
        manifest.artifacts[0].pack = held.pack.name();
        let manifest = ReleaseManifest {
            install,
            health_check,
            relations: Default::default(),
            ..manifest
        };
        Ready {
            release: self.fleet.verified(&manifest),
            held,
        }
    }

    fn tree(&self, version: &str) -> Ready {
        self.release(version, &[], Install::Tree, None)
    }

    async fn step(&self, ready: &Ready, before: Option<&Ready>, step: Step) -> StepOutcome {
        let content = Content {
            index: ready.held.index.clone(),
            pack: ready.held.pack.clone(),
        };
        let before = before.map(|before| &before.release);
        self.installer
            .step(ID, &ready.release, before, Some(content), step)
            .await
    }

    async fn done(&self, ready: &Ready, before: Option<&Ready>, steps: &[Step]) {
        for step in steps {
            assert_eq!(
                self.step(ready, before, step.clone()).await,
                StepOutcome::Done,
                "{step:?}"
            );
        }
    }

    async fn failure(&self, ready: &Ready, before: Option<&Ready>, step: Step) -> Failure {
        match self.step(ready, before, step).await {
            StepOutcome::Failed(failure) => failure,
            other => panic!("{other:?} is no failure"),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.bench.at("install/app").join(name)
    }

    /// The version whose complete files `current` leads to.
    fn current(&self) -> Option<String> {
        let target = fs::read_link(self.at("current")).ok()?;
        let version = target
            .strip_prefix("versions")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let found = standing(
            &self
                .at("current")
                .canonicalize()
                .expect("it leads to a slot"),
        );
        assert_eq!(
            found["version"],
            Standing::File(0o640, version.clone().into())
        );
        let counter = version.bytes().map(u64::from).sum();
        assert!(found["data/noise"] == Standing::File(0o644, noise(counter, 300_000)));
        Some(version)
    }

    fn versions(&self) -> Vec<String> {
        let mut names = super::slots::names(&self.at("versions")).unwrap();
        names.sort();
        names
    }
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}
