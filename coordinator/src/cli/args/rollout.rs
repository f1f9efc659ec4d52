//! What can be written about rollouts.

use clap::{Args, Subcommand, ValueEnum};
use coordinator_core::presets::Preset;
use protocol::filter::Filter;
use protocol::plan::{Priority, Selector};
use protocol::{NodeId, RolloutId, SiteId, Span};

use super::{At, Key};
use crate::cli::terms::Terms;
use crate::cli::units::{self, Rate};

/// `tidegate rollout …`
#[derive(Subcommand, Debug)]
pub enum Rollout {
    /// Propose a rollout; the coordinator resolves it to a plan
    Propose(Box<RolloutPropose>),
    /// Say what a proposal would come to; nothing is recorded
    Simulate(Box<RolloutSimulate>),
    /// Look at a plan and sign it here
    Approve(RolloutSigned),
    /// Open the first wave of an approved rollout
    Start(RolloutNamed),
    /// Let no further install start until `resume`
    Pause(RolloutReason),
    /// Go on after a pause or a failed gate
    Resume(RolloutNamed),
    /// Stop a rollout or everything until operators lift it together; what is installed stays
    Halt(RolloutHalt),
    /// Lift an operator's halt; needs the plans threshold
    Lift(RolloutLift),
    /// Let a held cohort go on, once somebody has looked at it
    ReleaseCohort(RolloutCohort),
    /// Take the release back where it was installed; needs the plans threshold beside the proposer
    Recall(RolloutRecall),
    /// Report that the release does harm on a node; it counts as the node's failure
    Problem(RolloutProblem),
    /// Follow a rollout until it ends
    Watch {
        /// Which.
        #[command(flatten)]
        named: RolloutNamed,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show rollouts and their four counts
    Status {
        /// Where.
        #[command(flatten)]
        at: At,
        /// One rollout only
        rollout: Option<RolloutId>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// One rollout.
#[derive(Args, Debug, Clone)]
pub struct RolloutNamed {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// The rollout
    pub rollout: RolloutId,
}

/// One rollout, and why.
#[derive(Args, Debug)]
pub struct RolloutReason {
    /// Which.
    #[command(flatten)]
    pub named: RolloutNamed,
    /// Why, for those who read the ledger
    #[arg(long, default_value = "asked for by an operator")]
    pub reason: String,
}

/// `tidegate rollout halt`
#[derive(Args, Debug)]
pub struct RolloutHalt {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// What.
    #[command(flatten)]
    pub what: Halted,
    /// Why, for those who read the ledger
    #[arg(long, default_value = "asked for by an operator")]
    pub reason: String,
}

/// One rollout, or everything.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct Halted {
    /// The rollout
    pub rollout: Option<RolloutId>,
    /// Everything, also what is started later
    #[arg(long)]
    pub all: bool,
}

/// `tidegate rollout lift`
#[derive(Args, Debug)]
pub struct RolloutLift {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// What.
    #[command(flatten)]
    pub what: Halted,
    /// With what.
    #[command(flatten)]
    pub key: Key,
    /// Why (the first to ask says it; later signers sign the same words)
    #[arg(long, default_value = "asked for by an operator")]
    pub reason: String,
}

/// `tidegate rollout release-cohort`
#[derive(Args, Debug)]
pub struct RolloutCohort {
    /// Which.
    #[command(flatten)]
    pub named: RolloutNamed,
    /// The cohort, as the plan declares it
    #[arg(value_parser = units::label, value_name = "KEY=VALUE")]
    pub cohort: (String, String),
}

/// `tidegate rollout problem`
#[derive(Args, Debug)]
pub struct RolloutProblem {
    /// Which.
    #[command(flatten)]
    pub named: RolloutNamed,
    /// The node
    pub node: NodeId,
    /// What is wrong there
    #[arg(long, default_value = "reported by an operator")]
    pub what: String,
}

/// One rollout, signed for by an operator.
#[derive(Args, Debug)]
pub struct RolloutSigned {
    /// Which.
    #[command(flatten)]
    pub named: RolloutNamed,
    /// With what.
    #[command(flatten)]
    pub key: Key,
}

/// `tidegate rollout recall`
#[derive(Args, Debug)]
pub struct RolloutRecall {
    /// Which.
    #[command(flatten)]
    pub signed: RolloutSigned,
    /// Why (the first to ask says it; later signers sign the same words)
    #[arg(long, default_value = "asked for by an operator")]
    pub reason: String,
}

/// `tidegate rollout propose`
#[derive(Args, Debug)]
pub struct RolloutPropose {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// What.
    #[command(flatten)]
    pub shape: RolloutShape,
    /// With what.
    #[command(flatten)]
    pub key: Key,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// `tidegate rollout simulate`
#[derive(Args, Debug)]
pub struct RolloutSimulate {
    /// Where.
    #[command(flatten)]
    pub at: At,
    /// What.
    #[command(flatten)]
    pub shape: RolloutShape,
    /// It would start so long from now [default: now]
    #[arg(long, value_parser = units::span, value_name = "TIME")]
    pub start_in: Option<Span>,
    /// What the origin sends to all sites together [default: no limit]
    #[arg(long, value_parser = units::rate, value_name = "RATE")]
    pub origin_rate: Option<Rate>,
    /// Time that an install takes on a node, health check aside [default: 60s]
    #[arg(long, value_parser = units::span, value_name = "TIME")]
    pub install: Option<Span>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What a rollout should be like.
#[derive(Args, Debug)]
pub struct RolloutShape {
    /// PRODUCT@VERSION
    pub release: String,
    /// The rollout's name [default: PRODUCT-VERSION]
    #[arg(long)]
    pub id: Option<RolloutId>,
    /// Shape: careful, normal, fast or emergency
    #[arg(long, default_value = "normal")]
    pub preset: Preset,
    /// Waves of your own instead of the preset's, in order: count:5, percent:25, site:NAME,
    /// label:KEY=VALUE, rest
    #[arg(long = "wave", value_parser = units::selector, value_name = "WAVE")]
    pub waves: Vec<Selector>,
    /// Gate: at least so many percent of the outcomes are successes [default: the preset's]
    #[arg(long, value_parser = units::percent_ppm, value_name = "PERCENT")]
    pub min_success: Option<u32>,
    /// Gate: outcomes that must be in (all, where a wave is smaller) [default: the preset's]
    #[arg(long)]
    pub min_sample: Option<u32>,
    /// Gate: the ratio must hold for so long [default: the preset's]
    #[arg(long, value_parser = units::span)]
    pub soak: Option<Span>,
    /// Failures, in percent of the outcomes, at which the release must be stopped [default: the preset's]
    #[arg(long, value_parser = units::percent_ppm, value_name = "PERCENT")]
    pub unacceptable: Option<u32>,
    /// Judge the nodes with this label or attribute for themselves, and hold them alone if only they fail
    #[arg(long = "cohort", value_parser = units::label, value_name = "KEY=VALUE")]
    pub cohorts: Vec<(String, String)>,
    /// Only these sites
    #[arg(long = "site")]
    pub sites: Vec<SiteId>,
    /// Only nodes of which this is true, such as `os.name=debian and not label.kiosk`
    #[arg(long = "where", value_name = "FILTER")]
    pub filter: Option<Filter>,
    /// Never this node
    #[arg(long = "exclude")]
    pub exclusions: Vec<NodeId>,
    /// Our priority
    #[arg(long, value_enum, default_value = "medium")]
    pub priority: PriorityArg,
    /// When nodes may start.
    #[command(flatten)]
    pub terms: Terms,
    /// A go-lease lives so long without renewal
    #[arg(long, default_value = "60s", value_parser = units::span)]
    pub lease: Span,
    /// No install of this plan starts after so long
    #[arg(long, default_value = "30d", value_parser = units::span)]
    pub valid: Span,
}

/// Our priority.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum PriorityArg {
    /// Within 24 hours
    Emergency,
    /// Within a week
    High,
    /// Within a month
    Medium,
    /// With the next rollup
    Low,
}

impl From<PriorityArg> for Priority {
    fn from(arg: PriorityArg) -> Priority {
        match arg {
            PriorityArg::Emergency => Priority::Emergency,
            PriorityArg::High => Priority::High,
            PriorityArg::Medium => Priority::Medium,
            PriorityArg::Low => Priority::Low,
        }
    }
}
