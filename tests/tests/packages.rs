//! Packages by the system's own package managers: a real .deb by dpkg in a root of its own, and an .rpm by
//! a program that stands in for rpm.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use coordinator_core::contract::RolloutState;
use rustix::fs::{FlockOperation, fcntl_lock};
use tidegate_tests::world::text;
use tidegate_tests::{World, WorldOptions};

const ONE_NODE: WorldOptions = WorldOptions {
    sites: 1,
    nodes_per_site: 1,
    wan: "200mbit",
};

/// Whether this machine has dpkg, and may use it in a directory.
fn has_dpkg() -> bool {
    let there = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let all = ["dpkg", "dpkg-deb", "dpkg-query"].iter().all(|p| there(p));
    let root = rustix::process::geteuid().is_root();
    if !all || !root {
        println!("skipped: it needs dpkg and root (dpkg: {all}, root: {root})");
    }
    all && root
}

/// A root with an empty package database.
fn root(world: &World) -> PathBuf {
    let root = world.path("root");
    for dir in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(root.join(dir)).expect("made");
    }
    fs::write(root.join("var/lib/dpkg/status"), "").expect("written");
    root
}

/// A package `hello` with one file, which holds its version.
fn deb(world: &World, version: &str) -> PathBuf {
    let tree = world.path(&format!("deb-{version}"));
    fs::create_dir_all(tree.join("DEBIAN")).expect("made");
    fs::create_dir_all(tree.join("opt/hello")).expect("made");
    fs::write(tree.join("opt/hello/version"), version).expect("written");
    let control = format!(
        "Package: hello\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\n\
         Description: says hello\n"
    );
    fs::write(tree.join("DEBIAN/control"), control).expect("written");
    let file = world.path(&format!("hello_{version}_all.deb"));
    let built = Command::new("dpkg-deb")
        .args(["--root-owner-group", "--build", text(&tree), text(&file)])
        .output()
        .expect("dpkg-deb runs");
    assert!(built.status.success(), "{built:?}");
    file
}

/// The version that the package database has.
fn packaged(root: &Path) -> String {
    let said = Command::new("dpkg-query")
        .arg(format!("--root={}", text(root)))
        .args([
            "--showformat=${db:Status-Status} ${Version}",
            "--show",
            "hello",
        ])
        .output()
        .expect("dpkg-query runs");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

fn applied(world: &World, version: &str) {
    let id = world.roll_out(version, &["rest"]);
    world.wait_for("the package is installed", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Finished && v.counts.applied == 1)
    });
}

fn recall(world: &World, version: &str) {
    let name = format!("app-{version}");
    for operator in ["op1", "op2", "op3"] {
        let key = world.key(operator);
        let why = ["--key", &key, "--reason", "a regression"];
        world.tidegate(&[&["rollout", "recall", &name], &why[..]].concat());
    }
    let id = name.parse().expect("an id");
    world.wait_for("the release is taken back", |w| {
        w.rollout(&id)
            .is_some_and(|v| v.state == RolloutState::Recalled)
    });
}

#[test]
fn a_deb_is_installed_waits_for_another_installer_and_goes_back_when_it_is_recalled() {
    if !has_dpkg() {
        return;
    }
    let world = World::raise(&ONE_NODE);
    let root = root(&world);
    let option = format!("--root={}", text(&root));
    let (one, two) = (deb(&world, "1.0-1"), deb(&world, "2.0-1"));
    let with = ["--deb", "--package-option", &option];
    world.publish(&one, "1.0", &with);
    applied(&world, "1.0");
    assert_eq!(packaged(&root), "installed 1.0-1");

    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(root.join("var/lib/dpkg/lock-frontend"))
        .expect("a lock file");
    fcntl_lock(&lock, FlockOperation::LockExclusive).expect("nobody else installs");
    let previous = ["--previous", text(&one)];
    world.publish(&two, "2.0", &[&with[..], &previous].concat());
    let id = world.roll_out("2.0", &["rest"]);
    world.wait_for("the node says that another installer is at work", |w| {
        let why = w.why(0);
        why.contains("after installer_busy: step 1") && why.contains("comes in 15 s")
    });
    assert_eq!(packaged(&root), "installed 1.0-1");
    drop(lock);
    world.wait_for("the package is installed", |w| {
        w.rollout(&id).is_some_and(|v| v.counts.applied == 1)
    });
    assert_eq!(packaged(&root), "installed 2.0-1");
    let file = root.join("opt/hello/version");
    assert_eq!(fs::read_to_string(&file).expect("its file"), "2.0-1");

    recall(&world, "2.0");
    assert_eq!(packaged(&root), "installed 1.0-1");
    assert_eq!(fs::read_to_string(&file).expect("its file"), "1.0-1");
    recall(&world, "1.0");
    assert!(!packaged(&root).starts_with("installed"), "it is removed");
    assert!(!file.exists());
}

/// Keeps `NAME VERSION` in a file, as far as the recipe asks: a package file holds just that line.
const RPM: &str = r#"#!/bin/sh
db=$(dirname "$0")/rpm-db
case "$1" in
--upgrade) for last; do :; done; cat "$last" > "$db" ;;
--query) for last; do :; done
    test -s "$db" && read name version < "$db" && test "$name" = "$last" || exit 1
    test "$2" = --queryformat && printf %s "$version"; exit 0 ;;
--erase) : > "$db" ;;
*) exit 2 ;;
esac
"#;

#[test]
fn an_rpm_is_installed_by_the_same_recipe_and_erased_when_it_is_recalled() {
    let world = World::raise(&ONE_NODE);
    let rpm = world.path("rpm");
    fs::write(&rpm, RPM).expect("written");
    fs::set_permissions(&rpm, fs::Permissions::from_mode(0o755)).expect("a program");
    let package = world.path("hello-1.0-1.rpm");
    fs::write(&package, "hello 1.0-1\n").expect("written");
    let with = ["--rpm", "--package", "hello=1.0-1"];
    let program = ["--package-program", text(&rpm)];
    world.publish(&package, "1.0", &[&with[..], &program].concat());
    applied(&world, "1.0");
    let db = || fs::read_to_string(world.path("rpm-db")).unwrap_or_default();
    assert_eq!(db(), "hello 1.0-1\n");
    recall(&world, "1.0");
    assert_eq!(db(), "");
}
