//! The conductor's brain: plans, wave engine, gates, fleet view.
//!
//! Pure: no I/O, no clock, no randomness of its own. [`Conductor`] is driven through [`contract`]:
//! the body hands in [`Event`]s with [`protocol::Now`], carries out each [`Action`] in order, and
//! calls back when [`Conductor::poll_timeout`] says so. Everything that it knows it can rebuild from
//! the [`LedgerEvent`]s that it asked to be appended.

mod assess;
mod bulletin;
mod by_hand;
mod closure;
mod commands;
pub mod conductor;
pub mod contract;
mod daily;
pub mod endings;
pub mod engine;
mod evidence;
mod feeds;
mod fleet;
mod fold;
pub mod forecast;
mod foreign;
mod gate;
mod guides;
mod moves;
mod orders;
mod pool;
mod preemption;
mod presence;
pub mod presets;
mod regain;
mod register;
mod reports;
mod resolve;
pub mod review;
mod rollout;
mod roster;
mod sequential;
mod stopping;
mod tally;
pub mod timeframes;
mod view;
mod views;
mod window;
mod witnesses;

pub use conductor::Conductor;
pub use contract::{Action, Answer, Command, CommandError, Config, Event, LedgerEvent, Ticket};
