//! One test for each row of the list of attacks, its number in its name: the attack as its attacker
//! would make it, through real processes or the decoders that meet foreign bytes, and what the node
//! does. The README has the table.

// The rooms below name the crates as their own packages do.
extern crate coordinator_core as tidegate_coordinator_core;
extern crate protocol as tidegate_protocol;

#[path = "../../../coordinator/core/tests/support/mod.rs"]
mod bench;
mod closures;
mod content;
mod copies;
mod decoders;
mod delegations;
mod eavesdropper;
mod hostile;
mod ledger;
mod mutations;
mod online_key;
mod orders;
mod peers;
mod releases;
mod restore;
mod roots;
#[allow(dead_code, reason = "its own tests use the rest")]
#[path = "../../../protocol/tests/support/samples.rs"]
mod samples;
mod sluggard;
mod statements;
mod statuses;
mod strangers;
mod witnesses;
