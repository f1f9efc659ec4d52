//! What nodes and the coordinator say to each other: one sample of every kind.

use std::collections::BTreeMap;

use protocol::strangers::{Knock, Stranger};
use protocol::witness::{SignedWord, WitnessWord};

use super::*;

pub fn control(fleet: &Fleet) -> Vec<Sample> {
    let signed = status(fleet).sign(&node_key(1));
    let order = fleet
        .order(
            5,
            OrderBody::Resume {
                rollout: rollout("r1"),
            },
        )
        .envelope()
        .clone();
    let receipt = fleet.receipt(Vec::new()).envelope().clone();
    let receipt_again = receipt.clone();
    let mut own = status(fleet);
    own.install_id = protocol::status::install_id(&own.node, &own.release, &own.rollout);
    let mut odd = signed.clone();
    odd.body.push(0);
    let batch = Batch::of(fleet.id(), [signed.clone(), own.sign(&node_key(1)), odd]);
    let stages = Stages {
        site: Some(site("s1")),
        seq: seq(11),
        rollouts: vec![(
            rollout("r1"),
            StageCounts {
                received: 1,
                downloading: 2,
                staged: 300,
                installing: 4,
            },
        )],
    };
    let mut signed_stages = SignedStages::unsigned(&stages);
    signed_stages.sign(fleet.id(), &node_key(1));
    let inventory = NodeInventory {
        node: node(1),
        seq: seq(12),
        labels: BTreeMap::from([("ring".into(), "early".into())]),
        attributes: BTreeMap::from([
            ("os.name".into(), "debian".into()),
            ("driver.e1000e".into(), "3.2".into()),
        ]),
    };
    let mut signed_inventory = SignedInventory::unsigned(&inventory);
    signed_inventory.sign(fleet.id(), &node_key(1));
    let word = WitnessWord {
        witness: node(1),
        site: site("s1"),
        seq: seq(13),
        silent: vec![node(2)],
    };
    let mut signed_word = SignedWord::unsigned(&word);
    signed_word.sign(fleet.id(), &node_key(1));
    let presence = Presence {
        contact: contact(1),
        site: Some(site("s1")),
        roaming: false,
        seq: seq(9),
        orders_head: seq(5),
        leaving: false,
    };
    let nowhere = Presence {
        contact: protocol::wire::Contact {
            data: None,
            ..contact(2)
        },
        site: None,
        ..presence.clone()
    };
    let claim = Claim {
        node: node(1),
        blob: Hash::of(b"blob"),
        pieces: vec![0, 300, 70_000],
        held: true,
        under_way: 2,
    };
    let uplink = ControlRequest::Uplink {
        me: Some(presence.clone()),
        roster: Some(Roster {
            joined: vec![node(1), node(2)],
            left: vec![node(3)],
            whole: true,
            digest: 1 << 60,
        }),
        statuses: batch,
        stages: Some(signed_stages),
        after: seq(4),
    };
    // What came from anywhere is unpacked before anything in it is checked.
    let unpack = |request: ControlRequest| {
        if let ControlRequest::Uplink {
            statuses, stages, ..
        } = request
        {
            let fleet = Fleet::new(1);
            let unpacked = statuses.unpack(fleet.id(), UPLINK_STATUSES_MAX);
            assert!(unpacked.len() <= UPLINK_STATUSES_MAX);
            unpacked
                .iter()
                .flatten()
                .for_each(|signed| drop(signed.verify(fleet.id())));
            assert_eq!(statuses.marks().len(), statuses.len());
            let _ = stages.map(|stages| stages.verify(fleet.id(), node(1)));
        }
    };
    let look = |message: SiteMessage| {
        if let SiteMessage::Status(status) = message {
            let believed = status.verify(Fleet::new(1).id());
            assert!(believed.is_err() || SignedStatus::of(&believed.unwrap()) == status);
        }
    };
    vec![
        binary("", &status(fleet)),
        binary(".presence", &SiteMessage::Presence(presence.clone().into())),
        binary(
            ".presence-roaming",
            &SiteMessage::Presence(
                Presence {
                    roaming: true,
                    leaving: true,
                    ..nowhere
                }
                .into(),
            ),
        ),
        binary(".claim", &SiteMessage::Claim(claim)),
        binary_and(".status", &SiteMessage::Status(signed), look),
        binary(".order", &SiteMessage::Order(order.clone())),
        binary(".receipt", &SiteMessage::Receipt(receipt.clone())),
        binary(
            ".missing",
            &SiteMessage::Missing {
                node: node(2),
                seq: seq(8),
            },
        ),
        binary(
            ".beat",
            &SiteMessage::Beat(Beat {
                head: seq(5),
                view: 0x0123_4567_89ab_cdef,
                count: 3,
            }),
        ),
        binary(
            ".slot",
            &SiteMessage::Slot(SlotWord {
                node: node(2),
                group: Hash::of(b"group"),
                stage: SlotStage::Holds,
                lease: Span::from_secs(600),
                seq: seq(9),
            }),
        ),
        binary(".orders", &ControlRequest::PullOrders { after: seq(4) }),
        binary(
            ".document",
            &ControlRequest::PullDocument {
                digest: Hash::of(b"document"),
            },
        ),
        binary(".root", &ControlRequest::PullRoot { version: 2 }),
        binary(
            ".locate",
            &ControlRequest::Locate {
                me: presence.clone(),
            },
        ),
        binary_and(".uplink", &uplink, unpack),
        binary(
            ".keepalive",
            &ControlRequest::Uplink {
                me: None,
                roster: None,
                statuses: Batch::default(),
                stages: None,
                after: seq(4),
            },
        ),
        binary(
            ".report",
            &ControlRequest::Report {
                statuses: vec![status(fleet).sign(&node_key(1))],
            },
        ),
        binary(
            ".guide",
            &ControlRequest::Guide {
                me: presence.clone(),
                addresses: vec![[10, 1, 0, 7].into()],
            },
        ),
        binary_and(
            ".inventory",
            &ControlRequest::Inventory(signed_inventory),
            |request| {
                if let ControlRequest::Inventory(inventory) = request {
                    let _ = inventory.verify(Fleet::new(1).id());
                }
            },
        ),
        binary(
            ".strangers",
            &ControlRequest::Strangers(vec![
                Stranger {
                    node: Some(node(9)),
                    address: [10, 1, 0, 66].into(),
                    knock: Knock::Refused,
                    seen_by: node(1),
                    first: CREATED,
                    last: protocol::Time(CREATED.0 + 700),
                    times: 300,
                },
                Stranger {
                    node: None,
                    address: std::net::IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 7]),
                    knock: Knock::Garbage,
                    seen_by: node(2),
                    first: CREATED,
                    last: CREATED,
                    times: 1,
                },
            ]),
        ),
        binary_and(
            ".witness",
            &ControlRequest::Witness(vec![signed_word]),
            |request| {
                if let ControlRequest::Witness(words) = request {
                    words
                        .iter()
                        .for_each(|word| drop(word.verify(Fleet::new(1).id())));
                }
            },
        ),
        binary("", &word),
        binary("", &inventory),
        binary("", &stages),
        binary(
            ".push",
            &ControlRequest::Push {
                orders: vec![order.clone()],
            },
        ),
        binary(
            ".greet",
            &ControlRequest::Greet {
                me: presence.clone(),
                gone: Some(seq(7)),
            },
        ),
        binary(".orders", &ControlReply::Orders(vec![order.clone()])),
        binary(".document", &ControlReply::Document(Some(b"{}".to_vec()))),
        binary(".statement", &ControlReply::Document(Some(order.to_json()))),
        binary(".members", &ControlReply::Members(vec![presence.into()])),
        binary(
            ".uplink",
            &ControlReply::Uplink {
                orders: vec![order],
                receipt: Some(Seal::of(&receipt, vec![0, 300])),
                known: true,
            },
        ),
        binary(".receipt", &ControlReply::Receipt(receipt_again)),
        binary(".done", &ControlReply::Done),
        binary(".refused", &ControlReply::Refused("not now".into())),
        binary("", &audit_entry()),
    ]
}

