//! The release manifest: one version of one product, signed by the `releases` threshold.

use serde::{Deserialize, Serialize};

use crate::blob::BlobRef;
use crate::filter::Filter;
use crate::ids::{FleetId, Hash, SiteId};
use crate::limits::{
    ARGV_MAX, ARTIFACTS_MAX, BLOB_MAX_BYTES, GROUP_LOG2, HOOK_TIME_MAX, INDEX_MAX_BYTES, STEPS_MAX,
    TEXT_MAX_BYTES,
};
use crate::relations::Relations;
use crate::time::{Span, Time};
use crate::trust::{Statement, header};

/// A release.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReleaseManifest {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// Name of the product; same alphabet as a site's name, it becomes a directory.
    pub product: SiteId,
    /// The version as people say it; it becomes a directory.
    pub version: SiteId,
    /// Rises with every release of the product; the order of versions for machines.
    pub release_counter: u64,
    /// The vendor's severity.
    pub vendor_severity: Severity,
    /// Which nodes it is for, by what they say of themselves (a site is the topology's word and has no
    /// place here); none: all for which it has contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applicability: Option<Filter>,
    /// The contents, one for each platform.
    pub artifacts: Vec<Artifact>,
    /// How it is installed.
    pub install: Install,
    /// How a node finds out whether it works, after the switch.
    pub health_check: Option<HealthCheck>,
    /// What runs before and after the change.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// Whether the machine must restart before the release counts as installed.
    #[serde(default, skip_serializing_if = "Restart::is_none")]
    pub restart: Restart,
    /// What it says of other releases.
    #[serde(default, skip_serializing_if = "Relations::is_empty")]
    pub relations: Relations,
    /// Made at.
    pub created: Time,
    /// After this no new install starts.
    pub expires: Time,
}

/// A vendor's severity, as bulletins have it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Exploitable without a person's doing.
    Critical,
    /// Exploitable with a person's doing.
    Important,
    /// Mitigated to a large degree.
    #[default]
    Moderate,
    /// Hard to exploit or of little effect.
    Low,
}

/// The contents for one platform.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// `linux`, …, or `any`.
    pub os: String,
    /// `x86_64`, `aarch64`, …, or `any`.
    pub arch: String,
    /// The index blob.
    pub index: BlobRef,
    /// The pack blob.
    pub pack: BlobRef,
    /// The pack in forms for thin links; the first `full` one suits every node.
    pub carriers: Vec<Carrier>,
    /// log2 of the verification group in KiB, 4.
    pub group_log2: u8,
    /// Bytes that the installed tree needs.
    pub disk_bytes: u64,
}

/// One form of the pack.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Carrier {
    /// Which form.
    #[serde(flatten)]
    pub kind: CarrierKind,
    /// The blob.
    pub blob: BlobRef,
}

/// Which form a carrier has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CarrierKind {
    /// Decodes alone.
    Full,
    /// Decodes against the pack of an older release.
    Delta {
        /// The older release's pack.
        base: BlobRef,
    },
}

/// How a release is installed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Install {
    /// Unpack into `versions/<version>`, then rename `current` to it in one step.
    Tree,
    /// Unpack into a staging directory and run commands there.
    Command {
        /// What is run, in order, each an argv; the first word is looked up in the unpacked tree
        /// if it starts with `./`, else on the system.
        steps: Vec<Vec<String>>,
        /// Runs and exits 0 exactly if the release is installed; decides after a crash.
        detect: Vec<String>,
        /// Undoes the steps; empty if nothing can.
        undo: Vec<Vec<String>>,
        /// Exit codes that mean success.
        expected_exit_codes: Vec<i32>,
        /// One step may run so long.
        max_run_time: Span,
        /// Ends of a step that mean that another installer is at work and nothing was changed: it is tried
        /// again later.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        busy: Vec<Busy>,
    },
}

/// How a step ends while another installer holds the system's package database, or the like.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Busy {
    /// Its exit code.
    pub exit_code: i32,
    /// What the end of its output contains; empty: whatever it says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What runs around the change. A hook runs at most once in an attempt; a crash that interrupts it costs the
/// attempt.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Hooks {
    /// Before anything changes, in the unpacked files; if it fails, nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre: Option<Hook>,
    /// After the change, before a restart and the health check; if it fails, the change is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<Hook>,
}

