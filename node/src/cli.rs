//! The command line of `tidegate-node`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use node_core::contract::Wish;
use protocol::foreign::{Finding, complies};
use protocol::{RolloutId, Span};
use serde_json::Value;

use crate::config::ListenAsked;
use crate::copies::{self, SealedImage};
use crate::driver::{status, wishes};
use crate::enroll::{self, InstallerFile};
use crate::foreign;
use crate::handover::{self, SetUp};
use crate::install::agent::keeper::{Keeper, RESTART};
use crate::install::agent::{end_with_keeper, under_keeper};
use crate::inventory;
use crate::run::{self, Ended, RunOptions};

/// What is logged unless asked otherwise: our own events, and what is wrong elsewhere.
pub const LOG_FILTER: &str = "warn,node=info,libp2p_gossipsub=error";

/// What `report` ends with where a rule is not met.
const NOT_COMPLIANT: u8 = 3;

/// The Tidegate node: fetches verified content from nearby peers, installs when its orders say so.
#[derive(Parser)]
#[command(name = "tidegate-node", version)]
struct Cli {
    /// What to log, in tracing's filter syntax.
    #[arg(long, global = true, env = "TIDEGATE_LOG", default_value = LOG_FILTER)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make this machine a node of a fleet.
    Enroll(EnrollArgs),
    /// Tell a fleet what this machine is without becoming a node of it, and print its verdict
    Report(ReportArgs),
    /// Take this node's key out of its directory, so that the machine can become an image.
    Seal(SealArgs),
    /// Run the node until SIGTERM or Ctrl-C.
    Run {
        /// The node's directory.
        #[arg(long)]
        dir: PathBuf,
        /// Look for peers on the segment by multicast as well.
        #[arg(long)]
        mdns: bool,
    },
    /// Install what a node without privileges hands over, until SIGTERM or Ctrl-C.
    Installer(InstallerArgs),
    /// Where the running node stands.
    Status(Asked),
    /// What each rollout waits for on this node.
    Why(Asked),
    /// What the node knows of its machine.
    Inventory(Asked),
    /// Put an installation off, as far as its plan lets the user
    Defer {
        /// The node and the rollout.
        #[command(flatten)]
        about: About,
        /// For so long, such as 4h or 2d; a day otherwise.
        #[arg(long = "for", value_name = "TIME", value_parser = span)]
        length: Option<Span>,
    },
    /// Do not wait for the user any more; windows and orders still hold
    InstallNow(About),
}

#[derive(Args)]
struct InstallerArgs {
    /// The installer's own directory, which nobody else may write.
    #[arg(long)]
    dir: PathBuf,
    /// The node's directory; needed at the first start.
    #[arg(long, requires = "user", requires = "socket")]
    node_dir: Option<PathBuf>,
    /// The user who runs the node, by number.
    #[arg(long, value_name = "UID")]
    user: Option<u32>,
    /// Where to listen; `installer` in node.json names the same.
    #[arg(long)]
    socket: Option<PathBuf>,
}

/// What a wish is about.
#[derive(Args)]
struct About {
    /// The node's directory.
    #[arg(long)]
    dir: PathBuf,
    /// The rollout, if more than one can be meant.
    rollout: Option<RolloutId>,
}

