//! `backup` and `restore`.

use anyhow::Context;

use super::args::trust::{Backup, Restore};
use super::output;
use crate::backup;
use crate::directory::Directory;

/// `tidegate backup`
///
/// # Errors
/// One line each: no coordinator's directory, a bad ledger, something is there, the disk.
pub fn backup(ask: &Backup) -> anyhow::Result<()> {
    let made = backup::backup(&Directory::new(&ask.dir), &ask.out);
    let made = made.context("failed to back up")?;
    if ask.json {
        return output::json(&serde_json::to_value(&made)?);
    }
    output::line(&format!(
        "{} entries, head {}, in {}",
        made.entries,
        made.head,
        ask.out.display()
    ))
}

/// `tidegate restore`
///
/// # Errors
/// One line each: a coordinator runs there, another fleet, a backup that is not whole, the disk.
pub fn restore(ask: &Restore) -> anyhow::Result<()> {
    let dir = Directory::new(&ask.dir);
    let aside = backup::restore(&dir, ask.from.as_deref()).context("failed to restore")?;
    if let Some(aside) = aside {
        output::line(&format!("set aside  {}", aside.display()))?;
    }
    output::line(&format!(
        "next       tidegate serve --dir {}",
        ask.dir.display()
    ))?;
    output::line("           it hears every site, ten minutes at most, before it gives an order")
}
