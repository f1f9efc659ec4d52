//! `tidegate`: the coordinator and the operator's command line.

fn main() -> std::process::ExitCode {
    coordinator::cli::main()
}
