//! The coordinator's body and the operator's command line.
//!
//! [`init`] makes a fleet, [`keys`] keeps what signs for it, [`directory`] says where everything
//! lies, [`mod@backup`] copies it and brings it back. [`ledger`] keeps what happened, [`serve`] runs the conductor's brain behind sockets, [`api`]
//! is what operators talk to, [`cli`] is how they do.

pub mod api;
pub mod backup;
pub mod cli;
pub mod directory;
pub mod init;
pub mod keys;
pub mod ledger;
pub mod serve;
pub mod signing;
