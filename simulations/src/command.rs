//! The command line: one world, or one for each of many seeds.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;

use crate::gates;
use crate::plots::Pictures;
use crate::seeds::{self, Failure, Kept, Seeds};
use crate::{Report, Scenario, World, timing};

/// Plays scenarios with the real brains in virtual time. Ends with failure if a rule was broken.
#[derive(Clone, Parser)]
#[command(
    name = "tidegate-sim",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Arguments {
    /// Something else than a scenario.
    #[command(subcommand)]
    pub instead: Option<Instead>,
    /// The scenario, a TOML file; with --seed or --seeds it may be left out, and the seed draws it too.
    #[arg(required_unless_present_any = ["seed", "seeds"])]
    pub scenario: Option<PathBuf>,
    /// Draw the world from this seed.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Play each of these seeds, N..M without M, or one.
    #[arg(long, conflicts_with_all = ["seed", "plot", "notes", "timing", "forecast"])]
    pub seeds: Option<Seeds>,
    /// Append seeds that fail to this file; see tests/seeds.txt.
    #[arg(long, requires = "seeds")]
    pub keep: Option<PathBuf>,
    /// Spread so many nodes over the sites.
    #[arg(long)]
    pub nodes: Option<u32>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Draw pictures into this directory: completion, WAN copies, gate, harmed nodes, coordinator.
    #[arg(long)]
    pub plot: Option<PathBuf>,
    /// Threads, 0 for the machine's cores; they change nothing in what comes of it.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Put the real time that it took into the report, as wall_seconds, which else is null so that the
    /// same seed gives the same bytes. It is told on standard error in any case.
    #[arg(long)]
    pub timing: bool,
    /// Have the coordinator forecast each rollout before it begins, and hold that against the run.
    #[arg(long)]
    pub forecast: bool,
    /// Print what the brains noted.
    #[arg(long)]
    pub notes: bool,
}

/// What is played instead of a scenario.
#[derive(Clone, clap::Subcommand)]
pub enum Instead {
    /// Rolls bad releases and a good one out to whole fleets and tells how many nodes are harmed.
    Gates(gates::Asked),
}

impl Arguments {
    /// Does what is asked; whether no rule was broken.
    ///
    /// # Errors
    /// When a scenario cannot be read or played, or a file cannot be written.
    pub fn run(&self) -> Result<bool> {
        if let Some(Instead::Gates(asked)) = &self.instead {
            return asked.run().map(|()| true);
        }
        match self.seeds {
            Some(seeds) => self.play_seeds(seeds),
            None => self.play_one(),
        }
    }

    fn load(&self) -> Result<Option<Scenario>> {
        let Some(path) = &self.scenario else {
            return Ok(None);
        };
        Scenario::load(path).map(Some)
    }

    fn play_one(&self) -> Result<bool> {
        let drawn = || self.seed.map(Scenario::drawn);
        let mut scenario = self.load()?.or_else(drawn).context("name a scenario")?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        self.nodes.into_iter().for_each(|n| scenario.spread(n));
        let began = Instant::now();
        let mut world = World::new(scenario)?;
        if self.forecast {
            world.rehearse();
        }
        world.run(self.threads);
        let mut report = Report::of(&world);
        let wall = began.elapsed().as_secs_f64();
        eprint!("{}", timing::told(&world, began.elapsed()));
        report.wall_seconds = self.timing.then_some(wall);
        if self.notes {
            for (at, event, line) in world.notes() {
                eprintln!("{at:>8} {event}: {line}");
            }
        }
        if let Some(dir) = &self.plot {
            Pictures::of(&world, &report).write(dir)?;
        }
        match self.json {
            true => println!("{}", serde_json::to_string(&report)?),
            false => print!("{}", report.to_text()),
        }
        Ok(report.violations.is_empty())
    }

