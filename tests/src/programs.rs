//! Where the executables are: built once, by the same cargo and profile that runs the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// The path of `tidegate`, `tidegate-node` or `tidegate-sim`.
///
/// # Panics
/// When the executables cannot be built.
pub fn program(name: &str) -> PathBuf {
    let folder = BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the workspace")
            .to_owned();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&workspace)
            .args(["build", "--quiet", "--locked", "--bins"]);
        cargo.args([
            "-p",
            "tidegate-coordinator",
            "-p",
            "tidegate-node",
            "-p",
            "tidegate-simulations",
        ]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        // Set for a test by the cargo that runs it. Build scripts look at them, ring's among them, so with
        // them half of all dependencies would be built anew here, and again for the next test run.
        let own = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(own) {
                cargo.env_remove(name);
            }
        }
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "the executables are built");
        // A test runs from TARGET/PROFILE/deps, the lab from TARGET/PROFILE, where the executables lie.
        let own = std::env::current_exe().expect("an executable has a path");
        let folder = own.parent().expect("an executable lies in a folder");
        let above = folder.parent().filter(|_| folder.ends_with("deps"));
        above.unwrap_or(folder).to_owned()
    });
    folder.join(name)
}

/// Tells a node which machine it is on; see `node::machine`.
pub const MACHINE: &str = "TIDEGATE_MACHINE_ID";
/// The machine that tests play on, whatever the real one is called.
pub const THIS_MACHINE: &str = "this machine";

/// A program with its arguments, on this machine.
pub fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    command.args(arguments).env(MACHINE, THIS_MACHINE);
    command
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started.
pub fn run(name: &str, arguments: &[&str]) -> Output {
    command(name, arguments)
        .output()
        .expect("the program starts")
}

/// What a program says when it fails: one line on standard error, exit code 1.
///
/// # Panics
/// When it succeeds, or says more or less than a line.
pub fn failure_line(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(1),
        "{name} {arguments:?} said: {error}"
    );
    assert_eq!(error.lines().count(), 1, "one line, not: {error}");
    assert!(output.stdout.is_empty(), "nothing on standard output");
    error.trim_end().to_owned()
}

/// What a program prints when it succeeds.
///
/// # Panics
/// When it fails.
pub fn success(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name} {arguments:?} said: {error}"
    );
    String::from_utf8(output.stdout).expect("text")
}
