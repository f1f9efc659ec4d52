//! Bad input gets one clear line and exit code 1.

use tidegate_tests::programs::{failure_line, run, success};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions, trees};

fn place() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("tidegate-test-")
        .tempdir()
        .expect("a temporary directory")
}

fn assert_says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{word:?} is missing in: {line}");
    }
}

#[test]
fn missing_paths_are_named() {
    let place = place();
    let missing = place.path().join("no-such-tree");
    let out = place.path().join("out");
    let build = [
        "release",
        "build",
        text(&missing),
        "--product",
        "p",
        "--version",
        "1",
        "--out",
        text(&out),
    ];
    assert_says(&failure_line("tidegate", &build), &["no-such-tree"]);
    assert!(!out.exists(), "nothing half-written stays");
    assert_says(
        &failure_line("tidegate", &["serve", "--dir", text(&missing)]),
        &["no-such-tree", "tidegate init"],
    );
    assert_says(
        &failure_line("tidegate", &["nodes", "--dir", text(&missing)]),
        &["no-such-tree"],
    );
    assert_says(
        &failure_line("tidegate-node", &["run", "--dir", text(&missing)]),
        &["no-such-tree", "enrol"],
    );
    assert_says(
        &failure_line("tidegate", &["demo", "--once", "--payload", text(&missing)])
            .replace('\n', " "),
        &["no-such-tree"],
    );
}

#[test]
fn an_unknown_preset_says_which_exist() {
    let output = run(
        "tidegate",
        &[
            "rollout", "propose", "p@1", "--key", "k", "--dir", "d", "--preset", "reckless",
        ],
    );
    assert_eq!(output.status.code(), Some(2), "not understood");
    assert_says(
        &String::from_utf8_lossy(&output.stderr),
        &["reckless", "careful, normal, fast and emergency"],
    );
}

#[test]
fn a_directory_of_another_fleet_is_left_alone() {
    let place = place();
    let dir = place.path().join("c");
    success(
        "tidegate",
        &["init", "--plain-keys", "--port", "0", "--dir", text(&dir)],
    );
    let before = trees::read(&dir);
    let line = failure_line(
        "tidegate",
        &["init", "--plain-keys", "--port", "0", "--dir", text(&dir)],
    );
    assert_says(&line, &[text(&dir), "fleet"]);
    assert_eq!(trees::read(&dir), before, "not a byte changed");
}

#[test]
fn too_few_operators_for_the_approvals_are_counted() {
    let place = place();
    let dir = place.path().join("c");
    let line = failure_line(
        "tidegate",
        &[
            "init",
            "--plain-keys",
            "--dir",
            text(&dir),
            "--operator",
            "ann",
            "--approvals",
            "2",
        ],
    );
    assert_says(&line, &["3 operators", "--operator"]);
}

#[test]
fn a_port_in_use_is_named() {
    let place = place();
    let dir = place.path().join("c");
    success(
        "tidegate",
        &["init", "--plain-keys", "--port", "0", "--dir", text(&dir)],
    );
    let settings = coordinator::directory::Directory::new(&dir)
        .settings()
        .expect("settings");
    let _taken = std::net::TcpListener::bind(settings.api).expect("free until now");
    let line = failure_line("tidegate", &["serve", "--no-origin", "--dir", text(&dir)]);
    assert_says(&line, &[&settings.api.to_string(), "in use"]);
}

#[test]
fn a_corrupt_ledger_names_its_entry() {
    let world = World::coordinator_only(&WorldOptions::default());
    let home = world.home();
    assert_says(&world.tidegate(&["audit", "verify"]), &["every link holds"]);
    let copy = world.path("copy");
    let mut world = world;
    world.kill_coordinator();
    copy_files(&home, &copy);
    let entries = coordinator::ledger::verify(&copy.join("ledger.redb"))
        .expect("whole")
        .entries;
    assert!(entries >= 3, "there is something to spoil");
    edit_entry(&copy.join("ledger.redb"), 2);
    let line = failure_line("tidegate", &["audit", "verify", "--dir", text(&copy)]);
    assert_says(&line, &["entry 2"]);
    let line = failure_line("tidegate", &["serve", "--no-origin", "--dir", text(&copy)]);
    assert_says(&line, &["entry 2"]);
}

/// Changes a byte of an entry behind the coordinator's back.
fn edit_entry(path: &std::path::Path, number: u64) {
    use redb::ReadableTable as _;
    const ENTRIES: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("ledger-1");
    let ledger = redb::Database::open(path).expect("a database");
    let change = ledger.begin_write().expect("a transaction");
    {
        let mut entries = change.open_table(ENTRIES).expect("the entries");
        let mut bytes = entries
            .get(number)
            .expect("readable")
            .expect("there")
            .value()
            .to_vec();
        *bytes.last_mut().expect("not empty") ^= 1;
        entries.insert(number, bytes.as_slice()).expect("written");
    }
    change.commit().expect("durable");
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("readable").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => copy_files(&entry.path(), &target),
            kind if kind.is_file() => drop(std::fs::copy(entry.path(), target).expect("copied")),
            _ => {}
        }
    }
}

