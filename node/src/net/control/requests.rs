//! Requests in both directions: who asked what, and which answer is whose.

use std::collections::HashMap;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use libp2p::PeerId;
use libp2p::request_response::{self, OutboundFailure, OutboundRequestId, ResponseChannel};
use protocol::NodeId;
use protocol::limits::{
    CONTROL_MAX_BYTES, CONTROL_REQUEST_TIMEOUT, CONTROL_REQUESTS_MAX, CONTROL_WAITING_MAX_BYTES,
};
use protocol::wire::Contact;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::swarm::{Task, innermost};
use super::{ControlEvent, RequestError, peers};

/// Where the answer to a request goes.
pub(super) type Answer = oneshot::Sender<Result<Vec<u8>, RequestError>>;

/// A peer's request that the driver was at, and what it replied; `None` if it did not.
pub(super) struct Reply {
    channel: ResponseChannel<Vec<u8>>,
    body: Option<Vec<u8>>,
    asked_bytes: usize,
}

/// What is under way.
#[derive(Default)]
pub(super) struct Requests {
    asked: HashMap<OutboundRequestId, (NodeId, Answer)>,
    pub(super) replies: FuturesUnordered<BoxFuture<'static, Reply>>,
    /// Bytes of the peers' requests that have no reply yet.
    waiting_bytes: usize,
}

impl Requests {
    /// Whether an answer of this node is waited for.
    pub(super) fn wait_for(&self, node: &NodeId) -> bool {
        self.asked.values().any(|(to, _)| to == node)
    }
}

impl Task {
    /// Asks a node; libp2p dials it if there is no connection.
    pub(super) fn request(&mut self, to: Contact, bytes: Vec<u8>, answer: Answer) {
        let node = to.node;
        let addresses = peers::addresses(&to);
        let refuse = |reason: &str| Err(unreachable_for(node, reason));
        let Some(peer) = peers::peer_of(&node).filter(|peer| peer != self.swarm.local_peer_id())
        else {
            let _ = answer.send(refuse("it is no peer"));
            return;
        };
        if self.requests.asked.len() >= CONTROL_REQUESTS_MAX {
            let _ = answer.send(Err(RequestError::Closed));
        } else if addresses.is_empty() && !self.swarm.is_connected(&peer) {
            let _ = answer.send(refuse("no address of it is known"));
        } else {
            let requests = &mut self.swarm.behaviour_mut().requests;
            let id = requests.send_request_with_addresses(&peer, bytes, addresses);
            self.requests.asked.insert(id, (node, answer));
        }
    }

    pub(super) fn on_request_event(&mut self, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        use request_response::{Event, Message};
        match event {
            Event::Message {
                peer,
                connection_id,
                message,
            } => {
                self.used(connection_id);
                match message {
                    Message::Request {
                        request, channel, ..
                    } => self.asked_by(peer, request, channel),
                    Message::Response {
                        request_id,
                        response,
                    } => {
                        if let Some((_, answer)) = self.requests.asked.remove(&request_id) {
                            let _ = answer.send(Ok(response));
                        }
                    }
                }
            }
            Event::OutboundFailure {
                request_id, error, ..
            } => {
                if let Some((node, answer)) = self.requests.asked.remove(&request_id) {
                    let error = self.request_error(node, &error);
                    let _ = answer.send(Err(error));
                }
            }
            Event::InboundFailure { peer, error, .. } => {
                tracing::debug!(%peer, %error, "a request came to nothing");
            }
            Event::ResponseSent { connection_id, .. } => self.used(connection_id),
        }
    }

    fn request_error(&self, node: NodeId, error: &OutboundFailure) -> RequestError {
        match error {
            OutboundFailure::Timeout => RequestError::Timeout(node),
            OutboundFailure::DialFailure => {
                let reason = self
                    .reasons
                    .get(&node)
                    .map_or("no address answers", String::as_str);
                unreachable_for(node, reason)
            }
            other => RequestError::Ended {
                node,
                reason: innermost(other),
            },
        }
    }

    fn asked_by(&mut self, peer: PeerId, bytes: Vec<u8>, channel: ResponseChannel<Vec<u8>>) {
        let Some(from) = peers::node_of(&peer) else {
            return;
        };
        let asked_bytes = bytes.len();
        if self.requests.replies.len() >= CONTROL_REQUESTS_MAX
            || self.requests.waiting_bytes + asked_bytes > CONTROL_WAITING_MAX_BYTES
        {
            tracing::warn!(%from, "a request is dropped: too many wait for their reply");
            return;
        }
        self.requests.waiting_bytes += asked_bytes;
        let (reply, waiting) = oneshot::channel();
        self.requests.replies.push(Box::pin(async move {
            let reply = timeout(CONTROL_REQUEST_TIMEOUT.as_duration(), waiting).await;
            let body = reply.ok().and_then(Result::ok);
            Reply {
                channel,
                body,
                asked_bytes,
            }
        }));
        self.outbox
            .push(ControlEvent::Request { from, bytes, reply });
    }

    /// Hands the driver's reply to the peer.
    pub(super) fn reply(&mut self, reply: Reply) {
        self.requests.waiting_bytes -= reply.asked_bytes;
        match reply.body {
            Some(body) if body.len() <= CONTROL_MAX_BYTES => {
                let requests = &mut self.swarm.behaviour_mut().requests;
                let _ = requests.send_response(reply.channel, body);
            }
            Some(body) => {
                tracing::error!(bytes = body.len(), "a reply is too long and is dropped");
            }
            None => {}
        }
    }
}

fn unreachable_for(node: NodeId, reason: &str) -> RequestError {
    RequestError::Unreachable {
        node,
        reason: reason.to_owned(),
    }
}
