//! What the lab can play.

/// A network, a payload, and what goes wrong.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for people.
    pub about: &'static str,
    /// What is looked at.
    pub play: Play,
    /// The sites.
    pub sites: Vec<Site>,
    /// The origin's uplink in bits a second; none: unshaped.
    pub origin_up: Option<u64>,
    /// Bytes of the payload, which does not compress.
    pub payload_bytes: u64,
    /// So many times the node that brings most over the WAN is killed, and started again.
    pub owner_kills: u32,
    /// So many times a node goes away and comes back [`AWAY`] later, each time the next one that lacks bytes.
    pub goings: u32,
    /// So many times every WAN link goes down for [`CUT`].
    pub cuts: u32,
    /// So many times a random node is killed, the WAN cut, or a host given another address.
    pub mishaps: u32,
    /// It must be over by then, in seconds.
    pub patience_s: u64,
}

/// What a scenario looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Play {
    /// How soon and how cheaply every node has every byte.
    Distribution,
    /// How others on the first site's link fare.
    Courtesy,
    /// Whether the first site's cap holds, at each of these rates in bits a second.
    Cap(&'static [u64]),
    /// What processes use that have nothing to do.
    Idle,
}

/// A cap in the signed topology.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cap {
    /// Bits a second.
    pub bits: u64,
    /// The same in one minute that begins after the fleet is up; none: no hours.
    pub later_bits: Option<u64>,
}

/// Which hosts of a site cannot reach each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rift {
    /// All can.
    None,
    /// One pair of twenty cannot.
    Pairs,
    /// No host of the first half reaches one of the other.
    Halves,
}

impl Rift {
    /// Whether two hosts, counted from 1, of a site with so many are parted.
    pub fn parts(self, one: usize, other: usize, hosts: usize) -> bool {
        match self {
            Rift::None => false,
            Rift::Pairs => (one.min(other) * 7 + one.max(other) * 3).is_multiple_of(20),
            Rift::Halves => (one <= hosts / 2) != (other <= hosts / 2),
        }
    }
}

/// Caps that `cap` goes through, bits a second.
pub const CAPS: [u64; 5] = [64 * KBIT, 256 * KBIT, MBIT, 5 * MBIT, 20 * MBIT];

/// How long a node stays away.
pub const AWAY: std::time::Duration = std::time::Duration::from_secs(3);
/// How long a WAN link is down when it is cut.
pub const CUT: std::time::Duration = std::time::Duration::from_secs(5);

/// A branch office.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Its nodes.
    pub nodes: u8,
    /// Members beside them that lie or are slow.
    pub liars: u8,
    /// Its WAN link, inward, in bits a second; none: unshaped.
    pub down: Option<u64>,
    /// The same, outward.
    pub up: Option<u64>,
    /// Each host's link, both ways, in bits a second; none: unshaped.
    pub lan: Option<u64>,
    /// Whether the signed topology caps what its nodes take to the WAN's rate; else they find it out.
    pub capped: bool,
    /// Another cap in the signed topology than the link's rate.
    pub cap: Option<Cap>,
    /// Which of its hosts cannot reach each other.
    pub rift: Rift,
    /// What the WAN link holds back at most, in milliseconds of its rate.
    pub buffer_ms: u32,
    /// A long WAN: one way takes so many milliseconds.
    pub delay_ms: u32,
    /// Of a million packets on the WAN, so many are lost, each way.
    pub loss_ppm: u32,
}

const MBIT: u64 = 1_000_000;
const KBIT: u64 = 1_000;
const MIB: u64 = 1 << 20;

impl Site {
    fn unshaped(nodes: u8) -> Site {
        Site {
            nodes,
            liars: 0,
            down: None,
            up: None,
            lan: None,
            capped: true,
            cap: None,
            rift: Rift::None,
            buffer_ms: 200,
            delay_ms: 0,
            loss_ppm: 0,
        }
    }

    /// All its hosts.
    pub fn hosts(&self) -> usize {
        usize::from(self.nodes) + usize::from(self.liars)
    }

    /// Whether its WAN needs more than the kernel's token bucket.
    pub fn is_far(&self) -> bool {
        self.delay_ms > 0 || self.loss_ppm > 0
    }

