//! A machine that is no node tells a fleet what it is, and gets a verdict: `tidegate-node report`.
//!
//! Its directory holds one key, by which it is known again, and is no node's directory. The verdict is
//! believed by the root whose digest came apart from the token.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::NodeId;
use protocol::foreign::{ForeignInventory, ForeignReply, ForeignReport, ForeignVerdict};
use protocol::limits::ROOT_WALK_MAX;
use protocol::trust::TrustError;

use crate::enroll::{
    EnrollError, EnrollOptions, ask, key_at, make_directory, not_enrolled, not_expired,
};
use crate::inventory;
use crate::renew::Api;
use crate::run::chain;

/// The machine's key in its directory; another file than a node's, so that no node has been a foreign
/// machine by the same key.
pub const FOREIGN_KEY_FILE: &str = "foreign.key";

/// Why a machine has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// As with an enrolment.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// It says too much of itself.
    #[error("{0}; say less with --label and --software")]
    Inventory(String),
    /// The verdict is not the fleet's.
    #[error("the coordinator's verdict is refused: {0}")]
    Verdict(TrustError),
    /// It is of another machine or report.
    #[error("the coordinator's verdict is about something else than was reported; report again")]
    Other,
}

/// Reports this machine. `options` are those of an enrolment, whose place to listen has no meaning here;
/// `software` are versions by product.
///
/// # Errors
/// One line each, with the culprit and the next step.
pub async fn report(
    dir: &Path,
    options: EnrollOptions,
    software: Vec<(String, String)>,
) -> Result<ForeignVerdict, ReportError> {
    not_enrolled(dir)?;
    not_expired(&options.token)?;
    let inventory = ForeignInventory {
        labels: options.labels.iter().cloned().collect(),
        attributes: inventory::of_machine(),
        software: software.into_iter().collect::<BTreeMap<_, _>>(),
    };
    inventory.check().map_err(ReportError::Inventory)?;
    make_directory(dir)?;
    let key = key_at(&dir.join(FOREIGN_KEY_FILE))?;
    let machine = NodeId(key.verifying_key().to_bytes());
    let mut report = ForeignReport {
        spec_version: 1,
        fleet: options.root_digest,
        token_id: options.token.id.clone(),
        token_secret: options.token.secret.clone(),
        machine,
        inventory,
        proof: String::new(),
    };
    report.prove(&key);
    let api = Api::at(&options.coordinator, options.token.server_pin);
    let reply: ForeignReply = ask(&api, "/v1/report", &report).await?;
    believed(&report, reply)
}

/// The verdict of a reply, if the fleet of the report gave it about this report.
fn believed(report: &ForeignReport, reply: ForeignReply) -> Result<ForeignVerdict, ReportError> {
    if reply.spec_version != 1 || reply.roots.len() > ROOT_WALK_MAX {
        let why = "it is of a version that this program does not know, or has too many roots";
        return Err(EnrollError::Reply(why.into()).into());
    }
    let mut roots = reply.roots.into_iter();
    let first = roots.next();
    let first = first.ok_or_else(|| EnrollError::Reply("it holds no root".into()))?;
    let trust = chain(first, roots, report.fleet).map_err(EnrollError::from)?;
    let verdict = trust.verify::<ForeignVerdict>(&reply.verdict);
    let verdict = verdict.map_err(ReportError::Verdict)?;
    if verdict.machine != report.machine || verdict.report != report.digest() {
        return Err(ReportError::Other);
    }
    Ok((*verdict).clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Hash;
    use protocol::fixtures::{CREATED, Fleet, node, node_key};

    fn reported(fleet: &Fleet) -> ForeignReport {
        let mut report = ForeignReport {
            spec_version: 1,
            fleet: fleet.id(),
            token_id: "t".into(),
            token_secret: "s".into(),
            machine: node(1),
            inventory: ForeignInventory::default(),
            proof: String::new(),
        };
        report.prove(&node_key(1));
        report
    }

    #[test]
    fn a_verdict_is_believed_of_the_pinned_fleet_about_this_report_alone() {
        let (fleet, other) = (Fleet::new(1), Fleet::new(2));
        let report = reported(&fleet);
        let verdict = ForeignVerdict {
            spec_version: 1,
            fleet: fleet.id(),
            machine: report.machine,
            report: report.digest(),
            given: CREATED,
            rules: Vec::new(),
        };
        let reply = |by: &Fleet, verdict: &ForeignVerdict| ForeignReply {
            spec_version: 1,
            roots: vec![by.trust().root().envelope().clone()],
            verdict: by.sign(verdict),
        };
        let check = |reply| believed(&report, reply).map_err(|e| e.to_string());
        assert_eq!(check(reply(&fleet, &verdict)), Ok(verdict.clone()));
        let of_other = check(reply(&other, &verdict)).unwrap_err();
        assert!(of_other.contains("root digest"), "{of_other}");
        let mut forged = reply(&fleet, &verdict);
        forged.verdict = other.sign(&verdict);
        assert!(check(forged).unwrap_err().contains("signature"));
        let elsewhere = ForeignVerdict {
            fleet: other.id(),
            ..verdict.clone()
        };
        assert!(
            check(reply(&fleet, &elsewhere))
                .unwrap_err()
                .contains("scope")
        );
        for changed in [
            ForeignVerdict {
                machine: node(2),
                ..verdict.clone()
            },
            ForeignVerdict {
                report: Hash::of(b"another"),
                ..verdict.clone()
            },
        ] {
            assert!(
                check(reply(&fleet, &changed))
                    .unwrap_err()
                    .contains("something else")
            );
        }
        let mut bare = reply(&fleet, &verdict);
        bare.roots.clear();
        assert!(check(bare).unwrap_err().contains("no root"));
    }
}
