//! `root`, `access` and `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use protocol::trust::Role;
use protocol::{SiteId, Span};

use super::At;
use crate::api::access;
use crate::cli::units;

/// `tidegate root …`
#[derive(Subcommand, Debug)]
pub enum Root {
    /// Show the chain of roots: keys, thresholds, expiry
    Show {
        /// root.json, or a request made by `root rotate`
        #[arg(long, env = "TIDEGATE_ROOT")]
        root: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the coordinator's next online key, for `root rotate --add coordinator=FILE`
    OnlineKey {
        /// The coordinator's directory
        #[arg(long, env = "TIDEGATE_DIR")]
        dir: PathBuf,
        /// Where its public half goes
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the coordinator's next issuing CA, for `root rotate --add ca=FILE`
    IssuingCa(IssuingCa),
    /// Write the next root as a request to be signed; nothing changes yet
    Rotate(RootRotate),
    /// Sign a request where a root key lies; writes a signature file
    Sign {
        /// The request
        request: PathBuf,
        /// The root key's file
        #[arg(long)]
        key: PathBuf,
        /// root.json of the fleet, that the request must follow
        #[arg(long, env = "TIDEGATE_ROOT")]
        root: PathBuf,
        /// The signature file [default: REQUEST.KEY.sig]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Bring a request and its signatures to the coordinator, which puts it in force
    Publish {
        /// Where.
        #[command(flatten)]
        at: At,
        /// The request
        request: PathBuf,
        /// Signature files
        #[arg(required = true)]
        signatures: Vec<PathBuf>,
    },
    /// Bring this directory's root.json up to the coordinator's, walking the chain
    Fetch {
        /// Where.
        #[command(flatten)]
        at: At,
    },
}

/// `tidegate root issuing-ca`
#[derive(Args, Debug)]
pub struct IssuingCa {
    /// The coordinator's directory
    #[arg(long, env = "TIDEGATE_DIR")]
    pub dir: PathBuf,
    /// Where its certificate goes (DER)
    #[arg(long, required_unless_present = "csr")]
    pub out: Option<PathBuf>,
    /// Ask an enterprise's CA to sign it: write the request (PKCS #10, PEM), and nothing else yet
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "signed"])]
    pub csr: Option<PathBuf>,
    /// What the enterprise's CA gave back: PEM, the signed certificate first, the enterprise's root last
    #[arg(long, value_name = "FILE")]
    pub signed: Option<PathBuf>,
}

/// `tidegate root rotate`
#[derive(Args, Debug)]
pub struct RootRotate {
    /// root.json of the fleet
    #[arg(long, env = "TIDEGATE_ROOT")]
    pub root: PathBuf,
    /// Where the request goes
    #[arg(long)]
    pub out: PathBuf,
    /// Give a role a key: root, releases, plans, topology or coordinator, and a .pub file; or name the next
    /// issuing CA: ca, and its certificate (DER)
    #[arg(long, value_parser = part_and, value_name = "ROLE=FILE")]
    pub add: Vec<(Part, String)>,
    /// Take a key away from a role: a .pub file, or the first digits of the key; or an issuing CA: ca, and its
    /// certificate, or the first digits that `root show` has for it
    #[arg(long, value_parser = part_and, value_name = "ROLE=KEY")]
    pub remove: Vec<(Part, String)>,
    /// How many keys of a role must sign
    #[arg(long, value_parser = role_and::<u32>, value_name = "ROLE=COUNT")]
    pub threshold: Vec<(Role, u32)>,
    /// Let the keys of a delegation sign releases of some products; `*` ends a name that goes on
    #[arg(long, value_parser = name_and, value_name = "NAME=PRODUCT,…")]
    pub delegate: Vec<(String, String)>,
    /// Give a delegation a key: a .pub file
    #[arg(long, value_parser = name_and, value_name = "NAME=FILE")]
    pub delegate_key: Vec<(String, String)>,
    /// How many keys of a delegation must sign [default: 1]
    #[arg(long, value_parser = name_and, value_name = "NAME=COUNT")]
    pub delegate_threshold: Vec<(String, String)>,
    /// Put a delegation below another one: it reaches no further than that
    #[arg(long, value_parser = name_and, value_name = "NAME=OTHER")]
    pub under: Vec<(String, String)>,
    /// Take a delegation away
    #[arg(long, value_name = "NAME")]
    pub undelegate: Vec<String>,
    /// The new root expires after this
    #[arg(long, default_value = "365d", value_parser = units::span)]
    pub valid: Span,
}

