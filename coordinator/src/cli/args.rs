//! What can be written on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::filter::Filter;
use protocol::topology::Subnet;
use protocol::{NodeId, SiteId, Span};

use self::change::ChangeArgs;
use self::package::PackageArgs;
use self::relations::RelationArgs;
use super::units::{self, Rate};

pub mod change;
pub mod nodes;
pub mod package;
pub mod relations;
pub mod report;
pub mod rollout;
pub mod trust;

pub use rollout::Rollout;

/// Gets software and patches to every endpoint of a large, spread-out enterprise.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a whole fleet on this machine: one coordinator, a few sites, a good and a bad release
    Demo(Demo),
    /// Make a coordinator's directory: root metadata, operator keys, certificates
    Init(Init),
    /// Run the coordinator and its origin
    Serve(Serve),
    /// Make an enrolment token and print it with the root's digest
    Token(Token),
    /// Build, sign and publish releases
    #[command(subcommand)]
    Release(Release),
    /// Propose, approve and steer rollouts
    #[command(subcommand)]
    Rollout(Rollout),
    /// List nodes, or revoke one
    Nodes(Nodes),
    /// List sites, or set them
    Sites(Sites),
    /// Say in one line per rollout what a node waits for
    Why(Why),
    /// Say what came of a rollout
    #[command(subcommand)]
    Report(report::Report),
    /// Show and change the fleet's keys
    #[command(subcommand)]
    Root(trust::Root),
    /// Make, list and revoke tokens for the API
    #[command(subcommand)]
    Access(trust::Access),
    /// Check the ledger
    #[command(subcommand)]
    Audit(trust::Audit),
    /// Copy what the coordinator cannot be without, also while it runs
    Backup(trust::Backup),
    /// Bring a backup back, or say that this machine was set back to a snapshot
    Restore(trust::Restore),
    /// A node in a process of this executable (the origin, the demo's nodes)
    #[command(hide = true)]
    InternalNode(InternalNode),
}

/// `tidegate demo`
#[derive(Args, Debug, Clone)]
pub struct Demo {
    /// Sites, each with its own WAN link
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub sites: u8,
    /// Nodes in all
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub nodes: u16,
    /// What to distribute [default: this project's tree and the running executable]
    #[arg(long)]
    pub payload: Option<PathBuf>,
    /// Each site's WAN, down
    #[arg(long, default_value = "100mbit", value_parser = units::rate)]
    pub wan: Rate,
    /// End when both releases are through
    #[arg(long)]
    pub once: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
}

/// `tidegate init`
#[derive(Args, Debug)]
pub struct Init {
    /// The directory to make
    #[arg(long)]
    pub dir: PathBuf,
    /// The fleet's name, for people
    #[arg(long, default_value = "fleet")]
    pub fleet: String,
    /// An operator; give it once for each (default: three, named op1, op2 and op3)
    #[arg(long = "operator", value_name = "NAME")]
    pub operators: Vec<String>,
    /// Operators that must approve a plan, beside its proposer [default: 2, or as many as there are]
    #[arg(long)]
    pub approvals: Option<u32>,
    /// Address on which nodes and operators reach this coordinator
    #[arg(long, default_value = "127.0.0.1")]
    pub address: std::net::IpAddr,
    /// Port of the HTTPS API; control and origin use the next three
    #[arg(long, default_value_t = 7700)]
    pub port: u16,
    /// Where the offline keys go (move them off this machine) [default: DIR/keys]
    #[arg(long)]
    pub keys: Option<PathBuf>,
    /// Write operator and root keys without a passphrase, readable by their owner only
    #[arg(long)]
    pub plain_keys: bool,
}

/// `tidegate serve`
#[derive(Args, Debug)]
pub struct Serve {
    /// The coordinator's directory
    #[arg(long)]
    pub dir: PathBuf,
    /// Do not start the origin here; it runs elsewhere
    #[arg(long)]
    pub no_origin: bool,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

/// Which coordinator an operator command talks to.
#[derive(Args, Debug, Clone)]
pub struct At {
    /// The coordinator's directory, or a copy of its coordinator.json, root.json and api-token
    #[arg(long, env = "TIDEGATE_DIR")]
    pub dir: PathBuf,
}

/// A signing key.
#[derive(Args, Debug, Clone)]
pub struct Key {
    /// The operator's key file
    #[arg(long)]
    pub key: PathBuf,
}

/// `tidegate token`
#[derive(Args, Debug)]
pub struct Token {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// The site it is meant for
    #[arg(long)]
    pub site: Option<SiteId>,
    /// How many nodes it serves
    #[arg(long, default_value_t = 1)]
    pub count: u32,
    /// How long it serves
    #[arg(long, default_value = "24h", value_parser = units::span)]
    pub valid: Span,
    /// For machines that the fleet does not manage: they report (`tidegate-node report`), get a verdict, and
    /// are no nodes
    #[arg(long)]
    pub foreign: bool,
    /// Only for machines in this subnet; again for more
    #[arg(long, value_name = "SUBNET")]
    pub from: Vec<Subnet>,
    /// A label that each node gets, whatever it says of itself; again for more
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = units::label)]
    pub labels: Vec<(String, String)>,
    /// Each machine waits until an operator lets it in (`tidegate nodes admit`)
    #[arg(long)]
    pub by_hand: bool,
    /// Write an installer file for `tidegate-node enroll --installer` instead of printing
    #[arg(long)]
    pub installer: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `tidegate release …`
