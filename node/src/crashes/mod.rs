//! Death at every write, flush, rename and removal that a node's store and installers make.
//!
//! A story is an installation from the first order to the coordinator's receipt, with the real brain,
//! records, blobs and installers on a real file system; only the network is played. It is told once to
//! count the changes of the disk, and then again for each of them: the process dies there, by `kill -9`
//! or by a power cut that takes back what was not flushed, and the next one goes on with what is left.

mod machine;
pub(crate) mod mortal;

use std::path::Path;
use std::sync::Arc;

use node_core::contract::Boundary;
use protocol::status::State;

use crate::content::tree;
use crate::disk::Disk;
use machine::{Coordinator, Kind, Life, Release, Script};
use mortal::{Death, Lost, Mortal};

const WAYS: [Death; 6] = [
    Death::Killed,
    Death::Torn,
    Death::PowerCut(Lost::Everything),
    Death::PowerCut(Lost::Bytes),
    Death::PowerCut(Lost::Names),
    Death::PowerCut(Lost::SomeWrites),
];

/// One way to die.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: u64,
    how: Death,
    /// The second life dies too, after so many changes.
    again: Option<u64>,
}

/// A story, and the machine before it begins: 1.0 is installed.
struct Story {
    kind: Kind,
    healthy: bool,
    script: Script,
    before: tempfile::TempDir,
}

impl Story {
    fn new(kind: Kind, healthy: bool) -> Story {
        let script = Script::new(kind, healthy);
        let before = tempfile::tempdir().unwrap();
        let mut coordinator = Coordinator::new(&script, &script.old, 1);
        let disk = Disk::default();
        loop {
            let life = Life::begin(&script, &mut coordinator, &disk, before.path(), &|| false);
            let mut life = life.unwrap();
            if life.run(&script.old) {
                break;
            }
            assert!(life.restarts, "nothing else ends it");
        }
        script.forget();
        Story {
            kind,
            healthy,
            script,
            before,
        }
    }

    /// Tells it, with the deaths of `point`. Gives the changes of the disk in the first life, and how
    /// many lives it took.
    fn tell(&self, point: Option<Point>) -> (u64, usize) {
        let world = tempfile::tempdir().unwrap();
        let dir = world.path().join("node");
        copy(self.before.path(), &dir);
        self.script.forget();
        std::fs::write(&self.script.outside, "on 1.0\n").unwrap();
        let mut coordinator = Coordinator::new(&self.script, &self.script.new, 1_000);
        let mut deaths = Vec::new();
        if let Some(point) = point {
            deaths.push((point.at, point.how));
            deaths.extend(point.again.map(|at| (at, Death::Killed)));
        }
        deaths.push((u64::MAX, Death::Killed));
        let mut changes = None;
        for (number, (at, how)) in deaths.into_iter().enumerate() {
            let graveyard = world.path().join(format!("graves-{number}"));
            let mortal = Arc::new(Mortal::new(graveyard, at, how));
            let disk = Disk::over(mortal.clone());
            let is_dead = || mortal.is_dead();
            let script = &self.script;
            let mut fresh = number == 0;
            let lived = loop {
                let life = Life::begin(script, &mut coordinator, &disk, &dir, &is_dead);
                let Some(mut life) = life else {
                    break false;
                };
                if !std::mem::take(&mut fresh) {
                    self.check_what_is_left(&life, &dir);
                }
                if life.run(&script.new) {
                    self.check_the_end(&life, &dir);
                    break true;
                }
                if mortal.is_dead() {
                    break false;
                }
            };
            changes.get_or_insert(mortal.done());
            if lived {
                return (changes.unwrap_or_default(), number + 1);
            }
            mortal.forget();
        }
        panic!("the last life ends well");
    }

    /// What was said before the death, and what is believed after it, is true.
    fn check_what_is_left(&self, life: &Life<'_>, dir: &Path) {
        life.check_blobs();
        let script = &self.script;
        let (old, new) = (script.old.manifest.digest(), script.new.manifest.digest());
        let current = self.current(dir);
        let current = current.map(|release| release.manifest.digest());
        let is_new = current == Some(new);
        let installed = life.installed();
        match life.reported() {
            Some(State::Succeeded) => {
                assert!(is_new && installed == Some(new), "succeeded is true");
            }
            Some(State::RolledBack) => {
                assert!(!is_new && installed == Some(old), "rolled back is true");
            }
            _ => {}
        }
        if installed == Some(new) {
            assert!(is_new, "what the records name is what is in use");
        }
        match life.journal(&script.new) {
            Some(at) if at.is_switched() => assert!(is_new, "the journal says switched"),
            None
            | Some(
                Boundary::Claimed
                | Boundary::StagedVerified
                | Boundary::SlotIntent
                | Boundary::SlotWritten
                | Boundary::PreHook
                | Boundary::PreHooked,
            ) => assert!(!is_new, "the journal says not switched"),
            _ => {}
        }
    }

