//! The node's brain: swarm scheduling, order keeping, install state machine, reporting.
//!
//! Pure: no I/O, no clock, no unseeded randomness. [`Brain`] is driven through [`contract`]: the body
//! hands in [`Event`]s with [`protocol::Now`], carries out each [`Action`] in the order in which it
//! comes, and calls back when [`Brain::poll_timeout`] says so.

mod brain;
pub mod contract;
pub mod swarm;

pub use brain::Brain;
pub use contract::{Action, Config, Event, Memory, Record, RecordKey, Ticket};