    fn branch(nodes: u8, down: u64, up: u64) -> Site {
        Site {
            down: Some(down),
            up: Some(up),
            ..Site::unshaped(nodes)
        }
    }
}

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    let calm = Scenario {
        name: "",
        about: "",
        play: Play::Distribution,
        sites: Vec::new(),
        origin_up: None,
        payload_bytes: 64 * MIB,
        owner_kills: 0,
        goings: 0,
        cuts: 0,
        mishaps: 0,
        patience_s: 600,
    };
    let rates = [(20, 5), (16, 4), (12, 3), (8, 2), (4, 1), (2, 1)];
    let offices = rates.map(|(down, up)| Site::branch(8, down * MBIT, up * MBIT));
    let polite = Site {
        capped: false,
        buffer_ms: 1000,
        ..Site::branch(1, 10 * MBIT, 10 * MBIT)
    };
    vec![
        Scenario {
            name: "pair",
            about: "the origin and one node, unshaped, 1 GiB",
            sites: vec![Site::unshaped(1)],
            payload_bytes: 1024 * MIB,
            ..calm.clone()
        },
        Scenario {
            name: "lan",
            about: "8 nodes on links of 200 Mbit/s, the origin beside them, 512 MiB",
            sites: vec![Site {
                lan: Some(200 * MBIT),
                down: Some(200 * MBIT),
                up: Some(200 * MBIT),
                ..Site::unshaped(8)
            }],
            origin_up: Some(200 * MBIT),
            payload_bytes: 512 * MIB,
            ..calm.clone()
        },
        Scenario {
            name: "lan-unshaped",
            about: "8 nodes and the origin, unshaped: two cores are the limit, 512 MiB",
            sites: vec![Site::unshaped(8)],
            payload_bytes: 512 * MIB,
            ..calm.clone()
        },
        Scenario {
            name: "branch",
            about: "8 nodes behind 20 Mbit/s, 64 MiB",
            sites: vec![Site::branch(8, 20 * MBIT, 5 * MBIT)],
            ..calm.clone()
        },
        Scenario {
            name: "branch-kills",
            about: "as branch; the node that brings most over the WAN is killed five times",
            sites: vec![Site::branch(8, 20 * MBIT, 5 * MBIT)],
            owner_kills: 5,
            ..calm.clone()
        },
        Scenario {
            name: "churn",
            about: "as branch; twelve times a node goes and comes back, twice the link is cut",
            sites: vec![Site::branch(8, 20 * MBIT, 5 * MBIT)],
            goings: 12,
            cuts: 2,
            ..calm.clone()
        },
        Scenario {
            name: "hostile",
            about: "7 nodes behind 20 Mbit/s, 64 MiB, beside 3 enrolled members that say they have all of it and lie or dawdle",
            sites: vec![Site {
                liars: 3,
                ..Site::branch(7, 20 * MBIT, 5 * MBIT)
            }],
            ..calm.clone()
        },
        Scenario {
            name: "branches",
            about: "6 sites of 8 nodes behind 2 to 20 Mbit/s, 16 MiB",
            sites: offices.to_vec(),
            payload_bytes: 16 * MIB,
            ..calm.clone()
        },
        Scenario {
            name: "crowd",
            about: "one seed, 32 nodes, uplinks of 100 Mbit/s, 64 MiB",
            sites: vec![Site {
                lan: Some(100 * MBIT),
                down: Some(100 * MBIT),
                up: Some(100 * MBIT),
                ..Site::unshaped(32)
            }],
            origin_up: Some(100 * MBIT),
            ..calm.clone()
        },
        Scenario {
            name: "idle",
            about: "8 nodes of one site, 16 MiB installed, then nothing to do",
            play: Play::Idle,
            sites: vec![Site::unshaped(8)],
            payload_bytes: 16 * MIB,
            ..calm.clone()
        },
        Scenario {
            name: "thin",
            about: "2 nodes behind 128 kbit/s, 1 MiB, the link cut twice",
            sites: vec![Site::branch(2, 128 * KBIT, 128 * KBIT)],
            payload_bytes: MIB,
            cuts: 2,
            ..calm.clone()
        },
        Scenario {
            name: "interrupted",
            about: "3 nodes behind 20 Mbit/s, 256 MiB; a hundred times one is killed or moves, or the link is cut",
            sites: vec![Site::branch(3, 20 * MBIT, 5 * MBIT)],
            payload_bytes: 256 * MIB,
            mishaps: 100,
            patience_s: 1_800,
            ..calm.clone()
        },
        Scenario {
            name: "lossy",
            about: "4 nodes behind 20 Mbit/s, 80 ms there and back, one packet in a hundred lost, 32 MiB",
            sites: vec![Site {
                delay_ms: 40,
                loss_ppm: 10_000,
                ..Site::branch(4, 20 * MBIT, 5 * MBIT)
            }],
            payload_bytes: 32 * MIB,
            ..calm.clone()
        },
        Scenario {
            name: "cap",
            about: "4 nodes behind a fast link under caps of 64 kbit/s to 20 Mbit/s",
            play: Play::Cap(&CAPS),
            sites: vec![Site::unshaped(4)],
            ..calm.clone()
        },
        Scenario {
            name: "cap-pairs",
            about: "10 nodes of which one pair in twenty cannot reach each other, under a cap",
            play: Play::Cap(&CAPS[2..3]),
            sites: vec![Site {
                rift: Rift::Pairs,
                ..Site::unshaped(10)
            }],
            ..calm.clone()
        },
        Scenario {
            name: "cap-split",
            about: "8 nodes in two halves that cannot reach each other, under a cap",
            play: Play::Cap(&CAPS[2..3]),
            sites: vec![Site {
                rift: Rift::Halves,
                ..Site::unshaped(8)
            }],
            ..calm.clone()
        },
        Scenario {
            name: "cap-hours",
            about: "4 nodes under a cap of 5 Mbit/s that falls to 256 kbit/s for a minute by the site's clock",
            play: Play::Cap(&CAPS[3..4]),
            sites: vec![Site {
                cap: Some(Cap {
                    bits: CAPS[3],
                    later_bits: Some(CAPS[1]),
                }),
                ..Site::unshaped(4)
            }],
            ..calm.clone()
        },
        Scenario {
            name: "polite",
            about: "one node behind 10 Mbit/s with a buffer of a second and no cap, probes and a download beside it",
            play: Play::Courtesy,
            sites: vec![polite],
            payload_bytes: 128 * MIB,
            ..calm.clone()
        },
        Scenario {
            name: "polite-far",
            about: "as polite, 40 ms there and back",
            play: Play::Courtesy,
            sites: vec![Site {
                delay_ms: 20,
                ..polite
            }],
            payload_bytes: 128 * MIB,
            ..calm.clone()
        },
    ]
}

/// The scenario of this name.
pub fn named(name: &str) -> Option<Scenario> {
    all().into_iter().find(|s| s.name == name)
}