#[derive(Args)]
struct Asked {
    /// The node's directory.
    #[arg(long)]
    dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct SealArgs {
    /// The node's directory.
    #[arg(long)]
    dir: PathBuf,
    /// A JSON file with coordinator, token and root_digest: copies enrol with it at their first start.
    #[arg(long)]
    installer: Option<PathBuf>,
    /// A label of the copies, as key=value; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label, requires = "installer")]
    labels: Vec<(String, String)>,
    /// Where the copies listen.
    #[command(flatten)]
    listen: ListenArgs,
}

#[derive(Args)]
struct ListenArgs {
    /// Address to listen on, with the control port if it should be a certain one; all addresses otherwise.
    #[arg(long, value_name = "IP[:PORT]", value_parser = listen)]
    listen: Option<SocketAddr>,
    /// UDP port for data; a free one otherwise.
    #[arg(long, default_value_t = 0)]
    data_port: u16,
}

impl From<ListenArgs> for ListenAsked {
    fn from(args: ListenArgs) -> ListenAsked {
        let mut asked = ListenAsked {
            data_port: args.data_port,
            ..ListenAsked::default()
        };
        if let Some(at) = args.listen {
            (asked.address, asked.control_port) = (at.ip(), at.port());
        }
        asked
    }
}

#[derive(Args)]
struct ReportArgs {
    /// The directory of the machine's key, which is made; no node's.
    #[arg(long)]
    dir: PathBuf,
    /// To whom.
    #[command(flatten)]
    to: FleetArgs,
    /// A label, as key=value; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// What is installed, as product=version; may be given again.
    #[arg(long, value_name = "PRODUCT=VERSION", value_parser = label)]
    software: Vec<(String, String)>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct EnrollArgs {
    /// The directory to make.
    #[arg(long)]
    dir: PathBuf,
    /// Which fleet.
    #[command(flatten)]
    to: FleetArgs,
    /// A label, as key=value; may be given again.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Where it listens.
    #[command(flatten)]
    listen: ListenArgs,
}

/// Which fleet, by what its operator handed out.
#[derive(Args)]
struct FleetArgs {
    /// A JSON file with coordinator, token and root_digest, instead of the three arguments.
    #[arg(long, conflicts_with_all = ["coordinator", "token", "root_digest"])]
    installer: Option<PathBuf>,
    /// The coordinator, such as https://10.0.0.1:7443.
    #[arg(long, required_unless_present = "installer")]
    coordinator: Option<String>,
    /// The enrolment token.
    #[arg(
        long,
        env = "TIDEGATE_TOKEN",
        hide_env_values = true,
        required_unless_present = "installer"
    )]
    token: Option<String>,
    /// Digest of the fleet's root, from another source than the token.
    #[arg(long, required_unless_present = "installer")]
    root_digest: Option<String>,
}

impl FleetArgs {
    fn meant(self) -> Result<InstallerFile, String> {
        match (
            self.installer,
            self.coordinator,
            self.token,
            self.root_digest,
        ) {
            (Some(path), ..) => InstallerFile::read(&path),
            (None, Some(coordinator), Some(token), Some(root_digest)) => Ok(InstallerFile {
                spec_version: InstallerFile::VERSION,
                coordinator,
                token,
                root_digest,
            }),
            _ => Err("coordinator, token and root digest are needed".into()),
        }
    }
}

/// Runs the command line; exit code 1 for a failure (one line on standard error), 2 for wrong usage.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(line) = log_to_stderr(&cli.log) {
        eprintln!("tidegate-node: {line}");
        return ExitCode::from(2);
    }
    let (verb, done) = match runtime() {
        Ok(runtime) => runtime.block_on(perform(cli.command)),
        Err(e) => ("start", Err(e.to_string())),
    };
    match done {
        Ok(code) => code,
        Err(line) => {
            eprintln!("tidegate-node: failed to {verb}: {line}");
            ExitCode::FAILURE
        }
    }
}

/// Logs events to standard error, one line each.
///
/// # Errors
/// When the filter is malformed.
pub fn log_to_stderr(filter: &str) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)
        .map_err(|e| format!("{filter:?} is no log filter: {e}"))?;
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Somebody may have set up logging before; then theirs stays.
    let _ = logger.try_init();
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

