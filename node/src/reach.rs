//! Where this machine is reached: its addresses now, and what to tell others.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use protocol::NodeId;
use protocol::wire::Contact;

use crate::config::NodeConfig;

/// Finds out where a node is reached. A machine moves: what is found may differ the next time.
#[derive(Clone, Debug)]
pub struct Reach {
    node: NodeId,
    listen: IpAddr,
    data_port: u16,
    /// An address of the coordinator: the one that faces it is the one to tell.
    far: Option<IpAddr>,
}

impl Reach {
    /// For a node with this data port.
    pub fn of(config: &NodeConfig, data_port: u16) -> Reach {
        let coordinators = config.coordinators.iter().flat_map(|c| c.control.iter());
        Reach {
            node: config.node,
            listen: config.listen.address,
            data_port,
            far: coordinators
                .filter_map(|address| address.parse().ok())
                .find_map(|address: Multiaddr| ip_of(&address)),
        }
    }

    /// This machine's addresses, given where the control plane listens; loopback ones only if there
    /// is nothing else.
    pub fn addresses(&self, listening: &[Multiaddr]) -> Vec<IpAddr> {
        if !self.listen.is_unspecified() {
            return vec![self.listen];
        }
        let mut all: Vec<_> = listening.iter().filter_map(ip_of).collect();
        all.sort_unstable();
        all.dedup();
        let outward: Vec<_> = all.iter().copied().filter(|a| !a.is_loopback()).collect();
        if outward.is_empty() { all } else { outward }
    }

    /// What to tell others.
    pub fn contact(&self, listening: &[Multiaddr]) -> Contact {
        let reachable = self.addresses(listening);
        let control = listening
            .iter()
            .filter(|address| ip_of(address).is_some_and(|ip| reachable.contains(&ip)))
            .map(Multiaddr::to_string)
            .collect();
        let outward = self.facing().filter(|ip| reachable.contains(ip));
        Contact {
            node: self.node,
            control,
            data: outward
                .or(reachable.first().copied())
                .map(|ip| SocketAddr::new(ip, self.data_port)),
        }
    }

    /// The address that this machine would speak to the coordinator from. Sends nothing.
    fn facing(&self) -> Option<IpAddr> {
        let socket = UdpSocket::bind((self.listen, 0)).ok()?;
        socket.connect((self.far?, 9)).ok()?;
        socket.local_addr().ok().map(|a| a.ip())
    }
}

fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(listen: &str, far: &str) -> Reach {
        Reach {
            node: protocol::fixtures::node(1),
            listen: listen.parse().unwrap(),
            data_port: 9,
            far: far.parse().ok(),
        }
    }

    #[test]
    fn a_machine_tells_the_address_that_others_can_use() {
        let at = |text: &str| text.parse::<Multiaddr>().unwrap();
        let listening = [
            at("/ip4/127.0.0.1/udp/7/quic-v1"),
            at("/ip4/10.0.0.4/udp/7/quic-v1"),
            at("/ip4/10.0.0.4/tcp/7"),
        ];
        let contact = reach("0.0.0.0", "192.0.2.1").contact(&listening);
        assert_eq!(
            &*contact.control,
            ["/ip4/10.0.0.4/udp/7/quic-v1", "/ip4/10.0.0.4/tcp/7"]
        );
        assert_eq!(contact.data, Some("10.0.0.4:9".parse().unwrap()));
        let alone = reach("0.0.0.0", "127.0.0.1").contact(&listening[..1]);
        assert_eq!(&*alone.control, ["/ip4/127.0.0.1/udp/7/quic-v1"]);
        assert_eq!(alone.data, Some("127.0.0.1:9".parse().unwrap()));
        let bound = reach("127.3.0.1", "127.0.0.1").addresses(&listening);
        assert_eq!(bound, vec!["127.3.0.1".parse::<IpAddr>().unwrap()]);
    }
}
