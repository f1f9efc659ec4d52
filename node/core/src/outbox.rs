//! What the brain has to say to the body, in order.

use std::collections::VecDeque;

use crate::contract::{Action, Record, RecordKey, Ticket};

/// Actions that wait to be polled, and the numbers of the questions among them.
#[derive(Default)]
pub(crate) struct Outbox {
    actions: VecDeque<Action>,
    next_ticket: u64,
}

/// Places that an empty queue keeps; what it once held beyond them is given back.
const PLACES_KEPT: usize = 8;

/// Takes the oldest of a queue. One that ran empty does not keep the room of its fullest moment.
pub(crate) fn next<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let oldest = queue.pop_front();
    if oldest.is_none() && queue.capacity() > PLACES_KEPT {
        *queue = VecDeque::new();
    }
    oldest
}

impl Outbox {
    /// Says `action` after everything that was said before.
    pub(crate) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// The oldest action that was not polled yet.
    pub(crate) fn pop(&mut self) -> Option<Action> {
        next(&mut self.actions)
    }

    /// A ticket never given before. The swarm's have their top bit set, these do not.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Makes `record` durable before whatever is pushed next.
    pub(crate) fn remember(&mut self, record: Record) {
        self.push(Action::Remember(Box::new(record)));
    }

    /// Drops a record durably before whatever is pushed next.
    pub(crate) fn forget(&mut self, key: RecordKey) {
        self.push(Action::Forget(key));
    }

    /// A typed event for the log.
    pub(crate) fn note(&mut self, event: &'static str, line: impl Into<String>) {
        self.push(Action::Note {
            event,
            line: line.into(),
        });
    }
}
