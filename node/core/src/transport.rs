//! Over which transport a peer is asked.
//!
//! Inside a LAN TLS over TCP moves a byte for less processor time than QUIC does: the kernel segments,
//! acknowledges and keeps windows. Over a WAN QUIC carries the congestion controller that gives way to
//! others. Where a network lets only one of the two through, the other stands in, and [`Transports`]
//! remembers it, so that not every fetch finds out anew.
//!
//! What is not here: connecting, and what counts as having failed. The body has that.

use std::collections::BTreeMap;

use protocol::limits::{DETOUR_MAX, DETOUR_MIN, DETOURS_MAX};
use protocol::time::Span;
use protocol::{NodeId, Time};

use crate::congestion::Link;

/// What carries requests and their replies. Both are encrypted and admitted alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// QUIC over UDP.
    Quic,
    /// TLS over TCP.
    Tcp,
}

impl Transport {
    /// The one to turn to when this one does not get through.
    pub fn other(self) -> Transport {
        match self {
            Transport::Quic => Transport::Tcp,
            Transport::Tcp => Transport::Quic,
        }
    }

    /// The better one over a link.
    pub fn over(link: Link) -> Transport {
        match link {
            Link::Near => Transport::Tcp,
            Link::Far => Transport::Quic,
        }
    }
}

/// Which transports got through to whom.
#[derive(Debug, Default)]
pub struct Transports {
    detours: BTreeMap<NodeId, Detour>,
}

/// A peer that one transport does not reach and the other does.
#[derive(Clone, Copy, Debug)]
struct Detour {
    around: Transport,
    until: Time,
    pause: Span,
}

impl Transports {
    /// Which transport to try first; [`Transport::other`] is next if it does not get through.
    pub fn first(&self, now: Time, peer: &NodeId, link: Link) -> Transport {
        let better = Transport::over(link);
        match self.detours.get(peer) {
            Some(detour) if detour.around == better && now < detour.until => better.other(),
            _ => better,
        }
    }

    /// `transport` did not get through where the other one then did: it is left alone for
    /// [`DETOUR_MIN`], twice as long each time that it fails again, up to [`DETOUR_MAX`]. Of more than
    /// [`DETOURS_MAX`] peers the one whose turn to be tried again comes first is forgotten.
    pub fn went_around(&mut self, now: Time, peer: NodeId, transport: Transport) {
        let before = self.detours.get(&peer);
        let pause = match before.filter(|before| before.around == transport) {
            // Several fetches may have found it out together.
            Some(before) if now < before.until => return,
            Some(before) => Span(before.pause.0.saturating_mul(2)).min(DETOUR_MAX),
            None => DETOUR_MIN,
        };
        if before.is_none() && self.detours.len() >= DETOURS_MAX {
            let first = self.detours.iter().min_by_key(|(_, detour)| detour.until);
            if let Some(first) = first.map(|(peer, _)| *peer) {
                self.detours.remove(&first);
            }
        }
        let detour = Detour {
            around: transport,
            until: now + pause,
            pause,
        };
        self.detours.insert(peer, detour);
    }

    /// `transport` got through.
    pub fn worked(&mut self, peer: &NodeId, transport: Transport) {
        let detour = self.detours.get(peer);
        if detour.is_some_and(|detour| detour.around == transport) {
            self.detours.remove(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([7; 32]);

    #[test]
    fn a_lan_has_tcp_and_a_wan_quic() {
        let transports = Transports::default();
        let first = |link| transports.first(Time::from_secs(1), &PEER, link);
        assert_eq!(first(Link::Near), Transport::Tcp);
        assert_eq!(first(Link::Far), Transport::Quic);
    }

    #[test]
    fn what_is_blocked_is_tried_again_less_and_less_often() {
        for (link, blocked) in [(Link::Near, Transport::Tcp), (Link::Far, Transport::Quic)] {
            let mut transports = Transports::default();
            let mut now = Time::from_secs(1_000);
            let mut pause = DETOUR_MIN;
            for _ in 0..20 {
                assert_eq!(transports.first(now, &PEER, link), blocked);
                transports.went_around(now, PEER, blocked);
                // a second fetch that found out at the same time counts once
                transports.went_around(now, PEER, blocked);
                let last = Time(now.0 + pause.0 - 1);
                assert_eq!(transports.first(last, &PEER, link), blocked.other());
                now = now + pause;
                pause = Span(pause.0 * 2).min(DETOUR_MAX);
            }
            assert_eq!(pause, DETOUR_MAX);
            // once it gets through, all is forgotten
            transports.worked(&PEER, blocked);
            transports.went_around(now, PEER, blocked);
            assert_eq!(transports.first(now + DETOUR_MIN, &PEER, link), blocked);
        }
    }

    #[test]
    fn a_detour_is_of_one_peer_and_one_transport() {
        let mut transports = Transports::default();
        let now = Time::from_secs(5);
        transports.went_around(now, PEER, Transport::Tcp);
        let other = NodeId([8; 32]);
        assert_eq!(transports.first(now, &other, Link::Near), Transport::Tcp);
        assert_eq!(transports.first(now, &PEER, Link::Far), Transport::Quic);
        transports.worked(&PEER, Transport::Quic);
        assert_eq!(transports.first(now, &PEER, Link::Near), Transport::Quic);
    }

    #[test]
    fn of_too_many_the_first_to_be_tried_again_is_forgotten() {
        let mut transports = Transports::default();
        let peer = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            NodeId(id)
        };
        for n in 0..=DETOURS_MAX {
            transports.went_around(Time::from_secs(n as u64), peer(n), Transport::Tcp);
        }
        assert_eq!(transports.detours.len(), DETOURS_MAX);
        assert!(!transports.detours.contains_key(&peer(0)));
        assert!(transports.detours.contains_key(&peer(DETOURS_MAX)));
    }
}
