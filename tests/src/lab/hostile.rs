//! Members of a site that are not to be trusted: each a process of its own on its own host.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use node::driver::status;
use serde::Serialize;
use serde_json::Value;

use super::fleet::Fleet;
use crate::member::{Manner, Member, blobs_of};

/// The word on the lab's command line that makes its process such a member.
pub const MEMBER: &str = "internal-member";

/// What the honest nodes had of them.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Harm {
    /// How many there were.
    pub liars: usize,
    /// Seconds in which the honest nodes of the site are complete when there are none.
    pub clean_s: f64,
    /// The last honest node's time over that.
    pub makespan_over_clean: f64,
    /// Bytes that one node had from one of them in vain, at most.
    pub worst_wasted_bytes: u64,
    /// The same of all nodes and all of them.
    pub wasted_bytes: u64,
}

/// A member by its arguments: its directory, the fleet's roots, the release's build, whether it
/// is slow or lies, and the directories of its victims.
///
/// # Errors
/// When one is missing or cannot be used.
pub fn play(arguments: &[String]) -> Result<()> {
    let [dir, roots, build, manner, victims @ ..] = arguments else {
        bail!("a member needs its directory, the roots, the build, its manner and its victims");
    };
    let manner = match manner.as_str() {
        "slow" => Manner::Slow,
        "lies" => Manner::Forging(Vec::new()),
        other => bail!("a member is slow or lies, and not {other}"),
    };
    let victims: Vec<PathBuf> = victims.iter().map(PathBuf::from).collect();
    let blobs = blobs_of(Path::new(build))?;
    let member = Member::new(Path::new(dir), Path::new(roots), &victims, blobs, manner)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(member.play());
    Ok(())
}

/// The command for member number `n`: every other one lies, the rest are slow.
pub(super) fn command<'a>(
    run: &'a mut Command,
    n: usize,
    paths: [&Path; 3],
    victims: &[PathBuf],
) -> &'a mut Command {
    let manner = if n.is_multiple_of(2) { "lies" } else { "slow" };
    run.arg(MEMBER).args(paths).arg(manner).args(victims)
}

/// Running members. Dropping it ends them.
#[derive(Default)]
pub struct Members(pub(super) Vec<Child>);

impl Members {
    /// How many still run.
    ///
    /// # Errors
    /// When one has ended: then it did no harm.
    pub fn count(&mut self) -> Result<usize> {
        for child in &mut self.0 {
            if let Some(status) = child.try_wait()? {
                bail!("a hostile member has ended: {status}");
            }
        }
        Ok(self.0.len())
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The most that one node had of one peer in vain, and the sum, by what the nodes say.
///
/// # Errors
/// When a node does not answer.
pub fn wasted(fleet: &Fleet) -> Result<(u64, u64)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut worst, mut sum) = (0, 0);
    for node in &fleet.nodes {
        let report = runtime
            .block_on(status::read(&node.dir))
            .with_context(|| format!("{} does not say what was wasted", node.role))?;
        let peers = report["traffic"]["wasted"].as_array();
        for peer in peers.into_iter().flatten() {
            let bytes: u64 = ["lies", "stalls"]
                .iter()
                .map(|why| number(&peer[why]))
                .sum();
            worst = worst.max(bytes);
            sum += bytes;
        }
    }
    Ok((worst, sum))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}
