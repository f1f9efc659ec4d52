//! The lab's command line: `cargo run --release -p tidegate-tests --bin lab -- SCENARIO [--json]`.

use std::process::ExitCode;

use tidegate_tests::lab::{run, scenario};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|a| a == "--json");
    let names: Vec<&String> = arguments.iter().filter(|a| *a != "--json").collect();
    let chosen = match names.as_slice() {
        [name] => scenario::named(name),
        _ => None,
    };
    let Some(chosen) = chosen else {
        eprintln!("usage: lab SCENARIO [--json]; the scenarios are");
        for s in scenario::all() {
            eprintln!("  {:14} {}", s.name, s.about);
        }
        return ExitCode::from(2);
    };
    match run(&chosen) {
        Ok(report) if json => match serde_json::to_string(&report) {
            Ok(line) => println!("{line}"),
            Err(e) => {
                eprintln!("lab: {e}");
                return ExitCode::FAILURE;
            }
        },
        Ok(report) => print!("{}", report.to_text()),
        Err(e) => {
            eprintln!("lab: {e:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
