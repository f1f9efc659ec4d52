//! Pieces from other sites: the origin refers, the piece comes from there, and the origin hears of it.

use protocol::limits::{EXPECT_WINDOW, SPURNED_MAX};
use protocol::wire::{Notice, Referral};
use protocol::{BlobRef, NodeId, Now, Time};

use super::Swarm;
use super::blob::Blob;
use super::desk::{Desk, Launch};
use super::flights::Flight;
use crate::contract::{Action, FetchOutcome, FetchReason, Ticket};

impl Swarm {
    /// Whether the site gives to others and takes from them, as the origins say.
    pub fn set_relay(&mut self, now: Now, relay: bool) {
        if self.desk.site.relay != relay {
            self.desk.site.relay = relay;
            self.look_anew();
            self.pass(now.boot);
        }
    }

    /// The origin refers this node to another site's: it is asked in the origin's stead. The piece stays
    /// in this node's hand. A holder that cannot be asked is as good as one that failed.
    pub(super) fn referred(&mut self, now: Time, ticket: Ticket, referral: Referral) {
        let Some(flight) = self.desk.flights.remove(ticket) else {
            return;
        };
        let desk = &mut self.desk;
        desk.room_made = true;
        let Some(blob) = self.blobs.get_mut(&flight.blob) else {
            return;
        };
        if flight.cancelled {
            return blob.lands(desk, flight.piece);
        }
        let asked = flight.wan && flight.by.is_none() && desk.site.relay;
        let nodes: Vec<NodeId> = referral.holders.iter().map(|h| h.node).collect();
        let (me, members) = (desk.me(), &desk.site.members);
        let fits = |node: &NodeId| *node != me && !members.contains_key(node);
        let holder = referral
            .holders
            .into_iter()
            .filter(|holder| holder.data.is_some() && fits(&holder.node))
            .find(|holder| !desk.trouble.is_banned(now, &holder.node));
        let Some(holder) = holder.filter(|_| asked) else {
            blob.owners.let_go(flight.piece);
            blob.lands(desk, flight.piece);
            nodes
                .into_iter()
                .for_each(|node| spurn(blob, flight.piece, node));
            blob.turns.wan.due = true;
            return;
        };
        let rate = match (desk.site.cap, referral.max_bytes_per_s) {
            (None, rate) => rate,
            (Some(cap), 0) => cap.max(1),
            (Some(cap), rate) => rate.min(cap.max(1)),
        };
        let class = blob.class();
        desk.launch(
            now,
            Launch {
                blob: flight.blob,
                class,
                piece: flight.piece,
                from: holder,
                wan: true,
                reason: FetchReason::Sibling,
                rate,
                by: Some(flight.from),
                spurned: Vec::new(),
            },
        );
    }
}

/// A fetch from another site ended.
pub(super) fn ended(blob: &mut Blob, flight: &Flight, outcome: FetchOutcome) {
    match outcome {
        FetchOutcome::Complete | FetchOutcome::Cancelled | FetchOutcome::Storage => {}
        FetchOutcome::NotHeld
        | FetchOutcome::Busy
        | FetchOutcome::Slow
        | FetchOutcome::Broken
        | FetchOutcome::Poisoned => spurn(blob, flight.piece, flight.from),
    }
}

/// The origin is to know it when it is asked again.
fn spurn(blob: &mut Blob, piece: u32, node: NodeId) {
    if blob.spurned.len() >= EXPECT_WINDOW && !blob.spurned.contains_key(&piece) {
        blob.spurned.pop_first();
    }
    let spurned = blob.spurned.entry(piece).or_default();
    if !spurned.contains(&node) && spurned.len() < SPURNED_MAX {
        spurned.push(node);
    }
}

/// What came over the WAN can be given to other sites: the origin that has to do with it hears of it.
pub(super) fn tell_origin(desk: &mut Desk, blob: BlobRef, flight: &Flight) {
    if !desk.site.relay {
        return;
    }
    let origin = flight.by.unwrap_or(flight.from);
    let to = desk.site.origins.iter().find(|o| o.node == origin).cloned();
    if let Some(to) = to {
        let pieces = vec![flight.piece];
        let notice = Notice::Won { blob, pieces };
        desk.act(Action::Notify { to, notice });
    }
}
