//! What people and scripts get to see: tables, JSON, one line for an error.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::args::Command;

/// Starts the log on standard error. `TIDEGATE_LOG` says what is logged, e.g. `debug` or
/// `info,libp2p=warn`; long-running commands log at `info`, the others at `warn`.
pub fn start_log(command: &Command) {
    let usual = match command {
        Command::Serve(_) | Command::InternalNode(_) => {
            "info,libp2p=warn,libp2p_gossipsub=error,quinn=warn,hickory_proto=error"
        }
        _ => "warn,libp2p_gossipsub=error",
    };
    let filter = std::env::var("TIDEGATE_LOG").unwrap_or_else(|_| usual.to_owned());
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

/// Prints an error as one line and gives the exit code.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("tidegate: {}", one_line(error));
    ExitCode::FAILURE
}

/// An error with its causes, in one line and without saying anything twice.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

/// Prints a value as JSON on standard output, over several lines.
///
/// # Errors
/// When standard output is gone.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a value as JSON on one line of standard output.
///
/// # Errors
/// When standard output is gone.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// Prints a line on standard output.
///
/// # Errors
/// When standard output is gone.
pub fn line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// An empty table with these headings.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.iter().copied());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_that_says_nothing_twice() {
        let error = anyhow::anyhow!("no such file").context("failed to read x: no such file");
        assert_eq!(one_line(&error), "failed to read x: no such file");
        let error = anyhow::anyhow!("first\nsecond").context("failed to run");
        assert_eq!(one_line(&error), "failed to run: first second");
    }
}
