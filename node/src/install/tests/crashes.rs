//! Every step again from every state that an earlier attempt may have left, and attempts that are killed.

use super::*;
use Step::{CleanUp, Detect, RollBack, Switch, WriteSlot};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

/// A machine with 1.0 in use, and what `leave` did to it on the way to 2.0.
struct Crashed {
    machine: Machine,
    one: Ready,
    two: Ready,
}

impl Crashed {
    async fn new(steps: &[Step], leave: impl FnOnce(&Machine)) -> Crashed {
        let machine = Machine::new();
        let (one, two) = (machine.tree("1.0"), machine.tree("2.0"));
        machine.done(&one, None, &[WriteSlot, Switch]).await;
        machine.done(&two, Some(&one), steps).await;
        leave(&machine);
        Crashed { machine, one, two }
    }

    async fn goes_on(&self) {
        self.machine
            .done(
                &self.two,
                Some(&self.one),
                &[WriteSlot, Switch, Detect, CleanUp],
            )
            .await;
        assert_eq!(self.machine.current().as_deref(), Some("2.0"));
        self.is_tidy(&["1.0", "2.0"]);
    }

    async fn goes_back(&self) {
        self.machine
            .done(&self.two, Some(&self.one), &[RollBack, CleanUp])
            .await;
        assert_eq!(self.machine.current().as_deref(), Some("1.0"));
        self.machine.done(&self.one, None, &[Detect]).await;
        self.is_tidy(&["1.0"]);
    }

    fn is_tidy(&self, versions: &[&str]) {
        assert_eq!(self.machine.versions(), versions);
        let mut names = super::super::slots::names(&self.machine.at("")).unwrap();
        names.retain(|name| !name.starts_with(".current."));
        names.sort();
        assert_eq!(names, ["current", "releases", "versions"]);
    }
}

type Leave = fn(&Machine);
type States = &'static [(&'static str, Leave)];

/// States on the way to a complete slot: made by hand, as a crash between two system calls leaves them.
const BEFORE_THE_SLOT: States = &[
    ("nothing was done", |_| {}),
    ("a half-written tree", |m| {
        let partial = m.at("slots").join(ID.to_string());
        fs::create_dir_all(partial.join("data")).unwrap();
        fs::write(partial.join("data/noise"), "half").unwrap();
        symlink("/etc", partial.join("version")).unwrap();
        fs::set_permissions(partial.join("data"), fs::Permissions::from_mode(0o000)).unwrap();
    }),
    ("a marker without its slot", |m| {
        fs::write(
            m.at("releases/2.0.json"),
            fs::read(m.at("releases/1.0.json")).unwrap(),
        )
        .unwrap();
    }),
    ("half a marker", |m| {
        fs::write(m.at("releases/.2.0.new"), "{\"vers").unwrap()
    }),
    ("a marker that is garbage, and a slot", |m| {
        fs::write(m.at("releases/2.0.json"), "\0\0\0\0").unwrap();
        fs::create_dir_all(m.at("versions/2.0/x")).unwrap();
    }),
    ("a slot without a marker", |m| {
        fs::create_dir_all(m.at("versions/2.0/x")).unwrap()
    }),
    ("a slot that was on its way out", |m| {
        fs::create_dir_all(m.at("slots/2.0.going/x")).unwrap()
    }),
];

/// States around a complete slot.
const BEFORE_THE_SWITCH: States = &[
    ("a complete slot", |_| {}),
    ("a complete slot and the tree that it replaced", |m| {
        fs::create_dir_all(m.at("slots").join(ID.to_string()).join("data")).unwrap();
    }),
    ("a slot that was damaged", |m| {
        fs::write(m.at("versions/2.0/data/noise"), "damaged").unwrap()
    }),
    ("a slot with a mode that was changed", |m| {
        fs::set_permissions(
            m.at("versions/2.0/version"),
            fs::Permissions::from_mode(0o777),
        )
        .unwrap();
    }),
    ("a slot with a link in a file's place", |m| {
        fs::rename(m.at("versions/2.0/version"), m.at("versions/2.0/moved")).unwrap();
        symlink("moved", m.at("versions/2.0/version")).unwrap();
    }),
    ("a new link that was not renamed", |m| {
        symlink("versions/2.0", m.at(&format!(".current.{}", ID.short()))).unwrap();
    }),
];

