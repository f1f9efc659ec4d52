//! Machines that knock at a node's doors and are no nodes of its fleet: what a node tells of them.
//!
//! A node tells a delegate of its site, the delegate tells the coordinator. Nobody signs for it, and
//! nothing is decided by it: it is a list for people.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;
use crate::time::Time;

/// What a machine showed at the door.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Knock {
    /// No certificate.
    Bare,
    /// A certificate that is not for this fleet, not valid, or not for its key.
    Refused,
    /// Nothing that a node would say.
    Garbage,
}

impl Knock {
    /// Why it was not let in, for people.
    pub fn reason(self) -> &'static str {
        match self {
            Knock::Bare => "it showed no certificate",
            Knock::Refused => "its certificate is not one of this fleet that holds",
            Knock::Garbage => "it does not speak as a node does",
        }
    }
}

/// One machine, as nodes of a site saw it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stranger {
    /// Whose key it proved to have; none if it proved none.
    pub node: Option<NodeId>,
    /// From where it came.
    pub address: IpAddr,
    /// What it showed the last time.
    pub knock: Knock,
    /// At whose door it was the last time.
    pub seen_by: NodeId,
    /// The first time since it was told of last, by the clock of whoever saw it.
    pub first: Time,
    /// The last time.
    pub last: Time,
    /// How often in between.
    pub times: u32,
}

impl Stranger {
    /// Takes in what else was seen of the same machine.
    pub fn join(&mut self, other: &Stranger) {
        if other.last >= self.last {
            (self.knock, self.seen_by) = (other.knock, other.seen_by);
        }
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.times = self.times.saturating_add(other.times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::node;

    #[test]
    fn two_views_of_one_machine_add_up() {
        let seen = |by: u64, first, last, times, knock| Stranger {
            node: None,
            address: [10, 0, 0, 9].into(),
            knock,
            seen_by: node(by),
            first: Time(first),
            last: Time(last),
            times,
        };
        let (one, other) = (
            seen(1, 10, 40, 3, Knock::Bare),
            seen(2, 5, 20, u32::MAX, Knock::Garbage),
        );
        let sum = seen(1, 5, 40, u32::MAX, Knock::Bare);
        for (mut into, from) in [(one.clone(), other.clone()), (other, one)] {
            into.join(&from);
            assert_eq!(into, sum, "whatever comes first");
        }
    }
}
