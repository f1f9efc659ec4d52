//! DSCP marks (RFC 2474) on what the UDP socket sends: the mark of the most urgent class that is under way
//! with the address it goes to, because QUIC puts streams of several classes into one packet.
//!
//! quinn writes the ECN bits of every packet and zeroes beside them, so marked packets are sent from here,
//! with the same segmentation offload. That is Linux's way; elsewhere, and where the system refuses, packets
//! leave unmarked, and the log says so once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use node_core::turns::CLASSES;
use protocol::wire::Class;
use quinn::udp::Transmit;
use serde::{Deserialize, Serialize};
use socket2::Socket;

/// The largest code point.
const DSCP_MAX: u8 = 63;

/// The DSCP of each class; 0 leaves packets as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dscp {
    /// Staging ahead of its time.
    pub background: u8,
    /// What a wave waits for.
    pub normal: u8,
    /// What cannot wait.
    pub emergency: u8,
}

impl Dscp {
    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        *self == Dscp::default()
    }

    /// # Errors
    /// Which code point is none.
    pub fn check(&self) -> Result<(), String> {
        match CLASSES.iter().map(|class| self.of(*class)).max() {
            Some(most) if most > DSCP_MAX => Err(format!("dscp {most} is above {DSCP_MAX}")),
            _ => Ok(()),
        }
    }

    pub(super) fn of(&self, class: Class) -> u8 {
        match class {
            Class::Background => self.background,
            Class::Normal => self.normal,
            Class::Emergency => self.emergency,
        }
    }
}

/// What is under way with whom, and the socket that marks it.
#[derive(Debug)]
pub(super) struct Marks {
    dscp: Dscp,
    socket: Option<Socket>,
    refused: AtomicBool,
    under_way: Mutex<HashMap<SocketAddr, [u32; CLASSES.len()]>>,
}

/// Something of a class is under way with an address until this is dropped.
#[derive(Debug)]
pub(super) struct Marked {
    marks: Arc<Marks>,
    address: SocketAddr,
    class: Class,
}

impl Marks {
    /// Marks what `socket` sends.
    pub(super) fn new(dscp: Dscp, socket: &std::net::UdpSocket) -> Marks {
        let wanted = !dscp.is_empty();
        let socket = if wanted {
            socket.try_clone().ok().map(Socket::from)
        } else {
            None
        };
        let marks = Marks {
            dscp,
            socket: socket.filter(|_| control::KNOWN),
            refused: AtomicBool::new(false),
            under_way: Mutex::default(),
        };
        if wanted && marks.socket.is_none() {
            tracing::warn!(
                "this system does not let packets be marked one by one: the dscp of node.json has no effect"
            );
        }
        marks
    }

    /// Something of a class is under way with an address.
    pub(super) fn begin(self: &Arc<Self>, address: SocketAddr, class: Class) -> Option<Marked> {
        self.socket.as_ref()?;
        self.counts().entry(address).or_default()[class as usize] += 1;
        Some(Marked {
            marks: self.clone(),
            address,
            class,
        })
    }

