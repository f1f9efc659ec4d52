//! `release build|sign|publish|list|show`; what the fleet says to a release is asked in [`super::assess`].

use std::path::Path;

use anyhow::{Context, bail};
use node::config::write_durably;
use node::content::build::{BuildOptions, Built, build};
use protocol::envelope::Envelope;
use protocol::filter::Filter;
use protocol::limits::{GROUP_LOG2, STEP_TIMEOUT};
use protocol::manifest::{
    Artifact, Busy, HealthCheck, Hooks, Install, ReleaseManifest, Restart, Severity, release_name,
};
use protocol::relations::Relations;
use protocol::trust::Statement;
use protocol::{FleetId, SiteId, Span};
use serde::{Deserialize, Serialize};

use super::args::change::shell;
use super::args::{Release, ReleaseBuild, ReleaseSign, Severity as SeverityArg};
use super::{output, package, setup, units};
use crate::api::Client;
use crate::api::messages::{BlobPresence, ReleaseView};
use crate::signing::Signer;

/// What `release build` leaves for `release sign`: all of a manifest but what signing decides.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Draft {
    /// Format version, 1.
    pub spec_version: u32,
    /// The product.
    pub product: SiteId,
    /// The version.
    pub version: SiteId,
    /// The vendor's severity.
    pub vendor_severity: Severity,
    /// Which nodes it is for; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applicability: Option<Filter>,
    /// The contents.
    pub artifact: Artifact,
    /// How it is installed.
    pub install: Install,
    /// How a node finds out whether it works.
    pub health_check: Option<HealthCheck>,
    /// What runs before and after the change.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// Whether the machine must restart.
    #[serde(default, skip_serializing_if = "Restart::is_none")]
    pub restart: Restart,
    /// What it says of other releases.
    #[serde(default, skip_serializing_if = "Relations::is_empty")]
    pub relations: Relations,
}

impl Draft {
    /// The version that is written and read.
    pub const VERSION: u32 = 1;
}

/// File name of the [`Draft`].
pub const DRAFT: &str = "release.json";
/// File name of the signed manifest.
pub const MANIFEST: &str = "manifest.json";

/// A command recipe as people write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    steps: Vec<Vec<String>>,
    detect: Vec<String>,
    #[serde(default)]
    undo: Vec<Vec<String>>,
    #[serde(default = "zero")]
    expected_exit_codes: Vec<i32>,
    #[serde(default)]
    max_run_time_s: Option<u64>,
    #[serde(default)]
    busy: Vec<Busy>,
}

fn zero() -> Vec<i32> {
    vec![0]
}

/// `tidegate release …`
///
/// # Errors
/// One line each.
pub async fn run(command: Release) -> anyhow::Result<()> {
    match command {
        Release::Build(ask) => {
            let json = ask.json;
            let (built, draft) = tokio::task::spawn_blocking(move || build_draft(&ask)).await??;
            if json {
                return output::json(&built);
            }
            output::line(&format!(
                "release  {}",
                release_name(&draft.product, &draft.version)
            ))?;
            output::line(&format!(
                "files    {} entries, {}",
                built.entries,
                units::bytes(built.plain_bytes)
            ))?;
            output::line(&format!(
                "pack     {} ({})",
                built.pack.root,
                units::bytes(built.pack.length)
            ))?;
            output::line(&match built.carrier {
                Some(carrier) => {
                    let length = units::bytes(carrier.length);
                    format!("carrier  {} ({length})", carrier.root)
                }
                None => "carrier  none: the pack does not compress and travels as it is".to_owned(),
            })
        }
        Release::Sign(ask) => {
            let (manifest, signatures) = sign_from(&ask)?;
            output::line(&format!(
                "{} signed, {signatures} signature(s) so far",
                release_name(&manifest.product, &manifest.version)
            ))
        }
        Release::Publish { at, out } => {
            let client = setup::client(&at.dir)?;
            let view = publish(&client, &out, |_, _| {}).await?;
            output::line(&format!(
                "{} is published as {}",
                release_name(&view.product, &view.version),
                view.digest
            ))
        }
        Release::List { at, json } => {
            let releases = setup::client(&at.dir)?
                .releases()
                .await
                .context("failed to list releases")?;
            if json {
                return output::json(&releases);
            }
            let mut table = output::table(&["release", "counter", "carrier", "digest"]);
            for r in releases {
                table.add_row([
                    release_name(&r.product, &r.version),
                    r.release_counter.to_string(),
                    units::bytes(r.carrier_bytes),
                    r.digest.short(),
                ]);
            }
            output::line(&table.to_string())
        }
        Release::Assess(ask) => super::assess::assess(ask).await,
        Release::Show { at, release } => {
            let view = find(&setup::client(&at.dir)?, &release).await?;
            let manifest: ReleaseManifest = serde_json::from_slice(&view.envelope.payload)?;
            output::json(&manifest)
        }
    }
}

