//! The conductor: one brain out of fleet, rollouts and orders.

use protocol::envelope::Envelope;
use protocol::orders::Order;
use protocol::plan::RolloutPlan;
use protocol::topology::Topology;
use protocol::wire::Presence;
use protocol::{Hash, Now, RolloutId, Seq, SiteId, Time};

use crate::contract::{
    Action, Config, Event, LedgerEvent, NodeView, ReleaseView, RolloutView, SiteView,
};

/// The coordinator's brain.
///
/// Order of calls: [`Conductor::new`]; [`Conductor::replay`] with every event of the ledger, in order;
/// [`Conductor::resume`] once; then [`Conductor::handle`] and [`Conductor::handle_timeout`] as things
/// happen. After each call but `replay` the body drains [`Conductor::poll_action`] and sets its clock to
/// [`Conductor::poll_timeout`].
pub struct Conductor {
    config: Config,
}

impl Conductor {
    /// A brain that knows nothing yet.
    pub fn new(config: Config) -> Conductor {
        Conductor { config }
    }

    /// Takes in one event of the ledger. Asks for nothing.
    pub fn replay(&mut self, event: &LedgerEvent) {
        let _ = (event, &self.config);
        unimplemented!()
    }

    /// Begins to act: a new ledger gets its first epoch, leases and bulletin are issued anew. A body
    /// whose ledger was restored from a backup appends and replays a higher [`LedgerEvent::Epoch`] before.
    pub fn resume(&mut self, _now: Now) {
        unimplemented!()
    }

    /// Something happened.
    pub fn handle(&mut self, _now: Now, _event: Event) {
        unimplemented!()
    }

    /// The time that [`Conductor::poll_timeout`] named has come (or is thought to have).
    pub fn handle_timeout(&mut self, _now: Now) {
        unimplemented!()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        unimplemented!()
    }

    /// When to call [`Conductor::handle_timeout`], in boot time.
    pub fn poll_timeout(&self) -> Option<Time> {
        unimplemented!()
    }

    /// All rollouts, by id.
    pub fn rollouts(&self) -> Vec<RolloutView> {
        unimplemented!()
    }

    /// One rollout.
    pub fn rollout(&self, _rollout: &RolloutId) -> Option<RolloutView> {
        unimplemented!()
    }

    /// All nodes that were ever enrolled, by id.
    pub fn nodes(&self) -> Vec<NodeView> {
        unimplemented!()
    }

    /// All sites that the topology has or a node is in, by name.
    pub fn sites(&self) -> Vec<SiteView> {
        unimplemented!()
    }

    /// All releases, by product and counter.
    pub fn releases(&self) -> Vec<ReleaseView> {
        unimplemented!()
    }

    /// The retained orders (the newest about each subject) with a higher number than this, rising. The
    /// body signs them again if it does not hold the envelopes; ed25519 gives the same bytes.
    pub fn orders_after(&self, _after: Seq) -> Vec<Order> {
        unimplemented!()
    }

    /// The highest order that was given.
    pub fn orders_head(&self) -> Seq {
        unimplemented!()
    }

    /// A rollout's plan.
    pub fn plan(&self, _rollout: &RolloutId) -> Option<&RolloutPlan> {
        unimplemented!()
    }

    /// A signed statement that nodes may pull: the newest topology, a release, a plan with the
    /// signatures that it has so far, a recall. By the digest of its payload.
    pub fn document(&self, _digest: &Hash) -> Option<&Envelope> {
        unimplemented!()
    }

    /// The newest topology.
    pub fn topology(&self) -> Option<&Topology> {
        unimplemented!()
    }

    /// Members of a site that said lately where they are reached, the freshest first.
    pub fn members_of(&self, _site: &SiteId) -> Vec<Presence> {
        unimplemented!()
    }
}