fn audit_entry() -> AuditEntry {
    AuditEntry {
        seq: 41,
        prev: Hash::of(b"entry 40"),
        time: CREATED,
        actor: "coordinator".into(),
        action: "order".into(),
        object: "r1".into(),
        body: b"{\"halt\":true}".to_vec(),
    }
}

pub fn data() -> Vec<Sample> {
    let mut pieces = PieceSet::empty(130);
    [0, 63, 64, 129]
        .into_iter()
        .for_each(|piece| _ = pieces.insert(piece));
    let request = DataRequest {
        blob: blob("pack", 130 << 18),
        groups: vec![(0, 16), (32, 48)],
        class: Class::Emergency,
        max_bytes_per_s: 250_000,
        spurned: vec![node(3)],
    };
    // Foreign sets are asked whether they are well-formed before anything else.
    let look = |notice: Notice| {
        if let Notice::Have { pieces, .. } = notice
            && pieces.well_formed()
        {
            let listed = pieces
                .iter()
                .inspect(|p| assert!(pieces.contains(*p)))
                .count();
            assert_eq!(listed as u32, pieces.count());
        }
    };
    vec![
        binary("", &request),
        binary(
            "",
            &Referral {
                holders: vec![contact(1)],
                max_bytes_per_s: 1_250_000,
            },
        ),
        binary_and(
            ".have",
            &Notice::Have {
                blob: blob("pack", 130 << 18),
                pieces,
            },
            look,
        ),
        binary(
            ".won",
            &Notice::Won {
                blob: blob("pack", 130 << 18),
                pieces: vec![7, 8],
            },
        ),
        binary(
            ".interested",
            &Notice::Interested {
                blob: blob("pack", 130 << 18),
            },
        ),
        binary(
            ".asking",
            &Notice::Asking {
                blob: blob("pack", 130 << 18),
            },
        ),
        binary(
            ".claimed",
            &Notice::Claimed(Claim {
                node: node(1),
                blob: Hash::of(b"blob"),
                pieces: vec![9, 7],
                held: true,
                under_way: 1,
            }),
        ),
        binary(
            ".took",
            &Notice::Took {
                blob: blob("pack", 130 << 18),
            },
        ),
    ]
}
