//! The task that drives the swarm: what the handle asks goes in, what happens comes out.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{self, IdentTopic};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, ListenError, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, mdns};
use protocol::NodeId;
use protocol::limits::GOSSIP_MAX_BYTES;
use protocol::strangers::Knock;
use protocol::wire::Contact;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::behaviour::{Behaviour, BehaviourEvent};
use super::gate::GateError;
use super::keeping::{Failure, Keeping};
use super::outbox::Outbox;
use super::requests::{Answer, Requests};
use super::{ControlConfig, ControlEvent, Shared, StartError, peers, transport};
use crate::net::identity::{Admission, Identity};
use crate::net::knocks::before_a_key;

/// A connection that we dialled for a request is closed when it was unused for so long.
const IDLE: Duration = Duration::from_secs(60);
/// Idle connections are looked for this often.
const HOUSEKEEPING: Duration = Duration::from_secs(15);
/// Certificates expire under live connections; they are judged again this often.
const JUDGE_AGAIN: Duration = Duration::from_secs(300);
/// Listening must have begun by then.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);
/// libp2p is never to close an idle connection by itself: its dialler knows whether it is wanted.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Reasons of failed dials that are remembered for errors.
const REASONS_MAX: usize = 256;

/// What the handle asks for, beside what it keeps in [`Shared`].
pub(super) enum Command {
    Publish(Vec<u8>),
    Request {
        to: Contact,
        bytes: Vec<u8>,
        answer: Answer,
    },
}

/// See the module.
pub(super) struct Task {
    pub(super) swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    events: mpsc::Sender<ControlEvent>,
    pub(super) outbox: Outbox,
    admission: Arc<Admission>,
    admission_changed: watch::Receiver<u64>,
    keeping: Keeping,
    /// Connections that we dialled, and when they were last used.
    dialled: BTreeMap<ConnectionId, (PeerId, Instant)>,
    pub(super) requests: Requests,
    topic: Option<IdentTopic>,
    /// What the last failed dial of a node said.
    pub(super) reasons: BTreeMap<NodeId, String>,
    hide_loopback: bool,
    next_housekeeping: Instant,
    next_judgement: Instant,
}

impl Task {
    /// Makes the swarm and waits until it listens.
    pub(super) async fn start(
        config: ControlConfig,
        identity: &Identity,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<ControlEvent>,
    ) -> Result<Task, StartError> {
        let sources: Vec<IpAddr> = config.listen.iter().filter_map(ip_of).collect();
        let keypair = identity.libp2p_keypair();
        let transport = transport::build(identity, sources.clone()).map_err(StartError::Setup)?;
        let behaviour =
            Behaviour::new(&keypair, config.mdns, config.connections).map_err(StartError::Setup)?;
        let settings = libp2p::swarm::Config::with_tokio_executor()
            .with_dial_concurrency_factor(NonZeroU8::MIN)
            .with_idle_connection_timeout(NEVER);
        let peer = keypair.public().to_peer_id();
        let mut task = Task {
            swarm: Swarm::new(transport, behaviour, peer, settings),
            commands,
            shared,
            events,
            outbox: Outbox::default(),
            admission: identity.admission().clone(),
            admission_changed: identity.admission().changed(),
            keeping: Keeping::default(),
            dialled: BTreeMap::new(),
            requests: Requests::default(),
            topic: None,
            reasons: BTreeMap::new(),
            hide_loopback: sources.iter().any(IpAddr::is_unspecified),
            next_housekeeping: Instant::now() + HOUSEKEEPING,
            next_judgement: Instant::now() + JUDGE_AGAIN,
        };
        task.listen(config.listen).await?;
        Ok(task)
    }