#[derive(Subcommand, Debug)]
pub enum Release {
    /// Cut a directory or a file into index, pack and carrier
    Build(Box<ReleaseBuild>),
    /// Sign what was built; run it once for each key that the fleet's threshold asks for
    Sign(ReleaseSign),
    /// Send blobs and manifest to the coordinator
    Publish {
        /// Where.
        #[command(flatten)]
        at: At,
        /// The directory that `release build` wrote
        out: PathBuf,
    },
    /// Ask the fleet who needs a published release, by its signed rules alone; no content moves
    Assess(ReleaseAssess),
    /// List published releases
    List {
        /// Where.
        #[command(flatten)]
        at: At,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one published release, as signed
    Show {
        /// Where.
        #[command(flatten)]
        at: At,
        /// PRODUCT@VERSION
        release: String,
    },
}

/// `tidegate release build`
#[derive(Args, Debug)]
pub struct ReleaseBuild {
    /// A directory or a single file
    pub path: PathBuf,
    /// The product's name
    #[arg(long)]
    pub product: SiteId,
    /// Its version
    #[arg(long)]
    pub version: SiteId,
    /// The vendor's severity
    #[arg(long, value_enum, default_value = "moderate")]
    pub severity: Severity,
    /// Where index, pack, carrier and manifest go
    #[arg(long)]
    pub out: PathBuf,
    /// Only for this operating system (linux, macos, windows)
    #[arg(long, default_value = "any")]
    pub os: String,
    /// Only for this architecture (x86_64, aarch64)
    #[arg(long, default_value = "any")]
    pub arch: String,
    /// Only for nodes of which this filter is true, such as 'os.name=debian and model=t480'
    #[arg(long, value_name = "FILTER")]
    pub applies_to: Option<Filter>,
    /// Shell command, run in the installed tree; exit code 0 is health
    #[arg(long)]
    pub health_check: Option<String>,
    /// It must stay healthy so long
    #[arg(long, default_value = "5s", value_parser = units::span)]
    pub health_soak: Span,
    /// JSON file with a command recipe: {"steps":[[…]],"detect":[…],"undo":[[…]]}; without it the
    /// `tree` installer is used
    #[arg(long)]
    pub recipe: Option<PathBuf>,
    /// A package instead of files.
    #[command(flatten)]
    pub package: PackageArgs,
    /// What runs around the change.
    #[command(flatten)]
    pub change: ChangeArgs,
    /// What it says of other releases.
    #[command(flatten)]
    pub relations: RelationArgs,
    /// zstd level of the carrier, 1 to 22
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// A vendor's severity.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Severity {
    /// Exploitable without a person's doing
    Critical,
    /// Exploitable with a person's doing
    Important,
    /// Mitigated to a large degree
    Moderate,
    /// Hard to exploit
    Low,
}

/// `tidegate release assess`
#[derive(Args, Debug)]
pub struct ReleaseAssess {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// PRODUCT@VERSION
    pub release: String,
    /// Wait for the answers of all nodes, but no longer than this
    #[arg(long, value_parser = units::span)]
    pub wait: Option<Span>,
    /// Ask no more
    #[arg(long, conflicts_with = "wait")]
    pub end: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `tidegate release sign`
#[derive(Args, Debug)]
pub struct ReleaseSign {
    /// The directory that `release build` wrote
    pub out: PathBuf,
    /// With what.
    #[command(flatten)]
    pub key: Key,
    /// root.json of the fleet (its digest is the fleet's id)
    #[arg(long, env = "TIDEGATE_ROOT")]
    pub root: PathBuf,
    /// The release's counter; must rise with every release of the product [default: milliseconds since 1970]
    #[arg(long)]
    pub counter: Option<u64>,
    /// No new install starts after so long
    #[arg(long, default_value = "90d", value_parser = units::span)]
    pub valid: Span,
}

/// `tidegate nodes`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Nodes {
    /// What to do, if not to list them.
    #[command(subcommand)]
    pub act: Option<nodes::NodesAct>,
    /// Where.
    #[command(flatten)]
    pub at: Option<At>,
    /// Only nodes of which this is true, such as `os.name=debian and not label.kiosk`
    #[arg(long = "where", value_name = "FILTER", conflicts_with = "revoke")]
    pub filter: Option<Filter>,
    /// Revoke this node's certificate
    #[arg(long, value_name = "NODE")]
    pub revoke: Option<NodeId>,
    /// Why, for those who read the ledger
    #[arg(long, default_value = "asked for by an operator")]
    pub reason: String,
    /// List machines that wait until an operator lets them in
    #[arg(long, conflicts_with_all = ["revoke", "unmanaged"])]
    pub waiting: bool,
    /// List machines that came to the coordinator and were not let in
    #[arg(long, conflicts_with = "revoke")]
    pub unmanaged: bool,
    /// List machines that are no nodes and reported, with what the rules say of them
    #[arg(long, conflicts_with_all = ["revoke", "unmanaged", "filter"])]
    pub foreign: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `tidegate sites`
#[derive(Args, Debug)]
pub struct Sites {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// Replace the topology by this TOML file of sites (id, subnets, wan_down, wan_up, hours, peers, relay, parent)
    #[arg(long, requires = "key")]
    pub set: Option<PathBuf>,
    /// The operator's key file, to sign the topology
    #[arg(long)]
    pub key: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `tidegate why`
#[derive(Args, Debug)]
pub struct Why {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// The node's id, the start of it, or its hostname
    pub node: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `tidegate internal-node`
#[derive(Args, Debug)]
pub struct InternalNode {
    /// The node's directory; its role stands in there
    #[arg(long)]
    pub dir: PathBuf,
    /// For people who read a list of processes
    #[arg(long)]
    pub role: Option<String>,
    /// End when the process that started this one ends
    #[arg(long)]
    pub with_parent: bool,
}
