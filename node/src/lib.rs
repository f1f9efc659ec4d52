//! The node's body: it carries out what [`node_core::Brain`] decides, on real sockets and disks.
//!
//! [`content`] cuts and unpacks releases, [`store`] keeps blobs and records, [`net`] talks to peers,
//! [`install`] takes the steps of an installation, [`driver`] ties them to the brain.

pub mod content;
pub mod driver;
pub mod enroll;
pub mod install;
pub mod net;
pub mod store;
