//! What crosses the wall between the node's brain and its body.
//!
//! Rules of the wall:
//! - Actions are performed in the order in which they are polled. [`Action::Remember`] and
//!   [`Action::Forget`] are durable before the action after them is begun.
//! - Every action that carries a [`Ticket`] is answered by exactly one event with that ticket, even
//!   when it was cancelled or failed. After a restart of the process no old ticket is answered.
//! - Bytes never cross. What the body fetched it has verified against the blob's name and written
//!   before it says so; what it hands in as a statement is [`protocol::Verified`].
//! - A completed step of an installation is idempotent: after a crash the brain asks for the same
//!   step again and the body finds out what is already done.

mod action;
mod config;
mod event;
mod record;
mod standing;

pub use action::{Action, Door, FetchReason, Service, Step, Warrant};
pub use config::{Config, Grain, NodeRole, Tempo, Ticket};
pub use event::{Event, FetchOutcome, FrameMap, FrameOutcome, OnDisk, StepOutcome, Wanted, Wish};
pub use record::{
    Boundary, CountersRecord, Failure, FailureClass, InstalledRecord, JournalMore, JournalRecord,
    LeaseRecord, Memory, OfferRecord, PeersRecord, Record, RecordKey, StatusRecord,
};
pub use standing::{Snapshot, Standing};

pub use crate::pulls::Trips;
pub use crate::strangers::Visit;