/// States behind the switch, on the way forward or back.
const BEHIND_THE_SWITCH: States = &[
    ("switched", |_| {}),
    ("current is back, the slot is there", |m| {
        fs::remove_file(m.at("current")).unwrap();
        symlink("versions/1.0", m.at("current")).unwrap();
    }),
    ("current is back, the marker is gone", |m| {
        fs::remove_file(m.at("current")).unwrap();
        symlink("versions/1.0", m.at("current")).unwrap();
        fs::remove_file(m.at("releases/2.0.json")).unwrap();
    }),
    ("current is back, the slot is on its way out", |m| {
        fs::remove_file(m.at("current")).unwrap();
        symlink("versions/1.0", m.at("current")).unwrap();
        fs::remove_file(m.at("releases/2.0.json")).unwrap();
        fs::create_dir_all(m.at("slots")).unwrap();
        fs::rename(m.at("versions/2.0"), m.at("slots/2.0.going")).unwrap();
    }),
];

#[tokio::test]
async fn from_every_state_it_goes_on_and_it_goes_back() {
    let reached: [(&[Step], States); 3] = [
        (&[], BEFORE_THE_SLOT),
        (&[WriteSlot], BEFORE_THE_SWITCH),
        (&[WriteSlot, Switch], BEHIND_THE_SWITCH),
    ];
    for (steps, states) in reached {
        for (name, leave) in states {
            println!("{name}: on");
            Crashed::new(steps, leave).await.goes_on().await;
            println!("{name}: back");
            Crashed::new(steps, leave).await.goes_back().await;
        }
    }
}

#[tokio::test]
async fn a_version_in_use_that_was_damaged_is_repaired_in_one_step() {
    let crashed = Crashed::new(&[], |m| {
        fs::write(m.at("versions/1.0/data/noise"), "damaged").unwrap()
    })
    .await;
    crashed
        .machine
        .done(&crashed.one, None, &[WriteSlot, Detect])
        .await;
    assert_eq!(crashed.machine.current().as_deref(), Some("1.0"));
}

/// Names a directory in which a child of this test takes steps until it is killed.
const CHILD: &str = "TIDEGATE_TEST_INSTALL_CHILD";

#[test]
fn an_installation_that_is_killed_anywhere_ends_right() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let machine = Machine::new();
    let (one, two) = (machine.tree("1.0"), machine.tree("2.0"));
    runtime.block_on(machine.done(&one, None, &[WriteSlot, Switch]));
    let back_and_forth = "install::tests::crashes::child_that_is_killed";
    for seed in 0..20u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", back_and_forth, "--ignored", "--nocapture"])
            .env(CHILD, machine.bench.at(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The child says when it begins; then it has a different while each time.
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert!(
            lines.any(|line| line.unwrap().contains("begins")),
            "the child takes steps"
        );
        let random = u64::from(noise(seed, 2)[0]);
        std::thread::sleep(std::time::Duration::from_micros(random * 300));
        child.kill().unwrap();
        child.wait().unwrap();
        let version = machine.current();
        assert!(
            version.is_some(),
            "seed {seed}: something complete is in use at every moment"
        );
        runtime.block_on(async {
            if seed % 2 == 0 {
                machine.done(&two, Some(&one), &[RollBack]).await;
                assert_eq!(machine.current().as_deref(), Some("1.0"));
            } else {
                machine
                    .done(&two, Some(&one), &[WriteSlot, Switch, Detect])
                    .await;
                assert_eq!(machine.current().as_deref(), Some("2.0"));
            }
        });
    }
}

/// Not a test of its own: it is run, and killed, by the one above.
#[tokio::test]
#[ignore = "a child of another test"]
async fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return;
    };
    // It builds the same releases in a directory of its own, and installs into the one it is given.
    let mut machine = Machine::new();
    let (one, two) = (machine.tree("1.0"), machine.tree("2.0"));
    machine.installer = Installer::new(dir.join("install"));
    println!("begins");
    loop {
        machine
            .done(&two, Some(&one), &[WriteSlot, Switch, Detect, RollBack])
            .await;
    }
}
