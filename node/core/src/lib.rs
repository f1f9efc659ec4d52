//! The node's brain: swarm scheduling, order keeping, install state machine, reporting.
//!
//! Pure: no I/O, no clock, no unseeded randomness. [`Brain`] is driven through [`contract`]: the body
//! hands in [`Event`]s with [`protocol::Now`], carries out each [`Action`] in the order in which it
//! comes, and calls back when [`Brain::poll_timeout`] says so.

mod assess;
mod brain;
mod budget;
pub mod congestion;
pub mod contract;
mod counters;
pub mod guard;
mod guests;
pub mod handover;
mod install;
mod installed;
mod inventory;
mod lease;
mod library;
mod membership;
mod offers;
mod orders;
mod outbox;
mod precedence;
mod pulls;
mod referrals;
mod relations;
mod relay;
pub mod renewal;
mod report;
pub mod revocations;
mod rollout;
mod rollouts;
mod slots;
mod strangers;
pub mod swarm;
mod task;
#[cfg(test)]
mod tests;
pub mod transport;
pub mod turns;
mod uplink;
mod witness;

pub use brain::Brain;
pub use contract::{Action, Config, Event, Memory, Record, RecordKey, Ticket};
