//! What the demo distributes: the project's own tree and the running executable, or `--payload`.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The demo's releases as trees on disk.
pub struct Payload {
    tree: PathBuf,
    health_check: String,
}

/// A release to be.
pub struct Tree {
    /// A directory or a file.
    pub path: PathBuf,
    /// Shell command that finds out whether it works.
    pub health_check: String,
}

impl Payload {
    /// Takes `asked`, or copies the project's tree and the running executable below `dir`.
    ///
    /// # Errors
    /// When something cannot be read or copied.
    pub fn collect(asked: Option<&Path>, dir: &Path) -> anyhow::Result<Payload> {
        if let Some(path) = asked {
            return Ok(Payload {
                tree: path.to_owned(),
                health_check: "true".into(),
            });
        }
        let tree = dir.join("payload");
        std::fs::create_dir_all(tree.join("bin"))?;
        let executable =
            std::env::current_exe().context("failed to find the running executable")?;
        std::fs::copy(&executable, tree.join("bin/tidegate"))
            .with_context(|| format!("failed to copy {}", executable.display()))?;
        if let Some(project) = project() {
            copy_tree(&project, &tree.join("project"), true)
                .with_context(|| format!("failed to copy {}", project.display()))?;
        }
        Ok(Payload {
            tree,
            health_check: "./bin/tidegate --version".into(),
        })
    }

    /// The good release.
    pub fn good(&self) -> Tree {
        Tree {
            path: self.tree.clone(),
            health_check: self.health_check.clone(),
        }
    }

    /// The next release, in which a file changed and the health check fails.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn bad(&self, dir: &Path) -> anyhow::Result<Tree> {
        let path = dir.join("payload-broken");
        if self.tree.is_dir() {
            copy_tree(&self.tree, &path, false)?;
        } else {
            std::fs::create_dir_all(&path)?;
            std::fs::copy(&self.tree, path.join("payload"))?;
        }
        std::fs::write(
            path.join("CHANGES"),
            "this release does not pass its own self-test\n",
        )?;
        Ok(Tree {
            path,
            health_check: "echo 'self-test: 1 of 3 checks failed' >&2; exit 1".into(),
        })
    }
}

/// The project's tree: where cargo runs us from, or the current directory.
fn project() -> Option<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let candidates = [
        manifest.and_then(|m| m.parent().map(Path::to_owned)),
        std::env::current_dir().ok(),
    ];
    candidates
        .into_iter()
        .flatten()
        .find(|dir| dir.join("protocol/src/limits.rs").is_file())
}

/// Copies directories and regular files; at the top, hidden names and build output are left out.
fn copy_tree(from: &Path, to: &Path, top: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if top && (name == "target" || name.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        let kind = entry.file_type()?;
        let target = to.join(&name);
        if kind.is_dir() {
            copy_tree(&entry.path(), &target, false)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
