//! What takes certificates back, and what a node gets whose issuing CA was taken away.

use protocol::enroll::RootsReply;
use protocol::revocation::{MassRevocation, Warranted, digest};

use super::*;

pub fn all(fleet: &Fleet) -> Vec<Sample> {
    let many = MassRevocation {
        spec_version: 1,
        fleet: fleet.id(),
        nodes: vec![node(2), node(1)],
        certificates: 3,
        list: digest(&[7, 8, 9]),
        reason: "stolen in transit".into(),
        created: CREATED,
    };
    let both = Warranted {
        list: vec![0x30, 0x03, 0x02, 0x01, 0x07],
        warrant: fleet.sign(&many),
    };
    let roots = RootsReply {
        spec_version: 1,
        roots: vec![fleet.trust().root().envelope().clone()],
    };
    vec![
        statement(fleet, "", &many),
        binary("", &both),
        json("", &roots),
    ]
}