async fn perform(command: Command) -> (&'static str, Result<ExitCode, String>) {
    let done = |done: Result<(), String>| done.map(|()| ExitCode::SUCCESS);
    match command {
        Command::Enroll(args) => ("enroll", done(enroll(args).await)),
        Command::Report(args) => ("report", report(args).await),
        Command::Run { dir, mdns } => {
            let options = RunOptions {
                mdns,
                ..RunOptions::default()
            };
            ("run", run_or_keep(&dir, options).await)
        }
        Command::Installer(args) => ("install for a node", done(install_for(args).await)),
        Command::Seal(args) => ("seal", done(seal(args))),
        Command::Status(asked) => ("read the status", done(show_status(&asked).await)),
        Command::Why(asked) => ("say why", done(show_why(&asked).await)),
        Command::Inventory(asked) => ("take the inventory", done(show_inventory(&asked))),
        Command::Defer { about, length } => {
            ("put it off", done(wish(about, Wish::Defer(length)).await))
        }
        Command::InstallNow(about) => ("install now", done(wish(about, Wish::InstallNow).await)),
    }
}

/// Runs the node, or keeps the agent's versions running if it is kept up to date by itself.
async fn run_or_keep(dir: &Path, options: RunOptions) -> Result<ExitCode, String> {
    copies::enroll_sealed(dir).await.map_err(line)?;
    let config = crate::config::NodeConfig::load(dir).map_err(line)?;
    if under_keeper() {
        end_with_keeper().map_err(line)?;
    } else if let Some(agent) = &config.agent {
        let arguments = std::env::args_os().skip(1).collect();
        let keeper = Keeper::new(dir, agent, arguments);
        return keeper.keep().await.map(ExitCode::from).map_err(line);
    }
    match run::run(dir, options).await.map_err(line)? {
        Ended::Asked => Ok(ExitCode::SUCCESS),
        Ended::Restart => Ok(ExitCode::from(RESTART)),
    }
}

async fn install_for(args: InstallerArgs) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).map_err(line)?;
    let mut int = signal(SignalKind::interrupt()).map_err(line)?;
    let set_up = match (args.node_dir, args.user, args.socket) {
        (Some(node_dir), Some(user), Some(socket)) => Some(SetUp {
            node_dir,
            user,
            socket,
        }),
        _ => None,
    };
    let end = async {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    };
    handover::serve(&args.dir, set_up, end).await.map_err(line)
}

async fn enroll(args: EnrollArgs) -> Result<(), String> {
    let asked = args.to.meant()?;
    let options = asked.options(args.labels, args.listen.into())?;
    let config = enroll::enroll(&args.dir, options).await.map_err(line)?;
    println!(
        "enrolled as {} in fleet {}; start it with 'tidegate-node run --dir {}'",
        config.node,
        config.fleet.short(),
        args.dir.display()
    );
    Ok(())
}

/// Exit code 3 says that the machine is not as the fleet's rules ask.
async fn report(args: ReportArgs) -> Result<ExitCode, String> {
    let options = args
        .to
        .meant()?
        .options(args.labels, ListenAsked::default())?;
    let verdict = foreign::report(&args.dir, options, args.software).await;
    let verdict = verdict.map_err(line)?;
    let complies = complies(&verdict.rules);
    if args.json {
        print_json(&serde_json::json!({ "compliant": complies, "verdict": verdict }))?;
    } else {
        let word = if complies {
            "compliant"
        } else {
            "not compliant"
        };
        println!(
            "{word}: {}, by {} rules",
            verdict.machine,
            verdict.rules.len()
        );
        for rule in &verdict.rules {
            match rule.finding {
                Finding::Met => println!("  met       {}", rule.rule),
                Finding::Unmet => println!("  NOT MET   {}: {}", rule.rule, rule.why),
                Finding::NotApplicable => println!("  not asked {}: {}", rule.rule, rule.why),
            }
        }
    }
    Ok(ExitCode::from(if complies { 0 } else { NOT_COMPLIANT }))
}

fn seal(args: SealArgs) -> Result<(), String> {
    let sealed = match &args.installer {
        Some(path) => Some(SealedImage {
            spec_version: 1,
            installer: InstallerFile::read(path)?,
            labels: args.labels,
            listen: args.listen.into(),
        }),
        None => None,
    };
    copies::seal(&args.dir, sealed.as_ref()).map_err(line)?;
    let next = match sealed {
        Some(_) => "each copy enrols itself at its first start",
        None => "each copy is to be enrolled with 'tidegate-node enroll'",
    };
    println!("{} holds no key any more; {next}", args.dir.display());
    Ok(())
}

