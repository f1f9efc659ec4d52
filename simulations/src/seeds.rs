//! Swarm testing: many seeds, each a world of its own, and the ones that failed once.
//!
//! A file of kept seeds has one line for each: what is played (`drawn`, or the name of a scenario in
//! `simulations/scenarios`), the seed, and the reason why it is kept, as text. `#` begins a comment.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::{Scenario, play};

/// Seeds from one to just before another: `N..M`, or `N` alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seeds {
    /// The first.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
}

impl FromStr for Seeds {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Seeds> {
        let number = |n: &str| n.parse().with_context(|| format!("{n:?} is not a seed"));
        let seeds = match text.split_once("..") {
            Some((from, to)) => Seeds {
                from: number(from)?,
                to: number(to)?,
            },
            None => Seeds {
                from: number(text)?,
                to: number(text)?.saturating_add(1),
            },
        };
        if seeds.from >= seeds.to {
            bail!("there is no seed in {text}");
        }
        Ok(seeds)
    }
}

/// A seed that broke a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What was broken.
    pub violations: Vec<String>,
    /// The command that plays it again.
    pub replay: String,
}

/// What came of many seeds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Outcome {
    /// Seeds that were played.
    pub seeds: u64,
    /// Happenings in all of them.
    pub events: u64,
    /// Those that failed, rising.
    pub failures: Vec<Failure>,
}

/// Plays each seed, on so many threads; `world` makes the scenario of a seed, and `told` hears of each
/// failure at once.
pub fn play_all(
    seeds: Seeds,
    threads: usize,
    world: &(dyn Fn(u64) -> Scenario + Sync),
    replay: &(dyn Fn(u64) -> String + Sync),
    told: &(dyn Fn(&Failure) + Sync),
) -> Outcome {
    let next = AtomicU64::new(seeds.from);
    let work = || {
        let mut mine = (0, Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.to {
                return mine;
            }
            let (events, violations) = play_one(world(seed));
            mine.0 += events;
            if violations.is_empty() {
                continue;
            }
            let failure = Failure {
                seed,
                violations,
                replay: replay(seed),
            };
            told(&failure);
            mine.1.push(failure);
        }
    };
    let all: Vec<(u64, Vec<Failure>)> = std::thread::scope(|scope| {
        let crew: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        crew.into_iter().filter_map(|one| one.join().ok()).collect()
    });
    let mut failures: Vec<Failure> = all.iter().flat_map(|(_, failed)| failed.clone()).collect();
    failures.sort_by_key(|failure| failure.seed);
    Outcome {
        seeds: seeds.to - seeds.from,
        events: all.iter().map(|(events, _)| events).sum(),
        failures,
    }
}

/// Plays a scenario: how much happened in it, and what was broken; a panic is the worst of all.
pub fn play_one(scenario: Scenario) -> (u64, Vec<String>) {
    match catch_unwind(AssertUnwindSafe(|| play(scenario, 1))) {
        Ok(Ok(report)) => (report.events, report.violations),
        Ok(Err(error)) => (0, vec![format!("it cannot be played: {error:#}")]),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied());
            (
                0,
                vec![format!("panic: {}", text.unwrap_or("without a word"))],
            )
        }
    }
}

/// A seed that is kept because it failed once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// `drawn`, or the name of a scenario's file without its ending.
    pub what: String,
    /// The seed.
    pub seed: u64,
    /// Why it is kept.
    pub reason: String,
}

impl Kept {
    /// As it stands in the file.
    pub fn to_line(&self) -> String {
        // one line is one seed
        let reason: Vec<&str> = self.reason.split_whitespace().collect();
        format!("{} {} {}\n", self.what, self.seed, reason.join(" "))
    }
}

/// Reads a file of kept seeds.
///
/// # Errors
/// When a line is not what the head of this module says, with its number.
pub fn kept(text: &str) -> Result<Vec<Kept>> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let parsed = || -> Option<Kept> {
            Some(Kept {
                what: words.next()?.to_owned(),
                seed: words.next()?.parse().ok()?,
                reason: words.next()?.trim().to_owned(),
            })
        };
        let parsed = { parsed }();
        all.push(parsed.with_context(|| format!("line {}: {line:?} is no kept seed", number + 1))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds_are_read() {
        let seeds = |from, to| Some(Seeds { from, to });
        let cases = [
            ("3..7", seeds(3, 7)),
            ("12", seeds(12, 13)),
            ("7..7", None),
            ("7..3", None),
            ("..3", None),
            ("a", None),
            ("1...3", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Seeds>().ok(), expected, "{text}");
        }
    }

    #[test]
    fn kept_seeds_are_written_and_read() {
        let text =
            "# seeds that failed once\n\ndrawn 4711 a lease  was lost\nrough 9 twice # see above\n";
        let all = kept(text).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[1].what.as_str(), all[1].seed), ("rough", 9));
        assert_eq!(all[0].to_line(), "drawn 4711 a lease was lost\n");
        assert_eq!(kept(&all[1].to_line()).unwrap(), all[1..]);
        for bad in ["drawn x why", "drawn 7", "drawn"] {
            let error = kept(bad).unwrap_err().to_string();
            assert!(error.starts_with("line 1: "), "{error}");
        }
    }

    #[test]
    fn a_world_that_cannot_be_played_is_a_failure_with_its_command() {
        let text = include_str!("../scenarios/three-sites.toml");
        let broken = |seed| {
            let mut scenario = Scenario::parse(text).expect("a scenario");
            scenario.seed = seed;
            scenario.duration_s = 3;
            if seed == 6 {
                scenario.sites[0].name = "not a name".into();
            }
            scenario
        };
        let replay = |seed| format!("tidegate-sim broken.toml --seed {seed}");
        let seeds = "5..8".parse().unwrap();
        let outcome = play_all(seeds, 2, &broken, &replay, &|_| {});
        assert_eq!(outcome.seeds, 3);
        let [failure] = &outcome.failures[..] else {
            panic!("{:?}", outcome.failures);
        };
        assert_eq!(failure.seed, 6);
        assert_eq!(failure.replay, "tidegate-sim broken.toml --seed 6");
        assert!(
            failure.violations[0].contains("site name"),
            "{:?}",
            failure.violations
        );
    }
}
