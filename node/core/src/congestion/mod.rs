//! How fast a sender may go when a link is not ours alone.
//!
//! Inside a site transfers take their fair share of the LAN, as any other traffic does. Over a WAN they
//! go behind everybody else: [`Background`] sends only what would not make others wait (LEDBAT++:
//! draft-irtf-iccrg-ledbat-plus-plus; RFC 6817; RFC 9840), unless there is an emergency, when they
//! compete fairly. [`Link::between`] and [`Link::manner`] are that choice.
//!
//! What is not here: the fair controller (QUIC's own Cubic, RFC 9438), and how acknowledgements and
//! losses are seen. The body has those.

mod background;
mod delay;
mod losses;
#[cfg(test)]
mod tests;

use core::net::IpAddr;

use protocol::SiteId;
use protocol::wire::Class;

pub use background::Background;

/// Microseconds: on a clock that does not go back, and between two of its moments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Micros {
        Micros(ms.saturating_mul(1_000))
    }

    /// From `earlier` to `self`; none if `earlier` is later.
    pub const fn since(self, earlier: Micros) -> Option<Micros> {
        match self.0.checked_sub(earlier.0) {
            Some(micros) => Some(Micros(micros)),
            None => None,
        }
    }
}

impl core::ops::Add for Micros {
    type Output = Micros;
    fn add(self, other: Micros) -> Micros {
        Micros(self.0.saturating_add(other.0))
    }
}

impl core::ops::Mul<u64> for Micros {
    type Output = Micros;
    fn mul(self, times: u64) -> Micros {
        Micros(self.0.saturating_mul(times))
    }
}

/// How a sender shares a link with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// Takes as much as any other flow.
    Fair,
    /// Takes what nobody else wants.
    Background,
}

/// One end of a connection: its address, and the site that the topology finds for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End<'a> {
    /// Its address.
    pub address: IpAddr,
    /// The site of that address.
    pub site: Option<&'a SiteId>,
}

/// What lies between two nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// A LAN, or nothing.
    Near,
    /// A WAN, or what nobody knows.
    Far,
}

impl Link {
    /// What lies between two ends. Nodes of one site are near each other, and so are those on one
    /// machine, whatever sites its loopback addresses play: what delays a packet there is the processor,
    /// and nobody is helped by waiting. All others are taken to be far, as is who is in no site: a laptop
    /// somewhere, or the origin.
    pub fn between(one: End<'_>, other: End<'_>) -> Link {
        let [a, b] = [one, other].map(|end| end.address.to_canonical());
        let machine = a == b || (a.is_loopback() && b.is_loopback());
        let site = one.site.is_some() && one.site == other.site;
        if machine || site {
            Link::Near
        } else {
            Link::Far
        }
    }

    /// How to send over it while `most_urgent` is the most urgent request under way.
    pub fn manner(self, most_urgent: Option<Class>) -> Manner {
        match (self, most_urgent) {
            (Link::Near, _) | (Link::Far, Some(Class::Emergency)) => Manner::Fair,
            (Link::Far, _) => Manner::Background,
        }
    }
}
