//! `audit verify|prove|check`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use node::config::write_durably;
use protocol::Hash;
use protocol::audit::AuditEntry;
use protocol::merkle::{AuditProof, Peaks, path as path_to};
use protocol::versioned::Versioned as _;

use super::args::trust::Audit;
use super::root::read_chain;
use super::{output, setup};
use crate::directory::Directory;
use crate::ledger;

/// `tidegate audit …`
///
/// # Errors
/// Names the first bad entry, or what a proof lacks.
pub async fn run(command: Audit) -> anyhow::Result<()> {
    match command {
        Audit::Verify {
            dir,
            against,
            root,
            json,
        } => verify(&dir, against.zip(root), json).context("failed to check the ledger"),
        Audit::Prove {
            at,
            entry,
            out,
            bytes,
        } => prove(&at.dir, &entry, &out, bytes.as_deref())
            .await
            .context("failed to prove the entry"),
        Audit::Check { proof, root, bytes } => {
            check(&proof, &root, bytes.as_deref()).context("failed to check the proof")
        }
    }
}

fn sound(dir: &Path) -> anyhow::Result<(PathBuf, ledger::Report)> {
    let directory = Directory::new(dir);
    directory.settings()?;
    let file = directory.ledger_file();
    let report = ledger::verify(&file)?;
    if let Some(bad) = report.bad {
        bail!(
            "entry {} {}; restore a backup from before it",
            bad.seq,
            bad.fault
        );
    }
    Ok((file, report))
}

fn verify(dir: &Path, against: Option<(PathBuf, PathBuf)>, json: bool) -> anyhow::Result<()> {
    let (file, report) = sound(dir)?;
    if let Some((proof, root)) = against {
        let head = read_proof(&proof)?.check(&read_chain(&root)?.1)?;
        if head.entries > report.entries {
            bail!(
                "entry {} is missing: {} entries were signed for",
                report.entries,
                head.entries
            );
        }
        if root_over(&ledger::hashes(&file, head.entries)?) != head.root {
            bail!(
                "its first {} entries are not those that the coordinator signed for: it was written anew",
                head.entries
            );
        }
    }
    let (entries, head, root) = (report.entries, report.head, report.tree.root());
    if json {
        return output::json(
            &serde_json::json!({ "entries": entries, "head": head, "root": root }),
        );
    }
    output::line(&format!("{entries} entries, every link holds, head {head}"))
}

fn root_over(hashes: &[Hash]) -> Hash {
    let mut peaks = Peaks::default();
    hashes.iter().for_each(|hash| peaks.push(hash));
    peaks.root()
}

async fn prove(dir: &Path, id: &str, out: &Path, bytes: Option<&Path>) -> anyhow::Result<()> {
    // The coordinator signs for what it has; the path comes from the file.
    let signed = setup::client(dir)?.ledger_head().await?;
    let (_, trust) = read_chain(&Directory::new(dir).root_file())?;
    let head = trust.verify::<protocol::merkle::LedgerHead>(&signed)?;
    let (file, _) = sound(dir)?;
    let hashes = ledger::hashes(&file, head.entries)?;
    let place = match id.parse::<usize>() {
        Ok(number) => Some(number),
        Err(_) => hashes
            .iter()
            .position(|hash| hash.to_string().starts_with(id)),
    };
    let Some((seq, entry)) = place.and_then(|at| Some((at, *hashes.get(at)?))) else {
        bail!(
            "no entry {id} among {}; give its number or its hash",
            hashes.len()
        );
    };
    let proof = AuditProof {
        seq: seq as u64,
        entry,
        path: path_to(&hashes, seq),
        head: signed,
    };
    proof.check(&trust)?;
    let encoded = proof.to_bytes();
    if encoded.len() > AuditProof::MAX_BYTES {
        bail!(
            "the proof has {} bytes, more than {}",
            encoded.len(),
            AuditProof::MAX_BYTES
        );
    }
    write_durably(out, &encoded, 0o644)?;
    if let Some(path) = bytes {
        let found = ledger::entry(&file, seq as u64)?;
        write_durably(path, &found.to_bytes(), 0o644)?;
    }
    output::line(&format!(
        "entry {seq} of {}, {} bytes, in {}",
        head.entries,
        encoded.len(),
        out.display()
    ))
}

fn check(proof: &Path, root: &Path, bytes: Option<&Path>) -> anyhow::Result<()> {
    let (_, trust) = read_chain(root)?;
    let proof = read_proof(proof)?;
    let head = proof.check(&trust)?;
    output::line(&format!(
        "entry {} stands in a ledger of {} entries that the coordinator signed for",
        proof.seq, head.entries
    ))?;
    output::line(&format!("hash   {}", proof.entry))?;
    let Some(path) = bytes else { return Ok(()) };
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    if Hash::of(&bytes) != proof.entry {
        bail!("{} is not that entry: its hash differs", path.display());
    }
    let entry = AuditEntry::from_bytes(&bytes).with_context(|| path.display().to_string())?;
    output::line(&format!(
        "{} {} {}",
        entry.actor, entry.action, entry.object
    ))
}

fn read_proof(path: &Path) -> anyhow::Result<AuditProof> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    AuditProof::from_bytes(&bytes).with_context(|| path.display().to_string())
}
