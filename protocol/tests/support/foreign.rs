//! Samples of what a machine outside of the fleet and the coordinator say to each other.

use super::{Sample, json, protocol};

use protocol::Hash;
use protocol::fixtures::{CREATED, Fleet, node, node_key, site};
use protocol::foreign::{
    Demand, Finding, ForeignInventory, ForeignReply, ForeignReport, ForeignRule, ForeignVerdict,
    Judged,
};
use protocol::topology::Topology;
use protocol::trust::Statement as _;

/// A topology with a rule of each kind.
pub fn ruled(mut topology: Topology) -> Topology {
    let rule = |name: &str, demand| ForeignRule {
        name: name.into(),
        demand,
    };
    topology.foreign = vec![
        rule(
            "a debian that is supported",
            Demand::Require("os.name!=debian or os.version>=12".parse().unwrap()),
        ),
        rule("the scanner", Demand::Product(site("scanner"))),
    ];
    topology
}

pub fn verdict(fleet: &Fleet) -> ForeignVerdict {
    let judged = |rule: &str, finding, why: &str| Judged {
        rule: rule.into(),
        finding,
        why: why.into(),
    };
    ForeignVerdict {
        spec_version: 1,
        fleet: fleet.id(),
        machine: node(7),
        report: Hash::of(b"report"),
        given: CREATED,
        rules: vec![
            judged("a debian that is supported", Finding::Met, ""),
            judged(
                "the scanner",
                Finding::Unmet,
                "scanner 2.0 or later is missing",
            ),
            judged(
                "the agent",
                Finding::NotApplicable,
                "agent 1.0 is not for it",
            ),
        ],
    }
}

pub fn samples(fleet: &Fleet) -> Vec<Sample> {
    let pairs = |pairs: &[(&str, &str)]| {
        let owned = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        owned.collect()
    };
    let mut report = ForeignReport {
        spec_version: 1,
        fleet: fleet.id(),
        token_id: "t1".into(),
        token_secret: "c2VjcmV0".into(),
        machine: node(7),
        inventory: ForeignInventory {
            labels: pairs(&[("firm", "acme")]),
            attributes: pairs(&[("arch", "x86_64"), ("os", "linux"), ("os.name", "debian")]),
            software: pairs(&[("scanner", "1.4")]),
        },
        proof: String::new(),
    };
    report.prove(&node_key(7));
    assert!(report.proven());
    let reply = ForeignReply {
        spec_version: 1,
        roots: vec![fleet.trust().root().envelope().clone()],
        verdict: verdict(fleet).to_envelope(),
    };
    vec![json("", &report), json("", &reply)]
}
