//! The pretend world: the same two brains that the real bodies drive, in virtual time.
//!
//! [`scenario`] says what the world is like and [`faults`] what goes wrong in it, [`world`] holds time and links, [`machine`] is a node's
//! body and [`desk`] the coordinator's, [`wires`] carry what they say and [`flows`] what they fetch,
//! [`story`] is what the operators do. [`checks`] looks on and knows only the rules; [`report`] tells.
//! One seed draws everything, one stream for each purpose: the same seed gives the same bytes.

pub mod checks;
pub mod content;
pub mod desk;
pub mod effects;
pub mod faults;
pub mod fetches;
pub mod fleet;
pub mod flows;
pub mod machine;
pub mod plots;
pub mod report;
pub mod scenario;
pub mod series;
pub mod story;
pub mod traffic;
pub mod wires;
pub mod world;

use anyhow::Result;

pub use report::Report;
pub use scenario::Scenario;
pub use world::World;

/// Plays a scenario to its end.
///
/// # Errors
/// When the scenario's names are malformed.
pub fn play(scenario: Scenario) -> Result<Report> {
    let mut world = World::new(scenario)?;
    world.run();
    Ok(Report::of(&world))
}