async fn show_status(asked: &Asked) -> Result<(), String> {
    let report = ask(&asked.dir).await?;
    if asked.json {
        return print_json(&report);
    }
    let snapshot = &report["snapshot"];
    println!("node      {}", text(&report["node"]));
    println!("process   {}", report["pid"]);
    println!("site      {}", text(&snapshot["site"]));
    println!("members   {}", snapshot["members"]);
    println!("delegate  {}", snapshot["delegate"]);
    let head = &snapshot["orders_head"];
    println!("orders    up to {}.{}", head["epoch"], head["n"]);
    println!("over WAN  {} bytes", report["traffic"]["wan_payload_in"]);
    print_standings(snapshot);
    print_installer(&report);
    Ok(())
}

async fn show_why(asked: &Asked) -> Result<(), String> {
    let report = ask(&asked.dir).await?;
    if asked.json {
        return print_json(&report["snapshot"]["standings"]);
    }
    print_standings(&report["snapshot"]);
    print_installer(&report);
    Ok(())
}

fn show_inventory(asked: &Asked) -> Result<(), String> {
    let taken = inventory::take(&asked.dir).map_err(line)?;
    print_json(&serde_json::to_value(taken).map_err(line)?)
}

async fn wish(about: About, wish: Wish) -> Result<(), String> {
    crate::config::NodeConfig::load(&about.dir).map_err(line)?;
    let answer = wishes::wish(&about.dir, about.rollout, wish).await;
    println!("{}", answer.map_err(line)??);
    Ok(())
}

async fn ask(dir: &Path) -> Result<Value, String> {
    // A directory that is no node's says so; it has no socket to fail on.
    crate::config::NodeConfig::load(dir).map_err(line)?;
    status::read(dir).await.map_err(line)
}

fn print_installer(report: &Value) {
    if let Some(line) = report["installer"].as_str() {
        println!("{line}");
    }
}

fn print_standings(snapshot: &Value) {
    let standings = snapshot["standings"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if standings.is_empty() {
        println!("no rollout concerns this node");
    }
    if snapshot["isolated"] == true {
        println!(
            "the others of site {} are there and cannot be reached: its network seems to keep clients apart \
             (client isolation), so each node fetches over the WAN; let them reach each other on Tidegate's ports",
            text(&snapshot["site"])
        );
    }
    for standing in standings {
        println!(
            "{} ({}): {}",
            text(&standing["rollout"]),
            text(&standing["release"]),
            text(&standing["why"])
        );
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("none")
}

fn print_json(value: &Value) -> Result<(), String> {
    println!("{}", serde_json::to_string_pretty(value).map_err(line)?);
    Ok(())
}

fn line(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("a label is written key=value".into()),
    }
}

fn span(text: &str) -> Result<Span, String> {
    let wrong = || format!("{text:?} is no length of time such as 30m, 4h or 2d");
    let (number, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(wrong)?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(Span::from_secs(u64::from(number) * seconds))
}

fn listen(text: &str) -> Result<SocketAddr, String> {
    let whole = text.parse::<SocketAddr>().ok();
    whole
        .or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))
        .ok_or_else(|| "an address is written 10.0.0.7 or 10.0.0.7:7400".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_and_labels_as_people_write_them() {
        assert_eq!(listen("127.1.0.2").unwrap(), "127.1.0.2:0".parse().unwrap());
        assert_eq!(listen("[::1]:70").unwrap(), "[::1]:70".parse().unwrap());
        assert!(listen("here").is_err());
        assert_eq!(label("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(label("=x").is_err() && label("x").is_err());
        assert_eq!(span("4h").unwrap(), Span::from_secs(4 * 3600));
        assert_eq!(span("30m").unwrap(), Span::from_secs(1800));
        assert!(
            ["", "4", "h", "-1d", "4ü", "9999999999d"]
                .iter()
                .all(|t| span(t).is_err())
        );
    }
}