/// What a root has keys or certificates of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// A role.
    Role(Role),
    /// The issuing CAs.
    Ca,
}

/// `ROLE=VALUE`, or `ca=VALUE`.
fn part_and(text: &str) -> Result<(Part, String), String> {
    match text.strip_prefix("ca=") {
        Some(value) => Ok((Part::Ca, value.to_owned())),
        None => role_and(text).map(|(role, value)| (Part::Role(role), value)),
    }
}

/// `NAME=VALUE`.
fn name_and(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `ROLE=VALUE`.
fn role_and<T: std::str::FromStr>(text: &str) -> Result<(Role, T), String>
where
    T::Err: std::fmt::Display,
{
    let (role, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not ROLE=VALUE"))?;
    let role = match role {
        "root" => Role::Root,
        "releases" => Role::Releases,
        "plans" => Role::Plans,
        "topology" => Role::Topology,
        "coordinator" => Role::Coordinator,
        other => {
            return Err(format!(
                "{other:?} is no role; the roles are root, releases, plans, topology and coordinator, and ca stands for the issuing CAs"
            ));
        }
    };
    let value = value.parse().map_err(|e| format!("{value:?}: {e}"))?;
    Ok((role, value))
}

/// `tidegate access …`
#[derive(Subcommand, Debug)]
pub enum Access {
    /// Make a token; it is shown this once
    Make {
        /// Where.
        #[command(flatten)]
        at: At,
        /// Whose it is
        name: String,
        /// What it may do
        #[arg(long)]
        role: access::Role,
        /// Where it may; give it once for each site [default: the whole fleet]
        #[arg(long = "site", value_name = "SITE")]
        sites: Vec<SiteId>,
        /// How long it serves
        #[arg(long, default_value = "90d", value_parser = units::span)]
        valid: Span,
        /// Write it to a file that only its owner can read, such as the `api-token` of a directory
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// List the tokens
    List {
        /// Where.
        #[command(flatten)]
        at: At,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a token away
    Revoke {
        /// Where.
        #[command(flatten)]
        at: At,
        /// Its id
        id: String,
    },
}

/// `tidegate audit …`
#[derive(Subcommand, Debug)]
pub enum Audit {
    /// Walk the ledger's chain and name the first bad entry
    Verify {
        /// The coordinator's directory, or a copy of it
        #[arg(long, env = "TIDEGATE_DIR")]
        dir: PathBuf,
        /// It must also continue what this proof's head was signed for
        #[arg(long, value_name = "PROOF", requires = "root")]
        against: Option<PathBuf>,
        /// root.json of the fleet, for `--against`
        #[arg(long, env = "TIDEGATE_ROOT")]
        root: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a proof that an entry is in the ledger (on the coordinator's machine, while it runs)
    Prove {
        /// Where.
        #[command(flatten)]
        at: At,
        /// The entry's number, or the first digits of its hash
        entry: String,
        /// The proof, at most 2 KiB
        #[arg(long)]
        out: PathBuf,
        /// Write the entry itself too
        #[arg(long, value_name = "FILE")]
        bytes: Option<PathBuf>,
    },
    /// Check a proof with the public root alone
    Check {
        /// The proof
        proof: PathBuf,
        /// root.json of the fleet
        #[arg(long, env = "TIDEGATE_ROOT")]
        root: PathBuf,
        /// The entry itself, to see that it is the one
        #[arg(long, value_name = "FILE")]
        bytes: Option<PathBuf>,
    },
}

/// `tidegate backup`
#[derive(Args, Debug)]
pub struct Backup {
    /// The coordinator's directory
    #[arg(long, env = "TIDEGATE_DIR")]
    pub dir: PathBuf,
    /// The directory to make; it holds the online keys, so keep it as you keep them
    #[arg(long)]
    pub out: PathBuf,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `tidegate restore`
#[derive(Args, Debug)]
pub struct Restore {
    /// The coordinator's directory; what lies there is set aside
    #[arg(long, env = "TIDEGATE_DIR")]
    pub dir: PathBuf,
    /// What `tidegate backup` wrote; without it what lies in DIR counts as restored
    #[arg(long)]
    pub from: Option<PathBuf>,
}
