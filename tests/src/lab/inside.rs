//! Work that is done inside a namespace: sockets and devices belong to the one that they are made in.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Does `work` in the namespace of this name. A namespace is a thread's, so a thread of its own goes there.
///
/// # Errors
/// When the namespace is not there, and those of `work`.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/run/netns/{namespace}");
    let enter = || -> Result<()> {
        let file = std::fs::File::open(&path).with_context(|| format!("failed to open {path}"))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(())
    };
    std::thread::scope(|scope| {
        let there = scope.spawn(|| enter().and_then(|()| work()));
        there.join().expect("the thread does not panic")
    })
}
