//! The privileged installer of a node that runs without privileges.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::World;
use crate::programs::command;
use crate::world::text;

/// The user `nobody`, who has no rights of his own anywhere.
pub const NOBODY: u32 = 65_534;

/// An installer and, while it runs, its process. Dropping it ends the process.
pub struct Pair {
    /// Its own directory.
    pub dir: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// The node's directory.
    pub node_dir: PathBuf,
    /// Who may ask.
    pub user: u32,
    process: Option<Child>,
}

impl Pair {
    /// The installer of a node directory, in a place of its own; it does not run yet.
    pub fn of(node_dir: &Path, place: &Path, user: u32) -> Pair {
        Pair {
            dir: place.join("installer"),
            socket: place.join("installer.sock"),
            node_dir: node_dir.to_owned(),
            user,
            process: None,
        }
    }

    /// Starts it; what it logs goes to `log`.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn start(&mut self, log: &Path) {
        let log = File::options().create(true).append(true).open(log);
        let log = log.expect("a log");
        let user = self.user.to_string();
        let arguments = [
            "installer",
            "--dir",
            text(&self.dir),
            "--node-dir",
            text(&self.node_dir),
            "--user",
            &user,
            "--socket",
            text(&self.socket),
        ];
        let process = command("tidegate-node", &arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("the program starts"));
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Where `app` is installed.
    pub fn current(&self) -> PathBuf {
        self.dir.join("install/app/current")
    }

    /// The version that `current` names.
    pub fn installed_version(&self) -> Option<String> {
        let target = std::fs::read_link(self.current()).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Takes a node's privileges away, if there are any to take, and has it hand its steps to an installer, which
/// does not run yet.
///
/// # Panics
/// When the node's files cannot be given away.
pub fn split(world: &mut World, node: usize) -> Pair {
    let dir = world.nodes[node].dir.clone();
    let own = rustix::process::geteuid().as_raw();
    let user = match own {
        0 => NOBODY,
        own => {
            println!("not run by root: both processes run as user {own}");
            own
        }
    };
    world.kill_node(node);
    if user != own {
        let above = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(world.path("."), above).expect("set");
        give(&dir, user);
        world.nodes[node].user = Some(user);
    }
    let pair = Pair::of(&dir, &world.path("."), user);
    world.describe(node, "installer", text(&pair.socket));
    pair
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).expect("given");
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("listed") {
            give(&entry.expect("an entry").path(), user);
        }
    }
}
