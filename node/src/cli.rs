//! The command line of `tidegate-node`.

use std::process::ExitCode;

/// Runs the command line; exit code 1 for a failure (one line on standard error), 2 for wrong usage.
pub fn main() -> ExitCode {
    ExitCode::FAILURE
}