/// Builds a release's blobs and its draft into the output directory.
///
/// # Errors
/// Names the path that cannot be built or written.
pub fn build_draft(ask: &ReleaseBuild) -> anyhow::Result<(Built, Draft)> {
    let health_check = ask.health_check.as_ref().map(|command| HealthCheck {
        argv: shell(command),
        soak: ask.health_soak,
        attempts: 3,
        timeout: Span::from_secs(60),
    });
    let relations = ask.relations.relations();
    relations
        .check(&ask.product, &ask.version)
        .map_err(|why| anyhow::anyhow!("failed to build the release: {why}"))?;
    let (install, path) = match &ask.recipe {
        _ if package::is_asked(&ask.package) => package::recipe(&ask.package, &ask.path, &ask.out)
            .context("failed to read the package")?,
        None => (Install::Tree, ask.path.clone()),
        Some(recipe) => {
            let recipe = read_recipe(recipe).context("failed to read the recipe")?;
            (recipe, ask.path.clone())
        }
    };
    let built = build(&path, &ask.out, BuildOptions { level: ask.level });
    if path != ask.path {
        std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    let built = built.context("failed to build the release")?;
    let draft = Draft {
        spec_version: Draft::VERSION,
        product: ask.product.clone(),
        version: ask.version.clone(),
        vendor_severity: match ask.severity {
            SeverityArg::Critical => Severity::Critical,
            SeverityArg::Important => Severity::Important,
            SeverityArg::Moderate => Severity::Moderate,
            SeverityArg::Low => Severity::Low,
        },
        applicability: ask.applies_to.clone(),
        artifact: Artifact {
            os: ask.os.clone(),
            arch: ask.arch.clone(),
            index: built.index,
            pack: built.pack,
            carriers: built.carriers(),
            group_log2: GROUP_LOG2,
            disk_bytes: built.disk_bytes,
        },
        install,
        health_check,
        hooks: ask.change.hooks(),
        restart: ask.change.restart(),
        relations,
    };
    write_durably(
        &ask.out.join(DRAFT),
        &serde_json::to_vec_pretty(&draft)?,
        0o644,
    )
    .context("failed to write the draft")?;
    Ok((built, draft))
}

fn read_recipe(path: &Path) -> anyhow::Result<Install> {
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    let recipe: Recipe =
        serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    Ok(Install::Command {
        steps: recipe.steps,
        detect: recipe.detect,
        undo: recipe.undo,
        expected_exit_codes: recipe.expected_exit_codes,
        max_run_time: recipe.max_run_time_s.map_or(STEP_TIMEOUT, Span::from_secs),
        busy: recipe.busy,
    })
}

/// The fleet's id, from its `root.json`: the digest of the first root.
///
/// # Errors
/// When the file is no root metadata.
pub fn fleet_of(root_file: &Path) -> anyhow::Result<FleetId> {
    let text = std::fs::read(root_file)
        .with_context(|| format!("{} cannot be read", root_file.display()))?;
    let roots: Vec<Envelope> = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not root metadata", root_file.display()))?;
    let first = roots
        .first()
        .with_context(|| format!("{} holds no root", root_file.display()))?;
    Ok(FleetId(first.digest().0))
}

fn sign_from(ask: &ReleaseSign) -> anyhow::Result<(ReleaseManifest, usize)> {
    let key = setup::load_signer(&ask.key.key)?;
    let fleet = fleet_of(&ask.root).context("failed to read the fleet's root")?;
    sign(&ask.out, &key, fleet, ask.counter, ask.valid)
}

/// Signs the release that was built in `out`, or adds a signature to one that was signed before.
///
/// # Errors
/// When there is no build, or the manifest there is of another fleet.
pub fn sign(
    out: &Path,
    key: &Signer,
    fleet: FleetId,
    counter: Option<u64>,
    valid: Span,
) -> anyhow::Result<(ReleaseManifest, usize)> {
    let path = out.join(MANIFEST);
    let mut envelope = match std::fs::read(&path) {
        Ok(bytes) => Envelope::from_json(&bytes)
            .with_context(|| format!("failed to read {}", path.display()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            fresh_manifest(out, fleet, counter, valid)?.to_envelope()
        }
        Err(e) => return Err(e).with_context(|| format!("failed to read {}", path.display())),
    };
    let manifest: ReleaseManifest = serde_json::from_slice(&envelope.payload)
        .with_context(|| format!("failed to read {}", path.display()))?;
    if manifest.fleet != fleet {
        bail!(
            "failed to sign: {} is for fleet {}, not for {}; build it anew",
            path.display(),
            manifest.fleet.short(),
            fleet.short()
        );
    }
    key.sign(&mut envelope).context("failed to sign")?;
    write_durably(&path, &envelope.to_json(), 0o644).context("failed to write the manifest")?;
    Ok((manifest, envelope.signatures.len()))
}

fn fresh_manifest(
    out: &Path,
    fleet: FleetId,
    counter: Option<u64>,
    valid: Span,
) -> anyhow::Result<ReleaseManifest> {
    let path = out.join(DRAFT);
    let text = std::fs::read(&path).with_context(|| {
        format!(
            "failed to find a build: {} cannot be read; run `tidegate release build` first",
            path.display()
        )
    })?;
    let draft: Draft = serde_json::from_slice(&text)
        .with_context(|| format!("failed to read {}", path.display()))?;
    if draft.spec_version != Draft::VERSION {
        bail!(
            "failed to read {}: spec_version {} is not known to this program; build the release again",
            path.display(),
            draft.spec_version
        );
    }
    let now = units::wall_now();
    Ok(ReleaseManifest {
        spec_version: 1,
        fleet,
        product: draft.product,
        version: draft.version,
        release_counter: counter.unwrap_or(now.as_millis()),
        vendor_severity: draft.vendor_severity,
        applicability: draft.applicability,
        artifacts: vec![draft.artifact],
        install: draft.install,
        health_check: draft.health_check,
        hooks: draft.hooks,
        restart: draft.restart,
        relations: draft.relations,
        created: now,
        expires: now + valid,
    })
}

/// Uploads what the origin lacks and publishes the manifest. `progress` gets blob length and bytes sent.
///
/// # Errors
/// When a file is missing, the coordinator refuses, or the origin finds wrong bytes.
pub async fn publish(
    client: &Client,
    out: &Path,
    progress: impl Fn(u64, u64) + Clone + Send + 'static,
) -> anyhow::Result<ReleaseView> {
    let path = out.join(MANIFEST);
    let bytes = std::fs::read(&path).with_context(|| {
        format!(
            "failed to publish: {} cannot be read; run `tidegate release sign` first",
            path.display()
        )
    })?;
    let envelope = Envelope::from_json(&bytes)
        .with_context(|| format!("failed to read {}", path.display()))?;
    let built = Built::load(out).context("failed to publish")?;
    for (blob, file) in built.blobs(out) {
        if client.blob(blob).await.context("failed to publish")? != BlobPresence::Held {
            let progress = progress.clone();
            client
                .upload(blob, &file, move |sent| progress(blob.length, sent))
                .await
                .context("failed to publish")?;
        }
    }
    client.publish(&envelope).await.context("failed to publish")
}

/// The published release of this name.
///
/// # Errors
/// When there is none.
pub async fn find(client: &Client, name: &str) -> anyhow::Result<ReleaseView> {
    let releases = client.releases().await.context("failed to list releases")?;
    let known: Vec<String> = releases
        .iter()
        .map(|r| release_name(&r.product, &r.version))
        .collect();
    releases
        .into_iter()
        .rev()
        .find(|r| release_name(&r.product, &r.version) == name)
        .with_context(|| {
            format!(
                "failed to find release {name:?}; published are: {}",
                if known.is_empty() {
                    "none".into()
                } else {
                    known.join(", ")
                }
            )
        })
}
