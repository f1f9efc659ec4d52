//! Recipes for the system's own package managers.
//!
//! What comes out is a command recipe like any other, which operators see and sign whole: install, a rule
//! that asks the package database for exactly this version, the way back, and how a package database that
//! somebody else holds is told from a failure. Programs run with `LC_ALL=C`, because some of them are told
//! apart by what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use protocol::limits::STEP_TIMEOUT;
use protocol::manifest::{Busy, Install};

use super::args::package::PackageArgs;

/// Compares what a query prints with its first argument.
const IS: &str = r#"want=$1; shift; test "$("$@")" = "$want""#;
/// Removes a package if it is there.
const ERASE: &str =
    r#"name=$1; shift; if "$@" --query "$name" >/dev/null; then "$@" --erase "$name"; fi"#;

/// A package and what is known of it.
struct Package<'a> {
    ask: &'a PackageArgs,
    file: String,
    name: String,
    version: String,
}

/// Whether the release is a package.
pub fn is_asked(ask: &PackageArgs) -> bool {
    ask.deb || ask.rpm
}

/// The recipe for the package at `path`, and a directory made beside `out` with the files that it needs.
///
/// # Errors
/// When a file is missing, or nothing tells the package's name and version.
pub fn recipe(ask: &PackageArgs, path: &Path, out: &Path) -> anyhow::Result<(Install, PathBuf)> {
    let (name, version) = match &ask.named {
        Some(named) => named
            .split_once('=')
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .context("--package is written NAME=VERSION")?,
        None => read(ask, path)?,
    };
    if [&name, &version].iter().any(|word| !is_plain(word)) {
        bail!(
            "{name:?} in version {version:?} is no package: letters, digits and .+~:_- make a name"
        );
    }
    let package = Package {
        ask,
        file: file_name(path)?,
        name,
        version,
    };
    let mut dir = out.as_os_str().to_owned();
    dir.push(".package");
    let dir = PathBuf::from(dir);
    // One that is there may be somebody's.
    std::fs::create_dir(&dir)
        .with_context(|| format!("{} is needed for the build", dir.display()))?;
    let gathered = gather(path, ask.previous.as_deref(), &dir);
    let install = gathered.and_then(|()| match ask.deb {
        true => package.deb(),
        false => package.rpm(),
    });
    if install.is_err() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    Ok((install?, dir))
}

/// Copies the files of the release.
fn gather(path: &Path, previous: Option<&Path>, dir: &Path) -> anyhow::Result<()> {
    for file in [Some(path), previous].into_iter().flatten() {
        let copy = dir.join(file_name(file)?);
        if copy.exists() {
            bail!(
                "{} has the name of the package that it precedes",
                file.display()
            );
        }
        std::fs::copy(file, &copy).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

impl Package<'_> {
    fn deb(&self) -> anyhow::Result<Install> {
        // Where a configuration file was changed by hand, nobody is there to ask.
        let install = |file: &str| {
            let kept = ["--force-confdef", "--force-confold", "--install"];
            self.program("dpkg", &[&kept[..], &[file]].concat())
        };
        let query = [
            "--showformat=${db:Status-Status} ${Version}",
            "--show",
            &self.name,
        ];
        let undo = match (&self.ask.previous, &self.ask.previous_version) {
            (Some(file), _) => install(&local(file)?),
            (_, Some(version)) => {
                let package = format!("{}={version}", self.name);
                let apt = [
                    "apt-get",
                    "install",
                    "--yes",
                    "--allow-downgrades",
                    &package,
                ];
                words(
                    &[
                        &["env", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"],
                        &apt[..],
                    ]
                    .concat(),
                )
            }
            _ => self.program("dpkg", &["--remove", &self.name]),
        };
        let query = self.options("dpkg-query", &query);
        Ok(Install::Command {
            steps: vec![install(&format!("./{}", self.file))],
            detect: shell(IS, &format!("installed {}", self.version), query),
            undo: vec![undo],
            expected_exit_codes: vec![0],
            max_run_time: STEP_TIMEOUT,
            busy: vec![Busy {
                exit_code: 2,
                output: "locked by another process".into(),
            }],
        })
    }

    fn rpm(&self) -> anyhow::Result<Install> {
        let install =
            |file: &str| self.program("rpm", &["--upgrade", "--oldpackage", "--replacepkgs", file]);
        let query = [
            "--query",
            "--queryformat",
            "%{VERSION}-%{RELEASE}",
            &self.name,
        ];
        let undo = match (&self.ask.previous, &self.ask.previous_version) {
            (Some(file), _) => install(&local(file)?),
            (_, Some(version)) => {
                let package = format!("{}-{version}", self.name);
                words(&[
                    "env",
                    "LC_ALL=C",
                    "dnf",
                    "--assumeyes",
                    "downgrade",
                    &package,
                ])
            }
            _ => shell(ERASE, &self.name, self.program("rpm", &[])),
        };
        Ok(Install::Command {
            steps: vec![install(&format!("./{}", self.file))],
            detect: shell(IS, &self.version, self.program("rpm", &query)),
            undo: vec![undo],
            expected_exit_codes: vec![0],
            max_run_time: STEP_TIMEOUT,
            busy: vec![Busy {
                exit_code: 1,
                output: "transaction lock".into(),
            }],
        })
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Vec<String> {
        let program = self.ask.package_program.as_deref().unwrap_or(name);
        self.options(program, arguments)
    }

    fn options(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let mut argv = words(&["env", "LC_ALL=C", program]);
        argv.extend(self.ask.package_option.iter().cloned());
        argv.extend(words(arguments));
        argv
    }
}

/// Name and version, as the package itself has them.
fn read(ask: &PackageArgs, path: &Path) -> anyhow::Result<(String, String)> {
    let (program, arguments) = match ask.deb {
        true => (
            "dpkg-deb",
            &["--show", "--showformat=${Package} ${Version}"][..],
        ),
        false => {
            let format = "%{NAME} %{VERSION}-%{RELEASE}";
            (
                "rpm",
                &["--query", "--queryformat", format, "--package"][..],
            )
        }
    };
    let said = Command::new(program).args(arguments).arg(path).output();
    let said = said.with_context(|| {
        format!("{program} is needed to read the package's name and version; or give --package NAME=VERSION")
    })?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr);
        let line = why.lines().next().unwrap_or_default();
        bail!(
            "{} is not a package that {program} reads: {line}",
            path.display()
        );
    }
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    let (name, version) = said
        .split_once(' ')
        .with_context(|| format!("{program} says of {} only {said:?}", path.display()))?;
    Ok((name.to_owned(), version.to_owned()))
}

/// What no shell, package manager or reader takes for anything but a name.
fn is_plain(word: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || ".+~:_-".contains(c);
    word.starts_with(|c: char| c.is_ascii_alphanumeric()) && word.chars().all(fine)
}

fn file_name(path: &Path) -> anyhow::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} is no file with a plain name", path.display()))?;
    Ok(name.to_owned())
}

