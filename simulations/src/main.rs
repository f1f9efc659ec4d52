//! `tidegate-sim`: plays a scenario and tells what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use simulations::{Report, Scenario, World};

/// Plays a scenario with the real brains in virtual time.
#[derive(Parser)]
#[command(name = "tidegate-sim", version)]
struct Arguments {
    /// The scenario, a TOML file.
    scenario: PathBuf,
    /// Draw the world from this seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Spread so many nodes over the sites.
    #[arg(long)]
    nodes: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Threads, 0 for the machine's cores; they change nothing in what comes of it.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Tell the real time that it took; the output is not the same each time then.
    #[arg(long)]
    timing: bool,
    /// Print what the brains noted.
    #[arg(long)]
    notes: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut scenario = Scenario::load(&arguments.scenario)?;
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    if let Some(nodes) = arguments.nodes {
        scenario.spread(nodes);
    }
    let began = Instant::now();
    let mut world = World::new(scenario)?;
    world.run(arguments.threads);
    let mut report = Report::of(&world);
    report.wall_seconds = arguments.timing.then(|| began.elapsed().as_secs_f64());
    if arguments.notes {
        for (at, event, line) in world.notes() {
            eprintln!("{at:>8} {event}: {line}");
        }
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string(&report)?),
        false => print!("{}", report.to_text()),
    }
    Ok(ExitCode::from(u8::from(!report.violations.is_empty())))
}