    fn check_the_end(&self, life: &Life<'_>, dir: &Path) {
        life.check_blobs();
        let (release, state) = match self.healthy {
            true => (&self.script.new, State::Succeeded),
            false => (&self.script.old, State::RolledBack),
        };
        assert_eq!(life.reported(), Some(state));
        assert_eq!(life.installed(), Some(release.manifest.digest()));
        let current = self.current(dir).map(|r| r.manifest.digest());
        assert_eq!(current, Some(release.manifest.digest()));
        if self.kind == Kind::Hooked {
            self.check_what_ran_around_it();
        }
        if self.kind != Kind::Tree {
            assert_eq!(self.script.lines("on 2.0"), 1, "installed once");
            let undone = self.script.lines("off 2.0");
            assert_eq!(undone > 0, !self.healthy, "{undone} times taken back");
        }
    }

    /// Both hooks ran, and neither twice in an attempt; the machine restarted once.
    fn check_what_ran_around_it(&self) {
        let ran = self.script.hooks();
        for hook in ["pre 2.0 ", "post 2.0 "] {
            let times = ran.iter().filter(|line| line.starts_with(hook)).count();
            assert!((1..=3).contains(&times), "{ran:?}");
        }
        let once: std::collections::BTreeSet<_> = ran.iter().collect();
        assert_eq!(once.len(), ran.len(), "{ran:?}");
        assert_eq!(self.script.restarts(), 1);
    }

    /// The release that is in use, whole.
    fn current(&self, dir: &Path) -> Option<&Release> {
        let releases = [&self.script.old, &self.script.new];
        if self.kind != Kind::Tree {
            let log = std::fs::read_to_string(&self.script.outside).unwrap();
            let is_new = log.lines().last() == Some("on 2.0");
            return Some(releases[usize::from(is_new)]);
        }
        let current = dir.join("install/app/current");
        let target = std::fs::read_link(&current).expect("something is in use at every moment");
        let of = |r: &&Release| target == Path::new(&format!("versions/{}", r.manifest.version));
        let release = releases.into_iter().find(of).expect("one of ours");
        let whole = tree::matches(&release.held.index, &current.join(".")).unwrap();
        assert!(whole, "{} is in use and not whole", target.display());
        Some(release)
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&from, &to);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&from).unwrap(), &to).unwrap();
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// In the first story each change is a death by `kill -9` and by another way, in the others every second
/// change by one way in turn.
#[test]
fn a_death_at_any_change_of_the_disk_ends_right() {
    let (mut points, mut twice) = (0, 0);
    for (kind, healthy) in [
        (Kind::Tree, true),
        (Kind::Tree, false),
        (Kind::Command, true),
        (Kind::Command, false),
        (Kind::Hooked, true),
        (Kind::Hooked, false),
    ] {
        let story = Story::new(kind, healthy);
        let (changes, _) = story.tell(None);
        println!("{kind:?}, healthy {healthy}: {changes} changes");
        let first = (kind, healthy) == (Kind::Tree, true);
        for at in 0..changes {
            let turn = at as usize / 2 % WAYS.len();
            let ways = match (first, at % 2) {
                (true, _) => vec![Death::Killed, WAYS[1 + at as usize % (WAYS.len() - 1)]],
                (false, 0) => vec![WAYS[turn]],
                (false, _) => vec![],
            };
            for how in ways {
                let again = (at % 7 == 0).then_some(at * 31 % 97);
                let point = Point { at, how, again };
                println!("{kind:?}, healthy {healthy}: {point:?}");
                let (_, lives) = story.tell(Some(point));
                points += usize::from(lives > 1);
                twice += usize::from(lives > 2);
            }
        }
    }
    println!("{points} points, at {twice} of them two deaths");
    assert!(points >= 1_000 && twice >= 50);
}
