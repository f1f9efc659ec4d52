//! A new root, by the commands that an operator types.

use std::path::PathBuf;

use crate::World;
use crate::programs::success;
use crate::world::text;

/// Puts the next root with these changes in force; gives what `publish` printed.
pub fn rotate(world: &World, name: &str, changes: &[&str]) -> String {
    let (request, signature) = sign_next(world, name, changes);
    world.tidegate(&["root", "publish", text(&request), text(&signature)])
}

/// A next root with these changes, and its signature, as two files.
pub fn sign_next(world: &World, name: &str, changes: &[&str]) -> (PathBuf, PathBuf) {
    let root = world.home().join("root.json");
    let (request, signature) = (world.path(name), world.path(&format!("{name}.sig")));
    let ask = ["root", "rotate", "--root", text(&root), "--out"];
    let ask = [&ask[..], &[text(&request)], changes].concat();
    success("tidegate", &ask);
    let key = world.key("root");
    let sign = ["root", "sign", text(&request), "--key", &key, "--root"];
    let sign = [&sign[..], &[text(&root), "--out", text(&signature)]].concat();
    success("tidegate", &sign);
    (request, signature)
}