#[test]
fn wrong_keys_and_tokens_are_refused() {
    let world = World::coordinator_only(&WorldOptions::default());
    let home = world.home();
    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 16);
    let out = world.path("build");
    success(
        "tidegate",
        &[
            "release",
            "build",
            text(&tree),
            "--product",
            "app",
            "--version",
            "1.0",
            "--out",
            text(&out),
        ],
    );
    let root = home.join("root.json");
    // Signed by an operator's key, which is none of the releases role.
    success(
        "tidegate",
        &[
            "release",
            "sign",
            text(&out),
            "--key",
            &world.key("op1"),
            "--root",
            text(&root),
        ],
    );
    let line = failure_line(
        "tidegate",
        &["release", "publish", text(&out), "--dir", text(&home)],
    );
    assert_says(&line, &["signature", "eleases"]);
    let line = failure_line(
        "tidegate",
        &[
            "release",
            "sign",
            text(&out),
            "--key",
            text(&tree.join("run.sh")),
            "--root",
            text(&root),
        ],
    );
    assert_says(&line, &["run.sh"]);

    let made: serde_json::Value =
        serde_json::from_str(&world.tidegate(&["token", "--json", "--valid", "1ms"]))
            .expect("JSON");
    let field = |name: &str| made[name].as_str().expect("text").to_owned();
    let dir = world.path("late");
    let line = failure_line(
        "tidegate-node",
        &[
            "enroll",
            "--coordinator",
            &field("coordinator"),
            "--token",
            &field("token"),
            "--root-digest",
            &field("root_digest"),
            "--dir",
            text(&dir),
        ],
    );
    assert_says(&line, &["expired"]);
    let made: serde_json::Value =
        serde_json::from_str(&world.tidegate(&["token", "--json"])).expect("JSON");
    let field = |name: &str| made[name].as_str().expect("text").to_owned();
    let enroll = |dir: &std::path::Path| {
        let all = [
            "enroll",
            "--coordinator",
            &field("coordinator"),
            "--token",
            &field("token"),
            "--root-digest",
            &field("root_digest"),
            "--listen",
            "127.0.0.1",
            "--dir",
            text(dir),
        ]
        .map(str::to_owned);
        all.to_vec()
    };
    let first = enroll(&world.path("first"));
    success(
        "tidegate-node",
        &first.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    let second = enroll(&world.path("second"));
    let line = failure_line(
        "tidegate-node",
        &second.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_says(&line, &["token"]);
    let again = enroll(&world.path("first"));
    let line = failure_line(
        "tidegate-node",
        &again.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_says(&line, &["already"]);
}

#[test]
fn a_proposer_cannot_approve_and_two_others_must() {
    let world = World::coordinator_only(&WorldOptions::default());
    let home = world.home();
    let tree = world.path("tree");
    trees::make(&tree, 1, 1 << 16);
    world.publish(&tree, "1.0", &[]);
    world.enroll("site-1", "127.0.0.1", &world.path("node"));
    let id = world.propose("1.0", &["rest"]);
    let approve = |operator: &str| {
        [
            "rollout",
            "approve",
            "app-1.0",
            "--key",
            &world.key(operator),
            "--dir",
            text(&home),
        ]
        .map(str::to_owned)
    };
    let say = |arguments: [String; 7]| arguments.to_vec();
    let mine = say(approve("op1"));
    assert_says(
        &failure_line(
            "tidegate",
            &mine.iter().map(String::as_str).collect::<Vec<_>>(),
        ),
        &["proposed", "does not count"],
    );
    let start = ["rollout", "start", id.as_str(), "--dir", text(&home)];
    assert_says(&failure_line("tidegate", &start), &["app-1.0", "approv"]);
    for _ in 0..2 {
        world.tidegate(&[
            "rollout",
            "approve",
            id.as_str(),
            "--key",
            &world.key("op2"),
        ]);
    }
    assert_says(&failure_line("tidegate", &start), &["app-1.0", "approv"]);
    world.tidegate(&[
        "rollout",
        "approve",
        id.as_str(),
        "--key",
        &world.key("op3"),
    ]);
    world.tidegate(&["rollout", "start", id.as_str()]);
}

/// A file system of its own, unmounted when the test ends.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf) -> Option<SmallDisk> {
        std::fs::create_dir_all(&at).expect("made");
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(&at)
            .output();
        mount
            .is_ok_and(|o| o.status.success())
            .then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_said() {
    let place = place();
    let tree = place.path().join("tree");
    trees::make(&tree, 1, 1 << 20);
    let Some(disk) = SmallDisk::mount(place.path().join("disk")) else {
        println!("skipped: only root may mount a small file system to fill");
        return;
    };
    let out = disk.0.join("out");
    let line = failure_line(
        "tidegate",
        &[
            "release",
            "build",
            text(&tree),
            "--product",
            "p",
            "--version",
            "1",
            "--out",
            text(&out),
        ],
    );
    assert_says(&line, &["disk/", "No space left"]);
    assert!(!out.exists(), "nothing half-written stays");
}
