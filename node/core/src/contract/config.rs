//! What the brain is told once, at its start.

use std::collections::BTreeMap;

use protocol::FleetId;
use protocol::Hash;
use protocol::NodeId;
use protocol::SiteId;
use protocol::Span;
use protocol::pieces::Geometry;
use protocol::wire::Contact;
use serde::Deserialize;
use serde::Serialize;

/// Ties an answer to its question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Ticket(pub u64);

/// What the brain is told once, at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Who I am.
    pub node: NodeId,
    /// Whose orders I take.
    pub fleet: FleetId,
    /// What I am for.
    pub role: NodeRole,
    /// `std::env::consts::OS` of this machine.
    pub os: String,
    /// `std::env::consts::ARCH` of this machine.
    pub arch: String,
    /// This machine's labels, as it was enrolled with them.
    pub labels: BTreeMap<String, String>,
    /// What else filters may ask for and does not change while the node runs; see
    /// [`protocol::inventory::NAMES`].
    pub attributes: BTreeMap<String, String>,
    /// Where others reach me.
    pub contact: Contact,
    /// The epoch of my own counters, given at enrolment.
    pub epoch: u32,
    /// Names this boot of the machine; leases do not outlive it.
    pub boot_id: Hash,
    /// Known from enrolment, until a bulletin says otherwise.
    pub coordinators: Vec<Contact>,
    /// Known from enrolment, until a bulletin says otherwise.
    pub origins: Vec<Contact>,
    /// Intervals; [`Tempo::default`] in production.
    pub tempo: Tempo,
    /// How fine the swarm's work is cut; [`Grain::default`] in production.
    pub grain: Grain,
    /// The product that is the agent itself, if it keeps itself up to date.
    pub agent: Option<SiteId>,
    /// Seeds the brain's random streams.
    pub seed: u64,
}

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeRole {
    /// Fetches, installs, serves its site.
    Endpoint,
    /// Holds every blob and serves them; installs nothing.
    Origin,
}

/// Intervals, from [`protocol::limits`] unless a test or a scenario says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tempo {
    /// Presence is gossiped this often if nothing changes.
    pub presence: Span,
    /// Unheard for so long, a member is gone.
    pub presence_lifetime: Span,
    /// Who came into a site waits this long before it owns anything.
    pub settle: Span,
    /// Haves are batched for this long.
    pub have: Span,
    /// A claim waits this long for a better one.
    pub claim_wait: Span,
    /// Without progress for this long, a claim lapses.
    pub claim_lease: Span,
    /// A delegate asks the coordinator this often.
    pub uplink: Span,
}

impl Default for Tempo {
    fn default() -> Tempo {
        use protocol::limits as l;
        Tempo {
            presence: l::PRESENCE_INTERVAL,
            presence_lifetime: l::PRESENCE_LIFETIME,
            settle: l::SITE_SETTLE,
            have: l::HAVE_INTERVAL,
            claim_wait: l::CLAIM_WAIT,
            claim_lease: l::CLAIM_LEASE,
            uplink: l::UPLINK_INTERVAL,
        }
    }
}

/// How fine the swarm's work is cut. A simulation of a large fleet takes coarser grain; every node of
/// a fleet must have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grain {
    /// Pieces that a blob is aimed to have.
    pub pieces: u64,
    /// Largest piece in bytes, a power of two.
    pub piece_max_bytes: u64,
    /// Peers to which a node turns for a blob.
    pub neighbours: usize,
}

impl Grain {
    /// The cut of a blob of `length` bytes.
    pub fn cut(&self, length: u64) -> Geometry {
        Geometry::aimed(length, self.pieces, self.piece_max_bytes)
    }
}

impl Default for Grain {
    fn default() -> Grain {
        use protocol::limits as l;
        Grain {
            pieces: l::PIECES_AIM,
            piece_max_bytes: l::PIECE_MAX_BYTES,
            neighbours: l::SWARM_NEIGHBOURS_MAX,
        }
    }
}
