//! What is kept of a node's statuses: one compact register for each rollout. At 100,000 nodes the
//! digests and ids that every register of a rollout has in common would be most of the memory.

use std::sync::Arc;

use protocol::status::{NodeStatus, State};
use protocol::{RolloutId, Seq, Time};

/// The newest status of one node in one rollout.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Register {
    pub rollout: Arc<RolloutId>,
    pub seq: Seq,
    pub wave: u32,
    pub state: State,
    /// Since when, by the node's clock.
    pub entered_at: Time,
    pub lan_bytes: u64,
    pub wan_bytes: u64,
    pub reason: Box<str>,
    /// Exit code and end of the output; most registers have neither.
    output: Option<Box<(Option<i32>, Box<str>)>>,
}

impl Register {
    /// What is kept of a status.
    pub fn of(rollout: Arc<RolloutId>, status: &NodeStatus) -> Register {
        let told = status.exit_code.is_some() || !status.output_tail.is_empty();
        let output = || Box::new((status.exit_code, status.output_tail.as_str().into()));
        Register {
            rollout,
            seq: status.seq,
            wave: status.wave,
            state: status.state,
            entered_at: status.entered_at,
            lan_bytes: status.lan_bytes,
            wan_bytes: status.wan_bytes,
            reason: status.reason.as_str().into(),
            output: told.then(output),
        }
    }

    pub fn exit_code(&self) -> Option<i32> {
        self.output.as_ref().and_then(|o| o.0)
    }

    pub fn output_tail(&self) -> &str {
        self.output.as_ref().map_or("", |o| &o.1)
    }
}

/// The registers of one node, by rollout.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Registers(Vec<Register>);

impl Registers {
    /// The register of a rollout.
    pub fn get(&self, rollout: &RolloutId) -> Option<&Register> {
        let at = self.find(rollout).ok()?;
        self.0.get(at)
    }

    /// Takes a register in, in place of the one before.
    pub fn insert(&mut self, register: Register) {
        match self.find(&register.rollout) {
            Ok(at) => self.0[at] = register,
            Err(at) => {
                // rollouts are few, and a vector's usual spare room would be most of what it takes
                self.0.reserve_exact(1);
                self.0.insert(at, register);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Register> {
        self.0.iter()
    }

    fn find(&self, rollout: &RolloutId) -> Result<usize, usize> {
        self.0.binary_search_by(|r| (*r.rollout).cmp(rollout))
    }
}
