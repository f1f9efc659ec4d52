//! The operator command line.
//!
//! [`args`] is what can be written; each other room carries one family of commands out:
//! [`setup`] makes and runs a coordinator, [`release`] builds, signs and publishes, [`mod@assess`] asks who needs it, [`rollout`]
//! proposes, approves and steers, [`root`] changes the fleet's keys, [`access`] gives out tokens for the API, [`audit`] checks and proves the ledger, [`mod@backup`] copies it and brings it back, [`simulate`] tells what a proposal would come to, [`fleet`] looks at nodes and sites, [`report`] says
//! what came of a rollout, [`demo`] shows it all.

pub mod access;
pub mod args;
pub mod assess;
pub mod audit;
pub mod backup;
pub mod demo;
pub mod fleet;
mod foreign;
mod issuing;
mod lift;
pub mod output;
mod package;
pub mod release;
pub mod report;
mod revoking;
pub mod rollout;
pub mod root;
pub mod setup;
pub mod simulate;
mod sites_file;
pub mod terms;
pub mod units;
mod waiting;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;

/// Runs the command line and tells the exit code: 0 done, 1 failed, 2 not understood.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    output::start_log(&cli.command);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            return output::failed(&anyhow::Error::new(e).context("failed to start the runtime"));
        }
    };
    let result = runtime.block_on(run(cli.command));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match result {
        Ok(code) => code,
        Err(error) => output::failed(&error),
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(options) => return demo::run(options).await,
        Command::Init(options) => setup::init(options)?,
        Command::Serve(options) => setup::serve(options).await?,
        Command::Token(options) => setup::token(options).await?,
        Command::Release(command) => release::run(command).await?,
        Command::Rollout(command) => return rollout::run(command).await,
        Command::Nodes(command) => fleet::nodes(command).await?,
        Command::Sites(command) => fleet::sites(command).await?,
        Command::Why(options) => fleet::why(options).await?,
        Command::Report(command) => report::run(command).await?,
        Command::Root(command) => root::run(command).await?,
        Command::Access(command) => access::run(command).await?,
        Command::Audit(command) => audit::run(command).await?,
        Command::Backup(options) => backup::backup(&options)?,
        Command::Restore(options) => backup::restore(&options)?,
        Command::InternalNode(options) => setup::internal_node(options).await?,
    }
    Ok(ExitCode::SUCCESS)
}
