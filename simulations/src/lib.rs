//! The pretend world: the same two brains that the real bodies drive, in virtual time.
//!
//! [`scenario`] says what the world is like. [`world`] runs its parts side by side with a [`crew`], each as far as its [`reach`]:
//! each [`island`] is a site, or the data centre with the origin; the [`hub`] is the coordinator and
//! the operators; [`mail`] is what crosses from one to another. [`machine`] is a node's body and
//! [`desk`] the coordinator's, [`wires`] carry what they say and [`flows`] what they fetch, [`uplinks`]
//! share what sites take from far sources; [`faults`] are what goes wrong, [`story`] is what the
//! operators do. [`checks`] looks on and knows only the rules, [`measures`] counts, [`rehearsal`] holds forecasts
//! against what came; [`report`] and
//! [`plots`] tell. One seed draws everything, one stream for each purpose: the same seed gives the
//! same bytes.

pub mod bounds;
pub mod checks;
pub mod command;
pub mod content;
pub mod crew;
pub mod desk;
mod doors;
pub mod effects;
pub mod faults;
pub mod fetches;
pub mod figures;
pub mod fleet;
pub mod flows;
pub mod gates;
pub mod hub;
pub mod island;
mod losses;
pub mod machine;
pub mod mail;
pub mod measures;
mod mishaps;
mod operators;
pub mod plots;
pub mod queue;
pub mod reach;
pub mod rehearsal;
pub mod report;
pub mod scenario;
pub mod seeds;
pub mod series;
pub mod shared;
mod steps;
pub mod story;
pub mod timing;
pub mod traffic;
pub mod uplinks;
pub mod wires;
pub mod world;

use anyhow::Result;

pub use report::Report;
pub use scenario::Scenario;
pub use world::World;

/// Plays a scenario to its end on so many threads.
///
/// # Errors
/// When the scenario's names are malformed.
pub fn play(scenario: Scenario, threads: usize) -> Result<Report> {
    let mut world = World::new(scenario)?;
    world.run(threads);
    Ok(Report::of(&world))
}
