//! `tidegate-sim`: plays scenarios and tells what came of them.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use simulations::command::Arguments;

// A world is millions of small things that live and die on every thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<ExitCode> {
    let sound = Arguments::parse().run()?;
    Ok(ExitCode::from(u8::from(!sound)))
}
