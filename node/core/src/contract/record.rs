//! What is remembered across restarts.

use protocol::Hash;
use protocol::RolloutId;
use protocol::Seq;
use protocol::SiteId;
use protocol::Time;
use protocol::Verified;
use protocol::constraints::Offer;
use protocol::manifest::ReleaseManifest;
use protocol::orders::Order;
use protocol::orders::Subject;
use protocol::plan::Recall;
use protocol::plan::RolloutPlan;
use protocol::status::NodeStatus;
use protocol::topology::Topology;
use protocol::wire::Presence;
use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is remembered across restarts. The body keeps each record under its key and hands all of
/// them back, with the statements verified again, when the brain is made anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The newest topology.
    Topology(Verified<Topology>),
    /// A plan that is alive.
    Plan(Verified<RolloutPlan>),
    /// A release that a plan names or that is installed.
    Release(Verified<ReleaseManifest>),
    /// The newest order about a subject.
    Order(Verified<Order>),
    /// A recall, believed under the `plans` threshold.
    Recall(Verified<Recall>),
    /// A lease and when it came.
    Lease(LeaseRecord),
    /// Where an installation stands.
    Journal(JournalRecord),
    /// What is installed of a product.
    Installed(InstalledRecord),
    /// The newest status of this node for a rollout, and whether the coordinator has it.
    Status(StatusRecord),
    /// Highest counters seen: the guard against rollback of metadata and software.
    Counters(CountersRecord),
    /// Members of the site that were seen last, to find it again without the coordinator.
    Peers(PeersRecord),
    /// What the user was told and said about a rollout.
    Offer(OfferRecord),
}

/// Under which key a record is kept; a new record replaces the old one of the same key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum RecordKey {
    /// See [`Record::Topology`].
    Topology,
    /// By digest.
    Plan(Hash),
    /// By digest.
    Release(Hash),
    /// By subject.
    Order(Subject),
    /// By rollout.
    Recall(RolloutId),
    /// By rollout.
    Lease(RolloutId),
    /// By rollout.
    Journal(RolloutId),
    /// By product.
    Installed(SiteId),
    /// By rollout.
    Status(RolloutId),
    /// See [`Record::Counters`].
    Counters,
    /// See [`Record::Peers`].
    Peers,
    /// By rollout.
    Offer(RolloutId),
}

impl Record {
    /// The key under which it is kept.
    pub fn key(&self) -> RecordKey {
        match self {
            Record::Topology(_) => RecordKey::Topology,
            Record::Plan(plan) => RecordKey::Plan(plan.digest()),
            Record::Release(release) => RecordKey::Release(release.digest()),
            Record::Order(order) => RecordKey::Order(order.body.subject()),
            Record::Recall(recall) => RecordKey::Recall(recall.rollout.clone()),
            Record::Lease(lease) => RecordKey::Lease(lease.rollout.clone()),
            Record::Journal(journal) => RecordKey::Journal(journal.rollout.clone()),
            Record::Installed(installed) => RecordKey::Installed(installed.product.clone()),
            Record::Status(status) => RecordKey::Status(status.status.rollout.clone()),
            Record::Counters(_) => RecordKey::Counters,
            Record::Peers(_) => RecordKey::Peers,
            Record::Offer(offer) => RecordKey::Offer(offer.rollout.clone()),
        }
    }
}

/// A lease as it was received. It is live while the boot is the same, `boot now < received + ttl`
/// and `wall now < not_after`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The rollout.
    pub rollout: RolloutId,
    /// Digest of the plan that the order names.
    pub plan: Hash,
    /// The newest open wave.
    pub wave: u32,
    /// The order that gave it.
    pub seq: Seq,
    /// Boot time of its receipt.
    pub received: Time,
    /// The boot in which it was received.
    pub boot_id: Hash,
    /// Wall time at which it ends in any case.
    pub not_after: Time,
}

/// Where an installation stands: the last boundary that is durable.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JournalRecord {
    /// The rollout.
    pub rollout: RolloutId,
    /// Digest of the release.
    pub release: Hash,
    /// Names this installation.
    pub install_id: Hash,
    /// Which attempt, counted from 1.
    pub attempt: u32,
    /// The boundary.
    pub at: Boundary,
    /// Release that was installed before, to go back to.
    pub before: Option<Hash>,
    /// Wall time of the switch, for the soak.
    pub switched_at: Option<Time>,
    /// Why it goes back, once it does.
    pub failure: Option<Failure>,
    /// What most installations do not need. It is stored beside the rest, and only if there is any, so that
    /// programs of either age read each other's journals.
    #[serde(skip)]
    pub more: JournalMore,
}

/// What a journal says of attempts and restarts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct JournalMore {
    /// The class of the last failure that is tried again, and how often it came in a row.
    pub failed: Option<(FailureClass, u32)>,
    /// Wall time of the next attempt, while it is waited for.
    pub retry_at: Option<Time>,
    /// The boot in which the machine was asked to restart.
    pub armed: Option<Hash>,
}

