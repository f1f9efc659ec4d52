//! Samples of what a machine and the coordinator say to each other when it joins, renews or rejoins.

use super::{Sample, json, protocol};

use protocol::Hash;
use protocol::enroll::{
    EnrollReply, EnrollRequest, RejoinRequest, RenewReply, RenewRequest, Token,
};
use protocol::fixtures::{EXPIRES, Fleet, contact, node, node_key, site};

pub fn samples(fleet: &Fleet) -> Vec<Sample> {
    let token = Token {
        id: "t1".into(),
        secret: "c2VjcmV0".into(),
        server_pin: Hash::of(b"certificate"),
        expires: EXPIRES,
    };
    let mut request = EnrollRequest {
        spec_version: 1,
        token_id: "t1".into(),
        token_secret: "c2VjcmV0".into(),
        node: node(1),
        hostname: "till-7".into(),
        os: "linux".into(),
        arch: "x86_64".into(),
        labels: vec![("ring".into(), "early".into())],
        proof: String::new(),
    };
    request.prove(&node_key(1));
    assert!(request.proven());
    let reply = EnrollReply {
        spec_version: 1,
        fleet: fleet.id(),
        roots: vec![fleet.trust().root().envelope().clone()],
        certificates: vec!["30820100".into()],
        site: Some(site("s1")),
        labels: Vec::new(),
        coordinators: vec![contact(9000)],
        origins: vec![contact(9001)],
        epoch: 1,
    };
    let mut renew = RenewRequest {
        spec_version: 1,
        fleet: fleet.id(),
        node: node(1),
        certificate: "30820100".into(),
        proof: String::new(),
    };
    renew.prove(&node_key(1));
    assert!(renew.proven());
    let mut rejoin = RejoinRequest {
        spec_version: 1,
        fleet: fleet.id(),
        copy_of: node(2),
        certificate: "30820100".into(),
        enroll: request.clone(),
        proof: String::new(),
    };
    rejoin.prove(&node_key(2));
    assert!(rejoin.proven());
    let renewed = RenewReply {
        spec_version: 1,
        certificates: vec!["30820100".into()],
    };
    let text = Sample {
        file: "Token.txt".into(),
        bytes: token.to_string().into_bytes(),
        again: Box::new(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|e| e.to_string())?;
            Ok(text.parse::<Token>()?.to_string().into_bytes())
        }),
        limit: None,
    };
    vec![
        text,
        json("", &request),
        json("", &reply),
        json("", &renew),
        json("", &rejoin),
        json("", &renewed),
    ]
}
