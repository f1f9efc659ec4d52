//! What goes wrong at random, drawn from a seed: kills, cuts of the WAN, addresses that change.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::fleet::Fleet;
use super::network::Network;

/// A node that was killed stays down, and a link cut, for so long.
const OUT: Duration = Duration::from_millis(500);

/// One mishap after the other.
pub(super) struct Mishaps {
    random: ChaCha8Rng,
    kills: u32,
    cuts: u32,
    moves: u32,
}

impl Mishaps {
    pub(super) fn new() -> Mishaps {
        Mishaps {
            random: ChaCha8Rng::seed_from_u64(11),
            kills: 0,
            cuts: 0,
            moves: 0,
        }
    }

    /// Whether one of `count`, evenly spread over the bytes, should have happened by now.
    pub(super) fn are_due(&self, count: u32, done: f64) -> bool {
        let past = self.kills + self.cuts + self.moves;
        past < count && done > f64::from(past + 1) / f64::from(count + 1)
    }

    /// One to one of the nodes that are not complete, or to all. The node that was killed and started
    /// again, if any.
    pub(super) fn happen(
        &mut self,
        open: &[usize],
        network: &Network,
        fleet: &mut Fleet,
    ) -> Result<Option<usize>> {
        let drawn = self.random.next_u32();
        let Some(&victim) = open.get(self.random.next_u32() as usize % open.len().max(1)) else {
            return Ok(None);
        };
        match drawn % 3 {
            0 => {
                self.kills += 1;
                fleet.kill(victim);
                sleep(OUT);
                fleet.start(network, victim)?;
                return Ok(Some(victim));
            }
            1 => {
                self.cuts += 1;
                network.cut(true)?;
                sleep(OUT);
                network.cut(false)?;
            }
            _ => {
                self.moves += 1;
                let node = &fleet.nodes[victim];
                network.readdress(node.site, node.host, self.moves as u8)?;
            }
        }
        Ok(None)
    }

    pub(super) fn counts(&self) -> BTreeMap<String, u32> {
        [
            ("killed", self.kills),
            ("WAN cut", self.cuts),
            ("moved", self.moves),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| (what.to_owned(), count))
        .collect()
    }
}
