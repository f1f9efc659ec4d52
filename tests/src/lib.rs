//! Whole-system tests: real processes of `tidegate` and `tidegate-node` on loopback.
//!
//! [`World`] raises a fleet in a temporary directory and ends what it started, by process id.
//! [`programs`] finds the executables, [`trees`] makes and compares what is installed, [`relay`] listens
//! on the line, [`member`] is enrolled and not to be trusted, [`pair`] is a node's privileged installer, [`rotation`] puts new roots in force, [`lab`] runs a fleet over links with real rates.

pub mod decoders;
pub mod lab;
pub mod member;
pub mod pair;
pub mod programs;
pub mod relay;
pub mod rotation;
pub mod trees;
pub mod world;

pub use world::{NodeProcess, World, WorldOptions};
