//! The composed behaviour, apart from everything else: it costs a minute of code generation.

use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::gossipsub::{
    self, AllowAllSubscriptionFilter, MaxCountSubscriptionFilter, MessageAuthenticity, MessageId,
    ValidationMode,
};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{StreamProtocol, identify, mdns};
use protocol::limits::{CONTROL_REQUEST_TIMEOUT, GOSSIP_MAX_BYTES};
use protocol::wire::CONTROL_PROTOCOL;

use super::codec::Bytes;

/// Requests that one connection has under way in either direction; one more fails at once.
const STREAMS_PER_CONNECTION: usize = 128;
/// Connections in either direction that have not been admitted yet.
const PENDING_MAX: u32 = 256;
/// Both ends may dial at the same time; more than that is waste.
const PER_PEER_MAX: u32 = 3;

/// Topics that a peer may be in at the same time, and name in one message. It needs one; while it
/// changes its site, two.
const TOPICS_PER_PEER_MAX: usize = 8;

type Filter = MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>;
type Gossip = gossipsub::Behaviour<gossipsub::IdentityTransform, Filter>;

/// What speaks on an admitted connection.
#[derive(NetworkBehaviour)]
pub struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) gossip: Gossip,
    pub(super) requests: request_response::Behaviour<Bytes>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    /// All of it for one key. `connections` is the most that stand at the same time.
    pub fn new(keypair: &Keypair, mdns: bool, connections: u32) -> Result<Behaviour, String> {
        let peer = keypair.public().to_peer_id();
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_MAX))
            .with_max_pending_outgoing(Some(PENDING_MAX))
            .with_max_established(Some(connections))
            .with_max_established_per_peer(Some(PER_PEER_MAX));
        let identify = identify::Config::new("/tidegate/1".to_owned(), keypair.public())
            .with_agent_version(concat!("tidegate/", env!("CARGO_PKG_VERSION")).to_owned())
            .with_cache_size(0)
            .with_interval(Duration::from_secs(3600));
        let requests = request_response::Config::default()
            .with_request_timeout(CONTROL_REQUEST_TIMEOUT.as_duration())
            .with_max_concurrent_streams(STREAMS_PER_CONNECTION);
        let protocol = StreamProtocol::new(CONTROL_PROTOCOL);
        let mdns = if mdns {
            let found = mdns::tokio::Behaviour::new(mdns::Config::default(), peer);
            Some(found.map_err(|error| format!("multicast: {error}"))?)
        } else {
            None
        };
        Ok(Behaviour {
            limits: connection_limits::Behaviour::new(limits),
            identify: identify::Behaviour::new(identify),
            gossip: gossip(keypair)?,
            requests: request_response::Behaviour::with_codec(
                Bytes::default(),
                [(protocol, ProtocolSupport::Full)],
                requests,
            ),
            mdns: mdns.into(),
        })
    }
}

/// In a site of two to seven everyone is in everyone's mesh; above that a mesh of about six keeps
/// the cost of a message per node constant. Nobody is asked to have dialled anyone
/// (`mesh_outbound_min`): in a small site one node may have dialled all the others.
fn gossip(keypair: &Keypair) -> Result<Gossip, String> {
    let config = gossipsub::ConfigBuilder::default()
        .mesh_outbound_min(0)
        .mesh_n_low(4)
        .mesh_n(6)
        .mesh_n_high(12)
        .heartbeat_interval(Duration::from_millis(500))
        .heartbeat_initial_delay(Duration::from_millis(100))
        // A node that left and comes back must not wait a minute for its mesh.
        .prune_backoff(Duration::from_secs(10))
        .unsubscribe_backoff(Duration::from_secs(2))
        .graft_flood_threshold(Duration::from_secs(2))
        .flood_publish(false)
        .validation_mode(ValidationMode::Strict)
        .message_id_fn(|message: &gossipsub::Message| {
            MessageId::new(blake3::hash(&message.data).as_bytes())
        })
        .duplicate_cache_time(Duration::from_secs(120))
        .max_transmit_size(2 * GOSSIP_MAX_BYTES)
        .connection_handler_queue_len(1024)
        .max_ihave_messages_heartbeat(10)
        .build()
        .map_err(|error| error.to_string())?;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: TOPICS_PER_PEER_MAX,
        max_subscriptions_per_request: TOPICS_PER_PEER_MAX,
    };
    let author = MessageAuthenticity::Signed(keypair.clone());
    Gossip::new_with_subscription_filter(author, config, filter).map_err(str::to_owned)
}