    fn play_seeds(&self, seeds: Seeds) -> Result<bool> {
        let base = self.load()?;
        let world = |seed| {
            let mut scenario = match &base {
                Some(base) => base.clone(),
                None => Scenario::drawn(seed),
            };
            scenario.seed = seed;
            self.nodes.into_iter().for_each(|n| scenario.spread(n));
            scenario
        };
        let replay = |seed| self.replay(seed);
        let told = |failure: &Failure| {
            for line in &failure.violations {
                eprintln!("seed {}: {line}", failure.seed);
            }
            eprintln!("replay: {}", failure.replay);
        };
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let began = Instant::now();
        let outcome = seeds::play_all(seeds, threads, &world, &replay, &told);
        let wall = began.elapsed().as_secs_f64();
        let per_second = outcome.events as f64 / wall;
        eprintln!("{wall:.1} s of real time, {per_second:.0} events a second");
        if let Some(path) = &self.keep {
            self.keep(path, &outcome.failures)?;
        }
        let failed = outcome.failures.len();
        match self.json {
            true => println!("{}", serde_json::to_string(&outcome)?),
            false => println!("{} seeds, {failed} failed", outcome.seeds),
        }
        Ok(failed == 0)
    }

    /// The command that plays one seed again.
    fn replay(&self, seed: u64) -> String {
        let scenario = self.scenario.as_ref().map(|p| format!("{} ", p.display()));
        let nodes = self.nodes.map(|n| format!(" --nodes {n}"));
        format!(
            "cargo run --release --bin tidegate-sim -- {}--seed {seed}{}",
            scenario.unwrap_or_default(),
            nodes.unwrap_or_default()
        )
    }

    fn keep(&self, path: &Path, failures: &[Failure]) -> Result<()> {
        let stem = self.scenario.as_ref().and_then(|p| p.file_stem());
        let what = stem.map_or("drawn".into(), |stem| stem.to_string_lossy().into_owned());
        let lines = failures.iter().map(|failure| {
            let kept = Kept {
                what: what.clone(),
                seed: failure.seed,
                reason: failure.violations.first().cloned().unwrap_or_default(),
            };
            kept.to_line()
        });
        let lines: String = lines.collect();
        let file = OpenOptions::new().create(true).append(true).open(path);
        let mut file = file.with_context(|| format!("open {}", path.display()))?;
        let written = file.write_all(lines.as_bytes());
        written.with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, String> {
        let words = std::iter::once("tidegate-sim").chain(line.split_whitespace());
        Arguments::try_parse_from(words).map_err(|e| e.to_string())
    }

    #[test]
    fn a_failing_seed_names_the_one_command_that_replays_it() {
        let drawn = parsed("--seeds 1..50").unwrap();
        let command = "cargo run --release --bin tidegate-sim -- --seed 17";
        assert_eq!(drawn.replay(17), command);
        let again = parsed(command.split_once("-- ").unwrap().1).unwrap();
        assert_eq!((again.seed, again.scenario), (Some(17), None));
        let of_file = parsed("a/rough.toml --seeds 1..50 --nodes 9").unwrap();
        let command = "cargo run --release --bin tidegate-sim -- a/rough.toml --seed 17 --nodes 9";
        assert_eq!(of_file.replay(17), command);
    }

    #[test]
    fn what_cannot_be_asked_together_is_refused() {
        for line in [
            "",
            "a.toml --keep f",
            "--seeds 3..1",
            "a.toml --seed 1 --seeds 1..2",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(parsed("a.toml --json --plot d --threads 2").is_ok());
    }

    #[test]
    fn failures_are_kept_as_lines() {
        let file = std::env::temp_dir().join(format!("tidegate-kept-{}.txt", std::process::id()));
        let failure = |seed| Failure {
            seed,
            violations: vec!["at 7 ms: lease: node 1".into(), "more".into()],
            replay: String::new(),
        };
        let arguments = parsed("a/rough.toml --seeds 1..9").unwrap();
        arguments.keep(&file, &[failure(3)]).unwrap();
        arguments.keep(&file, &[failure(5)]).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            text,
            "rough 3 at 7 ms: lease: node 1\nrough 5 at 7 ms: lease: node 1\n"
        );
        assert_eq!(seeds::kept(&text).unwrap().len(), 2);
    }
}
