//! Checkers: apart from the cores and from the workload, they look at what happens and know only the
//! rules that may never be broken.
//!
//! Each rule has a module of its own that knows nothing of the others. [`watch`] looks at the machines
//! of one part of the world, [`audit`] at the coordinator, and both look back when the world has ended;
//! what they find comes together in [`findings`].

pub mod audit;
pub mod bans;
pub mod counts;
pub mod findings;
pub mod gates;
pub mod halts;
pub mod hours;
pub mod leases;
pub mod limits;
pub mod liveness;
pub mod rates;
pub mod verified;
pub mod watch;
pub mod waves;
