//! A package of the system's own package manager, as `release build` takes it.

use std::path::PathBuf;

use clap::Args;

/// What becomes a recipe for dpkg or rpm.
#[derive(Args, Debug, Clone, Default)]
pub struct PackageArgs {
    /// PATH is a .deb file, which dpkg installs
    #[arg(long, conflicts_with_all = ["recipe", "rpm"])]
    pub deb: bool,
    /// PATH is an .rpm file, which rpm installs
    #[arg(long, conflicts_with = "recipe")]
    pub rpm: bool,
    /// The package file to go back to; it becomes part of the release [default: going back removes the package]
    #[arg(long, value_name = "FILE")]
    pub previous: Option<PathBuf>,
    /// The version to go back to, which apt-get or dnf finds where the machine gets its packages
    #[arg(long, value_name = "VERSION", conflicts_with = "previous")]
    pub previous_version: Option<String>,
    /// The package's name and version, where this machine has no dpkg-deb or rpm to read them from PATH
    #[arg(long = "package", value_name = "NAME=VERSION")]
    pub named: Option<String>,
    /// Given to dpkg or rpm, and to their queries, before anything else, such as --root=DIR
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub package_option: Vec<String>,
    /// Run instead of rpm, or of dpkg
    #[arg(long, value_name = "PROGRAM")]
    pub package_program: Option<String>,
}
