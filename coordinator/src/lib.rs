//! The coordinator's body and the operator's command line.
//!
//! [`ledger`] keeps what happened, [`serve`] runs the conductor's brain behind sockets, [`api`] is
//! what operators talk to, [`cli`] is how they do.

pub mod api;
pub mod cli;
pub mod ledger;
pub mod serve;