/// The boundaries of an installation, in order. Each is journalled before the step behind it is taken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Boundary {
    /// This node will install this release.
    Claimed,
    /// Every byte is here and verified.
    StagedVerified,
    /// The slot is being written.
    SlotIntent,
    /// The new version's slot may have been written.
    SlotWritten,
    /// The switch is about to happen and may have happened.
    SwitchIntent,
    /// The switch happened.
    Switched,
    /// A restart is asked for.
    RestartArmed,
    /// The health check passed for its soak.
    Healthy,
    /// The release is what is installed.
    Committed,
    /// The coordinator has the outcome.
    Reported,
    /// The way back has begun and may be done.
    RollingBack,
    /// Back at what was there before.
    RolledBack,
    /// The pre hook may be running.
    PreHook,
    /// The pre hook has run.
    PreHooked,
    /// The switch happened, and the post hook may be running.
    PostHook,
    /// The post hook has run, or there was none and a restart is tried again.
    PostHooked,
}

impl Boundary {
    /// Whether the switch is behind it, and no way back has begun.
    pub fn is_switched(self) -> bool {
        use Boundary as B;
        matches!(
            self,
            B::Switched | B::PostHook | B::PostHooked | B::RestartArmed | B::Healthy | B::Committed
        )
    }
}

/// Why an installation failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// One line: which step and how.
    pub reason: String,
    /// Exit code, if a program ran.
    pub exit_code: Option<i32>,
    /// End of its output.
    pub output_tail: String,
    /// What failed, which says whether another attempt may succeed.
    pub class: FailureClass,
}

/// What failed. The first two stand for `false` and `true` in journals of programs that only knew whether
/// another attempt may succeed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum FailureClass {
    /// The release, or how things stand here: another attempt would end alike.
    Release,
    /// The machine could not do what was asked of it.
    Machine,
    /// There is no space.
    DiskFull,
    /// Content does not come, or cannot be kept.
    Download,
    /// The pre hook says no.
    PreHook,
    /// Another installer is at work on the machine.
    InstallerBusy,
    /// A step of the recipe failed.
    Installer,
    /// A step of the recipe was killed when its time was over.
    Timeout,
    /// The post hook failed.
    PostHook,
    /// The machine does not restart.
    Restart,
    /// The health check failed.
    Health,
    /// A crash came while a hook ran.
    Interrupted,
}

impl FailureClass {
    /// All of them.
    pub const ALL: [FailureClass; 12] = {
        use FailureClass as C;
        [
            C::Release,
            C::Machine,
            C::DiskFull,
            C::Download,
            C::PreHook,
            C::InstallerBusy,
            C::Installer,
            C::Timeout,
            C::PostHook,
            C::Restart,
            C::Health,
            C::Interrupted,
        ]
    };

    /// As people read it.
    pub fn name(self) -> &'static str {
        match self {
            FailureClass::Release => "release",
            FailureClass::Machine => "machine",
            FailureClass::DiskFull => "disk_full",
            FailureClass::Download => "download",
            FailureClass::PreHook => "pre_hook",
            FailureClass::InstallerBusy => "installer_busy",
            FailureClass::Installer => "installer",
            FailureClass::Timeout => "timeout",
            FailureClass::PostHook => "post_hook",
            FailureClass::Restart => "restart",
            FailureClass::Health => "health",
            FailureClass::Interrupted => "interrupted",
        }
    }
}

impl Failure {
    /// One line for people: the class, unless that says nothing more, and the reason.
    pub fn line(&self) -> String {
        match self.class {
            FailureClass::Release => self.reason.clone(),
            class => format!("{}: {}", class.name(), self.reason),
        }
    }
}

/// What is installed of a product.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct InstalledRecord {
    /// The product.
    pub product: SiteId,
    /// Digest of the release.
    pub release: Hash,
    /// The release that stood there before and is still on disk.
    pub previous: Option<Hash>,
}

/// This node's status for a rollout.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusRecord {
    /// The status; the body signs it when it leaves.
    pub status: NodeStatus,
    /// The highest number that the coordinator acknowledged.
    pub acknowledged: Option<Seq>,
}

/// Highest counters seen.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CountersRecord {
    /// Of topologies.
    pub topology: u64,
    /// Of releases, by product.
    pub releases: BTreeMap<SiteId, u64>,
    /// The highest order seen.
    pub orders: Seq,
    /// The last number of this node's own register and presence.
    pub own: Seq,
}

/// Members of a site, at most [`protocol::limits::PEERS_REMEMBERED_MAX`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeersRecord {
    /// The site.
    pub site: SiteId,
    /// What each of them said last, the ones to ask first in front.
    pub members: Vec<Arc<Presence>>,
}

/// A rollout that was offered to the user.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OfferRecord {
    /// The rollout.
    pub rollout: RolloutId,
    /// What the user was told and said.
    pub offer: Offer,
}

/// Everything that was remembered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// The records, in any order.
    pub records: Vec<Record>,
}
