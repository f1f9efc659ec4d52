//! The feed between a delegate and the coordinator: statuses up, orders and receipts down.

use protocol::limits::{RECEIPT_MARKS_MAX, UPLINK_STATUSES_MAX};
use protocol::status::NodeStatus;
use protocol::wire::{Contact, ControlReply, ControlRequest, Presence};
use protocol::{NodeId, Now, Seq, Span, Time};

use crate::contract::{Action, Tempo, Ticket};
use crate::outbox::Outbox;
use crate::report::Reports;

/// The longest pause before an unreachable coordinator is tried again.
const BACKOFF_MAX: Span = Span::from_secs(5);

const _: () = assert!(RECEIPT_MARKS_MAX <= UPLINK_STATUSES_MAX);

/// The uplink of one node. It asks at its tempo, at once if more statuses wait, and with growing
/// pauses while nobody answers.
pub(crate) struct Uplink {
    tempo: Tempo,
    asked: Option<Asked>,
    next: Time,
    failures: u32,
}

/// What a node says of itself and its site when it calls the coordinator.
pub(crate) struct Call {
    /// Who calls.
    pub(crate) me: Presence,
    /// The site's members in its view, itself included.
    pub(crate) members: Vec<NodeId>,
    /// Orders are asked for after this.
    pub(crate) after: Seq,
}

/// An exchange under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    ticket: Ticket,
    /// Whom.
    pub(crate) to: NodeId,
    at: Time,
    /// Orders were asked for after this.
    pub(crate) after: Seq,
}

impl Uplink {
    /// Nothing asked yet.
    pub(crate) fn new(tempo: Tempo) -> Uplink {
        Uplink {
            tempo,
            asked: None,
            next: Time(0),
            failures: 0,
        }
    }

    /// Whether it is time to ask.
    pub(crate) fn due(&self, now: Now) -> bool {
        self.asked.is_none() && self.next <= now.boot
    }

    /// When it is time to ask; `None` while an exchange is under way.
    pub(crate) fn timeout(&self) -> Option<Time> {
        self.asked.is_none().then_some(self.next)
    }

    /// Whether the coordinator did not answer the last time.
    pub(crate) fn is_down(&self) -> bool {
        self.failures > 0
    }

    /// Asks the coordinator.
    pub(crate) fn ask(
        &mut self,
        now: Now,
        call: Call,
        coordinators: &[Contact],
        reports: &mut Reports,
        out: &mut Outbox,
    ) {
        let turn = self.failures as usize % coordinators.len().max(1);
        let Some(to) = coordinators.get(turn).cloned() else {
            self.next = Time(now.boot.0 + BACKOFF_MAX.0);
            return;
        };
        // What goes up in one exchange is what one receipt can acknowledge by gossip.
        let own_statuses: Vec<NodeStatus> = reports.own_open(RECEIPT_MARKS_MAX);
        let statuses = reports.offer(RECEIPT_MARKS_MAX - own_statuses.len(), now);
        let Call { me, members, after } = call;
        let ticket = out.ticket();
        self.asked = Some(Asked {
            ticket,
            to: to.node,
            at: now.boot,
            after,
        });
        let request = ControlRequest::Uplink {
            me,
            members,
            statuses,
            after,
        };
        out.push(Action::Ask {
            ticket,
            to,
            request,
            own_statuses,
        });
    }

    /// An answer came, or will not come; the exchange if it was this uplink's.
    pub(crate) fn answered(
        &mut self,
        ticket: Ticket,
        reply: Option<&ControlReply>,
        more: bool,
        now: Now,
    ) -> Option<Asked> {
        let asked = self.asked.take_if(|asked| asked.ticket == ticket)?;
        if matches!(reply, Some(ControlReply::Uplink { .. })) {
            self.failures = 0;
            let pause = if more { Span::ZERO } else { self.tempo.uplink };
            self.next = Time(asked.at.0 + pause.0).max(now.boot);
        } else {
            self.failures += 1;
            let pause = self
                .tempo
                .uplink
                .0
                .saturating_mul(1 << self.failures.min(16));
            self.next = Time(now.boot.0 + pause.min(BACKOFF_MAX.0));
        }
        Some(asked)
    }

    /// Whether an exchange is under way.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// This node speaks with the coordinator from now on: it asks at once.
    pub(crate) fn begin(&mut self) {
        self.next = Time(0);
    }
}
