//! A whole office in virtual time, event by event: what a release costs each node, and how near the
//! site comes to the time that its WAN alone would take.

use std::collections::BTreeMap;

use protocol::Span;

use super::world::FRAME;
use crate::contract::{Grain, Tempo};

mod links;
mod running;

/// The office.
#[derive(Clone, Copy)]
pub struct Office {
    pub nodes: u64,
    pub seed: u64,
    /// Bytes a second.
    pub wan: f64,
    pub lan: f64,
    /// To the origin and back, milliseconds.
    pub rtt: u64,
    pub plain: u64,
    pub coded: u64,
    /// Plain bytes of a frame.
    pub frame: u64,
    pub grain: Grain,
    pub tempo: Tempo,
    /// Of 100 members, so many a node does not see.
    pub unseen: u64,
    /// Wants come within so many milliseconds.
    pub spread: u64,
    /// Whether the topology caps the site at its WAN's rate.
    pub capped: bool,
}

impl Default for Office {
    fn default() -> Office {
        Office {
            nodes: 50,
            seed: 1,
            wan: 50e6 / 8.0,
            lan: 1e9 / 8.0,
            rtt: 80,
            plain: 1 << 30,
            coded: 1 << 30,
            frame: 16 << 20,
            grain: Grain {
                pieces: 64,
                piece_max_bytes: 1 << 40,
                ..Grain::default()
            },
            tempo: Tempo {
                have: Span(500),
                ..Tempo::default()
            },
            unseen: 0,
            spread: 2_000,
            capped: true,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Figures {
    /// Inputs and wakes of one node, mean and most.
    pub events: f64,
    pub events_most: usize,
    pub by_kind: BTreeMap<&'static str, usize>,
    /// Bytes over the WAN, in units of what must cross.
    pub copies: f64,
    /// Bytes inside the site, in units of what must move there.
    pub lan: f64,
    /// Staged after so long, in units of what the WAN alone takes: middle, 99 %, last.
    pub ratio: [f64; 3],
    pub longest_quiet: f64,
}

/// Every input once ended in a look at everything, claims met in storms, and everybody told everybody
/// everything: 15,000 inputs for each node of this office.
#[test]
fn a_release_costs_a_node_few_inputs_and_the_site_one_copy() {
    let office = Office {
        nodes: 30,
        unseen: 5,
        ..Office::default()
    };
    let f = office.run();
    let progress = f.by_kind["progress"] as f64;
    assert!(f.events - progress < 1_300.0, "{f:?}");
    assert!(f.copies < 1.02 && f.lan < 1.02, "{f:?}");
    assert!(f.ratio[1] < 1.15 && f.ratio[2] < 1.25, "{f:?}");
}

/// Prints figures: `cargo test --release -p tidegate-node-core office -- --ignored --nocapture`.
#[test]
#[ignore = "prints figures"]
fn figures() {
    let office = Office::default();
    let mib = 1 << 20;
    let cases = [
        ("64 pieces, 50 Mbit/s", office),
        (
            "64 pieces, coded half",
            Office {
                coded: 512 * mib,
                ..office
            },
        ),
        (
            "64 pieces, 10 Mbit/s",
            Office {
                wan: 10e6 / 8.0,
                ..office
            },
        ),
        (
            "64 pieces, 5 % unseen",
            Office {
                unseen: 5,
                ..office
            },
        ),
        (
            "256 pieces, haves 100 ms",
            Office {
                grain: Grain::default(),
                frame: FRAME,
                tempo: Tempo::default(),
                ..office
            },
        ),
        (
            "8 nodes, 48 MiB, coded 16",
            Office {
                nodes: 8,
                plain: 48 * mib,
                coded: 16 * mib,
                wan: 2e6,
                lan: 12.5e6,
                grain: Grain::default(),
                frame: FRAME,
                tempo: Tempo::default(),
                ..office
            },
        ),
        (
            "5 nodes, 64 MiB, coded 60",
            Office {
                nodes: 5,
                plain: 64 * mib,
                coded: 60 * mib,
                wan: 20e6 / 8.0,
                grain: Grain::default(),
                frame: FRAME,
                tempo: Tempo::default(),
                ..office
            },
        ),
        (
            "50 nodes, 64 MiB, no cap",
            Office {
                plain: 64 * mib,
                coded: 60 * mib,
                capped: false,
                grain: Grain::default(),
                frame: FRAME,
                tempo: Tempo::default(),
                ..office
            },
        ),
        (
            "300 nodes",
            Office {
                nodes: 300,
                ..office
            },
        ),
    ];
    for (name, office) in cases {
        let f = office.run();
        println!(
            "{name:28} events {:7.0} (most {:6})  copies {:.3} lan {:.3} ratio {:.3} {:.3} {:.3} quiet {:.1} s\n    {:?}",
            f.events,
            f.events_most,
            f.copies,
            f.lan,
            f.ratio[0],
            f.ratio[1],
            f.ratio[2],
            f.longest_quiet,
            f.by_kind,
        );
    }
}
