//! The node's body: it carries out what [`node_core`]'s brain decides, on real sockets and disks.
//!
//! [`content`] cuts and unpacks releases, [`store`] keeps blobs and records, [`net`] talks to peers,
//! [`install`] takes the steps of an installation, [`driver`] ties them to the brain, [`run`] brings
//! a node up and down, [`enroll`] makes a machine a node, [`renew`] keeps its
//! certificate alive, [`foreign`] reports a machine that is no node, [`handover`] splits the node into one
//! process that talks and one that installs, [`copies`] tells a directory that was copied from the node that
//! it was.

pub mod cli;
pub mod config;
pub mod content;
pub mod copies;
#[cfg(test)]
mod crashes;
mod disk;
pub mod driver;
pub mod enroll;
pub mod facts;
pub mod foreign;
pub mod handover;
pub mod install;
pub mod inventory;
mod machine;
pub mod net;
pub mod reach;
pub mod renew;
pub mod run;
pub mod store;

#[cfg(test)]
#[path = "../../protocol/tests/support/golden.rs"]
mod golden;