/// A program of a release, or of the machine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hook {
    /// What is run; the first word is looked up in the unpacked files if it starts with `./`, else on the
    /// system. Exit code 0 is success.
    pub argv: Vec<String>,
    /// It is killed after so long.
    pub timeout: Span,
}

/// Whether the machine must restart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// No.
    #[default]
    None,
    /// After the change and its post hook, before the health check.
    Required,
}

impl Restart {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Restart::None
    }
}

impl Hooks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pre.is_none() && self.post.is_none()
    }
}

/// How a node finds out whether a release works.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is run, in the installed tree; exit code 0 is health.
    pub argv: Vec<String>,
    /// It must stay healthy so long after the switch.
    pub soak: Span,
    /// Failed checks that are tried again, a second apart, before the release counts as sick.
    pub attempts: u32,
    /// One run may take so long.
    pub timeout: Span,
}

impl ReleaseManifest {
    /// The artifact for a platform, exact ones before `any`.
    pub fn artifact_for(&self, os: &str, arch: &str) -> Option<&Artifact> {
        let fits =
            |a: &&Artifact| (a.os == os || a.os == "any") && (a.arch == arch || a.arch == "any");
        self.artifacts
            .iter()
            .filter(fits)
            .max_by_key(|a| (a.os == os, a.arch == arch))
    }
}

impl Artifact {
    /// What crosses a WAN once beside the index: the carrier that decodes alone, or the pack itself.
    pub fn travels(&self) -> &BlobRef {
        self.full_carrier().unwrap_or(&self.pack)
    }

    /// The carrier that decodes alone.
    pub fn full_carrier(&self) -> Option<&BlobRef> {
        self.carriers
            .iter()
            .find(|c| c.kind == CarrierKind::Full)
            .map(|c| &c.blob)
    }
}

fn check_argv(argv: &[String]) -> Result<(), String> {
    if argv.is_empty()
        || argv.len() > ARGV_MAX
        || argv[0].is_empty()
        || argv.iter().any(|w| w.contains('\0'))
    {
        return Err("an argv is empty, too long or holds a zero byte".into());
    }
    Ok(())
}

impl Statement for ReleaseManifest {
    header!("application/vnd.tidegate.release+json", Releases);
    fn delegable(&self) -> Option<&SiteId> {
        Some(&self.product)
    }
    fn check(&self) -> Result<(), String> {
        if self.artifacts.is_empty() || self.artifacts.len() > ARTIFACTS_MAX {
            return Err("a release has 1 to 64 artifacts".into());
        }
        for a in &self.artifacts {
            let carriers = a
                .carriers
                .iter()
                .map(|c| c.blob.length)
                .chain([a.pack.length]);
            if a.group_log2 != GROUP_LOG2
                || a.index.length > INDEX_MAX_BYTES
                || a.carriers.len() > ARTIFACTS_MAX
                || carriers.max() > Some(BLOB_MAX_BYTES)
            {
                return Err("an artifact is over its limits or of an unknown group size".into());
            }
        }
        if let Install::Command {
            steps,
            detect,
            undo,
            busy,
            ..
        } = &self.install
        {
            if busy.len() > STEPS_MAX || busy.iter().any(|b| b.output.len() > TEXT_MAX_BYTES) {
                return Err("a recipe knows at most 64 short signs of a busy installer".into());
            }
            if steps.is_empty() || steps.len() > STEPS_MAX || undo.len() > STEPS_MAX {
                return Err("a command recipe has 1 to 64 steps".into());
            }
            steps
                .iter()
                .chain(undo)
                .chain([detect])
                .try_for_each(|argv| check_argv(argv))?;
        }
        if let Some(health) = &self.health_check {
            check_argv(&health.argv)?;
        }
        for hook in [&self.hooks.pre, &self.hooks.post].into_iter().flatten() {
            check_argv(&hook.argv)?;
            if hook.timeout > HOOK_TIME_MAX {
                return Err("a hook may run an hour at most".into());
            }
        }
        self.relations.check(&self.product, &self.version)
    }
}

/// The name of a release as people write it: `product@version`.
pub fn release_name(product: &SiteId, version: &SiteId) -> String {
    format!("{product}@{version}")
}

/// Names one release among the statements: the digest of its manifest's payload.
pub type ReleaseDigest = Hash;
