//! `tidegate-sim`: plays scenarios and tells what came of them.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use simulations::command::Arguments;

fn main() -> Result<ExitCode> {
    let sound = Arguments::parse().run()?;
    Ok(ExitCode::from(u8::from(!sound)))
}
