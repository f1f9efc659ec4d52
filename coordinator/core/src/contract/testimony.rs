//! What a node has of orders and documents, as a restored coordinator takes it in.

use protocol::manifest::ReleaseManifest;
use protocol::orders::Order;
use protocol::plan::{Recall, RolloutPlan};
use protocol::topology::Topology;
use protocol::{NodeId, Verified};

/// One node's testimony. All of it is believed by its signatures, none of it because of who brings it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Testimony {
    /// Who brought it.
    pub from: NodeId,
    /// Orders with a higher number than the restored ledger's last.
    pub orders: Vec<Verified<Order>>,
    /// Recalls that are inside of those orders.
    pub recalls: Vec<Verified<Recall>>,
    /// Plans that the newest bulletin among them names and the ledger lacks.
    pub plans: Vec<Verified<RolloutPlan>>,
    /// Releases, likewise.
    pub releases: Vec<Verified<ReleaseManifest>>,
    /// The topology, likewise.
    pub topology: Option<Verified<Topology>>,
    /// Nodes whose certificates stand in a newer revocation list.
    pub revoked: Vec<NodeId>,
    /// All serial numbers of that list, hex, and its number.
    pub barred: Option<(Vec<String>, u64)>,
}
