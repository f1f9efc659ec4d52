//! How many nodes a bad release harms before its gates stop it, and how often they stop a good one.
//!
//! The coordinator's real wave engine is driven over whole fleets in virtual time, hundreds of times:
//! every node is told its lease, starts, and reports, or does not. How content travels is left out, as it
//! lies on the nodes before their wave opens. [`trial`] plays one rollout, [`rules`] are the plans that are
//! compared, [`table`] is what comes of all seeds.

pub mod rules;
pub mod table;
pub mod trial;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::Args;

use rules::Rules;
use table::{Table, Tables};
use trial::{Kind, Outcome, Stage};

/// Of so many seeds one is played with the gates that ours are compared with.
const COMPARED: u64 = 30;

/// What is asked for.
#[derive(Clone, Copy, Args)]
pub struct Asked {
    /// Seeds.
    #[arg(long, default_value_t = 300)]
    pub seeds: u64,
    /// Nodes of the fleet.
    #[arg(long, default_value_t = 100_000)]
    pub nodes: u32,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Threads, 0 for the machine's cores; they change nothing in what comes of it.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

impl Asked {
    /// Plays all trials and prints the table.
    ///
    /// # Errors
    /// When a rollout cannot be proposed to such a fleet.
    pub fn run(&self) -> Result<()> {
        let began = Instant::now();
        let tables = self.play()?;
        eprintln!("{:.0} s of real time", began.elapsed().as_secs_f64());
        match self.json {
            true => println!("{}", serde_json::to_string(&tables)?),
            false => print!("{}", tables.to_text()),
        }
        Ok(())
    }

    /// Plays all trials.
    ///
    /// # Errors
    /// When a rollout cannot be proposed to such a fleet.
    pub fn play(&self) -> Result<Tables> {
        let compared = self.seeds.div_ceil(COMPARED);
        let stage = Stage::new(self.nodes)?;
        Ok(Tables {
            seeds: self.seeds,
            nodes: self.nodes,
            compared_seeds: compared,
            ours: self.table(&stage, Rules::Ours, self.seeds)?,
            by_time: self.table(&stage, Rules::ByTime, compared)?,
            threshold_10: self.table(&stage, Rules::Threshold, compared)?,
        })
    }

    fn table(&self, stage: &Stage, rules: Rules, seeds: u64) -> Result<Table> {
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let next = AtomicU64::new(0);
        let work = || -> Result<Vec<(u64, Kind, Outcome)>> {
            let mut done = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return Ok(done);
                }
                let rollout = stage.rollout(rules, seed)?;
                for kind in Kind::ALL {
                    done.push((seed, kind, rollout.play(kind)));
                }
            }
        };
        let mut outcomes = Vec::new();
        std::thread::scope(|scope| -> Result<()> {
            let crew: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for member in crew {
                outcomes.extend(member.join().expect("a trial does not panic")?);
            }
            Ok(())
        })?;
        outcomes.sort_by_key(|(seed, kind, _)| (*seed, *kind));
        Ok(Table::of(
            outcomes.into_iter().map(|(_, kind, o)| (kind, o)),
        ))
    }
}
