//! What takes an operator's halt back: a statement under the `plans` threshold, so that one operator alone
//! cannot. An automatic halt is no operator's, and needs no such statement.

use serde::{Deserialize, Serialize};

use crate::ids::{FleetId, RolloutId};
use crate::limits::TEXT_MAX_BYTES;
use crate::time::Time;
use crate::trust::{Statement, header};

/// Lifts one halt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lift {
    /// Format version, 1.
    pub spec_version: u32,
    /// The fleet that it is for.
    pub fleet: FleetId,
    /// The rollout that goes on; none: the halt of everything.
    pub rollout: Option<RolloutId>,
    /// When the halt was given, by the coordinator's ledger: a later one is not lifted by this.
    pub halted: Time,
    /// Why, for people.
    pub reason: String,
    /// Made at.
    pub created: Time,
}

impl Statement for Lift {
    header!("application/vnd.tidegate.lift+json", Plans);
    fn check(&self) -> Result<(), String> {
        match self.reason.len() > TEXT_MAX_BYTES {
            true => Err("the reason is too long".into()),
            false => Ok(()),
        }
    }
}
