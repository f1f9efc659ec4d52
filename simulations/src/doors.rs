//! Where nodes of other parts knock: the brain of the machine that is asked says who serves them.

use std::collections::BTreeMap;

use node_core::contract::{Door, Event, FetchOutcome, Service, Ticket, Wanted};
use protocol::wire::Referral;
use protocol::{BlobRef, NodeId, Span};

use crate::island::{Happening, Island};
use crate::machine::NOTICED;
use crate::mail::{Asker, Mail};

/// Who waits is told so this often; less often than a node does it, and often enough.
const TOLD_EVERY: Span = Span::from_secs(10);

/// A request that the brain was told of.
struct Knock {
    asker: Asker,
    blob: BlobRef,
    pieces: Vec<u32>,
    /// The brain has not answered yet.
    waits: bool,
}

/// Requests of other parts that brains here know of, by machine and ticket.
#[derive(Default)]
pub(crate) struct Doors {
    knocks: BTreeMap<(usize, Ticket), Knock>,
    tickets: BTreeMap<(usize, Asker), Ticket>,
    count: u64,
}

impl Island {
    /// Someone of another part wishes to fetch from a machine here.
    pub(crate) fn knocks(
        &mut self,
        slot: usize,
        asker: Asker,
        blob: BlobRef,
        pieces: Vec<u32>,
        spurned: Vec<NodeId>,
    ) {
        let machine = &self.machines[slot];
        if machine.door == Door::Open || machine.brain.is_none() {
            return self.open_far(slot, asker, &blob, &pieces, 0);
        }
        self.doors.count += 1;
        let ticket = Ticket(self.doors.count);
        let wanted = Wanted {
            ticket,
            from: self.shared.contact(self.shared.number(asker.place)),
            site: self.shared.names[asker.place.part].clone(),
            blob,
            pieces: pieces.clone(),
            spurned,
        };
        let knock = Knock {
            asker,
            blob,
            pieces,
            waits: true,
        };
        self.doors.knocks.insert((slot, ticket), knock);
        self.doors.tickets.insert((slot, asker), ticket);
        self.tell(slot, Event::Wanted(Box::new(wanted)));
        let waits = self.doors.knocks.get(&(slot, ticket));
        if waits.is_some_and(|knock| knock.waits) {
            self.after(TOLD_EVERY, Happening::Waits(slot, ticket));
        }
    }

    /// The brain of a machine answers.
    pub(crate) fn serve_far(&mut self, slot: usize, ticket: Ticket, service: Service) {
        let knock = self.doors.knocks.get_mut(&(slot, ticket));
        let Some(knock) = knock.filter(|knock| knock.waits) else {
            return;
        };
        knock.waits = false;
        let asker = knock.asker;
        let refused = |outcome| Mail::Ended { asker, outcome };
        let answer = match service {
            Service::Send { max_bytes_per_s } => {
                let (blob, pieces) = (knock.blob, knock.pieces.clone());
                return self.open_far(slot, asker, &blob, &pieces, max_bytes_per_s);
            }
            Service::Refer(referral) => Mail::Referred {
                asker,
                referral: Box::new(referral),
            },
            Service::Busy => refused(FetchOutcome::Busy),
            Service::Refuse => refused(FetchOutcome::Broken),
        };
        self.forget_knock(slot, asker);
        self.send(asker.place.part, Span(1), answer);
    }

    pub(crate) fn still_waits(&mut self, slot: usize, ticket: Ticket) {
        let knock = self.doors.knocks.get(&(slot, ticket));
        if let Some(asker) = knock.filter(|k| k.waits).map(|k| k.asker) {
            self.send(asker.place.part, Span(0), Mail::Queued { asker });
            self.after(TOLD_EVERY, Happening::Waits(slot, ticket));
        }
    }

    /// Who asked is gone, or has what it asked for.
    pub(crate) fn goes(&mut self, slot: usize, asker: Asker) {
        if let Some(ticket) = self.forget_knock(slot, asker) {
            self.tell(slot, Event::Left(ticket));
        }
    }

    fn forget_knock(&mut self, slot: usize, asker: Asker) -> Option<Ticket> {
        let ticket = self.doors.tickets.remove(&(slot, asker))?;
        self.doors.knocks.remove(&(slot, ticket));
        Some(ticket)
    }

    /// A machine died: nobody waits there any more.
    pub(crate) fn shut_door(&mut self, slot: usize) {
        let here = self.doors.knocks.range((slot, Ticket(0))..);
        let here = here.take_while(|((s, _), _)| *s == slot);
        let here: Vec<(Asker, bool)> = here.map(|(_, k)| (k.asker, k.waits)).collect();
        for (asker, waits) in here {
            self.forget_knock(slot, asker);
            if waits {
                let outcome = FetchOutcome::Broken;
                self.send(asker.place.part, NOTICED, Mail::Ended { asker, outcome });
            }
        }
    }

    // ---- who asked -----------------------------------------------------------------------------

    /// Whoever asked stays in line.
    pub(crate) fn queued_far(&mut self, asker: Asker) {
        let (n, ticket) = (asker.place.slot, asker.ticket);
        let machine = &self.machines[n];
        if machine.is_process(asker.process) && machine.fetches.contains_key(&ticket) {
            self.tell(n, Event::FetchProgress { ticket, bytes: 0 });
        }
    }

    /// Whoever asked is sent to somebody else.
    pub(crate) fn referred_far(&mut self, asker: Asker, referral: Box<Referral>) {
        let (n, ticket) = (asker.place.slot, asker.ticket);
        let machine = &mut self.machines[n];
        if machine.is_process(asker.process) && machine.fetches.remove(&ticket).is_some() {
            self.tell(n, Event::FetchReferred { ticket, referral });
        }
    }
}