    async fn listen(&mut self, addresses: Vec<Multiaddr>) -> Result<(), StartError> {
        let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for address in addresses {
            let id = self
                .swarm
                .listen_on(address.clone())
                .map_err(|error| StartError::Listen {
                    address: address.to_string(),
                    reason: innermost(&error),
                })?;
            waiting.insert(id, address);
        }
        let deadline = Instant::now() + LISTEN_TIMEOUT;
        while let Some(address) = waiting.values().next() {
            let refuse = |reason: String| StartError::Listen {
                address: address.to_string(),
                reason,
            };
            let event = tokio::select! {
                event = self.swarm.select_next_some() => event,
                () = sleep_until(deadline) => return Err(refuse("no answer from the system".into())),
            };
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    waiting.remove(listener_id);
                }
                SwarmEvent::ListenerClosed {
                    reason: Err(error), ..
                } => {
                    return Err(refuse(error.to_string()));
                }
                _ => {}
            }
            self.on_swarm(event);
        }
        Ok(())
    }

    /// Runs until the last handle is gone.
    pub(super) async fn run(mut self) {
        let events = self.events.clone();
        let shared = self.shared.clone();
        loop {
            let wake = self.keeping.next().unwrap_or(self.next_housekeeping);
            let wake = wake.min(self.next_housekeeping);
            tokio::select! {
                event = self.swarm.select_next_some(), if !self.outbox.is_full() => {
                    self.on_swarm(event);
                }
                permit = events.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.outbox.pop() {
                            permit.send(event);
                        }
                    }
                    // Nobody listens: requests are refused by dropping their reply.
                    Err(_) => self.outbox.clear(),
                },
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = shared.news.notified() => self.take_wishes(),
                Some(reply) = self.requests.replies.next() => self.reply(reply),
                changed = self.admission_changed.changed() => {
                    if changed.is_ok() {
                        self.judge_again();
                    }
                }
                () = sleep_until(wake) => self.on_time(),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish(bytes) => self.publish(bytes),
            Command::Request { to, bytes, answer } => self.request(to, bytes, answer),
        }
    }

    fn publish(&mut self, bytes: Vec<u8>) {
        let Some(topic) = self.topic.clone() else {
            return;
        };
        if let Err(error) = self.swarm.behaviour_mut().gossip.publish(topic, bytes) {
            tracing::trace!(%error, "gossip goes nowhere");
        }
    }

    /// Makes topic and kept contacts what the handle wants now.
    fn take_wishes(&mut self) {
        let (topic, contacts) = {
            let wishes = self.shared.wishes();
            (wishes.topic.clone(), wishes.contacts.clone())
        };
        if topic != self.topic.as_ref().map(|held| held.to_string()) {
            self.join(topic);
        }
        let swarm = &self.swarm;
        let is_up =
            |node: &NodeId| peers::peer_of(node).is_some_and(|peer| swarm.is_connected(&peer));
        let gone = self.keeping.want(&contacts, is_up, Instant::now());
        for (connection, (peer, _)) in &self.dialled {
            if peers::node_of(peer).is_some_and(|node| gone.contains(&node)) {
                self.swarm.close_connection(*connection);
            }
        }
        self.dial_due();
    }

    fn join(&mut self, topic: Option<String>) {
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if let Some(old) = self.topic.take() {
            gossip.unsubscribe(&old);
        }
        self.topic = topic.map(IdentTopic::new);
        if let Some(new) = &self.topic
            && let Err(error) = gossip.subscribe(new)
        {
            tracing::warn!(%error, topic = %new, "cannot join");
        }
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        for (node, addresses) in self.keeping.due(now) {
            let Some(peer) = peers::peer_of(&node) else {
                self.keeping.failed(&node, Failure::Refused, now);
                continue;
            };
            let dial = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addresses)
                .build();
            match self.swarm.dial(dial) {
                Ok(()) => {}
                Err(DialError::DialPeerConditionFalse(_)) if self.swarm.is_connected(&peer) => {
                    self.keeping.up(&node, Instant::now());
                }
                Err(DialError::DialPeerConditionFalse(_)) => self.keeping.busy(&node, now),
                Err(_) => self.keeping.failed(&node, Failure::Unreachable, now),
            }
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        if now >= self.next_housekeeping {
            self.next_housekeeping = now + HOUSEKEEPING;
            self.close_idle(now);
        }
        if now >= self.next_judgement {
            self.next_judgement = now + JUDGE_AGAIN;
            self.judge_again();
        }
        self.dial_due();
    }

    /// Closes the connections of peers that would not be admitted any more.
    fn judge_again(&mut self) {
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            let Some(node) = peers::node_of(&peer) else {
                continue;
            };
            if let Some(Err(error)) = self.admission.readmit(&node) {
                let reason = format!("closed the connection with {node}: {error}");
                tracing::info!("{reason}");
                let _ = self.swarm.disconnect_peer_id(peer);
                self.outbox.push(ControlEvent::Refused {
                    peer: Some(node),
                    address: String::new(),
                    error: Some(error),
                    reason,
                    knock: None,
                });
            }
        }
    }

    fn close_idle(&mut self, now: Instant) {
        for (connection, (peer, used)) in &self.dialled {
            let Some(node) = peers::node_of(peer) else {
                continue;
            };
            let waits = self.requests.wait_for(&node);
            if now.duration_since(*used) >= IDLE && !self.keeping.keeps(&node) && !waits {
                self.swarm.close_connection(*connection);
            }
        }
    }

    pub(super) fn used(&mut self, connection: ConnectionId) {
        if let Some((_, used)) = self.dialled.get_mut(&connection) {
            *used = Instant::now();
        }
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                num_established,
                ..
            } => {
                let Some(node) = peers::node_of(&peer_id) else {
                    return;
                };
                if endpoint.is_dialer() {
                    self.dialled
                        .insert(connection_id, (peer_id, Instant::now()));
                }
                self.keeping.up(&node, Instant::now());
                self.reasons.remove(&node);
                if num_established.get() == 1 {
                    self.outbox.push(ControlEvent::Connected(node));
                }
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                num_established,
                ..
            } => {
                self.dialled.remove(&connection_id);
                let Some(node) = peers::node_of(&peer_id) else {
                    return;
                };
                if num_established == 0 {
                    self.keeping.down(&node, Instant::now());
                    self.outbox.push(ControlEvent::Disconnected(node));
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.on_dial_failed(peer_id, &error);
            }
            SwarmEvent::IncomingConnectionError {
                error,
                send_back_addr,
                ..
            } => {
                self.on_knock(&error, &send_back_addr);
            }
            SwarmEvent::NewListenAddr { address, .. } => self.listening(|all| {
                all.push(address);
            }),
            SwarmEvent::ExpiredListenAddr { address, .. } => self.listening(|all| {
                all.retain(|held| *held != address);
            }),
            _ => {}
        }
    }

    /// Somebody came, and is not let in or went away.
    fn on_knock(&mut self, error: &ListenError, from: &Multiaddr) {
        let ListenError::Transport(error) = error else {
            tracing::debug!(%error, %from, "a connection came to nothing");
            return;
        };
        if let Some(found) = GateError::find(error) {
            return self.outbox.push(refused(found, from, found.knock()));
        }
        let reason = innermost(error);
        tracing::debug!(%reason, %from, "a connection came to nothing");
        // Over UDP anybody may have sent what is no handshake, from any address.
        let knock = before_a_key(error).filter(|_| peers::tcp_address(from).is_some());
        if knock.is_some() {
            self.outbox.push(ControlEvent::Refused {
                peer: None,
                address: peers::bare(from.clone()).to_string(),
                error: None,
                reason: format!("no node's handshake: {reason}"),
                knock,
            });
        }
    }

    fn on_dial_failed(&mut self, peer: Option<PeerId>, error: &DialError) {
        let Some((peer, node)) = peer.and_then(|peer| Some((peer, peers::node_of(&peer)?))) else {
            return;
        };
        let mut failure = Failure::Unreachable;
        let mut reason = innermost(error);
        if let DialError::Transport(tried) = error {
            for (address, error) in tried {
                reason = format!("{}: {}", peers::bare(address.clone()), innermost(error));
                if let Some(found) = GateError::find(error) {
                    failure = Failure::Refused;
                    reason = found.to_string();
                    self.outbox.push(refused(found, address, None));
                    break;
                }
            }
        }
        tracing::debug!(%node, %reason, "cannot connect");
        if self.reasons.len() >= REASONS_MAX {
            self.reasons.pop_first();
        }
        self.reasons.insert(node, reason);
        if self.swarm.is_connected(&peer) {
            self.keeping.up(&node, Instant::now());
        } else {
            self.keeping.failed(&node, failure, Instant::now());
        }
    }

    fn listening(&mut self, change: impl FnOnce(&mut Vec<Multiaddr>)) {
        let hide = self.hide_loopback;
        let all: Vec<Multiaddr> = {
            let mut listen = self.shared.listen.load().all.clone();
            change(&mut listen);
            listen
        };
        self.shared.set_listen(all, hide);
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gossip(gossipsub::Event::Message { message, .. }) => {
                let ours = self
                    .topic
                    .as_ref()
                    .is_some_and(|topic| topic.hash() == message.topic);
                let from = message.source.as_ref().and_then(peers::node_of);
                if let (true, Some(from)) = (ours, from)
                    && message.data.len() <= GOSSIP_MAX_BYTES
                {
                    self.outbox.push(ControlEvent::Gossip {
                        from,
                        bytes: message.data,
                    });
                }
            }
            BehaviourEvent::Requests(event) => self.on_request_event(event),
            BehaviourEvent::Mdns(mdns::Event::Discovered(found)) => {
                let mut contacts: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
                for (peer, address) in found {
                    if let Some(node) = peers::node_of(&peer) {
                        contacts
                            .entry(node)
                            .or_default()
                            .push(peers::bare(address).to_string());
                    }
                }
                for (node, control) in contacts {
                    let contact = Contact {
                        node,
                        control: control.into(),
                        data: None,
                    };
                    self.outbox.push(ControlEvent::Discovered(contact));
                }
            }
            _ => {}
        }
    }
}

fn refused(error: &GateError, address: &Multiaddr, knock: Option<Knock>) -> ControlEvent {
    tracing::info!(%address, "{error}");
    ControlEvent::Refused {
        peer: error.peer(),
        address: peers::bare(address.clone()).to_string(),
        error: error.admission(),
        reason: error.to_string(),
        knock,
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// The last cause of an error: what the system or the peer said.
pub(super) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    loop {
        let inner = match last
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn std::error::Error + 'static)),
            None => last.source(),
        };
        match inner {
            Some(inner) => last = inner,
            None => return last.to_string(),
        }
    }
}
