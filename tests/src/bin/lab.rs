//! The lab's command line: `cargo run --release -p tidegate-tests --bin lab -- SCENARIO [--json] [--compare]`.

use std::process::ExitCode;

use anyhow::Result;
use tidegate_tests::lab::scenario::{Play, Scenario};
use tidegate_tests::lab::{cap, courtesy, pretend, run, scenario};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    let (json, compare) = (has("--json"), has("--compare"));
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let chosen = match names.as_slice() {
        [name] => scenario::named(name),
        _ => None,
    };
    let Some(chosen) = chosen else {
        eprintln!("usage: lab SCENARIO [--json] [--compare]; the scenarios are");
        for s in scenario::all() {
            eprintln!("  {:14} {}", s.name, s.about);
        }
        return ExitCode::from(2);
    };
    match play(&chosen, json, compare) {
        Ok(text) => print!("{text}"),
        Err(e) => {
            eprintln!("lab: {e:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What came of it, as text or as a line of JSON; with `compare` beside the same in the simulator.
fn play(chosen: &Scenario, json: bool, compare: bool) -> Result<String> {
    if compare {
        // what cannot be compared is said before, and not after, the network has been built
        pretend::scenario(chosen)?;
    }
    if chosen.play == Play::Courtesy {
        let courtesy = courtesy::run(chosen)?;
        return match json {
            true => Ok(format!("{}\n", serde_json::to_string(&courtesy)?)),
            false => Ok(courtesy.to_text()),
        };
    }
    if let Play::Cap(caps) = chosen.play {
        let caps = cap::run(chosen, caps)?;
        return match json {
            true => Ok(format!("{}\n", serde_json::to_string(&caps)?)),
            false => Ok(caps.to_text()),
        };
    }
    let report = run(chosen)?;
    let compared = match compare {
        true => Some(pretend::compare(chosen, &report)?),
        false => None,
    };
    if json {
        let mut value = serde_json::to_value(&report)?;
        if let Some(compared) = compared {
            value["simulator"] = serde_json::to_value(compared)?;
        }
        return Ok(format!("{value}\n"));
    }
    let beside = compared.map(|c| pretend::to_text(&c)).unwrap_or_default();
    Ok(report.to_text() + &beside)
}
