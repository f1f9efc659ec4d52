//! What all rooms of the swarm share: who is around, what is under way, what is to be said.

use std::collections::VecDeque;

use protocol::wire::{Claim, Class, Contact, Notice, SiteMessage};
use protocol::{BlobRef, NodeId, Time};

use super::Output;
use super::flights::{Flight, Flights};
use super::pick::tie;
use super::site::Site;
use super::trouble::Trouble;
use crate::contract::{Action, FetchReason, Grain, Tempo, Ticket};

/// Everything that does not belong to one blob or one release.
pub(super) struct Desk {
    pub tempo: Tempo,
    pub grain: Grain,
    pub site: Site,
    pub flights: Flights,
    pub trouble: Trouble,
    /// Somebody took a piece from this node, and it did not step back since.
    pub taken: bool,
    pub outputs: VecDeque<Output>,
    /// What a blob has or could have changed, so the releases are to be looked at.
    pub content_changed: bool,
    /// A fetch ended: there may be room for another.
    pub room_made: bool,
    ties: u64,
    tickets: u64,
    wake: Option<Time>,
}

/// A fetch to be begun.
pub(super) struct Launch {
    pub blob: BlobRef,
    pub class: Class,
    pub piece: u32,
    pub from: Contact,
    pub wan: bool,
    pub reason: FetchReason,
    pub rate: u64,
    /// The origin that referred this node, if it is no origin that is asked.
    pub by: Option<NodeId>,
    /// To these it referred in vain.
    pub spurned: Vec<NodeId>,
}

impl Desk {
    pub fn new(me: NodeId, tempo: Tempo, grain: Grain, seed: u64) -> Desk {
        Desk {
            tempo,
            grain,
            site: Site::new(me),
            flights: Flights::default(),
            trouble: Trouble::default(),
            taken: false,
            outputs: VecDeque::new(),
            content_changed: false,
            room_made: false,
            ties: seed,
            tickets: 0,
            wake: None,
        }
    }

    pub fn me(&self) -> NodeId {
        self.site.me
    }

    /// A ticket of the swarm: its top bit is set.
    pub fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(1 << 63 | self.tickets)
    }

    /// A number that breaks ties and spreads retries: another one after everything that this node
    /// began, so that looking once more changes nothing.
    pub fn draw(&self, purpose: u64) -> u64 {
        tie(self.ties ^ self.tickets.rotate_left(32), purpose)
    }

    pub fn act(&mut self, action: Action) {
        self.outputs.push_back(Output::Action(action));
    }

    /// Whoever waits for a time says so at every turn; the earliest counts.
    pub fn wake_at(&mut self, time: Time) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }

    /// The earliest of what was said since the last time.
    pub fn take_wake(&mut self) -> Option<Time> {
        self.wake.take()
    }

    pub fn launch(&mut self, now: Time, launch: Launch) {
        let Launch {
            blob,
            class,
            piece,
            from,
            wan,
            reason,
            rate,
            by,
            spurned,
        } = launch;
        let ticket = self.ticket();
        let node = from.node;
        let flight = Flight {
            blob,
            piece,
            from: node,
            wan,
            reason,
            rate,
            by,
            started: now,
            moved: now,
            brought: false,
            cancelled: false,
        };
        self.flights.insert(ticket, flight);
        self.act(Action::Fetch {
            ticket,
            from,
            blob,
            pieces: vec![piece],
            class,
            wan,
            reason,
            max_bytes_per_s: rate,
            spurned,
        });
    }

    /// Stops every fetch that `which` picks; each is still answered.
    pub fn cancel(&mut self, which: impl Fn(&Flight) -> bool) {
        let tickets: Vec<Ticket> = self
            .flights
            .iter()
            .filter(|(_, f)| !f.cancelled && which(f))
            .map(|(ticket, _)| ticket)
            .collect();
        for ticket in tickets {
            if let Some(flight) = self.flights.get_mut(ticket) {
                flight.cancelled = true;
            }
            self.act(Action::CancelFetch(ticket));
        }
    }

    /// Sends a notice to a member; nothing happens if it is none.
    pub fn notify(&mut self, to: &NodeId, notice: Notice) {
        if let Some(contact) = self.site.contact(to).cloned() {
            self.act(Action::Notify {
                to: contact,
                notice,
            });
        }
    }

    pub fn gossip_claim(&mut self, claim: Claim) {
        self.act(Action::Gossip(SiteMessage::Claim(claim)));
    }
}
