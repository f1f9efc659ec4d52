//! The lab's command line: `cargo run --release -p tidegate-tests --bin lab -- SCENARIO [--json] [--compare] [--rivals]`.

use std::process::ExitCode;

use anyhow::Result;
use tidegate_tests::lab::scenario::{Play, Scenario};
use tidegate_tests::lab::{cap, courtesy, hostile, idle, pretend, rivals, run, scenario};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|word| word == hostile::MEMBER)
    {
        return match hostile::play(&arguments[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("lab: {e:#}");
                ExitCode::FAILURE
            }
        };
    }
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    let asked = Asked {
        json: has("--json"),
        compare: has("--compare"),
        rivals: has("--rivals"),
    };
    let names: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let chosen = match names.as_slice() {
        [name] => scenario::named(name),
        _ => None,
    };
    let Some(chosen) = chosen else {
        eprintln!("usage: lab SCENARIO [--json] [--compare] [--rivals]; the scenarios are");
        for s in scenario::all() {
            eprintln!("  {:14} {}", s.name, s.about);
        }
        return ExitCode::from(2);
    };
    match play(&chosen, asked) {
        Ok(text) => print!("{text}"),
        Err(e) => {
            eprintln!("lab: {e:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// What is asked of a run.
#[derive(Clone, Copy)]
struct Asked {
    /// A line of JSON instead of text.
    json: bool,
    /// The same in the simulator.
    compare: bool,
    /// The same by other programs.
    rivals: bool,
}

fn play(chosen: &Scenario, asked: Asked) -> Result<String> {
    let Asked {
        json,
        compare,
        rivals,
    } = asked;
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
    if chosen.play == Play::Idle {
        let idle = idle::run(chosen)?;
        return match json {
            true => Ok(format!("{}\n", serde_json::to_string(&idle)?)),
            false => Ok(idle.to_text()),
        };
    }
    let report = run(chosen)?;
    let compared = match compare {
        true => Some(pretend::compare(chosen, &report)?),
        false => None,
    };
    let rivals = match rivals {
        true => Some(rivals::run(chosen)?),
        false => None,
    };
    if json {
        let mut value = serde_json::to_value(&report)?;
        if let Some(rivals) = rivals {
            value["rivals"] = serde_json::to_value(rivals)?;
        }
        if let Some(compared) = compared {
            value["simulator"] = serde_json::to_value(compared)?;
        }
        return Ok(format!("{value}\n"));
    }
    let beside = compared.map(|c| pretend::to_text(&c)).unwrap_or_default();
    let last = report.sites.first().map_or(f64::NAN, |site| site.last_s);
    let rivals = rivals.map(|r| r.to_text(last, report.cpu_seconds_per_gib));
    Ok(report.to_text() + &beside + &rivals.unwrap_or_default())
}
