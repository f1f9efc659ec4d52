//! The rules of the house: who imports whom, what stays pure, how files are kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(workspace().join("Cargo.toml"))
        .other_options(["--locked".to_owned()])
        .exec()
        .expect("cargo metadata")
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

const PROTOCOL: &str = "tidegate-protocol";
const NODE_CORE: &str = "tidegate-node-core";
const COORDINATOR_CORE: &str = "tidegate-coordinator-core";
const NODE: &str = "tidegate-node";
const COORDINATOR: &str = "tidegate-coordinator";
const SIMULATIONS: &str = "tidegate-simulations";

/// Packages as the house names them, and whom each may import.
const ARROWS: [(&str, &[&str]); 7] = [
    (PROTOCOL, &[]),
    (NODE_CORE, &[PROTOCOL]),
    (COORDINATOR_CORE, &[PROTOCOL]),
    (NODE, &[NODE_CORE, PROTOCOL]),
    (COORDINATOR, &[COORDINATOR_CORE, NODE, PROTOCOL]),
    (SIMULATIONS, &[NODE_CORE, COORDINATOR_CORE, PROTOCOL]),
    (
        "tidegate-tests",
        &[
            PROTOCOL,
            NODE_CORE,
            COORDINATOR_CORE,
            NODE,
            COORDINATOR,
            SIMULATIONS,
        ],
    ),
];

#[test]
fn arrows_point_as_the_plan_says() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(found, ours, "the packages of the house");
    for (name, allowed) in ARROWS {
        let package = packages
            .iter()
            .find(|p| p.name == name)
            .expect("checked above");
        for dependency in &package.dependencies {
            let other = dependency.name.as_str();
            if dependency.kind == DependencyKind::Normal && ours.contains(other) {
                assert!(allowed.contains(&other), "{name} must not import {other}");
            }
        }
    }
}

#[test]
fn pure_packages_pull_in_nothing_that_does_input_or_output() {
    let impure = [
        "tokio",
        "quinn",
        "quinn-proto",
        "libp2p",
        "redb",
        "rustls",
        "reqwest",
        "mio",
        "socket2",
        "axum",
    ];
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let name_of: BTreeMap<_, _> = metadata
        .packages
        .iter()
        .map(|p| (&p.id, p.name.to_string()))
        .collect();
    for pure in [PROTOCOL, NODE_CORE, COORDINATOR_CORE] {
        let start = &metadata
            .packages
            .iter()
            .find(|p| p.name == pure)
            .expect("there")
            .id;
        let (mut seen, mut queue) = (BTreeSet::new(), vec![start]);
        while let Some(id) = queue.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = resolve
                .nodes
                .iter()
                .find(|n| n.id == *id)
                .expect("resolved");
            let normal = |d: &&cargo_metadata::NodeDep| {
                d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal)
            };
            queue.extend(node.deps.iter().filter(normal).map(|d| &d.pkg));
        }
        for id in seen {
            assert!(
                !impure.contains(&name_of[id].as_str()),
                "{pure} pulls in {}",
                name_of[id]
            );
        }
    }
}

#[test]
fn pure_sources_name_no_clock_disk_socket_or_unseeded_randomness() {
    let words = [
        "std::fs",
        "std::net",
        "std::time",
        "SystemTime",
        "Instant::now",
        "std::env",
        "std::thread",
        "OsRng",
        "from_os_rng",
        "HashMap",
        "HashSet",
    ];
    for package in ["protocol/src", "node/core/src", "coordinator/core/src"] {
        for (path, text) in sources(&workspace().join(package)) {
            for word in words {
                let found = text
                    .lines()
                    .find(|line| line.contains(word) && !line.trim_start().starts_with("//"));
                assert_eq!(found, None, "{} names {word}", path.display());
            }
        }
    }
}

#[test]
fn files_are_rooms_and_named_for_what_they_hold() {
    let nameless = ["utils", "util", "common", "manager", "helpers", "misc"];
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        assert!(
            lines <= 600,
            "{} has {lines} lines; it holds a second room",
            path.display()
        );
        let stem = path.file_stem().and_then(|s| s.to_str()).expect("a name");
        assert!(
            !nameless.contains(&stem),
            "{} says nothing by its name",
            path.display()
        );
    }
}

#[test]
fn main_functions_are_short() {
    for main in [
        "coordinator/src/main.rs",
        "simulations/src/main.rs",
        "node/src/bin/tidegate-node.rs",
    ] {
        let lines = std::fs::read_to_string(workspace().join(main))
            .expect("there")
            .lines()
            .count();
        assert!(lines <= 60, "{main} has {lines} lines");
    }
}

#[test]
fn nothing_is_skipped_or_left_open() {
    let words = [
        concat!("#[ig", "nore]"),
        concat!("to", "do!("),
        concat!("unimpl", "emented!("),
        concat!("FIX", "ME"),
    ];
    for (path, text) in all_sources() {
        for word in words {
            assert!(!text.contains(word), "{} holds {word}", path.display());
        }
    }
}

#[test]
fn every_package_takes_version_and_lints_from_the_root() {
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("there");
        assert!(
            manifest.contains("version.workspace = true"),
            "{}: one version",
            package.name
        );
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{}: lints at the root",
            package.name
        );
    }
}

fn all_sources() -> Vec<(PathBuf, String)> {
    let folders = ["protocol", "node", "coordinator", "simulations", "tests"];
    folders
        .iter()
        .flat_map(|folder| sources(&workspace().join(folder)))
        .collect()
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut queue = vec![folder.to_owned()];
    while let Some(path) = queue.pop() {
        for entry in std::fs::read_dir(&path).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
                queue.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push((path.clone(), std::fs::read_to_string(&path).expect("text")));
            }
        }
    }
    assert!(!found.is_empty(), "{} holds sources", folder.display());
    found
}
