//! Whole-brain tests: a scripted machine and coordinator carry out what the brain says, crash it at
//! will, and check at every single action what must always hold.

mod agents;
mod around;
mod assess;
mod checker;
mod constraints;
mod crashes;
mod interleavings;
mod leases;
mod recalls;
mod relations;
mod restores;
mod rotations;
mod site;
mod steps;

mod world;

pub(crate) use checker::Checker;
pub(crate) use world::{World, failure};
