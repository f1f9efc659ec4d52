//! `nodes revoke-many|sign-revocation|publish-revocation`: operators together take many nodes' certificates
//! back. A statement goes out as a file, signatures come back as files, as with roots.

use std::path::Path;

use anyhow::{Context, bail};
use node::config::write_durably;
use protocol::NodeId;
use protocol::envelope::Envelope;
use protocol::limits::MASS_REVOCATION_MAX;
use protocol::revocation::MassRevocation;
use protocol::trust::{Role, Statement as _};

use super::args::nodes::{PublishRevocation, RevokeMany, SignRevocation};
use super::root::{read_chain, read_envelope, signature_file};
use super::{output, rollout, setup, units};

pub(super) async fn write(ask: RevokeMany) -> anyhow::Result<()> {
    let failed = "failed to write the statement";
    if ask.out.exists() {
        bail!(
            "{failed}: {} is there already; choose another name",
            ask.out.display()
        );
    }
    let nodes = ask.from.as_deref().map_or(Ok(Vec::new()), read_nodes);
    let nodes = nodes.context(failed)?;
    let client = setup::client(&ask.at.dir)?;
    let draft = client.draft_revocation(&nodes).await.context(failed)?;
    let statement = MassRevocation {
        spec_version: 1,
        fleet: rollout::fleet(&ask.at.dir)?,
        nodes: draft.nodes,
        certificates: draft.certificates,
        list: draft.list,
        reason: ask.reason,
        created: units::wall_now(),
    };
    statement
        .check()
        .map_err(|why| anyhow::anyhow!("{failed}: {why}"))?;
    let json = statement.to_envelope().to_json();
    write_durably(&ask.out, &json, 0o644).context(failed)?;
    show(&statement)?;
    output::line(&format!(
        "next   tidegate nodes sign-revocation {} --key KEY --root root.json, by operators",
        ask.out.display()
    ))
}

/// Ids, one a line.
fn read_nodes(path: &Path) -> anyhow::Result<Vec<NodeId>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let nodes = lines.take(MASS_REVOCATION_MAX + 1).map(|line| {
        line.parse()
            .with_context(|| format!("{}: {line:?} is no node's id", path.display()))
    });
    nodes.collect()
}

/// What is signed, so that nobody signs blindly.
fn show(statement: &MassRevocation) -> anyhow::Result<()> {
    for node in &statement.nodes {
        output::line(&format!("- {node}"))?;
    }
    output::line(&format!("reason  {}", statement.reason))?;
    output::line(&format!(
        "{} nodes are revoked; {} certificates are on the list then",
        statement.nodes.len(),
        statement.certificates
    ))
}

fn read(path: &Path) -> anyhow::Result<(MassRevocation, Envelope)> {
    let envelope = read_envelope(path)?;
    if envelope.payload_type != MassRevocation::PAYLOAD_TYPE {
        bail!(
            "{} is a {:?}, and not about revocations",
            path.display(),
            envelope.payload_type
        );
    }
    let statement =
        serde_json::from_slice(&envelope.payload).with_context(|| path.display().to_string())?;
    Ok((statement, envelope))
}

pub(super) fn sign(ask: &SignRevocation) -> anyhow::Result<()> {
    let failed = "failed to sign the statement";
    let (_, trust) = read_chain(&ask.root).context(failed)?;
    let (statement, mut envelope) = read(&ask.request).context(failed)?;
    if statement.fleet != trust.fleet() {
        bail!("{failed}: it is for fleet {}", statement.fleet);
    }
    let key = setup::load_signer(&ask.key).context(failed)?;
    let public = key.public();
    let role = trust.root().role(Role::Plans);
    if !role.is_some_and(|role| role.keys.contains(&public)) {
        bail!("{failed}: key {} is not an operator's", public.short());
    }
    show(&statement)?;
    envelope.signatures.clear();
    key.sign(&mut envelope).context(failed)?;
    let out = signature_file(ask.out.as_deref(), &ask.request, &public);
    write_durably(&out, &envelope.to_json(), 0o644).context(failed)?;
    output::line(&format!("signature  {}", out.display()))
}

pub(super) async fn publish(ask: &PublishRevocation) -> anyhow::Result<()> {
    let failed = "failed to revoke";
    let (statement, mut envelope) = read(&ask.request).context(failed)?;
    envelope.signatures.clear();
    for path in &ask.signatures {
        let (_, signed) = read(path).context(failed)?;
        if signed.payload != envelope.payload {
            bail!(
                "{failed}: {} signs something else than {}",
                path.display(),
                ask.request.display()
            );
        }
        envelope.signatures.extend(signed.signatures);
    }
    let client = setup::client(&ask.at.dir)?;
    client.revoke_many(&envelope).await.context(failed)?;
    output::line(&format!("{} nodes are revoked", statement.nodes.len()))
}
