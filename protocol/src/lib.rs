//! The words of Tidegate: everything that crosses a wire or a disk, and the pure rules over it.
//!
//! Nothing here does I/O, reads a clock or draws randomness. A journey through the house starts in
//! [`manifest`] (what a release is), goes through [`plan`] and [`orders`] (who may install it and
//! when) to [`status`] (what came of it) and [`feed`] (how that travels upward); [`envelope`] and [`trust`] say who may claim any of that,
//! [`blob`], [`pieces`], [`index`] and [`carrier`] how its bytes are cut and verified, and [`wire`]
//! how nodes talk.

pub mod audit;
pub mod blob;
pub mod carrier;
pub mod constraints;
pub mod delegations;
pub mod enroll;
pub mod envelope;
pub mod feed;
pub mod filter;
#[cfg(any(test, feature = "fixtures"))]
pub mod fixtures;
pub mod foreign;
pub mod hours;
pub mod ids;
pub mod index;
pub mod inventory;
pub mod lift;
pub mod limits;
pub mod manifest;
pub mod merkle;
pub mod orders;
pub mod pieces;
pub mod plan;
pub mod positions;
pub mod relations;
pub mod revocation;
pub mod schedule;
pub mod slots;
pub mod status;
pub mod strangers;
pub mod terse;
pub mod time;
pub mod topology;
pub mod trust;
pub mod versioned;
pub mod wire;
pub mod witness;
pub mod zones;

pub use blob::BlobRef;
pub use ids::{FleetId, Hash, NodeId, PublicKey, RolloutId, Seq, SiteId};
pub use time::{Now, Span, Time};
pub use trust::Verified;
