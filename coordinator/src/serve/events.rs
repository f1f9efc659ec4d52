//! The live view: a bounded log of typed events that clients may wait on.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::Time;
use protocol::limits;
use tokio::sync::watch;

use crate::api::messages::{EventLine, Events};

/// The log.
pub struct EventLog {
    lines: Mutex<VecDeque<EventLine>>,
    last: watch::Sender<u64>,
}

impl EventLog {
    /// An empty log.
    pub fn new() -> EventLog {
        EventLog {
            lines: Mutex::new(VecDeque::new()),
            last: watch::Sender::new(0),
        }
    }

    /// Adds an event, and tells the operator's log.
    pub fn note(&self, time: Time, event: &str, line: &str) {
        tracing::info!(event, "{line}");
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let n = *self.last.borrow() + 1;
        if lines.len() == limits::EVENTS_KEPT_MAX {
            lines.pop_front();
        }
        lines.push_back(EventLine {
            n,
            time,
            event: event.to_owned(),
            line: line.to_owned(),
        });
        self.last.send_replace(n);
    }

    /// Events after number `after`; waits up to `wait` for the first.
    pub async fn after(&self, after: u64, wait: Duration) -> Events {
        let mut last = self.last.subscribe();
        // Time running out is no failure: the answer is just empty.
        let _ = tokio::time::timeout(wait, last.wait_for(|n| *n > after)).await;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let events: Vec<_> = lines
            .iter()
            .filter(|line| line.n > after)
            .take(limits::EVENTS_TOLD_MAX)
            .cloned()
            .collect();
        // A server that was restarted counts from 1 again.
        let next = events
            .last()
            .map_or_else(|| after.min(*self.last.borrow()), |line| line.n);
        Events { events, next }
    }
}

impl Default for EventLog {
    fn default() -> EventLog {
        EventLog::new()
    }
}