    /// Sends a packet marked. False: it was not sent, and is to leave as ever.
    pub(super) fn send(&self, transmit: &Transmit<'_>) -> bool {
        let Some(socket) = self.socket.as_ref() else {
            return false;
        };
        let dscp = self.of(transmit.destination);
        if dscp == 0 || self.refused.load(Ordering::Relaxed) {
            return false;
        }
        match control::send(socket, transmit, dscp) {
            Ok(()) => true,
            // The usual way meets the same and knows how to wait.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => false,
            Err(error) => {
                if control::is_refusal(&error) && !self.refused.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the system refuses marked packets: the dscp of node.json has no effect");
                }
                false
            }
        }
    }

    fn of(&self, address: SocketAddr) -> u8 {
        let counts = self.counts();
        let Some(counts) = counts.get(&address) else {
            return 0;
        };
        let urgent = CLASSES
            .iter()
            .rev()
            .find(|class| counts[**class as usize] > 0);
        urgent.map_or(0, |class| self.dscp.of(*class))
    }

    /// Bounded by what is served and fetched at the same time.
    fn counts(&self) -> MutexGuard<'_, HashMap<SocketAddr, [u32; CLASSES.len()]>> {
        self.under_way.lock().expect("no panic under this lock")
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        let mut counts = self.marks.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            count[self.class as usize] = count[self.class as usize].saturating_sub(1);
            if *count == [0; CLASSES.len()] {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod control {
    use std::io;

    use quinn::udp::Transmit;
    use socket2::Socket;

    pub(super) const KNOWN: bool = false;

    pub(super) fn send(_: &Socket, _: &Transmit<'_>, _: u8) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn is_refusal(_: &io::Error) -> bool {
        true
    }
}

/// Control messages as Linux lays them out: length, level, type, then the value, padded to a word
/// (cmsg(3), ip(7), ipv6(7), udp(7)).
#[cfg(target_os = "linux")]
mod control {
    use std::io::{self, IoSlice};
    use std::net::IpAddr;

    use quinn::udp::Transmit;
    use socket2::{MsgHdr, SockAddr, Socket};

    pub(super) const KNOWN: bool = true;

    const IPPROTO_IP: i32 = 0;
    const IP_TOS: i32 = 1;
    const IP_PKTINFO: i32 = 8;
    const IPPROTO_IPV6: i32 = 41;
    const IPV6_PKTINFO: i32 = 50;
    const IPV6_TCLASS: i32 = 67;
    const SOL_UDP: i32 = 17;
    const UDP_SEGMENT: i32 = 103;

    const WORD: usize = size_of::<usize>();
    const HEAD: usize = WORD + 2 * size_of::<i32>();
    /// Room for three: the largest value is an IPv6 address with an interface.
    const CONTROL_BYTES: usize = 3 * (HEAD + 24);

    struct Control {
        bytes: [u8; CONTROL_BYTES],
        filled: usize,
    }

    impl Control {
        fn push(&mut self, level: i32, kind: i32, value: &[u8]) {
            let length = HEAD + value.len();
            let parts = [
                &length.to_ne_bytes()[..],
                &level.to_ne_bytes(),
                &kind.to_ne_bytes(),
                value,
            ];
            let mut at = self.filled;
            for part in parts {
                self.bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            self.filled += length.next_multiple_of(WORD);
        }
    }

    pub(super) fn send(socket: &Socket, transmit: &Transmit<'_>, dscp: u8) -> io::Result<()> {
        let mut control = Control {
            bytes: [0; CONTROL_BYTES],
            filled: 0,
        };
        let ecn = transmit.ecn.map_or(0, |ecn| ecn as u8);
        let class = i32::from(dscp << 2 | ecn).to_ne_bytes();
        match transmit.destination.ip().to_canonical() {
            IpAddr::V4(_) => control.push(IPPROTO_IP, IP_TOS, &class),
            IpAddr::V6(_) => control.push(IPPROTO_IPV6, IPV6_TCLASS, &class),
        }
        let whole = transmit.contents.len();
        if let Some(segment) = transmit.segment_size.filter(|segment| *segment < whole) {
            let segment = u16::try_from(segment).map_err(|_| io::ErrorKind::InvalidInput)?;
            control.push(SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
        }
        match transmit.src_ip {
            Some(IpAddr::V4(from)) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                control.push(IPPROTO_IP, IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(from)) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                control.push(IPPROTO_IPV6, IPV6_PKTINFO, &info);
            }
            None => {}
        }
        let to = SockAddr::from(transmit.destination);
        let buffers = [IoSlice::new(transmit.contents)];
        let message = MsgHdr::new()
            .with_addr(&to)
            .with_buffers(&buffers)
            .with_control(&control.bytes[..control.filled]);
        socket.sendmsg(&message, 0).map(drop)
    }

    /// Whether it is about the mark, or the system at large, and not about this packet.
    pub(super) fn is_refusal(error: &io::Error) -> bool {
        use io::ErrorKind as E;
        matches!(
            error.kind(),
            E::PermissionDenied | E::Unsupported | E::InvalidInput
        )
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Read;
    use std::net::UdpSocket;
    use std::time::Duration;

    use quinn::udp::EcnCodepoint;
    use socket2::{Domain, Protocol, Type};

    use super::*;

    const DSCP: Dscp = Dscp {
        background: 1,
        normal: 0,
        emergency: 18,
    };

    fn pair(dscp: Dscp) -> (Arc<Marks>, UdpSocket, SocketAddr) {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let to = receiver.local_addr().unwrap();
        (Arc::new(Marks::new(dscp, &sender)), receiver, to)
    }

    fn packet(to: SocketAddr, contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        Transmit {
            destination: to,
            ecn: Some(EcnCodepoint::Ect0),
            contents,
            segment_size,
            src_ip: Some(to.ip()),
        }
    }

    #[test]
    fn marked_packets_arrive_whole_also_by_segments() {
        let (marks, receiver, to) = pair(DSCP);
        let contents = [7; 2_500];
        assert!(
            !marks.send(&packet(to, &contents, None)),
            "nothing is under way"
        );
        let staging = marks.begin(to, Class::Background);
        assert!(marks.send(&packet(to, &contents, Some(1_000))));
        assert!(marks.send(&packet(to, &contents[..10], None)));
        let mut bytes = [0; 4_096];
        let lengths: Vec<usize> = (0..4).map(|_| receiver.recv(&mut bytes).unwrap()).collect();
        assert_eq!(lengths, [1_000, 1_000, 500, 10]);
        drop(staging);
        assert!(!marks.send(&packet(to, &contents, None)));
        assert!(marks.counts().is_empty());
    }

    #[test]
    fn the_most_urgent_class_under_way_gives_the_mark() {
        let (marks, _receiver, to) = pair(DSCP);
        let other: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let staging = marks.begin(to, Class::Background);
        assert_eq!((marks.of(to), marks.of(other)), (1, 0));
        let urgent = marks.begin(to, Class::Emergency);
        assert_eq!(marks.of(to), 18);
        drop(staging);
        assert_eq!(marks.of(to), 18);
        drop(urgent);
        assert_eq!(marks.of(to), 0);
        let normal = marks.begin(to, Class::Normal);
        assert_eq!(marks.of(to), 0);
        drop(normal);
        let nothing = pair(Dscp::default()).0;
        assert!(nothing.begin(to, Class::Emergency).is_none());
    }

    /// Only a raw socket sees the header, and only root has one; others leave it to the lab.
    #[test]
    fn the_mark_stands_in_the_header_beside_the_congestion_bits() {
        let Ok(mut raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) else {
            return;
        };
        raw.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (marks, _receiver, to) = pair(DSCP);
        let _urgent = marks.begin(to, Class::Emergency);
        assert!(marks.send(&packet(to, &[1; 64], None)));
        let mut bytes = [0; 4_096];
        let header = loop {
            let length = raw.read(&mut bytes).unwrap();
            let port = u16::from_be_bytes([bytes[22], bytes[23]]);
            if length == 20 + 8 + 64 && port == to.port() {
                break &bytes[..20];
            }
        };
        assert_eq!(header[1], 18 << 2 | 0b10);
    }

    #[test]
    fn code_points_have_six_bits() {
        let most = Dscp { normal: 63, ..DSCP };
        assert_eq!(most.check(), Ok(()));
        assert!(Dscp { normal: 64, ..DSCP }.check().is_err());
    }
}
