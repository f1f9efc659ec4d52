//! A node and its libp2p peer id are the same ed25519 key; its addresses are text in a contact.

use std::net::{IpAddr, SocketAddr};

use libp2p::identity::{PublicKey, ed25519};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use protocol::NodeId;
use protocol::wire::Contact;

/// Addresses of one contact that are tried; more are ignored.
const ADDRESSES_MAX: usize = 8;

/// The peer id of a node; `None` if its bytes are no ed25519 key.
pub fn peer_of(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

/// The node of a peer id; `None` if its key is not ed25519.
pub fn node_of(peer: &PeerId) -> Option<NodeId> {
    // Keys as short as ed25519's stand in the peer id itself, under the identity "hash".
    let hash = peer.as_ref();
    if hash.code() != 0 {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    Some(NodeId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The addresses of a contact that can be read, without peer ids, in its order.
pub(super) fn addresses(contact: &Contact) -> Vec<Multiaddr> {
    contact
        .control
        .iter()
        .filter_map(|text| text.parse::<Multiaddr>().ok())
        .map(bare)
        .filter(|address| !address.is_empty())
        .take(ADDRESSES_MAX)
        .collect()
}

/// An address without the peer id at its end.
pub(super) fn bare(mut address: Multiaddr) -> Multiaddr {
    if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
        address.pop();
    }
    address
}

/// The IP address that a multiaddress begins with, if it does.
pub fn ip_of(address: &str) -> Option<IpAddr> {
    match address.parse::<Multiaddr>().ok()?.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(IpAddr::from(ip).to_canonical()),
        _ => None,
    }
}

/// `/ip4/…/tcp/…` or `/ip6/…/tcp/…`.
pub(super) fn tcp_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match (parts.next()?, parts.next()) {
        (Protocol::Tcp(port), None | Some(Protocol::P2p(_))) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::identity::fixture::{TestFleet, node};

    #[test]
    fn a_node_is_its_peer_id_and_back() {
        let identity = TestFleet::new("a").identity(1);
        let peer = identity.libp2p_keypair().public().to_peer_id();
        assert_eq!(peer_of(&node(1)), Some(peer));
        assert_eq!(node_of(&peer), Some(node(1)));
        assert_eq!(node_of(&PeerId::random()), None);
    }

    #[test]
    fn unreadable_addresses_of_a_contact_are_left_out() {
        let peer = peer_of(&node(1)).unwrap();
        let contact = Contact {
            node: node(1),
            control: [
                "nonsense".into(),
                format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}"),
                String::new(),
            ]
            .into(),
            data: None,
        };
        let addresses = addresses(&contact);
        assert_eq!(
            addresses,
            ["/ip4/127.0.0.1/tcp/1".parse::<Multiaddr>().unwrap()]
        );
        assert_eq!(
            ip_of("/ip6/::ffff:7f00:1/udp/1/quic-v1"),
            Some([127, 0, 0, 1].into())
        );
        assert_eq!((ip_of("/dns/host/tcp/1"), ip_of("")), (None, None));
        assert_eq!(tcp_address(&addresses[0]), Some(([127, 0, 0, 1], 1).into()));
        assert_eq!(
            tcp_address(&"/ip4/127.0.0.1/udp/1/quic-v1".parse().unwrap()),
            None
        );
    }
}
