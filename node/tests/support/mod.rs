//! A fleet for tests on loopback: real keys, certificates, directories; the coordinator is the test.
#![allow(dead_code, reason = "each test file uses its own part of this")]

pub mod coordinator;

use std::net::IpAddr;
use std::path::Path;

use ed25519_dalek::SigningKey;
use node::config::{ListenAsked, NodeConfig, Role};
use node::enroll;
use node::net::identity::issue::{IssuingCa, Validity};
use protocol::enroll::EnrollReply;
use protocol::envelope::Envelope;
use protocol::fixtures::{self, Fleet};
use protocol::trust::{Role as TrustRole, Root};
use protocol::wire::Contact;
use protocol::{NodeId, Time};

/// Always.
pub const VALID: Validity = Validity {
    not_before: Time::from_secs(1_500_000_000),
    not_after: Time::from_secs(2_500_000_000),
};

/// A fleet whose second root names an issuing CA.
pub struct TestFleet {
    /// Keys and first root.
    pub fleet: Fleet,
    /// Who issues node certificates.
    pub ca: IssuingCa,
    /// Both roots.
    pub roots: Vec<Envelope>,
    /// How long node certificates hold.
    pub leaf_validity: Validity,
}

impl TestFleet {
    /// The fleet of a seed.
    pub fn new(seed: u64) -> TestFleet {
        let fleet = Fleet::new(seed);
        let ca = IssuingCa::create("fixture", &fixtures::key("ca", seed), VALID).unwrap();
        let first = fleet.trust().root();
        let second = Root {
            version: 2,
            fleet: Some(fleet.id()),
            issuing_cas: vec![data_encoding::HEXLOWER.encode(ca.certificate())],
            delegations: Vec::new(),
            ..(**first).clone()
        };
        let mut envelope = second.to_envelope();
        fleet
            .keys(TrustRole::Root)
            .iter()
            .for_each(|key| envelope.sign(key));
        TestFleet {
            roots: vec![first.envelope().clone(), envelope],
            leaf_validity: VALID,
            fleet,
            ca,
        }
    }

    /// What the coordinator answers to the enrolment of `node`.
    pub fn reply(&self, node: NodeId) -> EnrollReply {
        let leaf = self
            .ca
            .node(node, serial(node), self.leaf_validity)
            .unwrap();
        let hex = |der: &[u8]| data_encoding::HEXLOWER.encode(der);
        EnrollReply {
            spec_version: 1,
            fleet: self.fleet.id(),
            roots: self.roots.clone(),
            certificates: vec![hex(&leaf), hex(self.ca.certificate())],
            site: None,
            labels: Vec::new(),
            coordinators: Vec::new(),
            origins: Vec::new(),
            epoch: 0,
        }
    }

    /// Makes `dir` the directory of a node.
    pub fn enroll(
        &self,
        dir: &Path,
        key: &SigningKey,
        role: Role,
        listen: IpAddr,
        coordinators: Vec<Contact>,
        origins: Vec<Contact>,
    ) -> NodeConfig {
        let mut reply = self.reply(NodeId(key.verifying_key().to_bytes()));
        reply.coordinators = coordinators;
        reply.origins = origins;
        let listen = ListenAsked {
            address: listen,
            control_port: 0,
            data_port: 0,
        };
        enroll::adopt(dir, key, &reply, self.fleet.id(), role, Vec::new(), listen).unwrap()
    }
}

/// The serial of a node's certificate.
pub fn serial(node: NodeId) -> u64 {
    u64::from_le_bytes(node.0[..8].try_into().unwrap()) >> 2
}

/// Where a node that was enrolled on a certain address will be reached.
pub fn contact(config: &NodeConfig) -> Contact {
    let (ip, port) = (config.listen.address, config.listen.control_port);
    Contact {
        node: config.node,
        control: [
            format!("/ip4/{ip}/udp/{port}/quic-v1"),
            format!("/ip4/{ip}/tcp/{port}"),
        ]
        .into(),
        data: Some((ip, config.listen.data_port).into()),
    }
}
