//! The brain: composition and routing. What each room decides is written in that room.

use protocol::{Now, Time};

use crate::contract::{Action, Config, Event, Memory, Snapshot};

/// Everything that a node decides.
///
/// The body hands in events with [`Brain::handle`], calls [`Brain::handle_timeout`] once the boot
/// clock has reached [`Brain::poll_timeout`], and after either performs every action that
/// [`Brain::poll_action`] yields, in that order, until it yields none. Right after [`Brain::new`]
/// there are actions to perform too. Nothing here fails: what cannot be followed is noted.
pub struct Brain {
    _config: Config,
}

impl Brain {
    /// A brain that remembers `memory`; empty for a node that was just enrolled.
    pub fn new(config: Config, _memory: Memory, _now: Now) -> Brain {
        Brain { _config: config }
    }

    /// Takes in what happened.
    pub fn handle(&mut self, _now: Now, _event: Event) {}

    /// Does what became due. Calling it early or late is harmless.
    pub fn handle_timeout(&mut self, _now: Now) {}

    /// The next thing that the body shall do.
    pub fn poll_action(&mut self) -> Option<Action> {
        None
    }

    /// Boot time at which [`Brain::handle_timeout`] wants to be called, if no event comes before.
    pub fn poll_timeout(&self) -> Option<Time> {
        None
    }

    /// Where the node stands, for people and displays.
    pub fn snapshot(&self, now: Now) -> Snapshot {
        Snapshot {
            now,
            site: None,
            members: 0,
            delegate: false,
            orders_head: protocol::Seq::default(),
            standings: Vec::new(),
        }
    }
}