fn local(path: &Path) -> anyhow::Result<String> {
    Ok(format!("./{}", file_name(path)?))
}

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|word| (*word).to_owned()).collect()
}

/// A script with its first argument, and a command line as the others.
fn shell(script: &str, first: &str, rest: Vec<String>) -> Vec<String> {
    let mut argv = words(&["sh", "-c", script, "sh", first]);
    argv.extend(rest);
    argv
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps, detect rule and undo steps as lines.
    fn check(ask: PackageArgs, file: &str, expected: [&str; 3]) {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in [file, "app_1.deb"] {
            std::fs::write(at(name), name).unwrap();
        }
        let ask = PackageArgs {
            named: Some("app=1:2.0-1~deb12".into()),
            previous: ask.previous.map(|name| dir.path().join(name)),
            ..ask
        };
        let (install, made) = recipe(&ask, &at(file), &at("out")).unwrap();
        let Install::Command {
            steps,
            detect,
            undo,
            ..
        } = install
        else {
            panic!("a recipe")
        };
        let found = [steps[0].join(" "), detect.join(" "), undo[0].join(" ")];
        assert_eq!(found, expected);
        assert_eq!(std::fs::read_to_string(made.join(file)).unwrap(), file);
        assert_eq!(made.join("app_1.deb").exists(), ask.previous.is_some());
    }

    #[test]
    fn a_deb_goes_back_to_the_one_before_or_is_removed() {
        let install =
            "env LC_ALL=C dpkg --root=/x --force-confdef --force-confold --install ./a.deb";
        let detect = r#"sh -c want=$1; shift; test "$("$@")" = "$want" sh installed 1:2.0-1~deb12 env LC_ALL=C dpkg-query --root=/x --showformat=${db:Status-Status} ${Version} --show app"#;
        let ask = PackageArgs {
            deb: true,
            package_option: vec!["--root=/x".into()],
            ..PackageArgs::default()
        };
        let remove = "env LC_ALL=C dpkg --root=/x --remove app";
        check(ask.clone(), "a.deb", [install, detect, remove]);
        let back = install.replace("a.deb", "app_1.deb");
        let previous = Some("app_1.deb".into());
        let with = PackageArgs {
            previous,
            ..ask.clone()
        };
        check(with, "a.deb", [install, detect, &back]);
        let apt = "env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get install --yes --allow-downgrades app=1.9";
        let previous_version = Some("1.9".into());
        let with = PackageArgs {
            previous_version,
            ..ask
        };
        check(with, "a.deb", [install, detect, apt]);
    }

    #[test]
    fn an_rpm_too() {
        let install = "env LC_ALL=C /opt/rpm --upgrade --oldpackage --replacepkgs ./a.rpm";
        let detect = r#"sh -c want=$1; shift; test "$("$@")" = "$want" sh 1:2.0-1~deb12 env LC_ALL=C /opt/rpm --query --queryformat %{VERSION}-%{RELEASE} app"#;
        let erase = format!("sh -c {ERASE} sh app env LC_ALL=C /opt/rpm");
        let ask = PackageArgs {
            rpm: true,
            package_program: Some("/opt/rpm".into()),
            ..PackageArgs::default()
        };
        check(ask.clone(), "a.rpm", [install, detect, &erase]);
        let previous_version = Some("1.9-1".into());
        let with = PackageArgs {
            previous_version,
            ..ask
        };
        check(
            with,
            "a.rpm",
            [
                install,
                detect,
                "env LC_ALL=C dnf --assumeyes downgrade app-1.9-1",
            ],
        );
    }

    #[test]
    fn what_is_no_package_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.deb");
        std::fs::write(&file, "no package").unwrap();
        let check = |named: Option<&str>, previous: Option<&Path>, expected: &str| {
            let ask = PackageArgs {
                deb: true,
                named: named.map(str::to_owned),
                previous: previous.map(Path::to_owned),
                ..PackageArgs::default()
            };
            let error = recipe(&ask, &file, &dir.path().join("out")).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(expected), "{error}");
        };
        check(Some("app"), None, "NAME=VERSION");
        check(Some("app=$(reboot)"), None, "is no package");
        check(Some("--root=/=1"), None, "is no package");
        check(Some("app=1"), Some(&file), "has the name");
        check(
            Some("app=1"),
            Some(Path::new("/no/such.deb")),
            "/no/such.deb",
        );
        // With or without dpkg-deb on this machine.
        check(None, None, "dpkg-deb");
    }
}
