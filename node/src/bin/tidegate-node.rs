//! The node's own program.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::cli::main()
}
